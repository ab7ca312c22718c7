//! Brings a template to a wiring, or takes ours out again, as a JSON patch of few operations.
//!
//! Laws (property tests below): `inject` of its own output changes nothing; `uninject(inject(x)) == x`; the user's own
//! entries and their order never change. Position is never drift: every entry is judged by its name.

mod annotations;
pub mod canary;
mod conflict;
mod entries;
mod env;
mod fingerprint;
mod list;
mod notes;
mod pod;
pub mod record;
pub mod view;

use std::collections::BTreeMap;

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use serde_json::{Value, json};

use self::record::{Record, RecordError, RecordedContainer, WIRING_VERSION, short_hash, value_hash};
use self::view::{Container, Metadata, PodSpec, Workload};
use super::settings::Platform;
use super::wiring::parts::{self, PodContext, PodPart};
use super::wiring::{Entry, Group, TRACKING_URI, Wiring, expand};
use crate::api::{ContainerNames, Reason};
use crate::core::selection::kind::Kind;
use crate::names;
use entries::ManagedEntries;
use env::EnvOwnership;
use list::{List, ManagedEntry};
pub use notes::Note;

/// What injection found and wants changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InjectionResult {
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

/// Containers that never get wiring unless named: they are proxies and helpers, not agents.
const SIDE_CONTAINERS: [&str; 12] = [
    "istio-proxy",
    "linkerd-proxy",
    "daprd",
    "vault-agent",
    "queue-proxy",
    "kube-rbac-proxy",
    "oauth-proxy",
    "oauth2-proxy",
    "otc-container",
    "cloud-sql-proxy",
    "authbridge-proxy",
    "config-reloader",
];

/// A parent of ours that the record may name.
const CREATED_LABELS: &str = "labels";
const INIT_CONTAINERS: &str = "initContainers";

/// Brings a template to a wiring.
#[expect(clippy::too_many_lines, reason = "one pass over the containers fills patch, record and notes")]
pub fn inject(
    workload: &Workload<'_>,
    wiring: &Wiring,
    choice: &ContainerNames,
    platform: &Platform,
) -> Result<InjectionResult, RecordError> {
    let old = existing_record(workload)?;
    let mut record = Record { tracing: wiring.tracing.clone(), version: WIRING_VERSION, ..Record::default() };
    record.created = old.as_ref().map(|r| r.created.clone()).unwrap_or_default();
    let recorded = |container_ref: &ContainerRef<'_, '_>| {
        old.as_ref().and_then(|r| r.containers.get(&*container_ref.container.name))
    };

    let mut out = InjectionResult { was_wired: old.is_some(), ..InjectionResult::default() };
    let annotation = workload.annotation(names::ANNOTATION_CONTAINERS);
    let named: Vec<bool> = containers(workload)
        .map(|container_ref| {
            let is_ours = || old.as_ref().is_some_and(|record| pod::is_init_container_of_ours(&container_ref, record));
            container_ref.may_be_wired && is_chosen(&container_ref, choice, annotation) && !is_ours()
        })
        .collect();
    let can_log = |container_ref: &ContainerRef<'_, '_>| {
        let has_token = |automounts| workload.gives_token(container_ref.container, automounts);
        wiring.token.is_none_or(has_token)
            || EnvOwnership::of(container_ref.container, recorded(container_ref)).needs_no_token()
    };
    let chosen: Vec<bool> =
        containers(workload).zip(&named).map(|(container_ref, named)| *named && can_log(&container_ref)).collect();

    let agents =
        || containers(workload).zip(&chosen).filter(|(_, chosen)| **chosen).map(|(container_ref, _)| container_ref);
    let (mut parts, mut kept): (Vec<&PodPart>, Vec<String>) = Default::default();
    for part in &wiring.parts {
        match conflict::conflict(part.kind, workload, old.as_ref(), agents()) {
            Some(what) => kept.push(what),
            None => parts.push(part),
        }
    }
    if !kept.is_empty() {
        out.notes.push(Note::KeptByUser { container: "pod".to_owned(), variables: kept });
    }
    let mounts_of_parts = entries::mounts(&parts);

    let mut hashed: Vec<&str> = vec![&wiring.tracing];
    let default_container =
        workload.template_metadata().and_then(|m| m.annotation(names::ANNOTATION_DEFAULT_CONTAINER));
    let (mut agent, mut init_agent): (Option<&Container<'_>>, _) = (None, None);
    for ((container_ref, chosen), named) in containers(workload).zip(&chosen).zip(&named) {
        let ours = recorded(&container_ref);
        let ownership = EnvOwnership::of(container_ref.container, ours);
        let mut wanted = if *chosen { env::wanted(&wiring.env, &ownership) } else { Vec::new() };
        wanted.retain(|entry| match entry.group {
            Group::Part(kind) => parts.iter().any(|part| part.kind == kind),
            _ => true,
        });
        if *chosen {
            out.notes.extend(env::notes(container_ref.container, &wiring.env, &ownership, !wanted.is_empty()));
        }
        env::container_patch(workload.kind, &container_ref, &ownership, &wanted, &mut record, &mut out.patch);
        let mounts = if wanted.is_empty() { &[][..] } else { &mounts_of_parts };
        let mounts = reconcile_mounts(workload.kind, &container_ref, mounts, ours, &mut record, &mut out.patch);
        if *named && !chosen {
            out.notes.push(Note::NoToken { container: container_ref.container.name.to_string() });
        }
        if wanted.is_empty() {
            continue;
        }
        note_losses(&wanted, container_ref.container, &workload.pod, &mut out.notes);
        if agent.is_none() || default_container == Some(&container_ref.container.name) {
            agent = Some(container_ref.container);
        }
        if container_ref.list == INIT_CONTAINERS {
            init_agent.get_or_insert(container_ref.index);
        }
        let env: BTreeMap<_, _> = wanted.iter().map(|e| (e.name.clone(), value_hash(&e.value))).collect();
        hashed.push(&container_ref.container.name);
        hashed.extend(wanted.iter().flat_map(|e| [&*e.name, &*e.value]));
        record.containers.insert(container_ref.container.name.to_string(), RecordedContainer { env, mounts });
    }
    let Some(agent) = agent else {
        let reason = match (chosen.contains(&true), named.contains(&true)) {
            (true, _) => Reason::OwnTrackingURI,
            (false, true) => Reason::NoServiceAccountToken,
            (false, false) => Reason::NoContainers,
        };
        return Ok(InjectionResult { patch: uninject(workload)?, skipped: Some(reason), ..out });
    };
    let context = PodContext { pod: &workload.pod, agent, platform };
    let managed_entries = ManagedEntries::of(&parts, &context, init_agent);
    hashed.extend(
        managed_entries
            .volumes
            .iter()
            .chain(&managed_entries.init_containers)
            .map(|managed| managed.fingerprint.as_str()),
    );
    let old = old.unwrap_or_default();
    let before = out.patch.len();
    record.pod = pod::reconcile_pod(workload.kind, context.pod, &managed_entries, &old, &mut record, &mut out.patch);
    if old.pod.init_containers != record.pod.init_containers {
        fingerprint::note_contexts(&mut record, &managed_entries.init_containers);
    } else if wiring.renews
        && !out.patch[before..].iter().any(|change| change.path().as_str().contains(INIT_CONTAINERS))
    {
        entries::renew(workload.kind, context.pod, &managed_entries, &mut out.patch);
    }
    record.hash = short_hash(hashed.into_iter());
    out.hash = record.hash.clone();
    label_patch(&workload.metadata, &wiring.tracing, &mut record, &mut out.patch);
    let folders = managed_entries.folders();
    let is_new = folders.split(',').any(|name| !old.pod.volumes.contains_key(name));
    if !annotations::annotate_template(workload, record, &folders, wiring.renews || is_new, &mut out.patch) {
        let skipped = Some(Reason::AnnotationsTooLong);
        return Ok(InjectionResult { patch: uninject(workload)?, hash: String::new(), skipped, ..out });
    }
    Ok(out)
}

/// What keeps a container's traces from where it is wired to; what is said of the pod is said once.
fn note_losses(wanted: &[&Entry], container: &Container<'_>, pod: &PodSpec<'_>, notes: &mut Vec<Note>) {
    let uri = wanted.iter().find(|entry| entry.name == TRACKING_URI).and_then(|entry| expand(&entry.value));
    for note in notes::losses(container, pod, &uri.unwrap_or_default()) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
}

fn reconcile_mounts(
    kind: Kind,
    container_ref: &ContainerRef<'_, '_>,
    wanted: &[ManagedEntry],
    recorded: Option<&RecordedContainer>,
    record: &mut Record,
    patch: &mut Vec<PatchOperation>,
) -> BTreeMap<String, String> {
    let index = container_ref.index.to_string();
    let list = List {
        path: [kind.template(), &["spec", container_ref.list, &index, "volumeMounts"]].concat(),
        key: "mountPath",
        created: format!("{}.volumeMounts", &*container_ref.container.name),
        used: Vec::new(),
        before: None,
    };
    let none = BTreeMap::new();
    let recorded = recorded.map_or(&none, |r| &r.mounts);
    list::reconcile_list(&list, &pod::live_mounts(container_ref.container), wanted, recorded, record, patch)
}

/// Takes out what the record says is ours and still has our value. No record, no patch.
pub fn uninject(workload: &Workload<'_>) -> Result<Vec<PatchOperation>, RecordError> {
    let Some(mut record) = existing_record(workload)? else { return Ok(Vec::new()) };
    let mut patch = Vec::new();
    for container_ref in containers(workload) {
        let ours = record.containers.get(&*container_ref.container.name).cloned();
        let ownership = EnvOwnership::of(container_ref.container, ours.as_ref());
        env::container_patch(workload.kind, &container_ref, &ownership, &[], &mut record, &mut patch);
        reconcile_mounts(workload.kind, &container_ref, &[], ours.as_ref(), &mut record, &mut patch);
    }
    let ours = record.clone();
    pod::reconcile_pod(workload.kind, &workload.pod, &ManagedEntries::default(), &ours, &mut record, &mut patch);
    if let Some(metadata) = workload.template_metadata() {
        patch.extend(annotations::removal(workload.kind, metadata, &record));
    }
    patch.extend(remove_leftovers(&workload.metadata, record.created(CREATED_LABELS)));
    Ok(patch)
}

/// Takes out what we put on a workload's own metadata; `made_labels` says that it had no labels before.
pub fn remove_leftovers(metadata: &Metadata<'_>, made_labels: bool) -> Vec<PatchOperation> {
    let mut patch = Vec::new();
    if let Some(labels) = &metadata.labels
        && labels.contains_key(names::LABEL_WIRED)
    {
        let parent = labels.len() == 1 && made_labels;
        let path: &[&str] = if parent { &["metadata", "labels"] } else { &["metadata", "labels", names::LABEL_WIRED] };
        patch.push(remove(pointer(path)));
    }
    let of_parts = parts::kinds().filter_map(|kind| kind.fallback.as_ref());
    let of_parts = of_parts.flat_map(|annotations| [annotations.not_started, annotations.refused]);
    for ours in std::iter::once(names::ANNOTATION_TOUCH).chain(of_parts) {
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
struct ContainerRef<'w, 'a> {
    list: &'static str,
    index: usize,
    /// All of `containers`, and of the init containers those that are native side containers.
    may_be_wired: bool,
    container: &'w Container<'a>,
}

/// Every container: one that may no longer be wired can still carry what we added.
fn containers<'w, 'a>(workload: &'w Workload<'a>) -> impl Iterator<Item = ContainerRef<'w, 'a>> {
    let spec = &workload.pod;
    let main = spec.containers.iter().enumerate().map(|(index, container)| ContainerRef {
        list: "containers",
        index,
        may_be_wired: true,
        container,
    });
    let init = spec.init_containers.iter().flatten().enumerate().map(|(index, container)| ContainerRef {
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

fn is_chosen(container_ref: &ContainerRef<'_, '_>, choice: &ContainerNames, annotation: Option<&str>) -> bool {
    let name: &str = &container_ref.container.name;
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

#[cfg(test)]
mod tests;
