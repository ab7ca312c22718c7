//! Traces: the newest of an experiment, whether its spans are there, and when the last ones began.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Body, Method, RequestBuilder, header};
use serde_json::{Value, json};

use super::answer::{TraceRow, Traces};
use super::answer::{body, looks_like_html};
use super::{Error, MlflowClient, send};

/// The newest trace of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// When it began.
    pub time: Timestamp,
    /// Whether its spans are there: the row alone is written also when the spans are refused.
    pub has_spans: bool,
    /// Whether it has ended; before that, missing spans mean nothing.
    pub finished: bool,
}

const OTLP_PATH: &str = "/v1/traces";
const PROTOBUF: &str = "application/x-protobuf";
/// MLflow reads the numeric id of the experiment here.
const EXPERIMENT_HEADER: &str = "x-mlflow-experiment-id";

/// Tag of a trace whose spans are in the database.
const SPANS_TAG: &str = "mlflow.trace.spansLocation";
const SPANS_IN_STORE: &str = "TRACKING_STORE";

impl MlflowClient {
    /// Where the server takes OTLP: at the tracking URI, as behind an ingress, or at its origin whatever `--static-prefix` says.
    pub async fn otlp_address(&self) -> Result<String, Error> {
        if self.takes_otlp().await? {
            return Ok(format!("{}{OTLP_PATH}", self.api));
        }
        let origin = self.api.strip_suffix(super::STATIC_PREFIX).unwrap_or(&self.api);
        let at_origin = Self { api: origin.to_owned(), ..self.clone() };
        match at_origin.takes_otlp().await? {
            true => Ok(format!("{origin}{OTLP_PATH}")),
            false => Err(Error::NotFound(None)),
        }
    }

    /// Sends spans, an OTLP `ExportTraceServiceRequest` in protobuf, to an experiment at [`Self::otlp_address`], and waits so long.
    /// Only what MLflow itself answers counts as taken.
    pub async fn export(
        &self,
        address: &str,
        experiment_id: &str,
        spans: impl Into<Body>,
        patience: Duration,
    ) -> Result<(), Error> {
        let request = self.http.client.post(address).timeout(patience).body(spans);
        let request = request.header(header::CONTENT_TYPE, PROTOBUF).header(EXPERIMENT_HEADER, experiment_id);
        let export = async {
            let answer = send(self.with_credentials(request)).await?;
            // A login page answers 200 too.
            let is_page =
                answer.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/html"));
            let text = body(answer).await?;
            if is_page || looks_like_html(&text) { Err(Error::LoginPage) } else { Ok(()) }
        };
        self.http.measure(export).await
    }

    /// The newest trace of an experiment, or the newest of those that began before a moment.
    pub async fn latest_trace(&self, experiment_id: &str, before: Option<Timestamp>) -> Result<Option<Trace>, Error> {
        let mut body = search(&[experiment_id.to_owned()], 1);
        if let Some(moment) = before {
            body["filter"] = json!(format!("timestamp_ms < {}", moment.as_millisecond()));
        }
        let Some(row) = self.json::<Traces>(self.search(&body)).await?.traces.into_iter().next() else {
            return Ok(None);
        };
        let has_spans = row.has_spans() || self.has_artifact(&row.trace_id).await?;
        Ok(Some(Trace { time: row.request_time, has_spans, finished: row.state != "IN_PROGRESS" }))
    }

    /// The newest traces of several experiments together, the newest first, each with its experiment; those that began after a
    /// moment, where one is given. A row that does not name its experiment has none where several were asked for. Whether its
    /// spans are there is known only as far as the row says so.
    pub async fn newest_traces(
        &self,
        experiment_ids: &[String],
        since: Option<Timestamp>,
        most: usize,
    ) -> Result<Vec<(String, Trace)>, Error> {
        let mut body = search(experiment_ids, most);
        if let Some(moment) = since {
            body["filter"] = json!(format!("timestamp_ms > {}", moment.as_millisecond()));
        }
        let found: Traces = self.json(self.search(&body)).await?;
        let only = match experiment_ids {
            [only] => Some(only),
            _ => None,
        };
        let row = |row: TraceRow| {
            let id = row.experiment().map(str::to_owned).or_else(|| only.cloned()).unwrap_or_default();
            let has_spans = row.has_spans();
            (id, Trace { time: row.request_time, has_spans, finished: row.state != "IN_PROGRESS" })
        };
        Ok(found.traces.into_iter().map(row).collect())
    }

    /// Whether the spans were uploaded as a file. Only the answer's status is read, never the file.
    async fn has_artifact(&self, trace_id: &str) -> Result<bool, Error> {
        let url = format!("{}/ajax-api/2.0/mlflow/get-trace-artifact", self.pages);
        let request = self.with_credentials(self.http.client.get(url)).query(&[("request_id", trace_id)]);
        match self.http.measure(send(request)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_) | Error::Rejected { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// When the newest traces of an experiment began, the newest first.
    pub async fn trace_times(&self, experiment_id: &str, most: usize) -> Result<Vec<Timestamp>, Error> {
        let found: Traces = self.json(self.search(&search(&[experiment_id.to_owned()], most))).await?;
        Ok(found.traces.into_iter().map(|row| row.request_time).collect())
    }

    fn search(&self, body: &Value) -> RequestBuilder {
        self.request(Method::POST, "/api/3.0/mlflow/traces/search").json(body)
    }
}

impl TraceRow {
    fn has_spans(&self) -> bool {
        self.tags.get(SPANS_TAG).is_some_and(|place| place == SPANS_IN_STORE)
    }

    fn experiment(&self) -> Option<&str> {
        self.trace_location.pointer("/mlflow_experiment/experiment_id")?.as_str()
    }
}

fn search(experiment_ids: &[String], most: usize) -> Value {
    let location = |id| json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": id}});
    json!({
        "locations": experiment_ids.iter().map(location).collect::<Vec<_>>(),
        "max_results": most,
        "order_by": ["timestamp_ms DESC"],
    })
}
