"""A bank's loan desk in Google ADK, traced as MLflow's documentation shows it: ADK's own OpenTelemetry spans, sent by OTLP to
`<tracking URI>/v1/traces` with the number of the experiment in a header.

That path is the documentation's. A server that has its REST API under a prefix has OTLP at the origin all the same: there
this code gets 404.
"""

import asyncio
import itertools
import os
import signal
import sys

# The first process of a container is ended by SIGTERM only if it says how; and the imports below take seconds.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

token_file = os.environ.get("MLFLOW_TRACKING_TOKEN_FILE", "")
if os.path.isfile(token_file):
    with open(token_file) as file:
        os.environ["MLFLOW_TRACKING_TOKEN"] = file.read().strip()

import mlflow
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def experiment_id():
    """OTLP wants the number; people choose names."""
    if destination := os.environ.get("MLFLOW_TRACING_DESTINATION"):
        return destination
    return mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "loans")).experiment_id


def exporter_to(uri):
    if "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in os.environ:
        return OTLPSpanExporter()  # the environment says where to, as OpenTelemetry has it
    headers = {"x-mlflow-experiment-id": experiment_id()}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    if workspace := os.environ.get("MLFLOW_WORKSPACE"):
        headers["x-mlflow-workspace"] = workspace
    return OTLPSpanExporter(endpoint=f"{uri.rstrip('/')}/v1/traces", headers=headers)


def send_traces_to(uri):
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter_to(uri)))
    trace.set_tracer_provider(provider)


# It would ask the internet for prices of models at each start.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

# Before ADK is imported: it takes its tracer then.
if uri := os.environ.get("MLFLOW_TRACKING_URI"):
    try:
        send_traces_to(uri)
    except Exception as error:  # an absent MLflow must not end the service
        print(f"no traces: {type(error).__name__}: {error}", flush=True)

from google.adk.agents import Agent
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import InMemoryRunner
from google.genai import types

RATES = {"LOAN-10": "3.9 %", "LOAN-20": "4.4 %"}


def get_rate(loan: str) -> str:
    """Look up the interest rate of a loan by its number."""
    return f"the rate of {loan} is {RATES.get(loan, 'unknown')}"


desk = Agent(
    name="loan_desk",
    model=LiteLlm(model=f"openai/{os.environ.get('OPENAI_MODEL', 'gpt-4o-mini')}"),
    instruction="Answer questions about loans.",
    tools=[get_rate],
)


async def answer(runner, question):
    session = await runner.session_service.create_session(app_name="bank", user_id="customer")
    message = types.Content(role="user", parts=[types.Part(text=question)])
    said = None
    # To the end: leaving earlier tears ADK's spans out of their context, and they count as failed.
    async for event in runner.run_async(user_id="customer", session_id=session.id, new_message=message):
        if event.is_final_response() and event.content:
            said = event.content.parts[0].text
    return said


async def main():
    pause = float(os.environ.get("QUESTION_EVERY_SECONDS", "20"))
    runner = InMemoryRunner(agent=desk, app_name="bank")
    print("the loan desk is open", flush=True)
    for loan in itertools.cycle(RATES):
        question = f"What is the rate of loan {loan}?"
        try:
            print(f"{question} -> {await answer(runner, question)}", flush=True)
        except Exception as error:  # a busy or absent model must not end the service
            print(f"{question} -> no answer: {type(error).__name__}: {error}", flush=True)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(main())
