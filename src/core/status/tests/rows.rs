//! What is said of workloads, one by one and together.

use super::*;

#[test]
fn what_the_user_chose_is_listed_last_and_not_counted() {
    let scene = Scene::of([
        skipped("auditor", Reason::OptedOut, true),
        workload("teller", InjectionState::Current),
        workload("rag", InjectionState::Blocked(Missing::TrackingUri)),
        skipped("broken", Reason::RecordUnreadable, false),
    ]);
    let status = scene.status();
    assert_eq!(status.injected.as_deref(), Some("1/3"));
    let names: Vec<_> = status.workloads.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["broken", "rag", "teller", "auditor"]);
    assert_eq!(scene.condition(ConditionType::WorkloadsReady).reason, "Skipped");
}

#[test]
fn the_list_is_bounded_and_keeps_the_worst() {
    let mut all: Vec<_> = (0..150).map(|n| workload(&format!("agent-{n:03}"), InjectionState::Current)).collect();
    all.push(workload("zebra", InjectionState::Blocked(Missing::TrackingUri)));
    let (status, states) = Scene::of(all).status_and_states(None, NOW);
    assert_eq!(status.injected.as_deref(), Some("150/151"));
    assert_eq!(status.workloads.len(), 100);
    assert_eq!(status.workloads[0].name, "zebra");
    let counted = States::from([(WorkloadState::Injected, 150), (WorkloadState::Pending, 1)]);
    assert_eq!(states, counted, "all of them are counted");
    let told: Vec<_> = status.workload_states.iter().map(|of| (of.state, of.count)).collect();
    assert_eq!(told, [(WorkloadState::Pending, 1), (WorkloadState::Injected, 150)], "the worst first");
}

#[test]
fn workloads_that_all_belong_to_an_older_agent_tracing_are_a_conflict() {
    let scene = Scene::of([workload("teller", InjectionState::OwnedByOther)]);
    assert_eq!(scene.ready(), is("False", "Conflict"));
    // Section 3, point 8: it does not also say that nothing matches.
    assert_eq!(scene.condition(ConditionType::InjectionReady).reason, "Enabled");
    let one = Scene::of([workload("teller", InjectionState::OwnedByOther), workload("rag", InjectionState::Current)]);
    assert_eq!(one.ready(), is("True", "WaitingForTraces"));
}

#[test]
fn a_workload_of_an_older_agent_tracing_has_a_row_and_does_not_say_that_nothing_matches() {
    let scene = Scene::of([workload("teller", InjectionState::OwnedByOther)]);
    let (status, states) = scene.status_and_states(None, NOW);
    assert_eq!(
        (status.workloads[0].state, status.workloads[0].reason.as_deref()),
        (WorkloadState::Skipped, Some("Conflict"))
    );
    assert_eq!(status.injected.as_deref(), Some("0/0"));
    assert!(states.is_empty(), "{states:?}");
    assert_eq!(condition(&status, ConditionType::InjectionReady).reason, "Enabled");
}

/// review A9
#[test]
fn ready_does_not_fall_because_nothing_runs_at_the_moment() {
    let runs = Scene::of([workload("report", InjectionState::Current)]).status();
    let nothing = Scene::of([]).status_after(Some(runs.clone()), NOW);
    assert_eq!(condition(&nothing, ConditionType::InjectionReady).reason, "Enabled");
    assert_eq!(condition(&nothing, ConditionType::Ready).status, "True");
    let changed = AgentTracingStatus { observed_generation: Some(3), ..runs };
    let after = Scene::of([]).status_after(Some(changed), NOW);
    assert_eq!(condition(&after, ConditionType::InjectionReady).reason, "NothingMatches", "another spec");
    assert_eq!(Scene::of([]).condition(ConditionType::InjectionReady).reason, "NothingMatches", "there never was any");
}

/// review A9
#[test]
fn a_job_that_ended_without_a_trace_is_told_and_not_counted() {
    let ended = |kind, at_time: &str| Assessment {
        kind,
        ended: Some(at(at_time)),
        created: Some(at("2026-11-21T10:00:00Z")),
        rollout: RolloutProgress { complete: true, ..RolloutProgress::default() },
        ..workload("report", InjectionState::Current)
    };
    for (kind, injected) in [(Kind::Job, "0/0"), (Kind::CronJob, "1/1")] {
        let silent = Scene::of([ended(kind, "2026-11-21T10:28:00Z")]).evidence("report", Evidence::Nothing);
        let status = silent.status();
        assert_eq!(status.injected.as_deref(), Some(injected));
        let traces = condition(&status, ConditionType::TracesFlowing);
        assert_eq!(traces.reason, "NoTracesFrom", "{}", traces.message);
        assert!(status.workloads[0].notes[0].starts_with("NoTraces: "), "{:?}", status.workloads[0].notes);
        assert_eq!(condition(&status, ConditionType::Ready).status, "True");
        let early = Scene::of([ended(kind, "2026-11-21T10:28:01Z")]).evidence("report", Evidence::Nothing);
        assert_eq!(early.status().workloads[0].notes, Vec::<String>::new(), "its last traces may be on their way");
        let before = Scene::of([ended(kind, "2026-11-21T09:00:00Z")]).evidence("report", Evidence::Nothing);
        assert_eq!(before.status().workloads[0].notes, Vec::<String>::new(), "it ran before it was wired");
    }
}

#[test]
fn pods_are_listed_by_their_owner_and_no_name_is_listed_twice() {
    let pod = |kind: &str| Assessment {
        kind: Kind::Pod,
        pod: Some(ListedPod { kind: kind.into(), name: "teller-1".into() }),
        ..workload("teller", InjectionState::Current)
    };
    let rows = Scene::of([pod("Rollout"), pod("Sandbox"), pod("Sandbox"), workload("teller", InjectionState::Current)]);
    let listed: Vec<_> = rows.status().workloads.into_iter().map(|row| row.kind).collect();
    assert_eq!(listed, ["Deployment", "Rollout", "Sandbox"]);
}

/// Condition messages and rows are cut where the schema would refuse the whole status.
#[test]
fn nothing_that_a_workload_says_makes_its_status_too_long() {
    let failure = RolloutFailure { reason: "R".repeat(200), message: "m".repeat(9000), since: Some(at(NOW)) };
    let stuck = Assessment {
        touch: Some(format!("abc/0/{}", at(NOW).as_second())),
        pods: "k".repeat(5000),
        notes: vec!["n".repeat(900); 40],
        experiment: TraceDestination::Name("e".repeat(900)),
        rollout: RolloutProgress { failure: Some(failure), wanted: 1, deadline: 600, ..RolloutProgress::default() },
        ..workload("teller", InjectionState::Current)
    };
    let status = Scene::of([stuck]).status();
    let row = &status.workloads[0];
    assert_eq!(row.state, WorkloadState::Halted);
    let message = row.message.as_deref().unwrap();
    assert!(message.chars().count() <= 2048 && message.ends_with("kubectl describe pods -n bank-agents"), "{message}");
    assert_eq!(row.reason.as_deref().unwrap().chars().count(), 64);
    assert_eq!(row.experiment.as_deref().unwrap().chars().count(), 512);
    assert!(row.notes.len() == 16 && row.notes.iter().all(|note| note.chars().count() <= 256));
    assert!(status.conditions.iter().all(|c| c.message.chars().count() <= 2048));
}
