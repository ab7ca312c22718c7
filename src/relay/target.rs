//! Where traces go: the AgentTracing says it, and the relay follows it without a restart.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use tokio::sync::{OnceCell, watch};

use crate::api::AgentTracing;
use crate::core::relay::cause::Cause;
use crate::core::relay::sender::Sender;
use crate::core::settings::Settings;
use crate::core::settings::policy::Policy;
use crate::mlflow::{Access, Error, Http, MlflowClient, Stage};
use crate::telemetry::error_chain;

/// An MLflow server, and as whom it is spoken to.
#[derive(Debug)]
pub struct Target {
    tracking_uri: String,
    workspace: Option<String>,
    version: String,
    token_file: Option<PathBuf>,
    settings: Settings,
    /// Where it takes OTLP, once it has said so.
    otlp: OnceCell<String>,
    /// Numeric ids by name.
    experiments: Mutex<BTreeMap<String, String>>,
}

impl Target {
    /// Where the AgentTracing's traces go; none: no MLflow has answered yet.
    pub fn of(tracing: &AgentTracing, token_file: Option<PathBuf>) -> Option<Self> {
        let policy = Policy::of(tracing);
        let workspace = policy.workspace().map(str::to_owned);
        let Policy { settings, facts } = policy;
        let version =
            tracing.status.as_ref().and_then(|status| status.mlflow.as_ref()).map(|mlflow| mlflow.version.clone());
        Some(Self {
            tracking_uri: facts.tracking_uri.or_else(|| settings.address())?,
            workspace,
            version: version.unwrap_or_default(),
            // A token is sent over TLS only.
            token_file: token_file.filter(|_| settings.needs_token()),
            experiments: Mutex::new(facts.experiment_ids),
            settings,
            otlp: OnceCell::new(),
        })
    }

    /// Whether nothing that a request depends on has changed.
    fn is_same(&self, other: &Self) -> bool {
        let of = |target: &Self| {
            let Self { tracking_uri, workspace, version, token_file, settings, otlp: _, experiments: _ } = target;
            (tracking_uri.clone(), workspace.clone(), version.clone(), token_file.clone(), settings.experiment.clone())
        };
        of(self) == of(other)
    }

    /// The name of a workload's experiment.
    pub fn experiment_of(&self, sender: &Sender) -> String {
        self.settings.experiment_of(sender.name(), None)
    }

    /// How many requests the server bears at a time. Up to 3.11 its event loop blocks: one at a time gives more spans in a second
    /// than four, and its health is answered meanwhile.
    pub fn concurrency(&self) -> usize {
        let mut parts = self.version.split('.').map(|part| part.parse::<u64>().unwrap_or_default());
        let version = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if version >= (3, 12) { 3 } else { 1 }
    }

    /// The server's version; empty where it is not known.
    pub fn version(&self) -> &str {
        self.version.trim_start_matches('v')
    }

    /// The id of an experiment, as far as it is known.
    pub fn known_id(&self, name: &str) -> Option<String> {
        self.experiments().get(name).cloned()
    }

    /// The name of an experiment, as far as it is known.
    pub fn name_of(&self, id: &str) -> Option<String> {
        self.experiments().iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone())
    }

    /// An experiment is not there: it is looked for anew.
    pub fn forget_id(&self, name: &str) {
        self.experiments().remove(name);
    }

    /// MLflow, spoken to as whoever the relay is.
    pub fn client(&self, http: &Http) -> Result<MlflowClient, Cause> {
        Ok(MlflowClient::new(http, &self.tracking_uri).with_access(self.access()?))
    }

    /// Where it takes OTLP.
    pub async fn otlp_address(&self, mlflow: &MlflowClient) -> Result<&str, Cause> {
        let address = self.otlp.get_or_try_init(|| mlflow.otlp_address()).await;
        address.map(String::as_str).map_err(|error| cause(&error))
    }

    /// The id of an experiment, which is found or made.
    pub async fn experiment_id(&self, mlflow: &MlflowClient, name: &str) -> Result<String, Cause> {
        if let Some(id) = self.experiments().get(name) {
            return Ok(id.clone());
        }
        let restore = self.settings.experiment.restore_deleted;
        let found = mlflow.ensure_experiment(name, restore).await.map_err(|error| cause(&error))?;
        // A deleted one takes traces, answers with 200 and shows none of them.
        if found.stage == Stage::Deleted {
            return Err(Cause::ExperimentMissing);
        }
        self.experiments().insert(name.to_owned(), found.id.clone());
        Ok(found.id)
    }

    /// The token is read at each use: the kubelet replaces it.
    fn access(&self) -> Result<Access, Cause> {
        let token = match &self.token_file {
            Some(file) => {
                // Some kilobytes of the kubelet's memory.
                let token = std::fs::read_to_string(file).map_err(|_| Cause::Unauthorized)?;
                Some(token.trim().to_owned())
            }
            None => None,
        };
        Ok(Access { token, workspace: self.workspace.clone() })
    }

    fn experiments(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.experiments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer of MLflow means for a request.
pub(super) fn cause(error: &Error) -> Cause {
    match error {
        Error::Dns(_) | Error::Refused(_) | Error::Connection(_) | Error::Client(_) => Cause::Unreachable,
        Error::Timeout => Cause::Timeout,
        Error::Tls(_) => Cause::TlsUntrusted,
        Error::LoginPage | Error::Garbage => Cause::LoginPage,
        Error::Unauthorized => Cause::Unauthorized,
        Error::HostHeader | Error::Forbidden(_) | Error::Mesh => Cause::Forbidden,
        Error::NoWorkspace => Cause::WorkspaceMissing,
        Error::NotFound(Some(_)) => Cause::ExperimentMissing,
        Error::NotFound(None) | Error::TooOld(_) => Cause::WrongPath,
        Error::StorageFull { .. } => Cause::StorageFull,
        Error::Server { status: 429 | 502 | 503 | 504, .. } => Cause::Busy,
        Error::Server { .. } | Error::Rejected { .. } => Cause::Failed,
    }
}

/// Follows one AgentTracing for ever.
pub async fn follow(
    client: Client,
    (namespace, name): (String, String),
    token_file: Option<PathBuf>,
    targets: watch::Sender<Option<Arc<Target>>>,
) -> Infallible {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let api = Api::<DeserializeGuard<AgentTracing>>::namespaced(client, &namespace);
    let mut events = pin!(watch_objects(api, only).default_backoff());
    loop {
        match events.next().await {
            Some(Ok(Event::InitApply(object) | Event::Apply(object))) => match object.0 {
                Ok(tracing) => publish(&targets, Target::of(&tracing, token_file.clone())),
                Err(error) => tracing::warn!(%error, "the AgentTracing cannot be read; the last one counts"),
            },
            // What was accepted goes where it went, until the relay itself is taken away.
            Some(Ok(Event::Delete(_) | Event::Init | Event::InitDone)) | None => {}
            Some(Err(error)) => tracing::warn!(error = error_chain(&error), "failed to watch the AgentTracing"),
        }
    }
}

fn publish(targets: &watch::Sender<Option<Arc<Target>>>, target: Option<Target>) {
    // An AgentTracing that has lost its status for a moment moves nobody.
    let Some(target) = target else { return };
    targets.send_if_modified(|current| {
        let changes = current.as_ref().is_none_or(|current| !current.is_same(&target));
        if changes {
            tracing::info!(mlflow = target.tracking_uri, version = target.version, "traces go to");
            *current = Some(Arc::new(target));
        }
        changes
    });
}
