//! Brings a template to a wiring, or takes ours out again, as a JSON patch of few operations.
//!
//! Laws (property tests below): `inject` of its own output changes nothing; `uninject(inject(x)) == x`; the user's own
//! entries and their order never change. Position is never drift: every entry is judged by its name.

use std::collections::BTreeMap;

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, TestOperation};
use serde_json::{Value, json};

use super::record::{Record, RecordError, RecordedContainer, WIRING_VERSION, short_hash, value_hash};
use super::view::{Container, EnvEntry, Metadata, Workload};
use super::wiring::{EXPERIMENT_GROUP, Entry, Group, TRACKING_URI, Wiring};
use crate::api::{ContainerNames, Reason};
use crate::names;

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

const TEMPLATE: [&str; 2] = ["spec", "template"];

/// Brings a template to a wiring.
pub fn inject(workload: &Workload<'_>, wiring: &Wiring, choice: &ContainerNames) -> Result<Injection, RecordError> {
    let old = existing_record(workload)?;
    let mut record = Record { tracing: wiring.tracing.clone(), version: WIRING_VERSION, ..Record::default() };
    record.created = old.as_ref().map(|r| r.created.clone()).unwrap_or_default();

    let mut out = Injection { was_wired: old.is_some(), ..Injection::default() };
    let mut hashed = vec![wiring.tracing.clone()];
    let mut candidates = 0;
    for place in containers(workload) {
        let chosen = place.may_be_wired && is_chosen(&place, choice, workload.annotation(names::ANNOTATION_CONTAINERS));
        candidates += usize::from(chosen);
        let ours = old.as_ref().and_then(|r| r.containers.get(&*place.container.name));
        let present = Present::of(place.container, ours);
        let wanted: Vec<&Entry> = if chosen { wanted_entries(&wiring.env, &present) } else { Vec::new() };
        if chosen {
            out.notes.extend(notes(place.container, &wiring.env, &present, !wanted.is_empty()));
        }
        container_patch(&place, &present, &wanted, &mut record, &mut out.patch);
        if wanted.is_empty() {
            continue;
        }
        let env: BTreeMap<_, _> = wanted.iter().map(|e| (e.name.clone(), value_hash(&e.value))).collect();
        hashed.push(place.container.name.to_string());
        hashed.extend(wanted.iter().flat_map(|e| [e.name.clone(), e.value.clone()]));
        record.containers.insert(place.container.name.to_string(), RecordedContainer { env });
    }
    if record.containers.is_empty() {
        let reason = if candidates == 0 { Reason::NoContainers } else { Reason::OwnTrackingURI };
        return Ok(Injection { patch: uninject(workload)?, skipped: Some(reason), ..out });
    }
    record.hash = short_hash(hashed.iter().map(String::as_str));
    out.hash = record.hash.clone();
    label_patch(&workload.metadata, &wiring.tracing, &mut record, &mut out.patch);
    record_patch(workload, record, &mut out.patch);
    Ok(out)
}

/// Takes out what the record says is ours and still has our value. No record, no patch.
pub fn uninject(workload: &Workload<'_>) -> Result<Vec<PatchOperation>, RecordError> {
    let Some(mut record) = existing_record(workload)? else { return Ok(Vec::new()) };
    let mut patch = Vec::new();
    for place in containers(workload) {
        let ours = record.containers.get(&*place.container.name).cloned();
        let present = Present::of(place.container, ours.as_ref());
        container_patch(&place, &present, &[], &mut record, &mut patch);
    }
    if let Some(metadata) = &workload.spec.template.metadata {
        let annotations = metadata.annotations.as_ref();
        let only_ours = annotations.is_some_and(|a| a.total == 1);
        let path = if only_ours && record.created(CREATED_TEMPLATE_METADATA) && metadata.fields == 1 {
            pointer(&[&TEMPLATE[..], &["metadata"]].concat())
        } else if only_ours && record.created(CREATED_TEMPLATE_ANNOTATIONS) {
            pointer(&[&TEMPLATE[..], &["metadata", "annotations"]].concat())
        } else {
            pointer(&[&TEMPLATE[..], &["metadata", "annotations", names::ANNOTATION_RECORD]].concat())
        };
        patch.push(remove(path));
    }
    if let Some(labels) = &workload.metadata.labels
        && labels.contains_key(names::LABEL_WIRED)
    {
        let parent = labels.len() == 1 && record.created(CREATED_LABELS);
        let path: &[&str] = if parent { &["metadata", "labels"] } else { &["metadata", "labels", names::LABEL_WIRED] };
        patch.push(remove(pointer(path)));
    }
    if workload.metadata.annotation(names::ANNOTATION_TOUCH).is_some() {
        patch.push(remove(pointer(&["metadata", "annotations", names::ANNOTATION_TOUCH])));
    }
    Ok(patch)
}

/// The record on the template, if there is one.
pub fn existing_record(workload: &Workload<'_>) -> Result<Option<Record>, RecordError> {
    let metadata = workload.spec.template.metadata.as_ref();
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
    let spec = &workload.spec.template.spec;
    let main = spec.containers.iter().enumerate().map(|(index, container)| Place {
        list: "containers",
        index,
        may_be_wired: true,
        container,
    });
    let init = spec.init_containers.iter().enumerate().map(|(index, container)| Place {
        list: "initContainers",
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

/// A container's environment, divided into ours and the user's.
struct Present<'w, 'a> {
    /// Ours, untouched: index and entry by name.
    ours: BTreeMap<&'w str, Vec<(usize, &'w EnvEntry<'a>)>>,
    /// The user's names, also those that were ours before the user edited them.
    users: Vec<&'w str>,
}

impl<'w, 'a> Present<'w, 'a> {
    fn of(container: &'w Container<'a>, recorded: Option<&RecordedContainer>) -> Self {
        let mut ours: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        let mut users = Vec::new();
        for (index, entry) in container.env.iter().flatten().enumerate() {
            let hash = recorded.and_then(|r| r.env.get(&*entry.name));
            let value = entry.value.as_deref().unwrap_or_default();
            if entry.value_from.is_none() && hash.is_some_and(|h| *h == value_hash(value)) {
                ours.entry(&*entry.name).or_default().push((index, entry));
            } else if !users.contains(&&*entry.name) {
                users.push(&*entry.name);
            }
        }
        Self { ours, users }
    }

    fn user_sets(&self, name: &str) -> bool {
        self.users.contains(&name)
    }
}

/// The user's choice wins, by group.
fn wanted_entries<'e>(env: &'e [Entry], present: &Present<'_, '_>) -> Vec<&'e Entry> {
    if present.user_sets(TRACKING_URI) {
        return Vec::new();
    }
    let own_experiment = EXPERIMENT_GROUP.iter().any(|name| present.user_sets(name));
    env.iter()
        .filter(|e| match e.group {
            Group::Address => true,
            Group::Experiment => !own_experiment,
            Group::Single => !present.user_sets(&e.name),
        })
        .collect()
}

fn notes(container: &Container<'_>, env: &[Entry], present: &Present<'_, '_>, wired: bool) -> Vec<Note> {
    let concerns_us = |name: &&&str| EXPERIMENT_GROUP.contains(*name) || env.iter().any(|e| e.name == ***name);
    let variables: Vec<_> = present.users.iter().filter(concerns_us).map(|n| (*n).to_owned()).collect();
    let name = || container.name.to_string();
    let kept = (!variables.is_empty()).then(|| Note::KeptByUser { container: name(), variables });
    let sources = wired && container.env_from.as_ref().is_some_and(|sources| !sources.is_empty());
    kept.into_iter().chain(sources.then(|| Note::MayOverrideEnvFrom { container: name() })).collect()
}

/// Changed values first (their index still holds), then removals from the end, then appends.
fn container_patch(
    place: &Place<'_, '_>,
    present: &Present<'_, '_>,
    wanted: &[&Entry],
    record: &mut Record,
    patch: &mut Vec<PatchOperation>,
) {
    let name: &str = &place.container.name;
    let env = [TEMPLATE[0], TEMPLATE[1], "spec", place.list, &place.index.to_string(), "env"].map(str::to_owned);
    let at = |rest: &[&str]| pointer(&env.iter().map(String::as_str).chain(rest.iter().copied()).collect::<Vec<_>>());
    let created = format!("{name}.env");

    let is_ours = |entry_name: &str| present.ours.contains_key(entry_name) && !present.user_sets(entry_name);
    let mut removals = Vec::new();
    for (entry_name, entries) in &present.ours {
        let wanted_value = wanted.iter().find(|e| e.name == *entry_name).filter(|_| is_ours(entry_name));
        for (nth, (index, entry)) in entries.iter().enumerate() {
            match wanted_value {
                Some(entry_wanted) if nth == 0 => {
                    if entry.value.as_deref().unwrap_or_default() != entry_wanted.value {
                        let index = index.to_string();
                        patch.push(test(at(&[&index, "name"]), entry_name));
                        patch.push(add(at(&[&index, "value"]), json!(entry_wanted.value)));
                    }
                }
                _ => removals.push((*index, *entry_name)),
            }
        }
    }
    removals.sort_unstable_by(|a, b| b.cmp(a));
    let appended: Vec<Value> =
        wanted.iter().filter(|e| !is_ours(&e.name)).map(|e| json!({"name": e.name, "value": e.value})).collect();

    let length = place.container.env.as_ref().map_or(0, Vec::len);
    if !removals.is_empty() && removals.len() == length && appended.is_empty() && record.created(&created) {
        patch.extend(removals.iter().map(|(index, entry_name)| test(at(&[&index.to_string(), "name"]), entry_name)));
        patch.push(remove(at(&[])));
        return;
    }
    for (index, entry_name) in removals {
        let index = index.to_string();
        patch.push(test(at(&[&index, "name"]), entry_name));
        patch.push(remove(at(&[&index])));
    }
    if appended.is_empty() {
        return;
    }
    if place.container.env.is_none() {
        record.note_created(&created);
        patch.push(add(at(&[]), Value::Array(appended)));
    } else {
        patch.extend(appended.into_iter().map(|entry| add(at(&["-"]), entry)));
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
    let metadata = workload.spec.template.metadata.as_ref();
    let annotations = metadata.and_then(|m| m.annotations.as_ref());
    if metadata.is_none() {
        record.note_created(CREATED_TEMPLATE_METADATA);
    }
    if annotations.is_none() {
        record.note_created(CREATED_TEMPLATE_ANNOTATIONS);
    }
    // Strings in maps: serialization cannot fail; an empty record would be refused as unreadable, never acted on.
    let text = serde_json::to_string(&record).unwrap_or_default();
    let base = [TEMPLATE[0], TEMPLATE[1], "metadata"];
    match (metadata, annotations) {
        (None, _) => {
            patch.push(add(pointer(&base), json!({"annotations": { (names::ANNOTATION_RECORD): text }})));
        }
        (Some(_), None) => {
            let path = pointer(&[&base[..], &["annotations"]].concat());
            patch.push(add(path, json!({ (names::ANNOTATION_RECORD): text })));
        }
        (Some(m), Some(_)) if m.annotation(names::ANNOTATION_RECORD) == Some(&text) => {}
        _ => {
            let path = pointer(&[&base[..], &["annotations", names::ANNOTATION_RECORD]].concat());
            patch.push(add(path, json!(text)));
        }
    }
}

fn pointer(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().map(|t| Token::new(*t)))
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

fn remove(path: PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path })
}

/// Guards an operation by index: if someone else moved the entry meanwhile, the whole patch is refused.
fn test(path: PointerBuf, value: &str) -> PatchOperation {
    PatchOperation::Test(TestOperation { path, value: json!(value) })
}
