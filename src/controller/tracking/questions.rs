//! Questions to MLflow, and who asks them.

use std::sync::Arc;

use jiff::Timestamp;

use super::{experiments, searches};
use crate::controller::probing::Gate;
use crate::core::workloads::rhythm::MAX_TRACES;
use crate::mlflow::{self, MlflowClient};

/// One question to MLflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether OTLP is taken at the tracking URI.
    Otlp,
    /// An experiment by its name.
    Experiment(String),
    /// Which experiments were deleted last.
    Deleted,
    /// The newest traces of these experiments, of those that began after a moment.
    Newest { ids: Vec<String>, since: Option<Timestamp> },
    /// Whether the spans of an experiment's newest trace are there.
    Spans(String),
    /// When the traces of an experiment began.
    Rhythm(String),
    /// Whether MLflow writes a tag of an experiment.
    Trial(String),
}

/// By which an AgentTracing's server is asked.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub mlflow: MlflowClient,
    pub gate: Arc<Gate>,
    pub asks_for_otlp: bool,
    pub restores_deleted: bool,
}

/// What MLflow said.
pub(super) enum Answer {
    Otlp(String, bool),
    Experiment(Result<mlflow::Experiment, mlflow::Error>),
    Deleted(Vec<String>),
    Newest(Vec<(String, mlflow::Trace)>),
    Spans(Option<mlflow::Trace>),
    Rhythm(Vec<Timestamp>),
    Trial(Result<(), mlflow::Error>),
}

impl Client {
    pub async fn ask(&self, question: Question) -> Result<Answer, mlflow::Error> {
        let mlflow = &self.mlflow;
        Ok(match question {
            Question::Otlp => Answer::Otlp(mlflow.tracking_uri().to_owned(), mlflow.takes_otlp().await?),
            Question::Experiment(name) => {
                Answer::Experiment(mlflow.ensure_experiment(&name, self.restores_deleted).await)
            }
            Question::Deleted => Answer::Deleted(mlflow.deleted_experiments(experiments::MOST_DELETED).await?),
            Question::Newest { ids, since } => {
                Answer::Newest(mlflow.newest_traces(&ids, since, searches::rows(&ids)).await?)
            }
            Question::Spans(id) => Answer::Spans(searches::newest(mlflow, &id, Timestamp::now()).await?),
            Question::Rhythm(id) => Answer::Rhythm(mlflow.trace_times(&id, MAX_TRACES).await?),
            Question::Trial(id) => Answer::Trial(mlflow.write_check(&id, &Timestamp::now().to_string()).await),
        })
    }
}
