//! What MLflow learns of the operator: a token that is worth nothing anywhere else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use agent_tracing::names;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::process::Operator;
use super::{agent, prepare};
use crate::authorities::Authority;
use crate::cluster::{Cluster, Namespace, STRICT, kubectl, wait_until};

/// Review B1: MLflow was shown the token of the account that may change every workload.
#[test]
#[ignore = "needs an API server: make test"]
fn the_token_that_mlflow_receives_can_do_nothing_on_the_api_server() {
    prepare();
    let admin = Cluster::admin();
    let namespace = Namespace::create("observer", json!({names::LABEL_INJECTION: names::ENABLED}));
    let mlflow = Mlflow::start();
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("observer-ca.crt");
    std::fs::write(&authority, &mlflow.authority).unwrap();
    let host = format!("127.0.0.1:{}", mlflow.port);
    let more = ["--ca-file", authority.to_str().unwrap(), "--mlflow-token-hosts", &host];
    let operator = Operator::start_with("observer", &more);
    let tracing = json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": namespace.0},
        "spec": {
            "mlflow": {"mode": "External", "external": {"trackingURI": format!("https://{host}")}},
            "auth": {"method": "TokenFile"},
        },
    });
    admin.create(&tracing, STRICT).unwrap();
    admin.create(&agent(&namespace.0, "teller"), STRICT).unwrap();
    wait_until("MLflow is shown a token", || !mlflow.tokens.lock().unwrap().is_empty());

    let tokens = mlflow.tokens.lock().unwrap().clone();
    for token in &tokens {
        assert_eq!(user_of(token), format!("system:serviceaccount:{}:{}", names::OPERATOR_NAMESPACE, names::OBSERVER));
        for of in [namespace.0.as_str(), names::OPERATOR_NAMESPACE, "kube-system"] {
            assert_eq!(rules(token, of), rules_of_everybody(of), "in {of} it may do more than any account");
        }
        for may_not in [
            &["list", "deployments", "-A"][..],
            &["patch", "deployments", "-A"],
            &["get", "secrets", "-A"],
            &["list", "pods", "-A"],
            &["get", "agenttracings", "-A"],
            &["create", "rolebindings", "-n", &namespace.0],
            &["create", "serviceaccounts", "--subresource=token", "-n", names::OPERATOR_NAMESPACE],
        ] {
            let answer = with_token(token, &[&["auth", "can-i"], may_not].concat());
            assert!(answer.is_err_and(|said| said.lines().any(|line| line == "no")), "{may_not:?}");
        }
        assert!(with_token(token, &["get", "deployments", "-A"]).unwrap_err().contains("forbidden"));
    }
    drop(operator);
}

/// What the API server says of whoever has this token.
fn user_of(token: &str) -> String {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = Cluster::admin().post("/apis/authentication.k8s.io/v1/tokenreviews", &review).unwrap();
    answer["status"]["user"]["username"].as_str().unwrap_or_else(|| panic!("{}", answer["status"])).to_owned()
}

/// What its bearer may do in a namespace, by his own question.
fn rules(token: &str, namespace: &str) -> BTreeSet<String> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
    });
    let review_file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("observer-review.json");
    std::fs::write(&review_file, review.to_string()).unwrap();
    let answer =
        with_token(token, &["create", "--validate=false", "-o", "json", "-f", review_file.to_str().unwrap()]).unwrap();
    let status = serde_json::from_str::<Value>(&answer).unwrap()["status"].take();
    assert_eq!(status["incomplete"], false, "{status}");
    let rules =
        ["resourceRules", "nonResourceRules"].into_iter().flat_map(|of| status[of].as_array().into_iter().flatten());
    let rules: BTreeSet<_> = rules.map(Value::to_string).collect();
    assert!(!rules.is_empty(), "every account may at least ask what it may");
    rules
}

/// The same for an account to which nobody ever gave anything.
fn rules_of_everybody(namespace: &str) -> BTreeSet<String> {
    let account = "/api/v1/namespaces/observer/serviceaccounts/default/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = Cluster::admin().post(account, &request).unwrap();
    rules(answer["status"]["token"].as_str().unwrap(), namespace)
}

/// kubectl as the bearer of a token and nobody else.
fn with_token(token: &str, args: &[&str]) -> Result<String, String> {
    let text = kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"], "").unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let user = config["users"][0]["name"].clone();
    config["users"] = json!([{"name": user, "user": {"token": token}}]);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("observer.kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    kubectl(&[&["--kubeconfig", file.to_str().unwrap()], args].concat(), "")
}

/// As much of an MLflow behind TLS as is asked before an experiment is made, and the tokens that it was shown.
struct Mlflow {
    port: u16,
    authority: String,
    tokens: Arc<Mutex<BTreeSet<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Mlflow {
    fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = Authority::new("MLflow's authority");
        let (certificate, key) = authority.signs("127.0.0.1");
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key)).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let tokens = Arc::<Mutex<BTreeSet<String>>>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = tokens.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut bytes = vec![0; 16384];
                let length = stream.read(&mut bytes).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let token = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
                seen.lock().unwrap().extend(token.map(|token| token.trim().to_owned()));
                let (status, body) = answer(&request);
                let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close");
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, authority: authority.pem(), tokens, _runtime: runtime }
    }
}

fn answer(request: &str) -> (&'static str, String) {
    let path = request.split(' ').nth(1).unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/version" => ("200 OK", "3.10.1".to_owned()),
        "/api/3.0/mlflow/server-info" => ("200 OK", json!({"workspaces_enabled": false}).to_string()),
        _ => ("404 Not Found", json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}).to_string()),
    }
}
