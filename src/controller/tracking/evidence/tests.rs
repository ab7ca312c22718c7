use super::*;
use crate::core::selection::kind::Kind;
use crate::core::workloads::RolloutProgress;
use crate::core::workloads::tests::injection_state;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn replaced() -> Wired {
    Wired {
        seen: at(0),
        earlier: Earlier::Replaced,
        since: None,
        received: None,
        stopped_at: None,
        last_look: None,
        beside_earlier: false,
        experiment: None,
    }
}

fn look(second: i64) -> Look {
    let trace = Trace { time: at(second), has_spans: true, finished: true };
    Look::found(trace)
}

/// Asked only when its trace had come, it began after that trace, and the run was told to have left none.
#[test]
fn a_cron_job_that_was_wired_anew_begins_at_once() {
    let nightly = Assessment { kind: Kind::CronJob, ..injection_state("nightly", InjectionState::Current) };
    assert!(replaced().needs_start(&nightly, None, at(0)));
}

/// A StatefulSet with a partition keeps pods of the earlier wiring for good.
#[test]
fn traces_beside_pods_of_an_earlier_wiring_are_neither_evidence_nor_missing() {
    let ledger = injection_state("ledger", InjectionState::Current);
    let mut beside = Wired { beside_earlier: true, ..replaced() };
    assert_eq!(beside.assess(&ledger, Some(&look(5)), at(9)), Evidence::NotAsked);
    assert_eq!(beside.assess(&ledger, Some(&look(-5)), at(9)), Evidence::Nothing, "none came since");
    assert_eq!(replaced().assess(&ledger, Some(&look(5)), at(9)), Evidence::Nothing);
}

/// Operator and MLflow were restarted together, and MLflow came back empty.
#[test]
fn another_database_takes_what_the_status_said_of_traces() {
    let mut state = EvidenceState::default();
    let ledger = injection_state("ledger", InjectionState::Current);
    let wired = Wired { since: Some(at(0)), received: Some(at(5)), ..replaced() };
    state.wired.insert(WorkloadKey::of_wiring(&ledger), wired);
    state.forget_answers(at(9));
    let wired = state.wired.values_mut().next().unwrap();
    assert_eq!(wired.assess(&ledger, Some(&look(5)), at(9)), Evidence::Nothing);
    assert_eq!(wired.assess(&ledger, Some(&look(10)), at(12)), Evidence::Received(at(10)));
}

/// Namespaces with an autoscaler have many of them: their pods were once listed in every pass (review A13).
#[test]
fn pods_of_a_workload_without_replicas_are_asked_for_once_per_trace() {
    let scaled_down = injection_state("teller", InjectionState::Current);
    assert_eq!(scaled_down.rollout.wanted, 0);
    let trace = |second| Some(look(second).trace.unwrap());
    let mut wired = replaced();
    assert!(!wired.needs_start(&scaled_down, None, at(0)), "there is nothing to compare them with");
    assert!(wired.needs_start(&scaled_down, trace(-5), at(0)));
    wired.note_pods(&scaled_down, PodAges::default(), trace(-5), at(0));
    for later in [1, 60, 86_400] {
        assert!(!wired.needs_start(&scaled_down, trace(-5), at(later)), "after {later} s");
    }
    assert!(wired.needs_start(&scaled_down, trace(5), at(6)));
    let scaled_up = Assessment { rollout: RolloutProgress { wanted: 1, ..Default::default() }, ..scaled_down };
    assert!(wired.needs_start(&scaled_up, trace(-5), at(60)), "pods of the earlier wiring may be going");
}
