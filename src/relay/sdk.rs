//! What agents with MLflow's SDK send: what the relay answers by itself, and what it keeps in MLflow's place.

use std::hash::{BuildHasher, RandomState};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::door::{Door, Refusal, text};
use super::pass::{self, Question};
use super::request::{Kind, StoredRequest};
use crate::core::relay::bodies;
use crate::core::relay::sender::{ExperimentRef, Sender};
use crate::core::relay::traces::Rank;

impl Door {
    /// The server's version, as far as it is known: never an error, for an SDK asks once.
    pub(super) fn version(&self) -> Response {
        let target = self.forwarder.target();
        let known = target.as_ref().map(|target| target.version()).filter(|version| !version.is_empty());
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], known.unwrap_or(bodies::FIRST_VERSION).to_owned())
            .into_response()
    }

    /// An experiment by its name. It is never said to be missing: the SDK would make it.
    pub(super) async fn experiment_by_name(&self, sender: &Sender, query: &str) -> Result<Response, Refusal> {
        let name = parameter(query, "experiment_name").filter(|name| (1..=MAX_NAME).contains(&name.chars().count()));
        let name = name.ok_or(Refusal::Invalid("experiment_name is empty or too long"))?;
        let id = self.forwarder.id_for(sender, &name).await;
        Ok(Json(bodies::experiment(&id, &name)).into_response())
    }

    /// An experiment by its id; one that the relay does not know is MLflow's matter.
    pub(super) async fn experiment_by_id(&self, sender: &Sender, parts: Parts) -> Result<Response, Refusal> {
        let id = parameter(parts.uri.query().unwrap_or_default(), "experiment_id").unwrap_or_default();
        match self.forwarder.experiment_by_id(sender, &id) {
            ExperimentRef::Name(name) => Ok(Json(bodies::experiment(&id, &name)).into_response()),
            ExperimentRef::Id(_) => self.pass(sender, parts, Body::empty(), EXPERIMENT_PATH).await,
        }
    }

    /// A trace's row.
    pub(super) async fn start(&self, sender: Sender, body: Body) -> Result<Response, Refusal> {
        let (body, _room) = self.read(body).await?;
        let (trace, id, start) = bodies::start(&body).filter(|(trace, ..)| is_trace(trace)).ok_or(NO_START)?;
        let experiment = self.forwarder.experiment_by_id(&sender, &id);
        let request = StoredRequest::new(Kind::Start, &trace, "", body);
        let accepted = self.forwarder.clone().accept_start(sender, experiment, request, true);
        let has_spans = in_its_own_task(accepted).await?;
        Ok(Json(bodies::started(start, &trace, &id, has_spans)).into_response())
    }

    /// The start of a trace by an SDK 2.x, which wants the trace's id from the server.
    pub(super) async fn start_v2(&self, sender: Sender, body: Body) -> Result<Response, Refusal> {
        let (body, _room) = self.read(body).await?;
        let trace = random_id();
        let (id, start, answer) = bodies::start_v2(&trace, &body).ok_or(NO_START)?;
        let experiment = self.forwarder.experiment_by_id(&sender, &id);
        let request = StoredRequest::new(Kind::Start, &trace, "", start.to_string().into());
        in_its_own_task(self.forwarder.clone().accept_start(sender, experiment, request, false)).await?;
        Ok(Json(answer).into_response())
    }

    /// A trace's spans as a file.
    pub(super) async fn file(&self, sender: Sender, trace: &str, id: &str, body: Body) -> Result<Response, Refusal> {
        let (body, _room) = self.read(body).await?;
        let experiment = self.forwarder.experiment_by_id(&sender, id);
        let request = StoredRequest::new(Kind::File, trace, "", body);
        in_its_own_task(self.forwarder.clone().accept_follower(sender, experiment, Rank::File, request)).await?;
        Ok(Json(json!({})).into_response())
    }

    /// An assessment; it gets its id here.
    pub(super) async fn assessment(
        &self,
        sender: Sender,
        trace: &str,
        path: &str,
        body: Body,
    ) -> Result<Response, Refusal> {
        let (body, _room) = self.read(body).await?;
        let invalid = Refusal::Invalid("the body is no assessment in JSON");
        let (_, assessment) = bodies::identify(trace, &body).ok_or(invalid)?;
        let request = StoredRequest::new(Kind::Assessment, trace, path, assessment.to_string().into());
        self.follow(sender, request).await?;
        Ok(Json(assessment).into_response())
    }

    /// A tag that is set or deleted.
    pub(super) async fn tag(
        &self,
        sender: Sender,
        trace: &str,
        method: &Method,
        path: &str,
        body: Body,
    ) -> Result<Response, Refusal> {
        let (body, _room) = self.read(body).await?;
        object(&body)?;
        let kind = if *method == Method::DELETE { Kind::DeleteTag } else { Kind::Change };
        self.follow(sender, StoredRequest::new(kind, trace, path, body)).await?;
        Ok(Json(json!({})).into_response())
    }

    /// The end of a trace by an SDK 2.x.
    pub(super) async fn end_v2(
        &self,
        sender: Sender,
        trace: &str,
        path: &str,
        body: Body,
    ) -> Result<Response, Refusal> {
        let (body, _room) = self.read(body).await?;
        let answer = bodies::ended_v2(trace, &object(&body)?);
        self.follow(sender, StoredRequest::new(Kind::Change, trace, path, body)).await?;
        Ok(Json(answer).into_response())
    }

    async fn follow(&self, sender: Sender, request: StoredRequest) -> Result<(), Refusal> {
        let of_workload = self.forwarder.experiment_of(&sender).ok_or(Refusal::NotReady)?;
        in_its_own_task(self.forwarder.clone().accept_follower(sender, of_workload, Rank::Rest, request)).await
    }

    /// What MLflow alone can answer. Ids that the relay made up become MLflow's, in paths, queries and JSON.
    pub(super) async fn pass(
        &self,
        sender: &Sender,
        parts: Parts,
        body: Body,
        below: &str,
    ) -> Result<Response, Refusal> {
        let path = match parts.uri.query() {
            Some(query) => format!("{below}?{query}"),
            None => below.to_owned(),
        };
        let path = self.forwarder.with_real_ids(sender, &path).await.map_err(pass::NoAnswer)?;
        let (body, _room) = match text(&parts.headers, "content-type").starts_with("application/json") {
            true => {
                let (body, room) = self.read(body).await?;
                let body = match std::str::from_utf8(&body) {
                    Ok(text) => self.forwarder.with_real_ids(sender, text).await.map_err(pass::NoAnswer)?.into(),
                    Err(_) => body,
                };
                (Body::from(body), room)
            }
            false => (body, Vec::new()),
        };
        let question = Question { method: parts.method, path, headers: parts.headers, body };
        Ok(pass::pass(self.forwarder.clone(), question).await?)
    }
}

/// To its end, also where the agent hangs up: else what comes after it in its trace would wait for it.
async fn in_its_own_task<T: Send + 'static>(
    accepted: impl Future<Output = Result<T, super::forward::NotTaken>> + Send + 'static,
) -> Result<T, Refusal> {
    Ok(tokio::spawn(accepted).await.map_err(|_| super::forward::NotTaken::Ending)??)
}

fn object(body: &Bytes) -> Result<Value, Refusal> {
    let value = serde_json::from_slice(body).ok().filter(Value::is_object);
    value.ok_or(Refusal::Invalid("the body is no object in JSON"))
}

/// A value of a query.
fn parameter(query: &str, name: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://relay/?{query}")).ok()?;
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// It becomes a part of a path.
fn is_trace(trace: &str) -> bool {
    (1..=MAX_TRACE).contains(&trace.len())
        && trace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// As MLflow gives them out.
fn random_id() -> String {
    let random = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", random(), random())
}

const NO_START: Refusal = Refusal::Invalid("the body is no start of a trace in JSON");
const EXPERIMENT_PATH: &str = "/api/2.0/mlflow/experiments/get";
/// Characters that MLflow keeps of an experiment's name.
const MAX_NAME: usize = 500;
/// Characters of a trace's id that MLflow keeps are fewer.
const MAX_TRACE: usize = 100;

/// For the status of a refusal.
pub(super) fn error_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "RESOURCE_DOES_NOT_EXIST",
        StatusCode::SERVICE_UNAVAILABLE => "TEMPORARILY_UNAVAILABLE",
        StatusCode::BAD_REQUEST => "INVALID_PARAMETER_VALUE",
        _ => "BAD_REQUEST",
    }
}

#[cfg(test)]
mod tests;
