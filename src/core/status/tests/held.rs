//! What is said of traces that wait in the relay.

use super::*;
use crate::core::relay::cause::Cause;
use crate::core::relay::report::Held;
use crate::core::status::messages::{relay_refused, spool_full, traces_held};

fn held(cause: Cause) -> Held {
    let senders = [("deployment/teller", 50), ("cronjob/nightly", 5), ("job/import", 1)];
    Held {
        cause,
        since: at("2026-11-21T10:20:00Z"),
        requests: 50,
        senders: senders.map(|(name, count)| (name.to_owned(), count)).to_vec(),
        others: 2,
    }
}

fn tracing_ref(mode: MlflowMode, restores_deleted: bool) -> TracingRef<'static> {
    TracingRef { namespace: "bank-agents", name: "tracing", mode, pins: false, restores_deleted }
}

#[test]
fn each_cause_says_since_when_how_many_of_whom_why_and_what_to_type() {
    use MlflowMode::{Cr, External, Standalone};
    let describe = "kubectl describe agenttracing -n bank-agents tracing";
    let edit = "kubectl edit agenttracing -n bank-agents tracing";
    let binding = "kubectl get rolebinding -n bank-agents agenttracing-mlflow -o yaml";
    let account = "kubectl get serviceaccount -n bank-agents tracing-relay -o yaml";
    let restore = r#"restore it with: kubectl patch agenttracing -n bank-agents tracing --type merge -p '{"spec":{"experiment":{"restoreDeleted":true}}}'"#;
    let log = "kubectl logs -n bank-agents statefulset/tracing-relay";
    for (cause, mode, command) in [
        (Cause::Forbidden, Cr, binding),
        (Cause::Unauthorized, Cr, binding),
        (Cause::Forbidden, External, account),
        (Cause::Unauthorized, Standalone, "kubectl logs -n bank-agents deployment/tracing-mlflow"),
        (Cause::ExperimentMissing, Cr, restore),
        (Cause::NoAddress, Cr, describe),
        (Cause::Unreachable, Cr, describe),
        (Cause::Timeout, Cr, describe),
        (Cause::Busy, Cr, describe),
        (Cause::TlsUntrusted, External, edit),
        (Cause::WorkspaceMissing, Cr, describe),
        (Cause::StorageFull, Standalone, edit),
        (Cause::StorageFull, Cr, describe),
        (Cause::WrongPath, External, edit),
        (Cause::LoginPage, External, edit),
        (Cause::LoginPage, Cr, describe),
        (Cause::Failed, Cr, log),
    ] {
        let message = traces_held(&tracing_ref(mode, false), &held(cause));
        let began = "Traces wait in the relay since 2026-11-21T10:20:00Z, at least 50 requests of deployment/teller (50), \
                     cronjob/nightly (5), job/import (1) and 2 more workloads: ";
        assert!(message.starts_with(began) && message.ends_with(command), "{cause:?}: {message}");
        assert!(message.contains(&format!("({})", cause.as_str())), "{message}");
    }
    let kept = traces_held(&tracing_ref(Cr, true), &held(Cause::ExperimentMissing));
    assert!(kept.ends_with(edit), "it is restored already: {kept}");
}

#[test]
fn every_cause_that_there_is_ends_with_a_command() {
    for (cause, mode) in Cause::ALL.into_iter().flat_map(|cause| MODES.map(|mode| (cause, mode))) {
        let tracing_ref = tracing_ref(mode, false);
        let held = held(cause);
        let full = spool_full(&tracing_ref, 85, Some(&held));
        for message in [traces_held(&tracing_ref, &held), full, relay_refused(&tracing_ref, cause)] {
            let (_, command) = message.rsplit_once(": ").unwrap();
            assert!(command.starts_with("kubectl ") || command.ends_with("}'"), "{message}");
        }
    }
    let calm = spool_full(&tracing_ref(MlflowMode::Cr, false), 85, None);
    assert!(
        calm.contains("85 % full") && calm.ends_with("kubectl describe agenttracing -n bank-agents tracing"),
        "{calm}"
    );
}

const MODES: [MlflowMode; 3] = [MlflowMode::Standalone, MlflowMode::Cr, MlflowMode::External];

#[test]
fn what_waits_lowers_ready_and_stands_on_the_row_with_the_last_trace_that_arrived() {
    let last = at("2026-11-21T10:19:00Z");
    let waits = Evidence::Held { cause: Cause::ExperimentMissing, last: Some(last) };
    let scene = Scene::of([workload("teller", InjectionState::Current), workload("rag", InjectionState::Current)])
        .evidence("teller", waits)
        .evidence("rag", Evidence::Received(at(NOW)));
    let report = RelayReport { held: Some(held(Cause::ExperimentMissing)), ..RelayReport::default() };
    let scene = Scene { report: Some(report), ..scene };
    assert_eq!(scene.ready(), is("False", "TracesHeld"));
    let row = scene.status().workloads.into_iter().find(|row| row.name == "teller").unwrap();
    assert_eq!(row.last_trace_time.as_deref(), Some("2026-11-21T10:19:00Z"));
    assert_eq!(row.notes, ["TracesHeld: its traces wait in the relay (ExperimentMissing)"]);
}

#[test]
fn a_relay_that_answers_and_holds_nothing_changes_nothing() {
    let scene =
        Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::Received(at(NOW)));
    let scene = Scene { report: Some(RelayReport::default()), ..scene };
    assert_eq!(scene.ready(), is("True", "TracesReceived"));
}
