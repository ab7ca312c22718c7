//! What of the user's is in the place of a part. Then the user's stays and the part is withheld.

use std::path::{Component, Path, PathBuf};

use super::ContainerRef;
use super::fingerprint::of_mount;
use super::list::foreign_entry;
use super::pod::{live_init_containers, live_volumes};
use super::record::Record;
use super::view::{Container, Mount, PodSpec, Volume, Workload};
use crate::core::wiring::parts::PartKind;

/// What of the user's stands where a part should be, or keeps its mount points from being made.
pub(super) fn conflict<'w>(
    part: &PartKind,
    workload: &Workload<'_>,
    record: Option<&Record>,
    mut agents: impl Iterator<Item = ContainerRef<'w, 'w>>,
) -> Option<String> {
    let none = Record::default();
    let record = record.unwrap_or(&none);
    let spec = &workload.pod;
    let volumes = live_volumes(spec, &record.pod);
    if let Some(name) = foreign_entry(&volumes, &record.pod.volumes, |name| part.has_volume(name)) {
        return Some(format!("volume/{name}"));
    }
    let mut claims = workload.claims.iter().filter_map(|claim| claim.metadata.name.as_deref());
    if let Some(name) = claims.find(|name| part.has_volume(name)) {
        return Some(format!("volumeClaimTemplate/{name}"));
    }
    let containers = live_init_containers(spec, record);
    if let Some(name) = foreign_entry(&containers, &record.pod.init_containers, |name| part.has_container(name)) {
        return Some(format!("initContainer/{name}"));
    }
    // Names are unique over init and main containers.
    if let Some(container) = spec.containers.iter().find(|container| part.has_container(&container.name)) {
        return Some(format!("container/{}", &*container.name));
    }
    let folders = || part.mounts.iter().map(Path::new);
    agents.find_map(|agent| folders().find_map(|folder| mount_conflict(folder, spec, record, agent.container)))
}

fn mount_conflict(folder: &Path, pod: &PodSpec<'_>, record: &Record, container: &Container<'_>) -> Option<String> {
    let recorded = record.containers.get(&*container.name).map(|c| &c.mounts);
    let is_ours = |mount: &Mount<'_>| {
        let hash = recorded.and_then(|mounts| mounts.get(mount.mount_path.trim_end_matches('/')));
        hash.is_some_and(|hash| *hash == of_mount(mount))
    };
    let mounts = || container.volume_mounts.iter().flatten();
    // One below counts too: its mount point cannot be made in our read-only mount, and the container would not start.
    let foreign = mounts().filter(|mount| !is_ours(mount)).map(|mount| ("mount", normalized(&mount.mount_path)));
    let devices = container.volume_devices.iter().flatten().map(|device| ("device", normalized(&device.device_path)));
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
