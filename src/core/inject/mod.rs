//! Brings a template to a wiring, or takes ours out again, as a JSON patch of few operations.
//!
//! Laws (property tests below): `inject` of its own output changes nothing; `uninject(inject(x)) == x`; the user's own
//! entries and their order never change. Position is never drift: every entry is judged by its name.

mod env;
mod pod;

use std::collections::BTreeMap;
use std::path::Path;

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use serde_json::{Value, json};

use super::kind::Kind;
use super::record::{Record, RecordError, RecordedContainer, WIRING_VERSION, short_hash, value_hash};
use super::settings::Platform;
use super::view::{Container, Metadata, Workload};
use super::wiring::{Group, Wiring};
use crate::api::{ContainerNames, Reason};
use crate::names;
use env::Present;
pub use pod::ca_sources;

/// What injection found and wants changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Injection {
    /// The patch; empty when the template already is as wanted.
    pub patch: Vec<PatchOperation>,
    /// Hash of the wanted wiring, after the user's own values were taken into account.
    pub hash: String,
    /// Whether the template carried a record of ours before.
    pub was_wired: bool,
    /// Per container what the user should know.
    pub notes: Vec<Note>,
    /// Set where nothing can be wired; the patch then removes what an earlier wiring left.
    pub skipped: Option<Reason>,
}

/// Something the user should know about a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// The container sets these variables itself; they were kept.
    KeptByUser {
        /// Container.
        container: String,
        /// The user's variables.
        variables: Vec<String>,
    },
    /// The container has `envFrom`, whose variables ours would beat if the names are the same.
    MayOverrideEnvFrom {
        /// Container.
        container: String,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeptByUser { container, variables } => write!(f, "KeptByUser {container}: {}", variables.join(" ")),
            Self::MayOverrideEnvFrom { container } => write!(f, "MayOverrideEnvFrom {container}"),
        }
    }
}

/// Containers that never get wiring unless named: they are proxies and helpers, not agents.
const SIDE_CONTAINERS: [&str; 11] = [
    "istio-proxy",
    "linkerd-proxy",
    "daprd",
    "vault-agent",
    "queue-proxy",
    "kube-rbac-proxy",
    "oauth-proxy",
    "otc-container",
    "cloud-sql-proxy",
    "authbridge-proxy",
    "config-reloader",
];

/// Parents of ours that the record may name.
const CREATED_LABELS: &str = "labels";
const CREATED_TEMPLATE_METADATA: &str = "template.metadata";
const CREATED_TEMPLATE_ANNOTATIONS: &str = "template.annotations";

const INIT_CONTAINERS: &str = "initContainers";

/// Brings a template to a wiring.
pub fn inject(
    workload: &Workload<'_>,
    wiring: &Wiring,
    choice: &ContainerNames,
    platform: &Platform,
) -> Result<Injection, RecordError> {
    let old = existing_record(workload)?;
    let mut record = Record { tracing: wiring.tracing.clone(), version: WIRING_VERSION, ..Record::default() };
    record.created = old.as_ref().map(|r| r.created.clone()).unwrap_or_default();
    let recorded = |place: &Place<'_, '_>| old.as_ref().and_then(|r| r.containers.get(&*place.container.name));

    let mut out = Injection { was_wired: old.is_some(), ..Injection::default() };
    let annotation = workload.annotation(names::ANNOTATION_CONTAINERS);
    let chosen: Vec<bool> =
        containers(workload).map(|place| place.may_be_wired && is_chosen(&place, choice, annotation)).collect();

    // The authorities need the whole pod: where something of the user's is in their place, all of their part is withheld.
    let agents = || containers(workload).zip(&chosen).filter(|(_, chosen)| **chosen).map(|(place, _)| place);
    let taken = wiring.ca.is_some().then(|| taken(workload, old.as_ref(), agents())).flatten();
    if let Some(what) = taken {
        out.notes.push(Note::KeptByUser { container: "pod".to_owned(), variables: vec![what] });
    }
    let with_ca = wiring.ca.as_ref().filter(|_| out.notes.is_empty());

    let mut hashed = vec![wiring.tracing.clone()];
    let (mut agent, mut init_agent) = (None, None);
    for (place, chosen) in containers(workload).zip(&chosen) {
        let ours = recorded(&place);
        let present = Present::of(place.container, ours);
        let mut wanted = if *chosen { env::wanted(&wiring.env, &present) } else { Vec::new() };
        if with_ca.is_none() {
            wanted.retain(|entry| entry.group != Group::CaBundle);
        }
        if *chosen {
            out.notes.extend(env::notes(place.container, &wiring.env, &present, !wanted.is_empty()));
        }
        env::container_patch(workload.kind, &place, &present, &wanted, &mut record, &mut out.patch);
        let mount = with_ca.filter(|_| !wanted.is_empty()).map(|_| pod::mount());
        let mounts = bring_mounts(workload.kind, &place, mount.as_slice(), ours, &mut record, &mut out.patch);
        if wanted.is_empty() {
            continue;
        }
        agent.get_or_insert(place.container);
        if place.list == INIT_CONTAINERS {
            init_agent.get_or_insert(place.index);
        }
        let env: BTreeMap<_, _> = wanted.iter().map(|e| (e.name.clone(), value_hash(&e.value))).collect();
        hashed.push(place.container.name.to_string());
        hashed.extend(wanted.iter().flat_map(|e| [e.name.clone(), e.value.clone()]));
        record.containers.insert(place.container.name.to_string(), RecordedContainer { env, mounts });
    }
    let Some(agent) = agent else {
        let reason = if chosen.contains(&true) { Reason::OwnTrackingURI } else { Reason::NoContainers };
        return Ok(Injection { patch: uninject(workload)?, skipped: Some(reason), ..out });
    };
    let around = pod::Surroundings { pod: &workload.pod, agent, init_agent, platform };
    let pieces = with_ca.map(|choice| pod::pieces(choice, &around)).unwrap_or_default();
    hashed.extend(pieces.volumes.iter().chain(&pieces.init_containers).map(|piece| piece.fingerprint.clone()));
    record.pod =
        pod::bring_pod(workload.kind, around.pod, &pieces, &old.unwrap_or_default(), &mut record, &mut out.patch);
    record.hash = short_hash(hashed.iter().map(String::as_str));
    out.hash = record.hash.clone();
    label_patch(&workload.metadata, &wiring.tracing, &mut record, &mut out.patch);
    record_patch(workload, record, &mut out.patch);
    Ok(out)
}

/// What of the user's stands where the authorities should be.
fn taken<'w>(
    workload: &Workload<'_>,
    record: Option<&Record>,
    mut agents: impl Iterator<Item = Place<'w, 'w>>,
) -> Option<String> {
    let none = Record::default();
    let record = record.unwrap_or(&none);
    let spec = &workload.pod;
    let volumes = pod::live_volumes(spec);
    let names = [names::CA_VOLUME, names::CA_SOURCES_VOLUME];
    if let Some(name) = pod::taken(&volumes, &record.pod.volumes, &names) {
        return Some(format!("volume/{name}"));
    }
    let mut claims = workload.claims.iter().filter_map(|claim| claim.metadata.name.as_deref());
    if let Some(name) = claims.find(|name| names.contains(name)) {
        return Some(format!("volumeClaimTemplate/{name}"));
    }
    let containers = pod::live_init_containers(spec);
    if let Some(name) = pod::taken(&containers, &record.pod.init_containers, &[names::MERGE_CA]) {
        return Some(format!("initContainer/{name}"));
    }
    // Names are unique over init and main containers.
    if spec.containers.iter().any(|container| &*container.name == names::MERGE_CA) {
        return Some(format!("container/{}", names::MERGE_CA));
    }
    let none = BTreeMap::new();
    agents.find_map(|place| {
        let recorded = record.containers.get(&*place.container.name).map_or(&none, |c| &c.mounts);
        // One below counts too: its mount point cannot be made in our read-only mount, and the container would not start.
        let paths = pod::live_mounts(place.container).into_iter().flatten();
        let mut foreign = paths.filter(|(path, fingerprint)| recorded.get(path).is_none_or(|hash| hash != fingerprint));
        foreign.find(|(path, _)| Path::new(path).starts_with(names::CA_FOLDER)).map(|(path, _)| format!("mount:{path}"))
    })
}

fn bring_mounts(
    kind: Kind,
    place: &Place<'_, '_>,
    wanted: &[pod::Piece],
    recorded: Option<&RecordedContainer>,
    record: &mut Record,
    patch: &mut Vec<PatchOperation>,
) -> BTreeMap<String, String> {
    let index = place.index.to_string();
    let list = pod::List {
        path: [kind.template(), &["spec", place.list, &index, "volumeMounts"]].concat(),
        key: "mountPath",
        created: format!("{}.volumeMounts", &*place.container.name),
        used: Vec::new(),
        before: None,
    };
    let none = BTreeMap::new();
    let recorded = recorded.map_or(&none, |r| &r.mounts);
    pod::bring(&list, &pod::live_mounts(place.container), wanted, recorded, record, patch)
}

/// Takes out what the record says is ours and still has our value. No record, no patch.
pub fn uninject(workload: &Workload<'_>) -> Result<Vec<PatchOperation>, RecordError> {
    let Some(mut record) = existing_record(workload)? else { return Ok(Vec::new()) };
    let mut patch = Vec::new();
    for place in containers(workload) {
        let ours = record.containers.get(&*place.container.name).cloned();
        let present = Present::of(place.container, ours.as_ref());
        env::container_patch(workload.kind, &place, &present, &[], &mut record, &mut patch);
        bring_mounts(workload.kind, &place, &[], ours.as_ref(), &mut record, &mut patch);
    }
    let ours = record.clone();
    pod::bring_pod(workload.kind, &workload.pod, &pod::Pieces::default(), &ours, &mut record, &mut patch);
    if let Some(metadata) = workload.template_metadata() {
        let at = |rest: &[&str]| pointer(&[workload.kind.template(), rest].concat());
        let annotations = metadata.annotations.as_ref();
        let only_ours = annotations.is_some_and(|a| a.total == 1);
        let path = if only_ours && record.created(CREATED_TEMPLATE_METADATA) && metadata.fields == 1 {
            at(&["metadata"])
        } else if only_ours && record.created(CREATED_TEMPLATE_ANNOTATIONS) {
            at(&["metadata", "annotations"])
        } else {
            at(&["metadata", "annotations", names::ANNOTATION_RECORD])
        };
        patch.push(remove(path));
    }
    patch.extend(remainder(&workload.metadata, record.created(CREATED_LABELS)));
    Ok(patch)
}

/// Takes out what we put on a workload's own metadata; `made_labels` says that it had no labels before.
pub fn remainder(metadata: &Metadata<'_>, made_labels: bool) -> Vec<PatchOperation> {
    let mut patch = Vec::new();
    if let Some(labels) = &metadata.labels
        && labels.contains_key(names::LABEL_WIRED)
    {
        let parent = labels.len() == 1 && made_labels;
        let path: &[&str] = if parent { &["metadata", "labels"] } else { &["metadata", "labels", names::LABEL_WIRED] };
        patch.push(remove(pointer(path)));
    }
    for ours in [names::ANNOTATION_TOUCH, names::ANNOTATION_MERGE_CA_FAILED] {
        if metadata.annotation(ours).is_some() {
            patch.push(remove(pointer(&["metadata", "annotations", ours])));
        }
    }
    patch
}

/// The record on the template, if there is one.
pub fn existing_record(workload: &Workload<'_>) -> Result<Option<Record>, RecordError> {
    let metadata = workload.template_metadata();
    metadata.and_then(|m| m.annotation(names::ANNOTATION_RECORD)).map(Record::parse).transpose()
}

/// A container and where it stands in the template.
struct Place<'w, 'a> {
    list: &'static str,
    index: usize,
    /// All of `containers`, and of the init containers those that are native side containers.
    may_be_wired: bool,
    container: &'w Container<'a>,
}

/// Every container: one that may no longer be wired can still carry what we added.
fn containers<'w, 'a>(workload: &'w Workload<'a>) -> impl Iterator<Item = Place<'w, 'a>> {
    let spec = &workload.pod;
    let main = spec.containers.iter().enumerate().map(|(index, container)| Place {
        list: "containers",
        index,
        may_be_wired: true,
        container,
    });
    let init = spec.init_containers.iter().flatten().enumerate().map(|(index, container)| Place {
        list: INIT_CONTAINERS,
        index,
        may_be_wired: container.restart_policy.as_deref() == Some("Always"),
        container,
    });
    main.chain(init)
}

fn is_side_container(name: &str) -> bool {
    SIDE_CONTAINERS.contains(&name) || name.starts_with("envoy")
}

fn is_chosen(place: &Place<'_, '_>, choice: &ContainerNames, annotation: Option<&str>) -> bool {
    let name: &str = &place.container.name;
    if choice.exclude.iter().any(|n| n == name) {
        return false;
    }
    match annotation {
        Some(list) => list.split(',').any(|n| n.trim() == name),
        None if choice.include.is_empty() => !is_side_container(name),
        None => choice.include.iter().any(|n| n == name),
    }
}

fn label_patch(metadata: &Metadata<'_>, tracing: &str, record: &mut Record, patch: &mut Vec<PatchOperation>) {
    match &metadata.labels {
        Some(_) if metadata.label(names::LABEL_WIRED) == Some(tracing) => {}
        Some(_) => patch.push(add(pointer(&["metadata", "labels", names::LABEL_WIRED]), json!(tracing))),
        None => {
            record.note_created(CREATED_LABELS);
            patch.push(add(pointer(&["metadata", "labels"]), json!({ (names::LABEL_WIRED): tracing })));
        }
    }
}

fn record_patch(workload: &Workload<'_>, mut record: Record, patch: &mut Vec<PatchOperation>) {
    let metadata = workload.template_metadata();
    let annotations = metadata.and_then(|m| m.annotations.as_ref());
    if metadata.is_none() {
        record.note_created(CREATED_TEMPLATE_METADATA);
    }
    if annotations.is_none() {
        record.note_created(CREATED_TEMPLATE_ANNOTATIONS);
    }
    // Strings in maps: serialization cannot fail; an empty record would be refused as unreadable, never acted on.
    let text = serde_json::to_string(&record).unwrap_or_default();
    let at = |rest: &[&str]| pointer(&[workload.kind.template(), &["metadata"], rest].concat());
    match (metadata, annotations) {
        (None, _) => {
            patch.push(add(at(&[]), json!({"annotations": { (names::ANNOTATION_RECORD): text }})));
        }
        (Some(_), None) => {
            patch.push(add(at(&["annotations"]), json!({ (names::ANNOTATION_RECORD): text })));
        }
        (Some(m), Some(_)) if m.annotation(names::ANNOTATION_RECORD) == Some(&text) => {}
        _ => {
            patch.push(add(at(&["annotations", names::ANNOTATION_RECORD]), json!(text)));
        }
    }
}

fn pointer(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().map(|t| Token::new(*t)))
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

fn replace(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path, value })
}

fn remove(path: PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path })
}

/// Guards an operation by index: if someone else moved the entry meanwhile, the whole patch is refused.
fn test(path: PointerBuf, value: &str) -> PatchOperation {
    PatchOperation::Test(TestOperation { path, value: json!(value) })
}
