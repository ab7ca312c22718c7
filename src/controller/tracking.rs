//! Everything that is asked of MLflow, at a calm pace and never more than a bounded number of questions in one pass.

mod experiments;
mod traces;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Context, Error};
use crate::api::{AgentTracingStatus, MlflowMode, MlflowStatus};
use crate::core::settings::Settings;
use crate::core::status::Experiments;
use crate::core::status::writes::Writes;
use crate::core::workloads::Assessment;
use crate::core::workloads::evidence::Evidence;
use crate::mlflow::{self, MlflowClient};

/// Most questions of one kind in one pass.
const MAX_QUESTIONS: usize = 20;
/// How soon MLflow is asked again while something is awaited, and afterwards.
const FAST_POLL: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_secs(30);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct TrackingState {
    experiments: experiments::ExperimentCache,
    traces: traces::TraceCache,
    /// Whether OTLP is taken at a tracking URI.
    otlp: Option<(String, bool)>,
}

/// What is asked about.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub settings: &'a Settings,
    pub workloads: &'a [Assessment],
    pub old: &'a AgentTracingStatus,
    /// The MLflow that answers now.
    pub answered: Option<&'a MlflowStatus>,
}

/// What is known of it.
pub(super) struct Answers {
    /// Whether OTLP is taken at the tracking URI of a shared server; `None` where nobody could ask.
    pub takes_otlp: Option<bool>,
    pub experiments: Experiments,
    /// By uid of the workload.
    pub traces: BTreeMap<String, Evidence>,
    /// Whether MLflow writes, where there was cause to try.
    pub writes: Option<Writes>,
    /// When to ask again.
    pub look_again: Duration,
}

/// Asks what is due. What was learnt in earlier passes counts until there is a newer answer.
pub(super) async fn ask(
    ctx: &Context,
    mlflow: Option<&MlflowClient>,
    question: Question<'_>,
    memory: &mut TrackingState,
    now: Timestamp,
) -> Result<Answers, Error> {
    let takes_otlp = takes_otlp(mlflow, question.settings, &mut memory.otlp).await; // IO
    let ensured = experiments::ensure(mlflow, question, &mut memory.experiments, now).await; // IO
    if ensured.anew {
        memory.traces.forget_answers(now);
    }
    let found = traces::look(ctx, mlflow, question, &ensured, &mut memory.traces, now).await?; // IO
    let hurried = found.hurried || ensured.more;
    Ok(Answers {
        takes_otlp,
        traces: found.evidence,
        writes: ensured.writes.or(found.writes),
        experiments: ensured.experiments,
        look_again: if hurried { FAST_POLL } else { POLL },
    })
}

/// Asked once per address.
async fn takes_otlp(
    mlflow: Option<&MlflowClient>,
    settings: &Settings,
    known: &mut Option<(String, bool)>,
) -> Option<bool> {
    let mlflow = mlflow.filter(|_| settings.mode == MlflowMode::Cr)?;
    let uri = mlflow.tracking_uri();
    if known.as_ref().is_none_or(|(of, _)| of != uri) {
        *known = Some((uri.to_owned(), mlflow.takes_otlp().await.ok()?));
    }
    known.as_ref().map(|(_, takes)| *takes)
}

/// What an answer to a write says of the server. A refusal of ourselves says nothing of what agents write.
fn writes(answer: &Result<(), mlflow::Error>) -> Option<Writes> {
    match answer {
        Ok(()) => Some(Writes::Taken),
        Err(mlflow::Error::StorageFull { .. }) => Some(Writes::Full),
        Err(error @ mlflow::Error::Server { status: 500.., .. }) => Some(Writes::Refused(error.to_string())),
        Err(error @ mlflow::Error::Rejected { code: Some(code), .. }) if code == experiments::UNKNOWN_TROUBLE => {
            Some(Writes::Refused(error.to_string()))
        }
        Err(_) => None,
    }
}
