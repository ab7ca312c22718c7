//! A policy of the cluster that changes what we have added, in the same request and after us: what it adds to `merge-ca`
//! leaves that ours (cases B01 and B02).

use std::time::Duration;

use agent_tracing::names;
use serde_json::{Value, json};

use super::{Site, agent, generation, is_wired, record, variable};
use crate::cluster::{STRICT, wait_until};

/// As Kyverno's rules for Pods and its copies of them for Deployments: two fields into the security context of every init
/// container, and a volume with corporate roots into all containers. The deployed MLflow is no matter of this policy.
struct Additions<'a> {
    site: &'a Site,
    name: String,
}

const ROOTS: &str = "corporate-roots";

impl<'a> Additions<'a> {
    fn on(site: &'a Site, group: &str, resource: &str, spec: &str) -> Self {
        let name = format!("{}-{resource}", site.namespace.0);
        let this_namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": site.namespace.0}});
        let rules = json!([{
            "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource],
        }]);
        let ours = format!("has(object.metadata.labels) && '{}' in object.metadata.labels", names::LABEL_MANAGED_BY);
        let going = "has(object.metadata.deletionTimestamp)";
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                // It comes before webhooks, and again after one that has changed something.
                "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
                "matchConstraints": {"resourceRules": rules, "namespaceSelector": this_namespace},
                "matchConditions": [{"name": "of-a-team", "expression": format!("!({ours}) && !{going}")}],
                "mutations": [{
                    "patchType": "ApplyConfiguration", "applyConfiguration": {"expression": additions(spec)},
                }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name},
        });
        site.admin.create(&policy, STRICT).unwrap();
        site.admin.create(&binding, STRICT).unwrap();
        Self { site, name }
    }
}

impl Drop for Additions<'_> {
    fn drop(&mut self) {
        for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
            self.site.admin.delete(kind, "", &self.name);
        }
    }
}

/// In CEL; `spec` is where the pod's is, as in `spec.template.spec`.
fn additions(spec: &str) -> String {
    let mount = |list: &str| {
        format!(
            "volumeMounts: [Object.{spec}.{list}.volumeMounts{{name: '{ROOTS}', mountPath: '/etc/ssl/certs', readOnly: true}}]"
        )
    };
    let context = format!("Object.{spec}.initContainers.securityContext{{privileged: false, runAsGroup: 2000}}");
    let init_containers = format!(
        "object.{spec}.initContainers.map(c, Object.{spec}.initContainers{{name: c.name, securityContext: {context}, {}}})",
        mount("initContainers")
    );
    let containers =
        format!("object.{spec}.containers.map(c, Object.{spec}.containers{{name: c.name, {}}})", mount("containers"));
    let volume = format!("Object.{spec}.volumes{{name: '{ROOTS}', emptyDir: Object.{spec}.volumes.emptyDir{{}}}}");
    let pod =
        format!("Object.{spec}{{initContainers: {init_containers}, containers: {containers}, volumes: [{volume}]}}");
    // From the innermost block outwards: `Object.spec.template{spec: …}`.
    let parts: Vec<_> = spec.split('.').collect();
    (0..parts.len()).rev().fold(pod, |inner, depth| {
        let outer = ["Object"].iter().chain(&parts[..depth]).copied().collect::<Vec<_>>().join(".");
        format!("{outer}{{{}: {inner}}}", parts[depth])
    })
}

/// The init container of ours in a pod's spec.
fn merge_ca(spec: &Value) -> &Value {
    let init_containers = spec["initContainers"].as_array().into_iter().flatten();
    let mut all = init_containers.filter(|container| container["name"] == names::MERGE_CA);
    let found = all.next().unwrap_or_else(|| panic!("no init container of ours: {spec:#}"));
    assert!(all.next().is_none(), "it is there twice: {spec:#}");
    found
}

/// It is ours with what the policy added, and the agent has all that goes with it.
#[track_caller]
fn assert_both_are_there(spec: &Value) {
    let ours = merge_ca(spec);
    assert_eq!(ours["securityContext"]["runAsGroup"], 2000, "case B01: {ours:#}");
    assert_eq!(ours["securityContext"]["readOnlyRootFilesystem"], true, "{ours:#}");
    assert!(ours["volumeMounts"].to_string().contains(ROOTS), "case B02: {ours:#}");
    let agent = &spec["containers"][0];
    assert!(agent["env"].to_string().contains("MLFLOW_TRACKING_SERVER_CERT_PATH"), "{agent:#}");
    for path in ["/tmp/ca-bundle", "/etc/ssl/certs"] {
        assert!(agent["volumeMounts"].to_string().contains(path), "{path}: {agent:#}");
    }
}

fn pod_spec(site: &Site, name: &str) -> Value {
    site.deployment(name)["spec"]["template"]["spec"].take()
}

/// An agent without a controller that opts in.
fn pod(site: &Site) -> Value {
    let mut pod = agent(&site.namespace.0, "scout")["spec"]["template"].take();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"] = json!({"name": "scout", "namespace": site.namespace.0, "labels": {names::LABEL_INJECT: "true"}});
    pod
}

/// Nobody fights over it: no repair, nothing counted as the user's, nothing contested.
#[track_caller]
fn assert_at_peace(site: &Site, name: &str) {
    let row = site.row(name).unwrap();
    assert_ne!(row["state"], "Contested", "{row}");
    assert!(!row["notes"].to_string().contains("pod:"), "{row}");
    assert_eq!(site.events_about(name, names::event::REPAIRED), 0);
    assert_eq!(generation(&site.deployment(name)), 2, "created, and changed once with the spec");
}

#[test]
#[ignore = "needs an API server: make test"]
fn what_a_policy_adds_to_merge_ca_leaves_it_ours_until_it_goes() {
    let site = Site::open_before_mlflow("policy-adds");
    let mut tracing = site.tracing();
    tracing["spec"]["caBundle"] = json!({"mode": "Always"});
    site.admin.create(&tracing, STRICT).unwrap();
    site.mlflow_comes_up(&tracing, &site.url());
    wait_until("the webhook wires", || {
        let probe = site.dry_run(&agent(&site.namespace.0, "probe"));
        is_wired(&probe) && probe.to_string().contains(names::MERGE_CA)
    });
    // One was wired before the policy came.
    site.admin.create(&agent(&site.namespace.0, "elder"), STRICT).unwrap();
    let on_deployments = Additions::on(&site, "apps", "deployments", "spec.template.spec");
    let on_pods = Additions::on(&site, "", "pods", "spec");
    let mut opted_out = agent(&site.namespace.0, "teller");
    opted_out["metadata"]["labels"][names::LABEL_INJECT] = json!("false");
    wait_until("the policy adds", || site.dry_run(&opted_out).to_string().contains(ROOTS));
    wait_until("that on Pods too", || site.dry_run(&pod(&site)).to_string().contains(ROOTS));
    let bare = site.dry_run(&opted_out);

    let created = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    assert!(is_wired(&created), "in the very request");
    assert_both_are_there(&created["spec"]["template"]["spec"]);
    let scout = site.admin.create(&pod(&site), STRICT).unwrap();
    assert!(record(&scout).is_some());
    assert_both_are_there(&scout["spec"]);

    let others =
        json!({"mode": "Always", "scope": "MLflow", "configMaps": [{"name": "corporate-cas", "key": "ca.crt"}]});
    tracing["spec"]["caBundle"] = others;
    site.admin.merge(&tracing, STRICT).unwrap();
    for name in ["elder", "teller"] {
        wait_until(&format!("{name} trusts otherwise"), || {
            let live = site.deployment(name);
            is_wired(&live) && variable(&live, "REQUESTS_CA_BUNDLE").is_none()
        });
        assert_both_are_there(&pod_spec(&site, name));
        assert!(pod_spec(&site, name)["volumes"].to_string().contains("corporate-cas"), "{name}");
        wait_until(&format!("{name} is told"), || site.row(name).is_some());
    }
    // Whoever fights does so within a pass or two.
    std::thread::sleep(Duration::from_secs(4));
    ["elder", "teller"].iter().for_each(|name| assert_at_peace(&site, name));
    assert_both_are_there(&site.admin.get("Pod", &site.namespace.0, "scout").unwrap()["spec"]);

    site.admin.delete("AgentTracing", &site.namespace.0, "tracing");
    for name in ["elder", "teller"] {
        wait_until(&format!("{name} is given back"), || !is_wired(&site.deployment(name)));
        let live = site.deployment(name);
        assert_eq!(in_order(&live), in_order(&bare), "no remainder");
        assert_eq!(
            live["spec"]["template"]["metadata"]["annotations"],
            bare["spec"]["template"]["metadata"]["annotations"]
        );
    }
    drop((on_deployments, on_pods));
    site.close();
}

/// The pod's spec; the policy's merge may have changed the order of lists that have keys.
fn in_order(deployment: &Value) -> Value {
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    for list in ["volumes", "initContainers", "containers"] {
        spec[list].as_array_mut().unwrap().sort_by_key(|entry| entry["name"].to_string());
    }
    spec
}
