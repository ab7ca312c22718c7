//! The parts of a pod as entries of its lists, each with the fingerprint by which it is known again.

use json_patch::PatchOperation;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fingerprint::{of_container, of_mount, of_volume};
use super::list::ManagedEntry;
use super::record::value_hash;
use super::view::{Container, Mount, PodSpec, Volume, Workload};
use super::{INIT_CONTAINERS, add, pointer, remove, test};
use crate::core::selection::kind::Kind;
use crate::core::settings::Platform;
use crate::core::wiring::parts::{PodContext, PodPart, resources};

/// What the pod gets.
#[derive(Default)]
pub(in crate::core) struct ManagedEntries {
    pub volumes: Vec<ManagedEntry>,
    pub init_containers: Vec<ManagedEntry>,
    pub image_pull_secrets: Vec<ManagedEntry>,
    /// The first init container that is an agent (a native side container).
    pub agent: Option<usize>,
}

impl ManagedEntries {
    /// What the parts are in this pod.
    pub(super) fn of(parts: &[&PodPart], context: &PodContext<'_>, agent: Option<usize>) -> Self {
        let mut entries = Self { agent, ..Self::default() };
        for part in parts {
            entries.volumes.extend(part.volumes.iter().map(volume));
            for container in &part.init_containers {
                entries.init_containers.push(init_container(container.name, container.render(context)));
                for name in container.pull_secrets(context.platform) {
                    // Several containers may have the same image.
                    if entries.image_pull_secrets.iter().all(|known| known.name != *name) {
                        entries.image_pull_secrets.push(pull_secret(name));
                    }
                }
            }
        }
        entries
    }

    /// Its volumes that lie on the node, as the cluster autoscaler wants them named; empty where there are none.
    pub(super) fn folders(&self) -> String {
        let folders = self.volumes.iter().filter(|managed| managed.value.get("emptyDir").is_some());
        let mut names: Vec<_> = folders.map(|managed| managed.name.as_str()).collect();
        names.sort_unstable();
        names.join(",")
    }
}

/// What the parts are in the pod of a workload of which the first container is the agent.
pub(super) fn entries_of_first(
    workload: &Workload<'_>,
    parts: &[&PodPart],
    platform: &Platform,
) -> Option<ManagedEntries> {
    let pod = &workload.pod;
    Some(ManagedEntries::of(parts, &PodContext { pod, agent: pod.containers.first()?, platform }, None))
}

/// The mounts of each container that is wired.
pub(super) fn mounts(parts: &[&PodPart]) -> Vec<ManagedEntry> {
    let mount = |value: &Value| {
        let view = Mount::deserialize(value).unwrap_or_default();
        ManagedEntry { name: view.mount_path.to_string(), fingerprint: of_mount(&view), value: value.clone() }
    };
    parts.iter().flat_map(|part| &part.mounts).map(mount).collect()
}

fn volume(value: &Value) -> ManagedEntry {
    let view = Volume::deserialize(value).unwrap_or_default();
    ManagedEntry { name: view.name.to_string(), fingerprint: of_volume(&view), value: value.clone() }
}

fn init_container(name: &str, value: Value) -> ManagedEntry {
    let fingerprint = Container::deserialize(&value).map(|container| of_container(&container)).unwrap_or_default();
    ManagedEntry { name: name.to_owned(), value, fingerprint }
}

fn pull_secret(name: &str) -> ManagedEntry {
    ManagedEntry { name: name.to_owned(), value: json!({"name": name}), fingerprint: value_hash(name) }
}

/// Brings image and resources of the init containers that are ours up to date. Neither is worth a rollout of its own.
pub(super) fn renew(kind: Kind, pod: &PodSpec<'_>, wanted: &ManagedEntries, patch: &mut Vec<PatchOperation>) {
    for managed in &wanted.init_containers {
        renew_container(kind, pod, managed, patch);
    }
}

fn renew_container(kind: Kind, pod: &PodSpec<'_>, managed: &ManagedEntry, patch: &mut Vec<PatchOperation>) {
    let mut found = pod.init_containers.iter().flatten().enumerate();
    let Some((index, container)) = found.find(|(_, container)| *container.name == *managed.name) else { return };
    let index = index.to_string();
    let at = |field: &str| pointer(&[kind.template(), &["spec", INIT_CONTAINERS, &index, field]].concat());
    let mut changes = Vec::new();
    if managed.value["image"] != json!(&*container.image) {
        changes.push(add(at("image"), managed.value["image"].clone()));
    }
    match (managed.value.get("resources"), resources(container)) {
        (Some(wanted), found) if found.as_ref() != Some(wanted) => changes.push(add(at("resources"), wanted.clone())),
        (None, Some(_)) => changes.push(remove(at("resources"))),
        _ => {}
    }
    if !changes.is_empty() {
        patch.push(test(at("name"), &container.name));
        patch.append(&mut changes);
    }
}
