//! Why a workload's new pods do not start or stay, in words that do not change from one look to the next.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::workload::Trouble;
use crate::names;

/// How long the operator's init container may wait for its image or its start.
const MERGE_CA_PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// How long a container that has crashed more than once has to run before it counts as well again.
const RECOVERED: SignedDuration = SignedDuration::from_secs(60);

/// What keeps pods that carry this record from running.
pub fn of_pods(pods: &[Pod], record: Option<&str>, now: Timestamp) -> Option<Trouble> {
    carrying(pods, record).find_map(|pod| {
        let (reason, message) =
            containers(pod).find_map(|status| of_container(status, now)).or_else(|| unscheduled(pod))?;
        Some(Trouble { reason, message, since: created(pod) })
    })
}

/// Whether the operator's init container keeps waiting for its image or its start in pods that carry this record.
pub fn lacks_merge_ca(pods: &[Pod], record: Option<&str>, now: Timestamp) -> bool {
    carrying(pods, record).any(|pod| {
        let waits = containers(pod).filter(|status| status.name == names::MERGE_CA).any(|status| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.and_then(|w| w.reason.as_deref()).is_some_and(|reason| NEVER_STARTS.contains(&reason))
        });
        waits && created(pod).is_some_and(|since| now.duration_since(since) >= MERGE_CA_PATIENCE)
    })
}

/// Reasons of the kubelet for a container that does not get as far as running.
const NEVER_STARTS: [&str; 10] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

fn carrying<'p>(pods: &'p [Pod], record: Option<&'p str>) -> impl Iterator<Item = &'p Pod> {
    pods.iter().filter(move |pod| {
        let annotations = pod.metadata.annotations.as_ref();
        let carried = annotations.and_then(|all| all.get(names::ANNOTATION_RECORD)).map(String::as_str);
        record.is_some() && carried == record && pod.metadata.deletion_timestamp.is_none()
    })
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn of_container(status: &ContainerStatus, now: Timestamp) -> Option<(String, String)> {
    let name = &status.name;
    let state = status.state.as_ref();
    let waiting = state.and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref());
    let exit_code = |state: Option<&ContainerState>| state.and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    match waiting {
        // The kubelet says the one and the other in turn.
        Some("ErrImagePull" | "ImagePullBackOff") => {
            let message = format!("container {name} waits for its image {}", status.image);
            return Some(("ImagePullBackOff".to_owned(), message));
        }
        Some("CrashLoopBackOff") | None => {}
        Some(reason) if NEVER_STARTS.contains(&reason) => {
            return Some((reason.to_owned(), format!("container {name} does not start")));
        }
        Some(_) => return None,
    }
    // Between two crashes a container runs for a while; that is no recovery yet.
    let running = state.and_then(|s| s.running.as_ref()).and_then(|r| r.started_at.as_ref());
    let recovered = running.is_some_and(|since| now.duration_since(since.0) >= RECOVERED);
    let crashes = waiting.is_some() || status.restart_count >= 2;
    if !crashes || recovered {
        return None;
    }
    let code = exit_code(status.last_state.as_ref()).or_else(|| exit_code(state));
    let code = code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
    Some(("CrashLoopBackOff".to_owned(), format!("container {name} ends again and again{code}")))
}

fn unscheduled(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let reason = scheduled.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
    let message = scheduled.message.as_deref().unwrap_or("no node takes its pod");
    Some((reason, message.chars().take(300).collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(record: &str, status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "teller-1",
                "creationTimestamp": "2026-11-21T10:00:00Z",
                "annotations": {(names::ANNOTATION_RECORD): record},
            },
            "status": status,
        }))
        .unwrap()
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-11-21T{time}Z").parse().unwrap()
    }

    fn agent(state: Value, restarts: i32) -> Value {
        json!({"containerStatuses": [{
            "name": "agent", "image": "bank/teller:2", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
            "lastState": {"terminated": {"exitCode": 3}},
        }]})
    }

    fn said(status: Value) -> Option<String> {
        of_pods(&[pod("r", status)], Some("r"), at("10:01:00")).map(|t| format!("{}: {}", t.reason, t.message))
    }

    #[test]
    fn both_words_for_a_missing_image_are_one() {
        for word in ["ErrImagePull", "ImagePullBackOff"] {
            let waiting = agent(json!({"waiting": {"reason": word}}), 0);
            assert_eq!(said(waiting).unwrap(), "ImagePullBackOff: container agent waits for its image bank/teller:2");
        }
    }

    #[test]
    fn a_container_that_crashes_is_not_well_because_it_runs_for_a_moment() {
        let crashing = "CrashLoopBackOff: container agent ends again and again with exit code 3";
        assert_eq!(said(agent(json!({"waiting": {"reason": "CrashLoopBackOff"}}), 2)).unwrap(), crashing);
        assert_eq!(said(agent(json!({"running": {"startedAt": "2026-11-21T10:00:50Z"}}), 2)).unwrap(), crashing);
        assert_eq!(said(agent(json!({"running": {"startedAt": "2026-11-21T10:00:00Z"}}), 2)), None);
        assert_eq!(said(agent(json!({"running": {"startedAt": "2026-11-21T10:00:50Z"}}), 1)), None, "once is no loop");
        assert_eq!(said(agent(json!({"waiting": {"reason": "ContainerCreating"}}), 0)), None);
    }

    #[test]
    fn a_pod_that_no_node_takes_says_so() {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"});
        assert_eq!(said(json!({"conditions": [condition]})).unwrap(), "Unschedulable: 0/1 nodes");
    }

    #[test]
    fn pods_of_another_wiring_say_nothing_about_this_one() {
        let failing = agent(json!({"waiting": {"reason": "ImagePullBackOff"}}), 0);
        assert_eq!(of_pods(&[pod("old", failing.clone())], Some("r"), at("10:01:00")), None);
        assert_eq!(of_pods(&[pod("r", failing)], None, at("10:01:00")), None);
    }

    #[test]
    fn merge_ca_has_a_minute_to_start() {
        let waiting = |reason: &str| {
            let state = json!({"waiting": {"reason": reason}});
            let merge_ca = json!({"name": "merge-ca", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            [pod("r", json!({"initContainerStatuses": [merge_ca]}))]
        };
        assert!(!lacks_merge_ca(&waiting("ErrImagePull"), Some("r"), at("10:00:59")));
        assert!(lacks_merge_ca(&waiting("ErrImagePull"), Some("r"), at("10:01:00")));
        assert!(!lacks_merge_ca(&waiting("PodInitializing"), Some("r"), at("10:05:00")));
        let agents = agent(json!({"waiting": {"reason": "ErrImagePull"}}), 0);
        assert!(
            !lacks_merge_ca(&[pod("r", agents)], Some("r"), at("10:05:00")),
            "the agent's own image is its own matter"
        );
    }
}
