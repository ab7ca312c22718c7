//! MLflow, asked by its Service's name as any other client asks.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::{Scene, typed_script, until, world};

/// A server, as an agent of a namespace sees it.
pub struct Mlflow {
    /// Where REST is.
    api: String,
    /// Where the files of traces are.
    pages: String,
    http: reqwest::Client,
    headers: Vec<(&'static str, String)>,
}

/// A trace as a search finds it.
#[derive(Clone, Debug)]
pub struct Trace {
    pub id: String,
    pub began: Timestamp,
    finished: bool,
}

impl Mlflow {
    /// The server of AgentTracing `tracing` in a namespace.
    pub fn of(scene: &Scene) -> Self {
        let api = format!("http://tracing-mlflow.{}.svc.cluster.local:5500", scene.namespace);
        Self { pages: api.clone(), api, http: world().http.clone(), headers: Vec::new() }
    }

    /// The shared server of mode CR at a tracking URI, with the token of a namespace's service account `default` and the
    /// authority of this moment.
    pub fn shared(scene: &Scene, tracking_uri: &str) -> Self {
        Self::shared_as(scene, tracking_uri, "default")
    }

    /// The same with the token of another service account.
    pub fn shared_as(scene: &Scene, tracking_uri: &str, account: &str) -> Self {
        let api = tracking_uri.replace(".svc:", ".svc.cluster.local:");
        let ca = std::fs::read(typed_script("tests/cr/ca.sh", &["path"]).trim()).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
        let token = scene.kubectl(&["create", "token", account]);
        let headers = vec![
            ("Authorization", format!("Bearer {}", token.trim())),
            ("X-MLFLOW-WORKSPACE", scene.namespace.clone()),
        ];
        Self { pages: format!("{}/mlflow", api.trim_end_matches("/mlflow")), api, http, headers }
    }

    /// The traces of an experiment, the newest first.
    pub fn traces(&self, experiment: &str) -> Result<Vec<Trace>, String> {
        let id = self.experiment(experiment)?;
        let location = json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": id}});
        let search = json!({"locations": [location], "max_results": 500, "order_by": ["timestamp_ms DESC"]});
        let found = self.ask("api/3.0/mlflow/traces/search", Some(&search))?;
        let traces = found["traces"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(traces.iter().map(Trace::of).collect())
    }

    /// The id of an experiment.
    pub fn experiment(&self, name: &str) -> Result<String, String> {
        let filter = format!("name = '{name}'");
        let search = json!({"max_results": 1, "filter": filter, "view_type": "ALL"});
        let found = self.ask("api/2.0/mlflow/experiments/search", Some(&search))?;
        let id = found["experiments"][0]["experiment_id"].as_str();
        id.map(str::to_owned).ok_or_else(|| format!("there is no experiment {name}"))
    }

    /// Deletes an experiment, as a person does on its page.
    pub fn delete_experiment(&self, name: &str) -> Result<(), String> {
        let body = json!({"experiment_id": self.experiment(name)?});
        self.ask("api/2.0/mlflow/experiments/delete", Some(&body)).map(|_| ())
    }

    /// The ids of an experiment's finished traces.
    pub fn finished(&self, experiment: &str) -> BTreeSet<String> {
        let traces = self.traces(experiment).unwrap();
        traces.into_iter().filter(|trace| trace.finished).map(|trace| trace.id).collect()
    }

    /// Waits for a trace, with its spans, that began after a moment.
    pub fn until_traced_since(&self, experiment: &str, moment: Timestamp) -> Trace {
        until(&format!("a trace of {experiment} that began after {moment} is in MLflow"), || {
            let traces = self.traces(experiment)?;
            let newest = traces.iter().find(|trace| trace.finished).ok_or("no finished trace")?;
            if newest.began <= moment {
                return Err(format!("the newest began at {}", newest.began));
            }
            match self.spans(&newest.id)? {
                0 => Err(format!("trace {} has no spans", newest.id)),
                _ => Ok(newest.clone()),
            }
        })
    }

    /// How many spans a trace has: in the database, or else in its artifact.
    pub fn spans(&self, trace: &str) -> Result<usize, String> {
        let count = |answer: &Value| answer["spans"].as_array().map_or(0, Vec::len);
        let artifact = format!("{}/ajax-api/2.0/mlflow/get-trace-artifact?request_id={trace}", self.pages);
        // Of a trace whose spans are in its artifact the shared server cannot tell them otherwise.
        match self.send(self.http.get(artifact)) {
            Ok(artifact) => Ok(count(&artifact)),
            Err(_) => {
                let inside = format!("{}/api/3.0/mlflow/traces/get?trace_id={trace}", self.api);
                self.send(self.http.get(inside)).map(|answer| count(&answer["trace"]))
            }
        }
    }

    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let url = format!("{}/{path}", self.api);
        self.send(match body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        })
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        world().runtime.block_on(async {
            let answer = request.timeout(Duration::from_secs(10)).send().await.map_err(|error| format!("{error:?}"))?;
            let answer = answer.error_for_status().map_err(|error| error.to_string())?;
            answer.json().await.map_err(|error| error.to_string())
        })
    }
}

impl Trace {
    fn of(trace: &Value) -> Self {
        Self {
            id: trace["trace_id"].as_str().unwrap().to_owned(),
            began: trace["request_time"].as_str().unwrap().parse().unwrap(),
            finished: trace["state"] != "IN_PROGRESS",
        }
    }
}
