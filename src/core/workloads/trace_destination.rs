//! Where a workload's traces go.

use crate::core::decide::{Decision, decide};
use crate::core::inject::view::{Container, EnvEntry, Workload};
use crate::core::inject::{Note, existing_record};
use crate::core::selection::SelectionContext;
use crate::core::selection::kind::Kind;
use crate::core::wiring::{EXPERIMENT_GROUP, TRACKING_URI, expand};

/// Where the traces of a workload go.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TraceDestination {
    /// The experiment of this name.
    Name(String),
    /// The experiment with this numeric id.
    Id(String),
    /// It cannot be seen: the value comes from elsewhere.
    #[default]
    Unknown,
}

impl TraceDestination {
    /// As it stands in status.
    pub fn display(&self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name.clone()),
            Self::Id(id) => Some(format!("id {id}")),
            Self::Unknown => None,
        }
    }
}

/// The experiment of a workload that cannot be wired yet: as if every fact were known, so that no experiment is made which
/// the user's own choice leaves empty.
pub(super) fn experiment_when_ready(
    workload: &Workload<'_>,
    tracing: &str,
    context: &SelectionContext<'_>,
) -> TraceDestination {
    let mut policies: Vec<_> = context.policies.iter().filter(|p| p.settings.name == tracing).cloned().collect();
    for policy in &mut policies {
        policy.facts.tracking_uri.get_or_insert_default();
        policy.settings.experiment.pin = false;
        (policy.facts.bound, policy.facts.relay) = (None, true);
    }
    match decide(workload, &SelectionContext { policies: &policies, ..*context }) {
        Decision::Wire { experiment, injection, .. } => trace_destination(workload, &injection.notes, experiment),
        _ => TraceDestination::Unknown,
    }
}

/// The experiment that the first wired container logs to. `MLFLOW_TRACING_DESTINATION` wins over a name, a name over an id.
pub(super) fn trace_destination(workload: &Workload<'_>, notes: &[Note], experiment: String) -> TraceDestination {
    let kept = |container: &Container<'_>| {
        notes.iter().find_map(|note| match note {
            Note::KeptByUser { container: name, variables } if **name == *container.name => Some(variables),
            _ => None,
        })
    };
    let record = existing_record(workload).ok().flatten();
    let wired = |container: &&Container<'_>| match &record {
        Some(record) => record.containers.contains_key(&*container.name),
        None => !kept(container).is_some_and(|variables| variables.iter().any(|v| v == TRACKING_URI)),
    };
    let Some(container) = workload.pod.containers.iter().find(wired) else {
        return TraceDestination::Name(experiment);
    };
    let own = |variable: &str| {
        // A Pod has no notes: read its environment as it is.
        let is_own = || kept(container).is_some_and(|variables| variables.iter().any(|v| v == variable));
        (workload.kind == Kind::Pod || is_own()).then_some(())?;
        container.env.iter().flatten().rev().find(|e| &*e.name == variable)
    };
    let [name, id, destination] = EXPERIMENT_GROUP;
    let literal = |entry: &EnvEntry<'_>| {
        let value = entry.value.as_deref().filter(|value| entry.value_from.is_none() && !value.is_empty())?;
        expand(value)
    };
    let numeric = |value: String| match value.bytes().all(|b| b.is_ascii_digit()) {
        true => TraceDestination::Id(value),
        false => TraceDestination::Unknown,
    };
    if let Some(entry) = own(destination) {
        literal(entry).map_or(TraceDestination::Unknown, numeric)
    } else if let Some(entry) = own(name) {
        literal(entry).map_or(TraceDestination::Unknown, TraceDestination::Name)
    } else if let Some(entry) = own(id) {
        literal(entry).map_or(TraceDestination::Unknown, numeric)
    } else {
        TraceDestination::Name(experiment)
    }
}
