//! Requests to the API server as plain JSON: what a test sends is what it says, and a refusal is told in full.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use kube::core::Status;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::documents;

/// Nothing is stored, and a field that the API server does not know is an error.
pub const DRY: &str = "dryRun=All&fieldValidation=Strict";
/// A field that the API server does not know is an error.
pub const STRICT: &str = "fieldValidation=Strict";

pub const CRD: &str = "agenttracings.agenttracing.dev";

/// The API server, as seen by one user.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
    user: Option<String>,
}

/// What the API server said instead of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: u16,
    pub message: String,
    /// Field and message of each cause.
    pub causes: Vec<(String, String)>,
}

pub type Answer = Result<Value, Refusal>;

impl Cluster {
    /// The administrator.
    pub fn admin() -> Self {
        only_on_the_test_cluster();
        // The second test of a process finds it installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async { Client::try_from(Config::infer().await.unwrap()).unwrap() });
        Self { runtime, client, user: None }
    }

    /// Somebody else, by impersonation.
    pub fn user(name: &str) -> Self {
        Self { user: Some(name.to_owned()), ..Self::admin() }
    }

    pub fn create(&self, object: &Value, query: &str) -> Answer {
        self.send("POST", &collection(kind(object), namespace(object)), query, "application/json", object)
    }

    pub fn replace(&self, object: &Value, query: &str) -> Answer {
        self.send("PUT", &path(object), query, "application/json", object)
    }

    /// A merge patch; `object` names the target and carries what is to change.
    pub fn merge(&self, object: &Value, query: &str) -> Answer {
        self.merge_at(&path(object), object, query)
    }

    /// A merge patch of a subresource.
    pub fn merge_subresource(&self, object: &Value, subresource: &str, query: &str) -> Answer {
        self.merge_at(&format!("{}/{subresource}", path(object)), object, query)
    }

    fn merge_at(&self, path: &str, object: &Value, query: &str) -> Answer {
        self.send("PATCH", path, query, "application/merge-patch+json", object)
    }

    /// Server-side apply.
    pub fn apply(&self, object: &Value, manager: &str, query: &str) -> Answer {
        let query = format!("fieldManager={manager}&{query}");
        self.send("PATCH", &path(object), &query, "application/apply-patch+yaml", object)
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Answer {
        self.send("GET", &format!("{}/{name}", collection(kind, namespace)), "", "application/json", &Value::Null)
    }

    /// The live form of an object.
    pub fn live(&self, object: &Value) -> Value {
        self.get(kind(object), namespace(object), name(object)).unwrap()
    }

    pub fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let list = self.send("GET", &collection(kind, namespace), "", "application/json", &Value::Null).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Creates an object unless it exists.
    pub fn ensure(&self, object: &Value) -> Value {
        match self.create(object, "") {
            Err(refusal) if refusal.code == 409 => self.live(object),
            answer => answer.unwrap(),
        }
    }

    /// Any other request.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "", "application/json", body)
    }

    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let path = format!("{}/{name}", collection(kind, namespace));
        match self.send("DELETE", &path, "propagationPolicy=Background", "application/json", &Value::Null) {
            Err(refusal) if refusal.code != 404 => panic!("cannot delete {kind} {name}: {refusal}"),
            _ => {}
        }
    }

    fn send(&self, method: &str, path: &str, query: &str, content_type: &str, body: &Value) -> Answer {
        self.try_send(method, path, query, content_type, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    /// The same where the API server may be away: an error is no answer at all.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        query: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Answer, kube::Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?{query}"))
            .header("content-type", content_type)
            .header("accept", "application/json");
        if let Some(user) = &self.user {
            request = request.header("impersonate-user", user);
        }
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        match self.runtime.block_on(self.client.request(request.body(bytes).unwrap())) {
            Err(kube::Error::Api(status)) => Ok(Err(Refusal::from(*status))),
            answer => answer.map(Ok),
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let causes = causes.into_iter().map(|cause| (cause.field, cause.message)).collect();
        Self { code: status.code, message: status.message, causes }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

/// A namespace of its own for one test. Its deletion is only begun at the end; whoever wants the name next waits.
pub struct Namespace(pub String);

impl Namespace {
    pub fn create(name: &str, labels: Value) -> Self {
        let admin = Cluster::admin();
        admin.delete("Namespace", "", name);
        wait_until("the namespace of an earlier run is gone", || admin.get("Namespace", "", name).is_err());
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        admin.create(&object, STRICT).unwrap();
        // Pods need it, and it comes a moment later.
        wait_until("the default service account", || admin.get("ServiceAccount", name, "default").is_ok());
        Self(name.to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What a failed test made stays for whoever looks into the failure.
        if !std::thread::panicking() {
            Cluster::admin().delete("Namespace", "", &self.0);
        }
    }
}

/// `config/default` without what would run: definitions, accounts and rights.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let rights = ["Namespace", "CustomResourceDefinition", "ServiceAccount"];
        let wanted =
            |object: &Value| rights.contains(&kind(object)) || path(object).contains("rbac.authorization.k8s.io");
        let admin = Cluster::admin();
        for object in kustomize().iter().filter(|object| wanted(object)) {
            admin.apply(object, "kubectl", "force=true").unwrap();
        }
        wait_until_defined(&admin);
    });
}

/// The definition, once somebody has deleted it.
pub fn define(admin: &Cluster) {
    let all = kustomize();
    let definition = all.iter().find(|object| name(object) == CRD).unwrap();
    admin.apply(definition, "kubectl", "force=true").unwrap();
    wait_until_defined(admin);
}

fn wait_until_defined(admin: &Cluster) {
    wait_until("the definition is served", || {
        let live = admin.get("CustomResourceDefinition", "", CRD).unwrap();
        let established = |c: &Value| c["type"] == "Established" && c["status"] == "True";
        live["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(established))
    });
    wait_until("its storage is", || {
        admin.send("GET", &collection("AgentTracing", "default"), "", "application/json", &Value::Null).is_ok()
    });
}

/// `config/default` as kustomize renders it.
pub fn kustomize() -> Vec<Value> {
    documents(&kubectl(&["kustomize", "config/default"], "").unwrap())
}

/// The shipped webhook configuration as it is installed, in place of whatever an earlier run made of it.
pub fn reset_webhook_configuration(admin: &Cluster) {
    admin.delete("MutatingWebhookConfiguration", "", agent_tracing::names::WEBHOOK_CONFIGURATION);
    let configuration =
        kustomize().into_iter().find(|object| object["kind"] == "MutatingWebhookConfiguration").unwrap();
    admin.create(&configuration, STRICT).unwrap();
}

/// What kubectl prints, or why it failed.
pub fn kubectl(args: &[&str], stdin: &str) -> Result<String, String> {
    let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    command(Command::new(program).args(args), stdin)
}

/// The operator's command line.
pub fn operator(args: &[&str], stdin: &str) -> Result<String, String> {
    command(Command::new(operator_binary()).args(args), stdin)
}

/// The static binary where `make test` says so.
pub fn operator_binary() -> String {
    std::env::var("OPERATOR_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_agent-tracing-operator").to_owned())
}

fn command(command: &mut Command, stdin: &str) -> Result<String, String> {
    let command = command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    // A command that fails early closes its end: that is its own error to report.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr) + &text(output.stdout)) }
}

/// These tests install and delete: never where the current context happens to point.
fn only_on_the_test_cluster() {
    for variable in ["KUBECONFIG", "AUDIT_LOG"] {
        assert!(
            std::env::var_os(variable).is_some(),
            "{variable} is not set: run `tests/cluster/api.sh up` and `eval \"$(tests/cluster/api.sh env)\"`"
        );
    }
}

pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_for(what, Duration::from_secs(60), holds);
}

pub fn wait_for(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A file of the checkout.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_else(|| panic!("no kind: {object}"))
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_else(|| panic!("no name: {object}"))
}

pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

fn path(object: &Value) -> String {
    format!("{}/{}", collection(kind(object), namespace(object)), name(object))
}

fn collection(kind: &str, namespace: &str) -> String {
    let (prefix, plural) = match kind {
        "AgentTracing" => ("/apis/agenttracing.dev/v1alpha1", "agenttracings"),
        "Certificate" => ("/apis/cert-manager.io/v1", "certificates"),
        "ClusterRole" => ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
        "ClusterRoleBinding" => ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
        "CronJob" => ("/apis/batch/v1", "cronjobs"),
        "CustomResourceDefinition" => ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
        "DaemonSet" => ("/apis/apps/v1", "daemonsets"),
        "Deployment" => ("/apis/apps/v1", "deployments"),
        "Event" => ("/apis/events.k8s.io/v1", "events"),
        "Job" => ("/apis/batch/v1", "jobs"),
        "Lease" => ("/apis/coordination.k8s.io/v1", "leases"),
        "MutatingAdmissionPolicy" => ("/apis/admissionregistration.k8s.io/v1", "mutatingadmissionpolicies"),
        "MutatingAdmissionPolicyBinding" => {
            ("/apis/admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings")
        }
        "MutatingWebhookConfiguration" => ("/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
        "Namespace" => ("/api/v1", "namespaces"),
        "NetworkPolicy" => ("/apis/networking.k8s.io/v1", "networkpolicies"),
        "PersistentVolume" => ("/api/v1", "persistentvolumes"),
        "PersistentVolumeClaim" => ("/api/v1", "persistentvolumeclaims"),
        "Pod" => ("/api/v1", "pods"),
        "PodDisruptionBudget" => ("/apis/policy/v1", "poddisruptionbudgets"),
        "PriorityClass" => ("/apis/scheduling.k8s.io/v1", "priorityclasses"),
        "RehearsedTracing" => ("/apis/rehearsal.agenttracing.dev/v1alpha1", "rehearsedtracings"),
        "Role" => ("/apis/rbac.authorization.k8s.io/v1", "roles"),
        "RoleBinding" => ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
        "RuntimeClass" => ("/apis/node.k8s.io/v1", "runtimeclasses"),
        "Secret" => ("/api/v1", "secrets"),
        "Service" => ("/api/v1", "services"),
        "ServiceAccount" => ("/api/v1", "serviceaccounts"),
        "StatefulSet" => ("/apis/apps/v1", "statefulsets"),
        "ValidatingAdmissionPolicy" => ("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies"),
        "ValidatingAdmissionPolicyBinding" => {
            ("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings")
        }
        _ => panic!("kind {kind} is not in the list"),
    };
    match namespace {
        "" => format!("{prefix}/{plural}"),
        _ => format!("{prefix}/namespaces/{namespace}/{plural}"),
    }
}
