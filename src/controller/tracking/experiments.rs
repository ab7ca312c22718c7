//! The workloads' experiments: made where they are absent, and looked at again, one at a time, so that a namespace with
//! many of them asks no more than one with few.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;

use super::questions::{UNKNOWN_TROUBLE, writes};
use super::{Question, Subject};
use crate::api::{MlflowStatus, Reason};
use crate::controller::Guarded;
use crate::core::status::Experiments;
use crate::core::status::writes::Writes;
use crate::core::workloads::{Assessment, InjectionState, TraceDestination};
use crate::mlflow::{self, Experiment, Stage};

/// How often an experiment that agents write to is looked at again, so that its loss is told within a minute. Of more than
/// [`AT_ONCE`], those that were deleted are asked for as often, and each has its turn.
const RECHECK_IN_USE: SignedDuration = SignedDuration::from_secs(40);
/// The same where nobody writes to it yet.
const RECHECK: SignedDuration = SignedDuration::from_mins(10);
/// The same where it is not well.
const RETRY: SignedDuration = SignedDuration::from_secs(30);
/// Between two that are looked at again, however many there are.
const BETWEEN: SignedDuration = SignedDuration::from_secs(20);
/// So many have their turn in time.
const AT_ONCE: usize = 2;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct ExperimentCache {
    /// Names of those that are to exist.
    needed: BTreeSet<String>,
    /// Those of them that agents write to.
    in_use: BTreeSet<String>,
    /// Ids as the status of the last pass has them.
    in_status: BTreeMap<String, String>,
    checked: BTreeMap<String, Check>,
    /// Those for which the server failed when it was asked last.
    failed: BTreeMap<String, Failure>,
    /// When one was looked at again.
    rechecked_at: Option<Timestamp>,
    /// When it was asked which were deleted.
    deleted_at: Option<Timestamp>,
    /// Address and version of the server that answered last.
    server: Option<(String, String)>,
    /// Whether it has not answered since.
    away: bool,
    /// What was reported last, while nothing of it has changed.
    report: Option<Arc<KnownExperiments>>,
}

#[derive(Debug)]
struct Check {
    /// When; `None` where it is to be looked at again at once.
    at: Option<Timestamp>,
    found: Result<ExperimentRef, (Reason, String)>,
}

#[derive(Debug)]
struct Failure {
    at: Timestamp,
    /// In a row.
    times: u32,
    writes: Option<Writes>,
}

/// An experiment whose name was seen to be the wanted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller) struct ExperimentRef {
    pub id: String,
    created: Option<i64>,
}

impl ExperimentRef {
    /// One of which nothing but the id is known, as the user wrote it.
    pub fn by_id(id: &str) -> Self {
        Self { id: id.to_owned(), created: None }
    }

    /// The same, created then where it does not say when.
    fn or_created(self, created: Option<i64>) -> Self {
        Self { created: self.created.or(created), ..self }
    }

    /// A new database gives ids anew.
    pub fn is_same(&self, other: &Self) -> bool {
        let apart = self.created.zip(other.created).is_some_and(|(a, b)| a != b);
        self.id == other.id && !apart
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(in crate::controller) struct KnownExperiments {
    pub experiments: Experiments,
    /// Those seen in this MLflow under their name: only their ids are used to look for traces.
    pub verified: BTreeMap<String, ExperimentRef>,
}

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    /// Another one than before.
    pub news: bool,
    /// The experiment is not the one that it was: the server has another database.
    pub anew: bool,
    /// Whether there is sense in asking for the next one.
    pub goes_on: bool,
}

fn names(workloads: &[Assessment], injection_state: impl Fn(&InjectionState) -> bool) -> BTreeSet<String> {
    let chosen = workloads.iter().filter(|assessment| injection_state(&assessment.injection_state));
    chosen
        .filter_map(|assessment| match &assessment.experiment {
            TraceDestination::Name(name) => Some(name.clone()),
            TraceDestination::Id(_) | TraceDestination::Unknown => None,
        })
        .collect()
}

impl ExperimentCache {
    /// Sets which experiments are to exist.
    pub fn want(&mut self, subject: Subject<'_>) {
        self.in_use = names(subject.workloads, |injection_state| *injection_state == InjectionState::Current);
        let planned = |injection_state: &InjectionState| {
            matches!(injection_state, InjectionState::OutOfDate { .. } | InjectionState::Blocked(_))
        };
        let mut needed = names(subject.workloads, planned);
        needed.extend(self.in_use.iter().cloned());
        let in_status = subject.old.experiments.iter().map(|e| (e.name.clone(), e.id.clone())).collect();
        if (&self.needed, &self.in_status) != (&needed, &in_status) {
            (self.needed, self.in_status, self.report) = (needed, in_status, None);
        }
        let Self { needed, checked, failed, .. } = self;
        checked.retain(|name, _| needed.contains(name));
        failed.retain(|name, _| needed.contains(name));
        self.note_server(subject.answered);
    }

    /// What is to be asked next. Urgent is what was never seen, or may be another one by now.
    pub fn next(&self, urgent: bool, now: Timestamp) -> Option<Question> {
        let waits = |name: &&String| {
            let checked = self.checked.get(*name);
            // One that is not well keeps agents waiting. Those that failed come last, since every one may cost a timeout.
            let is_well = checked.is_some_and(|checked| checked.found.is_ok());
            (self.failed.get(*name).map(|f| f.at), is_well, checked.and_then(|checked| checked.at))
        };
        let first = match urgent {
            true => self.needed.iter().filter(|name| self.is_urgent(name)).min_by_key(waits),
            false => self.needed.iter().filter(|name| self.is_due(name, now)).min_by_key(waits),
        };
        let deleted = || {
            let since = self.deleted_at.map(|at| now.duration_since(at));
            let is_due = self.in_use.len() > AT_ONCE && since.is_none_or(|since| since >= RECHECK_IN_USE);
            (!urgent && is_due).then_some(Question::Deleted)
        };
        deleted().or_else(|| first.cloned().map(Question::Experiment))
    }

    /// Notes the answer about one.
    pub fn note(
        &mut self,
        name: &str,
        found: Result<Experiment, mlflow::Error>,
        now: Timestamp,
        tracing: &ObjectRef<Guarded>,
    ) -> Effect {
        // One that was there and had to be made again has gone with its database.
        let is_new = found.as_ref().is_ok_and(|experiment| experiment.is_new);
        let found = match found {
            Ok(Experiment { stage: Stage::Active, id, created, .. }) => Ok(ExperimentRef { id, created }),
            Ok(Experiment { stage: Stage::Deleted, .. }) => Err(deleted()),
            Err(mlflow::Error::Rejected { code, .. }) if code.as_deref() != Some(UNKNOWN_TROUBLE) => {
                Err((Reason::NameInvalid, "has a name that MLflow refuses".to_owned()))
            }
            Err(error @ (mlflow::Error::Forbidden(_) | mlflow::Error::Unauthorized)) => {
                Err((Reason::Forbidden, format!("cannot be created: {error}")))
            }
            // The server has trouble: every further question would cost as much.
            Err(error) => {
                tracing::warn!(%tracing, %error, "failed to ask MLflow for experiments; trying again");
                let before = self.writes();
                let times = self.failed.get(name).map_or(0, |failed| failed.times);
                self.rechecked_at = Some(now);
                let failed = Failure { at: now, times: times.saturating_add(1), writes: writes::<()>(&Err(error)) };
                self.failed.insert(name.to_owned(), failed);
                return Effect { news: before != self.writes(), anew: false, goes_on: false };
            }
        };
        let wrote = self.writes();
        self.failed.remove(name);
        let anew = found.as_ref().is_ok_and(|known| !self.is_as_known(name, known, is_new));
        if let (true, Ok(ExperimentRef { id, .. })) = (anew, &found) {
            tracing::warn!(%tracing, experiment = name, id, "the experiment is another one than before: MLflow has another database");
            self.look_at_all_again();
        }
        if self.checked.get(name).is_some_and(|checked| checked.at.is_some()) {
            self.rechecked_at = Some(now);
        }
        let before = self.checked.get(name).map(|checked| &checked.found);
        let (found, is_other) = match (before, found) {
            (Some(Ok(known)), Ok(found)) if known.is_same(&found) => (Ok(found.or_created(known.created)), anew),
            (before, found) => {
                let is_other = before != Some(&found);
                (found, is_other)
            }
        };
        self.report.take_if(|_| before != Some(&found));
        let news = wrote != self.writes() || is_other;
        self.checked.insert(name.to_owned(), Check { at: Some(now), found });
        Effect { news, anew, goes_on: true }
    }

    /// Notes which were deleted last. Says whether one of ours is among them that was not before.
    pub fn note_deleted(&mut self, ids: Vec<String>, now: Timestamp) -> bool {
        self.deleted_at = Some(now);
        let ids: BTreeSet<_> = ids.into_iter().collect();
        let is_lost = |checked: &&mut Check| checked.found.as_ref().is_ok_and(|known| ids.contains(&known.id));
        let mut news = false;
        for checked in self.checked.values_mut().filter(is_lost) {
            // Its name is asked for again before anything is said: an id may be another experiment's in another database.
            (checked.at, news) = (None, true);
        }
        news
    }

    /// A server that comes back, or is another one, may have lost its data.
    fn note_server(&mut self, answered: Option<&MlflowStatus>) {
        let Some(MlflowStatus { url, version, .. }) = answered else {
            self.away = true;
            return;
        };
        let server = Some((url.clone(), version.clone()));
        if self.server != server || self.away {
            // One tells for all: where it is another one, all are looked at.
            let first = self.in_use.iter().chain(&self.needed).find(|name| self.checked.contains_key(*name)).cloned();
            if let Some(checked) = first.and_then(|name| self.checked.get_mut(&name)) {
                checked.at = None;
            }
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
    pub fn writes(&self) -> Option<Writes> {
        let shown =
            |failed: &Failure| failed.writes.clone().filter(|writes| failed.times > 1 || *writes == Writes::Full);
        self.failed.values().find_map(shown)
    }

    fn is_due(&self, name: &str, now: Timestamp) -> bool {
        let has_turn = self.rechecked_at.is_none_or(|at| now.duration_since(at) >= BETWEEN);
        if let Some(failed) = self.failed.get(name) {
            return now.duration_since(failed.at) >= RETRY && has_turn;
        }
        let Some(Check { at: Some(at), found }) = self.checked.get(name) else { return false };
        let interval = match found {
            Err(_) => RETRY,
            Ok(_) if self.in_use.contains(name) => RECHECK_IN_USE,
            Ok(_) => RECHECK,
        };
        now.duration_since(*at) >= interval && (has_turn || found.is_err())
    }

    /// Whether an experiment is the one that it was, as far as anything was known of it.
    fn is_as_known(&self, name: &str, found: &ExperimentRef, is_new: bool) -> bool {
        match self.checked.get(name).map(|checked| &checked.found) {
            Some(Ok(known)) => known.is_same(found) && !is_new,
            Some(Err(_)) => true,
            // After a restart only status knows.
            None => self.in_status.get(name).is_none_or(|id| *id == found.id && !is_new),
        }
    }

    /// What is known of those that are to exist.
    pub fn report(&mut self) -> Arc<KnownExperiments> {
        if let Some(report) = &self.report {
            return report.clone();
        }
        self.report.insert(Arc::new(self.summary())).clone()
    }

    fn summary(&self) -> KnownExperiments {
        let mut out = KnownExperiments::default();
        for name in self.needed.iter().cloned() {
            match self.checked.get(&name).map(|checked| &checked.found) {
                Some(Ok(known)) => {
                    out.experiments.ensured.insert(name.clone(), known.id.clone());
                    out.verified.insert(name, known.clone());
                }
                Some(Err(problem)) => {
                    out.experiments.problems.insert(name, problem.clone());
                }
                None => match self.in_status.get(&name) {
                    Some(id) => {
                        out.experiments.ensured.insert(name, id.clone());
                    }
                    None => {
                        let problem = (Reason::Creating, "is created as soon as MLflow answers".to_owned());
                        out.experiments.problems.insert(name, problem);
                    }
                },
            }
        }
        out
    }
}

fn deleted() -> (Reason, String) {
    (Reason::ExperimentDeleted, "was deleted in MLflow, which loses its traces".to_owned())
}

#[cfg(test)]
mod tests;
