use super::*;

fn of(method: &str, below: &str) -> Option<Route> {
    let path = format!("/w/deployment/teller{below}");
    let (sender, route, rest) = route(method, &path).ok()?;
    assert_eq!((sender.to_string().as_str(), rest), ("deployment/teller", below));
    Some(route)
}

fn trace() -> String {
    "tr-9ed74176d9636f11665bf7b17be87828".to_owned()
}

#[test]
fn what_the_relay_answers_or_holds_is_known_by_method_and_path() {
    let trace_path = format!("/api/3.0/mlflow/traces/{}", trace());
    let file = format!("/api/2.0/mlflow-artifacts/artifacts/12/traces/{}/artifacts/traces.json", trace());
    for (method, path, expected) in [
        ("POST", "/v1/traces", Route::Spans),
        ("GET", "/version", Route::Version),
        ("GET", "/api/3.0/mlflow/server-info", Route::ServerInfo),
        ("GET", "/api/2.0/mlflow/experiments/get-by-name", Route::ExperimentByName),
        ("GET", "/api/2.0/mlflow/experiments/get", Route::ExperimentById),
        ("POST", "/api/3.0/mlflow/traces", Route::Start),
        ("PUT", &file, Route::File { trace: trace(), experiment: "12".to_owned() }),
        ("POST", &format!("{trace_path}/assessments"), Route::Assessment { trace: trace() }),
        ("PATCH", &format!("{trace_path}/tags"), Route::Tag { trace: trace() }),
        ("DELETE", &format!("/api/2.0/mlflow/traces/{}/tags", trace()), Route::Tag { trace: trace() }),
        ("POST", "/api/2.0/mlflow/traces", Route::StartV2),
        ("PATCH", &format!("/api/2.0/mlflow/traces/{}", trace()), Route::EndV2 { trace: trace() }),
    ] {
        assert_eq!(of(method, path), Some(expected), "{method} {path}");
    }
}

/// docs/mlflow-sdk.md, section 6.
#[test]
fn what_sdks_ask_of_mlflow_itself_is_passed_on() {
    for line in "
        GET /api/3.0/mlflow/server-features
        POST /api/2.0/mlflow/experiments/create
        POST /api/2.0/mlflow/experiments/search
        GET /api/2.0/mlflow/experiments/search
        POST /api/2.0/mlflow/experiments/set-experiment-tag
        POST /api/3.0/mlflow/traces/search
        GET /api/3.0/mlflow/traces/get
        GET /api/3.0/mlflow/traces/batchGet
        POST /api/3.0/mlflow/traces/batchGetInfos
        GET /api/3.0/mlflow/traces/tr-1
        GET /api/3.0/mlflow/traces/tr-1/assessments/a-1
        PATCH /api/3.0/mlflow/traces/tr-1/assessments/a-1
        DELETE /api/3.0/mlflow/traces/tr-1/assessments/a-1
        GET /api/2.0/mlflow/traces
        GET /api/2.0/mlflow/traces/tr-1
        GET /api/2.0/mlflow/traces/tr-1/info
        POST /api/2.0/mlflow/traces/link-to-run
        POST /api/2.0/mlflow/traces/link-prompts
        GET /api/2.0/mlflow-artifacts/artifacts
        GET /api/2.0/mlflow-artifacts/artifacts/1/traces/tr-1/artifacts/traces.json
        PUT /api/2.0/mlflow-artifacts/artifacts/1/0f3a/artifacts/a/x%20y.txt
        PUT /api/2.0/mlflow-artifacts/artifacts/workspaces/bank/1/traces/tr-1/artifacts/attachments/a..b
        POST /api/2.0/mlflow-artifacts/mpu/create/1/0f3a/artifacts/model
        POST /api/2.0/mlflow-artifacts/mpu/complete/1/0f3a/artifacts/model
        POST /api/2.0/mlflow-artifacts/mpu/abort/1/0f3a/artifacts/model
        POST /api/2.0/mlflow/runs/create
        POST /api/2.0/mlflow/runs/update
        POST /api/2.0/mlflow/runs/search
        POST /api/2.0/mlflow/runs/log-parameter
        POST /api/2.0/mlflow/runs/log-metric
        POST /api/2.0/mlflow/runs/log-batch
        POST /api/2.0/mlflow/runs/set-tag
        POST /api/2.0/mlflow/runs/delete-tag
        POST /api/2.0/mlflow/runs/log-inputs
        POST /api/2.0/mlflow/runs/log-model
        POST /api/2.0/mlflow/runs/outputs
        GET /api/2.0/mlflow/runs/get
        GET /api/2.0/mlflow/metrics/get-history
        GET /api/2.0/mlflow/artifacts/list
        POST /api/2.0/mlflow/logged-models
        POST /api/2.0/mlflow/logged-models/search
        GET /api/2.0/mlflow/logged-models/m-1
        PATCH /api/2.0/mlflow/logged-models/m-1
        POST /api/2.0/mlflow/logged-models/m-1/params
        PATCH /api/2.0/mlflow/logged-models/m-1/tags"
        .split('\n')
        .skip(1)
    {
        let (method, path) = line.trim().split_once(' ').unwrap();
        assert_eq!(of(method, path), Some(Route::Passed), "{line}");
    }
}

#[test]
fn everything_else_is_not_mlflows_through_the_relay() {
    for line in "
        GET /
        GET /health
        GET /version/
        GET /v1/metrics
        GET /ajax-api/2.0/mlflow/experiments/search
        GET /api/2.0/mlflow/users/list
        POST /api/2.0/mlflow/experiments/delete
        POST /api/2.0/mlflow/experiments/restore
        POST /api/2.0/mlflow/runs/delete
        POST /api/2.0/mlflow/traces/delete-traces
        POST /api/3.0/mlflow/traces/delete-traces
        DELETE /api/2.0/mlflow-artifacts/artifacts/1/a
        POST /api/2.0/mlflow/logged-models/m-1
        DELETE /api/2.0/mlflow/logged-models/m-1
        GET /api/2.0/mlflow/registered-models/search
        GET /api/3.0/mlflow/workspaces
        POST /api/2.0/mlflow/gateway-proxy
        POST /api/3.0/mlflow/scorers/register
        CONNECT /api/3.0/mlflow/traces
        GET /get-artifact"
        .split('\n')
        .skip(1)
    {
        let (method, path) = line.trim().split_once(' ').unwrap();
        assert_eq!(of(method, path), None, "{line}");
    }
}

#[test]
fn no_path_is_anything_but_what_it_looks_like() {
    for path in [
        "//version",
        "/api/3.0/mlflow/traces/..",
        "/api/3.0/mlflow/traces/tr-1/../../../2.0/mlflow/users/list",
        "/api/3.0/mlflow/traces/%2e%2e",
        "/api/3.0/mlflow//traces/tr-1",
        "/api%2f3.0/mlflow/traces/tr-1",
        "/api/3.0/mlflow/traces/tr-1?x",
        "/api/2.0/mlflow-artifacts/artifacts/",
        "/api/2.0/mlflow-artifacts/artifacts/../../../users/list",
        "/api/2.0/mlflow-artifacts/artifacts/1/./a",
        "/api/2.0/mlflow-artifacts/artifacts/1/%2e%2e/%2E%2e/users",
        "/api/2.0/mlflow-artifacts/artifacts/1/.%2e/a",
        "/api/2.0/mlflow-artifacts/artifacts/1//a",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%2fb",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%5cb",
        "/api/2.0/mlflow-artifacts/artifacts/1/a\\..\\b",
        "/api/2.0/mlflow-artifacts/artifacts/1/%252e%252e/a",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%00",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%0d%0ahost:b",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%zz",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%3fb",
        "@other.host/version",
    ] {
        assert_eq!(of("GET", path), None, "{path}");
    }
    let long = format!("/api/2.0/mlflow-artifacts/artifacts/{}", "a".repeat(MAX_PATH + 1));
    assert_eq!(of("GET", &long), None);
}

#[test]
fn a_path_that_is_not_served_says_what_is() {
    for (method, path, error) in [
        ("POST", "/v1/traces", "the relay does not serve /v1/traces: the tracking URI is"),
        ("GET", "/w/deployment/teller", "the relay does not serve /w/deployment/teller: "),
        ("GET", "/w/deployment/teller/api/2.0/mlflow/users/list", "the relay does not serve /w/deployment/teller/api"),
        ("POST", "/w/deployment/v1/traces", "the relay does not serve /w/deployment/v1/traces"),
        ("POST", "/w/deployment/../v1/traces", "/w/deployment/../v1/traces names no workload: write"),
        ("POST", "/w//teller/v1/traces", "/w//teller/v1/traces names no workload"),
        ("POST", "/w/", "/w/ names no workload"),
        ("GET", "/w/deployment/teller/v1/traces", "send traces with POST, not GET"),
    ] {
        let told = route(method, path).unwrap_err().to_string();
        assert!(told.starts_with(error), "{told}");
    }
}
