"""A bank's branch finder in AutoGen, traced as MLflow's documentation shows it."""

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
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient

# After these imports: it patches the classes that exist now.
mlflow.autogen.autolog()

BRANCHES = {"Berlin": "Unter den Linden 12", "Bonn": "Markt 3"}


def get_branch(city: str) -> str:
    """Look up the address of the branch in a city."""
    return f"the branch in {city} is at {BRANCHES.get(city, 'no address')}"


async def answer(question):
    model = OpenAIChatCompletionClient(model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"))
    finder = AssistantAgent("finder", model_client=model, tools=[get_branch], reflect_on_tool_use=True)
    result = await finder.run(task=question)
    await model.close()
    return result.messages[-1].content


async def main():
    pause = float(os.environ.get("QUESTION_EVERY_SECONDS", "20"))
    print("the branch finder is open", flush=True)
    for city in itertools.cycle(BRANCHES):
        question = f"Where is the branch in '{city}'?"
        try:
            print(f"{question} -> {await answer(question)}", flush=True)
        except Exception as error:  # a busy or absent model must not end the service
            print(f"{question} -> no answer: {type(error).__name__}: {error}", flush=True)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(main())
