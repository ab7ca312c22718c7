//! The rendered objects on a real API server: it accepts them as they are, defaults nothing in the webhook configuration,
//! calls the webhook exactly when it should, and grants exactly the promised rights.
//!
//! No webhook runs here. A copy of the configuration points at a closed port with failurePolicy `Fail`: the API server
//! then refuses a request that it would send, and lets pass one that it would not. An expression that fails is a third
//! answer, which `Ignore` would hide.

use std::sync::Once;
use std::time::{Duration, Instant};

use agent_tracing::names;
use serde_json::{Value, json};

use crate::{Run, kubectl, kustomize, object, run};

const OPERATOR: &str = "system:serviceaccount:agent-tracing-system:agent-tracing-operator";
const DRY: &[&str] = &["--dry-run=server"];
const DEPLOYMENT_CONTROLLER: &str = "system:serviceaccount:kube-system:deployment-controller";

#[test]
#[ignore = "needs the API server: make test"]
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
fn the_webhook_is_called_in_enabled_namespaces_only() {
    let namespace = Namespace::create("install-scope");
    let (ns, excluded) = (namespace.0.as_str(), "kube-public");
    // In this order: whoever has seen the second label has seen the first.
    for name in [excluded, ns] {
        kubectl(&["label", "namespace", name, "--overwrite", "agenttracing.dev/injection=enabled"]).ok();
    }
    let _probe = Probe::create("install-scope", &[ns, excluded]);
    let request = create(&deployment(excluded, "teller"), DRY);
    kubectl(&["label", "namespace", excluded, "agenttracing.dev/injection-"]).ok();
    not_called("enabled, but one of the cluster's own", request);
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
        let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]).to_string();
        kubectl(&["patch", "mutatingwebhookconfiguration", name, "--field-manager=other", "--type=json", "-p", &patch])
            .ok();
        run("KUBECTL", "kubectl", apply, &file).ok();
        let live = parse(&kubectl(&["get", "mutatingwebhookconfiguration", name, "-o", "json"]).ok());
        assert_eq!(&live["webhooks"][0]["clientConfig"]["caBundle"], bundle, "{apply:?}");
    }
}

#[test]
#[ignore = "needs the API server: make test"]
fn the_pod_passes_pod_security_restricted() {
    install();
    let objects = kustomize();
    let mut pod = object(&objects, "Deployment", "agent-tracing-operator")["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("install-pod-security");
    pod["metadata"]["namespace"] = json!(names::OPERATOR_NAMESPACE);
    create(&pod, DRY).ok();
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    assert!(create(&pod, DRY).err().contains("violates PodSecurity \"restricted"), "the namespace enforces it");
}

#[test]
#[ignore = "needs the API server: make test"]
fn the_samples_are_valid() {
    install();
    for sample in ["standalone", "standalone-full", "cr", "external"] {
        let file = format!("config/samples/{sample}.yaml");
        kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", &file]).ok();
    }
}

#[test]
#[ignore = "needs the API server: make test"]
fn the_operator_has_the_rights_it_was_promised_and_no_other() {
    install();
    let home = names::OPERATOR_NAMESPACE;
    let allowed: &[(&str, &str, &str)] = &[
        ("get list watch", "agenttracings.agenttracing.dev", "bank"),
        ("patch", "agenttracings.agenttracing.dev/status", "bank"),
        ("get list watch create patch delete", "deployments.apps", "bank"),
        ("get list watch create patch delete", "services", "bank"),
        ("get list watch create patch delete", "persistentvolumeclaims", "bank"),
        ("get list watch create patch delete", "networkpolicies.networking.k8s.io", "bank"),
        ("get list watch", "namespaces", ""),
        ("get list", "pods", "bank"),
        ("get", "storageclasses.storage.k8s.io", ""),
        ("create patch", "events.events.k8s.io", "bank"),
        (
            "get list watch patch",
            "mutatingwebhookconfigurations.admissionregistration.k8s.io/=agent-tracing-webhook",
            "",
        ),
        ("get list watch", "serviceaccounts", "bank"),
        ("get list watch", "mlflows.mlflow.opendatahub.io", ""),
        ("create", "subjectaccessreviews.authorization.k8s.io", ""),
        ("create list watch", "rolebindings.rbac.authorization.k8s.io", "bank"),
        ("get patch delete", "rolebindings.rbac.authorization.k8s.io/=agenttracing-mlflow", "bank"),
        ("get list watch bind", "clusterroles.rbac.authorization.k8s.io/=mlflow-operator-mlflow-integration", ""),
        ("get create", "configmaps", "bank"),
        ("patch", "configmaps/=agenttracing-ca", "bank"),
        ("create", "leases.coordination.k8s.io", home),
        ("get update", "leases.coordination.k8s.io/=agent-tracing-operator", home),
        ("create", "secrets", home),
        ("get list watch update patch", "secrets/=agent-tracing-webhook-ca", home),
    ];
    let denied: &[(&str, &str, &str)] = &[
        ("create update patch delete", "agenttracings.agenttracing.dev", "bank"),
        ("update", "agenttracings.agenttracing.dev/finalizers", "bank"),
        ("update", "deployments.apps", "bank"),
        ("get list create delete", "secrets", "bank"),
        ("get list watch update delete", "secrets", home),
        ("delete", "secrets/=agent-tracing-webhook-ca", home),
        ("get update delete", "leases.coordination.k8s.io", home),
        ("create", "leases.coordination.k8s.io", "bank"),
        ("create delete", "pods", "bank"),
        ("create", "pods/exec", "bank"),
        ("create", "serviceaccounts/token", "bank"),
        ("get create patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", ""),
        ("delete", "mutatingwebhookconfigurations.admissionregistration.k8s.io/=agent-tracing-webhook", ""),
        ("patch update delete create", "namespaces", ""),
        ("create update patch delete", "serviceaccounts", "bank"),
        // Creating one is behind the chart's createMlflowNamespaces.
        ("create update patch delete deletecollection", "mlflows.mlflow.opendatahub.io", ""),
        ("get list watch create patch bind escalate", "clusterroles.rbac.authorization.k8s.io", ""),
        ("bind escalate", "clusterroles.rbac.authorization.k8s.io/=cluster-admin", ""),
        (
            "create update patch delete escalate",
            "clusterroles.rbac.authorization.k8s.io/=mlflow-operator-mlflow-integration",
            "",
        ),
        ("create bind", "roles.rbac.authorization.k8s.io", "bank"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
        ("get update patch delete", "rolebindings.rbac.authorization.k8s.io", "bank"),
        ("update", "rolebindings.rbac.authorization.k8s.io/=agenttracing-mlflow", "bank"),
        ("list watch update patch delete", "configmaps", "bank"),
        ("update delete", "configmaps/=agenttracing-ca", "bank"),
        ("impersonate", "users", ""),
    ];
    for (expected, table) in [(true, allowed), (false, denied)] {
        for (verbs, resource, namespace) in table {
            for verb in verbs.split(' ') {
                assert_eq!(may(OPERATOR, verb, resource, namespace), expected, "{verb} {resource} in '{namespace}'");
            }
        }
    }
}

#[test]
#[ignore = "needs the API server: make test"]
fn who_may_edit_or_view_a_namespace_may_so_agenttracings() {
    install();
    let namespace = Namespace::create("install-users");
    let ns = namespace.0.as_str();
    for role in ["admin", "edit", "view"] {
        in_namespace(ns, &["create", "rolebinding", role, "--clusterrole", role, "--user", &format!("a-{role}")]).ok();
    }
    let resource = "agenttracings.agenttracing.dev";
    // The roles are aggregated by a controller, a moment after the install.
    wait_until("aggregated", || ["admin", "edit"].iter().all(|role| may(&format!("a-{role}"), "create", resource, ns)));
    wait_until("aggregated", || may("a-view", "get", resource, ns));
    for user in ["a-admin", "a-edit"] {
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
            assert!(may(user, verb, resource, ns), "{user} {verb}");
        }
    }
    for verb in ["create", "update", "patch", "delete"] {
        assert!(!may("a-view", verb, resource, ns), "{verb}");
    }
    for user in ["a-admin", "a-edit", "a-view"] {
        for verb in ["update", "patch"] {
            assert!(
                !may(user, verb, &format!("{resource}/status"), ns),
                "{user} {verb}: the webhook decides from status"
            );
        }
    }
}

/// The copy of the configuration that tells by refusing.
struct Probe(String);

impl Probe {
    fn create(name: &str, namespaces: &[&str]) -> Self {
        let mut configuration = webhook_copy(name, namespaces);
        let webhook = &mut configuration["webhooks"][0];
        webhook["failurePolicy"] = json!("Fail");
        // Nothing listens on port 1, so the call fails at once.
        webhook["clientConfig"] = json!({"url": "https://127.0.0.1:1/mutate"});
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
    copy["webhooks"][0]["namespaceSelector"]["matchExpressions"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"key": names::LABEL_NAMESPACE_NAME, "operator": "In", "values": values}));
    copy
}

#[track_caller]
fn called(what: &str, request: Run) {
    let refused = request.err();
    assert!(refused.contains("failed calling webhook \"inject.agenttracing.dev\""), "{what}: {refused}");
}

#[track_caller]
fn not_called(what: &str, request: Run) {
    assert!(request.succeeded(), "{what}: {}", request.stderr());
}

/// A namespace that goes with the test, whatever becomes of it.
struct Namespace(String);

impl Namespace {
    fn create(name: &str) -> Self {
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

/// What the tests need of an install: all but the objects that other tests change while they run an operator of their own.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        only_on_the_test_cluster();
        let rights = [
            "Namespace",
            "CustomResourceDefinition",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
        ];
        let items: Vec<_> =
            kustomize().into_iter().filter(|object| rights.iter().any(|kind| object["kind"] == *kind)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        run("KUBECTL", "kubectl", &["apply", "--server-side", "--force-conflicts", "-f", "-"], &list).ok();
        kubectl(&["wait", "crd/agenttracings.agenttracing.dev", "--for=condition=Established", "--timeout=30s"]).ok();
    });
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

fn create(object: &Value, args: &[&str]) -> Run {
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

fn may(user: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    // "resource/=name" is one object, "resource/sub" a subresource.
    let (resource, name) = resource.split_once("/=").unwrap_or((resource, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name, "namespace": namespace,
            },
        },
    });
    parse(&create(&review, &["-o", "json"]).ok())["status"]["allowed"] == true
}

fn in_namespace(namespace: &str, args: &[&str]) -> Run {
    kubectl(&[&["-n", namespace], args].concat())
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
