//! Condition `RelayReady`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::condition::{ChildObstacle, ConditionUpdate};
use super::server_pods::{RunServer, What};
use super::{TracingRef, messages};
use crate::api::Reason;
use crate::core::kubectl::Kubectl;
use crate::core::relay::report::RelayReport;
use crate::core::settings::Settings;
use crate::core::workloads::{Assessment, InjectionState};
use crate::names;

/// What was observed of the relay.
#[derive(Clone, Copy, Debug)]
pub struct RelayObservation<'a> {
    /// Obstacles met while its objects were applied, the worst first.
    pub obstacles: &'a [ChildObstacle],
    /// Its pods that are ready, and how many there should be.
    pub ready: i64,
    /// See `ready`.
    pub wanted: i64,
    /// Its pods, read only while none is ready.
    pub pods: &'a [Pod],
    /// Whether MLflow has answered once: before, no relay knows where traces go.
    pub mlflow_answered: bool,
    /// What its answers say, where it answers.
    pub report: Option<&'a RelayReport>,
}

/// The condition `RelayReady` of a relay that is wanted.
pub fn relay_ready(settings: &Settings, relay: &RelayObservation<'_>, now: Timestamp) -> ConditionUpdate {
    let RelayObservation { obstacles, ready, wanted, pods, mlflow_answered, report } = *relay;
    let Settings { namespace, name: tracing, .. } = settings;
    let object = names::relay_object(tracing);
    if let Some(ChildObstacle { reason, message }) = obstacles.first() {
        return ConditionUpdate::bad(*reason, message.clone());
    }
    if let Some(trouble) = report.filter(|_| ready > 0).and_then(|report| trouble(settings, report)) {
        return trouble;
    }
    if ready > 0 {
        let own = names::RELAY_OWN_PORT.to_string();
        let forward = Kubectl::new("port-forward").namespace(namespace).arg(&format!("service/{object}")).arg(&own);
        let message = format!(
            "The relay takes traces ({ready} of {wanted} pods ready); see what it knows of them at http://localhost:{own}/evidence \
             with: {forward}"
        );
        return ConditionUpdate::good(Reason::Available, message);
    }
    if !mlflow_answered && pods.iter().any(runs) {
        let message = format!(
            "The relay waits until MLflow has answered once; condition MLflowReady says why it has not: {}",
            Kubectl::new("describe agenttracing").namespace(namespace).arg(tracing)
        );
        return ConditionUpdate::bad(Reason::Progressing, message);
    }
    let server = RunServer { what: What::Relay, namespace, tracing };
    pods.iter().find_map(|pod| server.failure(pod, now)).unwrap_or_else(|| {
        // What keeps its pods from being created stands in its events alone.
        let look = Kubectl::new("describe statefulset").namespace(namespace).arg(&object);
        ConditionUpdate::bad(Reason::Progressing, format!("The relay is starting; see how far it is: {look}"))
    })
}

/// What is wrong with a relay that takes traces: soon it has no room for them, or MLflow lets it write none.
fn trouble(settings: &Settings, report: &RelayReport) -> Option<ConditionUpdate> {
    let tracing_ref = TracingRef {
        namespace: &settings.namespace,
        name: &settings.name,
        mode: settings.server.mode(),
        pins: settings.experiment.pin,
        restores_deleted: settings.experiment.restore_deleted,
    };
    if let Some(percent) = report.spool_percent {
        let message = messages::spool_full(&tracing_ref, percent, report.held.as_ref());
        return Some(ConditionUpdate::bad(Reason::SpoolFull, message));
    }
    let cause = report.refused?;
    Some(ConditionUpdate::bad(Reason::RelayRefused, messages::relay_refused(&tracing_ref, cause)))
}

/// Whether a relay of this condition takes traces, wherever they go from there.
pub(super) fn takes_traces(relay: &ConditionUpdate) -> bool {
    relay.good == Some(true) || matches!(relay.reason, Reason::SpoolFull | Reason::RelayRefused)
}

/// The condition of a relay that nothing is to use any more, while workloads that were wired to it still do.
pub fn relay_stays(settings: &Settings) -> ConditionUpdate {
    let Settings { namespace, name, .. } = settings;
    let message = format!(
        "Nothing is to use the relay any more; it goes when no workload is left with the wiring that leads to it: {}",
        Kubectl::new("get agenttracing").namespace(namespace).arg(name).jsonpath(".status.workloads")
    );
    ConditionUpdate::good(Reason::Available, message)
}

/// Whether pods may still send to a relay that the spec does not want any more.
pub fn may_be_in_use(workloads: &[Assessment]) -> bool {
    workloads.iter().any(|workload| {
        let is_up_to_date = workload.injection_state == InjectionState::Current && workload.rollout.complete;
        workload.wired && !workload.is_finished() && !is_up_to_date
    })
}

/// Whether its container runs, ready or not.
fn runs(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.into_iter().any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::settings::parse;

    fn reported(ready: i64, pods: Value, mlflow_answered: bool, report: Option<&RelayReport>) -> ConditionUpdate {
        let tracing = "{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {name: tracing, namespace: bank}, \
                       spec: {mlflow: {mode: CR}, otlp: {mode: Relay}}}";
        let settings = parse(&serde_yaml::from_str(tracing).unwrap()).unwrap();
        let pods: Vec<Pod> = serde_json::from_value(pods).unwrap();
        let relay = RelayObservation { obstacles: &[], ready, wanted: 2, pods: &pods, mlflow_answered, report };
        relay_ready(&settings, &relay, "2026-11-29T10:10:00Z".parse().unwrap())
    }

    fn condition(ready: i64, pods: Value, mlflow_answered: bool) -> ConditionUpdate {
        reported(ready, pods, mlflow_answered, None)
    }

    fn pod(state: Value) -> Value {
        let container = json!({
            "name": "relay", "image": "operator:1", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        });
        json!([{"metadata": {"name": "tracing-relay-0"}, "status": {"containerStatuses": [container]}}])
    }

    #[test]
    fn each_state_says_what_to_type_next() {
        let running = || pod(json!({"running": {"startedAt": "2026-11-29T10:00:00Z"}}));
        let no_image = || pod(json!({"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}}));
        for (update, reason, part, command) in [
            (
                condition(1, json!([]), true),
                Reason::Available,
                "1 of 2 pods",
                "kubectl port-forward -n bank service/tracing-relay 8080",
            ),
            (
                condition(0, json!([]), true),
                Reason::Progressing,
                "is starting",
                "kubectl describe statefulset -n bank tracing-relay",
            ),
            (
                condition(0, running(), false),
                Reason::Progressing,
                "until MLflow has answered",
                "kubectl describe agenttracing -n bank tracing",
            ),
            (
                condition(0, running(), true),
                Reason::PodsNotReady,
                "Container relay of the relay runs since",
                "kubectl logs -n bank tracing-relay-0 -c relay",
            ),
            (
                condition(0, no_image(), false),
                Reason::PodsNotReady,
                "operator:1 cannot be pulled (ErrImageNeverPull: not present); it is the operator's own",
                "-o yaml",
            ),
        ] {
            assert_eq!(update.reason, reason, "{}", update.message);
            assert!(update.message.contains(part) && update.message.ends_with(command), "{}", update.message);
        }
    }

    #[test]
    fn a_full_spool_and_a_refusal_of_the_relay_itself_are_told_while_it_takes_traces() {
        use crate::core::relay::cause::Cause;
        let calm = RelayReport::default();
        let refused = RelayReport { refused: Some(Cause::Forbidden), ..calm.clone() };
        let full = RelayReport { spool_percent: Some(85), ..refused.clone() };
        let of = |report: &RelayReport| reported(1, json!([]), true, Some(report));
        assert_eq!(of(&calm).reason, Reason::Available);
        for (report, reason, part, command) in [
            (&refused, Reason::RelayRefused, "does not let the relay write (Forbidden)", "agenttracing-mlflow -o yaml"),
            (&full, Reason::SpoolFull, "85 % full", "kubectl describe agenttracing -n bank tracing"),
        ] {
            let update = of(report);
            assert_eq!((update.good, update.reason), (Some(false), reason));
            assert!(update.message.contains(part) && update.message.ends_with(command), "{}", update.message);
            assert!(takes_traces(&update), "nobody has to wait with the wiring");
        }
        assert!(!takes_traces(&reported(0, json!([]), true, Some(&full))), "none of its pods is ready");
    }

    #[test]
    fn a_relay_stays_until_the_last_workload_has_its_new_wiring() {
        use crate::core::workloads::tests::injection_state;
        let wired = |state: InjectionState, complete: bool| {
            let mut workload = injection_state("teller", state);
            (workload.wired, workload.rollout.complete) = (true, complete);
            workload
        };
        let outdated = || InjectionState::OutOfDate { hash: "h".into(), patch: Vec::new() };
        assert!(may_be_in_use(&[wired(outdated(), true)]));
        assert!(may_be_in_use(&[wired(InjectionState::Current, false)]), "its old pods are still there");
        assert!(!may_be_in_use(&[wired(InjectionState::Current, true)]));
        assert!(!may_be_in_use(&[injection_state("new", outdated())]), "it never was wired");
    }
}
