//! The workloads' experiments: made where they are absent, and looked at again, by name, as often as their traces are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{MAX_QUESTIONS, Question, writes};
use crate::api::{MlflowStatus, Reason};
use crate::core::status::Experiments;
use crate::core::workload::{Judged, Standing, Target};
use crate::core::writes::Writes;
use crate::mlflow::{self, Experiment, Mlflow, Stage};

/// How often an experiment is looked at again: one that agents write to, so that its loss is told within a minute; one that
/// nobody writes to yet; and one that is not well.
const RECHECK_IN_USE: SignedDuration = SignedDuration::from_secs(40);
const RECHECK: SignedDuration = SignedDuration::from_mins(10);
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    checked: BTreeMap<String, Checked>,
    /// Address and version of the server that answered last.
    server: Option<(String, String)>,
    /// Whether it has not answered since.
    away: bool,
}

#[derive(Debug)]
struct Checked {
    /// When; `None` where it is to be looked at again at once.
    at: Option<Timestamp>,
    found: Result<Known, (Reason, String)>,
}

/// An experiment whose name was seen to be the wanted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub id: String,
    created: Option<i64>,
}

impl Known {
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
    pub verified: BTreeMap<String, Known>,
    /// Whether one of them is not the one that it was: the server has another database.
    pub anew: bool,
    /// Whether some are still to be asked for at once.
    pub more: bool,
    /// Whether the server writes, where making one tells.
    pub writes: Option<Writes>,
}

/// Makes sure that the workloads' experiments exist.
pub(super) async fn ensure(
    mlflow: Option<&Mlflow>,
    question: Question<'_>,
    memory: &mut Memory,
    now: Timestamp,
) -> Ensured {
    let in_use = names(question.workloads, |standing| *standing == Standing::Current);
    let planned = |standing: &Standing| matches!(standing, Standing::Wanting { .. } | Standing::Waiting(_));
    let needed: BTreeSet<&str> = names(question.workloads, planned).union(&in_use).copied().collect();
    memory.checked.retain(|name, _| needed.contains(name.as_str()));
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
    }
    memory.report(&needed, question, &mut out);
    out
}

fn names(workloads: &[Judged], standing: impl Fn(&Standing) -> bool) -> BTreeSet<&str> {
    let chosen = workloads.iter().filter(|judged| standing(&judged.standing));
    chosen
        .filter_map(|judged| match &judged.experiment {
            Target::Name(name) => Some(name.as_str()),
            Target::Id(_) | Target::Unknown => None,
        })
        .collect()
}

/// Asks for one. Says whether there is sense in asking for the next.
async fn ask(
    mlflow: &Mlflow,
    name: &str,
    question: Question<'_>,
    memory: &mut Memory,
    out: &mut Ensured,
    now: Timestamp,
) -> bool {
    let settings = question.settings;
    let found = match mlflow.ensure_experiment(name, settings.policy.experiment.restore_deleted).await {
        Ok(Experiment { stage: Stage::Active, id, created }) => Ok(Known { id, created }),
        Ok(Experiment { stage: Stage::Deleted, .. }) => {
            Err((Reason::ExperimentDeleted, "was deleted in MLflow, which loses its traces".to_owned()))
        }
        Err(error @ mlflow::Error::StorageFull { .. }) => {
            out.writes = writes(&Err(error));
            return false;
        }
        Err(mlflow::Error::Rejected { .. }) => Err((Reason::NameInvalid, "has a name that MLflow refuses".to_owned())),
        Err(error @ (mlflow::Error::Forbidden(_) | mlflow::Error::Unauthorized)) => {
            Err((Reason::Forbidden, format!("cannot be created: {error}")))
        }
        // The server has trouble: every further question would cost as much.
        Err(error) => {
            tracing::warn!(namespace = settings.namespace, name = settings.name, %error, "failed to ask MLflow for experiments; trying again");
            return false;
        }
    };
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

impl Memory {
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
        self.checked.get(name).is_none_or(|checked| checked.at.is_none())
    }

    /// The one that waits longest.
    fn next_due<'a>(&self, needed: &BTreeSet<&'a str>, in_use: &BTreeSet<&str>, now: Timestamp) -> Option<&'a str> {
        let at = |name: &str| self.checked.get(name).and_then(|checked| checked.at);
        let is_due = |name: &&&str| {
            let found = self.checked.get(**name).map(|checked| &checked.found);
            let pace = match found {
                Some(Err(_)) => RETRY,
                Some(Ok(_)) if !in_use.contains(**name) => RECHECK,
                _ => RECHECK_IN_USE,
            };
            at(name).is_none_or(|at| now.duration_since(at) >= pace)
        };
        needed.iter().filter(is_due).min_by_key(|name| at(name)).copied()
    }

    /// Whether an experiment is the one that it was, as far as anything was known of it.
    fn is_as_known(&self, name: &str, found: &Known, question: Question<'_>) -> bool {
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
