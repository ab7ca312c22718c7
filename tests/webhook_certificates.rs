//! The webhook's certificates, from an empty cluster to an HTTPS call that trusts nothing but `caBundle`. The API server
//! is a stand-in that keeps one Secret and one MutatingWebhookConfiguration and counts what is written.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_tracing::telemetry::{Metrics, Readiness};
use agent_tracing::webhook::certs::{CHECKS, Certificates};
use agent_tracing::webhook::server::{Drain, Limits, serve};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, Response, StatusCode};
use futures::{StreamExt, stream};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const HOST: &str = "agent-tracing-webhook.operators.svc";
const CONFIGURATION: &str = "mutatingwebhookconfigurations";

#[tokio::test]
async fn from_nothing_two_replicas_share_one_authority_and_the_leader_publishes_it() {
    let cluster = Cluster::new();
    let leader = Replica::start(&cluster, Leads::Yes).await;
    let other = Replica::start(&cluster, Leads::No).await;
    for replica in [&leader, &other] {
        replica.is_ready().await;
        assert_eq!(replica.answers_whoever_trusts(&cluster.bundle()).await, Ok(()));
    }
    assert_eq!(cluster.writes(), ["create secrets", "patch mutatingwebhookconfigurations"]);
}

#[tokio::test]
async fn a_replica_that_does_not_lead_publishes_nothing_and_says_what_it_waits_for() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::No).await;
    replica.lacks("caBundle of MutatingWebhookConfiguration agent-tracing-webhook is not ours yet").await;
    assert_eq!(cluster.writes(), ["create secrets"]);
}

#[tokio::test]
async fn whoever_comes_second_to_the_secret_takes_what_is_there() {
    let cluster = Cluster::new();
    // Its list was empty, its create comes too late.
    cluster.refuse_next_create(Replica::authority());
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    assert_eq!(cluster.writes(), ["patch mutatingwebhookconfigurations"]);
}

#[tokio::test]
async fn a_deleted_secret_comes_back_with_the_same_authority() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let before = cluster.get("secrets").unwrap()["data"].clone();
    cluster.set("secrets", None);
    cluster.sees(|c| c.get("secrets").is_some_and(|secret| secret["data"] == before)).await;
    assert!(replica.readiness.report().0);
}

#[tokio::test]
async fn a_spoilt_secret_is_put_right_with_the_same_authority_and_keeps_its_type() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let before = cluster.get("secrets").unwrap();
    let mut spoilt = before.clone();
    spoilt["data"]["tls.crt"] = json!(ByteString(b"garbage".to_vec()));
    cluster.set("secrets", Some(spoilt));
    cluster.sees(|c| c.get("secrets").is_some_and(|secret| secret["data"] == before["data"])).await;
    assert_eq!(cluster.get("secrets").unwrap()["type"], "kubernetes.io/tls");
    assert_eq!(replica.answers_whoever_trusts(&cluster.bundle()).await, Ok(()));
}

#[tokio::test]
async fn a_secret_of_rubbish_from_before_the_first_start_is_replaced() {
    let cluster = Cluster::new();
    cluster.set("secrets", Some(secret(json!({"tls.crt": "", "tls.key": ""}))));
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    assert_eq!(cluster.writes(), ["update secrets", "patch mutatingwebhookconfigurations"]);
    assert_eq!(replica.answers_whoever_trusts(&cluster.bundle()).await, Ok(()));
}

#[tokio::test]
async fn another_authority_in_the_secret_is_taken_over_by_everybody() {
    let cluster = Cluster::new();
    let leader = Replica::start(&cluster, Leads::Yes).await;
    let other = Replica::start(&cluster, Leads::No).await;
    leader.is_ready().await;
    let old_bundle = cluster.bundle();
    cluster.set("secrets", Some(Replica::authority()));
    cluster.sees(|c| c.bundle() != old_bundle).await;
    for replica in [&leader, &other] {
        replica.is_ready().await;
        assert_eq!(replica.answers_whoever_trusts(&cluster.bundle()).await, Ok(()));
        assert!(replica.answers_whoever_trusts(&old_bundle).await.is_err());
    }
}

#[tokio::test]
async fn an_overwritten_bundle_is_put_right_and_nothing_is_written_at_rest() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let bundle = cluster.bundle();
    cluster.set(CONFIGURATION, Some(configuration()));
    cluster.sees(|c| c.bundle() == bundle).await;
    replica.is_ready().await;

    let writes = cluster.writes().len();
    // Somebody else's change of the same object is none of our business.
    let mut labelled = cluster.get(CONFIGURATION).unwrap();
    labelled["metadata"]["labels"] = json!({"by": "gitops"});
    cluster.set(CONFIGURATION, Some(labelled));
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(cluster.writes().len(), writes);
}

#[tokio::test]
async fn without_a_configuration_it_is_not_ready_and_says_so_until_there_is_one() {
    let cluster = Cluster::new();
    cluster.set(CONFIGURATION, None);
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.lacks("there is no MutatingWebhookConfiguration agent-tracing-webhook").await;
    cluster.set(CONFIGURATION, Some(configuration()));
    replica.is_ready().await;
}

#[tokio::test]
async fn the_webhook_speaks_http_1_1_and_only_over_tls() {
    let cluster = Cluster::new();
    let replica = Replica::start(&cluster, Leads::Yes).await;
    replica.is_ready().await;
    let client = replica.client(&cluster.bundle());
    let answer = client.get(replica.url()).send().await.unwrap();
    assert_eq!(answer.version(), axum::http::Version::HTTP_11);
    assert!(reqwest::get(format!("http://{}", replica.address)).await.is_err(), "plain HTTP");
}

/// One replica: certificates, and an HTTPS server that uses them.
struct Replica {
    address: std::net::SocketAddr,
    readiness: Arc<Readiness>,
    tasks: Vec<JoinHandle<()>>,
    _open: watch::Sender<Drain>,
}

#[derive(PartialEq)]
enum Leads {
    Yes,
    No,
}

impl Replica {
    async fn start(cluster: &Cluster, leads: Leads) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let readiness = Arc::new(Readiness::new(CHECKS));
        let client = cluster.client();
        let certificates = Certificates::new(client, "operators", "cluster.local", &[], Arc::new(Metrics::default()));
        let certificates = Arc::new(certificates);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(Drain::Open);
        let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
        let server = serve(listener, Some(certificates.serving()), router, Limits::default(), open.subscribe());
        let mut tasks = vec![tokio::spawn(server)];
        let (keeper, checks) = (certificates.clone(), readiness.clone());
        tasks.push(tokio::spawn(async move { match keeper.keep(&checks).await {} }));
        if leads == Leads::Yes {
            tasks.push(tokio::spawn(async move { match certificates.publish().await {} }));
        }
        Self { address, readiness, tasks, _open: open }
    }

    /// A Secret with an authority that no replica made.
    fn authority() -> Value {
        let authority = agent_tracing::webhook::authority::Authority::generate(jiff::Timestamp::now()).unwrap();
        secret(json!(authority.data()))
    }

    async fn is_ready(&self) {
        soon(|| self.readiness.report().0, || self.readiness.report().1).await;
    }

    async fn lacks(&self, reason: &str) {
        soon(|| self.readiness.report().1.contains(reason), || self.readiness.report().1).await;
    }

    async fn answers_whoever_trusts(&self, bundle: &[u8]) -> Result<(), String> {
        let answer = self.client(bundle).get(self.url()).send().await.map_err(|error| format!("{error:?}"))?;
        assert_eq!(answer.text().await.unwrap(), "hello");
        Ok(())
    }

    fn client(&self, bundle: &[u8]) -> reqwest::Client {
        let roots = reqwest::Certificate::from_pem_bundle(bundle).unwrap();
        reqwest::Client::builder().tls_certs_only(roots).resolve(HOST, self.address).no_proxy().build().unwrap()
    }

    fn url(&self) -> String {
        format!("https://{HOST}:{}/", self.address.port())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Two objects and their history.
#[derive(Clone)]
struct Cluster(Arc<Mutex<State>>, watch::Sender<usize>);

#[derive(Default)]
struct State {
    objects: std::collections::BTreeMap<String, Value>,
    events: Vec<(String, Value)>,
    writes: Vec<String>,
    refuse_create: Option<Value>,
}

impl Cluster {
    fn new() -> Self {
        let cluster = Self(Arc::default(), watch::Sender::new(0));
        cluster.set(CONFIGURATION, Some(configuration()));
        cluster
    }

    fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    fn get(&self, kind: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(kind).cloned()
    }

    /// Somebody creates, changes or deletes the one object of a kind.
    fn set(&self, kind: &str, object: Option<Value>) {
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

    fn refuse_next_create(&self, winner: Value) {
        self.0.lock().unwrap().refuse_create = Some(winner);
    }

    fn writes(&self) -> Vec<String> {
        self.0.lock().unwrap().writes.clone()
    }

    fn bundle(&self) -> Vec<u8> {
        let configuration = self.get(CONFIGURATION).unwrap();
        let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].clone();
        serde_json::from_value::<Option<ByteString>>(bundle).unwrap().unwrap_or_default().0
    }

    async fn sees(&self, what: impl Fn(&Self) -> bool) {
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

async fn soon(mut holds: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let until = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), until).await.is_ok(), "{}", otherwise());
}

fn configuration() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "agent-tracing-webhook"},
        "webhooks": [{"name": "inject.agenttracing.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "agent-tracing-webhook", "namespace": "operators"}}}],
    })
}

fn secret(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agent-tracing-webhook-ca"},
        "type": "kubernetes.io/tls", "data": data})
}

fn ok(object: &Value) -> Response<Body> {
    Response::new(Body::from(object.to_string()))
}

fn conflict() -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "AlreadyExists", "code": 409,
        "message": "it exists", "metadata": {}});
    Response::builder().status(StatusCode::CONFLICT).body(Body::from(status.to_string())).unwrap()
}
