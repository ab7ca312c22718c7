//! The stand-in for the API server.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_tracing::tls::rotation::AuthoritySet;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Response, StatusCode};
use futures::{StreamExt, stream};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub const CONFIGURATION: &str = "mutatingwebhookconfigurations";

/// Two objects and their history.
#[derive(Clone)]
pub struct Cluster(Arc<Mutex<State>>, watch::Sender<usize>);

#[derive(Default)]
struct State {
    objects: std::collections::BTreeMap<String, Value>,
    events: Vec<(String, Value)>,
    writes: Vec<String>,
    refuse_create: Option<Value>,
    fault: Option<(usize, Fault)>,
    hangs: bool,
}

/// What becomes of a write whose sender dies with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It never arrives.
    Lost,
    /// It is done, and nobody hears of it.
    Unanswered,
}

impl Cluster {
    pub fn new() -> Self {
        let cluster = Self(Arc::default(), watch::Sender::new(0));
        cluster.set(CONFIGURATION, Some(configuration()));
        cluster
    }

    pub fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn get(&self, kind: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(kind).cloned()
    }

    /// Somebody creates, changes or deletes the one object of a kind.
    pub fn set(&self, kind: &str, object: Option<Value>) {
        let mut state = self.0.lock().unwrap();
        let version = (state.events.len() + 1).to_string();
        let old = state.objects.remove(kind);
        let (event, mut seen) = match (object, old) {
            (Some(object), Some(_)) => ("MODIFIED", object),
            (Some(object), None) => ("ADDED", object),
            (None, Some(old)) => ("DELETED", old),
            (None, None) => return,
        };
        seen["metadata"]["resourceVersion"] = json!(version);
        if event != "DELETED" {
            state.objects.insert(kind.to_owned(), seen.clone());
        }
        state.events.push((kind.to_owned(), json!({"type": event, "object": seen})));
        self.1.send_replace(state.events.len());
    }

    pub fn refuse_next_create(&self, winner: Value) {
        self.0.lock().unwrap().refuse_create = Some(winner);
    }

    /// The write after `writes` others has a fault.
    pub fn spoil_write(&self, writes: usize, fault: Fault) {
        self.0.lock().unwrap().fault = Some((writes, fault));
    }

    /// Whether somebody waits for the answer to such a write; asked once.
    pub fn a_sender_hangs(&self) -> bool {
        std::mem::take(&mut self.0.lock().unwrap().hangs)
    }

    fn fault(&self) -> Option<Fault> {
        let mut state = self.0.lock().unwrap();
        let written = state.writes.len();
        let fault = state.fault.take_if(|(writes, _)| *writes == written)?;
        state.hangs = true;
        Some(fault.1)
    }

    /// How often anything was changed, by whomever.
    pub fn changes(&self) -> usize {
        *self.1.borrow()
    }

    pub fn writes(&self) -> Vec<String> {
        self.0.lock().unwrap().writes.clone()
    }

    pub fn bundle(&self) -> Vec<u8> {
        let configuration = self.get(CONFIGURATION).unwrap();
        let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].clone();
        serde_json::from_value::<Option<ByteString>>(bundle).unwrap().unwrap_or_default().0
    }

    pub async fn sees(&self, what: impl Fn(&Self) -> bool) {
        soon(|| what(self), || format!("{:?}", self.writes())).await;
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let kind = ["secrets", CONFIGURATION].into_iter().find(|kind| parts.uri.path().contains(kind)).unwrap();
        if query.contains("watch=true") {
            assert!(query.contains("fieldSelector=metadata.name"), "a watch by name, as the role allows: {query}");
            let since = query.split('&').find_map(|q| q.strip_prefix("resourceVersion=")).unwrap().parse().unwrap();
            return Response::new(self.events(kind, since));
        }
        if parts.method == Method::GET {
            let items: Vec<_> = self.get(kind).into_iter().collect();
            let version = self.1.borrow().to_string();
            return ok(
                &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
            );
        }
        let body: Value = serde_json::from_slice(&to_bytes(Body::new(body), usize::MAX).await.unwrap()).unwrap();
        if let (&Method::POST, Some(winner)) = (&parts.method, self.0.lock().unwrap().refuse_create.take()) {
            let cluster = self.clone();
            tokio::spawn(async move { cluster.set("secrets", Some(winner)) });
            return conflict();
        }
        let fault = self.fault();
        if fault == Some(Fault::Lost) {
            return pending().await;
        }
        let (verb, changed) = match (parts.method, self.get(kind)) {
            (Method::POST, None) => ("create", body),
            (Method::PUT, Some(old)) if old["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"] => {
                ("update", body)
            }
            (Method::PATCH, Some(mut object)) => {
                let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                json_patch::patch(&mut object, &patch).unwrap();
                ("patch", object)
            }
            _ => return conflict(),
        };
        self.0.lock().unwrap().writes.push(format!("{verb} {kind}"));
        self.set(kind, Some(changed));
        if fault == Some(Fault::Unanswered) {
            return pending().await;
        }
        ok(&self.get(kind).unwrap())
    }

    fn events(&self, kind: &'static str, since: usize) -> Body {
        let start = (self.clone(), self.1.subscribe(), since);
        let events = stream::unfold(start, move |(cluster, mut length, seen)| async move {
            let now = *length.wait_for(|length| *length > seen).await.ok()?;
            let of_kind = |(of, event): &(String, Value)| (of == kind).then(|| format!("{event}\n"));
            let lines: String = cluster.0.lock().unwrap().events[seen..now].iter().filter_map(of_kind).collect();
            Some((Ok::<_, Infallible>(Bytes::from(lines)), (cluster, length, now)))
        });
        Body::from_stream(events.boxed())
    }
}

pub async fn soon(mut holds: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let until = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), until).await.is_ok(), "{}", otherwise());
}

pub fn configuration() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "agent-tracing-webhook"},
        "webhooks": [{"name": "inject.agenttracing.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "agent-tracing-webhook", "namespace": "operators"}}}],
    })
}

pub fn secret(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agent-tracing-webhook-ca"},
        "type": "kubernetes.io/tls", "data": data})
}

/// The Secret as the operator writes it.
pub fn secret_of(authorities: &AuthoritySet) -> Value {
    secret(json!(authorities.data()))
}

fn ok(object: &Value) -> Response<Body> {
    Response::new(Body::from(object.to_string()))
}

fn conflict() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "AlreadyExists", "code": 409,
        "message": "it exists", "metadata": {}});
    Response::builder().status(StatusCode::CONFLICT).body(Body::from(status.to_string())).unwrap()
}
