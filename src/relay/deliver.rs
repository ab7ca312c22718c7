//! How each kind of request gets into MLflow, and how it is found out whether one is there that MLflow refuses.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;

use super::otlp;
use super::request::{Kind, StoredRequest};
use super::target::{Target, cause};
use crate::core::relay::bodies;
use crate::core::relay::cause::Cause;
use crate::core::relay::sender::ExperimentRef;
use crate::mlflow::{Error, Http, MlflowClient};

impl Target {
    /// Sends a request of a workload to its experiment.
    pub async fn send(&self, http: &Http, experiment: &ExperimentRef, request: &StoredRequest) -> Result<(), Cause> {
        let mlflow = self.client(http)?;
        match request.kind {
            Kind::Spans(encoding) => {
                let spans = otlp::unpack(encoding, &request.body).map_err(|_| Cause::Failed)?;
                self.spans(&mlflow, experiment, spans).await
            }
            Kind::Start => self.start(&mlflow, experiment, request).await,
            Kind::File => self.file(&mlflow, experiment, request).await,
            Kind::Assessment => assessment(&mlflow, request).await,
            Kind::Change => match write(&mlflow, Method::PATCH, request).await {
                Err(error) if is_refusal(&error) => Err(refusal_of_trace(&mlflow, request).await),
                written => written.map_err(|error| cause(&error)),
            },
            Kind::DeleteTag => match write(&mlflow, Method::DELETE, request).await {
                // There is nothing to delete.
                Err(Error::NotFound(Some(_))) => Ok(()),
                Err(error) if is_refusal(&error) => Err(refusal_of_trace(&mlflow, request).await),
                written => written.map_err(|error| cause(&error)),
            },
        }
    }

    async fn spans(&self, mlflow: &MlflowClient, experiment: &ExperimentRef, spans: Bytes) -> Result<(), Cause> {
        let address = self.otlp_address(mlflow).await?;
        let id = self.id_of(mlflow, experiment).await?;
        let sent = mlflow.export(address, &id, spans, PATIENCE).await;
        self.look_again_if_missing(experiment, sent)
    }

    /// A trace's row. MLflow 3.10.1 refuses one that comes after an assessment or a tag of its trace, also where it was there before.
    async fn start(
        &self,
        mlflow: &MlflowClient,
        experiment: &ExperimentRef,
        request: &StoredRequest,
    ) -> Result<(), Cause> {
        let Some((_, _, mut start)) = bodies::start(&request.body) else { return Err(Cause::Failed) };
        let id = self.id_of(mlflow, experiment).await?;
        let error = match write_start(mlflow, &mut start, &id).await {
            Err(error @ (Error::Rejected { .. } | Error::Server { status: 500, .. })) => error,
            written => return self.look_again_if_missing(experiment, written),
        };
        let row = mlflow.trace_row(&request.trace).await.ok();
        if row.as_ref().is_some_and(bodies::has_started) {
            return Ok(());
        }
        // A deleted experiment refuses it, and takes spans as if nothing were wrong.
        self.forget(experiment);
        let found = self.id_of(mlflow, experiment).await?;
        match row {
            Some(row) => bodies::fold(&mut start, &row),
            None if found == id => return Err(cause(&error)),
            None => {}
        }
        write_start(mlflow, &mut start, &found).await.map_err(|error| cause(&error))
    }

    /// A trace's spans as a file, where its row says that its files are: with workspaces this is not where the SDK put it.
    async fn file(
        &self,
        mlflow: &MlflowClient,
        experiment: &ExperimentRef,
        request: &StoredRequest,
    ) -> Result<(), Cause> {
        let row = match mlflow.trace_row(&request.trace).await {
            Ok(row) => row,
            Err(Error::NotFound(Some(_))) => Value::Null,
            Err(error) => return Err(cause(&error)),
        };
        let folder = match bodies::files(&row) {
            Some(folder) => folder.to_owned(),
            None => format!("{}/traces/{}/artifacts", self.id_of(mlflow, experiment).await?, request.trace),
        };
        let path = format!("/api/2.0/mlflow-artifacts/artifacts/{folder}/traces.json");
        let written = mlflow.write(Method::PUT, &path, "text/plain", request.body.clone(), PATIENCE).await;
        written.map_err(|error| if is_refusal(&error) { Cause::Failed } else { cause(&error) })
    }

    async fn id_of(&self, mlflow: &MlflowClient, experiment: &ExperimentRef) -> Result<String, Cause> {
        match experiment {
            ExperimentRef::Id(id) => Ok(id.clone()),
            ExperimentRef::Name(name) => self.experiment_id(mlflow, name).await,
        }
    }

    /// An experiment that MLflow does not have is looked for again, and made if need be.
    fn look_again_if_missing(&self, experiment: &ExperimentRef, sent: Result<(), Error>) -> Result<(), Cause> {
        sent.map_err(|error| {
            let cause = cause(&error);
            if cause == Cause::ExperimentMissing {
                self.forget(experiment);
            }
            cause
        })
    }

    fn forget(&self, experiment: &ExperimentRef) {
        if let ExperimentRef::Name(name) = experiment {
            self.forget_id(name);
        }
    }
}

/// An assessment has an id, so that one that MLflow refuses because it is there is found.
async fn assessment(mlflow: &MlflowClient, request: &StoredRequest) -> Result<(), Cause> {
    let error = match write(mlflow, Method::POST, request).await {
        Err(error) if is_refusal(&error) => error,
        written => return written.map_err(|error| cause(&error)),
    };
    let Some((id, _)) = bodies::identify(&request.trace, &request.body) else { return Err(Cause::Failed) };
    match mlflow.has_assessment(&request.trace, &id).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(refusal_of_trace(mlflow, request).await),
        Err(_) => Err(if is_refusal(&error) { Cause::Failed } else { cause(&error) }),
    }
}

/// Why MLflow refuses what is about a trace.
async fn refusal_of_trace(mlflow: &MlflowClient, request: &StoredRequest) -> Cause {
    match mlflow.trace_row(&request.trace).await {
        Err(Error::NotFound(Some(_))) => Cause::TraceMissing,
        _ => Cause::Failed,
    }
}

/// Whether MLflow itself has understood a request and does not take it.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::NotFound(Some(_)) | Error::Rejected { .. } | Error::Server { status: 500, .. })
}

async fn write(mlflow: &MlflowClient, method: Method, request: &StoredRequest) -> Result<(), Error> {
    mlflow.write(method, &request.path, JSON, request.body.clone(), PATIENCE).await
}

async fn write_start(mlflow: &MlflowClient, start: &mut Value, experiment: &str) -> Result<(), Error> {
    bodies::move_start(start, experiment);
    mlflow.write(Method::POST, "/api/3.0/mlflow/traces", JSON, start.to_string().into(), PATIENCE).await
}

const JSON: &str = "application/json";
/// MLflow may be slow; a request that was given up too early is sent twice, and 3.10.1 then counts its tokens twice.
const PATIENCE: Duration = Duration::from_secs(60);
