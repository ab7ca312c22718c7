use proptest::prelude::*;

use super::*;

const A: LaneId = 1;
const B: LaneId = 2;
const C: LaneId = 3;
const READY: Place = Place::Spooled(Queue::Ready);
const ASIDE: Place = Place::Spooled(Queue::Aside);

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn with(concurrency: usize, arrived: &[LaneId]) -> Lanes {
    let mut lanes = Lanes::new(concurrency);
    arrived.iter().for_each(|lane| lanes.arrived(*lane));
    lanes
}

#[test]
fn lanes_take_turns_and_one_request_of_each_is_under_way() {
    let mut lanes = with(2, &[A, A, A, B]);
    assert_eq!(lanes.take_next(at(0)), Some((A, Queue::Ready)));
    assert_eq!(lanes.take_next(at(0)), Some((B, Queue::Ready)));
    assert_eq!(lanes.take_next(at(0)), None, "no place is free");
    lanes.ended(B, READY, Ended::Gone, at(1));
    assert_eq!(lanes.take_next(at(1)), None, "the order of a lane is kept");
    lanes.ended(A, READY, Ended::Gone, at(1));
    assert_eq!(lanes.take_next(at(1)), Some((A, Queue::Ready)));
}

#[test]
fn what_holds_up_a_lane_is_known_while_others_go_through() {
    let mut lanes = with(1, &[A, A, B, B]);
    lanes.take_next(at(0)).unwrap();
    lanes.ended(A, READY, Ended::Held(Cause::ExperimentMissing), at(0));
    for (cause, all) in [(None, 1), (Some(Cause::Failed), 2)] {
        assert_eq!(lanes.take_next(at(1)), Some((B, Queue::Ready)));
        lanes.ended(B, READY, cause.map_or(Ended::Gone, Ended::Held), at(1));
        let holds: Vec<_> = lanes.holds().collect();
        assert_eq!((holds.len(), holds[0]), (all, (A, Cause::ExperimentMissing)));
    }
}

#[test]
fn what_comes_in_calm_times_goes_past_the_spool() {
    let mut lanes = with(1, &[]);
    assert!(lanes.take_direct(A, at(0)));
    assert!(!lanes.take_direct(B, at(0)), "no place is free");
    lanes.arrived(B);
    lanes.ended(A, Place::Direct, Ended::Gone, at(1));
    assert!(!lanes.take_direct(B, at(1)), "something waits before it");
    assert!(lanes.take_direct(A, at(1)));
    // MLflow did not take it: it is in the spool now.
    lanes.arrived(A);
    lanes.ended(A, Place::Direct, Ended::Held(Cause::Unreachable), at(2));
    assert!(!lanes.take_direct(C, at(2)), "everybody is held up");
    assert_eq!(lanes.lane_hold(A).0, 1);
}

#[test]
fn while_mlflow_is_away_one_request_tries_for_all_and_then_all_go() {
    let mut lanes = with(3, &[A, B, C]);
    let first = lanes.take_next(at(0)).unwrap().0;
    lanes.ended(first, READY, Ended::Held(Cause::Busy), at(0));
    assert_eq!(lanes.take_next(at(499)), None);
    assert_eq!(lanes.next_due(at(0)), Some(at(500)));
    let second = lanes.take_next(at(500)).unwrap().0;
    assert_ne!(second, first, "another one's turn");
    assert_eq!(lanes.take_next(at(500)), None, "one tries");
    lanes.ended(second, READY, Ended::Held(Cause::Timeout), at(500));
    assert_eq!(lanes.server_hold(), Some(Hold { cause: Cause::Timeout, failures: 2 }));
    assert_eq!(lanes.next_due(at(500)), Some(at(1500)), "twice as long");
    for _ in 0..10 {
        let due = lanes.next_due(at(0)).unwrap();
        let (lane, _) = lanes.take_next(due).unwrap();
        lanes.ended(lane, READY, Ended::Held(Cause::Busy), due);
        assert!(lanes.next_due(due).unwrap() - due <= SERVER_LIMIT);
    }
    lanes.retry_all();
    let (lane, _) = lanes.take_next(at(1501)).expect("the address changed: at once");
    lanes.ended(lane, READY, Ended::Gone, at(1501));
    assert!(lanes.take_next(at(1501)).is_some() && lanes.take_next(at(1501)).is_some(), "all go");
}

#[test]
fn what_one_workload_causes_holds_up_nobody_else() {
    let mut lanes = with(1, &[A, A, B, B]);
    assert_eq!(lanes.take_next(at(0)), Some((A, Queue::Ready)));
    lanes.ended(A, READY, Ended::Held(Cause::ExperimentMissing), at(0));
    for _ in 0..2 {
        assert_eq!(lanes.take_next(at(1)), Some((B, Queue::Ready)));
        lanes.ended(B, READY, Ended::Gone, at(1));
    }
    assert_eq!(lanes.take_next(at(1)), None);
    assert_eq!(lanes.lane_hold(A), (2, Some(Hold { cause: Cause::ExperimentMissing, failures: 1 })));
    assert_eq!(lanes.take_next(at(500)), Some((A, Queue::Ready)));
}

#[test]
fn a_request_that_mlflow_refuses_is_set_aside_and_those_behind_it_go_on() {
    let mut lanes = with(1, &[A, A]);
    assert_eq!(lanes.take_next(at(0)), Some((A, Queue::Ready)));
    lanes.ended(A, READY, Ended::Held(Cause::Failed), at(0));
    assert_eq!(lanes.take_next(at(1)), Some((A, Queue::Ready)), "the second one");
    lanes.ended(A, READY, Ended::Gone, at(1));
    assert_eq!(lanes.take_next(at(1)), None);
    assert_eq!(lanes.take_next(at(500)), Some((A, Queue::Aside)), "it is tried again");
    lanes.ended(A, ASIDE, Ended::Gone, at(500));
    assert_eq!((lanes.lane_hold(A), lanes.next_due(at(500))), ((0, None), None));
}

#[test]
fn refusals_in_a_row_are_no_matter_of_single_requests() {
    let mut lanes = with(1, &[A, A, B, C]);
    for _ in 0..3 {
        let (lane, _) = lanes.take_next(at(1)).unwrap();
        lanes.ended(lane, READY, Ended::Held(Cause::Failed), at(1));
    }
    assert_eq!(lanes.server_hold().map(|hold| hold.cause), Some(Cause::Failed));
    assert_eq!(lanes.take_next(at(2)), None);
    // One of them tries, and what waits in its order is not starved by those that were set aside.
    let (lane, queue) = lanes.take_next(at(501)).unwrap();
    lanes.ended(lane, Place::Spooled(queue), Ended::Held(Cause::Failed), at(501));
    let due = lanes.next_due(at(501)).unwrap();
    let mut seen = Vec::new();
    for n in 0..4 {
        let now = due + at(n * 20_000);
        let (lane, queue) = lanes.take_next(now).unwrap();
        seen.push((lane, queue));
        lanes.ended(lane, Place::Spooled(queue), Ended::Held(Cause::Failed), now);
    }
    assert!(seen.contains(&(A, Queue::Ready)), "{seen:?}");
}

#[test]
fn nothing_is_due_while_no_place_is_free() {
    let mut lanes = with(1, &[A, B]);
    lanes.take_next(at(0)).unwrap();
    assert_eq!(lanes.next_due(at(0)), None, "only an end changes anything");
}

#[test]
fn a_request_behind_one_of_its_trace_that_was_set_aside_goes_there_unsent() {
    let mut lanes = with(1, &[A, A]);
    for ended in [Ended::Held(Cause::Failed), Ended::Behind] {
        assert_eq!(lanes.take_next(at(0)), Some((A, Queue::Ready)));
        lanes.ended(A, READY, ended, at(0));
    }
    assert_eq!((lanes.take_next(at(1)), lanes.lane_hold(A).0), (None, 2));
    for _ in 0..2 {
        assert_eq!(lanes.take_next(at(500)), Some((A, Queue::Aside)));
        lanes.ended(A, ASIDE, Ended::Gone, at(500));
    }
    assert_eq!(lanes.lane_hold(A).0, 0);
}

#[test]
fn a_request_that_is_refused_again_and_again_holds_up_nobody() {
    let mut lanes = with(1, &[A]);
    let mut place = READY;
    for n in 0..5 {
        lanes.take_next(at(n * 1_000_000)).unwrap();
        lanes.ended(A, place, Ended::Held(Cause::Failed), at(n * 1_000_000));
        place = ASIDE;
    }
    assert_eq!(lanes.server_hold(), None);
}

#[test]
fn agents_that_ask_take_turns_with_what_is_forwarded() {
    let mut lanes = with(1, &[A, A]);
    lanes.want_to_ask();
    lanes.want_to_ask();
    assert_eq!((lanes.take_next(at(0)), lanes.next_due(at(0))), (None, None));
    assert!(!lanes.take_direct(B, at(0)) && lanes.take_to_ask(at(0)) && !lanes.take_to_ask(at(0)), "one place");
    lanes.asked();
    assert!(!lanes.take_to_ask(at(1)), "the others' turn");
    assert_eq!(lanes.take_next(at(1)), Some((A, Queue::Ready)));
    lanes.ended(A, READY, Ended::Gone, at(1));
    assert_eq!(lanes.take_next(at(2)), None);
    lanes.give_up_asking();
    assert_eq!(lanes.take_next(at(2)), Some((A, Queue::Ready)));
    lanes.ended(A, READY, Ended::Held(Cause::Unreachable), at(2));
    lanes.want_to_ask();
    assert!(lanes.take_to_ask(at(3)), "an agent hears from MLflow itself that it is away");
}

proptest! {
    /// Whatever MLflow answers: no more are under way than may be, and once it takes everything nothing stays.
    #[test]
    fn all_that_came_is_gone_in_the_end(
        concurrency in 1_usize..4,
        steps in prop::collection::vec((0_u64..4, 0_usize..16, 0_u64..3000), 0..200),
    ) {
        let mut lanes = Lanes::new(concurrency);
        let (mut came, mut gone, mut now) = (0, 0, Duration::ZERO);
        let mut under_way: Vec<(LaneId, Queue)> = Vec::new();
        for (lane, answer, wait) in steps {
            now += at(wait);
            if answer % 2 == 0 {
                lanes.arrived(lane);
                came += 1;
            }
            if let Some(next) = lanes.take_next(now) {
                prop_assert!(under_way.iter().all(|(lane, _)| *lane != next.0), "two of one lane");
                under_way.push(next);
            }
            prop_assert!(under_way.len() <= concurrency);
            if answer > 3 && let Some((lane, queue)) = under_way.pop() {
                let ended = Cause::ALL.get(answer - 3).map_or(Ended::Gone, |cause| Ended::Held(*cause));
                gone += u64::from(ended == Ended::Gone);
                lanes.ended(lane, Place::Spooled(queue), ended, now);
            }
        }
        for (lane, queue) in under_way {
            lanes.ended(lane, Place::Spooled(queue), Ended::Gone, now);
            gone += 1;
        }
        while let Some(due) = lanes.next_due(now) {
            now = due;
            let (lane, queue) = lanes.take_next(now).expect("it is due");
            lanes.ended(lane, Place::Spooled(queue), Ended::Gone, now);
            gone += 1;
        }
        prop_assert_eq!(came, gone);
    }
}
