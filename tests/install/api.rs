//! The rendered webhook configuration on a real API server: it accepts it as it is, defaults nothing in it, and calls the
//! webhook exactly when it should.
//!
//! No webhook runs here. A copy of the configuration points at a closed port with failurePolicy `Fail`: the API server
//! then refuses a request that it would send, and lets pass one that it would not. An expression that fails is a third
//! answer, which `Ignore` would hide.

use std::time::{Duration, Instant};

use agent_tracing::core::selection::kind::Kind;
use agent_tracing::names;
use serde_json::{Value, json};

use crate::{Run, kubectl, kustomize, object, run};

pub const DRY: &[&str] = &["--dry-run=server"];
const CRON_JOBS: &str = "system:serviceaccount:kube-system:cronjob-controller";
const REPLICA_SETS: &str = "system:serviceaccount:kube-system:replicaset-controller";
const DEPLOYMENT_CONTROLLER: &str = "system:serviceaccount:kube-system:deployment-controller";

#[test]
#[ignore = "needs the API server: make test"]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_webhook_is_called_for_relevant_changes_only() {
    let namespace = Namespace::create("install-rules");
    let ns = namespace.0.as_str();
    let mut marked = deployment(ns, "marked");
    marked["metadata"]["annotations"] = json!({names::ANNOTATION_TOUCH: "1f2e/1/1700000000"});
    marked["metadata"]["labels"] = json!({names::LABEL_INJECT: "true", names::LABEL_WIRED: "tracing"});
    let mut leaving = deployment(ns, "leaving");
    leaving["metadata"]["finalizers"] = json!(["example.com/hold"]);
    for workload in [deployment(ns, "teller"), marked, leaving] {
        create(&workload, &[]).ok();
    }
    in_namespace(ns, &["delete", "deployment", "leaving", "--wait=false"]).ok();
    let observed = |generation: &str| {
        let jsonpath = format!("--for=jsonpath={{.status.observedGeneration}}={generation}");
        in_namespace(ns, &["wait", "deployment/teller", &jsonpath, "--timeout=30s"]).ok();
    };
    // A second revision, so that `rollout undo` has somewhere to go.
    observed("1");
    in_namespace(ns, &["set", "env", "deployment/teller", "STAGE=second"]).ok();
    observed("2");
    kubectl(&["label", "namespace", ns, "agenttracing.dev/injection=enabled"]).ok();
    let _probe = Probe::create("install-rules", &[ns]);

    let dry = |args: &[&str]| in_namespace(ns, &[args, &["--dry-run=server"]].concat());
    let patch = |name: &str, patch: &str| dry(&["patch", "deployment", name, "--type=merge", "-p", patch]);
    let template = r#"{"spec":{"template":{"metadata":{"annotations":{"example.com/build":"2"}}}}}"#;

    for (what, request) in [
        ("create", create(&deployment(ns, "second"), DRY)),
        ("a changed template", patch("teller", template)),
        ("replace with a changed template", replace(ns, "teller", Some("v2"), None)),
        ("rollout undo", dry(&["rollout", "undo", "deployment/teller"])),
        ("a first touch", dry(&["annotate", "deployment/teller", "agenttracing.dev/touch=1f2e/1/1700000000"])),
        (
            "the next touch",
            dry(&["annotate", "deployment/marked", "--overwrite", "agenttracing.dev/touch=1f2e/2/1700000000"]),
        ),
        ("the touch taken away", dry(&["annotate", "deployment/marked", "agenttracing.dev/touch-"])),
        ("opting out", dry(&["label", "deployment/teller", "agenttracing.dev/inject=false"])),
        (
            "opting out after opting in",
            dry(&["label", "deployment/marked", "--overwrite", "agenttracing.dev/inject=false"]),
        ),
        ("no longer opting in", dry(&["label", "deployment/marked", "agenttracing.dev/inject-"])),
        (
            "opting out in the template",
            patch("teller", r#"{"spec":{"template":{"metadata":{"labels":{"agenttracing.dev/inject":"false"}}}}}"#),
        ),
    ] {
        called(what, request);
    }
    for (what, request) in [
        ("an unchanged replace", replace(ns, "teller", None, None)),
        ("an unchanged replace with touch and label", replace(ns, "marked", None, None)),
        ("scale", dry(&["scale", "deployment/teller", "--replicas=3"])),
        ("replicas by patch", patch("teller", r#"{"spec":{"replicas":3}}"#)),
        ("pausing", patch("teller", r#"{"spec":{"paused":true}}"#)),
        ("a stray annotation", dry(&["annotate", "deployment/teller", "example.com/note=x"])),
        ("a stray label", dry(&["label", "deployment/marked", "example.com/team=x"])),
        ("the wired label taken away", dry(&["label", "deployment/marked", "agenttracing.dev/wired-"])),
        (
            "status",
            dry(&["patch", "deployment", "teller", "--subresource=status", "-p", r#"{"status":{"collisionCount":1}}"#]),
        ),
        ("the deployment controller", replace(ns, "teller", Some("v2"), Some(DEPLOYMENT_CONTROLLER))),
        ("an object that is being deleted", patch("leaving", template)),
        ("delete", dry(&["delete", "deployment", "teller"])),
    ] {
        not_called(what, request);
    }
}

#[test]
#[ignore = "needs the API server: make test"]
fn the_webhook_is_called_for_every_kind_while_its_template_can_be_set() {
    let namespace = Namespace::create("install-kinds");
    let ns = namespace.0.as_str();
    for kind in Kind::ALL {
        create(&workload(kind, ns, "teller"), &[]).ok();
    }
    kubectl(&["label", "namespace", ns, "agenttracing.dev/injection=enabled"]).ok();
    let _probe = Probe::create("install-kinds", &[ns]);

    let dry = |args: &[&str]| in_namespace(ns, &[args, &["--dry-run=server"]].concat());
    for kind in [Kind::StatefulSet, Kind::DaemonSet, Kind::CronJob] {
        let patch = |patch: &Value| dry(&["patch", kind.plural(), "teller", "--type=merge", "-p", &patch.to_string()]);
        let in_template = |what: Value| kind.template().iter().rev().fold(what, |below, token| json!({*token: below}));
        let touch = "agenttracing.dev/touch=1f2e/1/1700000000";
        for (what, request) in [
            ("create", create(&workload(kind, ns, "second"), DRY)),
            (
                "a changed template",
                patch(&in_template(json!({"metadata": {"annotations": {"example.com/build": "2"}}}))),
            ),
            ("opting out in it", patch(&in_template(json!({"metadata": {"labels": {names::LABEL_INJECT: "false"}}})))),
            ("opting out", dry(&["label", kind.plural(), "teller", "agenttracing.dev/inject=false"])),
            ("a touch", dry(&["annotate", kind.plural(), "teller", touch])),
        ] {
            called(&format!("{kind:?}: {what}"), request);
        }
        let own = match kind {
            Kind::CronJob => json!({"spec": {"suspend": true, "jobTemplate": {"spec": {"backoffLimit": 2}}}}),
            _ => json!({"spec": {"minReadySeconds": 3}}),
        };
        for (what, request) in [
            ("a setting outside the template", patch(&own)),
            ("a stray annotation", dry(&["annotate", kind.plural(), "teller", "example.com/note=x"])),
            ("delete", dry(&["delete", kind.plural(), "teller"])),
        ] {
            not_called(&format!("{kind:?}: {what}"), request);
        }
    }

    called("a Job", create(&workload(Kind::Job, ns, "second"), DRY));
    for (what, request) in [
        ("a Job that is touched", dry(&["annotate", "job", "teller", "agenttracing.dev/touch=x"])),
        ("a CronJob's next Job", create(&workload(Kind::Job, ns, "second"), &[DRY, &["--as", CRON_JOBS]].concat())),
        ("a Pod that does not ask for it", create(&workload(Kind::Pod, ns, "second"), DRY)),
        ("a Pod that is labelled later", dry(&["label", "pod", "teller", "agenttracing.dev/inject=true"])),
    ] {
        not_called(what, request);
    }
    for (choice, is_called) in [("true", true), ("false", false)] {
        let mut pod = workload(Kind::Pod, ns, "second");
        pod["metadata"]["labels"] = json!({names::LABEL_INJECT: choice});
        for user in [&[][..], &["--as", REPLICA_SETS]] {
            let request = create(&pod, &[DRY, user].concat());
            match is_called {
                true => called("a Pod that asks for it", request),
                false => not_called("a Pod that asks not to be", request),
            }
        }
    }
}

#[test]
#[ignore = "needs the API server: make test"]
fn the_webhook_is_called_in_enabled_namespaces_only() {
    let namespace = Namespace::create("install-scope");
    // One that the selector leaves out by its name, and one that only an expression knows by how its name begins.
    let system = Namespace::create("openshift-install-scope");
    let (ns, excluded, system) = (namespace.0.as_str(), "kube-public", system.0.as_str());
    // In this order: whoever has seen the last label has seen the others.
    for name in [excluded, system, ns] {
        kubectl(&["label", "namespace", name, "--overwrite", "agenttracing.dev/injection=enabled"]).ok();
    }
    let _probe = Probe::create("install-scope", &[ns, excluded, system]);
    let request = create(&deployment(excluded, "teller"), DRY);
    kubectl(&["label", "namespace", excluded, "agenttracing.dev/injection-"]).ok();
    not_called("enabled, but one of the cluster's own", request);
    not_called("enabled, but one of the platform's own", create(&deployment(system, "teller"), DRY));
    called("enabled", create(&deployment(ns, "teller"), DRY));
    for other in ["agenttracing.dev/injection=disabled", "agenttracing.dev/injection-"] {
        kubectl(&["label", "namespace", ns, "--overwrite", "agenttracing.dev/injection=enabled"]).ok();
        wait_until("called", || !create(&deployment(ns, "teller"), DRY).succeeded());
        kubectl(&["label", "namespace", ns, "--overwrite", other]).ok();
        wait_until(other, || create(&deployment(ns, "teller"), DRY).succeeded());
    }
}

#[test]
#[ignore = "needs the API server: make test"]
fn nothing_is_defaulted_in_the_webhook_configuration() {
    only_on_the_test_cluster();
    let sent = webhook_copy("install-defaults", &[]);
    let stored = parse(&create(&sent, &["--dry-run=server", "-o", "json"]).ok());
    assert_eq!(stored["webhooks"], sent["webhooks"], "GitOps tools would show a difference for ever");
}

#[test]
#[ignore = "needs the API server: make test"]
fn applying_again_keeps_the_operators_ca_bundle() {
    only_on_the_test_cluster();
    let name = "install-ca-bundle";
    let delete = || kubectl(&["delete", "mutatingwebhookconfiguration", name, "--ignore-not-found"]);
    let file = webhook_copy(name, &[]).to_string();
    for apply in [&["apply", "-f", "-"][..], &["apply", "--server-side", "-f", "-"][..]] {
        delete().ok();
        let _clean = Probe(name.to_owned());
        run("KUBECTL", "kubectl", apply, &file).ok();
        // Any certificate will do: the test cluster's own.
        let config = parse(&kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"]).ok());
        let bundle = &config["clusters"][0]["cluster"]["certificate-authority-data"];
        let count = webhooks(&mut parse(&file)).len();
        let add = |n| json!({"op": "add", "path": format!("/webhooks/{n}/clientConfig/caBundle"), "value": bundle});
        let patch = (0..count).map(add).collect::<Value>().to_string();
        kubectl(&["patch", "mutatingwebhookconfiguration", name, "--field-manager=other", "--type=json", "-p", &patch])
            .ok();
        run("KUBECTL", "kubectl", apply, &file).ok();
        let mut live = parse(&kubectl(&["get", "mutatingwebhookconfiguration", name, "-o", "json"]).ok());
        for webhook in webhooks(&mut live) {
            assert_eq!(&webhook["clientConfig"]["caBundle"], bundle, "{apply:?} {}", webhook["name"]);
        }
    }
}

/// The copy of the configuration that tells by refusing.
struct Probe(String);

impl Probe {
    fn create(name: &str, namespaces: &[&str]) -> Self {
        let mut configuration = webhook_copy(name, namespaces);
        for webhook in webhooks(&mut configuration) {
            webhook["failurePolicy"] = json!("Fail");
            // Nothing listens on port 1, so the call fails at once.
            webhook["clientConfig"] = json!({"url": "https://127.0.0.1:1/mutate"});
        }
        create(&configuration, &[]).ok();
        // The API server reads configurations and labels of namespaces with a delay.
        wait_until("the webhook is called", || !create(&deployment(namespaces[0], "wait"), DRY).succeeded());
        Self(name.to_owned())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        kubectl(&["delete", "mutatingwebhookconfiguration", &self.0, "--ignore-not-found"]);
    }
}

/// The rendered configuration under another name, for some namespaces at most: other tests run meanwhile.
fn webhook_copy(name: &str, namespaces: &[&str]) -> Value {
    let objects = kustomize();
    let mut copy = object(&objects, "MutatingWebhookConfiguration", names::WEBHOOK_CONFIGURATION).clone();
    copy["metadata"]["name"] = json!(name);
    let values = if namespaces.is_empty() { &["no-such-namespace"] } else { namespaces };
    for webhook in webhooks(&mut copy) {
        let only_here = json!({"key": names::LABEL_NAMESPACE_NAME, "operator": "In", "values": values});
        webhook["namespaceSelector"]["matchExpressions"].as_array_mut().expect("a list").push(only_here);
    }
    copy
}

fn webhooks(configuration: &mut Value) -> &mut Vec<Value> {
    configuration["webhooks"].as_array_mut().expect("webhooks")
}

#[track_caller]
fn called(what: &str, request: Run) {
    let refused = request.err();
    assert!(refused.contains("failed calling webhook \"inject"), "{what}: {refused}");
}

#[track_caller]
fn not_called(what: &str, request: Run) {
    assert!(request.succeeded(), "{what}: {}", request.stderr());
}

/// A namespace that goes with the test, whatever becomes of it.
pub struct Namespace(pub String);

impl Namespace {
    pub fn create(name: &str) -> Self {
        only_on_the_test_cluster();
        // What a killed run left.
        drop(Probe(name.to_owned()));
        drop(Self(name.to_owned()));
        kubectl(&["create", "namespace", name]).ok();
        Self(name.to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        in_namespace(
            &self.0,
            &["patch", "deployment", "leaving", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#],
        );
        kubectl(&["delete", "namespace", &self.0, "--ignore-not-found", "--timeout=60s"]);
    }
}

/// These tests install and delete: never where the current context happens to point.
pub fn only_on_the_test_cluster() {
    for variable in ["KUBECONFIG", "AUDIT_LOG"] {
        assert!(
            std::env::var_os(variable).is_some(),
            "{variable} is not set: run `tests/cluster/api.sh up` and `eval \"$(tests/cluster/api.sh env)\"`"
        );
    }
}

/// The same agent as a workload of any kind.
fn workload(kind: Kind, namespace: &str, name: &str) -> Value {
    let mut spec = deployment(namespace, name)["spec"].take();
    let mut template = spec["template"].take();
    if let Kind::Job | Kind::CronJob = kind {
        template["spec"]["restartPolicy"] = json!("Never");
    }
    let spec = match kind {
        Kind::Deployment | Kind::DaemonSet => json!({"selector": spec["selector"], "template": template}),
        Kind::StatefulSet => json!({"serviceName": name, "selector": spec["selector"], "template": template}),
        // Suspended, as the cluster has no kubelet that would ever finish one.
        Kind::Job => json!({"suspend": true, "template": template}),
        Kind::CronJob => json!({"schedule": "@yearly", "jobTemplate": {"spec": {"template": template}}}),
        Kind::Pod => template["spec"].take(),
    };
    let api_version = [kind.group(), kind.version()].join("/");
    json!({
        "apiVersion": api_version.trim_start_matches('/'),
        "kind": kind.as_str(),
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    })
}

fn deployment(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "agent", "image": "example.com/agent:v1"}]},
            },
        },
    })
}

pub fn create(object: &Value, args: &[&str]) -> Run {
    run("KUBECTL", "kubectl", &[&["create", "-f", "-"], args].concat(), &object.to_string())
}

/// A dry PUT of the whole object as it is, with another image if one is given.
fn replace(namespace: &str, name: &str, image: Option<&str>, user: Option<&str>) -> Run {
    let mut live = parse(&in_namespace(namespace, &["get", "deployment", name, "-o", "json"]).ok());
    // Else a status written meanwhile would be a conflict.
    live["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    if let Some(image) = image {
        live["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    }
    let mut args = vec!["replace", "-f", "-", "--dry-run=server"];
    args.extend(user.iter().flat_map(|user| ["--as", user]));
    run("KUBECTL", "kubectl", &args, &live.to_string())
}

pub fn in_namespace(namespace: &str, args: &[&str]) -> Run {
    kubectl(&[&["-n", namespace], args].concat())
}

pub fn parse(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
