//! What of the user's is in the place of the merged certificate authorities. Then the user's stays and ours are withheld.

use std::path::{Component, Path, PathBuf};

use super::ContainerRef;
use super::fingerprint::of_mount;
use super::list::foreign_entry;
use super::pod::{live_init_containers, live_volumes};
use super::record::Record;
use super::view::{Container, Mount, PodSpec, Volume, Workload};
use crate::names;

/// What of the user's stands where the authorities should be, or keeps their mount point from being made.
pub(super) fn conflict<'w>(
    workload: &Workload<'_>,
    record: Option<&Record>,
    mut agents: impl Iterator<Item = ContainerRef<'w, 'w>>,
) -> Option<String> {
    let none = Record::default();
    let record = record.unwrap_or(&none);
    let spec = &workload.pod;
    let volumes = live_volumes(spec, &record.pod);
    let names = [names::CA_VOLUME, names::CA_SOURCES_VOLUME];
    if let Some(name) = foreign_entry(&volumes, &record.pod.volumes, &names) {
        return Some(format!("volume/{name}"));
    }
    let mut claims = workload.claims.iter().filter_map(|claim| claim.metadata.name.as_deref());
    if let Some(name) = claims.find(|name| names.contains(name)) {
        return Some(format!("volumeClaimTemplate/{name}"));
    }
    let containers = live_init_containers(spec, record);
    if let Some(name) = foreign_entry(&containers, &record.pod.init_containers, &[names::MERGE_CA]) {
        return Some(format!("initContainer/{name}"));
    }
    // Names are unique over init and main containers.
    if spec.containers.iter().any(|container| &*container.name == names::MERGE_CA) {
        return Some(format!("container/{}", names::MERGE_CA));
    }
    agents.find_map(|container_ref| mount_conflict(spec, record, container_ref.container))
}

fn mount_conflict(pod: &PodSpec<'_>, record: &Record, container: &Container<'_>) -> Option<String> {
    let recorded = record.containers.get(&*container.name).map(|c| &c.mounts);
    let is_ours = |mount: &Mount<'_>| {
        let hash = recorded.and_then(|mounts| mounts.get(mount.mount_path.trim_end_matches('/')));
        hash.is_some_and(|hash| *hash == of_mount(mount))
    };
    let mounts = || container.volume_mounts.iter().flatten();
    // One below counts too: its mount point cannot be made in our read-only mount, and the container would not start.
    let foreign = mounts().filter(|mount| !is_ours(mount)).map(|mount| ("mount", normalized(&mount.mount_path)));
    let devices = container.volume_devices.iter().flatten().map(|device| ("device", normalized(&device.device_path)));
    let folder = Path::new(names::CA_FOLDER);
    let found = foreign.chain(devices).find(|(_, path)| path.starts_with(folder));
    let read_only = || {
        let parents = mounts().map(|mount| (mount, normalized(&mount.mount_path)));
        // The innermost of them is where the mount point would have to be made.
        let (mount, path) = parents
            .filter(|(_, path)| folder != path && folder.starts_with(path))
            .max_by_key(|(_, path)| path.components().count())?;
        refuses_mount_points(pod, mount).then_some(("mount", path))
    };
    found.or_else(read_only).map(|(what, path)| format!("{what}:{}", path.display()))
}

/// Whether no mount point can be made in a mounted volume: runc would have to make a folder in what cannot be written. The
/// kubelet itself makes those in the volumes whose content it writes.
fn refuses_mount_points(pod: &PodSpec<'_>, mount: &Mount<'_>) -> bool {
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
    let Some(volume) = volume else { return mount.read_only == Some(true) };
    let Volume {
        name: _,
        empty_dir: _,
        config_map,
        projected,
        secret,
        downward_api,
        image,
        persistent_volume_claim,
        csi,
    } = volume;
    let of_the_kubelet = config_map.is_some() || projected.is_some() || secret.is_some() || downward_api.is_some();
    let sources = [persistent_volume_claim, csi];
    let read_only = sources.into_iter().flatten().any(|source| source.read_only == Some(true));
    !of_the_kubelet && (mount.read_only == Some(true) || image.is_some() || read_only)
}

/// An absolute path as the container runtime resolves it: `/tmp//ca-bundle` and `/tmp/x/../ca-bundle` are one place.
fn normalized(path: &str) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    out
}
