//! MLflow, asked by its Service's name as any other client asks.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::{Scene, until, world};

/// The server of AgentTracing `tracing` in a namespace.
pub struct Mlflow(String);

/// A trace as a search finds it.
#[derive(Clone, Debug)]
pub struct Trace {
    pub id: String,
    pub began: Timestamp,
    finished: bool,
}

impl Mlflow {
    pub fn of(scene: &Scene) -> Self {
        Self(format!("http://tracing-mlflow.{}.svc.cluster.local:5500", scene.namespace))
    }

    /// The traces of an experiment, the newest first.
    pub fn traces(&self, experiment: &str) -> Result<Vec<Trace>, String> {
        let filter = format!("name = '{experiment}'");
        let search = json!({"max_results": 1, "filter": filter, "view_type": "ALL"});
        let found = self.ask("api/2.0/mlflow/experiments/search", Some(&search))?;
        let Some(id) = found["experiments"][0]["experiment_id"].as_str() else {
            return Err(format!("there is no experiment {experiment}"));
        };
        let location = json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": id}});
        let search = json!({"locations": [location], "max_results": 500, "order_by": ["timestamp_ms DESC"]});
        let found = self.ask("api/3.0/mlflow/traces/search", Some(&search))?;
        let traces = found["traces"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(traces.iter().map(Trace::of).collect())
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
        let inside = self.ask(&format!("api/3.0/mlflow/traces/get?trace_id={trace}"), None)?;
        match count(&inside["trace"]) {
            0 => {
                self.ask(&format!("ajax-api/2.0/mlflow/get-trace-artifact?request_id={trace}"), None).map(|a| count(&a))
            }
            spans => Ok(spans),
        }
    }

    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let (world, url) = (world(), format!("{}/{path}", self.0));
        let request = match body {
            Some(body) => world.http.post(url).json(body),
            None => world.http.get(url),
        };
        world.runtime.block_on(async {
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
