"""A bank's fee desk in LlamaIndex, traced as MLflow's documentation shows it."""

import asyncio
import itertools
import os
import signal
import sys

# The first process of a container is ended by SIGTERM only if it says how; and the imports below take seconds.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

# No version of the SDK reads a token from a file by itself.
token_file = os.environ.get("MLFLOW_TRACKING_TOKEN_FILE", "")
if os.path.isfile(token_file):
    with open(token_file) as file:
        os.environ["MLFLOW_TRACKING_TOKEN"] = file.read().strip()

import mlflow
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai_like import OpenAILike

mlflow.llama_index.autolog()

FEES = {"transfer": "0.10 EUR", "statement": "2.50 EUR"}


def get_fee(service: str) -> str:
    """Look up what a service costs."""
    return f"{service} costs {FEES.get(service, 'nobody knows what')}"


model = OpenAILike(
    model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
    api_base=os.environ.get("OPENAI_BASE_URL"),
    api_key=os.environ.get("OPENAI_API_KEY"),
    is_chat_model=True,
    is_function_calling_model=True,
)
desk = FunctionAgent(tools=[get_fee], llm=model, system_prompt="Answer questions about fees.", streaming=False)


async def answer(question):
    return await desk.run(question)


async def main():
    pause = float(os.environ.get("QUESTION_EVERY_SECONDS", "20"))
    print("the fee desk is open", flush=True)
    for service in itertools.cycle(FEES):
        question = f"What does '{service}' cost?"
        try:
            print(f"{question} -> {await answer(question)}", flush=True)
        except Exception as error:  # a busy or absent model must not end the service
            print(f"{question} -> no answer: {type(error).__name__}: {error}", flush=True)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(main())
