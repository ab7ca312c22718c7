//! What the operator asked of the API server, from the server's own log.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use agent_tracing::names;
use serde_json::Value;

/// The log from a moment on.
pub struct Audit {
    from: u64,
}

/// A request of the operator's service account.
pub struct Request {
    pub verb: String,
    pub resource: String,
    object: String,
    pub code: u64,
    at: String,
    /// Authorization said no. An admission plugin's 403, such as an exhausted quota's, is none.
    unauthorized: bool,
}

impl Audit {
    pub fn from_now() -> Self {
        Self { from: log().metadata().unwrap().len() }
    }

    /// Forgets what was so far.
    pub fn restart(&mut self) {
        *self = Self::from_now();
    }

    /// What the operator has asked since.
    pub fn requests(&self) -> Vec<Request> {
        self.requests_of(names::SERVICE_ACCOUNT)
    }

    /// What a service account of the operator's namespace has asked since.
    pub fn requests_of(&self, account: &str) -> Vec<Request> {
        let user = format!("system:serviceaccount:{}:{account}", names::OPERATOR_NAMESPACE);
        let mut file = log();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map(|(whole, _)| whole).unwrap_or_default();
        let ours = whole.lines().filter(|line| line.contains(&user));
        let parsed = ours.map(|line| serde_json::from_str::<Value>(line).unwrap());
        // The end of a watch is a second entry of one request.
        let is_end_of_watch =
            |entry: &Value| entry["verb"] == "watch" && entry["stage"] == "ResponseComplete" && code(entry) == 200;
        parsed
            .filter(|entry| entry["user"]["username"] == *user && entry["stage"] != "Panic" && !is_end_of_watch(entry))
            .map(Request::of)
            .collect()
    }

    /// What the operator wrote since, but for its lease.
    pub fn writes(&self) -> Vec<Request> {
        let reads = ["get", "list", "watch"];
        let mut all = self.requests();
        all.retain(|request| !reads.contains(&request.verb.as_str()) && request.resource != "leases");
        all
    }

    /// The shipped roles grant all that the operator asks for.
    #[track_caller]
    pub fn assert_nothing_was_forbidden(&self) {
        let forbidden: Vec<_> = self.requests().into_iter().filter(|r| r.unauthorized || r.code == 401).collect();
        assert!(forbidden.is_empty(), "forbidden to the operator:\n{}", lines(&forbidden));
    }
}

fn code(entry: &Value) -> u64 {
    entry["responseStatus"]["code"].as_u64().unwrap_or_default()
}

impl Request {
    fn of(entry: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let about = &entry["objectRef"];
        let subresource = match about["subresource"].as_str() {
            Some(subresource) => format!("/{subresource}"),
            None => String::new(),
        };
        Self {
            verb: text(&entry["verb"]),
            resource: text(&about["resource"]) + &subresource,
            object: format!("{}/{}", text(&about["namespace"]), text(&about["name"])),
            code: code(&entry),
            at: text(&entry["requestReceivedTimestamp"]),
            unauthorized: entry["annotations"]["authorization.k8s.io/decision"] == "forbid",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, resource, object, code, at, unauthorized: _ } = self;
        write!(f, "  {at} {verb} {resource} {object} {code}")
    }
}

pub fn lines(requests: &[Request]) -> String {
    requests.iter().map(|request| format!("{request}\n")).collect()
}

fn log() -> File {
    File::open(std::env::var("AUDIT_LOG").unwrap()).unwrap()
}
