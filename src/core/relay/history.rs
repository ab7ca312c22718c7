//! What the operator makes of a relay's answers, one after the other.
//!
//! The relay counts since its start, so that what an answer leaves out is no news. A request that waits for a moment is none
//! either: MLflow was slow, or what was held is being sent.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::cause::{Cause, Scope};
use super::evidence::{Evidence, HeldEvidence, SpoolEvidence, WorkloadEvidence};
use super::report::{Held, RelayReport, SenderReport};
use super::sender::Sender;
use crate::core::workloads::rhythm::usual_gap;

/// The answers of a relay so far.
#[derive(Debug, Default)]
pub struct History {
    senders: BTreeMap<String, SenderHistory>,
    held: Option<HeldEvidence>,
    spool: SpoolEvidence,
}

#[derive(Debug, Default)]
struct SenderHistory {
    held: u64,
    /// Since when some wait, as far as that was seen.
    held_since: Option<Timestamp>,
    /// What holds up this workload alone.
    lane_cause: Option<Cause>,
    /// When it was said last that MLflow refuses single requests.
    refused_at: Option<Timestamp>,
    last_forwarded: Option<Timestamp>,
    /// Times of requests that MLflow took, some of them.
    samples: Vec<Timestamp>,
}

impl History {
    /// Notes an answer.
    pub fn note(&mut self, evidence: Evidence, now: Timestamp) {
        let Evidence { mut workloads, held, spool } = evidence;
        (self.held, self.spool) = (held, spool);
        // Whoever reaches the relay's port may write any name there.
        workloads.retain(|name, _| name.parse::<Sender>().is_ok_and(|sender| sender.to_string() == *name));
        self.senders.retain(|name, known| {
            let is_recent = known.last_forwarded.is_some_and(|last| now.duration_since(last) < FORGOTTEN);
            workloads.contains_key(name) || is_recent
        });
        for (name, known) in &mut self.senders {
            if !workloads.contains_key(name) {
                known.note(&WorkloadEvidence::default(), now);
            }
        }
        for (name, evidence) in workloads {
            self.senders.entry(name).or_default().note(&evidence, now);
        }
    }

    /// What is told of it.
    pub fn report(&self, complete: bool, now: Timestamp) -> RelayReport {
        let of_all = self.held.as_ref().filter(|held| lasts(held.since, now));
        let of_all = of_all.map(|held| (cause(&held.cause), whole(held.since)));
        let senders: BTreeMap<_, _> =
            self.senders.iter().map(|(name, s)| (name.clone(), s.report(of_all, now))).collect();
        let percent = self.spool.percent();
        RelayReport {
            at: now,
            complete,
            held: self.held(&senders, of_all),
            senders,
            refused: of_all.map(|(cause, _)| cause).filter(|cause| REFUSALS.contains(cause)),
            spool_percent: (percent >= SPOOL_TOLD).then_some(percent / SPOOL_STEP * SPOOL_STEP),
        }
    }

    /// What is told of what waits: one cause, that of everybody before that of single workloads, and of these the oldest.
    fn held(&self, senders: &BTreeMap<String, SenderReport>, of_all: Option<(Cause, Timestamp)>) -> Option<Held> {
        let with_cause = self.senders.iter().filter_map(|(name, known)| {
            let cause = senders.get(name)?.cause?;
            Some((name, known, cause, known.held_since?))
        });
        let mut told: Vec<_> = with_cause.collect();
        let oldest =
            told.iter().map(|(_, _, cause, since)| (*since, *cause)).min().map(|(since, cause)| (cause, since));
        let (cause, since) = of_all.filter(|_| !told.is_empty()).or(oldest)?;
        told.retain(|(_, _, of, _)| *of == cause);
        told.sort_by(|(a, one, ..), (b, other, ..)| (coarse(other.held), a).cmp(&(coarse(one.held), b)));
        let named = told.iter().take(NAMED).map(|(name, known, ..)| ((*name).clone(), coarse(known.held)));
        Some(Held {
            cause,
            since: whole(since),
            requests: coarse(told.iter().map(|(_, known, ..)| known.held).fold(0, u64::saturating_add)),
            senders: named.collect(),
            others: told.len().saturating_sub(NAMED),
        })
    }
}

impl SenderHistory {
    fn note(&mut self, evidence: &WorkloadEvidence, now: Timestamp) {
        let WorkloadEvidence { accepted: _, forwarded: _, held, last_forwarded, cause: why } = evidence;
        self.held = *held;
        self.held_since = (*held > 0).then(|| self.held_since.unwrap_or(now));
        let why = why.as_deref().map(cause);
        self.lane_cause = why.filter(|cause| cause.scope() == Scope::Lane);
        // The next request that MLflow takes hides it, and it is tried again every five minutes.
        self.refused_at = match why {
            Some(Cause::Failed) => Some(now),
            _ => self.refused_at.filter(|at| *held > 0 && now.duration_since(*at) < REFUSED),
        };
        let newer = last_forwarded.filter(|at| self.last_forwarded.is_none_or(|known| *at > known));
        let Some(last) = newer else { return };
        self.last_forwarded = Some(last);
        if self.samples.last().is_none_or(|sample| last.duration_since(*sample) >= SAMPLED) {
            self.samples.push(last);
            let surplus = self.samples.len().saturating_sub(SAMPLES);
            self.samples.drain(..surplus);
        }
    }

    fn report(&self, of_all: Option<(Cause, Timestamp)>, now: Timestamp) -> SenderReport {
        let own = self.lane_cause.or_else(|| self.refused_at.map(|_| Cause::Failed));
        let own = own.filter(|_| self.held_since.is_some_and(|since| lasts(since, now)));
        let holds = self.held > 0;
        SenderReport {
            last_forwarded: self.last_forwarded.and_then(|at| Timestamp::from_millisecond(at.as_millisecond()).ok()),
            holds,
            cause: of_all.map(|(cause, _)| cause).or(own).filter(|_| holds),
            usual_gap: usual_gap(&self.samples).filter(|_| self.samples.len() >= FEWEST),
        }
    }
}

/// A cause that this operator does not know is told as one that the log of the relay explains.
fn cause(name: &str) -> Cause {
    Cause::from_name(name).unwrap_or(Cause::Failed)
}

fn lasts(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) >= TOLD
}

/// The largest of 1, 2, 5, 10, 20, 50 and so on that is no more.
fn coarse(count: u64) -> u64 {
    let mut power = 1;
    while count / power >= 10 {
        power *= 10;
    }
    [5_u64, 2, 1].into_iter().filter_map(|step| step.checked_mul(power)).find(|step| *step <= count).unwrap_or(0)
}

/// Status has whole seconds.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// What waits for so long is told.
const TOLD: SignedDuration = SignedDuration::from_secs(10);
/// How long it counts that MLflow refused a single request that is held.
const REFUSED: SignedDuration = SignedDuration::from_mins(6);
/// A relay that started anew knows nothing of who sent before; the operator does for so long.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// Times that make a rhythm, how many it takes, and how far they are apart: ten minutes in which somebody asks an agent are none.
const SAMPLES: usize = 20;
const FEWEST: usize = 12;
const SAMPLED: SignedDuration = SignedDuration::from_secs(60);
/// Workloads that are named.
const NAMED: usize = 3;
/// The spool is told from so many percent on, in steps.
const SPOOL_TOLD: u8 = 80;
const SPOOL_STEP: u8 = 5;
/// MLflow refuses the relay itself.
const REFUSALS: [Cause; 2] = [Cause::Unauthorized, Cause::Forbidden];

#[cfg(test)]
mod tests;
