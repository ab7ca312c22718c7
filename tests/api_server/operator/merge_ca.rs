//! The init container `merge-ca` under a policy that admits only listed images (review A4, cases B05 and B07).

use agent_tracing::names;
use serde_json::{Value, json};

use super::{Site, agent};
use crate::cluster::{DRY, STRICT, wait_until};

/// A policy of the cluster for one namespace, on Pods or on Deployments, and its binding. Deleted in the end.
struct ImagePolicy<'a> {
    site: &'a Site,
    name: String,
}

impl<'a> ImagePolicy<'a> {
    fn on(site: &'a Site, group: &str, resource: &str, spec: &str) -> Self {
        let name = format!("{}-{resource}", site.namespace.0);
        // MLflow's Deployment has an init container of its own, and is no matter of this policy.
        let label = format!("'{}'", names::LABEL_MANAGED_BY);
        let images = format!(
            "(has(object.metadata.labels) && {label} in object.metadata.labels) || !has({spec}.initContainers) || \
             {spec}.initContainers.all(c, c.image.startsWith('example.com/'))"
        );
        let this_namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": site.namespace.0}});
        let rules = json!([{
            "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource],
        }]);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": rules, "namespaceSelector": this_namespace},
                "validations": [{"expression": images, "message": "images come from example.com only"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        site.admin.create(&policy, STRICT).unwrap();
        site.admin.create(&binding, STRICT).unwrap();
        Self { site, name }
    }
}

impl Drop for ImagePolicy<'_> {
    fn drop(&mut self) {
        for kind in ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"] {
            self.site.admin.delete(kind, "", &self.name);
        }
    }
}

fn with_foreign_init_container(site: &Site) -> Value {
    let mut probe = agent(&site.namespace.0, "policy-probe");
    probe["spec"]["template"]["spec"]["initContainers"][1]["image"] = json!("elsewhere.example/x:1");
    probe
}

fn with_authorities(site: &Site) -> Value {
    let mut tracing = site.tracing();
    tracing["spec"]["caBundle"] = json!({"mode": "Always"});
    tracing
}

fn takes_the_config_map(deployment: &Value) -> bool {
    let spec = &deployment["spec"]["template"]["spec"];
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let init_containers = spec["initContainers"].as_array().into_iter().flatten();
    volumes.filter(|v| v["configMap"]["name"] == names::CA_CONFIG_MAP).count() == 1
        && init_containers.filter(|c| c["name"] == names::MERGE_CA).count() == 0
}

#[test]
#[ignore = "needs an API server: make test"]
fn no_users_workload_is_refused_because_of_merge_ca_where_a_policy_lists_images() {
    let site = Site::open_before_mlflow("image-policy");
    let on_deployments = ImagePolicy::on(&site, "apps", "deployments", "object.spec.template.spec");
    let on_pods = ImagePolicy::on(&site, "", "pods", "object.spec");
    let probe = with_foreign_init_container(&site);
    wait_until("the policy refuses", || site.admin.create(&probe, DRY).is_err());
    site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();

    let tracing = with_authorities(&site);
    site.admin.create(&tracing, STRICT).unwrap();
    site.mlflow_comes_up(&tracing, &site.url());
    wait_until("what runs already is wired without it", || takes_the_config_map(&site.deployment("teller")));
    let live = site.admin.live(&tracing);
    let said = live["status"]["mergeCa"]["message"].as_str().unwrap().to_owned();
    assert!(said.contains("images come from example.com only"), "{said}");
    wait_until("its row says why", || site.row("teller").is_some_and(|row| row["reason"] == "MergeCARefused"));

    // The user's own creation is taken as if we were not there.
    let created = site.admin.create(&agent(&site.namespace.0, "vault"), STRICT).unwrap();
    assert!(takes_the_config_map(&created), "{created}");
    drop((on_deployments, on_pods));
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn pods_that_a_later_policy_refuses_come_without_merge_ca() {
    let site = Site::open_before_mlflow("later-policy");
    let tracing = with_authorities(&site);
    site.admin.create(&tracing, STRICT).unwrap();
    site.mlflow_comes_up(&tracing, &site.url());
    wait_until("the operator has seen it", || {
        let probe = site.dry_run(&agent(&site.namespace.0, "probe"));
        probe["spec"]["template"]["spec"]["initContainers"][0]["name"].is_string() && super::is_wired(&probe)
    });
    let on_pods = ImagePolicy::on(&site, "", "pods", "object.spec");
    let mut pod = with_foreign_init_container(&site)["spec"]["template"].take();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("probe");
    pod["metadata"]["namespace"] = json!(site.namespace.0);
    wait_until("the policy refuses", || site.admin.create(&pod, DRY).is_err());

    // With the init container as long as nobody knows; its ReplicaSet then says that it gets no pod.
    site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    wait_until("it is wired without it", || takes_the_config_map(&site.deployment("teller")));
    wait_until("its pods are there", || {
        let pods = site.admin.list("Pod", &site.namespace.0);
        pods.iter().any(|pod| pod["metadata"]["labels"]["app"] == "teller")
    });
    drop(on_pods);
    site.close();
}
