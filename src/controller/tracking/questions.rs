//! Questions to MLflow, and who asks them.

use std::sync::Arc;

use jiff::Timestamp;

use super::searches;
use crate::controller::mlflow_credentials::AuthenticatedClient;
use crate::controller::probing::Gate;
use crate::core::status::writes::Writes;
use crate::core::workloads::rhythm::MAX_TRACES;
use crate::mlflow;

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
    pub mlflow: AuthenticatedClient,
    /// The version of that server.
    pub version: String,
    pub gate: Arc<Gate>,
    pub asks_for_otlp: bool,
    pub restores_deleted: bool,
}

/// What MLflow said.
pub(super) enum Answer {
    Otlp(OtlpSupport),
    Experiment(Result<mlflow::Experiment, mlflow::Error>),
    Deleted(Vec<String>),
    Newest(Vec<(String, mlflow::Trace)>),
    Spans(Option<mlflow::Trace>),
    Rhythm(Vec<Timestamp>),
    Trial(Result<(), mlflow::Error>),
}

/// Whether OTLP is taken at a tracking URI, by the version that answered there. Another version may do otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OtlpSupport {
    pub tracking_uri: String,
    pub version: String,
    pub is_taken: bool,
}

impl OtlpSupport {
    pub fn is_of(&self, client: &Client) -> bool {
        self.tracking_uri == client.mlflow.tracking_uri() && self.version == client.version
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// MLflow was not asked.
    #[error("failed to get a token to show to MLflow")]
    Token(#[source] kube::Error),
    #[error(transparent)]
    Mlflow(#[from] mlflow::Error),
}

impl Client {
    pub async fn ask(&self, question: Question) -> Result<Answer, AskError> {
        let mlflow = &self.mlflow.at(Timestamp::now()).await.map_err(AskError::Token)?;
        Ok(match question {
            Question::Otlp => {
                let (tracking_uri, version) = (mlflow.tracking_uri().to_owned(), self.version.clone());
                Answer::Otlp(OtlpSupport { tracking_uri, version, is_taken: mlflow.takes_otlp().await? })
            }
            Question::Experiment(name) => {
                Answer::Experiment(mlflow.ensure_experiment(&name, self.restores_deleted).await)
            }
            Question::Deleted => Answer::Deleted(mlflow.deleted_experiments(MOST_DELETED).await?),
            Question::Newest { ids, since } => {
                Answer::Newest(mlflow.newest_traces(&ids, since, searches::rows(&ids)).await?)
            }
            Question::Spans(id) => Answer::Spans(searches::newest(mlflow, &id, Timestamp::now()).await?),
            Question::Rhythm(id) => Answer::Rhythm(mlflow.trace_times(&id, MAX_TRACES).await?),
            Question::Trial(id) => Answer::Trial(mlflow.write_check(&id, &Timestamp::now().to_string()).await),
        })
    }
}

/// What an answer to a write says of the server. A refusal of ourselves says nothing of what agents write.
pub(super) fn writes<T>(answer: &Result<T, mlflow::Error>) -> Option<Writes> {
    match answer {
        Ok(_) => Some(Writes::Taken),
        Err(mlflow::Error::StorageFull { .. }) => Some(Writes::Full),
        Err(error @ mlflow::Error::Server { status: 500.., .. }) => Some(Writes::Refused(error.to_string())),
        Err(error @ mlflow::Error::Rejected { code: Some(code), .. }) if code == UNKNOWN_TROUBLE => {
            Some(Writes::Refused(error.to_string()))
        }
        Err(_) => None,
    }
}

/// What MLflow calls an error of its database that it does not know, for example of a read-only one.
pub(super) const UNKNOWN_TROUBLE: &str = "BAD_REQUEST";
/// Deleted experiments that are asked for.
const MOST_DELETED: usize = 100;
