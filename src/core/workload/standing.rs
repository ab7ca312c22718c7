//! What is the case with a workload, and what takes the wiring out where it no longer applies.

use json_patch::PatchOperation;

use super::Standing;
use super::target::{Target, planned, target};
use crate::api::Reason;
use crate::core::decide::{Decision, Leave, decide};
use crate::core::inject::{Note, existing_record, remainder, uninject};
use crate::core::kind::Kind;
use crate::core::record::RecordError;
use crate::core::select::{NotSelected, Selection, Surroundings, select};
use crate::core::view::Workload;
use crate::names;

/// What can be the case with a kind: a Job is never changed after its creation.
pub(super) fn possible(kind: Kind, standing: Standing, wired: bool) -> Option<Standing> {
    if kind.has_second_chance() {
        return Some(standing);
    }
    match standing {
        Standing::Wanting { .. } if wired => Some(Standing::Current),
        Standing::Wanting { .. } | Standing::Waiting(_) => {
            Some(Standing::Skipped { reason: Reason::CreatedUnwired, deliberate: false, leftover: Vec::new() })
        }
        Standing::Skipped { reason, deliberate, .. } => {
            Some(Standing::Skipped { reason, deliberate, leftover: Vec::new() })
        }
        Standing::Stray(_) => None,
        Standing::Current | Standing::Newer | Standing::Elsewhere => Some(standing),
    }
}

pub(super) fn stand(
    workload: &Workload<'_>,
    tracing: &str,
    around: &Surroundings<'_>,
) -> Option<(Standing, Vec<Note>, Target)> {
    let plain = |standing| Some((standing, Vec::new(), Target::Unknown));
    let skipped = |reason, deliberate| plain(Standing::Skipped { reason, deliberate, leftover: Vec::new() });
    match decide(workload, around) {
        Decision::Wire { tracing: by, experiment, injection } if by == tracing => {
            let target = target(workload, &injection.notes, experiment);
            let standing = match injection.skipped {
                Some(reason) => Standing::Skipped {
                    reason,
                    deliberate: reason == Reason::OwnTrackingURI,
                    leftover: injection.patch,
                },
                None if injection.patch.is_empty() => Standing::Current,
                None => Standing::Wanting { hash: injection.hash, patch: injection.patch },
            };
            Some((standing, injection.notes, target))
        }
        Decision::Leave(Leave::Waiting { tracing: by, missing }) if by == tracing => {
            Some((Standing::Waiting(missing), Vec::new(), planned(workload, tracing, around)))
        }
        Decision::Leave(Leave::Record { tracing: by, error }) if by == tracing => match error {
            RecordError::Newer(_) => Some((Standing::Newer, Vec::new(), planned(workload, tracing, around))),
            RecordError::Unreadable(_) => skipped(Reason::RecordUnreadable, false),
        },
        Decision::Leave(Leave::Record { tracing: by, .. })
            if by.is_empty() && reports_unselected(workload, tracing, around) =>
        {
            skipped(Reason::RecordUnreadable, false)
        }
        Decision::Leave(Leave::Suspended { .. }) => None,
        Decision::Unwire(_) => unselected(workload, tracing, around, NotSelected::OptedOut),
        Decision::Leave(Leave::NotSelected(why)) => unselected(workload, tracing, around, why),
        // It belongs to another AgentTracing; say so if this one wants it too.
        _ => {
            let own: Vec<_> = around.policies.iter().filter(|p| p.name == tracing).cloned().collect();
            let alone = Surroundings { policies: &own, ..*around };
            matches!(select(workload, &alone), Selection::One(_)).then_some(())?;
            plain(Standing::Elsewhere)
        }
    }
}

/// A workload that no AgentTracing selects. What carries our wiring is given back, whatever the cause; the rest is reported only
/// where the user should know why it is not wired.
fn unselected(
    workload: &Workload<'_>,
    tracing: &str,
    around: &Surroundings<'_>,
    why: NotSelected,
) -> Option<(Standing, Vec<Note>, Target)> {
    let reason = match why {
        NotSelected::OptedOut => Some(Reason::OptedOut),
        NotSelected::Windows => Some(Reason::Windows),
        NotSelected::NamespaceNotLabelled
        | NotSelected::NamespaceExcluded
        | NotSelected::OperatorsOwn
        | NotSelected::MirrorPod
        | NotSelected::OfCronJob
        | NotSelected::Kind
        | NotSelected::NoMatch => None,
    };
    let wirer = wirer(workload);
    let standing = match reason.filter(|_| reports_unselected(workload, tracing, around)) {
        Some(reason) => {
            let leftover = wirer.and_then(|_| removal(workload)).unwrap_or_default();
            Standing::Skipped { reason, deliberate: true, leftover }
        }
        // One that another AgentTracing reports is given back by that one.
        None if reason.is_some() && is_reported(workload, around) => return None,
        None if wirer.as_deref() == Some(tracing) => Standing::Stray(removal(workload)?),
        None => return None,
    };
    Some((standing, Vec::new(), Target::Unknown))
}

/// The AgentTracing whose wiring a workload carries, or the rest of it.
pub(super) fn wirer(workload: &Workload<'_>) -> Option<String> {
    let record = existing_record(workload).ok()?;
    record.map(|record| record.tracing).or_else(|| workload.metadata.label(names::LABEL_WIRED).map(str::to_owned))
}

/// What takes everything of ours out, also where somebody stripped the template and left what is beside it.
pub(super) fn removal(workload: &Workload<'_>) -> Option<Vec<PatchOperation>> {
    let patch = uninject(workload).ok()?;
    let patch = if patch.is_empty() { remainder(&workload.metadata, false) } else { patch };
    (!patch.is_empty()).then_some(patch)
}

/// What no AgentTracing selects is reported by the oldest that would select it otherwise.
fn reports_unselected(workload: &Workload<'_>, tracing: &str, around: &Surroundings<'_>) -> bool {
    let willing = around.policies.iter().filter(|p| p.selects(workload));
    let oldest = willing.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    oldest.is_some_and(|p| p.name == tracing)
}

/// Whether any AgentTracing reports it.
fn is_reported(workload: &Workload<'_>, around: &Surroundings<'_>) -> bool {
    around.policies.iter().any(|p| p.selects(workload))
}
