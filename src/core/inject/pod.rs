//! The pod's lists as they are, and the patch between is and ought.

use json_patch::PatchOperation;

use super::entries::ManagedEntries;
use super::fingerprint::{of_container_as, of_mount, of_volume_as};
use super::list::{List, LiveEntries, reconcile_list};
use super::record::{Record, RecordedPod, value_hash};
use super::view::{Container, Mount, PodSpec, Volume};
use super::{ContainerRef, INIT_CONTAINERS};
use crate::core::selection::kind::Kind;

/// Brings the pod's lists to what is wanted.
pub(super) fn reconcile_pod(
    kind: Kind,
    pod: &PodSpec<'_>,
    wanted: &ManagedEntries,
    old: &Record,
    record: &mut Record,
    patch: &mut Vec<PatchOperation>,
) -> RecordedPod {
    let list = |name: &'static str| List {
        path: [kind.template(), &["spec", name]].concat(),
        key: "name",
        created: format!("pod.{name}"),
        used: Vec::new(),
        before: None,
    };
    let recorded = &old.pod;
    let ManagedEntries { volumes, init_containers, image_pull_secrets, agent } = wanted;
    let of_volumes = List { used: used_volumes(pod, old), ..list("volumes") };
    // Init containers run in their order, and an agent that is one needs what they bring when it starts.
    let of_init_containers = List { before: *agent, ..list("initContainers") };
    RecordedPod {
        volumes: reconcile_list(&of_volumes, &live_volumes(pod, recorded), volumes, &recorded.volumes, record, patch),
        init_containers: reconcile_list(
            &of_init_containers,
            &live_init_containers(pod, old),
            init_containers,
            &recorded.init_containers,
            record,
            patch,
        ),
        image_pull_secrets: reconcile_list(
            &list("imagePullSecrets"),
            &pod.image_pull_secrets
                .as_ref()
                .map(|list| list.iter().map(|secret| (secret.name.to_string(), value_hash(&secret.name))).collect()),
            image_pull_secrets,
            &recorded.image_pull_secrets,
            record,
            patch,
        ),
    }
}

/// Volumes that the user's mounts refer to, in a container of theirs, or in one of ours that they edited. A workload whose
/// mounts have no volume is refused by the API server.
fn used_volumes<'w>(pod: &'w PodSpec<'_>, old: &Record) -> Vec<&'w str> {
    let edited = |container: &&Container<'_>| {
        let recorded = old.pod.init_containers.get(&*container.name);
        recorded.is_none_or(|hash| *hash != of_container_as(container, old))
    };
    let mut used = Vec::new();
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten().filter(edited)) {
        let ours = old.containers.get(&*container.name).map(|recorded| &recorded.mounts);
        let is_ours = |mount: &Mount<'_>| {
            let hash = ours.and_then(|mounts| mounts.get(mount.mount_path.trim_end_matches('/')));
            hash.is_some_and(|hash| *hash == of_mount(mount))
        };
        used.extend(container.volume_mounts.iter().flatten().filter(|mount| !is_ours(mount)).map(|mount| &*mount.name));
    }
    used
}

/// Whether this container is an init container that the record says is ours, and still is: a native side container is no agent.
pub(super) fn is_init_container_of_ours(container_ref: &ContainerRef<'_, '_>, record: &Record) -> bool {
    let hash = record.pod.init_containers.get(&*container_ref.container.name);
    let is_as_recorded = |hash: &String| *hash == of_container_as(container_ref.container, record);
    container_ref.list == INIT_CONTAINERS && hash.is_some_and(is_as_recorded)
}

pub(super) fn live_volumes(pod: &PodSpec<'_>, recorded: &RecordedPod) -> LiveEntries {
    let of = |volume: &Volume<'_>| of_volume_as(volume, recorded.volumes.get(&*volume.name));
    pod.volumes.as_ref().map(|list| list.iter().map(|volume| (volume.name.to_string(), of(volume))).collect())
}

pub(super) fn live_init_containers(pod: &PodSpec<'_>, recorded: &Record) -> LiveEntries {
    let of = |container: &Container<'_>| of_container_as(container, recorded);
    let list = pod.init_containers.as_ref();
    list.map(|list| list.iter().map(|container| (container.name.to_string(), of(container))).collect())
}

pub(super) fn live_mounts(container: &Container<'_>) -> LiveEntries {
    let mounts = container.volume_mounts.as_ref();
    mounts.map(|list| list.iter().map(|m| (m.mount_path.trim_end_matches('/').to_owned(), of_mount(m))).collect())
}
