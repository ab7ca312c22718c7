//! The pod's part of the wiring: the volume with the merged certificate authorities and who fills it.
//!
//! Every list is keyed by name. What we wrote is known again by a fingerprint over the fields that we set, since the API
//! server adds defaults to the rest; the image is left out of it, so that an upgrade of the operator alone rolls nothing.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::PatchOperation;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{add, pointer, remove, test};
use crate::api::{CaBundleStrategy, ConfigMapKey};
use crate::core::ca_bundle::AGENT_SCRIPT;
use crate::core::kind::Kind;
use crate::core::policy::CaChoice;
use crate::core::record::{Record, RecordedPod, short_hash, value_hash};
use crate::core::settings::Platform;
use crate::core::view::{ConfigMapVolume, Container, Mount, PodSpec, Volume};
use crate::names;

/// An entry of a list that is keyed by name.
pub(super) struct Piece {
    pub name: String,
    pub value: Value,
    pub fingerprint: String,
}

/// What the pod gets.
#[derive(Default)]
pub(super) struct Pieces {
    pub volumes: Vec<Piece>,
    pub init_containers: Vec<Piece>,
    pub image_pull_secrets: Vec<Piece>,
    /// The first init container that is an agent (a native side container).
    pub agent: Option<usize>,
}

/// What a pod and one of its agents say that the init container has to follow.
pub(super) struct Surroundings<'a> {
    pub pod: &'a PodSpec<'a>,
    /// The first container that is wired.
    pub agent: &'a Container<'a>,
    /// The first init container that is wired.
    pub init_agent: Option<usize>,
    pub platform: &'a Platform,
}

/// The mount of the merged authorities.
pub(super) fn mount() -> Piece {
    let value = json!({"name": names::CA_VOLUME, "mountPath": names::CA_FOLDER, "readOnly": true});
    let fingerprint = Mount::deserialize(&value).map(|m| of_mount(&m)).unwrap_or_default();
    Piece { name: names::CA_FOLDER.to_owned(), value, fingerprint }
}

/// What the choice means for this pod.
pub(super) fn pieces(choice: &CaChoice, around: &Surroundings<'_>) -> Pieces {
    let CaChoice { strategy, config_maps } = choice;
    if *strategy == CaBundleStrategy::ConfigMap {
        let items = json!([{"key": names::CA_FILE, "path": names::CA_FILE}]);
        let merged = json!({
            "name": names::CA_VOLUME,
            "configMap": {"name": names::CA_CONFIG_MAP, "items": items, "optional": true},
        });
        return Pieces { volumes: vec![volume(merged)], ..Pieces::default() };
    }
    let folder = json!({"name": names::CA_VOLUME, "emptyDir": {"sizeLimit": SIZE_LIMIT}});
    let sources = json!({"name": names::CA_SOURCES_VOLUME, "projected": {"sources": sources(config_maps)}});
    let pull_secrets = match strategy {
        CaBundleStrategy::InitContainer => around.platform.merge_ca.pull_secrets.as_slice(),
        CaBundleStrategy::AgentInitContainer | CaBundleStrategy::ConfigMap => &[],
    };
    Pieces {
        volumes: vec![volume(folder), volume(sources)],
        init_containers: vec![init_container(*strategy, around)],
        image_pull_secrets: pull_secrets
            .iter()
            .map(|name| Piece { name: name.clone(), value: json!({"name": name}), fingerprint: value_hash(name) })
            .collect(),
        agent: around.init_agent,
    }
}

/// Every one may be absent: a pod must start without any of them.
fn sources(config_maps: &[ConfigMapKey]) -> Vec<Value> {
    let known = CA_CONFIG_MAPS.map(|(name, key)| (name, key, format!("{name}-{key}")));
    // Names of ConfigMaps and keys have no slash, and the numbers keep equal ones apart.
    let users = config_maps
        .iter()
        .enumerate()
        .map(|(n, source)| (source.name.as_str(), source.key.as_str(), format!("{n}-{}-{}", source.name, source.key)));
    known
        .into_iter()
        .chain(users)
        .map(|(name, key, path)| {
            json!({"configMap": {"name": name, "items": [{"key": key, "path": path}], "optional": true}})
        })
        .collect()
}

/// The ConfigMaps and keys that the operator merges for a namespace, each once.
pub fn ca_sources<'c>(choices: impl Iterator<Item = &'c CaChoice>) -> Vec<(String, String)> {
    let known = CA_CONFIG_MAPS.map(|(name, key)| (name.to_owned(), key.to_owned()));
    let users = choices.flat_map(|choice| &choice.config_maps).map(|source| (source.name.clone(), source.key.clone()));
    let mut seen = BTreeSet::new();
    known.into_iter().chain(users).filter(|source| seen.insert(source.clone())).collect()
}

fn init_container(strategy: CaBundleStrategy, around: &Surroundings<'_>) -> Piece {
    let Surroundings { pod, agent, init_agent: _, platform } = *around;
    // Requests equal limits: a Guaranteed pod stays one, and a ResourceQuota finds what it asks for.
    let amount = json!({"cpu": platform.merge_ca.cpu, "memory": platform.merge_ca.memory});
    let mounts = json!([
        {"name": names::CA_VOLUME, "mountPath": names::CA_FOLDER},
        {"name": names::CA_SOURCES_VOLUME, "mountPath": names::CA_SOURCES_FOLDER, "readOnly": true},
    ]);
    let mut container =
        json!({"name": names::MERGE_CA, "image": platform.merge_ca.image, "imagePullPolicy": "IfNotPresent"});
    match strategy {
        CaBundleStrategy::AgentInitContainer => {
            container["image"] = json!(&*agent.image);
            container["command"] = json!(["/bin/sh", "-c", AGENT_SCRIPT]);
            // The agent's image runs as its agent does, or a security policy might refuse it.
            if let Some(context) = &agent.security_context {
                container["securityContext"] = context.clone();
            }
        }
        CaBundleStrategy::InitContainer | CaBundleStrategy::ConfigMap => {
            container["args"] = json!(["merge-ca"]);
            let mut context = json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
            });
            // On OpenShift the SCC gives the uid, and one without listed profiles refuses any.
            if !platform.openshift {
                context["seccompProfile"] = json!({"type": "RuntimeDefault"});
                if pod.security_context.as_ref().is_some_and(|c| c.run_as_user == Some(0)) {
                    context["runAsUser"] = json!(NON_ROOT);
                }
            }
            container["securityContext"] = context;
        }
    }
    container["resources"] = json!({"limits": amount, "requests": amount});
    container["volumeMounts"] = mounts;
    let fingerprint = Container::deserialize(&container).map(|c| of_container(&c)).unwrap_or_default();
    Piece { name: names::MERGE_CA.to_owned(), value: container, fingerprint }
}

fn volume(value: Value) -> Piece {
    let view = Volume::deserialize(&value).unwrap_or_default();
    Piece { name: view.name.to_string(), fingerprint: of_volume(&view), value: value.clone() }
}

pub(super) fn of_volume(volume: &Volume<'_>) -> String {
    let mut parts = vec![volume.name.to_string()];
    if let Some(folder) = &volume.empty_dir {
        parts.extend(["emptyDir".to_owned(), folder.size_limit.as_deref().unwrap_or_default().to_owned()]);
    }
    let projected = volume.projected.iter().flat_map(|p| &p.sources).filter_map(|s| s.config_map.as_ref());
    for map in volume.config_map.iter().chain(projected) {
        let ConfigMapVolume { name, optional, items } = map;
        parts.extend(["configMap".to_owned(), name.to_string(), optional.unwrap_or(false).to_string()]);
        parts.extend(items.iter().flat_map(|item| [item.key.to_string(), item.path.to_string()]));
    }
    short_hash(parts.iter().map(String::as_str))
}

pub(super) fn of_container(container: &Container<'_>) -> String {
    // Of the agent's shell its name and `-c`: a better script is, like a newer image, no reason to roll anything.
    let mut parts: Vec<String> =
        container.command.iter().take(2).chain(&container.args).map(|a| a.to_string()).collect();
    // The token's is the API server's, which puts it into every container of a Pod.
    let mounts = container.volume_mounts.iter().flatten().filter(|m| &*m.mount_path != names::TOKEN_FOLDER);
    parts.extend(mounts.map(of_mount));
    parts.push(container.security_context.as_ref().map(context).unwrap_or_default());
    // With a command it runs the agent's image, which it has to follow; the operator's may be an older one.
    parts.extend((!container.command.is_empty()).then(|| container.image.to_string()));
    short_hash(parts.iter().map(String::as_str))
}

/// The same text whatever the order of the keys, for all that an API server lets through. [`canonical`] doubles every
/// backslash at each level: forty objects in one another would be a text of a tebibyte.
fn context(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > MAX_CONTEXT { text } else { canonical(value, MAX_LEVELS) }
}

fn canonical(value: &Value, levels: usize) -> String {
    match value {
        Value::Object(map) if levels > 0 => {
            let sorted: BTreeMap<_, _> = map.iter().map(|(key, value)| (key, canonical(value, levels - 1))).collect();
            format!("{sorted:?}")
        }
        Value::Array(list) if levels > 0 => {
            format!("{:?}", list.iter().map(|value| canonical(value, levels - 1)).collect::<Vec<_>>())
        }
        other => other.to_string(),
    }
}

pub(super) fn of_mount(mount: &Mount<'_>) -> String {
    let Mount { name, mount_path, read_only, sub_path } = mount;
    let read_only = if read_only.unwrap_or(false) { "ro" } else { "rw" };
    short_hash([name, mount_path, read_only, sub_path.as_deref().unwrap_or_default()].into_iter())
}

/// A list of the pod as it is: names and fingerprints in their order; `None` where there is no list.
pub(super) type Live = Option<Vec<(String, String)>>;

/// Where a list stands, and the name under which the record keeps that we made it.
pub(super) struct List<'a> {
    pub path: Vec<&'a str>,
    /// The field of an entry that names it.
    pub key: &'a str,
    pub created: String,
    /// Entries that stay even when they are ours and no longer wanted.
    pub used: Vec<&'a str>,
    /// The entry that what is new has to stand before; else it is appended.
    pub before: Option<usize>,
}

/// Whether somebody else has an entry of one of these names.
pub(super) fn taken<'a>(live: &'a Live, recorded: &BTreeMap<String, String>, names: &[&str]) -> Option<&'a str> {
    let foreign = |(name, fingerprint): &&(String, String)| {
        names.contains(&name.as_str()) && recorded.get(name).is_none_or(|hash| hash != fingerprint)
    };
    live.iter().flatten().find(foreign).map(|(name, _)| name.as_str())
}

/// Brings one list to what is wanted; returns what the record says of it from now on.
pub(super) fn bring(
    list: &List<'_>,
    live: &Live,
    wanted: &[Piece],
    recorded: &BTreeMap<String, String>,
    record: &mut Record,
    patch: &mut Vec<PatchOperation>,
) -> BTreeMap<String, String> {
    let at = |rest: &[&str]| pointer(&[&list.path[..], rest].concat());
    let entries = live.as_deref().unwrap_or_default();
    let is_ours =
        |(name, fingerprint): &(String, String)| recorded.get(name).is_some_and(|recorded| recorded == fingerprint);
    let mut removals = Vec::new();
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| is_ours(entry)) {
        let text = index.to_string();
        match wanted.iter().find(|piece| piece.name == entry.0) {
            Some(piece) if piece.fingerprint == entry.1 => {}
            Some(piece) => {
                patch.push(test(at(&[&text, list.key]), &entry.0));
                patch.push(super::replace(at(&[&text]), piece.value.clone()));
            }
            None if list.used.contains(&entry.0.as_str()) => {}
            None => removals.push((index, entry.0.as_str())),
        }
    }
    let missing = |piece: &&Piece| !entries.iter().any(|(name, _)| *name == piece.name);
    let appended: Vec<Value> = wanted.iter().filter(missing).map(|piece| piece.value.clone()).collect();
    removals.reverse();
    if !removals.is_empty() && removals.len() == entries.len() && appended.is_empty() && record.created(&list.created) {
        patch.extend(removals.iter().map(|(index, name)| test(at(&[&index.to_string(), list.key]), name)));
        patch.push(remove(at(&[])));
    } else {
        for (index, name) in removals {
            let index = index.to_string();
            patch.push(test(at(&[&index, list.key]), name));
            patch.push(remove(at(&[&index])));
        }
        if live.is_none() && !appended.is_empty() {
            record.note_created(&list.created);
            patch.push(add(at(&[]), Value::Array(appended)));
        } else {
            let index = list.before.map_or_else(|| "-".to_owned(), |index| index.to_string());
            patch.extend(appended.into_iter().map(|value| add(at(&[&index]), value)));
        }
    }
    // An entry of the user's under this name is none of ours, and stays out of the record.
    let ours = |piece: &&Piece| entries.iter().all(|entry| entry.0 != piece.name || is_ours(entry));
    wanted.iter().filter(ours).map(|piece| (piece.name.clone(), piece.fingerprint.clone())).collect()
}

/// Brings the pod's lists to what is wanted.
pub(super) fn bring_pod(
    kind: Kind,
    pod: &PodSpec<'_>,
    wanted: &Pieces,
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
    let Pieces { volumes, init_containers, image_pull_secrets, agent } = wanted;
    let of_volumes = List { used: used_volumes(pod, old), ..list("volumes") };
    // Init containers run in their order, and an agent that is one needs the bundle when it starts.
    let of_init_containers = List { before: *agent, ..list("initContainers") };
    RecordedPod {
        volumes: bring(&of_volumes, &live_volumes(pod), volumes, &recorded.volumes, record, patch),
        init_containers: bring(
            &of_init_containers,
            &live_init_containers(pod),
            init_containers,
            &recorded.init_containers,
            record,
            patch,
        ),
        image_pull_secrets: bring(
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
        old.pod.init_containers.get(&*container.name).is_none_or(|hash| *hash != of_container(container))
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

pub(super) fn live_volumes(pod: &PodSpec<'_>) -> Live {
    pod.volumes.as_ref().map(|list| list.iter().map(|v| (v.name.to_string(), of_volume(v))).collect())
}

pub(super) fn live_init_containers(pod: &PodSpec<'_>) -> Live {
    pod.init_containers.as_ref().map(|list| list.iter().map(|c| (c.name.to_string(), of_container(c))).collect())
}

pub(super) fn live_mounts(container: &Container<'_>) -> Live {
    let mounts = container.volume_mounts.as_ref();
    mounts.map(|list| list.iter().map(|m| (m.mount_path.trim_end_matches('/').to_owned(), of_mount(m))).collect())
}

/// ConfigMaps and their keys with certificate authorities that OpenShift and OpenShift AI put into every namespace.
const CA_CONFIG_MAPS: [(&str, &str); 3] = [
    ("openshift-service-ca.crt", "service-ca.crt"),
    ("odh-trusted-ca-bundle", "ca-bundle.crt"),
    ("odh-trusted-ca-bundle", "odh-ca-bundle.crt"),
];
/// Room for 2,000 authorities many times over.
const SIZE_LIMIT: &str = "32Mi";
/// The uid of the operator's image.
const NON_ROOT: i64 = 65532;
/// Bytes and levels of a security context: one of every field of Kubernetes' has 1 KiB and three levels.
const MAX_CONTEXT: usize = 4096;
const MAX_LEVELS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ContainerNames;
    use crate::core::inject::{Injection, inject};
    use crate::core::settings::MergeCa;
    use crate::core::view::Workload;
    use crate::core::wiring::{Entry, Group, TRACKING_URI, Wiring};

    fn injected(spec: Value, platform: &Platform) -> Injection {
        let workload = json!({"metadata": {"name": "till"}, "spec": {"template": {"spec": spec}}});
        let entry =
            |name: &str, group| Entry { name: name.to_owned(), value: "x".to_owned(), group, why: "for the test" };
        let wiring = Wiring {
            tracing: "tracing".to_owned(),
            experiment: "till".to_owned(),
            env: vec![entry(TRACKING_URI, Group::Address), entry("REQUESTS_CA_BUNDLE", Group::CaBundle)],
            ca: Some(CaChoice { strategy: CaBundleStrategy::InitContainer, config_maps: Vec::new() }),
        };
        inject(&Workload::read(Kind::Deployment, &workload).unwrap(), &wiring, &ContainerNames::default(), platform)
            .unwrap()
    }

    /// What the patch puts at or below a list of the pod.
    fn added(injection: &Injection, list: &str) -> Value {
        let patch = serde_json::to_value(&injection.patch).unwrap();
        let path = format!("/spec/template/spec/{list}");
        let of_list =
            |op: &&Value| op["path"].as_str().is_some_and(|p| p == path || p.starts_with(&format!("{path}/")));
        patch.as_array().unwrap().iter().find(of_list).map_or(Value::Null, |op| op["value"].clone())
    }

    #[test]
    fn a_security_context_is_told_by_its_content_and_a_deep_or_long_one_costs_no_more() {
        let parsed = |text: &str| context(&serde_json::from_str(text).unwrap());
        let [one, other] = [r#"{"a": {"b": 1, "c": ["\\\""]}}"#, r#"{"a": {"c": ["\\\""], "b": 1}}"#].map(parsed);
        assert_eq!(one, other);
        let deep = format!("{}\"\\\\\"{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert!(parsed(&deep).len() < 64 * deep.len());
        let long = format!("[[[[\"{}\"]]]]", "\\\\".repeat(1 << 20));
        assert_eq!(parsed(&long), long);
    }

    #[test]
    fn whatever_stands_where_the_authorities_go_withholds_them_alone() {
        let container = |name: &str| json!({"name": name, "image": "x"});
        let mounted =
            |path: &str| json!({"name": "agent", "image": "x", "volumeMounts": [{"name": "v", "mountPath": path}]});
        for (spec, kept) in [
            (json!({"containers": [container("agent"), container("merge-ca")]}), "container/merge-ca"),
            (
                json!({"containers": [container("agent")], "initContainers": [container("merge-ca")]}),
                "initContainer/merge-ca",
            ),
            (json!({"containers": [container("agent")], "volumes": [{"name": "ca-bundle"}]}), "volume/ca-bundle"),
            (json!({"containers": [mounted("/tmp/ca-bundle/")]}), "mount:/tmp/ca-bundle"),
            (json!({"containers": [mounted("/tmp/ca-bundle/mine")]}), "mount:/tmp/ca-bundle/mine"),
        ] {
            let injection = injected(spec, &Platform::default());
            assert_eq!(injection.notes.first().map(ToString::to_string), Some(format!("KeptByUser pod: {kept}")));
            assert_eq!(injection.skipped, None, "{kept}: the rest is wired");
            for list in ["volumes", "initContainers"] {
                assert_eq!(added(&injection, list), Value::Null, "{kept}");
            }
        }
        let beside = injected(json!({"containers": [mounted("/tmp/ca-bundle-old")]}), &Platform::default());
        assert_eq!(beside.notes, []);
    }

    #[test]
    fn on_openshift_the_scc_gives_uid_and_seccomp_profile() {
        let root = json!({"containers": [{"name": "agent", "image": "x"}], "securityContext": {"runAsUser": 0}});
        let context = |openshift| {
            let injection = injected(root.clone(), &Platform { openshift, ..Platform::default() });
            added(&injection, "initContainers")[0]["securityContext"].clone()
        };
        assert_eq!(
            (&context(false)["runAsUser"], &context(false)["seccompProfile"]["type"]),
            (&json!(65532), &json!("RuntimeDefault"))
        );
        assert_eq!((&context(true)["runAsUser"], &context(true)["seccompProfile"]), (&Value::Null, &Value::Null));
        assert_eq!(context(true)["runAsNonRoot"], true);
    }

    #[test]
    fn pull_secrets_are_appended_by_name_and_none_stands_there_twice() {
        let merge_ca = MergeCa { pull_secrets: vec!["own".into(), "mirror".into()], ..MergeCa::default() };
        let platform = Platform { merge_ca, ..Platform::default() };
        let spec = json!({"containers": [{"name": "agent", "image": "x"}], "imagePullSecrets": [{"name": "own"}]});
        assert_eq!(added(&injected(spec, &platform), "imagePullSecrets"), json!({"name": "mirror"}));
    }

    #[test]
    fn a_token_that_the_api_server_mounts_leaves_our_init_container_ours() {
        let spec = json!({"containers": [{"name": "agent", "image": "x"}]});
        let mut init_container = added(&injected(spec, &Platform::default()), "initContainers")[0].clone();
        let before = of_container(&Container::deserialize(&init_container).unwrap());
        let mounts = init_container["volumeMounts"].as_array_mut().unwrap();
        mounts.push(json!({"name": "kube-api-access-x7k2p", "mountPath": names::TOKEN_FOLDER, "readOnly": true}));
        assert_eq!(of_container(&Container::deserialize(&init_container).unwrap()), before);
    }

    #[test]
    fn the_merge_stands_before_an_agent_that_is_an_init_container() {
        let spec = json!({
            "containers": [{"name": "agent", "image": "x"}],
            "initContainers": [{"name": "migrate", "image": "x"}, {"name": "embedder", "image": "x", "restartPolicy": "Always"}],
        });
        let patch = serde_json::to_string(&injected(spec, &Platform::default()).patch).unwrap();
        assert!(
            patch.contains(r#""path":"/spec/template/spec/initContainers/1","value":{"name":"merge-ca""#),
            "{patch}"
        );
    }
}
