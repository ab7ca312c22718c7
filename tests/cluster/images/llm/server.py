#!/usr/bin/env python3
"""A stand-in for a language model: a small HTTP server that speaks enough of the OpenAI API for agent frameworks.

It knows nothing and costs nothing, but behaves as a model with tools does: asked a question with tools on offer it
asks for a tool to be called; given the tool's result it answers in one sentence. Streaming works too.

  GET  /health                 200 ok
  GET  /v1/models              the models it claims to serve
  POST /v1/chat/completions    plain and streamed, with and without tools

Environment: PORT (8080), MODEL (stand-in-1), DELAY_MS (150: how long the model "thinks" before each answer).
"""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", "8080"))
MODEL = os.environ.get("MODEL", "stand-in-1")
DELAY = int(os.environ.get("DELAY_MS", "150")) / 1000
MAX_BODY = 8 << 20


def text_of(content):
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(p.get("text", "") for p in content if isinstance(p, dict)).strip()
    return ""


def value_for(name, schema, question):
    """An argument for one parameter of a tool, taken from the question where that is possible."""
    if "anyOf" in schema:
        schema = next((s for s in schema["anyOf"] if s.get("type") != "null"), {})
    if schema.get("enum"):
        asked = question.lower()
        return next((v for v in schema["enum"] if str(v).lower() in asked), schema["enum"][0])
    kind = schema.get("type", "string")
    numbers = re.findall(r"(?<![\w-])-?\d+(?:\.\d+)?", question)
    if kind == "integer":
        return int(float(numbers[0])) if numbers else 1
    if kind == "number":
        return float(numbers[0]) if numbers else 1.0
    if kind == "boolean":
        return True
    if kind == "array":
        return [value_for(name, schema.get("items", {}), question)]
    if kind == "object":
        return arguments_for(schema, question)
    quoted = re.findall(r"[\"'“]([^\"'”]+)[\"'”]", question)
    if quoted:
        return quoted[0]
    codes = re.findall(r"\b[A-Z]{1,4}-?\d[\w-]*\b", question)  # such as DE-1001
    return codes[0] if codes else question[:200] or name


def arguments_for(schema, question):
    wanted = schema.get("required") or list(schema.get("properties", {}))
    properties = schema.get("properties", {})
    return {name: value_for(name, properties.get(name, {}), question) for name in wanted}


def think(request):
    """The assistant's message for a request: (content, tool calls)."""
    messages = [m for m in request.get("messages", []) if isinstance(m, dict)]
    last_user = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=-1)
    question = text_of(messages[last_user].get("content")) if last_user >= 0 else ""
    results = [text_of(m.get("content")) for m in messages[last_user + 1 :] if m.get("role") == "tool"]
    if results:
        return f"I looked it up for you: {'; '.join(results)}", []
    tools = [t["function"] for t in request.get("tools") or [] if isinstance(t, dict) and t.get("type") == "function"]
    choice = request.get("tool_choice")
    if isinstance(choice, dict):
        named = choice.get("function", {}).get("name")
        tools = [t for t in tools if t.get("name") == named] or tools
    if tools and choice != "none":
        asked = question.lower()

        def fits(tool):
            return sum(word in asked for word in re.split(r"[^a-z]+", tool.get("name", "").lower()) if len(word) > 2)

        tool = max(tools, key=fits)
        return None, [
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "arguments": json.dumps(arguments_for(tool.get("parameters") or {}, question)),
                },
            }
        ]
    return f"You asked: {question}" if question else "Hello. What would you like to know?", []


def usage(request, content, calls):
    prompt = len(json.dumps(request.get("messages", []))) // 4 + 1
    completion = len(content or json.dumps(calls)) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "openai-stand-in/1"
    timeout = 120
    disable_nagle_algorithm = True

    def answer(self, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message):
        self.answer(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})

    def do_GET(self):
        path = self.path.split("?")[0].rstrip("/")
        if path == "/health":
            self.answer(200, b"ok\n", "text/plain")
        elif path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "demo"}
            self.answer(200, {"object": "list", "data": [model]})
        else:
            self.fail(404, f"no such path: {path}")

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            self.close_connection = True
            return self.fail(411, "a Content-Length is needed")
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            return self.fail(413, "the request is too large")
        data = self.rfile.read(length)
        if self.path.split("?")[0].rstrip("/") != "/v1/chat/completions":
            return self.fail(404, f"no such path: {self.path}")
        try:
            request = json.loads(data)
            started = time.time()
            content, calls = think(request)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self.fail(400, f"cannot read the request: {error}")
        time.sleep(DELAY)
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
            "created": int(started),
            "model": request.get("model") or MODEL,
        }
        finish = "tool_calls" if calls else "stop"
        if request.get("stream"):
            return self.stream(request, head, content, calls, finish)
        message = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        self.answer(
            200,
            {
                **head,
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
                "usage": usage(request, content, calls),
            },
        )

    def stream(self, request, head, content, calls, finish):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def chunk(payload):
            data = f"data: {payload if isinstance(payload, str) else json.dumps(payload)}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def delta(body, reason=None):
            choice = {"index": 0, "delta": body, "logprobs": None, "finish_reason": reason}
            chunk({**head, "object": "chat.completion.chunk", "choices": [choice]})

        delta({"role": "assistant", "content": None if calls else ""})
        for index, call in enumerate(calls):
            delta({"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]})
            delta({"tool_calls": [{"index": index, "function": {"arguments": call["function"]["arguments"]}}]})
        for word in re.findall(r"\S+\s*", content or ""):
            delta({"content": word})
        delta({}, finish)
        if (request.get("stream_options") or {}).get("include_usage"):
            chunk({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage(request, content, calls)})
        chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format, *args):
        if self.path != "/health":
            print(f"{self.address_string()} {format % args}", flush=True)

    def handle(self):
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class ServerOfBothFamilies(Server):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main():
    if len(sys.argv) > 1:
        address, server = sys.argv[1], Server((sys.argv[1], PORT), Handler)
    elif socket.has_dualstack_ipv6():
        address, server = "::", ServerOfBothFamilies(("::", PORT), Handler)
    else:
        address, server = "0.0.0.0", Server(("0.0.0.0", PORT), Handler)

    def stop(*_):
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"serving {MODEL} on {address}:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
