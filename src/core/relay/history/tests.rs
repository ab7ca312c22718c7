use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn evidence(workloads: Value, held: Option<&str>) -> Evidence {
    let held = held.map(|cause| json!({"cause": cause, "since": at(0).to_string()}));
    let mut evidence = json!({"workloads": workloads, "spool": {"bytes": 0, "limit": 1000}});
    if let Some(held) = held {
        evidence["held"] = held;
    }
    serde_json::from_value(evidence).unwrap()
}

fn waits(count: u64, cause: Option<&str>) -> Value {
    json!({"accepted": count, "forwarded": 0, "held": count, "cause": cause})
}

/// The report after the same answer at these seconds.
fn after(evidence: &Evidence, seconds: &[i64]) -> RelayReport {
    let mut history = History::default();
    for second in seconds {
        history.note(evidence.clone(), at(*second));
    }
    history.report(true, at(*seconds.last().unwrap()))
}

#[test]
fn what_holds_up_everybody_is_told_after_ten_seconds_with_who_waits() {
    let workloads = json!({
        "deployment/teller": waits(57, None), "deployment/rag": waits(9, None), "job/import": waits(1, None),
        "cronjob/nightly": waits(3, None), "deployment/calm": waits(0, None),
    });
    let evidence = evidence(workloads, Some("Unreachable"));
    assert_eq!(after(&evidence, &[9]).held, None, "an MLflow that starts anew is no matter");
    let held = after(&evidence, &[10]).held.unwrap();
    assert_eq!((held.cause, held.since, held.requests, held.others), (Cause::Unreachable, at(0), 50, 1));
    let named: Vec<_> = held.senders.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(named, [("deployment/teller", 50), ("deployment/rag", 5), ("cronjob/nightly", 2)]);
    assert_eq!(after(&evidence, &[10]).senders["deployment/calm"].cause, None, "nothing of it waits");
}

#[test]
fn what_holds_up_one_workload_is_told_of_that_one() {
    let missing = evidence(
        json!({"deployment/teller": waits(7, Some("ExperimentMissing")), "deployment/rag": waits(2, None)}),
        None,
    );
    assert_eq!(after(&missing, &[0]).held, None);
    let report = after(&missing, &[0, 10]);
    let held = report.held.unwrap();
    assert_eq!((held.cause, held.since, held.requests), (Cause::ExperimentMissing, at(0), 5));
    assert_eq!(held.senders, [("deployment/teller".to_owned(), 5)]);
    assert_eq!(report.senders["deployment/rag"].cause, None);
}

/// After an outage each workload says what held it up last until one of its requests went through.
#[test]
fn what_is_being_sent_after_an_outage_is_not_told_as_held() {
    let draining = evidence(json!({"deployment/teller": waits(700, Some("Unreachable"))}), None);
    let report = after(&draining, &[0, 60]);
    assert_eq!(report.held, None);
    assert!(report.senders["deployment/teller"].holds);
}

#[test]
fn a_request_that_mlflow_refuses_stays_told_while_others_go_through() {
    let refused = evidence(json!({"deployment/teller": waits(1, Some("Failed"))}), None);
    let hidden = evidence(json!({"deployment/teller": waits(1, None)}), None);
    let gone = evidence(json!({"deployment/teller": waits(0, None)}), None);
    let mut history = History::default();
    history.note(refused, at(0));
    history.note(hidden.clone(), at(10));
    assert_eq!(history.report(true, at(10)).held.map(|held| held.cause), Some(Cause::Failed));
    history.note(hidden, at(400));
    assert_eq!(history.report(true, at(400)).held, None, "it was not refused again");
    history.note(gone, at(410));
    assert_eq!(history.report(true, at(410)).held, None);
}

/// Somebody deleted a trace, and feedback of it is tried for a day.
#[test]
fn feedback_that_waits_for_a_trace_is_no_trace_that_waits() {
    let feedback = evidence(json!({"deployment/teller": waits(1, Some("TraceMissing"))}), None);
    assert_eq!(after(&feedback, &[0, 60]).held, None);
}

#[test]
fn a_refusal_of_the_relay_itself_is_told_as_such() {
    for (cause, refused) in [
        ("Forbidden", Some(Cause::Forbidden)),
        ("Unauthorized", Some(Cause::Unauthorized)),
        ("Busy", None),
        ("FromTheFuture", None),
    ] {
        let report = after(&evidence(json!({"deployment/teller": waits(1, None)}), Some(cause)), &[10]);
        assert_eq!(report.refused, refused, "{cause}");
        assert!(report.held.is_some(), "{cause}");
    }
}

#[test]
fn the_spool_is_told_from_eighty_percent_on_in_steps() {
    let full = |bytes: u64| {
        let spool = SpoolEvidence { bytes, limit: 1000 };
        after(&Evidence { spool, ..Evidence::default() }, &[0]).spool_percent
    };
    assert_eq!(
        [0, 799, 800, 849, 850, 1000, 2000].map(full),
        [None, None, Some(80), Some(80), Some(85), Some(100), Some(100)]
    );
}

#[test]
fn a_relay_that_started_anew_takes_nothing_back() {
    let sent =
        json!({"deployment/teller": {"accepted": 1, "forwarded": 1, "held": 0, "lastForwarded": at(0).to_string()}});
    let mut history = History::default();
    history.note(evidence(sent, None), at(1));
    for empty in [json!({}), json!({"deployment/teller": waits(0, None)})] {
        history.note(evidence(empty, None), at(30));
        assert_eq!(history.report(true, at(30)).senders["deployment/teller"].last_forwarded, Some(at(0)));
    }
    history.note(evidence(json!({}), None), at(4000));
    assert!(history.report(true, at(4000)).senders.is_empty());
}

#[test]
fn only_names_of_workloads_are_taken() {
    let odd =
        json!({"deployment/teller": waits(1, None), "Deployment/teller": waits(1, None), "x; rm -rf": waits(9, None)});
    let report = after(&evidence(odd, Some("Timeout")), &[10]);
    assert_eq!(report.senders.keys().collect::<Vec<_>>(), ["deployment/teller"]);
    assert_eq!(report.held.unwrap().requests, 1);
}

#[test]
fn a_rhythm_is_seen_in_the_times_of_several_answers() {
    let mut history = History::default();
    let mut gap_after = |minute: i64| {
        let last = at(60 * minute).to_string();
        let sent = json!({"deployment/teller": {"accepted": 1, "forwarded": 1, "held": 0, "lastForwarded": last}});
        history.note(evidence(sent, None), at(60 * minute + 5));
        history.report(true, at(60 * minute + 5)).senders["deployment/teller"].usual_gap
    };
    let gaps: Vec<_> = (0..30).map(&mut gap_after).collect();
    assert_eq!(gaps[10], None);
    assert_eq!((gaps[11], gaps[29]), (Some(SignedDuration::from_mins(1)), Some(SignedDuration::from_mins(1))));
}

#[test]
fn counts_are_told_in_steps() {
    assert_eq!(
        [0, 1, 3, 5, 9, 10, 49, 120, 7000, u64::MAX].map(coarse),
        [0, 1, 2, 5, 5, 10, 20, 100, 5000, 10_000_000_000_000_000_000]
    );
}
