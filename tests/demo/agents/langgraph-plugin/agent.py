"""A bank's card desk in LangGraph on a newer MLflow: no code for tokens at all.

The SDK (3.11 and newer, with the package `kubernetes`) takes the pod's token and namespace by itself where
MLFLOW_TRACKING_AUTH is `kubernetes-namespaced`.
"""

import itertools
import os
import signal
import sys
import time

# The first process of a container is ended by SIGTERM only if it says how; and the imports below take seconds.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

import mlflow
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

mlflow.langchain.autolog()

LIMITS = {"CARD-77": "1,500 EUR", "CARD-78": "blocked"}


@tool
def get_limit(card: str) -> str:
    """Look up the limit of a card by its number."""
    return f"the limit of {card} is {LIMITS.get(card, 'unknown')}"


desk = create_agent(ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), temperature=0), [get_limit])


def main():
    pause = float(os.environ.get("QUESTION_EVERY_SECONDS", "20"))
    print("the card desk is open", flush=True)
    for card in itertools.cycle(LIMITS):
        question = f"What is the limit of card {card}?"
        try:
            result = desk.invoke({"messages": [{"role": "user", "content": question}]})
            print(f"{question} -> {result['messages'][-1].content}", flush=True)
        except Exception as error:  # a busy or absent model must not end the service
            print(f"{question} -> no answer: {type(error).__name__}: {error}", flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    main()
