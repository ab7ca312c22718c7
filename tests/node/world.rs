//! The cluster as a test sees it: objects as plain JSON, `kubectl` for what a person types, and waiting that says for what.

mod objects;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use agent_tracing::names;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::audit::Audit;
use crate::canary::CANARY;
use crate::operator;
pub use objects::{env, idle, is_wired, template, tracing};

/// How long anything may take that takes seconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The clients that all tests share.
pub struct World {
    pub runtime: Runtime,
    client: Client,
    pub http: reqwest::Client,
}

pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        // These tests delete whole namespaces: never where the current context happens to point.
        for variable in ["KUBECONFIG", "AUDIT_LOG"] {
            assert!(
                std::env::var_os(variable).is_some(),
                "{variable} is not set: run through tests/cluster/node.sh exec"
            );
        }
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async { Client::try_from(Config::infer().await.unwrap()).unwrap() });
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        World { runtime, client, http }
    })
}

impl World {
    /// What asks the API server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// An object or a list; `None` if there is none.
    pub fn get(&self, path: &str) -> Option<Value> {
        let request = http::Request::get(path).header("accept", "application/json").body(Vec::new()).unwrap();
        match self.runtime.block_on(self.client.request(request)) {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// The items of a list.
    pub fn items(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).unwrap_or_else(|| panic!("{path} is not served"));
        list["items"].as_array().unwrap().clone()
    }
}

/// The path of a collection. An empty namespace is none.
pub fn collection(resource: &str, namespace: &str) -> String {
    let prefix = match resource {
        "agenttracings" => "/apis/agenttracing.dev/v1alpha1",
        "controllerrevisions" | "daemonsets" | "deployments" | "replicasets" | "statefulsets" => "/apis/apps/v1",
        "cronjobs" | "jobs" => "/apis/batch/v1",
        "events" => "/apis/events.k8s.io/v1",
        "leases" => "/apis/coordination.k8s.io/v1",
        "mutatingwebhookconfigurations" => "/apis/admissionregistration.k8s.io/v1",
        "networkpolicies" => "/apis/networking.k8s.io/v1",
        "poddisruptionbudgets" => "/apis/policy/v1",
        "configmaps" | "namespaces" | "persistentvolumeclaims" | "pods" | "serviceaccounts" | "services" => "/api/v1",
        "mlflows" => "/apis/mlflow.opendatahub.io/v1",
        "rolebindings" => "/apis/rbac.authorization.k8s.io/v1",
        _ => panic!("{resource} is not in the list"),
    };
    match namespace {
        "" => format!("{prefix}/{resource}"),
        _ => format!("{prefix}/namespaces/{namespace}/{resource}"),
    }
}

/// What a person types; what it prints, or why it failed.
pub fn kubectl(args: &[&str], stdin: &str) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run kubectl: {error}"));
    // A command that fails early closes its end: that is its own error to report.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The same where it has to succeed.
#[track_caller]
pub fn typed(args: &[&str]) -> String {
    kubectl(args, "").unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
}

/// A script of the checkout, which has to succeed; what it prints.
#[track_caller]
pub fn typed_script(script: &str, args: &[&str]) -> String {
    typed_script_with(&[], script, args)
}

/// The same with variables in its environment.
#[track_caller]
pub fn typed_script_with(variables: &[(&str, &str)], script: &str, args: &[&str]) -> String {
    let mut command = Command::new(format!("{}/{script}", env!("CARGO_MANIFEST_DIR")));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A namespace of its own, and what the operator did since it was made.
pub struct Scene {
    pub namespace: String,
    pub audit: Audit,
    began: Instant,
}

/// Plays a test: with the operator installed, in a new namespace that is labelled for injection or not. Afterwards nothing
/// may have been refused to the operator, and it may have told no secret.
pub fn scene(namespace: &str, labelled: bool, play: impl FnOnce(&mut Scene)) {
    let began = Instant::now();
    say(&format!("\n{namespace}"));
    operator::install();
    let mut scene = Scene::create(namespace, labelled, began);
    play(&mut scene);
    operator::assert_secrets_are_kept();
    scene.audit.assert_nothing_was_forbidden();
    say(&format!("{:>7.1} s  in all: {namespace}", began.elapsed().as_secs_f64()));
}

impl Scene {
    /// Another namespace in the same play.
    pub fn second(namespace: &str, labelled: bool) -> Self {
        Self::create(namespace, labelled, Instant::now())
    }

    fn create(namespace: &str, labelled: bool, began: Instant) -> Self {
        delete_namespace(namespace);
        until(&format!("namespace {namespace} of an earlier run is gone"), || {
            match world().get(&format!("{}/{namespace}", collection("namespaces", ""))) {
                None => Ok(()),
                Some(left) => Err(left["status"].to_string()),
            }
        });
        let audit = Audit::from_now();
        let mut labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        if labelled {
            labels[names::LABEL_INJECTION] = json!(names::ENABLED);
        }
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
        kubectl(&["create", "-f", "-"], &object.to_string()).unwrap();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept", "namespace": namespace},
            "stringData": {"password": CANARY}});
        kubectl(&["create", "-f", "-"], &secret.to_string()).unwrap();
        Self { namespace: namespace.to_owned(), audit, began }
    }

    /// `kubectl -n <namespace>`, which has to succeed.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        typed(&[&["-n", &self.namespace], args].concat())
    }

    /// `kubectl apply`, which has to succeed.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        self.try_apply(manifest).unwrap_or_else(|error| panic!("kubectl apply: {error}"));
    }

    pub fn try_apply(&self, manifest: &str) -> Result<String, String> {
        kubectl(&["-n", &self.namespace, "apply", "-f", "-"], manifest)
    }

    /// An AgentTracing called `tracing` with this `spec.mlflow.standalone`, in flow style.
    pub fn apply_tracing(&self, standalone: &str) {
        self.apply(&tracing("tracing", standalone));
    }

    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        world().get(&format!("{}/{name}", collection(resource, &self.namespace)))
    }

    #[track_caller]
    pub fn live(&self, resource: &str, name: &str) -> Value {
        self.get(resource, name).unwrap_or_else(|| panic!("there is no {name} in {resource} of {}", self.namespace))
    }

    pub fn list(&self, resource: &str, selector: &str) -> Vec<Value> {
        let selector = selector.replace('=', "%3D");
        world().items(&format!("{}?labelSelector={selector}", collection(resource, &self.namespace)))
    }

    /// How often a Deployment's template changed: one ReplicaSet each.
    pub fn rollouts(&self, deployment: &str) -> usize {
        self.replica_sets(deployment).len() - 1
    }

    /// The ReplicaSets of a Deployment, the oldest first.
    pub fn replica_sets(&self, deployment: &str) -> Vec<Value> {
        let revision = |set: &Value| {
            set["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
                .as_str()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        };
        let mut sets = self.list("replicasets", "");
        sets.retain(|set| set["metadata"]["ownerReferences"][0]["name"] == deployment);
        sets.sort_by_key(revision);
        sets
    }

    /// Status, reason and message of a condition of AgentTracing `tracing`.
    pub fn condition(&self, kind: &str) -> Option<Condition> {
        let tracing = self.get("agenttracings", "tracing")?;
        let all = tracing["status"]["conditions"].as_array()?;
        let one = all.iter().find(|c| c["type"] == kind)?;
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        Some(Condition { status: text("status"), reason: text("reason"), message: text("message") })
    }

    /// Waits until a condition of AgentTracing `tracing` has this status and reason.
    pub fn until_condition(&self, kind: &str, status: &str, reason: &str) -> Condition {
        until(&format!("{kind} is {status}, {reason}"), || match self.condition(kind) {
            Some(found) if found.status == status && found.reason == reason => Ok(found),
            other => Err(format!("{other:?}")),
        })
    }

    /// Waits until a Deployment is wired; until then it shows what the namespace's AgentTracings say.
    pub fn until_wired(&self, deployment: &str) {
        until(&format!("{deployment} is wired"), || match is_wired(&self.live("deployments", deployment)) {
            true => Ok(()),
            false => {
                let tracings = world().items(&collection("agenttracings", &self.namespace));
                Err(tracings.iter().map(|tracing| tracing["status"].to_string()).collect())
            }
        });
    }

    /// Waits until all replicas of a Deployment run and are of its current template.
    pub fn until_rolled_out(&self, deployment: &str) {
        until(&format!("deployment/{deployment} is rolled out"), || {
            let live = self.live("deployments", deployment);
            let (status, wanted) = (&live["status"], &live["spec"]["replicas"]);
            let counts = ["replicas", "updatedReplicas", "availableReplicas"];
            let seen = status["observedGeneration"] == live["metadata"]["generation"];
            if seen && counts.iter().all(|count| &status[count] == wanted) { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Events about an object, or about any of its kind, with this reason.
    pub fn events(&self, kind: &str, name: &str, reason: &str) -> Vec<Value> {
        let mut events = world().items(&collection("events", &self.namespace));
        events.retain(|event| {
            let about = &event["regarding"];
            about["kind"] == kind && about["name"] == name && event["reason"] == reason
        });
        events
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let namespace = &self.namespace;
        if std::thread::panicking() {
            say(&format!("{:>7.1} s  FAILED: {namespace}", self.began.elapsed().as_secs_f64()));
            say(&autopsy(namespace));
        }
        delete_namespace(namespace);
    }
}

/// Only begins it: whoever needs the name next waits.
pub fn delete_namespace(namespace: &str) {
    let _ = kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--wait=false"], "");
}

/// What tells why a test failed, before it is gone.
fn autopsy(namespace: &str) -> String {
    let selector = format!("--selector={}={}", names::LABEL_NAME, names::MANAGED_BY);
    let questions: [&[&str]; 6] = [
        &["-n", namespace, "get", "agenttracings", "-o", "yaml"],
        &["-n", namespace, "get", "deployments,pods,persistentvolumeclaims", "-o", "wide"],
        &["-n", namespace, "logs", "--selector=app!=none", "--tail=8", "--prefix", "--all-containers"],
        &["-n", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"],
        &["-n", names::OPERATOR_NAMESPACE, "get", "pods", "-o", "wide"],
        &["-n", names::OPERATOR_NAMESPACE, "logs", &selector, "--tail=40", "--prefix"],
    ];
    questions.iter().fold(String::new(), |mut all, question| {
        let answer = kubectl(question, "").unwrap_or_else(|error| error);
        let _ = write!(all, "\n--- kubectl {}\n{answer}", question.join(" "));
        all
    })
}

#[derive(Clone, Debug)]
pub struct Condition {
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Condition {
    /// The message ends with a command that can be typed as it stands, with nothing left to fill in.
    #[track_caller]
    pub fn ends_with_a_command(&self) -> &Self {
        let Self { message, .. } = self;
        let command = message.rsplit_once(": kubectl ").or_else(|| message.rsplit_once(": helm "));
        let (_, command) = command.unwrap_or_else(|| panic!("no command at the end: {message}"));
        let verb = command.split(' ').next().unwrap_or_default();
        let verbs = "annotate auth delete describe edit get label logs patch port-forward rollout set upgrade";
        assert!(verbs.split(' ').any(|known| known == verb), "{command}: {message}");
        assert!(
            !command.contains(['<', '>']) && !command.ends_with(['.', ')', ';']),
            "cannot be typed as it stands: {message}"
        );
        self
    }

    #[track_caller]
    pub fn says(&self, part: &str) -> &Self {
        assert!(self.message.contains(part), "{part:?} is not in: {}", self.message);
        self
    }
}

/// Looks again and again until there is an answer. Until then `look` says what it sees, which is what is told when it takes
/// long or too long.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    let mut silent_until = Duration::from_secs(10);
    loop {
        let seen = match look() {
            Ok(found) => {
                say(&format!("{:>7.1} s  {what}", began.elapsed().as_secs_f64()));
                return found;
            }
            Err(seen) => seen,
        };
        assert!(began.elapsed() < PATIENCE, "gave up waiting until {what}; last seen: {seen}");
        if began.elapsed() > silent_until {
            let seen: String = seen.chars().take(200).collect();
            say(&format!("{:>7.0} s… {what}: {seen}", began.elapsed().as_secs_f64()));
            silent_until += Duration::from_secs(20);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Past the test harness, which would hold it back until the test fails.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
