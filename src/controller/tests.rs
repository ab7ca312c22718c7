//! Passes against a fake API server that keeps objects, counts writes and can play the webhook.

mod api;
mod children;
mod edges;
mod merge_ca;
mod metrics;
mod modes;
mod pace;
mod relay;
mod standalone;
mod sweep;
mod traces;

use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher;
use serde_json::{Value, json};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::trust::MakeHttp;
use api::FakeApi;

const TRACING: &str = "/apis/agenttracing.dev/v1alpha1/namespaces/bank-agents/agenttracings/tracing";
const TELLER: &str = "/apis/apps/v1/namespaces/bank-agents/deployments/teller";
const SERVER: &str = "/apis/apps/v1/namespaces/bank-agents/deployments/tracing-mlflow";
const SERVICE: &str = "/api/v1/namespaces/bank-agents/services/tracing-mlflow";
const CLAIM: &str = "/api/v1/namespaces/bank-agents/persistentvolumeclaims/tracing-mlflow";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/bank-agents/networkpolicies/tracing-mlflow";
const NAMESPACE: &str = "/api/v1/namespaces/bank-agents";

/// A namespace with one AgentTracing and one agent, its API server and its MLflow.
struct World {
    api: FakeApi,
    mlflow: MockServer,
    ctx: Context,
    writer: Writer<Guarded>,
}

/// A pass of a test waits for every answer, however busy the machine is.
const UNTIL_IT_COMES: Duration = Duration::from_secs(3600);

/// What somebody does who knows nothing of us: the template as it was written.
fn strip(world: &World) {
    let mut teller = world.api.get(TELLER).unwrap();
    let template = &mut teller["spec"]["template"];
    template["metadata"]["annotations"] = Value::Null;
    template["spec"]["containers"][0]["env"] = Value::Null;
    teller["metadata"]["managedFields"] =
        json!([{"manager": "argocd-controller", "operation": "Apply", "time": "2026-11-21T10:00:00Z"}]);
    world.api.put(TELLER, teller);
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = FakeApi::default();
        let mlflow = MockServer::start().await;
        let make_http: MakeHttp = Arc::new(|_| {
            let names =
                reqwest::Client::builder().resolve("tracing-mlflow.bank-agents.svc", ([127, 0, 0, 1], 0).into());
            Http::without_timeouts(names.tls_certs_only([]))
        });
        let options = Options {
            client: api.client(),
            platform: Platform::default(),
            identity: "operator-0".into(),
            authorities: Arc::new(TrustedAuthorities::new(Vec::new(), make_http)),
            trusted_hosts: Hosts::default(),
            token_hosts: Hosts::default(),
            create_namespaces: BTreeSet::new(),
            integration_role: names::INTEGRATION_ROLE.into(),
            max_rolling: 20,
            metrics: Arc::default(),
        };
        let (store, writer) = reflector::store();
        let ctx = Context::new(options, false, store, UNTIL_IT_COMES);
        api.put(
            NAMESPACE,
            json!({"metadata": {"name": "bank-agents", "labels": {"agenttracing.dev/injection": "enabled"}}}),
        );
        let port = mlflow.address().port();
        api.put(TRACING, json!({
            "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
            "metadata": {"name": "tracing", "namespace": "bank-agents", "generation": 1, "creationTimestamp": "2026-11-21T10:00:00Z"},
            "spec": {"mlflow": {"mode": "Standalone", "standalone": {"port": port}}},
        }));
        api.put(TELLER, json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "teller", "namespace": "bank-agents", "generation": 1},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "teller"}},
                "template": {"metadata": {"labels": {"app": "teller"}}, "spec": {"containers": [{"name": "agent", "image": "i"}]}},
            },
            "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
        }));
        Self { api, mlflow, ctx, writer }
    }

    /// Another process leads from here on, whose passes wait so long for an answer.
    fn restart(&mut self, patience: Duration) {
        let (store, writer) = reflector::store();
        (self.ctx, self.writer) = (Context::new(self.ctx.options.clone(), false, store, patience), writer);
    }

    /// One pass; the watch shows what is stored.
    async fn pass(&mut self) -> Action {
        let tracing: Guarded = serde_json::from_value(self.api.get(TRACING).unwrap()).unwrap();
        // On a busy machine every reading is a long one: what follows from that is tested with `ReconcileState`.
        let uid = tracing.meta().uid.clone().unwrap_or_default();
        self.ctx.reconcile_state(&uid).lock().await.not_before = None;
        self.writer.apply_watcher_event(&watcher::Event::Apply(tracing.clone()));
        self.ctx.servers.age();
        let steps = StepTimer::begin(&self.ctx.options.metrics);
        reconcile::reconcile(tracing.0.as_ref().unwrap(), &self.ctx, &steps).await.unwrap()
    }

    /// MLflow's pod is up and answers.
    async fn mlflow_answers(&self) {
        self.api.edit(SERVER, json!({"status": {"availableReplicas": 1}}));
        let answer =
            |at: &str, body: Value| Mock::given(path(at)).respond_with(ResponseTemplate::new(200).set_body_json(body));
        let version = ResponseTemplate::new(200).set_body_string("3.10.1");
        Mock::given(path("/version")).respond_with(version).mount(&self.mlflow).await;
        answer("/api/3.0/mlflow/server-info", json!({"workspaces_enabled": false})).mount(&self.mlflow).await;
        answer("/api/2.0/mlflow/experiments/search", json!({})).mount(&self.mlflow).await;
        answer("/api/2.0/mlflow/experiments/create", json!({"experiment_id": "4"})).mount(&self.mlflow).await;
        answer("/api/3.0/mlflow/traces/search", json!({})).with_priority(9).mount(&self.mlflow).await;
    }

    fn status(&self) -> Value {
        self.api.get(TRACING).unwrap()["status"].clone()
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let status = self.status();
        let all = status["conditions"].as_array().unwrap();
        let found = all.iter().find(|c| c["type"] == kind).unwrap();
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    fn reason(&self, kind: &str) -> String {
        self.condition(kind).1
    }

    /// A namespace whose agent is wired and up.
    async fn at_rest() -> Self {
        let mut world = Self::new().await;
        world.pass().await;
        world.mlflow_answers().await;
        world.pass().await;
        world.pass().await;
        world.api.edit(TELLER, json!({"status": {
            "observedGeneration": 9, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
            "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastUpdateTime": "2026-11-21T10:00:00Z"},
                {"type": "Available", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"},
            ],
        }}));
        world.pass().await;
        world.api.take_writes();
        world
    }
}

#[tokio::test]
async fn the_first_pass_creates_the_server_and_leaves_the_agent_alone() {
    let mut world = World::new().await;
    let before = world.api.get(TELLER);
    world.pass().await;
    for object in [SERVER, SERVICE, CLAIM, POLICY] {
        assert!(world.api.get(object).is_some(), "{object}");
    }
    assert_eq!(world.api.get(TELLER), before);
    assert_eq!(world.reason("MLflowReady"), "Progressing");
    assert_eq!(world.reason("WorkloadsReady"), "WaitingForMLflow");
    assert_eq!(world.status()["injected"], "0/1");
    assert_eq!(world.status()["workloads"][0]["state"], "Pending");
}

#[tokio::test]
async fn a_pass_that_finds_nothing_changed_writes_nothing() {
    let mut world = World::new().await;
    world.pass().await;
    world.pass().await;
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn the_status_is_stored_before_the_agent_is_touched_and_then_nothing_is_written_any_more() {
    let mut world = World::new().await;
    world.pass().await;
    world.mlflow_answers().await;
    world.api.take_writes();

    world.pass().await;
    assert_eq!(world.api.writes_to(TELLER), 0);
    assert_eq!(world.status()["mlflow"]["version"], "3.10.1");
    assert_eq!(world.status()["experiments"], json!([{"name": "teller", "id": "4"}]));

    world.pass().await;
    assert_eq!(world.api.writes_to(TELLER), 1);
    assert_eq!(world.api.get(TELLER).unwrap()["metadata"]["labels"]["agenttracing.dev/wired"], "tracing");
    assert!(world.api.events().contains(&"Injected teller".to_owned()), "{:?}", world.api.events());
    assert!(world.api.events().contains(&"MLflowReady tracing".to_owned()));
}

#[tokio::test]
async fn at_rest_nothing_is_written_and_everything_is_said() {
    let mut world = World::at_rest().await;
    for _ in 0..3 {
        world.pass().await;
    }
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
    assert_eq!(world.status()["injected"], "1/1");
    assert_eq!(world.reason("WorkloadsReady"), "AllCurrent");
    assert_eq!(world.reason("TracesFlowing"), "NoTracesFrom");
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.reason("Ready"), "WaitingForTraces");
}

#[tokio::test]
async fn without_a_webhook_the_agent_is_touched_twice_and_then_patched_once() {
    let mut world = World::new().await;
    world.api.webhook(false);
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.writes_to(TELLER), 3);
    assert_eq!(world.api.get(TELLER).unwrap()["metadata"]["labels"]["agenttracing.dev/wired"], "tracing");
    world.pass().await;
    assert_eq!(world.reason("InjectionReady"), "WebhookUnavailable");
    assert_eq!(world.api.writes_to(TELLER), 3);
}

#[tokio::test]
async fn a_workload_with_an_owner_is_touched_and_never_patched() {
    let mut world = World::new().await;
    world.api.webhook(false);
    world
        .api
        .edit(TELLER, json!({"metadata": {"ownerReferences": [{"controller": true, "kind": "Agent", "uid": "x"}]}}));
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.pass().await;
    assert_eq!(world.api.writes_to(TELLER), 2);
    assert!(world.api.get(TELLER).unwrap()["spec"]["template"]["metadata"]["annotations"].is_null());
}

#[tokio::test]
async fn a_server_that_goes_down_later_changes_no_wiring() {
    let mut world = World::at_rest().await;
    world.mlflow.reset().await;
    world.pass().await;
    assert_eq!(world.condition("MLflowReady").0, "False");
    assert_eq!(world.status()["mlflow"]["version"], "3.10.1");
    assert_eq!(world.api.writes_to(TELLER), 0);
}

#[tokio::test]
async fn suspended_means_that_only_the_status_is_written() {
    let mut world = World::new().await;
    world.api.edit(TRACING, json!({"spec": {"suspend": true}}));
    world.pass().await;
    assert_eq!(world.api.take_writes(), [format!("PATCH {TRACING}/status")]);
    assert_eq!(world.reason("Ready"), "Suspended");
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn without_the_label_nothing_is_wired_and_the_command_is_named() {
    let mut world = World::new().await;
    world.api.put(NAMESPACE, json!({"metadata": {"name": "bank-agents"}}));
    world.pass().await;
    let (status, reason, message) = world.condition("Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NamespaceNotLabelled"));
    assert!(message.ends_with("kubectl label namespace bank-agents agenttracing.dev/injection=enabled"), "{message}");
}

#[tokio::test]
async fn when_the_label_goes_the_template_is_what_it_was() {
    let mut world = World::new().await;
    let template = world.api.get(TELLER).unwrap()["spec"].clone();
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.pass().await;
    assert_ne!(world.api.get(TELLER).unwrap()["spec"], template);
    world.api.put(NAMESPACE, json!({"metadata": {"name": "bank-agents"}}));
    world.pass().await;
    assert_eq!(world.api.get(TELLER).unwrap()["spec"], template);
    assert!(world.api.events().contains(&"Removed teller".to_owned()));
}

#[tokio::test]
async fn an_agent_that_opts_out_while_the_webhook_is_away_loses_its_wiring() {
    let mut world = World::at_rest().await;
    world.api.edit(TELLER, json!({"metadata": {"labels": {"agenttracing.dev/inject": "false"}}}));
    world.pass().await;
    world.pass().await;
    assert!(world.api.get(TELLER).unwrap()["metadata"]["labels"]["agenttracing.dev/wired"].is_null());
    assert_eq!(world.status()["workloads"][0]["reason"], "OptedOut");
    assert_eq!(world.status()["injected"], "0/0");
}

#[tokio::test]
async fn a_refused_patch_of_one_workload_is_noted_on_it() {
    let mut world = World::new().await;
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.api.refuse(TELLER, 403, "admission webhook \"policy.example\" denied the request");
    world.pass().await;
    world.pass().await;
    let notes = world.status()["workloads"][0]["notes"].to_string();
    assert!(notes.contains("PatchRefused: admission webhook"), "{notes}");
}

#[test]
fn conflicts_in_a_row_are_tried_again_within_seconds() {
    let delays: Vec<_> = [1, 3, 4, 5, 50].map(|failures| after_conflict(failures).as_millis()).into();
    assert_eq!(delays, [200, 200, 2000, 4000, 4000]);
}
