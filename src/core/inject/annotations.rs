//! Our annotations on a template: the record, and a word for the cluster autoscaler.

use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::record::Record;
use super::view::{Metadata, Workload};
use super::{add, pointer, remove};
use crate::core::selection::kind::Kind;
use crate::core::wiring::parts;
use crate::names;

/// Parents of ours that the record may name.
const CREATED_TEMPLATE_METADATA: &str = "template.metadata";
const CREATED_TEMPLATE_ANNOTATIONS: &str = "template.annotations";
/// An annotation of ours beside the record. It stays named where somebody took it out or changed it, and is not set again.
const CREATED_EVICTABLE_VOLUMES: &str = "template.annotations.safe-to-evict-local-volumes";

/// Bytes of all names and values of an object's annotations that the API server takes.
const MAX_ANNOTATIONS: usize = 262_144;

/// Writes the record, and with the first volume of ours on the node the annotation that lets the cluster autoscaler evict the pod:
/// `folders` is what that has to say, empty where there is no such volume. The annotation alone does not roll a workload.
///
/// False where the template's annotations would become longer than the API server takes: it would refuse the user's object.
pub(super) fn annotate_template(
    workload: &Workload<'_>,
    mut record: Record,
    folders: &str,
    renews: bool,
    patch: &mut Vec<PatchOperation>,
) -> bool {
    let metadata = workload.template_metadata();
    let annotations = metadata.and_then(|m| m.annotations.as_ref());
    let of_template = |name: &str| metadata.and_then(|m| m.annotation(name));
    if metadata.is_none() {
        record.note_created(CREATED_TEMPLATE_METADATA);
    }
    if annotations.is_none() {
        record.note_created(CREATED_TEMPLATE_ANNOTATIONS);
    }
    let found = of_template(names::ANNOTATION_EVICTABLE_VOLUMES);
    let is_free = found.is_none() && of_template(names::ANNOTATION_SAFE_TO_EVICT).is_none();
    let (mut adds, mut removes) = (false, false);
    if record.created(CREATED_EVICTABLE_VOLUMES) {
        let is_ours = found.is_some_and(names_folders);
        removes = folders.is_empty() && is_ours;
        // With another part come other volumes.
        adds = !folders.is_empty() && is_ours && renews;
        if folders.is_empty() {
            record.created.retain(|created| created != CREATED_EVICTABLE_VOLUMES);
        }
    } else if !folders.is_empty() && is_free && renews {
        adds = true;
        record.note_created(CREATED_EVICTABLE_VOLUMES);
    }
    // Strings in maps: serialization cannot fail; an empty record would be refused as unreadable, never acted on.
    let text = serde_json::to_string(&record).unwrap_or_default();
    let at = |rest: &[&str]| pointer(&[workload.kind.template(), &["metadata"], rest].concat());
    let mut ours = vec![(names::ANNOTATION_RECORD, text)];
    ours.extend(adds.then(|| (names::ANNOTATION_EVICTABLE_VOLUMES, folders.to_owned())));
    let size = |name: &str, value: &str| name.len() + value.len();
    let added: usize = ours.iter().map(|(name, value)| size(name, value)).sum();
    let replaced: usize = ours.iter().filter_map(|(name, _)| Some(size(name, of_template(name)?))).sum();
    if annotations.map_or(0, |all| all.size) + added > MAX_ANNOTATIONS + replaced {
        return false;
    }
    ours.retain(|(name, value)| of_template(name) != Some(value));
    match (metadata, annotations) {
        (None, _) => patch.push(add(at(&[]), json!({"annotations": object(ours)}))),
        (Some(_), None) => patch.push(add(at(&["annotations"]), object(ours))),
        (Some(_), Some(_)) => {
            patch.extend(ours.into_iter().map(|(name, value)| add(at(&["annotations", name]), json!(value))));
        }
    }
    if removes {
        patch.push(remove(at(&["annotations", names::ANNOTATION_EVICTABLE_VOLUMES])));
    }
    true
}

fn object(entries: Vec<(&str, String)>) -> Value {
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Whether the annotation says what we may have said, and no more.
fn names_folders(value: &str) -> bool {
    value.split(',').all(|name| parts::kinds().any(|kind| kind.folders.contains(&name)))
}

/// Takes our annotations out of a template's metadata.
pub(super) fn removal(kind: Kind, metadata: &Metadata<'_>, record: &Record) -> Vec<PatchOperation> {
    let at = |rest: &[&str]| pointer(&[kind.template(), rest].concat());
    let evictable = record.created(CREATED_EVICTABLE_VOLUMES)
        && metadata.annotation(names::ANNOTATION_EVICTABLE_VOLUMES).is_some_and(names_folders);
    let ours: Vec<&str> = [(names::ANNOTATION_RECORD, true), (names::ANNOTATION_EVICTABLE_VOLUMES, evictable)]
        .into_iter()
        .filter_map(|(name, is_ours)| is_ours.then_some(name))
        .collect();
    let only_ours = metadata.annotations.as_ref().is_some_and(|a| a.total == ours.len());
    if only_ours && record.created(CREATED_TEMPLATE_METADATA) && metadata.fields == 1 {
        return vec![remove(at(&["metadata"]))];
    }
    if only_ours && record.created(CREATED_TEMPLATE_ANNOTATIONS) {
        return vec![remove(at(&["metadata", "annotations"]))];
    }
    ours.iter().map(|name| remove(at(&["metadata", "annotations", name]))).collect()
}
