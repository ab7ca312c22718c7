//! What the webhook of these tests knows, and the reviews that it gets.

use super::*;

/// A labelled namespace `bank` with AgentTracing `tracing`.
pub struct Cluster {
    pub webhook: Arc<Webhook>,
    pub metrics: Arc<Metrics>,
}

impl Cluster {
    pub fn with_mlflow() -> Self {
        Self::of(Some("http://tracing-mlflow.bank.svc:5500"))
    }

    pub fn of(mlflow: Option<&str>) -> Self {
        let mut tracing: AgentTracing = serde_json::from_value(json!({
            "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
            "metadata": {"name": "tracing", "namespace": "bank"}, "spec": {"mlflow": {"mode": "Standalone"}},
        }))
        .unwrap();
        tracing.status = mlflow.map(|url| {
            let mlflow = json!({"url": url, "version": "3.10.1", "workspaces": false, "source": "Service"});
            serde_json::from_value(json!({"mlflow": mlflow})).unwrap()
        });
        Self::context(tracing)
    }

    pub fn context(tracing: AgentTracing) -> Self {
        let cache = PolicyCache::default();
        cache.fill(vec![tracing], ["bank"]);
        let metrics = Arc::new(Metrics::default());
        let operators =
            agent_tracing::core::settings::Platform { operator_namespace: "operators".into(), ..Default::default() };
        Self { webhook: Arc::new(Webhook::new(Arc::new(cache), metrics.clone(), operators)), metrics }
    }

    pub async fn admits(&self, review: Value) -> Value {
        let (status, body) = self.posts(review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["response"]["allowed"], true);
        answer
    }

    pub async fn posts(&self, body: impl Into<Body>) -> (StatusCode, String) {
        self.answers(Request::post("/mutate").body(body.into()).unwrap()).await
    }

    pub async fn answers(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = router(self.webhook.clone()).oneshot(request).await.unwrap();
        if response.status() == StatusCode::OK {
            assert_eq!(response.headers()["content-type"], "application/json");
        }
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub fn counted(&self, line: &str) -> bool {
        self.metrics.text().contains(line)
    }
}

pub fn teller() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "teller", "labels": {"app": "front"}},
        "spec": {
            "selector": {"matchLabels": {"app": "front"}},
            "template": {
                "metadata": {"labels": {"app": "front"}},
                "spec": {"containers": [{
                    "name": "agent", "image": "registry/agent:1", "unknownToUs": {"kept": true},
                    "env": [{"name": "MODEL", "value": "small"}],
                }]},
            },
        },
    })
}

/// The teller as a workload of another kind, opted in, so that no kind has to be listed.
pub fn workload(kind: Kind) -> Value {
    let mut template = teller()["spec"]["template"].take();
    let metadata = json!({"name": "teller", "labels": {"agenttracing.dev/inject": "true"}});
    let spec = match kind {
        Kind::Pod => template["spec"].take(),
        Kind::CronJob => json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
        _ => json!({"template": template}),
    };
    let api_version = [kind.group(), kind.version()].join("/");
    json!({"apiVersion": api_version.trim_start_matches('/'), "kind": kind.as_str(), "metadata": metadata, "spec": spec})
}

pub fn create(object: Value) -> Value {
    let (group, version) = object["apiVersion"].as_str().unwrap_or("apps/v1").rsplit_once('/').unwrap_or(("", "v1"));
    let kind = json!({"group": group, "version": version, "kind": object["kind"].as_str().unwrap_or("Deployment")});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0d0c7d44", "kind": kind,
            "name": "teller", "namespace": "bank", "operation": "CREATE",
            "userInfo": {"username": "jane", "groups": ["system:authenticated"]},
            "object": object, "oldObject": null, "dryRun": false, "options": null,
        },
    })
}

pub fn update(old: Value, new: Value) -> Value {
    let mut review = create(new);
    review["request"]["operation"] = json!("UPDATE");
    review["request"]["oldObject"] = old;
    review
}

pub fn allowed() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": "0d0c7d44", "allowed": true},
    })
}

pub fn patched(mut object: Value, answer: &Value) -> Value {
    let ByteString(patch) = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}
