//! The operator runs against the API server with the shipped configuration and roles. No pod runs: module `mlflow` answers in
//! MLflow's place, and plays the node for its pod.

mod admission;
mod cert_manager;
mod controller;
mod fairness;
mod faults;
mod leadership;
mod life;
mod memory;
mod merge_ca;
mod metrics;
mod mlflow;
mod observer;
mod policies;
mod process;
mod rest;
mod secrets;
mod uninstall;

use std::cell::RefCell;

use agent_tracing::core::selection::kind::Kind;
use agent_tracing::names;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace, STRICT, install, kubectl, operator, reset_webhook_configuration, wait_until};
use crate::support::canary::CANARY;
use crate::support::in_template;
use mlflow::{Node, mlflow};
use process::Operator;
use rest::pods;

/// Kinds whose template can be changed.
const KINDS: [Kind; 4] = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::CronJob];

/// A labelled namespace with an AgentTracing whose MLflow answers, and the operator that looks after it.
struct Site {
    admin: Cluster,
    /// Runs MLflow's pod; `None` before there is one, or when it is lost.
    node: RefCell<Option<Node>>,
    namespace: Namespace,
    /// `None` while it is down.
    operator: Option<Operator>,
}

impl Site {
    fn open(name: &str) -> Self {
        let site = Self::open_before_mlflow(name);
        site.mlflow_answers();
        site.wait_until_wired();
        site
    }

    /// The same before MLflow was ever up.
    fn open_before_mlflow(name: &str) -> Self {
        prepare();
        let namespace = Namespace::create(name, json!({names::LABEL_INJECTION: names::ENABLED}));
        let operator = Some(Operator::start(name));
        Self { admin: Cluster::admin(), node: RefCell::default(), namespace, operator }
    }

    /// The AgentTracing is made, and its MLflow comes up.
    fn mlflow_answers(&self) {
        self.admin.create(&self.tracing(), STRICT).unwrap();
        self.mlflow_comes_up(&self.tracing(), &self.url());
    }

    /// MLflow's pod runs, and the operator has had its answer.
    fn mlflow_comes_up(&self, tracing: &Value, url: &str) {
        mlflow().serve(url);
        self.node.borrow_mut().get_or_insert_with(|| Node::start(&self.namespace.0));
        wait_until("MLflow has answered", || self.admin.live(tracing)["status"]["mlflow"]["url"] == url);
    }

    /// MLflow's pods are gone, and the next ones stay pending.
    fn lose_the_node(&self) {
        self.node.take();
        let servers = || pods(&self.admin, &self.namespace.0).into_iter().filter(is_managed);
        for pod in servers() {
            self.admin.delete("Pod", &self.namespace.0, pod["metadata"]["name"].as_str().unwrap());
        }
        wait_until("MLflow's next pod", || {
            let mut left = servers();
            left.next().is_some_and(|pod| pod["status"]["phase"] == "Pending") && left.next().is_none()
        });
    }

    /// Until the API server asks the operator, and the operator has seen the AgentTracing.
    fn wait_until_wired(&self) {
        wait_until("the webhook wires", || is_wired(&self.dry_run(&agent(&self.namespace.0, "probe"))));
    }

    fn dry_run(&self, object: &Value) -> Value {
        self.admin.create(object, crate::cluster::DRY).unwrap()
    }

    fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("it is down")
    }

    fn stop_operator(&mut self) {
        self.operator.take().expect("it is down").stop();
    }

    fn start_operator(&mut self) {
        self.operator = Some(Operator::start(&self.namespace.0));
    }

    fn close(mut self) {
        self.stop_operator();
    }

    fn tracing(&self) -> Value {
        json!({
            "apiVersion": "agenttracing.dev/v1alpha1",
            "kind": "AgentTracing",
            "metadata": {"name": "tracing", "namespace": self.namespace.0},
            "spec": {"mlflow": {"mode": "Standalone"}},
        })
    }

    fn url(&self) -> String {
        format!("http://tracing-mlflow.{}.svc:5500", self.namespace.0)
    }

    fn condition(&self, kind: &str) -> Option<Value> {
        let live = self.admin.live(&self.tracing());
        live["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
    }

    /// What the status says about a workload.
    fn row(&self, name: &str) -> Option<Value> {
        self.row_of("Deployment", name)
    }

    fn row_of(&self, kind: &str, name: &str) -> Option<Value> {
        let live = self.admin.live(&self.tracing());
        let rows = live["status"]["workloads"].as_array()?;
        rows.iter().find(|row| row["kind"] == kind && row["name"] == name).cloned()
    }

    /// How many events of a reason there are about workloads of a name.
    fn events_about(&self, name: &str, reason: &str) -> usize {
        let mut events = self.admin.list("Event", &self.namespace.0);
        events.retain(|event| event["regarding"]["name"] == name && event["reason"] == reason);
        events.len()
    }

    fn deployment(&self, name: &str) -> Value {
        self.admin.get("Deployment", &self.namespace.0, name).unwrap()
    }

    fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        kubectl(&[&["-n", &self.namespace.0], args].concat(), stdin)
    }

    /// Of `kubectl diff`. It reads twice, and Kubernetes' own controllers may write annotations or status in between: once
    /// they are done there is none.
    fn shows_no_difference(&self, how: &[&str], manifest: &str) {
        wait_until(&format!("kubectl diff {how:?} shows nothing"), || {
            let difference = self.kubectl(&[&["diff", "-f", "-"], how].concat(), manifest);
            println!("kubectl diff {how:?}: {difference:?}");
            difference.is_ok_and(|difference| difference.is_empty())
        });
    }

    /// What the command line makes of a workload with the AgentTracing as it is now.
    fn by_command_line(&self, workload: &Value) -> Value {
        let tracing = self.admin.live(&self.tracing());
        let input = format!("{tracing}\n---\n{workload}\n");
        let printed = operator(&["inject", "-f", "-", "-o", "json"], &input).unwrap();
        let mut documents = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        documents.find(|document| document["kind"] == workload["kind"]).unwrap()
    }

    /// What the API server makes of a workload where no webhook looks at it.
    fn stored_elsewhere(&self, workload: &Value) -> Value {
        let mut object = workload.clone();
        object["metadata"]["namespace"] = json!("default");
        self.dry_run(&object)
    }
}

/// What the operator finds when it is installed, but for its own Deployment.
fn prepare() {
    install();
    let admin = Cluster::admin();
    // What a killed run left would be looked after, too, or be waited for, or call a port of somebody else.
    for tracing in admin.list("AgentTracing", "") {
        admin.delete(
            "AgentTracing",
            tracing["metadata"]["namespace"].as_str().unwrap(),
            tracing["metadata"]["name"].as_str().unwrap(),
        );
    }
    admin.delete("Lease", names::OPERATOR_NAMESPACE, names::LEASE);
    reset_webhook_configuration(&admin);
}

/// An agent as people write one: a value from elsewhere, a helper beside it, a native side container.
fn agent(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": name},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": format!("{{\"env\":\"{CANARY}\"}}\n")},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"example.com/team": CANARY}},
                "spec": {
                    "initContainers": [
                        {"name": "migrate", "image": "example.com/migrate:v1"},
                        {"name": "recorder", "image": "example.com/recorder:v1", "restartPolicy": "Always"},
                    ],
                    "containers": [
                        {
                            "name": "agent",
                            "image": "example.com/agent:v1",
                            "env": [
                                {"name": "STAGE", "value": "first"},
                                {"name": "EMPTY", "value": ""},
                                {"name": "API_KEY", "value": CANARY},
                                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                            ],
                            "envFrom": [{"configMapRef": {"name": "settings", "optional": true}}],
                        },
                        {"name": "chooser", "image": "example.com/chooser:v1", "env": [{"name": "MLFLOW_EXPERIMENT_NAME", "value": "mine"}]},
                        {"name": "istio-proxy", "image": "example.com/proxy:v1"},
                    ],
                },
            },
        },
    })
}

/// The same agent as a workload of any kind, opted in.
fn agent_of(kind: Kind, namespace: &str, name: &str) -> Value {
    let mut deployment = agent(namespace, name);
    let selector = deployment["spec"]["selector"].take();
    let mut template = deployment["spec"]["template"].take();
    if let Kind::Job | Kind::CronJob | Kind::Pod = kind {
        template["spec"]["restartPolicy"] = json!("Never");
    }
    let spec = match kind {
        Kind::Deployment | Kind::DaemonSet => json!({"selector": selector, "template": template}),
        Kind::StatefulSet => json!({"serviceName": name, "selector": selector, "template": template}),
        Kind::Job => json!({"suspend": true, "template": template}),
        Kind::CronJob => json!({"schedule": "@yearly", "jobTemplate": {"spec": {"template": template}}}),
        Kind::Pod => template["spec"].take(),
    };
    let metadata = json!({"name": name, "namespace": namespace, "labels": {names::LABEL_INJECT: "true"}});
    let api_version = [kind.group(), kind.version()].join("/");
    json!({
        "apiVersion": api_version.trim_start_matches('/'),
        "kind": kind.as_str(),
        "metadata": metadata,
        "spec": spec,
    })
}

/// The value of a variable of container `agent`.
fn variable<'a>(deployment: &'a Value, name: &str) -> Option<&'a str> {
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let env = container["env"].as_array().into_iter().flatten();
    let mut found = env.filter(|entry| entry["name"] == name);
    let value = found.next().map(|entry| entry["value"].as_str().unwrap_or_default());
    assert!(found.next().is_none(), "{name} is there twice: {container}");
    value
}

/// The record of a workload's wiring, as it stands in its template.
fn record(workload: &Value) -> Option<&str> {
    workload.pointer(&in_template(workload, "/metadata/annotations"))?[names::ANNOTATION_RECORD].as_str()
}

fn is_wired(deployment: &Value) -> bool {
    let record = &deployment["spec"]["template"]["metadata"]["annotations"][names::ANNOTATION_RECORD];
    assert_eq!(record.is_string(), variable(deployment, "MLFLOW_TRACKING_URI").is_some(), "{deployment:#}");
    record.is_string()
}

/// Whether it is one of the operator's own objects.
fn is_managed(object: &Value) -> bool {
    object["metadata"]["labels"][names::LABEL_MANAGED_BY] == names::MANAGED_BY
}

fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap()
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}
