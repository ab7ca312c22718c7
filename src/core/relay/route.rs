//! Addresses of the relay: `http://<cr>-relay.<ns>.svc:5500/w/<kind>/<name>` and below it what MLflow's SDKs ask of a tracking server.
//! The address carries the workload; what is in no list of allowed requests does not reach MLflow.

use super::sender::Sender;

/// What a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// OTLP: spans.
    Spans,
    /// The server's version.
    Version,
    /// What the server can do.
    ServerInfo,
    /// An experiment, by its name.
    ExperimentByName,
    /// An experiment, by its id.
    ExperimentById,
    /// The trace's row: StartTraceV3, which SDKs send at its end.
    Start,
    /// A trace's spans as a file.
    File {
        /// Of this trace.
        trace: String,
        /// The experiment's id, as the agent knows it.
        experiment: String,
    },
    /// A new assessment of a trace.
    Assessment {
        /// Of this trace.
        trace: String,
    },
    /// A tag of a trace that is set or deleted.
    Tag {
        /// Of this trace.
        trace: String,
    },
    /// The start of a trace, as SDKs 2.x send it.
    StartV2,
    /// The end of a trace, as SDKs 2.x send it.
    EndV2 {
        /// Of this trace.
        trace: String,
    },
    /// MLflow alone can answer it.
    Passed,
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// The path is none of the relay's.
    #[error(
        "the relay does not serve {0}: the tracking URI is http://<relay>/w/<kind>/<name>, and only what SDKs need for tracing and tracking is below it"
    )]
    Path(String),
    /// The path names no workload.
    #[error("{0} names no workload: write /w/<kind>/<name>/v1/traces, for example /w/deployment/teller/v1/traces")]
    Workload(String),
    /// OTLP by another method.
    #[error("send traces with POST, not {0}")]
    Method(String),
}

/// Whose request it is, what it is, and its path below the workload's address.
pub fn route<'p>(method: &str, path: &'p str) -> Result<(Sender, Route, &'p str), NotServed> {
    let shown = |text: &str| text.chars().take(SHOWN).collect();
    let workload = path.strip_prefix("/w/").ok_or_else(|| NotServed::Path(shown(path)))?;
    let mut parts = workload.splitn(3, '/');
    let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let sender = Sender::new(kind, name).ok_or_else(|| NotServed::Workload(shown(path)))?;
    let below = &workload[(kind.len() + 1 + name.len()).min(workload.len())..];
    let known = ALLOWED.iter().find_map(|(methods, pattern, kind)| {
        let is_method = methods.split('|').any(|allowed| allowed == method);
        is_method.then(|| matches(pattern, below))?.map(|found| kind.route(found))
    });
    match known {
        Some(route) => Ok((sender, route, below)),
        None if below == "/v1/traces" => Err(NotServed::Method(shown(method))),
        None => Err(NotServed::Path(shown(path))),
    }
}

/// What stands in the places of a pattern: `{…}` is one word, `{…|…}` one of these, `{…*}` any path to the end.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let (mut found, mut rest) = (Vec::new(), path);
    for part in pattern.split('/').skip(1) {
        rest = rest.strip_prefix('/')?;
        if part.ends_with("*}") {
            return is_plain_path(rest).then(|| {
                found.push(rest);
                found
            });
        }
        let (segment, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(words) if words.contains('|') && words.split('|').any(|word| word == segment) => {}
            Some(words) if !words.contains('|') && is_word(segment) => found.push(segment),
            None if part == segment => {}
            _ => return None,
        }
        rest = after;
    }
    rest.is_empty().then_some(found)
}

/// Ids of MLflow's: nothing that a URL, a proxy or MLflow reads as anything but one segment.
fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// A path of files that stays where it is, also after one more decoding: file names may have spaces and the like in them.
fn is_plain_path(path: &str) -> bool {
    path.len() <= MAX_PATH && path.split('/').all(|segment| decoded(segment).is_some_and(|name| is_file_name(&name)))
}

fn is_file_name(name: &[u8]) -> bool {
    let has_strange = name.iter().any(|byte| byte.is_ascii_control() || b"/\\%?#".contains(byte));
    !name.is_empty() && !has_strange && !name.iter().all(|byte| *byte == b'.')
}

/// One segment without percent signs; `None` of one that a URL does not have.
fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
                u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
            }
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) => byte,
            _ => return None,
        });
    }
    Some(decoded)
}

#[derive(Clone, Copy)]
enum Kind {
    Spans,
    Version,
    ServerInfo,
    ExperimentByName,
    ExperimentById,
    Start,
    File,
    Assessment,
    Tag,
    StartV2,
    EndV2,
    Passed,
}

impl Kind {
    fn route(self, found: Vec<&str>) -> Route {
        let text = |place: usize| found.get(place).copied().unwrap_or_default().to_owned();
        match self {
            Self::Spans => Route::Spans,
            Self::Version => Route::Version,
            Self::ServerInfo => Route::ServerInfo,
            Self::ExperimentByName => Route::ExperimentByName,
            Self::ExperimentById => Route::ExperimentById,
            Self::Start => Route::Start,
            Self::File => Route::File { experiment: text(0), trace: text(1) },
            Self::Assessment => Route::Assessment { trace: text(0) },
            Self::Tag => Route::Tag { trace: text(0) },
            Self::StartV2 => Route::StartV2,
            Self::EndV2 => Route::EndV2 { trace: text(0) },
            Self::Passed => Route::Passed,
        }
    }
}

/// What SDKs from 2.14 to 3.18 send for tracing and tracking; the first that matches counts. Nothing here deletes what others have
/// written, or concerns users, permissions or the web pages.
const ALLOWED: [(&str, &str, Kind); 41] = [
    ("POST", "/v1/traces", Kind::Spans),
    ("GET", "/version", Kind::Version),
    ("GET", "/api/3.0/mlflow/server-info", Kind::ServerInfo),
    ("GET", "/api/3.0/mlflow/server-features", Kind::Passed),
    ("GET", "/api/2.0/mlflow/experiments/get-by-name", Kind::ExperimentByName),
    ("GET", "/api/2.0/mlflow/experiments/get", Kind::ExperimentById),
    ("POST", "/api/2.0/mlflow/experiments/create", Kind::Passed),
    ("GET|POST", "/api/2.0/mlflow/experiments/search", Kind::Passed),
    ("POST", "/api/2.0/mlflow/experiments/set-experiment-tag", Kind::Passed),
    ("POST", "/api/3.0/mlflow/traces", Kind::Start),
    ("POST", "/api/3.0/mlflow/traces/search", Kind::Passed),
    ("POST", "/api/3.0/mlflow/traces/batchGetInfos", Kind::Passed),
    // Also `get` and `batchGet`.
    ("GET", "/api/3.0/mlflow/traces/{trace}", Kind::Passed),
    ("POST", "/api/3.0/mlflow/traces/{trace}/assessments", Kind::Assessment),
    ("GET|PATCH|DELETE", "/api/3.0/mlflow/traces/{trace}/assessments/{assessment}", Kind::Passed),
    ("PATCH|DELETE", "/api/3.0/mlflow/traces/{trace}/tags", Kind::Tag),
    ("PATCH|DELETE", "/api/2.0/mlflow/traces/{trace}/tags", Kind::Tag),
    ("POST", "/api/2.0/mlflow/traces", Kind::StartV2),
    ("GET", "/api/2.0/mlflow/traces", Kind::Passed),
    ("POST", "/api/2.0/mlflow/traces/link-to-run", Kind::Passed),
    ("POST", "/api/2.0/mlflow/traces/link-prompts", Kind::Passed),
    ("PATCH", "/api/2.0/mlflow/traces/{trace}", Kind::EndV2),
    ("GET", "/api/2.0/mlflow/traces/{trace}", Kind::Passed),
    ("GET", "/api/2.0/mlflow/traces/{trace}/info", Kind::Passed),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/{experiment}/traces/{trace}/artifacts/traces.json", Kind::File),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts", Kind::Passed),
    ("GET|PUT", "/api/2.0/mlflow-artifacts/artifacts/{path*}", Kind::Passed),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/create/{path*}", Kind::Passed),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/complete/{path*}", Kind::Passed),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/abort/{path*}", Kind::Passed),
    ("POST", "/api/2.0/mlflow/runs/{create|update|search}", Kind::Passed),
    ("POST", "/api/2.0/mlflow/runs/{log-parameter|log-metric|log-batch|log-inputs|log-model}", Kind::Passed),
    ("POST", "/api/2.0/mlflow/runs/{set-tag|delete-tag|outputs}", Kind::Passed),
    ("GET", "/api/2.0/mlflow/runs/get", Kind::Passed),
    ("GET", "/api/2.0/mlflow/metrics/get-history", Kind::Passed),
    ("GET", "/api/2.0/mlflow/artifacts/list", Kind::Passed),
    ("POST", "/api/2.0/mlflow/logged-models", Kind::Passed),
    ("POST", "/api/2.0/mlflow/logged-models/search", Kind::Passed),
    ("GET|PATCH", "/api/2.0/mlflow/logged-models/{model}", Kind::Passed),
    ("POST", "/api/2.0/mlflow/logged-models/{model}/params", Kind::Passed),
    ("PATCH", "/api/2.0/mlflow/logged-models/{model}/tags", Kind::Passed),
];

const MAX_WORD: usize = 200;
const MAX_PATH: usize = 2000;
/// Characters of what somebody sent that an error shows.
const SHOWN: usize = 100;

#[cfg(test)]
mod tests;
