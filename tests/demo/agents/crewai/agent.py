"""A bank's rates desk in CrewAI, traced as MLflow's documentation shows it."""

import itertools
import os
import signal
import sys
import time

# The first process of a container is ended by SIGTERM only if it says how; and the imports below take seconds.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

# No version of the SDK reads a token from a file by itself.
token_file = os.environ.get("MLFLOW_TRACKING_TOKEN_FILE", "")
if os.path.isfile(token_file):
    with open(token_file) as file:
        os.environ["MLFLOW_TRACKING_TOKEN"] = file.read().strip()

# It would call home, and keep its files in a home directory that a container need not have.
os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
os.environ.setdefault("HOME", "/tmp")
if not os.access(os.environ["HOME"], os.W_OK):
    os.environ["HOME"] = "/tmp"

import mlflow
from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

mlflow.crewai.autolog()

RATES = {"savings": "2.1 %", "overdraft": "9.8 %"}


@tool
def get_rate(account: str) -> str:
    """Look up the interest rate of a kind of account."""
    return f"the rate of {account} is {RATES.get(account, 'unknown')}"


def answer(question):
    model = LLM(model=f"openai/{os.environ.get('OPENAI_MODEL', 'gpt-4o-mini')}", base_url=os.environ.get("OPENAI_BASE_URL"))
    clerk = Agent(role="clerk", goal="answer questions about rates", backstory="A clerk of the bank.", llm=model, tools=[get_rate])
    task = Task(description=question, expected_output="one sentence", agent=clerk)
    return Crew(agents=[clerk], tasks=[task]).kickoff().raw


def main():
    pause = float(os.environ.get("QUESTION_EVERY_SECONDS", "20"))
    print("the rates desk is open", flush=True)
    for account in itertools.cycle(RATES):
        question = f"What is the rate of a '{account}' account?"
        try:
            print(f"{question} -> {answer(question)}", flush=True)
        except Exception as error:  # a busy or absent model must not end the service
            print(f"{question} -> no answer: {type(error).__name__}: {error}", flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    main()
