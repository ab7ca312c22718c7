//! What is the case with a workload, and what takes the wiring out where it no longer applies.

use json_patch::PatchOperation;

use super::trace_destination::{TraceDestination, experiment_when_ready, trace_destination};
use crate::api::Reason;
use crate::core::decide::{Decision, Leave, decide};
use crate::core::inject::record::RecordError;
use crate::core::inject::view::Workload;
use crate::core::inject::{Note, existing_record, remove_leftovers, uninject};
use crate::core::selection::kind::Kind;
use crate::core::selection::{NotSelected, Selection, SelectionContext, select};
use crate::core::workloads::InjectionState;
use crate::names;

/// What can be the case with a kind: a Job is never changed after its creation.
pub(super) fn restrict_to_kind(kind: Kind, injection_state: InjectionState, wired: bool) -> Option<InjectionState> {
    if kind.template_is_mutable() {
        return Some(injection_state);
    }
    match injection_state {
        InjectionState::OutOfDate { .. } if wired => Some(InjectionState::Current),
        InjectionState::OutOfDate { .. } | InjectionState::Blocked(_) => {
            Some(InjectionState::Skipped { reason: Reason::CreatedUnwired, deliberate: false, leftover: Vec::new() })
        }
        InjectionState::Skipped { reason, deliberate, .. } => {
            Some(InjectionState::Skipped { reason, deliberate, leftover: Vec::new() })
        }
        InjectionState::ToRemove(_) => None,
        InjectionState::Current | InjectionState::FutureVersion | InjectionState::OwnedByOther => Some(injection_state),
    }
}

pub(super) fn injection_state(
    workload: &Workload<'_>,
    tracing: &str,
    context: &SelectionContext<'_>,
) -> Option<(InjectionState, Vec<Note>, TraceDestination)> {
    let plain = |injection_state| Some((injection_state, Vec::new(), TraceDestination::Unknown));
    let skipped = |reason, deliberate| plain(InjectionState::Skipped { reason, deliberate, leftover: Vec::new() });
    match decide(workload, context) {
        Decision::Wire { tracing: by, experiment, injection } if by == tracing => {
            let trace_destination = trace_destination(workload, &injection.notes, experiment);
            let injection_state = match injection.skipped {
                Some(reason) => InjectionState::Skipped {
                    reason,
                    deliberate: reason == Reason::OwnTrackingURI,
                    leftover: injection.patch,
                },
                None if injection.patch.is_empty() => InjectionState::Current,
                None => InjectionState::OutOfDate { hash: injection.hash, patch: injection.patch },
            };
            Some((injection_state, injection.notes, trace_destination))
        }
        Decision::Leave(Leave::Blocked { tracing: by, missing }) if by == tracing => {
            Some((InjectionState::Blocked(missing), Vec::new(), experiment_when_ready(workload, tracing, context)))
        }
        Decision::Leave(Leave::Record { tracing: by, error }) if by == tracing => match error {
            RecordError::FutureVersion(_) => {
                Some((InjectionState::FutureVersion, Vec::new(), experiment_when_ready(workload, tracing, context)))
            }
            RecordError::Unreadable(_) => skipped(Reason::RecordUnreadable, false),
        },
        Decision::Leave(Leave::Record { tracing: by, .. })
            if by.is_empty() && reports_unselected(workload, tracing, context) =>
        {
            skipped(Reason::RecordUnreadable, false)
        }
        Decision::Leave(Leave::Suspended { .. }) => None,
        Decision::Unwire(_) => unselected(workload, tracing, context, NotSelected::OptedOut),
        Decision::Leave(Leave::NotSelected(why)) => unselected(workload, tracing, context, why),
        // It belongs to another AgentTracing; say so if this one wants it too.
        _ => {
            let own: Vec<_> = context.policies.iter().filter(|p| p.settings.name == tracing).cloned().collect();
            let alone = SelectionContext { policies: &own, ..*context };
            matches!(select(workload, &alone), Selection::One(_)).then_some(())?;
            plain(InjectionState::OwnedByOther)
        }
    }
}

/// A workload that no AgentTracing selects. What carries our wiring is given back, whatever the cause; the rest is reported only
/// where the user should know why it is not wired.
fn unselected(
    workload: &Workload<'_>,
    tracing: &str,
    context: &SelectionContext<'_>,
    why: NotSelected,
) -> Option<(InjectionState, Vec<Note>, TraceDestination)> {
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
    let injection_state = match reason.filter(|_| reports_unselected(workload, tracing, context)) {
        Some(reason) => {
            let leftover = wirer.and_then(|_| removal(workload)).unwrap_or_default();
            InjectionState::Skipped { reason, deliberate: true, leftover }
        }
        // One that another AgentTracing reports is given back by that one.
        None if reason.is_some() && is_reported(workload, context) => return None,
        None if wirer.as_deref() == Some(tracing) => InjectionState::ToRemove(removal(workload)?),
        None => return None,
    };
    Some((injection_state, Vec::new(), TraceDestination::Unknown))
}

/// The AgentTracing whose wiring a workload carries, or the rest of it.
pub(super) fn wirer(workload: &Workload<'_>) -> Option<String> {
    let record = existing_record(workload).ok()?;
    record.map(|record| record.tracing).or_else(|| workload.metadata.label(names::LABEL_WIRED).map(str::to_owned))
}

/// What takes everything of ours out, also where somebody stripped the template and left what is beside it.
pub(super) fn removal(workload: &Workload<'_>) -> Option<Vec<PatchOperation>> {
    let patch = uninject(workload).ok()?;
    let patch = if patch.is_empty() { remove_leftovers(&workload.metadata, false) } else { patch };
    (!patch.is_empty()).then_some(patch)
}

/// What no AgentTracing selects is reported by the oldest that would select it otherwise.
fn reports_unselected(workload: &Workload<'_>, tracing: &str, context: &SelectionContext<'_>) -> bool {
    let willing = context.policies.iter().filter(|p| p.settings.selects(workload));
    let oldest = willing.min_by_key(|p| p.settings.age());
    oldest.is_some_and(|p| p.settings.name == tracing)
}

/// Whether any AgentTracing reports it.
fn is_reported(workload: &Workload<'_>, context: &SelectionContext<'_>) -> bool {
    context.policies.iter().any(|p| p.settings.selects(workload))
}
