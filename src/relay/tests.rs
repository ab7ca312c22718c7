//! The relay in one process with a stand-in for MLflow that refuses in every way; real ones come in the tests with a cluster.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

use super::door;
use super::forward::Forwarder;
use super::spool::Spool;
use super::target::Target;
use crate::api::AgentTracing;
use crate::mlflow::Http;

/// How the stand-in answers spans.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Takes,
    Refuses(u16, &'static str),
    Redirects,
    ShowsAPage,
    Hangs,
}

struct Mlflow {
    mood: Mutex<Mood>,
    /// Experiment and names of spans.
    taken: Mutex<Vec<(String, String)>>,
}

impl Mlflow {
    fn start() -> Arc<Self> {
        Arc::new(Self { mood: Mutex::new(Mood::Takes), taken: Mutex::default() })
    }

    async fn listen(self: &Arc<Self>, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn taken(&self) -> Vec<(String, String)> {
        self.taken.lock().unwrap().clone()
    }
}

async fn answer(State(mlflow): State<Arc<Mlflow>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if uri.path().ends_with("/experiments/search") {
        let name = String::from_utf8_lossy(&body).split('\'').nth(1).unwrap_or_default().to_owned();
        let found = json!({"experiments": [{"experiment_id": "7", "name": name, "lifecycle_stage": "active"}]});
        return axum::Json(found).into_response();
    }
    if uri.path() != "/v1/traces" || body.is_empty() {
        let status = if uri.path() == "/v1/traces" { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND };
        return status.into_response();
    }
    let mood = *mlflow.mood.lock().unwrap();
    match mood {
        Mood::Takes => {}
        Mood::Refuses(status, body) => return (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Mood::Redirects => return (StatusCode::FOUND, [(header::LOCATION, "/login")]).into_response(),
        Mood::ShowsAPage => return ([(header::CONTENT_TYPE, "text/html")], "<html>Log in</html>").into_response(),
        Mood::Hangs => std::future::pending().await,
    }
    let spans = ExportTraceServiceRequest::decode(body).unwrap();
    let span = &spans.resource_spans[0].scope_spans[0].spans[0];
    let experiment = headers["x-mlflow-experiment-id"].to_str().unwrap().to_owned();
    mlflow.taken.lock().unwrap().push((experiment, span.name.clone()));
    ([(header::CONTENT_TYPE, "application/x-protobuf")], "").into_response()
}

/// A relay that sends to an address.
struct Relay {
    forwarder: Arc<Forwarder>,
    _targets: watch::Sender<Option<Arc<Target>>>,
    _http: watch::Sender<Http>,
}

impl Relay {
    fn start(mlflow: SocketAddr, limit: u64) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = format!("http://{mlflow}");
        let tracing: AgentTracing = serde_json::from_value(json!({
            "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
            "metadata": {"name": "tracing", "namespace": "bank"},
            "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": url}}},
        }))
        .unwrap();
        let target = Target::of(&tracing, None).unwrap();
        let (targets, known) = watch::channel(Some(Arc::new(target)));
        let (http, https) = watch::channel(Http::with(reqwest::Client::builder()).unwrap());
        let forwarder = Arc::new(Forwarder::new(Spool::open(None, limit).unwrap(), known, https));
        let running = forwarder.clone();
        tokio::spawn(async move { running.forward().await });
        Self { forwarder, _targets: targets, _http: http }
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, String) {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer =
            door::router(self.forwarder.clone()).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = answer.status();
        (status, String::from_utf8(to_bytes(answer.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap())
    }

    async fn send_span(&self, workload: &str, name: &str) {
        let sent = self.send(&format!("/w/{workload}/v1/traces"), &[], span(name).encode_to_vec()).await;
        assert_eq!(sent, (StatusCode::OK, String::new()));
    }
}

fn span(name: &str) -> ExportTraceServiceRequest {
    let span = Span { name: name.to_owned(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() }],
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test]
async fn in_calm_times_a_request_goes_straight_through_to_its_workloads_experiment() {
    let mlflow = Mlflow::start();
    let relay = Relay::start(mlflow.listen(loopback()).await, 1 << 20);
    relay.send_span("deployment/teller", "calm").await;
    assert_eq!(mlflow.taken(), [("7".to_owned(), "calm".to_owned())], "before it was answered");
    let own_id = [("x-mlflow-experiment-id", "12")];
    let sent = relay.send("/w/deployment/teller/v1/traces", &own_id, span("own").encode_to_vec()).await;
    assert_eq!((sent.0, mlflow.taken()[1].0.as_str()), (StatusCode::OK, "12"));
    let evidence = relay.forwarder.evidence();
    let teller = &evidence.workloads["deployment/teller"];
    assert_eq!((teller.accepted, teller.forwarded, teller.held, evidence.spool.bytes), (2, 2, 0, 0));
}

/// What the OpenTelemetry Collector drops for ever, or counts as sent.
#[tokio::test]
async fn whatever_mlflow_refuses_for_a_while_arrives_once_afterwards() {
    let moods = [
        Mood::Refuses(400, r#"{"error_code": "BAD_REQUEST"}"#),
        Mood::Refuses(401, ""),
        Mood::Refuses(403, r#"{"error_code": "PERMISSION_DENIED"}"#),
        Mood::Refuses(404, r#"{"error_code": "RESOURCE_DOES_NOT_EXIST"}"#),
        Mood::Refuses(408, ""),
        Mood::Refuses(409, ""),
        Mood::Refuses(413, ""),
        Mood::Refuses(422, ""),
        Mood::Refuses(429, ""),
        Mood::Refuses(500, r#"{"error_code": "INTERNAL_ERROR"}"#),
        Mood::Refuses(503, ""),
        Mood::Redirects,
        Mood::ShowsAPage,
    ];
    let refused = moods.map(|mood| async move {
        let mlflow = Mlflow::start();
        let relay = Relay::start(mlflow.listen(loopback()).await, 1 << 20);
        mlflow.is(mood);
        for name in ["first", "second"] {
            relay.send_span("deployment/teller", name).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let evidence = relay.forwarder.evidence();
        assert_eq!(evidence.workloads["deployment/teller"].held, 2, "{mood:?}");
        assert!(evidence.workloads["deployment/teller"].cause.is_some(), "{mood:?}");
        mlflow.is(Mood::Takes);
        until(&format!("{mood:?}"), || mlflow.taken().len() >= 2).await;
        until("the evidence says so", || relay.forwarder.evidence().workloads["deployment/teller"].held == 0).await;
        let mut taken: Vec<_> = mlflow.taken().into_iter().map(|(_, name)| name).collect();
        taken.sort();
        assert_eq!(taken, ["first", "second"], "{mood:?}");
        assert_eq!(relay.forwarder.evidence().spool.bytes, 0, "{mood:?}");
    });
    futures::future::join_all(refused).await;
}

#[tokio::test]
async fn an_mlflow_that_is_away_or_hangs_is_not_felt_by_agents() {
    let mlflow = Mlflow::start();
    let address = mlflow.listen(loopback()).await;
    let relay = Relay::start(address, 1 << 20);
    mlflow.is(Mood::Hangs);
    let began = Instant::now();
    for n in 0..20 {
        relay.send_span(&format!("deployment/agent-{}", n % 4), &n.to_string()).await;
    }
    println!("20 requests beside an MLflow that hangs: {:?}", began.elapsed());
    assert!(mlflow.taken().is_empty() && relay.forwarder.evidence().spool.bytes > 0);

    let nobody = TcpListener::bind(loopback()).await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let relay = Relay::start(address, 1 << 20);
    for n in 0..20 {
        relay.send_span(&format!("deployment/agent-{}", n % 4), &n.to_string()).await;
    }
    until("everybody is held up", || relay.forwarder.evidence().held.is_some()).await;
    assert_eq!(relay.forwarder.evidence().held.unwrap().cause, "Unreachable");
    let mlflow = Mlflow::start();
    mlflow.listen(address).await;
    until("all have arrived", || mlflow.taken().len() >= 20).await;
    assert_eq!(mlflow.taken().len(), 20);
    let order: Vec<u32> =
        mlflow.taken().iter().map(|(_, name)| name.parse::<u32>().unwrap()).filter(|n: &u32| n % 4 == 1).collect();
    assert_eq!(order, [1, 5, 9, 13, 17], "the order of a workload is kept");
}

#[tokio::test]
async fn a_full_spool_sends_the_agent_away_for_a_moment() {
    let mlflow = Mlflow::start();
    let relay = Relay::start(mlflow.listen(loopback()).await, 400);
    mlflow.is(Mood::Refuses(503, ""));
    relay.send_span("deployment/teller", "kept").await;
    let (status, text) =
        relay.send("/w/deployment/teller/v1/traces", &[], span(&"x".repeat(300)).encode_to_vec()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.starts_with("the spool is full: it holds"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_what_to_do() {
    let mlflow = Mlflow::start();
    let relay = Relay::start(mlflow.listen(loopback()).await, 1 << 20);
    let traces = "/w/deployment/teller/v1/traces";
    let good = span("good").encode_to_vec();
    for (path, headers, body, status, told) in [
        (
            "/api/2.0/mlflow/users/list",
            &[][..],
            Vec::new(),
            404,
            r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"the relay does not serve /api/2.0"#,
        ),
        (
            traces,
            &[("content-type", "text/plain")],
            good.clone(),
            415,
            "Content-Type is \"text/plain\": send application/x-protobuf",
        ),
        (traces, &[("content-encoding", "br")], good.clone(), 415, "Content-Encoding is \"br\": send gzip"),
        (traces, &[("content-encoding", "gzip")], good.clone(), 400, "the body does not unpack"),
        (
            traces,
            &[("x-mlflow-experiment-id", "teller")],
            good.clone(),
            400,
            "header x-mlflow-experiment-id is \"teller\"",
        ),
        (traces, &[], b"spans".to_vec(), 400, "the body is no OTLP ExportTraceServiceRequest in protobuf"),
        (
            traces,
            &[("content-type", "application/json")],
            b"{".to_vec(),
            400,
            "the body is no OTLP ExportTraceServiceRequest in JSON",
        ),
    ] {
        let (answered, text) = relay.send(path, headers, body).await;
        assert_eq!(answered.as_u16(), status, "{text}");
        assert!(text.starts_with(told), "{text}");
    }
    assert!(mlflow.taken().is_empty());
    // An exporter that has nothing to say says so.
    assert_eq!(relay.send(traces, &[], Vec::new()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn spans_come_packed_and_in_json_too() {
    let mlflow = Mlflow::start();
    let relay = Relay::start(mlflow.listen(loopback()).await, 1 << 20);
    let traces = "/w/deployment/teller/v1/traces";
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &span("packed").encode_to_vec()).unwrap();
    let sent = relay.send(traces, &[("content-encoding", "gzip")], packed.finish().unwrap()).await;
    assert_eq!(sent.0, StatusCode::OK);
    // As OTLP has it: ids in hexadecimal digits, numbers of 64 bits as strings, names in camel case.
    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "json", "kind": 1,
        "startTimeUnixNano": "1790000000000000000", "endTimeUnixNano": "1790000001000000000",
        "attributes": [{"key": "tokens", "value": {"intValue": "12"}}],
    }]}]}]});
    let sent = relay.send(traces, &[("content-type", "application/json")], spans.to_string().into_bytes()).await;
    assert_eq!(sent, (StatusCode::OK, "{}".to_owned()));
    let names: Vec<_> = mlflow.taken().into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["packed", "json"]);
}
