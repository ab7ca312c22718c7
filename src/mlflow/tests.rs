use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::experiments::filter;
use super::*;

const HOST_REFUSED: &str = "Invalid Host header - possible DNS rebinding attack detected";
const DUPLICATE: &str =
    r#"{"error_code": "RESOURCE_ALREADY_EXISTS", "message": "[parameters: ('sample-a', 'secret-text')]"}"#;

fn client(origin: &str) -> MlflowClient {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    MlflowClient::new(&Http::trusting("").unwrap(), origin)
}

async fn answer(server: &MockServer, verb: &str, at: &str, template: ResponseTemplate) {
    Mock::given(method(verb)).and(path(at)).respond_with(template).mount(server).await;
}

fn text(status: u16, body: &str, content_type: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body.as_bytes().to_vec(), content_type)
}

fn json_body(body: &str) -> ResponseTemplate {
    text(200, body, "application/json")
}

async fn up(server: &MockServer) {
    answer(server, "GET", "/version", text(200, "3.10.1", "text/html; charset=utf-8")).await;
    let info = r#"{"store_type":"SqlStore","workspaces_enabled":false}"#;
    answer(server, "GET", "/api/3.0/mlflow/server-info", json_body(info)).await;
}

#[tokio::test]
async fn a_server_says_its_version_and_whether_it_has_workspaces() {
    let server = MockServer::start().await;
    up(&server).await;
    let said = client(&server.uri()).server().await.unwrap();
    assert_eq!(said, ServerInfo { version: "3.10.1".into(), workspaces: false });
}

#[tokio::test]
async fn a_refused_host_header_is_found_although_version_answers() {
    let server = MockServer::start().await;
    answer(&server, "GET", "/version", text(200, "3.10.1", "text/html")).await;
    answer(&server, "GET", "/api/3.0/mlflow/server-info", text(403, HOST_REFUSED, "text/plain")).await;
    assert!(matches!(client(&server.uri()).server().await, Err(Error::HostHeader)));
}

#[tokio::test]
async fn what_is_not_mlflow_is_told_apart() {
    let denied = r#"{"error_code":"PERMISSION_DENIED","message":"no"}"#;
    type Expected = fn(&Error) -> bool;
    let forbidden: Expected = |e| matches!(e, Error::Forbidden(Some(c)) if c == "PERMISSION_DENIED");
    let cases: [(ResponseTemplate, Expected); 11] = [
        (text(200, "<!doctype html><title>Log in</title>", "text/html"), |e| matches!(e, Error::LoginPage)),
        (ResponseTemplate::new(302).insert_header("location", "/login"), |e| matches!(e, Error::LoginPage)),
        (text(403, "<html>Log in</html>", "text/html"), |e| matches!(e, Error::LoginPage)),
        (text(200, "\u{0}\u{1}garbage", "text/html"), |e| matches!(e, Error::Garbage)),
        (text(200, "", "text/html"), |e| matches!(e, Error::Garbage)),
        (text(200, &"3".repeat(2 << 20), "text/html"), |e| matches!(e, Error::Garbage)),
        (text(200, "2.22.0", "text/html"), |e| matches!(e, Error::TooOld(v) if v == "2.22.0")),
        (text(401, "", "text/html"), |e| matches!(e, Error::Unauthorized)),
        (text(403, denied, "application/json"), forbidden),
        (text(404, "<h1>Not Found</h1>", "text/html"), |e| matches!(e, Error::NotFound(None))),
        (text(503, "upstream", "text/plain"), |e| matches!(e, Error::Server { status: 503, code: None })),
    ];
    for (template, expected) in cases {
        let server = MockServer::start().await;
        answer(&server, "GET", "/version", template).await;
        let error = client(&server.uri()).server().await.unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_before_3_10_has_no_workspaces() {
    let server = MockServer::start().await;
    answer(&server, "GET", "/version", text(200, "3.4.0", "text/html")).await;
    assert!(!client(&server.uri()).server().await.unwrap().workspaces);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_refused_unresolved_or_without_tls() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(matches!(client(&format!("http://127.0.0.1:{port}")).server().await, Err(Error::Refused(_))));
    assert!(matches!(client("http://no-such-host.invalid:5500").server().await, Err(Error::Dns(_))));
    let server = MockServer::start().await;
    let plain = server.uri().replace("http://", "https://");
    let error = client(&plain).server().await.unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn a_hanging_server_costs_five_seconds_and_a_slow_one_is_waited_for() {
    let hanging = MockServer::start().await;
    let slow = MockServer::start().await;
    answer(&hanging, "GET", "/version", text(200, "3.10.1", "text/html").set_delay(Duration::from_secs(60))).await;
    answer(&slow, "GET", "/version", text(200, "3.10.1", "text/html").set_delay(Duration::from_secs(1))).await;
    let began = Instant::now();
    let (hanging, slow) = (client(&hanging.uri()), client(&slow.uri()));
    let (hangs, answers) = tokio::join!(hanging.server(), slow.server());
    assert!(matches!(hangs, Err(Error::Timeout)));
    assert!(answers.is_ok());
    assert!(began.elapsed() < Duration::from_secs(8));
}

const SEARCH: &str = "/api/2.0/mlflow/experiments/search";
const CREATE: &str = "/api/2.0/mlflow/experiments/create";
const RESTORE: &str = "/api/2.0/mlflow/experiments/restore";

fn experiment(stage: &str) -> ResponseTemplate {
    json_body(&format!(r#"{{"experiments":[{{"experiment_id":"7","name":"teller","lifecycle_stage":"{stage}"}}]}}"#))
}

fn active(id: &str) -> Experiment {
    Experiment { id: id.into(), stage: Stage::Active, created: None, is_new: false }
}

#[tokio::test]
async fn an_experiment_that_exists_is_used() {
    let server = MockServer::start().await;
    let body = json!({"max_results": 1, "filter": "name = 'teller'", "view_type": "ALL"});
    let found = Mock::given(method("POST")).and(path(SEARCH)).and(body_partial_json(body));
    found.respond_with(experiment("active")).mount(&server).await;
    let ensured = client(&server.uri()).ensure_experiment("teller", false).await.unwrap();
    assert_eq!(ensured, active("7"));
}

#[tokio::test]
async fn an_experiment_that_is_absent_is_created() {
    let server = MockServer::start().await;
    answer(&server, "POST", SEARCH, json_body("{}")).await;
    answer(&server, "POST", CREATE, json_body(r#"{"experiment_id": "2"}"#)).await;
    let ensured = client(&server.uri()).ensure_experiment("teller", false).await.unwrap();
    assert_eq!(ensured, Experiment { is_new: true, ..active("2") });
}

#[tokio::test]
async fn an_experiment_that_someone_else_creates_meanwhile_is_used() {
    let server = MockServer::start().await;
    Mock::given(path(SEARCH)).respond_with(json_body("{}")).up_to_n_times(1).mount(&server).await;
    answer(&server, "POST", SEARCH, experiment("active")).await;
    answer(&server, "POST", CREATE, text(400, DUPLICATE, "application/json")).await;
    let ensured = client(&server.uri()).ensure_experiment("teller", false).await.unwrap();
    assert_eq!(ensured, active("7"));
}

#[tokio::test]
async fn a_deleted_experiment_is_reported_or_restored() {
    let server = MockServer::start().await;
    answer(&server, "POST", SEARCH, experiment("deleted")).await;
    let reported = client(&server.uri()).ensure_experiment("teller", false).await.unwrap();
    assert_eq!(reported, Experiment { stage: Stage::Deleted, ..active("7") });
    answer(&server, "POST", RESTORE, json_body("{}")).await;
    let restored = client(&server.uri()).ensure_experiment("teller", true).await.unwrap();
    assert_eq!(restored, active("7"));
}

#[tokio::test]
async fn an_error_quotes_the_code_and_never_the_servers_text() {
    let server = MockServer::start().await;
    answer(&server, "POST", SEARCH, text(400, DUPLICATE, "application/json")).await;
    let error = client(&server.uri()).ensure_experiment("teller", false).await.unwrap_err().to_string();
    assert!(error.contains("RESOURCE_ALREADY_EXISTS") && !error.contains("secret-text"), "{error}");
}

#[test]
fn a_name_with_a_quote_is_searched_for_in_the_other_quotes() {
    assert_eq!(filter("teller").unwrap(), "name = 'teller'");
    assert_eq!(filter("o'brien").unwrap(), "name = \"o'brien\"");
    assert_eq!(filter("o'brien \"x\""), None);
}

const TRACES: &str = "/api/3.0/mlflow/traces/search";
const ARTIFACT: &str = "/ajax-api/2.0/mlflow/get-trace-artifact";

fn trace(tags: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"traces": [{
        "trace_id": "tr-1", "request_time": "2026-11-21T10:52:17.365Z", "state": "OK", "tags": tags,
    }]}))
}

#[tokio::test]
async fn a_trace_counts_with_its_spans_in_the_store_or_in_a_file() {
    let server = MockServer::start().await;
    let mlflow = client(&server.uri());
    Mock::given(path(TRACES)).respond_with(json_body("{}")).up_to_n_times(1).mount(&server).await;
    assert_eq!(mlflow.latest_trace("3", None).await.unwrap(), None);

    let time: Timestamp = "2026-11-21T10:52:17.365Z".parse().unwrap();
    let tagged = trace(json!({"mlflow.trace.spansLocation": "TRACKING_STORE"}));
    Mock::given(path(TRACES)).respond_with(tagged).up_to_n_times(1).mount(&server).await;
    let expected = Trace { time, has_spans: true, finished: true };
    assert_eq!(mlflow.latest_trace("3", None).await.unwrap(), Some(expected));

    answer(&server, "POST", TRACES, trace(json!({}))).await;
    assert_eq!(mlflow.latest_trace("3", None).await.unwrap(), Some(Trace { has_spans: false, ..expected }));
    answer(&server, "GET", ARTIFACT, json_body(r#"{"spans": []}"#)).await;
    assert_eq!(mlflow.latest_trace("3", None).await.unwrap(), Some(expected));
}

#[tokio::test]
async fn the_last_traces_tell_when_they_began() {
    let server = MockServer::start().await;
    let times = ["2026-11-21T10:00:10Z", "2026-11-21T10:00:05Z"];
    let rows: Vec<_> = times.iter().map(|at| json!({"trace_id": at, "request_time": at})).collect();
    let body = ResponseTemplate::new(200).set_body_json(json!({"traces": rows}));
    let asked = Mock::given(path(TRACES)).and(body_partial_json(json!({"max_results": 20})));
    asked.respond_with(body).mount(&server).await;
    let found = client(&server.uri()).trace_times("3", 20).await.unwrap();
    assert_eq!(found, times.map(|at| at.parse().unwrap()));
}

/// A full disk and a read-only database answer every read.
#[tokio::test]
async fn a_write_by_way_of_trial_tells_a_full_disk_from_other_trouble() {
    let full =
        r#"{"error_code":"TEMPORARILY_UNAVAILABLE","message":"(sqlite3.OperationalError) database or disk is full"}"#;
    let quota =
        r#"{"error_code":"INTERNAL_ERROR","message":"[Errno 28] No space left on device: '/mlflow/secret-text'"}"#;
    let other = r#"{"error_code":"INTERNAL_ERROR","message":"attempt to write a readonly database"}"#;
    for (status, body, is_full) in [(503, full, true), (500, quota, true), (500, other, false)] {
        let server = MockServer::start().await;
        let tagged = "/api/2.0/mlflow/experiments/set-experiment-tag";
        answer(&server, "POST", tagged, text(status, body, "application/json")).await;
        let error = client(&server.uri()).write_check("7", "now").await.unwrap_err();
        assert_eq!(matches!(error, Error::StorageFull { .. }), is_full, "{error:?}");
        assert!(!error.to_string().contains("secret-text"), "{error}");
    }
    let server = MockServer::start().await;
    let body = json!({"experiment_id": "7", "key": "agenttracing.dev/last-write-check", "value": "now"});
    let tagged = Mock::given(path("/api/2.0/mlflow/experiments/set-experiment-tag")).and(body_partial_json(body));
    tagged.respond_with(json_body("{}")).mount(&server).await;
    client(&server.uri()).write_check("7", "now").await.unwrap();
}

const NO_SUCH_PATH: &str = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n";

/// A server with `--static-prefix=/mlflow`, whose REST is at `api`.
async fn shared(api: &str) -> MockServer {
    let server = MockServer::start().await;
    answer(&server, "GET", &format!("{api}/api/3.0/mlflow/server-info"), json_body(r#"{"workspaces_enabled":true}"#))
        .await;
    answer(&server, "GET", "/mlflow/version", text(200, "3.10.1", "text/html; charset=utf-8")).await;
    answer(&server, "POST", "/v1/traces", text(401, r#"{"error":{"code":"UNAUTHENTICATED"}}"#, "application/json"))
        .await;
    Mock::given(path("/nowhere")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    server
}

#[tokio::test]
async fn rest_is_found_at_the_origin_of_an_older_server_and_under_the_prefix_of_a_newer_one() {
    for (api, takes_otlp) in [("", true), ("/mlflow", false)] {
        let server = shared(api).await;
        let _ = client(&server.uri());
        let (found, said) = MlflowClient::locate(&Http::trusting("").unwrap(), &server.uri()).await.unwrap();
        assert_eq!(found.tracking_uri(), format!("{}{api}", server.uri()));
        assert_eq!((said.version.as_str(), said.workspaces), ("3.10.1", true));
        if !takes_otlp {
            answer(&server, "POST", "/mlflow/v1/traces", text(404, NO_SUCH_PATH, "text/html; charset=utf-8")).await;
        }
        assert_eq!(found.takes_otlp().await.unwrap(), takes_otlp, "OTLP is at the origin of both");
    }
}

#[tokio::test]
async fn questions_carry_token_and_workspace_and_the_first_one_neither() {
    use wiremock::matchers::header;

    let server = MockServer::start().await;
    up(&server).await;
    Mock::given(path("/api/2.0/mlflow/experiments/search"))
        .and(header("Authorization", "Bearer secret"))
        .and(header("X-MLFLOW-WORKSPACE", "bank"))
        .respond_with(json_body(r#"{"experiments": [{"experiment_id": "7", "lifecycle_stage": "active"}]}"#))
        .mount(&server)
        .await;
    let access = Access { token: Some("secret".into()), workspace: Some("bank".into()) };
    assert!(!format!("{access:?}").contains("secret"), "a token never reaches a log");
    let mlflow = client(&server.uri()).with_access(access);
    mlflow.server().await.unwrap();
    assert_eq!(mlflow.ensure_experiment("teller", false).await.unwrap(), active("7"));
    let asked = server.received_requests().await.unwrap();
    let anonymous = asked.iter().filter(|r| !r.headers.contains_key("authorization")).count();
    assert_eq!((asked.len(), anonymous), (3, 2), "version and server-info need no credentials");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let workspace =
        r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Workspace 'bank' not found in the Kubernetes cluster."}"#;
    let denied = r#"{"error":{"code":"PERMISSION_DENIED","message":"Permission denied for requested operation."}}"#;
    let missing = r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"No experiment"}"#;
    let json = "application/json";
    type Test = fn(&Error) -> bool;
    let table: [(u16, &str, &str, Test); 6] = [
        (403, "RBAC: access denied", "text/plain", |e| matches!(e, Error::Mesh)),
        (403, denied, json, |e| matches!(e, Error::Forbidden(Some(code)) if code == "PERMISSION_DENIED")),
        (404, workspace, json, |e| matches!(e, Error::NoWorkspace)),
        (404, missing, json, |e| matches!(e, Error::NotFound(Some(_)))),
        (404, NO_SUCH_PATH, "text/html; charset=utf-8", |e| matches!(e, Error::NotFound(None))),
        (401, denied, json, |e| matches!(e, Error::Unauthorized)),
    ];
    for (status, body, kind, is_right) in table {
        let server = MockServer::start().await;
        answer(&server, "POST", "/api/3.0/mlflow/traces/search", text(status, body, kind)).await;
        let error = client(&server.uri()).latest_trace("1", None).await.unwrap_err();
        assert!(is_right(&error), "{status} {body}: {error:?}");
    }
}

#[tokio::test]
async fn every_request_is_measured_with_the_class_of_its_end() {
    let server = MockServer::start().await;
    up(&server).await;
    answer(&server, "POST", "/api/3.0/mlflow/traces/search", text(503, "busy", "text/plain")).await;
    answer(&server, "POST", "/api/2.0/mlflow/experiments/search", text(200, "<html>Log in</html>", "text/html")).await;
    let _ = client("");
    let measured = Arc::new(std::sync::Mutex::new(Vec::new()));
    let meter = measured.clone();
    let meter: Meter = Arc::new(move |outcome, took: Duration| meter.lock().unwrap().push((outcome, took)));
    let http = Http::trusting("").unwrap().with_meter(meter);
    let mlflow = MlflowClient::new(&http, &server.uri());
    mlflow.server().await.unwrap();
    mlflow.latest_trace("1", None).await.unwrap_err();
    mlflow.ensure_experiment("teller", false).await.unwrap_err();
    MlflowClient::new(&http, "http://127.0.0.1:1").server().await.unwrap_err();
    let (outcomes, took): (Vec<_>, Vec<_>) = measured.lock().unwrap().drain(..).unzip();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Ok, Outcome::Server, Outcome::LoginPage, Outcome::Refused]);
    assert!(took.iter().all(|took| *took > Duration::ZERO && *took < TOTAL_TIMEOUT), "{took:?}");
}
