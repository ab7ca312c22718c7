//! What a pod gets besides variables: volumes, init containers (among them native side containers) and mounts.
//!
//! Each part is one file here: a [`PartKind`], which stands in `KINDS`, and a function from a policy to its [`PodPart`], which
//! `parts` calls. Injection walks the list and knows none of them.

pub mod authorities;
mod ca_sources;
mod container;
mod fallback;
#[cfg(test)]
pub(in crate::core) mod sample;

use serde_json::Value;

use crate::core::settings::Settings;
pub use authorities::AUTHORITIES;
pub use ca_sources::ca_sources;
pub(in crate::core) use ca_sources::ca_sources_of;
pub(in crate::core) use container::resources;
pub use container::{Image, InitContainer, PodContext};
pub use fallback::{FallbackAnnotations, FallbackReason};

/// What is the same of a part in every pod: how its entries are called, and what of the user's takes their place. On any conflict
/// with an entry of the user's the whole part is withheld, with the variables of its group, and the rest is wired.
#[derive(Debug, PartialEq, Eq)]
pub struct PartKind {
    /// Its volumes that lie on the node: the cluster autoscaler evicts no pod with one unless it is told that it may.
    pub folders: &'static [&'static str],
    /// Its other volumes.
    pub volumes: &'static [&'static str],
    /// Its init containers.
    pub init_containers: &'static [ContainerKind],
    /// Where its volumes are mounted in the containers that are wired.
    pub mounts: &'static [&'static str],
    /// Variables of its group, each with those that a container may have instead: one of these, and ours is left out.
    pub rivals: &'static [(&'static str, &'static [&'static str])],
    /// When a container or a pod keeps its own instead, for the documentation.
    pub users_choice: &'static str,
    /// Where a workload says that it has to do without the init containers.
    pub fallback: Option<FallbackAnnotations>,
}

/// By which fields an init container of ours is known again, besides its command, arguments and security context. Others may be
/// added to it, and it stays ours.
#[derive(Debug, PartialEq, Eq)]
pub struct ContainerKind {
    /// Its name.
    pub name: &'static str,
    /// Its mounts, by their paths.
    pub mounts: &'static [&'static str],
    /// Its variables.
    pub env: &'static [&'static str],
}

/// A part of one workload's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPart {
    /// What is the same in every pod.
    pub kind: &'static PartKind,
    /// Volumes, as a pod has them.
    pub volumes: Vec<Value>,
    /// Init containers, which stand before the agents that are init containers themselves.
    pub init_containers: Vec<InitContainer>,
    /// Mounts of each container that is wired.
    pub mounts: Vec<Value>,
    /// What takes its place where an init container of it cannot be pulled, started or admitted; nothing where there is none.
    pub fallback: Option<Box<PodPart>>,
}

impl PartKind {
    /// Whether a volume of this name would be its own.
    pub fn has_volume(&self, name: &str) -> bool {
        self.folders.contains(&name) || self.volumes.contains(&name)
    }

    /// Whether an init container of this name would be its own.
    pub fn has_container(&self, name: &str) -> bool {
        self.init_containers.iter().any(|container| container.name == name)
    }

    /// The variables of a container's own that take the place of one of its group, beside that one itself.
    pub fn rivals(&self, variable: &str) -> &'static [&'static str] {
        self.rivals.iter().find(|(ours, _)| *ours == variable).map_or(&[], |(_, rivals)| rivals)
    }
}

/// The parts that the pods of an AgentTracing's workloads get.
pub(super) fn parts(settings: &Settings) -> Vec<PodPart> {
    settings.ca.iter().map(authorities::part).collect()
}

/// All that there are: a template that was wired by another AgentTracing, or under another spec, is known again by them.
#[cfg(not(test))]
static KINDS: [&PartKind; 1] = [&AUTHORITIES];
#[cfg(test)]
static KINDS: [&PartKind; 3] = [&AUTHORITIES, &sample::SPOOL, &sample::LIBRARY];

/// Every part that there is.
pub fn kinds() -> impl Iterator<Item = &'static PartKind> {
    KINDS.into_iter()
}

/// Every init container of ours that there is.
pub fn container_kinds() -> impl Iterator<Item = &'static ContainerKind> {
    kinds().flat_map(|kind| kind.init_containers)
}
