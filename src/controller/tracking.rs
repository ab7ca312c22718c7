//! Everything that is asked of MLflow, at a calm pace and never more than a bounded number of questions in one pass.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::key::Key;
use super::{Context, Error, observe};
use crate::api::{AgentTracingStatus, MlflowMode, Reason};
use crate::core::kind::Kind;
use crate::core::settings::Settings;
use crate::core::status::{Evidence, Experiments};
use crate::core::workload::{Judged, Standing, Target};
use crate::mlflow::{self, Experiment, Mlflow, Trace};

/// Most questions of one kind in one pass.
const MAX_QUESTIONS: usize = 20;
/// How often an experiment that is fine is looked at again, and one that is not.
const RECHECK: SignedDuration = SignedDuration::from_mins(10);
const RETRY: SignedDuration = SignedDuration::from_secs(30);
/// How often traces are looked for: while the first is awaited, and afterwards.
const SOON: Duration = Duration::from_secs(5);
const CALM: Duration = Duration::from_secs(30);
/// How long a first trace is awaited impatiently, from when the pods are up and at most from when the wiring was seen.
const IMPATIENCE: SignedDuration = SignedDuration::from_mins(2);
const IMPATIENCE_IN_ALL: SignedDuration = SignedDuration::from_mins(15);
/// How long spans may come after their trace.
const SPANS_LATE: SignedDuration = SignedDuration::from_mins(1);
/// How long an answer about traces counts when no newer one can be had.
const STALE: SignedDuration = SignedDuration::from_mins(2);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    experiments: BTreeMap<String, Checked>,
    looked: BTreeMap<String, Looked>,
    wired: BTreeMap<Key, Wired>,
    seeded: bool,
    /// Whether OTLP is taken at a tracking URI.
    otlp: Option<(String, bool)>,
}

#[derive(Clone, Debug)]
struct Checked {
    at: Timestamp,
    found: Result<String, (Reason, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Looked {
    at: Timestamp,
    trace: Option<Trace>,
}

/// A workload's current wiring.
#[derive(Clone, Debug)]
struct Wired {
    seen: Timestamp,
    /// Since when pods with this wiring exist.
    since: Option<Timestamp>,
    received: Option<Timestamp>,
}

/// Whether OTLP is taken at the tracking URI of a shared server: asked once per address. `None` where nobody could ask.
pub(super) async fn takes_otlp(mlflow: Option<&Mlflow>, settings: &Settings, memory: &mut Memory) -> Option<bool> {
    let mlflow = mlflow.filter(|_| settings.mode == MlflowMode::Cr)?;
    let uri = mlflow.tracking_uri();
    if memory.otlp.as_ref().is_none_or(|(of, _)| of != uri) {
        memory.otlp = Some((uri.to_owned(), mlflow.takes_otlp().await.ok()?));
    }
    memory.otlp.as_ref().map(|(_, takes)| *takes)
}

/// Makes sure that the workloads' experiments exist. What was found in earlier passes counts until it is time to look again.
pub(super) async fn experiments(
    mlflow: Option<&Mlflow>,
    settings: &Settings,
    judged: &[Judged],
    old: &AgentTracingStatus,
    memory: &mut Memory,
    now: Timestamp,
) -> Experiments {
    let is_ours =
        |j: &&Judged| matches!(j.standing, Standing::Current | Standing::Wanting { .. } | Standing::Waiting(_));
    let names: BTreeSet<&str> = judged
        .iter()
        .filter(is_ours)
        .filter_map(|j| match &j.experiment {
            Target::Name(name) => Some(name.as_str()),
            Target::Id(_) | Target::Unknown => None,
        })
        .collect();
    memory.experiments.retain(|name, _| names.contains(name.as_str()));
    let is_due = |checked: Option<&Checked>| match checked {
        None => true,
        Some(Checked { at, found }) => now.duration_since(*at) >= if found.is_ok() { RECHECK } else { RETRY },
    };
    let due: Vec<_> = names.iter().copied().filter(|name| is_due(memory.experiments.get(*name))).collect();
    if let Some(mlflow) = mlflow {
        for name in due.into_iter().take(MAX_QUESTIONS) {
            let found = match mlflow.ensure_experiment(name, settings.policy.experiment.restore_deleted).await {
                Ok(Experiment::Active(id)) => Ok(id),
                Ok(Experiment::Deleted(_)) => {
                    Err((Reason::ExperimentDeleted, "was deleted in MLflow, which loses its traces".to_owned()))
                }
                Err(mlflow::Error::Rejected { .. }) => {
                    Err((Reason::NameInvalid, "has a name that MLflow refuses".to_owned()))
                }
                Err(error @ (mlflow::Error::Forbidden(_) | mlflow::Error::Unauthorized)) => {
                    Err((Reason::Forbidden, format!("cannot be created: {error}")))
                }
                // The server has trouble: every further question would cost as much.
                Err(error) => {
                    tracing::warn!(namespace = settings.namespace, name = settings.name, %error, "failed to ask MLflow for experiments; trying again");
                    break;
                }
            };
            memory.experiments.insert(name.to_owned(), Checked { at: now, found });
        }
    }
    let known = |name: &str| old.experiments.iter().find(|e| e.name == name).map(|e| e.id.clone());
    let mut out = Experiments::default();
    for name in names {
        match memory.experiments.get(name).map(|c| &c.found) {
            Some(Ok(id)) => {
                out.ensured.insert(name.to_owned(), id.clone());
            }
            Some(Err(problem)) => {
                out.problems.insert(name.to_owned(), problem.clone());
            }
            None => match known(name) {
                Some(id) => {
                    out.ensured.insert(name.to_owned(), id);
                }
                None => {
                    let problem = (Reason::Creating, "is created as soon as MLflow answers".to_owned());
                    out.problems.insert(name.to_owned(), problem);
                }
            },
        }
    }
    out
}

/// Whose traces are looked for.
pub(super) struct Question<'a> {
    pub settings: &'a Settings,
    pub workloads: &'a [Judged],
    pub experiments: &'a Experiments,
    pub old: &'a AgentTracingStatus,
}

/// Looks for the newest traces of the current workloads. Says when to look again.
pub(super) async fn traces(
    ctx: &Context,
    mlflow: Option<&Mlflow>,
    question: &Question<'_>,
    memory: &mut Memory,
    now: Timestamp,
) -> Result<(BTreeMap<String, Evidence>, Duration), Error> {
    let Question { settings, workloads, experiments, old } = *question;
    let current: Vec<_> = workloads.iter().filter(|j| j.standing == Standing::Current).collect();
    remember(memory, &current, old, now);
    let ids: BTreeMap<&str, &str> = current
        .iter()
        .filter_map(|j| match &j.experiment {
            Target::Name(name) => Some((j.uid.as_str(), experiments.ensured.get(name)?.as_str())),
            Target::Id(id) => Some((j.uid.as_str(), id.as_str())),
            Target::Unknown => None,
        })
        .collect();
    let hurried: BTreeSet<&str> = current
        .iter()
        .filter(|j| memory.wired.get(&Key::of_wiring(j)).is_some_and(|wired| is_awaited(j, wired, now)))
        .filter_map(|j| ids.get(j.uid.as_str()).copied())
        .collect();
    if let Some(mlflow) = mlflow {
        look(mlflow, &ids, &hurried, memory, now).await;
    }

    let mut evidence = BTreeMap::new();
    for workload in current {
        let Some(wired) = memory.wired.get_mut(&Key::of_wiring(workload)) else { continue };
        let looked = ids.get(workload.uid.as_str()).and_then(|id| memory.looked.get(*id));
        let looked = looked.filter(|l| now.duration_since(l.at) < STALE);
        if let Some(Looked { trace: Some(trace), .. }) = looked {
            // The pods are asked once, when there is something to compare them with.
            if wired.since.is_none() {
                wired.since = match workload.kind {
                    // Pods of a Job go, and their template is older than they are; Pods are their own template.
                    Kind::Job | Kind::Pod => workload.created,
                    Kind::CronJob => Some(wired.seen),
                    // Without pods there is nothing to compare with.
                    _ if workload.rollout.available == 0 => None,
                    _ => observe::wired_since(ctx, &settings.namespace, workload).await?,
                };
            }
            if trace.has_spans && wired.since.is_some_and(|since| trace.time >= since) {
                wired.received = wired.received.max(Some(trace.time));
            }
        }
        let found = match (wired.received, looked) {
            (Some(time), _) => Evidence::Received(time),
            (None, None) => Evidence::NotAsked,
            (None, Some(Looked { trace: Some(trace), .. })) if is_spanless(trace, wired.since, now) => {
                Evidence::WithoutSpans
            }
            (None, Some(_)) => Evidence::Nothing,
        };
        evidence.insert(workload.uid.clone(), found);
    }
    Ok((evidence, if hurried.is_empty() { CALM } else { SOON }))
}

/// Keeps one entry per current wiring; a changed one starts over.
fn remember(memory: &mut Memory, current: &[&Judged], old: &AgentTracingStatus, now: Timestamp) {
    let first = !std::mem::replace(&mut memory.seeded, true);
    let keys: BTreeSet<Key> = current.iter().map(|j| Key::of_wiring(j)).collect();
    memory.wired.retain(|key, _| keys.contains(key));
    for workload in current {
        let Entry::Vacant(entry) = memory.wired.entry(Key::of_wiring(workload)) else { continue };
        // After a restart the status tells what was seen of this wiring; the pods that sent it may be gone.
        let row = old
            .workloads
            .iter()
            .filter(|_| first)
            .find(|w| w.kind == workload.listed_kind() && w.name == workload.name);
        let received = row.and_then(|w| w.last_trace_time.as_deref()?.parse().ok());
        entry.insert(Wired { seen: now, since: received, received });
    }
}

fn is_awaited(workload: &Judged, wired: &Wired, now: Timestamp) -> bool {
    let up = workload.rollout.available_since.unwrap_or(now);
    wired.received.is_none()
        && now.duration_since(up) < IMPATIENCE
        && now.duration_since(wired.seen) < IMPATIENCE_IN_ALL
}

fn is_spanless(trace: &Trace, since: Option<Timestamp>, now: Timestamp) -> bool {
    let of_this_wiring = since.is_some_and(|since| trace.time >= since);
    of_this_wiring && !trace.has_spans && trace.finished && now.duration_since(trace.time) > SPANS_LATE
}

async fn look(
    mlflow: &Mlflow,
    ids: &BTreeMap<&str, &str>,
    hurried: &BTreeSet<&str>,
    memory: &mut Memory,
    now: Timestamp,
) {
    let wanted: BTreeSet<&str> = ids.values().copied().collect();
    memory.looked.retain(|id, _| wanted.contains(id.as_str()));
    let is_due = |id: &&str| {
        let pace = if hurried.contains(*id) { SOON } else { CALM };
        // A pass may come a little early.
        memory.looked.get(*id).is_none_or(|l| now.duration_since(l.at).unsigned_abs() + Duration::from_secs(1) >= pace)
    };
    let mut due: Vec<_> = wanted.iter().copied().filter(is_due).collect();
    due.sort_by_key(|id| memory.looked.get(*id).map(|l| l.at));
    for id in due.into_iter().take(MAX_QUESTIONS) {
        match newest(mlflow, id, now).await {
            Ok(trace) => {
                memory.looked.insert(id.to_owned(), Looked { at: now, trace });
            }
            Err(error) => {
                tracing::warn!(id, %error, "failed to look for traces; trying again");
                break;
            }
        }
    }
}

/// The newest trace or, where its spans may still be on their way, the newest of those that have had their time: of an agent
/// that is asked every few seconds the newest one is always too young to be told spanless.
async fn newest(mlflow: &Mlflow, id: &str, now: Timestamp) -> Result<Option<Trace>, mlflow::Error> {
    let newest = mlflow.latest_trace(id, None).await?;
    match newest {
        Some(Trace { time, has_spans: false, .. }) if now.duration_since(time) <= SPANS_LATE => {
            Ok(mlflow.latest_trace(id, Some(now - SPANS_LATE)).await?.or(newest))
        }
        _ => Ok(newest),
    }
}
