//! The rendered objects on a real API server: they are valid, and grant exactly the promised rights.

use std::sync::Once;

use agent_tracing::names;
use serde_json::json;

use crate::api::{DRY, Namespace, create, in_namespace, only_on_the_test_cluster, parse, wait_until};
use crate::{kubectl, kustomize, object, run};

const OPERATOR: &str = "system:serviceaccount:agent-tracing-system:agent-tracing-operator";

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
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_operator_has_the_rights_it_was_promised_and_no_other() {
    install();
    let home = names::OPERATOR_NAMESPACE;
    let allowed: &[(&str, &str, &str)] = &[
        ("get list watch", "agenttracings.agenttracing.dev", "bank"),
        ("patch", "agenttracings.agenttracing.dev/status", "bank"),
        ("get list watch create patch delete", "deployments.apps", "bank"),
        ("get list watch create patch delete", "statefulsets.apps", "bank"),
        ("get list watch patch", "daemonsets.apps", "bank"),
        ("get list watch patch", "cronjobs.batch", "bank"),
        ("get list watch", "jobs.batch", "bank"),
        ("get list watch create patch delete", "services", "bank"),
        ("get list watch create patch delete", "persistentvolumeclaims", "bank"),
        ("get list watch create patch delete", "networkpolicies.networking.k8s.io", "bank"),
        ("get list watch", "namespaces", ""),
        ("get list watch create", "pods", "bank"),
        ("get", "storageclasses.storage.k8s.io", ""),
        ("create patch", "events.events.k8s.io", "bank"),
        (
            "get list watch patch",
            "mutatingwebhookconfigurations.admissionregistration.k8s.io/=agent-tracing-webhook",
            "",
        ),
        ("get list watch create patch delete", "serviceaccounts", "bank"),
        ("get list watch create patch delete", "poddisruptionbudgets.policy", "bank"),
        ("create list watch", "roles.rbac.authorization.k8s.io", "bank"),
        ("get patch delete", "roles.rbac.authorization.k8s.io/=agenttracing-relay", "bank"),
        ("get patch delete", "rolebindings.rbac.authorization.k8s.io/=agenttracing-relay", "bank"),
        ("get list watch", "mlflows.mlflow.opendatahub.io", ""),
        ("create", "subjectaccessreviews.authorization.k8s.io", ""),
        ("create list watch", "rolebindings.rbac.authorization.k8s.io", "bank"),
        ("get patch delete", "rolebindings.rbac.authorization.k8s.io/=agenttracing-mlflow", "bank"),
        ("get list watch bind", "clusterroles.rbac.authorization.k8s.io/=mlflow-operator-mlflow-integration", ""),
        ("get create", "configmaps", "bank"),
        ("list patch delete", "configmaps/=agenttracing-ca", "bank"),
        ("create", "leases.coordination.k8s.io", home),
        ("get update", "leases.coordination.k8s.io/=agent-tracing-operator", home),
        ("create", "serviceaccounts/token=agent-tracing-observer", home),
        ("create", "secrets", home),
        ("get list watch update patch", "secrets/=agent-tracing-webhook-ca", home),
    ];
    let denied: &[(&str, &str, &str)] = &[
        ("create update patch delete", "agenttracings.agenttracing.dev", "bank"),
        ("update", "agenttracings.agenttracing.dev/finalizers", "bank"),
        ("update", "deployments.apps", "bank"),
        ("update", "statefulsets.apps", "bank"),
        ("create update delete", "daemonsets.apps", "bank"),
        ("create update delete", "cronjobs.batch", "bank"),
        ("create update patch delete", "jobs.batch", "bank"),
        ("get list create delete", "secrets", "bank"),
        ("get list watch update delete", "secrets", home),
        ("delete", "secrets/=agent-tracing-webhook-ca", home),
        ("get update delete", "leases.coordination.k8s.io", home),
        ("create", "leases.coordination.k8s.io", "bank"),
        ("patch update delete", "pods", "bank"),
        ("create", "pods/exec", "bank"),
        ("create", "serviceaccounts/token", "bank"),
        ("create", "serviceaccounts/token=agent-tracing-observer", "bank"),
        ("create", "serviceaccounts/token=agent-tracing-operator", home),
        ("create", "serviceaccounts/token", home),
        ("get create patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", ""),
        ("create update", "mutatingwebhookconfigurations.admissionregistration.k8s.io/=agent-tracing-webhook", ""),
        ("patch update delete create", "namespaces", ""),
        ("update", "serviceaccounts", "bank"),
        // Creating one is behind the chart's createMlflowNamespaces.
        ("create update patch delete deletecollection", "mlflows.mlflow.opendatahub.io", ""),
        ("get list watch create patch bind escalate", "clusterroles.rbac.authorization.k8s.io", ""),
        ("bind escalate", "clusterroles.rbac.authorization.k8s.io/=cluster-admin", ""),
        (
            "create update patch delete escalate",
            "clusterroles.rbac.authorization.k8s.io/=mlflow-operator-mlflow-integration",
            "",
        ),
        ("get update patch delete bind escalate", "roles.rbac.authorization.k8s.io", "bank"),
        ("update bind escalate", "roles.rbac.authorization.k8s.io/=agenttracing-relay", "bank"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
        ("get update patch delete", "rolebindings.rbac.authorization.k8s.io", "bank"),
        ("update", "rolebindings.rbac.authorization.k8s.io/=agenttracing-mlflow", "bank"),
        ("list watch update patch delete", "configmaps", "bank"),
        ("update", "configmaps/=agenttracing-ca", "bank"),
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

fn may(user: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    // "resource/=name" is one object, "resource/sub" a subresource, "resource/sub=name" the one of an object.
    let (resource, name) = resource.split_once("/=").or_else(|| resource.split_once('=')).unwrap_or((resource, ""));
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
