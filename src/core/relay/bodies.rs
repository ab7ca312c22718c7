//! Bodies of MLflow's REST API: answers that the relay gives in MLflow's place, and what it changes in a request before MLflow gets it.
//! What SDKs read of an answer is measured: docs/mlflow-sdk.md.

use serde_json::{Map, Value, json};

use super::ids;

/// Said before MLflow has told its version. An SDK that gets no version here never sends spans to the database again.
pub const FIRST_VERSION: &str = "3.10.1";

/// What the server can do. Workspaces are on for agents: the relay sets the header itself, and an SDK with `MLFLOW_WORKSPACE` set
/// sends nothing at all where they are off.
pub fn server_info() -> Value {
    json!({
        "store_type": "SqlStore",
        "workspaces_enabled": true,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
    })
}

/// An experiment.
pub fn experiment(id: &str, name: &str) -> Value {
    json!({"experiment": {
        "experiment_id": id,
        "name": name,
        "artifact_location": format!("mlflow-artifacts:/{id}"),
        "lifecycle_stage": "active",
        "last_update_time": 0,
        "creation_time": 0,
        "tags": [],
    }})
}

/// A refusal in MLflow's shape.
pub fn error(code: &str, message: &str) -> Value {
    json!({"error_code": code, "message": message})
}

/// A trace's id and its experiment's, of a StartTraceV3.
pub fn start(body: &[u8]) -> Option<(String, String, Value)> {
    let start: Value = serde_json::from_slice(body).ok()?;
    let text = |path: &str| start.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let (trace, experiment) = (text("/trace/trace_info/trace_id")?, text(EXPERIMENT)?);
    Some((trace, experiment, start))
}

/// The answer to a StartTraceV3. An SDK that is told that the spans are in the database does not send them as a file too.
pub fn started(mut start: Value, trace: &str, experiment: &str, has_spans: bool) -> Value {
    if let Some(info) = start.pointer_mut("/trace/trace_info").and_then(Value::as_object_mut) {
        let mut own = Map::new();
        own.insert(ARTIFACTS.to_owned(), artifacts(experiment, trace).into());
        if has_spans {
            own.insert("mlflow.trace.spansLocation".to_owned(), "TRACKING_STORE".into());
        }
        match info.get_mut("tags").and_then(Value::as_object_mut) {
            Some(tags) => tags.extend(own),
            None => _ = info.insert("tags".to_owned(), Value::Object(own)),
        }
    }
    start
}

/// A StartTraceV3 for another experiment id.
pub fn move_start(start: &mut Value, experiment: &str) {
    if let Some(id) = start.pointer_mut(EXPERIMENT) {
        *id = experiment.into();
    }
}

/// Whether a StartTraceV3 has arrived, by the trace's row: spans alone make a row without this entry.
pub fn has_started(row: &Value) -> bool {
    row.pointer("/trace/trace_info/trace_metadata/mlflow.trace_schema.version").is_some()
}

/// Where a trace's files are below the server's artifacts, by its row; `None` of one whose files MLflow itself does not serve.
pub fn files(row: &Value) -> Option<&str> {
    let place = row.pointer("/trace/trace_info/tags/mlflow.artifactLocation")?.as_str()?;
    Some(place.strip_prefix("mlflow-artifacts:")?.trim_matches('/'))
}

/// Puts what a trace's row has besides into its StartTraceV3. MLflow 3.10.1 refuses one that comes after an assessment or a tag, unless
/// these are in it.
pub fn fold(start: &mut Value, row: &Value) {
    let Some(info) = start.pointer_mut("/trace/trace_info").and_then(Value::as_object_mut) else { return };
    if let Some(of_row) = row.pointer("/trace/trace_info/tags").and_then(Value::as_object) {
        let tags = info.entry("tags").or_insert_with(|| json!({}));
        for (key, value) in of_row {
            // A first StartTraceV3 with this tag is answered by 3.14.0 with 404.
            if key != ARTIFACTS
                && let Some(tags) = tags.as_object_mut()
            {
                tags.entry(key.as_str()).or_insert_with(|| value.clone());
            }
        }
    }
    if let Some(assessments) = row.pointer("/trace/trace_info/assessments") {
        info.entry("assessments").or_insert_with(|| assessments.clone());
    }
}

/// An assessment with an id, and the id; one that the agent gave stays. Without an id MLflow would take a second delivery for a second
/// assessment.
pub fn identify(trace: &str, body: &[u8]) -> Option<(String, Value)> {
    let mut assessment: Value = serde_json::from_slice(body).ok()?;
    let fields = assessment.get_mut("assessment")?.as_object_mut()?;
    let own = fields.get("assessment_id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
    let id = own.unwrap_or_else(|| ids::assessment(trace, body));
    fields.insert("assessment_id".to_owned(), id.clone().into());
    Some((id, assessment))
}

/// The start of a trace by an SDK 2.x as a StartTraceV3 with this id, the experiment's id, and the answer to it. MLflow gives out ids of
/// 2.x traces by itself, so that one that is held has to come to it in the newer form.
pub fn start_v2(trace: &str, body: &[u8]) -> Option<(String, Value, Value)> {
    let sent: Value = serde_json::from_slice(body).ok()?;
    let id = sent.get("experiment_id")?.as_str()?.to_owned();
    let milliseconds = number(sent.get("timestamp_ms")?)?;
    let time = jiff::Timestamp::from_millisecond(milliseconds).ok()?.to_string();
    let list = |name: &str| sent.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (metadata, mut tags) = (list("request_metadata"), list("tags"));
    // Without the tag of the answer: 3.14.0 refuses a first start that has it.
    let start = json!({"trace": {"trace_info": {
        "trace_id": trace,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": id}},
        "request_time": time,
        "state": "IN_PROGRESS",
        "trace_metadata": pairs(&metadata),
        "tags": pairs(&tags),
    }}});
    tags.push(json!({"key": ARTIFACTS, "value": artifacts(&id, trace)}));
    let answer = json!({"trace_info": {
        "request_id": trace,
        "experiment_id": id,
        "timestamp_ms": milliseconds,
        "execution_time_ms": 0,
        "status": "IN_PROGRESS",
        "request_metadata": metadata,
        "tags": tags,
    }});
    Some((id, start, answer))
}

/// The answer to the end of a trace by an SDK 2.x.
pub fn ended_v2(trace: &str, sent: &Value) -> Value {
    let field = |name: &str| sent.get(name).cloned().unwrap_or_default();
    json!({"trace_info": {
        "request_id": trace,
        "timestamp_ms": field("timestamp_ms"),
        "status": field("status"),
        "request_metadata": field("request_metadata"),
        "tags": field("tags"),
    }})
}

/// A list of keys and values as an object.
fn pairs(list: &[Value]) -> Value {
    let pair = |entry: &Value| Some((entry.get("key")?.as_str()?.to_owned(), entry.get("value")?.clone()));
    Value::Object(list.iter().filter_map(pair).collect())
}

/// A number of 64 bits, which JSON of protobuf may have as a text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Where the SDK puts a trace's files; the relay puts them where MLflow has them.
fn artifacts(experiment: &str, trace: &str) -> String {
    format!("mlflow-artifacts:/{experiment}/traces/{trace}/artifacts")
}

/// The experiment's id in a StartTraceV3.
const EXPERIMENT: &str = "/trace/trace_info/trace_location/mlflow_experiment/experiment_id";
const ARTIFACTS: &str = "mlflow.artifactLocation";

#[cfg(test)]
mod tests;
