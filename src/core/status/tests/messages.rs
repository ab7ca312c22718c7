//! Every sentence about a workload: what is said of it, and of all together, in each case that there is. Users and their scripts
//! know these sentences, so that a change of one has to be meant.

use std::fmt::Write;

use super::*;
use crate::api::RolloutPolicy;
use crate::core::wiring::parts::FallbackReason;

type Change = (&'static str, fn(&mut Assessment));

type State = (&'static str, fn() -> InjectionState);

const STATES: [State; 17] = [
    ("current", || InjectionState::Current),
    ("out of date", || InjectionState::OutOfDate { hash: "h".into(), patch: Vec::new() }),
    ("no address", || InjectionState::Blocked(Missing::TrackingUri)),
    ("no experiment", || InjectionState::Blocked(Missing::ExperimentId)),
    ("not bound", || InjectionState::Blocked(Missing::Binding)),
    ("no relay", || InjectionState::Blocked(Missing::Relay)),
    ("newer operator", || InjectionState::FutureVersion),
    ("to remove", || InjectionState::ToRemove(Vec::new())),
    ("of another", || InjectionState::OwnedByOther),
    ("opted out", || of(Reason::OptedOut, true)),
    ("own address", || of(Reason::OwnTrackingURI, true)),
    ("Windows", || of(Reason::Windows, true)),
    ("no containers", || of(Reason::NoContainers, false)),
    ("no token", || of(Reason::NoServiceAccountToken, false)),
    ("long annotations", || of(Reason::AnnotationsTooLong, false)),
    ("created unwired", || of(Reason::CreatedUnwired, false)),
    ("unreadable", || of(Reason::RecordUnreadable, false)),
];

fn of(reason: Reason, deliberate: bool) -> InjectionState {
    InjectionState::Skipped { reason, deliberate, leftover: Vec::new() }
}

const CHANGES: [Change; 17] = [
    ("as it is", |_| {}),
    ("wired", |j| j.wired = true),
    ("rolling", |j| j.rollout.complete = false),
    ("rolling and failing", |j| {
        j.rollout = RolloutProgress { complete: false, failure: failure(), ..j.rollout.clone() };
    }),
    ("stuck", |j| stick(j)),
    ("stuck, with a selector", |j| {
        stick(j);
        j.pods = "app=teller".into();
    }),
    ("of kind StatefulSet, on deletion", |j| {
        j.kind = Kind::StatefulSet;
        j.rollout = RolloutProgress { complete: false, on_delete: true, wanted: 2, ..j.rollout.clone() };
    }),
    ("on deletion, with a selector", |j| {
        j.rollout = RolloutProgress { complete: false, on_delete: true, wanted: 2, ..j.rollout.clone() };
        j.pods = "app=teller".into();
    }),
    ("paused", |j| j.paused = true),
    ("contested", |j| {
        j.before = Some(WorkloadState::Contested);
        j.last_manager = Some("argocd".into());
    }),
    ("with pods to lose", |j| j.rollout = RolloutProgress { wanted: 1, available: 1, ..j.rollout.clone() }),
    ("a CronJob with a Job that waits", |j| {
        j.kind = Kind::CronJob;
        j.merge_ca = MergeCaState { waiting: vec!["nightly-1".into()], ..MergeCaState::default() };
    }),
    ("a CronJob with Jobs that wait, doing without", |j| {
        j.kind = Kind::CronJob;
        let waiting = (1..8).map(|n| format!("nightly-{n}")).collect();
        j.merge_ca = MergeCaState { waiting, fallback: Some(FallbackReason::NotStarted), ..MergeCaState::default() };
    }),
    ("refused", |j| without(j, FallbackReason::Refused)),
    ("refused in the namespace, rolling on deletion", |j| {
        without(j, FallbackReason::RefusedInNamespace);
        j.rollout = RolloutProgress { complete: false, on_delete: true, ..j.rollout.clone() };
    }),
    ("with an image that cannot be pulled, rolling on deletion", |j| {
        without(j, FallbackReason::NotStarted);
        j.rollout = RolloutProgress { complete: false, on_delete: true, ..j.rollout.clone() };
        j.pods = "app=teller".into();
    }),
    ("a Job that waits", |j| {
        j.kind = Kind::Job;
        j.merge_ca = MergeCaState { waiting: vec![j.name.clone()], ..MergeCaState::default() };
    }),
];

fn failure() -> Option<RolloutFailure> {
    Some(RolloutFailure { reason: "CrashLoopBackOff".into(), message: "agent ends".into(), since: Some(at(NOW)) })
}

fn stick(assessment: &mut Assessment) {
    assessment.touch = Some(format!("h/0/{}", at(NOW).as_second()));
    assessment.rollout =
        RolloutProgress { complete: false, failure: failure(), wanted: 1, deadline: 600, ..assessment.rollout.clone() };
}

fn without(assessment: &mut Assessment, why: FallbackReason) {
    assessment.merge_ca = MergeCaState { fallback: Some(why), image: "operator:1".into(), ..MergeCaState::default() };
}

fn told(out: &mut String, title: &str, scene: &Scene) {
    let status = scene.status();
    let _ = writeln!(out, "## {title}");
    for row in &status.workloads {
        let reason = row.reason.as_deref().unwrap_or("-");
        let message = row.message.as_deref().unwrap_or("-");
        let _ = writeln!(out, "{} {}: {} {reason}: {message}", row.kind, row.name, row.state.as_str());
    }
    let ready = condition(&status, ConditionType::WorkloadsReady);
    let _ = writeln!(out, "{} {}: {}", ready.status, ready.reason, ready.message);
}

#[test]
fn every_sentence_about_workloads_is_as_it_was() {
    let mut out = String::new();
    for (title, state) in &STATES {
        for (change, apply) in CHANGES {
            let mut one = workload("teller", state());
            apply(&mut one);
            // One that a change does not concern says the same as without.
            let concerns = matches!(one.injection_state, InjectionState::Current | InjectionState::OutOfDate { .. });
            if concerns || ["as it is", "with pods to lose"].contains(&change) {
                let mut scene = Scene::of([one]);
                scene.answered = Some(MlflowStatus::default());
                told(&mut out, &format!("{title}, {change}"), &scene);
            }
        }
    }
    for kind in [Kind::Pod, Kind::CronJob] {
        for (title, state) in &STATES[9..] {
            let one = Assessment { kind, ..workload("teller", state()) };
            told(&mut out, &format!("{title}, {kind:?}"), &Scene::of([one]));
        }
    }
    for (title, state) in &STATES[..9] {
        for kind in [Kind::Deployment, Kind::CronJob] {
            let mut one = Assessment { kind, ..workload("teller", state()) };
            one.rollout = RolloutProgress { wanted: 1, available: 1, ..one.rollout };
            let mut scene = Scene::of([one]);
            scene.rollout_strategy.policy = RolloutPolicy::Manual;
            told(&mut out, &format!("{title}, {kind:?}, by its owner"), &scene);
        }
    }
    let waits = || workload("rag", InjectionState::OutOfDate { hash: "h".into(), patch: Vec::new() });
    told(&mut out, "MLflow is silent", &Scene::of([waits()]));
    for (change, apply) in CHANGES {
        let mut one = workload("teller", InjectionState::Current);
        apply(&mut one);
        let mut scene = Scene::of([one, waits(), workload("auditor", of(Reason::OptedOut, true))]);
        scene.answered = Some(MlflowStatus::default());
        told(&mut out, &format!("another waits beside one that is {change}"), &scene);
    }
    let all = STATES.iter().map(|(name, state)| workload(&name.replace(' ', "-"), state()));
    told(&mut out, "everything at once", &Scene::of(all));
    assert!(
        out == include_str!("messages.txt"),
        "a sentence changed; if it is meant, this is the new messages.txt:\n{out}"
    );
}
