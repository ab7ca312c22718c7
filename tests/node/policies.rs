//! What the policies of a cluster make of wired pods.

use serde_json::json;

use crate::check::until_broken;
use crate::world::{idle, kubectl, scene, typed, until};

const TRACING: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: tracing}
spec:
  mlflow: {mode: External, external: {trackingURI: 'https://mlflow.example.com'}}
  auth: {method: TokenFile}
";
const POLICY: &str = "policies-without-token";

/// Takes the service account's token from every pod of the namespace, after the API server has mounted it (case B45). The API
/// server would mount it again where the pod does not say that it wants none.
fn policy() -> String {
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": "policies"}});
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": POLICY},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
            "matchConditions": [{"name": "mounts", "expression": "has(object.spec.containers[0].volumeMounts)"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
                "expression": "[JSONPatch{op: 'add', path: '/spec/automountServiceAccountToken', value: false}, \
                               JSONPatch{op: 'remove', path: '/spec/containers/0/volumeMounts'}]",
            }}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY}, "spec": {"policyName": POLICY},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}).to_string()
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn check_names_a_pod_that_lost_its_token_to_a_policy() {
    scene("policies", true, |scene| {
        scene.apply(TRACING);
        kubectl(&["apply", "-f", "-"], &policy()).unwrap();
        let removed = Removed;
        let probe = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
            "spec": serde_json::from_str::<serde_json::Value>(&idle("probe")).unwrap()["spec"]["template"]["spec"]});
        let takes_the_token = || {
            let made = ["-n", "policies", "create", "-f", "-", "--dry-run=server", "-o", "json"];
            kubectl(&made, &probe.to_string()).map(|made| !made.contains("volumeMounts"))
        };
        until("the policy is at work", || if takes_the_token()? { Ok(()) } else { Err("not yet".to_owned()) });
        scene.apply(&idle("teller"));
        scene.until_wired("teller");
        scene.until_rolled_out("teller");
        let said = until_broken(scene, "deployment/teller", "kubectl get pod -n policies teller-");
        assert!(said.contains("container agent of teller-") && said.contains("no service account token"), "{said}");
        drop(removed);
        until("the policy is gone", || if takes_the_token()? { Err("not yet".to_owned()) } else { Ok(()) });
        // The next pods have it.
        scene.kubectl(&["rollout", "restart", "deployment/teller"]);
        until("nothing of it is broken", || match crate::check::broken(&crate::check::check(scene, &[]).1) {
            None => Ok(()),
            Some(link) => Err(link),
        });
    });
}

/// The policy goes with the test.
struct Removed;

impl Drop for Removed {
    fn drop(&mut self) {
        typed(&["delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", POLICY, "--ignore-not-found"]);
    }
}
