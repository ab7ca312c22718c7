#!/usr/bin/env python3
"""Prints the newest finished trace of an experiment as a tree of its spans, read from MLflow's REST API.

  trace_tree.py URL EXPERIMENT [--wait SECONDS]
  kubectl exec -i deploy/tracing-mlflow -- python3 - URL EXPERIMENT < trace_tree.py

Needs nothing but Python. Exit code 1: no trace with spans (within that time).
"""

import argparse
import base64
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url", help="MLflow's address, such as http://127.0.0.1:5500")
parser.add_argument("experiment", help="the experiment's name")
parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="how long to wait for a trace")


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    # No proxy: a cluster's addresses mean nothing to it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=15) as answer:
        return json.load(answer)


def plain(value):
    """A value of OpenTelemetry's JSON form ({"string_value": …}, {"kvlist_value": …}) as an ordinary one."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    kind, inner = next(iter(value.items()))
    if kind == "kvlist_value":
        return {pair["key"]: plain(pair.get("value")) for pair in inner.get("values", [])}
    if kind == "array_value":
        return [plain(item) for item in inner.get("values", [])]
    return int(inner) if kind == "int_value" else inner


def attributes_of(span):
    attributes = span.get("attributes") or {}
    if isinstance(attributes, list):
        return {pair["key"]: plain(pair.get("value")) for pair in attributes}
    decoded = {}
    for key, value in attributes.items():
        try:
            decoded[key] = json.loads(value)
        except (TypeError, ValueError):
            decoded[key] = value
    return decoded


def spans_of(base, trace_id):
    """From the database, where MLflow keeps them by default, else from the trace's artifact."""
    quoted = urllib.parse.quote(trace_id)
    spans = ask(f"{base}/api/3.0/mlflow/traces/get?trace_id={quoted}")["trace"].get("spans")
    if not spans:
        try:
            spans = ask(f"{base}/ajax-api/2.0/mlflow/get-trace-artifact?request_id={quoted}").get("spans")
        except urllib.error.HTTPError:
            spans = None
    return spans or []


def newest(base, experiment):
    name = urllib.parse.quote(experiment, safe="")
    try:
        found = ask(f"{base}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}")["experiment"]
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None, f"there is no experiment '{experiment}'"
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": found["experiment_id"]}}
    traces = ask(
        f"{base}/api/3.0/mlflow/traces/search",
        {"locations": [place], "max_results": 10, "order_by": ["timestamp_ms DESC"]},
    ).get("traces")
    if not traces:
        return None, f"experiment '{experiment}' has no trace"
    # Spans arrive as they end, the outermost last: until then a trace is there in part.
    finished = next((trace for trace in traces if trace.get("state") != "IN_PROGRESS"), None)
    if finished is None:
        return None, f"no trace of experiment '{experiment}' has ended yet"
    spans = spans_of(base, finished["trace_id"])
    if not spans:
        return None, f"trace {finished['trace_id']} has no spans"
    return (finished, spans), None


def tool_calls(value):
    """Every tool call a model's answer asks for, however deep it lies in there."""
    if isinstance(value, list):
        return [call for item in value for call in tool_calls(item)]
    if not isinstance(value, dict):
        return []
    calls = []
    for call in value.get("tool_calls") or []:
        function = call.get("function") or {}
        name = call.get("name") or function.get("name")
        arguments = call.get("args") if call.get("args") is not None else function.get("arguments")
        calls.append((name, arguments))
    if calls:
        return calls
    return [call for item in value.values() for call in tool_calls(item)]


def short(value, limit=70):
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        value = value["content"]  # a message
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def remark(kind, attributes):
    if kind == "TOOL":
        return f"{short(attributes.get('mlflow.spanInputs'))} → {short(attributes.get('mlflow.spanOutputs'))}"
    if kind in ("CHAT_MODEL", "LLM"):
        outputs = attributes.get("mlflow.spanOutputs")
        calls = {f"{name}({short(arguments)})": None for name, arguments in tool_calls(outputs)}
        # LangChain 1.x leaves the calls out of what it hands to MLflow 3.10, but says why the model stopped.
        if calls or '"finish_reason": "tool_calls"' in json.dumps(outputs):
            return "asks for " + (", ".join(calls) or "a tool")
        return "answers"
    return ""


def identity(span, key):
    """Ids are base64 in one form and hexadecimal in the other; only equality matters here."""
    value = span.get(key) or ""
    try:
        return base64.b64decode(value, validate=True) if value else b""
    except ValueError:
        return value


def lines(trace, spans):
    began = trace["request_time"].replace("T", " ").split(".")[0]
    duration = trace.get("execution_duration", "unfinished")
    yield f"trace {trace['trace_id']}  {trace.get('state', '?')}  {duration}  {len(spans)} spans  {began} UTC"
    known = {identity(span, "span_id") for span in spans}
    below = {}
    for span in sorted(spans, key=lambda span: int(span["start_time_unix_nano"])):
        parent = identity(span, "parent_span_id")
        below.setdefault(parent if parent in known else None, []).append(span)

    def rows(parent, indent):
        siblings = below.get(parent, [])
        for number, span in enumerate(siblings):
            last = number == len(siblings) - 1
            branch, deeper = ("", "") if parent is None else ("└─ ", "   ") if last else ("├─ ", "│  ")
            attributes = attributes_of(span)
            kind = attributes.get("mlflow.spanType") or "UNKNOWN"
            took = (int(span.get("end_time_unix_nano") or 0) - int(span["start_time_unix_nano"])) / 1e6
            yield indent + branch + span["name"], kind, took, remark(kind, attributes)
            yield from rows(identity(span, "span_id"), indent + deeper)

    table = list(rows(None, ""))
    width = max(len(row[0]) for row in table)
    types = max(len(row[1]) for row in table)
    for name, kind, took, note in table:
        time_taken = f"{took:8.1f} ms" if took >= 0 else "   running"
        yield f"{name:<{width}}  {kind:<{types}} {time_taken}  {note}".rstrip()


def main():
    options = parser.parse_args()
    base = options.url.rstrip("/")
    end = time.monotonic() + options.wait
    while True:
        try:
            found, why = newest(base, options.experiment)
        except (OSError, ValueError, KeyError) as error:
            found, why = None, f"{base}: {error}"
        if found:
            sys.stdout.reconfigure(encoding="utf-8")
            print("\n".join(lines(*found)))
            return
        if time.monotonic() >= end:
            sys.exit(why)
        time.sleep(1)


main()
