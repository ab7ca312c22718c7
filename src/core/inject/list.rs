//! Lists of a pod whose entries have names, brought to what is wanted without touching the user's entries or their order.

use std::collections::BTreeMap;

use json_patch::PatchOperation;
use serde_json::Value;

use super::record::Record;
use super::{add, pointer, remove, replace, test};

/// An entry of a list that is keyed by name.
pub(in crate::core) struct ManagedEntry {
    pub name: String,
    pub value: Value,
    pub fingerprint: String,
}

/// A list of the pod as it is: names and fingerprints in their order; `None` where there is no list. An entry that is as the
/// record says, or with more than that, has the recorded fingerprint.
pub(super) type LiveEntries = Option<Vec<(String, String)>>;

/// Where a list stands, and the name under which the record keeps that we made it.
pub(super) struct List<'a> {
    pub path: Vec<&'a str>,
    /// The field of an entry that names it.
    pub key: &'a str,
    pub created: String,
    /// Entries that stay even when they are ours and no longer wanted.
    pub used: Vec<&'a str>,
    /// The entry before which ours have to stand; else they are appended, and stay where they are.
    pub before: Option<usize>,
}

/// The name of an entry that somebody else has, of those that are looked for.
pub(super) fn foreign_entry<'a>(
    live: &'a LiveEntries,
    recorded: &BTreeMap<String, String>,
    is_looked_for: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let foreign = |(name, fingerprint): &&(String, String)| {
        is_looked_for(name) && recorded.get(name).is_none_or(|hash| hash != fingerprint)
    };
    live.iter().flatten().find(foreign).map(|(name, _)| name.as_str())
}

/// Brings one list to what is wanted; returns what the record says of it from now on.
pub(super) fn reconcile_list(
    list: &List<'_>,
    live: &LiveEntries,
    wanted: &[ManagedEntry],
    recorded: &BTreeMap<String, String>,
    record: &mut Record,
    patch: &mut Vec<PatchOperation>,
) -> BTreeMap<String, String> {
    let at = |rest: &[&str]| pointer(&[&list.path[..], rest].concat());
    let entries = live.as_deref().unwrap_or_default();
    let is_ours =
        |(name, fingerprint): &(String, String)| recorded.get(name).is_some_and(|recorded| recorded == fingerprint);
    let (mut removals, mut moved) = (Vec::new(), Vec::new());
    for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| is_ours(entry)) {
        let text = index.to_string();
        match wanted.iter().find(|managed| managed.name == entry.0) {
            // Behind an agent that needs it our init container would come too late, or never.
            Some(_) if list.before.is_some_and(|before| index > before) => {
                moved.push(entry.0.as_str());
                removals.push((index, entry.0.as_str()));
            }
            Some(managed) if managed.fingerprint == entry.1 => {}
            Some(managed) => {
                patch.push(test(at(&[&text, list.key]), &entry.0));
                patch.push(replace(at(&[&text]), managed.value.clone()));
            }
            None if list.used.contains(&entry.0.as_str()) => {}
            None => removals.push((index, entry.0.as_str())),
        }
    }
    let is_moved = |managed: &ManagedEntry| moved.contains(&managed.name.as_str());
    // Those before it that go make it stand further in front.
    let gone = |before: usize| removals.iter().filter(|(index, _)| *index < before).count();
    let before = list.before.map(|before| before - gone(before));
    let missing = |managed: &&ManagedEntry| is_moved(managed) || !entries.iter().any(|(name, _)| *name == managed.name);
    let appended: Vec<Value> = wanted.iter().filter(missing).map(|managed| managed.value.clone()).collect();
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
            for (nth, value) in appended.into_iter().enumerate() {
                let index = before.map_or_else(|| "-".to_owned(), |before| (before + nth).to_string());
                patch.push(add(at(&[&index]), value));
            }
        }
    }
    // An entry of the user's under this name is none of ours, and stays out of the record.
    let ours = |managed: &&ManagedEntry| entries.iter().all(|entry| entry.0 != managed.name || is_ours(entry));
    wanted.iter().filter(ours).map(|managed| (managed.name.clone(), managed.fingerprint.clone())).collect()
}
