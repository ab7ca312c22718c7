//! A bundle that a workload's owner merges, in an init container `merge-ca` of the owner's own. Scripts written for one image
//! make an empty bundle on another, whose system authorities are in another place, and nobody reads what they say.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Fact, State, good, unknown};
use crate::core::inject::record::Record;
use crate::core::kubectl::Kubectl;
use crate::names;

/// Words of shells and of what they run when something is not as the script expects.
const COMPLAINTS: [&str; 7] =
    ["no such file", "permission denied", "no space", "read-only", "not found", "can't ", "cannot "];
/// Characters of a complaint that are shown.
const SHOWN: usize = 200;

/// What is known of such a bundle.
#[derive(Clone, Debug)]
pub struct OwnBundle {
    /// The pod.
    pub pod: String,
    /// A container that mounts it, and where.
    pub container: String,
    /// The folder that `merge-ca` fills.
    pub folder: String,
    /// What `merge-ca` said.
    pub log: Fact<String>,
}

/// The bundle that its owner makes for a running pod that we wired, where a container shares a volume with `merge-ca`.
pub fn own_bundle(pod: &Pod) -> Option<OwnBundle> {
    pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
    let record = Record::parse(pod.metadata.annotations.as_ref()?.get(names::ANNOTATION_RECORD)?).ok()?;
    if record.pod.init_containers.contains_key(names::MERGE_CA) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let merges = spec.init_containers.iter().flatten().find(|container| container.name == names::MERGE_CA)?;
    let mounts = |container: &Container| container.volume_mounts.clone().unwrap_or_default();
    let fills = mounts(merges);
    let shared = spec.containers.iter().find_map(|container| {
        let mount = mounts(container).into_iter().find(|mount| fills.iter().any(|fills| fills.name == mount.name))?;
        Some((container.name.clone(), mount.mount_path))
    });
    let (container, folder) = shared?;
    Some(OwnBundle { pod: pod.metadata.name.clone()?, container, folder, log: Fact::Known(String::new()) })
}

impl OwnBundle {
    /// Only its owner knows what belongs into it: what the init container complains of is shown, and how to look.
    pub(super) fn assess(&self, namespace: &str) -> (State, String) {
        let Self { pod, container, folder, log } = self;
        let grep = ["--", "grep", "-rc", "BEGIN", folder];
        let look = Kubectl::new("exec").namespace(namespace).arg(pod).arg("-c").arg(container).args(grep);
        match log {
            Fact::Known(log) => match complaint(log) {
                Some(line) => unknown(format!(
                    "its own init container {} says \"{line}\", so certificates may be missing from what it makes; count them: {look}",
                    names::MERGE_CA
                )),
                None => good(format!(
                    "its own init container {} makes it and complains of nothing; count its certificates: {look}",
                    names::MERGE_CA
                )),
            },
            Fact::Unknown(why) => unknown(format!(
                "its own init container {} makes it, whose log cannot be read ({why}); count its certificates: {look}",
                names::MERGE_CA
            )),
        }
    }
}

/// The first line that tells of something missing, fit to be shown.
fn complaint(log: &str) -> Option<String> {
    let line = log.lines().find(|line| {
        let line = line.to_ascii_lowercase();
        COMPLAINTS.iter().any(|words| line.contains(words))
    })?;
    Some(line.trim().chars().filter(|c| !c.is_control()).take(SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the documented script says on a Debian image (issue 11, section 3, point 7).
    const DEBIAN: &str = "cat: /etc/pki/tls/certs/ca-bundle.crt: No such file or directory\n";

    fn pod(record_has_it: bool) -> Pod {
        let inits = if record_has_it { json!({"merge-ca": {}}) } else { json!({}) };
        let record = json!({
            "tracing": "tracing", "hash": "0", "version": 1, "created": [], "containers": {},
            "pod": {"initContainers": inits},
        });
        serde_json::from_value(json!({
            "metadata": {"name": "teller-1", "annotations": {(names::ANNOTATION_RECORD): record.to_string()}},
            "spec": {
                "initContainers": [{"name": "merge-ca", "volumeMounts": [{"name": "merged", "mountPath": "/out"}]}],
                "containers": [
                    {"name": "helper"},
                    {"name": "agent", "volumeMounts": [{"name": "merged", "mountPath": "/etc/merged ca"}]},
                ],
            },
            "status": {"phase": "Running"},
        }))
        .unwrap()
    }

    #[test]
    fn what_the_owners_script_complains_of_is_named_with_a_way_to_look() {
        assert!(own_bundle(&pod(true)).is_none(), "ours");
        let mut own = own_bundle(&pod(false)).unwrap();
        let look = "kubectl exec -n bank-agents teller-1 -c agent -- grep -rc BEGIN '/etc/merged ca'";
        assert_eq!(own.assess("bank-agents").0, State::Good, "it said nothing");
        own.log = Fact::Known(format!("merging\n{DEBIAN}"));
        let (state, said) = own.assess("bank-agents");
        assert_eq!(state, State::Unknown);
        assert!(said.contains(DEBIAN.trim()) && said.ends_with(look), "{said}");
        own.log = Fact::Unknown("you may not".to_owned());
        let (state, said) = own.assess("bank-agents");
        assert_eq!(state, State::Unknown);
        assert!(said.contains("you may not") && said.ends_with(look), "{said}");
    }
}
