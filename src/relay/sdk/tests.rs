//! What an SDK sees of a relay whose MLflow is there, away or in another order, with a stand-in that writes down what it gets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::api::AgentTracing;
use crate::core::relay::ids;
use crate::mlflow::Http;
use crate::relay::door;
use crate::relay::forward::Forwarder;
use crate::relay::spool::Spool;
use crate::relay::target::Target;

const TRACE: &str = "tr-01010101010101010101010101010101";
const BELOW: &str = "/w/deployment/teller";

#[derive(Default)]
struct Mlflow {
    is_away: AtomicBool,
    /// Method, path and query, body.
    got: Mutex<Vec<(String, String)>>,
    headers: Mutex<Vec<axum::http::HeaderMap>>,
}

async fn answer(State(mlflow): State<Arc<Mlflow>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, 1 << 20).await.unwrap();
    if mlflow.is_away.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let path = parts.uri.path();
    if path.ends_with("/experiments/search") {
        return axum::Json(json!({"experiments": [{"experiment_id": "7", "lifecycle_stage": "active"}]}))
            .into_response();
    }
    if path == "/v1/traces" && body.is_empty() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let text = if path == "/v1/traces" { String::new() } else { String::from_utf8_lossy(&body).into_owned() };
    let line = format!("{} {}", parts.method, parts.uri.path_and_query().unwrap());
    mlflow.got.lock().unwrap().push((line, text));
    mlflow.headers.lock().unwrap().push(parts.headers);
    axum::Json(json!({"runs": []})).into_response()
}

struct Relay {
    mlflow: Arc<Mlflow>,
    forwarder: Arc<Forwarder>,
    _targets: watch::Sender<Option<Arc<Target>>>,
    _http: watch::Sender<Http>,
}

impl Relay {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mlflow = Arc::new(Mlflow::default());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(mlflow.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let tracing: AgentTracing = serde_json::from_value(json!({
            "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
            "metadata": {"name": "tracing", "namespace": "bank"},
            "spec": {"mlflow": {"mode": "External", "external": {"trackingURI": url}}},
        }))
        .unwrap();
        let (targets, known) = watch::channel(Some(Arc::new(Target::of(&tracing, None).unwrap())));
        let (http, https) = watch::channel(Http::with(reqwest::Client::builder()).unwrap());
        let forwarder = Arc::new(Forwarder::new(Spool::open(None, 1 << 20).unwrap(), known, https));
        let running = forwarder.clone();
        tokio::spawn(async move { running.forward().await });
        Self { mlflow, forwarder, _targets: targets, _http: http }
    }

    async fn ask(&self, method: &str, below: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(format!("{BELOW}{below}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let router = door::router(self.forwarder.clone());
        let answer = router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into()))
    }

    async fn json(&self, method: &str, below: &str, body: Value) -> Value {
        let (status, answer) =
            self.ask(method, below, &[("content-type", "application/json")], body.to_string().into_bytes()).await;
        assert_eq!(status, StatusCode::OK, "{below} {answer}");
        answer
    }

    async fn spans(&self, experiment: &str) {
        let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
        let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        let resource_spans = vec![ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let headers = [("x-mlflow-experiment-id", experiment)];
        assert_eq!(self.ask("POST", "/v1/traces", &headers, body).await.0, StatusCode::OK);
    }

    fn got(&self) -> Vec<String> {
        self.mlflow.got.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    async fn until_got(&self, count: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.got().len() < count {
            assert!(Instant::now() < end, "{:?}", self.got());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn start(experiment: &str) -> Value {
    json!({"trace": {"trace_info": {"trace_id": TRACE, "state": "OK",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}},
        "trace_metadata": {"mlflow.trace_schema.version": "3"}, "tags": {"color": "blue"}}}})
}

/// An SDK's own order at its worst, MLflow away: answered, and sent in the order that MLflow 3.10.1 needs.
#[tokio::test]
async fn a_trace_that_comes_in_any_order_while_mlflow_is_away_arrives_in_its_own() {
    let relay = Relay::start().await;
    relay.mlflow.is_away.store(true, Ordering::Relaxed);
    let answer = relay.ask("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=teller", &[], vec![]).await;
    let id = answer.1["experiment"]["experiment_id"].as_str().unwrap().to_owned();
    assert_eq!(id, ids::made_up_experiment("teller"));
    relay.json("PATCH", &format!("/api/2.0/mlflow/traces/{TRACE}/tags"), json!({"key": "k", "value": "v"})).await;
    let started = relay.json("POST", "/api/3.0/mlflow/traces", start(&id)).await;
    let tags = &started["trace"]["trace_info"]["tags"];
    assert_eq!(tags["mlflow.artifactLocation"], format!("mlflow-artifacts:/{id}/traces/{TRACE}/artifacts"));
    assert_eq!(tags.get("mlflow.trace.spansLocation"), None, "its spans have not come");
    let sent = json!({"assessment": {"assessment_name": "good"}});
    let assessed = relay.json("POST", &format!("/api/3.0/mlflow/traces/{TRACE}/assessments"), sent).await;
    assert!(assessed["assessment"]["assessment_id"].as_str().unwrap().starts_with("a-"));
    let file = format!("/api/2.0/mlflow-artifacts/artifacts/{id}/traces/{TRACE}/artifacts/traces.json");
    assert_eq!(relay.ask("PUT", &file, &[], b"{}".to_vec()).await, (StatusCode::OK, json!({})));
    relay.spans(&id).await;
    relay.mlflow.is_away.store(false, Ordering::Relaxed);
    relay.until_got(6).await;
    let trace = format!("/api/3.0/mlflow/traces/{TRACE}");
    let expected = [
        "POST /v1/traces".to_owned(),
        "POST /api/3.0/mlflow/traces".to_owned(),
        format!("GET {trace}"),
        format!("PUT /api/2.0/mlflow-artifacts/artifacts/7/traces/{TRACE}/artifacts/traces.json"),
        format!("PATCH /api/2.0/mlflow/traces/{TRACE}/tags"),
        format!("POST {trace}/assessments"),
    ];
    assert_eq!(relay.got(), expected);
    let got = relay.mlflow.got.lock().unwrap();
    assert!(got[1].1.contains(r#""experiment_id":"7""#), "{}", got[1].1);
    assert_eq!(relay.mlflow.headers.lock().unwrap()[0]["x-mlflow-experiment-id"], "7");
}

#[tokio::test]
async fn in_calm_times_a_trace_goes_straight_through_and_says_where_its_spans_are() {
    let relay = Relay::start().await;
    relay.spans("7").await;
    let started = relay.json("POST", "/api/3.0/mlflow/traces", start("7")).await;
    assert_eq!(started["trace"]["trace_info"]["tags"]["mlflow.trace.spansLocation"], "TRACKING_STORE");
    relay.json("PATCH", &format!("/api/3.0/mlflow/traces/{TRACE}/tags"), json!({"key": "k", "value": "v"})).await;
    assert_eq!(relay.got().len(), 3, "before it was answered");
    assert_eq!(relay.forwarder.evidence().spool.bytes, 0);
}

#[tokio::test]
async fn version_and_abilities_are_answered_by_the_relay_alone() {
    let relay = Relay::start().await;
    relay.mlflow.is_away.store(true, Ordering::Relaxed);
    assert_eq!(relay.ask("GET", "/version", &[], vec![]).await, (StatusCode::OK, "3.10.1".into()));
    let (status, info) = relay.ask("GET", "/api/3.0/mlflow/server-info", &[], vec![]).await;
    assert_eq!((status, &info["workspaces_enabled"]), (StatusCode::OK, &json!(true)));
    let id = ids::made_up_experiment("teller");
    let (status, found) =
        relay.ask("GET", &format!("/api/2.0/mlflow/experiments/get?experiment_id={id}"), &[], vec![]).await;
    assert_eq!((status, &found["experiment"]["name"]), (StatusCode::OK, &json!("teller")));
}

#[tokio::test]
async fn what_is_passed_on_has_the_relays_identity_and_mlflows_ids() {
    let relay = Relay::start().await;
    let id = ids::made_up_experiment("teller");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer stolen"),
        ("cookie", "session=1"),
        ("x-mlflow-workspace", "other"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-remote-user", "admin"),
        ("user-agent", "mlflow-python-client/3.10.1"),
    ];
    let body = json!({"experiment_ids": [id], "max_results": 5}).to_string().into_bytes();
    let answer = relay.ask("POST", "/api/2.0/mlflow/runs/search", &headers, body).await;
    assert_eq!(answer, (StatusCode::OK, json!({"runs": []})));
    let (line, body) = relay.mlflow.got.lock().unwrap()[0].clone();
    assert_eq!(
        (line.as_str(), body.as_str()),
        ("POST /api/2.0/mlflow/runs/search", r#"{"experiment_ids":["7"],"max_results":5}"#)
    );
    let got = relay.mlflow.headers.lock().unwrap()[0].clone();
    for name in ["authorization", "cookie", "x-mlflow-workspace", "x-forwarded-for", "x-remote-user"] {
        assert_eq!(got.get(name), None, "{name}");
    }
    assert_eq!(got[header::USER_AGENT], "mlflow-python-client/3.10.1");
    let (status, _) =
        relay.ask("GET", &format!("/api/2.0/mlflow/traces?experiment_ids={id}&a=b%20c"), &[], vec![]).await;
    assert_eq!(
        (status, relay.got()[1].as_str()),
        (StatusCode::OK, "GET /api/2.0/mlflow/traces?experiment_ids=7&a=b%20c")
    );
}

#[tokio::test]
async fn an_agent_that_asks_mlflow_while_it_is_away_is_asked_to_come_again() {
    let relay = Relay::start().await;
    relay.mlflow.is_away.store(true, Ordering::Relaxed);
    let (status, answer) = relay.ask("GET", "/api/2.0/mlflow/runs/get?run_id=1", &[], vec![]).await;
    assert_eq!((status, &answer["error_code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("TEMPORARILY_UNAVAILABLE")));
    let uri: Uri = "http://other.host/w/deployment/teller/api/2.0/mlflow/users/list".parse().unwrap();
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let answer = door::router(relay.forwarder.clone()).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    for (method, path) in [("POST", "/api/3.0/mlflow/traces"), ("POST", "/api/2.0/mlflow/traces")] {
        let (status, answer) = relay.ask(method, path, &[], b"{}".to_vec()).await;
        assert_eq!((status, &answer["error_code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_PARAMETER_VALUE")));
    }
}
