//! The workloads' experiments: made where they are absent, and looked at again, by name, as often as their traces are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{MAX_QUESTIONS, Question, writes};
use crate::api::{MlflowStatus, Reason};
use crate::core::status::Experiments;
use crate::core::status::writes::Writes;
use crate::core::workloads::{Assessment, InjectionState, TraceDestination};
use crate::mlflow::{self, Experiment, MlflowClient, Stage};

/// How often an experiment is looked at again: one that agents write to, so that its loss is told within a minute; one that
/// nobody writes to yet; and one that is not well.
const RECHECK_IN_USE: SignedDuration = SignedDuration::from_secs(40);
const RECHECK: SignedDuration = SignedDuration::from_mins(10);
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// What MLflow calls an error of its database that it does not know, for example of a read-only one.
pub(super) const UNKNOWN_TROUBLE: &str = "BAD_REQUEST";

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct ExperimentCache {
    checked: BTreeMap<String, Checked>,
    /// Those for which the server failed when it was asked last.
    failed: BTreeMap<String, Failed>,
    /// Address and version of the server that answered last.
    server: Option<(String, String)>,
    /// Whether it has not answered since.
    away: bool,
}

#[derive(Debug)]
struct Checked {
    /// When; `None` where it is to be looked at again at once.
    at: Option<Timestamp>,
    found: Result<ExperimentRef, (Reason, String)>,
}

#[derive(Debug)]
struct Failed {
    at: Timestamp,
    /// In a row.
    times: u32,
    writes: Option<Writes>,
}

/// An experiment whose name was seen to be the wanted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExperimentRef {
    pub id: String,
    created: Option<i64>,
}

impl ExperimentRef {
    /// One of which nothing but the id is known, as the user wrote it.
    pub fn by_id(id: &str) -> Self {
        Self { id: id.to_owned(), created: None }
    }

    /// A new database gives ids anew.
    pub fn is_same(&self, other: &Self) -> bool {
        let apart = self.created.zip(other.created).is_some_and(|(a, b)| a != b);
        self.id == other.id && !apart
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Ensured {
    pub experiments: Experiments,
    /// Those seen in this MLflow under their name: only their ids are used to look for traces.
    pub verified: BTreeMap<String, ExperimentRef>,
    /// Whether one of them is not the one that it was: the server has another database.
    pub anew: bool,
    /// Whether some are still to be asked for at once.
    pub more: bool,
    /// Whether the server writes, where making one tells.
    pub writes: Option<Writes>,
}

/// Makes sure that the workloads' experiments exist.
pub(super) async fn ensure(
    mlflow: Option<&MlflowClient>,
    question: Question<'_>,
    memory: &mut ExperimentCache,
    now: Timestamp,
) -> Ensured {
    let in_use = names(question.workloads, |injection_state| *injection_state == InjectionState::Current);
    let planned = |injection_state: &InjectionState| {
        matches!(injection_state, InjectionState::OutOfDate { .. } | InjectionState::Blocked(_))
    };
    let needed: BTreeSet<&str> = names(question.workloads, planned).union(&in_use).copied().collect();
    memory.checked.retain(|name, _| needed.contains(name.as_str()));
    memory.failed.retain(|name, _| needed.contains(name.as_str()));
    memory.note_server(question.answered);
    let mut out = Ensured::default();
    if let Some(mlflow) = mlflow {
        for _ in 0..MAX_QUESTIONS {
            let Some(name) = memory.next_due(&needed, &in_use, now) else { break };
            if !ask(mlflow, name, question, memory, &mut out, now).await {
                break;
            }
        }
        out.more = needed.iter().any(|name| memory.is_urgent(name));
        out.writes = memory.writes();
    }
    memory.report(&needed, question, &mut out);
    out
}

fn names(workloads: &[Assessment], injection_state: impl Fn(&InjectionState) -> bool) -> BTreeSet<&str> {
    let chosen = workloads.iter().filter(|assessment| injection_state(&assessment.injection_state));
    chosen
        .filter_map(|assessment| match &assessment.experiment {
            TraceDestination::Name(name) => Some(name.as_str()),
            TraceDestination::Id(_) | TraceDestination::Unknown => None,
        })
        .collect()
}

/// Asks for one. Says whether there is sense in asking for the next.
async fn ask(
    mlflow: &MlflowClient,
    name: &str,
    question: Question<'_>,
    memory: &mut ExperimentCache,
    out: &mut Ensured,
    now: Timestamp,
) -> bool {
    let settings = question.settings;
    let found = match mlflow.ensure_experiment(name, settings.policy.experiment.restore_deleted).await {
        Ok(Experiment { stage: Stage::Active, id, created }) => Ok(ExperimentRef { id, created }),
        Ok(Experiment { stage: Stage::Deleted, .. }) => {
            Err((Reason::ExperimentDeleted, "was deleted in MLflow, which loses its traces".to_owned()))
        }
        Err(mlflow::Error::Rejected { code, .. }) if code.as_deref() != Some(UNKNOWN_TROUBLE) => {
            Err((Reason::NameInvalid, "has a name that MLflow refuses".to_owned()))
        }
        Err(error @ (mlflow::Error::Forbidden(_) | mlflow::Error::Unauthorized)) => {
            Err((Reason::Forbidden, format!("cannot be created: {error}")))
        }
        // The server has trouble: every further question would cost as much.
        Err(error) => {
            tracing::warn!(namespace = settings.namespace, name = settings.name, %error, "failed to ask MLflow for experiments; trying again");
            let times = memory.failed.get(name).map_or(0, |failed| failed.times);
            let failed = Failed { at: now, times: times.saturating_add(1), writes: writes(&Err(error)) };
            memory.failed.insert(name.to_owned(), failed);
            return false;
        }
    };
    memory.failed.remove(name);
    if let Ok(known) = &found
        && !memory.is_as_known(name, known, question)
    {
        tracing::warn!(
            namespace = settings.namespace,
            name = settings.name,
            experiment = name,
            id = known.id,
            "the experiment is another one than before: MLflow has another database"
        );
        out.anew = true;
        memory.look_at_all_again();
    }
    memory.checked.insert(name.to_owned(), Checked { at: Some(now), found });
    true
}

impl ExperimentCache {
    /// A server that comes back, or is another one, may have lost its data.
    fn note_server(&mut self, answered: Option<&MlflowStatus>) {
        let Some(MlflowStatus { url, version, .. }) = answered else {
            self.away = true;
            return;
        };
        let server = Some((url.clone(), version.clone()));
        if self.server != server || self.away {
            self.look_at_all_again();
        }
        self.server = server;
        self.away = false;
    }

    fn look_at_all_again(&mut self) {
        self.checked.values_mut().for_each(|checked| checked.at = None);
    }

    fn is_urgent(&self, name: &str) -> bool {
        !self.failed.contains_key(name) && self.checked.get(name).is_none_or(|checked| checked.at.is_none())
    }

    /// Whether the server writes, where making an experiment told that it does not. One failure may be of a moment.
    fn writes(&self) -> Option<Writes> {
        let told = |failed: &Failed| failed.writes.clone().filter(|writes| failed.times > 1 || *writes == Writes::Full);
        self.failed.values().find_map(told)
    }

    /// The one that waits longest; those that failed come last, since every one of them may cost a timeout.
    fn next_due<'a>(&self, needed: &BTreeSet<&'a str>, in_use: &BTreeSet<&str>, now: Timestamp) -> Option<&'a str> {
        let at = |name: &str| self.checked.get(name).and_then(|checked| checked.at);
        let is_due = |name: &&&str| {
            let found = self.checked.get(**name).map(|checked| &checked.found);
            let rollout_strategy = match found {
                Some(Err(_)) => RETRY,
                Some(Ok(_)) if !in_use.contains(**name) => RECHECK,
                _ => RECHECK_IN_USE,
            };
            match self.failed.get(**name) {
                Some(failed) => now.duration_since(failed.at) >= RETRY,
                None => at(name).is_none_or(|at| now.duration_since(at) >= rollout_strategy),
            }
        };
        let order = |name: &&&str| (self.failed.get(**name).map(|failed| failed.at), at(name));
        needed.iter().filter(is_due).min_by_key(order).copied()
    }

    /// Whether an experiment is the one that it was, as far as anything was known of it.
    fn is_as_known(&self, name: &str, found: &ExperimentRef, question: Question<'_>) -> bool {
        match self.checked.get(name).map(|checked| &checked.found) {
            Some(Ok(known)) => known.is_same(found),
            Some(Err(_)) => true,
            // After a restart only status knows.
            None => question.old.experiments.iter().find(|e| e.name == name).is_none_or(|known| known.id == found.id),
        }
    }

    fn report(&self, needed: &BTreeSet<&str>, question: Question<'_>, out: &mut Ensured) {
        let in_status = |name: &str| question.old.experiments.iter().find(|e| e.name == name).map(|e| e.id.clone());
        for name in needed.iter().map(|name| (*name).to_owned()) {
            match self.checked.get(&name).map(|checked| &checked.found) {
                Some(Ok(known)) => {
                    out.experiments.ensured.insert(name.clone(), known.id.clone());
                    out.verified.insert(name, known.clone());
                }
                Some(Err(problem)) => {
                    out.experiments.problems.insert(name, problem.clone());
                }
                None => match in_status(&name) {
                    Some(id) => {
                        out.experiments.ensured.insert(name, id);
                    }
                    None => {
                        let problem = (Reason::Creating, "is created as soon as MLflow answers".to_owned());
                        out.experiments.problems.insert(name, problem);
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn failed(memory: &mut ExperimentCache, name: &str, second: i64, writes: Writes) {
        let times = memory.failed.get(name).map_or(1, |failed| failed.times + 1);
        memory.failed.insert(name.to_owned(), Failed { at: at(second), times, writes: Some(writes) });
    }

    /// With a read-only database the experiment of a new workload cannot be made: all others were then never looked at again.
    #[test]
    fn one_that_cannot_be_made_keeps_no_other_from_being_looked_at() {
        let (needed, mut memory) = (BTreeSet::from(["new", "old"]), ExperimentCache::default());
        let known = ExperimentRef { id: "4".to_owned(), created: None };
        memory.checked.insert("old".to_owned(), Checked { at: Some(at(0)), found: Ok(known) });
        let due = |memory: &ExperimentCache, second| memory.next_due(&needed, &needed, at(second));
        assert_eq!(due(&memory, 0), Some("new"));
        failed(&mut memory, "new", 0, Writes::Refused("it fails (500)".to_owned()));
        assert_eq!(due(&memory, 20), None, "it comes again after a while");
        assert!(!memory.is_urgent("new"), "and nobody hurries for it");
        assert_eq!(due(&memory, 60), Some("old"), "after those that are well");
        assert_eq!(due(&memory, 35), Some("new"));
    }

    #[test]
    fn a_server_that_makes_no_experiment_is_told_when_it_failed_twice_and_at_once_when_it_is_full() {
        let mut memory = ExperimentCache::default();
        let refused = || Writes::Refused("it fails (500)".to_owned());
        failed(&mut memory, "new", 0, refused());
        assert_eq!(memory.writes(), None);
        failed(&mut memory, "new", 30, refused());
        assert_eq!(memory.writes(), Some(refused()));
        failed(&mut memory, "other", 30, Writes::Full);
        memory.failed.remove("new");
        assert_eq!(memory.writes(), Some(Writes::Full));
    }
}
