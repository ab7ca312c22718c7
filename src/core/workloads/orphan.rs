//! Workloads that carry the wiring of an AgentTracing that is gone.

use json_patch::PatchOperation;

use super::injection_state::{removal, wirer};
use super::live::LiveWorkload;
use crate::core::inject::view::Workload;
use crate::core::selection::kind::Kind;
use crate::core::selection::{Selection, SelectionContext, select};
use crate::core::workloads::resource;

/// A workload that carries the wiring of an AgentTracing that is no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    /// Kind.
    pub kind: Kind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Resource version; guards the patch.
    pub resource_version: String,
    /// The AgentTracing.
    pub tracing: String,
    /// Whether taking it out replaces pods.
    pub rolls: bool,
    /// Whether these are available now.
    pub costs: bool,
    /// What takes it out.
    pub patch: Vec<PatchOperation>,
}

impl Orphan {
    /// As `kubectl` takes it.
    pub fn resource(&self) -> String {
        resource(self.kind, &self.name)
    }
}

/// The namespace of a workload and the AgentTracing whose wiring it carries, if any.
pub fn wired_by(kind: Kind, json: &str) -> Result<Option<(String, String)>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    let namespace = workload.metadata.namespace.as_deref().unwrap_or_default();
    Ok(wirer(&workload).map(|tracing| (namespace.to_owned(), tracing)))
}

/// A wired workload that nobody looks after: its AgentTracing is gone, and no other one takes it.
pub fn orphan(kind: Kind, json: &str, context: &SelectionContext<'_>) -> Result<Option<Orphan>, serde_json::Error> {
    let gone = |orphan: &Orphan| context.policies.iter().all(|policy| policy.settings.name != orphan.tracing);
    let Some(orphan) = wired(kind, json)?.filter(gone) else { return Ok(None) };
    let workload = Workload::parse(kind, json)?;
    let selected = matches!(select(&workload, context), Selection::One(_));
    Ok((!selected).then_some(orphan))
}

/// A wired workload, whoever looks after it.
pub fn wired(kind: Kind, json: &str) -> Result<Option<Orphan>, serde_json::Error> {
    let workload = Workload::parse(kind, json)?;
    let Some(tracing) = wirer(&workload) else { return Ok(None) };
    let Some(patch) = removal(&workload) else { return Ok(None) };
    let live = LiveWorkload::parse(json)?;
    let rollout = live.rollout(kind);
    Ok(Some(Orphan {
        kind,
        namespace: workload.metadata.namespace.as_deref().unwrap_or_default().to_owned(),
        name: workload.name().to_owned(),
        uid: live.metadata.uid,
        resource_version: live.metadata.resource_version,
        tracing,
        rolls: rollout.replaces_pods(),
        costs: rollout.has_to_lose(),
        patch,
    }))
}
