//! Why a workload's new pods do not start or stay, in words that do not change from one look to the next.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::rollout::touched_at;
use crate::core::workloads::{Assessment, RolloutFailure};
use crate::names;

/// How long the operator's init container may wait for its image or its start.
const MERGE_CA_START_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);
/// The same in a Job's pods: a CronJob may replace its Job every minute, so that none of its pods gets older.
const MERGE_CA_START_TIMEOUT_OF_JOBS: SignedDuration = SignedDuration::from_secs(30);
/// What controllers say of a pod that the API server does not take.
const FAILED_CREATE: &str = "FailedCreate";
/// How long a container that has crashed more than once has to run before it counts as well again.
const STABLE_AFTER_RESTART: SignedDuration = SignedDuration::from_secs(60);

/// What keeps pods that carry this record from running.
pub fn of_pods(pods: &[Pod], record: Option<&str>, now: Timestamp) -> Option<RolloutFailure> {
    carrying(pods, record).find_map(|pod| {
        let (reason, message) =
            containers(pod).find_map(|status| of_container(status, now)).or_else(|| unscheduled(pod))?;
        Some(RolloutFailure { reason, message, since: created(pod) })
    })
}

/// Whether the operator's init container keeps waiting for its image or its start in pods that carry this record.
pub fn lacks_merge_ca(pods: &[Pod], record: Option<&str>, now: Timestamp) -> bool {
    carrying(pods, record).any(|pod| waits_for_merge_ca(pod) && is_older(pod, now, MERGE_CA_START_TIMEOUT))
}

/// Whether a workload that we touched a minute ago has no pod with its record, or its controller says that it cannot make one.
/// Before the first pod is gone nothing but that tells of a policy that does not admit it.
pub fn lacks_pods(workload: &Assessment, pods: &[Pod], now: Timestamp) -> bool {
    let is_told = workload.rollout.failure.as_ref().is_some_and(|failure| failure.reason == FAILED_CREATE);
    let since = touched_at(workload).and_then(|at| Timestamp::from_second(at).ok());
    let is_old = since.is_some_and(|since| now.duration_since(since) >= MERGE_CA_START_TIMEOUT);
    (is_told || is_old) && carrying(pods, workload.record.as_deref()).next().is_none()
}

/// The Jobs among these, by name, whose pods keep waiting for the operator's init container; and whether pods of them with
/// this record lack it, so that those of the next Job would too.
pub fn jobs_without_merge_ca(
    pods: &[Pod],
    jobs: &[String],
    record: Option<&str>,
    now: Timestamp,
) -> (Vec<String>, bool) {
    let job = |pod: &Pod| {
        let name = pod.metadata.labels.as_ref()?.get(names::LABEL_JOB_NAME)?;
        jobs.iter().find(|job| *job == name).cloned()
    };
    let old: Vec<_> = pods.iter().filter(|pod| is_older(pod, now, MERGE_CA_START_TIMEOUT_OF_JOBS)).collect();
    let wired = old.iter().filter(|pod| record_of(pod).is_some() && pod.metadata.deletion_timestamp.is_none());
    let waiting: BTreeSet<_> = wired.filter(|pod| waits_for_merge_ca(pod)).filter_map(|pod| job(pod)).collect();
    let lacks = |pod: &&Pod| waits_for_merge_ca(pod) || ended_with_merge_ca(pod);
    let again = carrying(old, record).any(|pod| job(pod).is_some() && lacks(&pod));
    (waiting.into_iter().collect(), again)
}

fn is_older(pod: &Pod, now: Timestamp, patience: SignedDuration) -> bool {
    created(pod).is_some_and(|since| now.duration_since(since) >= patience)
}

fn waits_for_merge_ca(pod: &Pod) -> bool {
    merge_ca(pod).filter_map(|state| state.waiting.as_ref()?.reason.as_deref()).any(|r| NEVER_STARTS.contains(&r))
}

/// Where a pod restarts nothing, what cannot be started ends it. The program itself never fails.
fn ended_with_merge_ca(pod: &Pod) -> bool {
    let failed = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed");
    failed && merge_ca(pod).filter_map(|state| state.terminated.as_ref()).any(|ended| ended.exit_code != 0)
}

fn merge_ca(pod: &Pod) -> impl Iterator<Item = &ContainerState> {
    containers(pod).filter(|status| status.name == names::MERGE_CA).filter_map(|status| status.state.as_ref())
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

fn carrying<'p>(pods: impl IntoIterator<Item = &'p Pod>, record: Option<&'p str>) -> impl Iterator<Item = &'p Pod> {
    let ours = move |pod: &&Pod| record.is_some() && record_of(pod) == record;
    pods.into_iter().filter(ours).filter(|pod| pod.metadata.deletion_timestamp.is_none())
}

fn record_of(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(names::ANNOTATION_RECORD).map(String::as_str)
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
    let recovered = running.is_some_and(|since| now.duration_since(since.0) >= STABLE_AFTER_RESTART);
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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

    fn of_job(job: &str, record: &str, status: Value) -> Pod {
        let mut pod = pod(record, status);
        pod.metadata.labels = Some([(names::LABEL_JOB_NAME.to_owned(), job.to_owned())].into());
        pod
    }

    fn merge_ca_is(phase: &str, state: Value) -> Value {
        let merge_ca =
            json!({"name": "merge-ca", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        json!({"phase": phase, "initContainerStatuses": [merge_ca]})
    }

    #[test]
    fn a_job_waits_for_merge_ca_half_a_minute_and_the_next_one_is_not_to() {
        let waiting = |reason: &str| merge_ca_is("Pending", json!({"waiting": {"reason": reason}}));
        let jobs = ["nightly-1".to_owned(), "nightly-2".to_owned()];
        let looked = |pods: &[Pod], record, time| jobs_without_merge_ca(pods, &jobs, record, at(time));
        let stuck = [of_job("nightly-2", "r", waiting("ImagePullBackOff"))];
        assert_eq!(looked(&stuck, Some("r"), "10:00:29"), (vec![], false));
        assert_eq!(looked(&stuck, Some("r"), "10:00:30"), (vec!["nightly-2".to_owned()], true));
        // It was made before the CronJob did without.
        assert_eq!(looked(&stuck, Some("new"), "10:05:00"), (vec!["nightly-2".to_owned()], false));
        assert_eq!(looked(&[of_job("daily-1", "r", waiting("ErrImagePull"))], Some("r"), "10:05:00"), (vec![], false));
        let starting = [of_job("nightly-1", "r", waiting("PodInitializing"))];
        assert_eq!(looked(&starting, Some("r"), "10:05:00"), (vec![], false));
        let unwired =
            Pod { metadata: ObjectMeta { annotations: None, ..stuck[0].metadata.clone() }, ..stuck[0].clone() };
        assert_eq!(looked(&[unwired], None, "10:05:00"), (vec![], false), "a merge-ca of the user's own");
    }

    #[test]
    fn a_pod_that_ended_because_merge_ca_does_not_start_waits_no_more_and_the_next_one_is_not_to_end_so() {
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let jobs = ["nightly-1".to_owned()];
        let looked =
            |status| jobs_without_merge_ca(&[of_job("nightly-1", "r", status)], &jobs, Some("r"), at("10:05:00"));
        assert_eq!(looked(merge_ca_is("Failed", ended(128))), (vec![], true));
        assert_eq!(looked(merge_ca_is("Failed", ended(0))), (vec![], false), "the agent failed");
        assert_eq!(looked(merge_ca_is("Pending", ended(128))), (vec![], false), "it is started again");
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
        // Case B36: an image without a shell, with strategy AgentInitContainer.
        for no_shell in ["RunContainerError", "CrashLoopBackOff"] {
            assert!(lacks_merge_ca(&waiting(no_shell), Some("r"), at("10:01:00")), "{no_shell}");
        }
        assert!(!lacks_merge_ca(&waiting("PodInitializing"), Some("r"), at("10:05:00")));
        let agents = agent(json!({"waiting": {"reason": "ErrImagePull"}}), 0);
        assert!(
            !lacks_merge_ca(&[pod("r", agents)], Some("r"), at("10:05:00")),
            "the agent's own image is its own matter"
        );
    }
}
