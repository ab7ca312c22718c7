use super::*;

const LANE: LaneId = 7;

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn key() -> Key {
    ("deployment/teller".to_owned(), "tr-1".to_owned())
}

fn goes(release: Option<Release<&'static str>>) -> Vec<&'static str> {
    release.map(|release| release.waiting).unwrap_or_default()
}

#[test]
fn in_its_own_order_nothing_of_a_trace_waits() {
    let mut traces = Traces::<&str>::default();
    assert_eq!(traces.spans(key(), LANE, false, at(0)), None);
    assert!(traces.has_spans(&key()) && !traces.has_root(&key()));
    assert_eq!(traces.spans(key(), LANE, true, at(1)), None);
    assert!(traces.start(&key(), LANE, true, at(2)));
    assert_eq!(traces.taken(&key()), None);
    assert!(traces.may_follow(&key(), at(3)));
    assert_eq!((traces.lane(&key()), traces.next_due()), (Some(LANE), None));
}

#[test]
fn a_row_waits_for_the_root_span_and_the_rest_for_the_row() {
    let mut traces = Traces::default();
    assert!(!traces.may_follow(&key(), at(0)), "it may be of a trace whose row comes right after");
    assert_eq!(goes(traces.wait(&key(), Rank::Rest, "tag", at(0))), [""; 0]);
    traces.spans(key(), LANE, false, at(1));
    assert!(!traces.start(&key(), LANE, true, at(2)));
    assert_eq!(goes(traces.wait(&key(), Rank::Start, "row", at(3))), [""; 0]);
    assert!(!traces.may_follow(&key(), at(4)));
    assert_eq!(goes(traces.wait(&key(), Rank::File, "file", at(4))), [""; 0]);
    assert_eq!(traces.next_due(), Some(at(2003)));
    let release = traces.spans(key(), LANE, true, at(5)).unwrap();
    assert_eq!((release.lane, release.waiting), (Some(LANE), vec!["row", "file", "tag"]));
    // Until they are in order, what comes is put behind them.
    assert!(!traces.may_follow(&key(), at(6)));
    assert_eq!(goes(traces.wait(&key(), Rank::Rest, "second tag", at(6))), [""; 0]);
    assert_eq!(goes(traces.taken(&key())), ["second tag"]);
    assert_eq!(traces.taken(&key()), None);
    assert!(traces.may_follow(&key(), at(7)));
}

#[test]
fn what_came_while_something_was_being_written_is_not_forgotten() {
    let mut traces = Traces::default();
    assert!(!traces.start(&key(), LANE, true, at(0)));
    traces.spans(key(), LANE, true, at(1));
    assert_eq!(
        goes(traces.wait(&key(), Rank::Start, "row", at(2))),
        ["row"],
        "the spans came before it was on the disk"
    );
    traces.taken(&key());
    let other = ("job/rag".to_owned(), "tr-1".to_owned());
    traces.spans(other.clone(), LANE, true, at(3));
    assert!(!traces.may_follow(&other, at(4)));
    assert!(traces.start(&other, LANE, true, at(5)));
    assert_eq!(traces.taken(&other), None);
    assert_eq!(
        goes(traces.wait(&other, Rank::Rest, "tag", at(6))),
        ["tag"],
        "the row was taken before it was on the disk"
    );
}

#[test]
fn nothing_waits_for_ever() {
    let mut traces = Traces::default();
    assert!(!traces.start(&key(), LANE, true, at(0)));
    traces.wait(&key(), Rank::Start, "row", at(1));
    assert_eq!((traces.due(at(2000)).len(), traces.next_due()), (0, Some(at(2001))));
    let due = traces.due(at(2001));
    assert_eq!(due[0].waiting, ["row"], "an agent that sends its spans elsewhere");
    assert_eq!((traces.taken(&key()), traces.next_due()), (None, None));
    // An assessment of a trace of long ago.
    let old = ("deployment/teller".to_owned(), "tr-0".to_owned());
    assert!(!traces.may_follow(&old, at(3000)));
    traces.wait(&old, Rank::Rest, "feedback", at(3001));
    let due = traces.due(at(5001));
    assert_eq!((due[0].lane, &due[0].waiting), (None, &vec!["feedback"]));
}

#[test]
fn a_row_that_was_not_taken_comes_again() {
    let mut traces = Traces::<&str>::default();
    traces.spans(key(), LANE, true, at(0));
    assert!(traces.start(&key(), LANE, true, at(1)));
    traces.refused(&key());
    assert!(!traces.may_follow(&key(), at(2)));
    assert!(traces.start(&key(), LANE, true, at(3)));
    traces.taken(&key());
    assert!(traces.may_follow(&key(), at(4)));
}

#[test]
fn old_traces_are_forgotten_and_those_of_which_something_waits_are_not() {
    let mut traces = Traces::default();
    let key = |n: usize| ("deployment/teller".to_owned(), format!("tr-{n}"));
    traces.wait(&key(0), Rank::Rest, "tag", at(0));
    for n in 1..=MOST {
        traces.spans(key(n), LANE, true, at(n as u64));
    }
    assert!(traces.traces.len() <= MOST / 2 + 2);
    assert!(!traces.has_spans(&key(1)) && traces.has_spans(&key(MOST)));
    assert_eq!(traces.due(at(600_000))[0].waiting, ["tag"]);
}
