//! Is the standalone server well, and if not, what should a person do about it?
//!
//! A Deployment only says "unavailable". The reason stands somewhere else each time: on the claim, on the Deployment's
//! `ReplicaFailure` condition, on the pod's scheduling condition or in a container's state.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::condition::{ChildObstacle, ConditionUpdate};
use super::quote::shorten;
use super::server_pods::{RunServer, What};
use crate::api::{MlflowStatus, Reason};
use crate::core::kubectl::Kubectl;
use crate::names;

/// What is known of the StorageClass of an unbound claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageClass {
    /// It was not looked for.
    NotAsked,
    /// It does not exist.
    Absent,
    /// It exists.
    Present,
}

/// What a probe of the address found.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// The server is not up, so nobody asked.
    NotAsked,
    /// MLflow answered there.
    Answered(MlflowStatus),
    /// It did not.
    Failed {
        /// The condition's reason.
        reason: Reason,
        /// What happened, as the end of a sentence that begins with the address.
        what: String,
    },
}

/// What was observed of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerObservation<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name of the AgentTracing.
    pub tracing: &'a str,
    /// Name of all the server's objects.
    pub name: &'a str,
    /// The address that agents get.
    pub url: &'a str,
    /// Obstacles met while its objects were applied, the worst first.
    pub obstacles: &'a [ChildObstacle],
    /// The Deployment.
    pub deployment: Option<&'a Deployment>,
    /// The claim, where there is one.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// The class of a claim that is not bound.
    pub class: StorageClass,
    /// The server's pods, read only while it is not available.
    pub pods: &'a [Pod],
    /// The probe.
    pub probe: &'a Probe,
}

/// The condition `MLflowReady`.
pub fn mlflow_ready(server: &ServerObservation<'_>, now: Timestamp) -> ConditionUpdate {
    let ServerObservation { namespace, tracing, name, url, obstacles, deployment, claim, class, pods, probe } = *server;
    if let Some(obstacle) = obstacles.first() {
        return ConditionUpdate::bad(obstacle.reason, obstacle.message.clone());
    }
    if let Probe::Answered(mlflow) = probe {
        let service = format!("service/{name}");
        let page = Kubectl::new("port-forward").namespace(namespace).arg(&service).arg(port_of(url));
        return ConditionUpdate::good(
            Reason::Available,
            format!("MLflow {} answers at {url}; see its page with: {page}", mlflow.version),
        );
    }
    if let Some(update) = claim.and_then(|claim| unbound_claim(namespace, claim, class)) {
        return update;
    }
    let available = deployment.and_then(|d| d.status.as_ref()?.available_replicas).unwrap_or(0) > 0;
    match probe {
        Probe::Failed { reason, what } if available => {
            let command = match reason {
                Reason::Unreachable => Kubectl::new("get pods,endpointslices,networkpolicies").namespace(namespace),
                _ => Kubectl::new("logs").namespace(namespace).arg(&format!("deployment/{name}")),
            };
            return ConditionUpdate::bad(*reason, format!("MLflow runs, but at {url} {what}; look with: {command}"));
        }
        _ => {}
    }
    if let Some(failure) = deployment.and_then(replica_failure) {
        let message = format!(
            "The API server refuses MLflow's pod ({failure}); make room or lower mlflow.standalone.resources, then look with: {}",
            Kubectl::new("describe resourcequota,limitrange").namespace(namespace)
        );
        return ConditionUpdate::bad(Reason::CreateForbidden, message);
    }
    let server = RunServer { what: What::Mlflow, namespace, tracing };
    pods.iter().find_map(|pod| server.failure(pod, now)).unwrap_or_else(|| {
        let its_pods = names::pods_of(names::MLFLOW, tracing);
        let watch = Kubectl::new("get pods").namespace(namespace).selector(&its_pods).arg("--watch");
        ConditionUpdate::bad(Reason::Progressing, format!("MLflow is starting; watch it with: {watch}"))
    })
}

fn unbound_claim(namespace: &str, claim: &PersistentVolumeClaim, class: StorageClass) -> Option<ConditionUpdate> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let wanted = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).filter(|c| !c.is_empty());
    let message = match (phase, wanted, class) {
        ("Lost", ..) => format!(
            "The volume behind PersistentVolumeClaim {name} is gone, and with it the traces; look with: {}",
            Kubectl::new("describe pvc").namespace(namespace).arg(name)
        ),
        ("Pending", None, _) => format!(
            "PersistentVolumeClaim {name} names no StorageClass and the cluster has no default one; list them with \
             '{}' and make one the default: {} <name> storageclass.kubernetes.io/is-default-class=true",
            Kubectl::new("get storageclass"),
            Kubectl::new("annotate storageclass")
        ),
        ("Pending", Some(class), StorageClass::Absent) => format!(
            "StorageClass {class} of mlflow.standalone.storage.storageClassName does not exist; create it, or delete this \
             AgentTracing and the claim ('{}') and create it again with one of: {}",
            Kubectl::new("delete pvc").namespace(namespace).arg(name),
            Kubectl::new("get storageclass")
        ),
        _ => return None,
    };
    Some(ConditionUpdate::bad(Reason::StorageNotBound, message))
}

/// The ReplicaSet could not create a pod: quota, LimitRange or an admission policy. The text is the API server's own.
fn replica_failure(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|c| is(&c.type_, "ReplicaFailure") && is(&c.status, "True"))?;
    Some(shorten(failure.message.as_deref().unwrap_or_default()))
}

fn is(field: &Option<String>, value: &str) -> bool {
    field.as_deref() == Some(value)
}

/// The port of an address that ends with one.
pub fn port_of(url: &str) -> &str {
    url.rsplit_once(':').map_or("", |(_, port)| port)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "http://tracing-mlflow.bank-agents.svc:5500";

    fn update(claim: Value, class: StorageClass, deployment: Value, pods: Value, probe: &Probe) -> ConditionUpdate {
        let claim = serde_json::from_value(claim).unwrap();
        let deployment = serde_json::from_value(deployment).unwrap();
        let pods: Vec<Pod> = serde_json::from_value(pods).unwrap();
        let server = ServerObservation {
            namespace: "bank-agents",
            tracing: "tracing",
            name: "tracing-mlflow",
            url: URL,
            obstacles: &[],
            deployment: Some(&deployment),
            claim: Some(&claim),
            class,
            pods: &pods,
            probe,
        };
        mlflow_ready(&server, "2026-11-21T10:10:00Z".parse().unwrap())
    }

    fn bound() -> Value {
        json!({"metadata": {"name": "tracing-mlflow"}, "spec": {"storageClassName": "fast"}, "status": {"phase": "Bound"}})
    }

    fn pod(status: Value) -> ConditionUpdate {
        let pods = json!([{"metadata": {"name": "tracing-mlflow-0"}, "status": status}]);
        update(bound(), StorageClass::NotAsked, json!({"metadata": {}}), pods, &Probe::NotAsked)
    }

    fn container(state: Value) -> ConditionUpdate {
        pod(json!({"containerStatuses": [{
            "name": "mlflow", "image": "ghcr.io/x:y", "imageID": "", "ready": false, "restartCount": 3, "state": state,
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        }]}))
    }

    #[test]
    fn a_claim_without_any_storage_class_says_how_to_make_one_the_default() {
        let pending = json!({"metadata": {"name": "tracing-mlflow"}, "spec": {}, "status": {"phase": "Pending"}});
        let update = update(pending, StorageClass::NotAsked, json!({"metadata": {}}), json!([]), &Probe::NotAsked);
        assert_eq!(update.reason, Reason::StorageNotBound);
        assert!(update.message.ends_with("storageclass.kubernetes.io/is-default-class=true"), "{}", update.message);
    }

    #[test]
    fn a_claim_whose_class_does_not_exist_names_it() {
        let pending = json!({"metadata": {"name": "tracing-mlflow"}, "spec": {"storageClassName": "fsat"}, "status": {"phase": "Pending"}});
        let update = update(pending, StorageClass::Absent, json!({"metadata": {}}), json!([]), &Probe::NotAsked);
        assert_eq!(update.reason, Reason::StorageNotBound);
        assert!(update.message.contains("StorageClass fsat"), "{}", update.message);
    }

    #[test]
    fn a_wrong_image_names_the_image_and_the_field() {
        let update = container(json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}));
        assert_eq!(update.reason, Reason::PodsNotReady);
        for part in [
            "ghcr.io/x:y",
            "ImagePullBackOff",
            "mlflow.standalone.image",
            "kubectl edit agenttracing -n bank-agents tracing",
        ] {
            assert!(update.message.contains(part), "{part}: {}", update.message);
        }
    }

    #[test]
    fn a_server_out_of_memory_names_the_limit() {
        let update = container(json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        assert!(update.message.contains("OOMKilled, exit code 137, raise mlflow.standalone.resources.limits.memory"));
        assert!(update.message.ends_with("kubectl logs -n bank-agents tracing-mlflow-0 -c mlflow --previous"));
    }

    #[test]
    fn an_init_container_that_hangs_is_named_after_a_while() {
        let started = |at: &str| {
            pod(json!({"initContainerStatuses": [{
                "name": "migrate", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"running": {"startedAt": at}},
            }]}))
        };
        assert_eq!(started("2026-11-21T10:09:30Z").reason, Reason::Progressing);
        assert!(
            started("2026-11-21T10:05:00Z")
                .message
                .contains("Container migrate of MLflow runs since 2026-11-21T10:05:00Z")
        );
    }

    #[test]
    fn a_pod_without_a_node_or_a_volume_says_which() {
        let unscheduled = |message: &str| {
            pod(
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}),
            )
        };
        assert_eq!(unscheduled("0/1 nodes are available: insufficient memory").reason, Reason::PodsNotReady);
        let volume = unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims");
        assert_eq!(volume.reason, Reason::StorageNotBound);
    }

    #[test]
    fn an_exhausted_quota_quotes_the_api_server() {
        let deployment = json!({"metadata": {}, "status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "pods \"x\" is forbidden: exceeded quota: tight"},
        ]}});
        let update = update(bound(), StorageClass::NotAsked, deployment, json!([]), &Probe::NotAsked);
        assert_eq!(update.reason, Reason::CreateForbidden);
        assert!(update.message.contains("exceeded quota: tight"), "{}", update.message);
    }

    #[test]
    fn an_answer_is_what_counts() {
        let up = json!({"metadata": {}, "status": {"availableReplicas": 1}});
        let answered = Probe::Answered(MlflowStatus { version: "3.10.1".into(), ..MlflowStatus::default() });
        let verdict_of = |probe: &Probe| update(bound(), StorageClass::NotAsked, up.clone(), json!([]), probe);
        assert_eq!(verdict_of(&answered).good, Some(true));
        let failed = Probe::Failed { reason: Reason::HostHeaderRejected, what: "it refuses the Host header".into() };
        let refused = verdict_of(&failed);
        assert_eq!(refused.reason, Reason::HostHeaderRejected);
        assert!(refused.message.contains(URL), "{}", refused.message);
    }
}
