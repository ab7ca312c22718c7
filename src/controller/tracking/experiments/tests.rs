use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn with(names: &[&str]) -> ExperimentCache {
    let needed: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
    ExperimentCache { in_use: needed.clone(), needed, ..ExperimentCache::default() }
}

fn note(cache: &mut ExperimentCache, name: &str, second: i64, found: Result<&str, mlflow::Error>) -> Effect {
    let found = found.map(|id| Experiment { id: id.to_owned(), stage: Stage::Active, created: None, is_new: false });
    cache.note(name, found, at(second), &ObjectRef::new("tracing"))
}

fn refused() -> mlflow::Error {
    mlflow::Error::Server { status: 500, code: None }
}

fn next(cache: &ExperimentCache, second: i64) -> Option<String> {
    [true, false].into_iter().find_map(|urgent| match cache.next(urgent, at(second))? {
        Question::Experiment(name) => Some(name),
        Question::Deleted => Some("deleted?".to_owned()),
        other => panic!("{other:?}"),
    })
}

/// With a read-only database the experiment of a new workload cannot be made: all others were then never looked at again.
#[test]
fn one_that_cannot_be_made_keeps_no_other_from_being_looked_at() {
    let mut cache = with(&["new", "old"]);
    note(&mut cache, "old", 0, Ok("4"));
    assert_eq!(next(&cache, 0).as_deref(), Some("new"));
    assert!(!note(&mut cache, "new", 0, Err(refused())).goes_on);
    assert_eq!(next(&cache, 20), None, "it comes again after a while");
    assert!(!cache.is_urgent("new"), "and nobody hurries for it");
    assert_eq!(next(&cache, 60).as_deref(), Some("old"), "after those that are well");
    assert_eq!(next(&cache, 35).as_deref(), Some("new"));
}

#[test]
fn a_server_that_makes_no_experiment_is_told_when_it_failed_twice_and_at_once_when_it_is_full() {
    let mut cache = with(&["new", "other"]);
    assert!(!note(&mut cache, "new", 0, Err(refused())).news);
    assert_eq!(cache.writes(), None);
    assert!(note(&mut cache, "new", 30, Err(refused())).news);
    assert_eq!(cache.writes(), writes::<()>(&Err(refused())));
    note(&mut cache, "other", 30, Err(mlflow::Error::StorageFull { status: 500 }));
    note(&mut cache, "new", 31, Ok("4"));
    assert_eq!(cache.writes(), Some(Writes::Full));
}

/// Review C1: a thousand experiments were a thousand questions every forty seconds.
#[test]
fn many_experiments_ask_as_little_as_few_and_one_that_is_deleted_is_seen_within_a_minute() {
    let names: Vec<_> = (0..1000).map(|n| format!("agent-{n}")).collect();
    let mut cache = with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (n, name) in names.iter().enumerate() {
        note(&mut cache, name, 0, Ok(&n.to_string()));
    }
    let (mut questions, mut seen) = (0, None);
    for second in 0..600 {
        while let Some(name) = next(&cache, second) {
            questions += 1;
            let gone = if second >= 100 { vec!["77".to_owned()] } else { Vec::new() };
            match name.as_str() {
                "deleted?" => _ = cache.note_deleted(gone, at(second)),
                "agent-77" if second >= 100 => {
                    let (id, stage) = ("77".to_owned(), Stage::Deleted);
                    let gone = Experiment { id, stage, created: None, is_new: false };
                    let effect = cache.note(&name, Ok(gone), at(second), &ObjectRef::new("tracing"));
                    seen = seen.or(effect.news.then_some(second));
                }
                name => _ = note(&mut cache, name, second, Ok(name.trim_start_matches("agent-"))),
            }
        }
    }
    assert!(seen.is_some_and(|second| second <= 160), "{seen:?}");
    assert!(questions <= 60, "{questions} questions in ten minutes");
}

#[test]
fn an_experiment_with_another_id_means_another_database_and_all_are_asked_for_again() {
    let mut cache = with(&["a", "b"]);
    note(&mut cache, "a", 0, Ok("1"));
    note(&mut cache, "b", 0, Ok("2"));
    assert_eq!(next(&cache, 1), None);
    assert!(note(&mut cache, "a", 50, Ok("7")).anew);
    assert_eq!(next(&cache, 50).as_deref(), Some("b"));
}

/// An experiment that we make has no time of creation in MLflow's answer, and one when it is looked at again. That was news of each:
/// with 1,000 a pass every 20 seconds for hours.
#[test]
fn what_is_learnt_of_one_that_was_made_is_no_news() {
    let mut cache = with(&["a"]);
    let mut found = |created, is_new, second| {
        let found = Experiment { id: "1".to_owned(), stage: Stage::Active, created, is_new };
        let effect = cache.note("a", Ok(found), at(second), &ObjectRef::new("tracing"));
        (effect.news, effect.anew, cache.report().verified["a"].created)
    };
    assert_eq!(found(None, true, 0), (true, false, None));
    assert_eq!(found(Some(5), false, 50), (false, false, Some(5)));
    assert_eq!(found(None, false, 100), (false, false, Some(5)), "nor is what an answer leaves out");
    assert_eq!(found(Some(6), false, 150), (true, true, Some(6)), "another database");
}
