use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn trace(second: i64) -> Trace {
    Trace { time: at(second), has_spans: true, finished: true }
}

const COMING: Interest = Interest { awaited: false, unproven: false, rhythmic: true, stopped: false };
const AWAITING: Interest = Interest { awaited: true, unproven: true, rhythmic: false, stopped: false };

fn wanting(count: usize, interest: Interest) -> Searches {
    let mut searches = Searches::default();
    searches.want((0..count).map(|n| (n.to_string(), interest)).collect());
    searches
}

/// Plays an MLflow in which experiment n got its newest trace at second `newest(n)`. Returns how many questions were asked.
fn answer_all(searches: &mut Searches, second: i64, newest: impl Fn(usize) -> i64) -> usize {
    let mut questions = 0;
    while let Some(question) = [true, false].into_iter().find_map(|urgent| searches.next(urgent, at(second))) {
        questions += 1;
        match question {
            Question::Newest { ids, since } => {
                let all = ids.iter().map(|id| (id.clone(), trace(newest(id.parse().unwrap()))));
                let mut found: Vec<_> = all.filter(|(_, t)| since.is_none_or(|since| t.time > since)).collect();
                found.sort_by_key(|(_, t)| std::cmp::Reverse(t.time));
                found.truncate(rows(&ids));
                searches.note_newest(&ids, since.is_some(), found, at(second));
            }
            Question::Rhythm(id) => _ = searches.note_rhythm(&id, &[], at(second)),
            other => panic!("{other:?}"),
        }
        assert!(questions < 1000);
    }
    questions
}

/// Review C1: 1,000 workloads that were all traced cost 125 questions a minute.
#[test]
fn a_thousand_that_rest_are_ten_questions_in_five_minutes() {
    let mut searches = wanting(1000, COMING);
    assert!(answer_all(&mut searches, 0, |n| -100_000 - n as i64) <= 20);
    let questions: usize = (1..=300).map(|second| answer_all(&mut searches, second, |n| -100_000 - n as i64)).sum();
    assert_eq!(questions, 10);
    assert!((0..1000).all(|n| searches.looks[&n.to_string()].trace == Some(trace(-100_000 - n as i64))));
}

#[test]
fn a_first_trace_is_seen_within_ten_seconds_however_many_others_there_are() {
    let mut searches = wanting(1000, COMING);
    let mut wanted = searches.wanted.clone();
    wanted.insert("new".to_owned(), AWAITING);
    searches.want(wanted);
    assert!(matches!(searches.next(true, at(0)), Some(Question::Newest { .. })));
    let ids: Vec<_> = searches.wanted.keys().cloned().collect();
    for id in &ids {
        searches.note_newest(std::slice::from_ref(id), false, Vec::new(), at(0));
    }
    let alone = Question::Newest { ids: vec!["new".to_owned()], since: Some(at(0) - LONGEST_TRACE) };
    assert_eq!(searches.next(true, at(4)), Some(alone));
    assert!(searches.note_newest(&["new".to_owned()], true, vec![("new".to_owned(), trace(3))], at(4)));
    assert!(!searches.note_newest(&["7".to_owned()], true, vec![("7".to_owned(), trace(3))], at(4)), "no news");
}

#[test]
fn a_busy_experiment_hides_no_other_of_the_same_question() {
    let mut searches = wanting(3, AWAITING);
    let ids = ["0", "1", "2"].map(str::to_owned);
    let busy: Vec<_> = (0..MOST_ROWS).map(|n| ("0".to_owned(), trace(100 - n as i64))).collect();
    searches.note_newest(&ids, false, busy, at(100));
    let Some(Question::Newest { ids, since: None }) = searches.next(true, at(100)) else { panic!() };
    assert_eq!(ids, ["1", "2"]);
    searches.note_newest(&ids, false, vec![("2".to_owned(), trace(1))], at(100));
    assert_eq!(searches.looks["1"].trace, None);
    assert_eq!(searches.looks["2"].trace, Some(trace(1)));
}

#[test]
fn spans_are_asked_for_where_none_were_seen_and_not_again_once_they_were() {
    let mut searches = wanting(2, Interest { awaited: false, ..AWAITING });
    let ids = ["0", "1"].map(str::to_owned);
    let bare = |second| Trace { has_spans: false, ..trace(second) };
    searches.note_newest(&ids, false, vec![("0".to_owned(), bare(10))], at(12));
    assert_eq!(searches.next(true, at(12)), Some(Question::Spans("0".to_owned())));
    assert!(searches.note_spans("0", Some(trace(10)), at(12)));
    searches.want(BTreeMap::from([("0".to_owned(), COMING), ("1".to_owned(), COMING)]));
    searches.note_newest(&ids, true, vec![("0".to_owned(), bare(20))], at(22));
    assert_eq!([true, false].map(|urgent| searches.next(urgent, at(22))), [None, None]);
    assert_eq!(searches.looks["0"].trace, Some(trace(20)));
}

#[test]
fn silence_against_the_rhythm_is_news_and_so_is_its_end() {
    let mut searches = wanting(1, COMING);
    let id = ["0".to_owned()];
    searches.note_newest(&id, false, vec![("0".to_owned(), trace(0))], at(0));
    searches.note_newest(&id, true, Vec::new(), at(300));
    assert_eq!(searches.next(false, at(300)), Some(Question::Rhythm("0".to_owned())));
    let sent: Vec<_> = (0..20).map(|n| at(-5 * n)).collect();
    assert!(searches.note_rhythm("0", &sent, at(300)));
    assert!(searches.looks["0"].has_stopped(at(0)));
    assert_eq!(searches.next(false, at(330)), None);
    assert!(matches!(searches.next(false, at(360)), Some(Question::Newest { .. })), "looked at more often");
    assert!(searches.note_newest(&id, true, vec![("0".to_owned(), trace(350))], at(360)));
    assert!(!searches.looks["0"].has_stopped(at(350)));
}
