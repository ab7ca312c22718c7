use super::*;
use crate::api::Reason;
use crate::core::wiring::parts::FallbackReason;
use crate::core::workloads::tests::injection_state;
use crate::core::workloads::{MergeCaState, RolloutFailure, RolloutProgress};

const PACE: RolloutStrategy = RolloutStrategy { policy: RolloutPolicy::Automatic, max_concurrent: 5 };

fn second(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second).unwrap()
}

fn well() -> RolloutProgress {
    let available_since = Some(second(0));
    RolloutProgress {
        complete: true,
        available_since,
        failure: None,
        wanted: 1,
        available: 1,
        on_delete: false,
        deadline: 600,
    }
}

fn wanting(name: &str, touch: Option<&str>) -> Assessment {
    let wanting = InjectionState::OutOfDate { hash: "abc".into(), patch: Vec::new() };
    Assessment { rollout: well(), touch: touch.map(str::to_owned), ..injection_state(name, wanting) }
}

/// Touched at 1000, and its pods are being replaced.
fn rolling_one(name: &str) -> Assessment {
    let rollout = RolloutProgress { complete: false, available_since: None, available: 0, ..well() };
    Assessment { rollout, touch: Some("abc/0/1000".into()), ..injection_state(name, InjectionState::Current) }
}

fn stuck(name: &str, since: i64) -> Assessment {
    let failure = RolloutFailure { reason: "CrashLoopBackOff".into(), message: "x".into(), since: Some(second(since)) };
    let rolling = rolling_one(name);
    Assessment { rollout: RolloutProgress { failure: Some(failure), ..rolling.rollout.clone() }, ..rolling }
}

fn names(all: &[Assessment], now: i64) -> Vec<&str> {
    let free = PACE.max_concurrent - rolling(all, now);
    due(all, PACE, free, true, now).into_iter().map(|i| all[i].name.as_str()).collect()
}

#[test]
fn at_most_five_roll_at_a_time_and_a_place_is_free_when_one_has_been_well_for_a_while() {
    let mut all: Vec<_> = (0..9).map(|n| wanting(&format!("w{n}"), None)).collect();
    assert_eq!(names(&all, 1000), ["w0", "w1", "w2", "w3", "w4"]);
    all[0] = rolling_one("w0");
    all[1] = rolling_one("w1");
    assert_eq!(names(&all, 1001), ["w2", "w3", "w4"]);
    all[0].rollout = RolloutProgress { available_since: Some(second(1020)), ..well() };
    assert_eq!(names(&all, 1025), ["w2", "w3", "w4"], "many crash in their first moments");
    assert_eq!(names(&all, 1030), ["w2", "w3", "w4", "w5"]);
}

#[test]
fn workloads_without_pods_need_no_place() {
    let mut all: Vec<_> = (0..30).map(|n| wanting(&format!("w{n:02}"), None)).collect();
    all.iter_mut().skip(1).for_each(|w| w.rollout.wanted = 0);
    assert_eq!(due(&all, PACE, 0, true, 0).len(), 20, "only a pass has to end");
    assert!(!names(&all, 0).is_empty());
    assert!(due(&all, PACE, 0, true, 0).iter().all(|i| all[*i].name != "w00"), "this one has pods");
}

#[test]
fn one_that_is_not_well_goes_last_and_its_touch_says_so() {
    let mut broken = wanting("a-broken", None);
    broken.rollout.available = 0;
    assert_eq!(next_touch(&broken, PACE, 1000).unwrap(), "abc/0/1000/unavailable");
    assert_eq!(names(&[broken, wanting("b", None)], 1000), ["b", "a-broken"]);
    let still = Assessment { touch: Some("abc/0/1000/unavailable".into()), ..stuck("a-broken", 1001) };
    assert!(halt(&[still], 1010).is_none(), "nobody waits for what was broken before");
}

#[test]
fn one_that_does_not_come_back_halts_the_rest_until_it_does() {
    let mut all = vec![stuck("b", 1005), stuck("a", 1005), wanting("c", None)];
    assert_eq!(halt(&all, 1010).unwrap().name, "a");
    assert!(names(&all, 1010).is_empty());
    assert_eq!(halt(&all, 900_000).unwrap().name, "a", "it is not forgotten");
    all[0] = wanting("b", Some("old/0/1000"));
    all[1] = wanting("a", Some("old/0/1000"));
    assert_eq!(names(&all, 1010), ["a", "b", "c"], "something else is wanted of them now");
}

#[test]
fn what_breaks_long_after_our_touch_is_somebody_elses_change() {
    assert!(is_stuck(&stuck("a", 1000 + 1200), 9000));
    assert!(!is_stuck(&stuck("a", 1000 + 1201), 9000));
    let never_touched = Assessment { touch: None, ..stuck("a", 1005) };
    assert!(!is_stuck(&never_touched, 1010));
}

#[test]
fn a_workload_that_never_gets_well_holds_its_place_for_its_deadline() {
    let all = [rolling_one("a")];
    assert_eq!(rolling(&all, 1599), 1);
    assert_eq!(rolling(&all, 1600), 0);
}

#[test]
fn a_missing_merge_ca_stops_all_but_the_one_that_does_without() {
    let failed = MergeCaState { fallback: Some(FallbackReason::NotStarted), ..MergeCaState::default() };
    let without = Assessment { merge_ca: failed, ..wanting("b", None) };
    assert_eq!(names(&[wanting("a", None), without.clone()], 1000), ["b"]);
    let done = Assessment { injection_state: InjectionState::Current, ..without };
    assert!(names(&[wanting("a", None), done], 1000).is_empty());
}

#[test]
fn a_paused_deployment_and_a_manual_policy_wait() {
    let paused = Assessment { paused: true, ..wanting("w", None) };
    assert_eq!(next_touch(&paused, PACE, 0), Err(TouchBlocker::Paused));
    let manual = RolloutStrategy { policy: RolloutPolicy::Manual, ..PACE };
    assert_eq!(next_touch(&wanting("w", None), manual, 0), Err(TouchBlocker::Manual));
}

#[test]
fn three_repairs_within_ten_minutes_and_then_it_is_contested() {
    let next = |touch: Option<&str>, now| next_touch(&wanting("w", touch), PACE, now);
    assert_eq!(next(None, 1000).unwrap(), "abc/0/1000", "the first wiring is no repair");
    assert_eq!(next(Some("abc/0/1000"), 1002).unwrap(), "abc/1/1000");
    assert_eq!(next(Some("abc/2/1000"), 1002).unwrap(), "abc/3/1000");
    assert_eq!(next(Some("abc/3/1000"), 1599), Err(TouchBlocker::Contested));
    assert_eq!(next(Some("abc/3/1000"), 1600).unwrap(), "abc/0/1600", "it held for a while");
    assert_eq!(next(Some("old/3/1000"), 1001).unwrap(), "abc/0/1001", "something else is wanted");
    assert_eq!(next(Some("what the user wrote"), 5).unwrap(), "abc/0/5");
    let stripped = Assessment { was_wired: true, ..wanting("w", None) };
    assert_eq!(next_touch(&stripped, PACE, 1000).unwrap(), "abc/1/1000", "the webhook wired it");
    let record = Record { tracing: "tracing".into(), hash: "old".into(), version: 1, ..Record::default() };
    let as_created = Assessment { record: serde_json::to_string(&record).ok(), ..stripped };
    assert_eq!(next_touch(&as_created, PACE, 1000).unwrap(), "abc/0/1000", "a changed spec takes no repair from it");
}

#[test]
fn what_is_contested_stays_so_until_the_spec_changes() {
    let tracing = |generation: i64| -> AgentTracing {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
            "metadata": {"name": "tracing", "generation": generation}, "spec": {"mlflow": {"mode": "Standalone"}},
            "status": {"observedGeneration": 4, "workloads": [
                {"kind": "Deployment", "name": "w", "state": "Contested", "reason": Reason::Contested.as_str()},
            ]},
        }))
        .unwrap()
    };
    let recalled = |touch: Option<&str>, generation| {
        let mut all = [wanting("w", touch)];
        recall(&mut all, &tracing(generation));
        next_touch(&all[0], PACE, 900_000)
    };
    assert_eq!(recalled(Some("abc/3/1000"), 4), Err(TouchBlocker::Contested));
    assert_eq!(recalled(None, 4), Err(TouchBlocker::Contested), "they strip the touch as well");
    assert!(recalled(Some("old/3/1000"), 4).is_ok());
    assert!(recalled(Some("abc/3/1000"), 5).is_ok());
}

#[test]
fn a_stateful_set_that_never_gets_ready_is_overdue_after_its_deadline() {
    let of = |kind, settled, now, before| {
        let mut assessment = Assessment { kind, before, ..rolling_one("w") };
        note_overdue(&mut assessment, settled, now);
        assessment.rollout.failure.is_some()
    };
    assert!(!of(Kind::StatefulSet, false, 1599, None));
    assert!(of(Kind::StatefulSet, false, 1600, None));
    assert!(!of(Kind::StatefulSet, true, 1600, None), "it was well in between");
    assert!(!of(Kind::Deployment, false, 1600, None), "it tells by itself");
    assert!(!of(Kind::DaemonSet, false, 2200, None), "nobody knows any more what happened then");
    assert!(of(Kind::DaemonSet, false, 2200, Some(WorkloadState::Halted)), "but for the status");
}

#[test]
fn on_delete_needs_no_place_and_halts_nobody() {
    let mut waits = wanting("w", None);
    waits.rollout.on_delete = true;
    assert_eq!(due(&[waits], PACE, 0, true, 0).len(), 1);
    let mut stuck = stuck("w", 1005);
    stuck.rollout.on_delete = true;
    assert!(!is_stuck(&stuck, 1010));
}

#[test]
fn a_touch_that_nobody_answered_is_no_repair_that_was_undone() {
    let unanswered = |touch: &str| Assessment { unanswered: true, ..wanting("w", Some(touch)) };
    assert_eq!(next_touch(&unanswered("abc/0/1000"), PACE, 1002).unwrap(), "abc/0/1002");
    assert_eq!(next_touch(&unanswered("abc/3/1000"), PACE, 1002).unwrap(), "abc/3/1002");
}

/// An autoscaler needs a moment for a new node: told at once, it halts nobody before a minute.
#[test]
fn what_no_node_takes_halts_the_others_after_a_minute() {
    let unscheduled = |reason: &str| {
        let failure = Some(RolloutFailure { reason: reason.into(), message: String::new(), since: Some(second(1005)) });
        let mut assessment = stuck("w", 1005);
        assessment.rollout.failure = failure;
        assessment
    };
    assert!(!is_stuck(&unscheduled("Unschedulable"), 1064));
    assert!(is_stuck(&unscheduled("Unschedulable"), 1065));
    assert!(is_stuck(&unscheduled("ImagePullBackOff"), 1010));
}

/// review A10: the list in status holds a hundred.
#[test]
fn somebody_who_had_their_way_keeps_it_where_the_list_is_full() {
    let rows: Vec<_> = (0..100)
        .map(|n| serde_json::json!({"kind": "Deployment", "name": format!("x-{n}"), "state": "Contested"}))
        .collect();
    let tracing: AgentTracing = serde_json::from_value(serde_json::json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "generation": 4}, "spec": {"mlflow": {"mode": "Standalone"}},
        "status": {"observedGeneration": 4, "workloads": rows},
    }))
    .unwrap();
    let recalled = |touch: &str| {
        let mut all = [wanting("unlisted", Some(touch))];
        recall(&mut all, &tracing);
        next_touch(&all[0], PACE, 900_000)
    };
    assert_eq!(recalled("abc/3/1000"), Err(TouchBlocker::Contested));
    assert!(recalled("abc/2/1000").is_ok());
}

#[test]
fn only_a_wiring_that_was_there_before_is_repaired() {
    let record = |hash: &str| {
        let record = Record { tracing: "tracing".into(), hash: hash.into(), version: 1, ..Record::default() };
        Some(serde_json::to_string(&record).unwrap())
    };
    let assessment =
        |was_wired, record: Option<String>, touch| Assessment { was_wired, record, ..wanting("teller", touch) };
    for (what, repair, assessment) in [
        ("never wired", false, assessment(false, None, None)),
        ("its template stripped, never touched", true, assessment(true, None, None)),
        ("its template stripped", true, assessment(true, None, Some("abc/1/1000"))),
        ("its template stripped, and the spec changed since", false, assessment(true, None, Some("old/1/1000"))),
        ("an entry stripped", true, assessment(true, record("abc"), Some("older/1/1000"))),
        ("the spec changed", false, assessment(true, record("old"), Some("abc/1/1000"))),
    ] {
        assert_eq!(is_repair(&assessment), repair, "{what}");
    }
}

/// Review B8 and B2: the touch is metadata that users may write.
#[test]
fn a_touch_that_a_user_wrote_holds_no_place_and_overflows_nothing() {
    for start in ["4102444800", "9223372036854775807", "-9223372036854775808"] {
        for repairs in [0, u32::MAX] {
            let touch = format!("abc/{repairs}/{start}");
            let forged = |assessment: Assessment| Assessment { touch: Some(touch.clone()), ..assessment };
            let mut all = [forged(rolling_one("a")), forged(stuck("b", 1000)), forged(wanting("c", None))];
            assert_eq!(rolling(&all, 1000), 0, "{touch}");
            assert!(halt(&all, 1000).is_none(), "{touch}");
            for assessment in &mut all {
                note_overdue(assessment, false, 1000);
            }
            assert!(next_touch(&all[2], PACE, 1000).is_ok(), "{touch}: it is wired all the same");
        }
    }
}

/// Review B2: a deadline of a day kept a place of the cluster for a day.
#[test]
fn a_place_of_the_cluster_is_given_back_after_ten_minutes() {
    let mut slow = rolling_one("a");
    slow.rollout.deadline = 86_400;
    assert!(holds_place(&slow, 1599) && is_rolling(&slow, 1599));
    assert!(!holds_place(&slow, 1600) && is_rolling(&slow, 1600), "its own AgentTracing goes on waiting for it");
}

// Section 3, point 3: a spec that was changed while MLflow was down rolled all agents, and none of them ever sent again.
#[test]
fn while_mlflow_does_not_answer_no_pod_is_replaced() {
    let mut all: Vec<_> = ["a", "b", "c"].map(|name| wanting(name, None)).into();
    assert!(due(&all, PACE, 5, false, 1000).is_empty());
    assert_eq!(due(&all, PACE, 5, true, 1000).len(), 3);
    all[1].rollout.wanted = 0;
    assert_eq!(due(&all, PACE, 5, false, 1000), [1], "nothing starts of it");
    all[2].merge_ca = MergeCaState { fallback: Some(FallbackReason::NotStarted), ..MergeCaState::default() };
    assert!(
        due(&all, PACE, 5, false, 1000).is_empty(),
        "it runs without the init container, and has something to lose"
    );
    all[2].rollout.available = 0;
    assert_eq!(
        due(&all, PACE, 5, false, 1000),
        [2],
        "one whose pods do not run has nothing to lose, and halts the others"
    );
}
