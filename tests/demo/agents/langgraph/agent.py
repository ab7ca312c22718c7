"""A bank teller's assistant in LangGraph, traced as MLflow's documentation shows it.

It knows nothing of who runs MLflow: the SDK reads MLFLOW_TRACKING_URI and its other settings from the environment by
itself, the OpenAI client reads OPENAI_BASE_URL and OPENAI_API_KEY. The one thing an agent has to do for a server that wants
a token is in the first lines below.
"""

import itertools
import os
import signal
import sys
import time

# The first process of a container is ended by SIGTERM only if it says how; and the imports below take seconds.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

# No version of the SDK reads a token from a file by itself. Before the import, as the documentation has it.
token_file = os.environ.get("MLFLOW_TRACKING_TOKEN_FILE", "")
if os.path.isfile(token_file):
    with open(token_file) as file:
        os.environ["MLFLOW_TRACKING_TOKEN"] = file.read().strip()

import mlflow
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent

mlflow.langchain.autolog()

ACCOUNTS = {"DE-1001": "2,310.55 EUR", "DE-1002": "18.20 EUR", "DE-1003": "104,000.00 EUR"}


@tool
def get_balance(account: str) -> str:
    """Look up the current balance of an account by its number."""
    time.sleep(0.05)
    return f"the balance of {account} is {ACCOUNTS.get(account, 'unknown')}"


llm = ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), temperature=0)
graph = create_react_agent(llm, [get_balance])


def main():
    pause = float(os.environ.get("QUESTION_EVERY_SECONDS", "20"))
    print("the teller's assistant is open", flush=True)
    for account in itertools.cycle(ACCOUNTS):
        question = f"What is the balance of account {account}?"
        try:
            result = graph.invoke({"messages": [{"role": "user", "content": question}]})
            print(f"{question} -> {result['messages'][-1].content}", flush=True)
        except Exception as error:  # a busy or absent model must not end the service
            print(f"{question} -> no answer: {type(error).__name__}: {error}", flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    main()
