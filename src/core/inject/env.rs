//! The environment of one container: what is ours, what is the user's, and the patch between is and ought.

use std::collections::BTreeMap;

use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::record::{Record, RecordedContainer, value_hash};
use super::view::{Container, EnvEntry};
use super::{ContainerRef, Note, add, pointer, remove, test};
use crate::core::selection::kind::Kind;
use crate::core::wiring::{
    AUTH_GROUP, EXPERIMENT_GROUP, Entry, Group, OTLP_DUAL_EXPORT, OTLP_ENDPOINTS, OTLP_EXPORTER, OTLP_EXPORTER_PREFIX,
    TRACKING_URI,
};

/// A container's environment, divided into ours and the user's.
pub(super) struct EnvOwnership<'w, 'a> {
    /// Ours, untouched: index and entry by name.
    ours: BTreeMap<&'w str, Vec<(usize, &'w EnvEntry<'a>)>>,
    /// The user's names, also those that were ours before the user edited them; each as often as it is there.
    users: Vec<&'w str>,
}

impl<'w, 'a> EnvOwnership<'w, 'a> {
    pub(super) fn of(container: &'w Container<'a>, recorded: Option<&RecordedContainer>) -> Self {
        let mut ours: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        let mut users = Vec::with_capacity(container.env.as_ref().map_or(0, Vec::len));
        for (index, entry) in container.env.iter().flatten().enumerate() {
            let hash = recorded.and_then(|r| r.env.get(&*entry.name));
            let value = entry.value.as_deref().unwrap_or_default();
            if entry.value_from.is_none() && hash.is_some_and(|h| *h == value_hash(value)) {
                ours.entry(&*entry.name).or_default().push((index, entry));
            } else {
                users.push(&*entry.name);
            }
        }
        Self { ours, users }
    }

    fn user_sets(&self, name: &str) -> bool {
        self.users.contains(&name)
    }

    fn user_sets_otlp(&self) -> bool {
        self.users.iter().any(|name| name.starts_with(OTLP_EXPORTER_PREFIX))
    }

    /// Whether the container has credentials of its own, or another server.
    pub(super) fn needs_no_token(&self) -> bool {
        self.user_sets(TRACKING_URI) || AUTH_GROUP.iter().any(|name| self.user_sets(name))
    }
}

/// The user's choice wins, by group.
pub(super) fn wanted<'e>(env: &'e [Entry], ownership: &EnvOwnership<'_, '_>) -> Vec<&'e Entry> {
    if ownership.user_sets(TRACKING_URI) {
        return Vec::new();
    }
    let own_experiment = EXPERIMENT_GROUP.iter().any(|name| ownership.user_sets(name));
    let own_auth = AUTH_GROUP.iter().any(|name| ownership.user_sets(name));
    let own_otlp = ownership.user_sets_otlp();
    let diverts = diverting_variable(env, ownership);
    env.iter()
        .filter(|e| match e.group {
            Group::Address => true,
            Group::Experiment => !own_experiment,
            Group::Auth => !own_auth,
            Group::Otlp => !own_otlp && !ownership.user_sets(&e.name),
            Group::OtlpExporter => diverts.is_some() && !ownership.user_sets(&e.name),
            Group::Part(part) => {
                let rival = part.rivals(&e.name).iter().any(|name| ownership.user_sets(name));
                !rival && !ownership.user_sets(&e.name)
            }
            Group::Single => !ownership.user_sets(&e.name),
        })
        .collect()
}

/// The variable that would take the SDK's traces to another place than MLflow alone.
fn diverting_variable(env: &[Entry], ownership: &EnvOwnership<'_, '_>) -> Option<&'static str> {
    let own_otlp = ownership.user_sets_otlp();
    let is_given = |e: &Entry| e.group == Group::Single || (e.group == Group::Otlp && !own_otlp);
    let is_set = |name: &str| ownership.user_sets(name) || env.iter().any(|e| is_given(e) && e.name == name);
    OTLP_ENDPOINTS.into_iter().find(|name| is_set(name)).filter(|_| !is_set(OTLP_DUAL_EXPORT))
}

pub(super) fn notes(
    container: &Container<'_>,
    env: &[Entry],
    ownership: &EnvOwnership<'_, '_>,
    wired: bool,
) -> Vec<Note> {
    let has = |group| env.iter().any(|e| e.group == group);
    let auth = has(Group::Auth);
    let is_rival = |entry: &Entry, name: &str| match entry.group {
        Group::Part(part) => part.rivals(&entry.name).contains(&name),
        _ => false,
    };
    let concerns_us = |name: &&&str| {
        EXPERIMENT_GROUP.contains(*name)
            || (auth && AUTH_GROUP.contains(*name))
            || (has(Group::Otlp) && name.starts_with(OTLP_EXPORTER_PREFIX))
            || env.iter().any(|entry| entry.name == ***name || is_rival(entry, name))
    };
    let mut variables: Vec<String> = Vec::new();
    for name in ownership.users.iter().filter(concerns_us) {
        if !variables.iter().any(|known| known == name) {
            variables.push((*name).to_owned());
        }
    }
    let name = || container.name.to_string();
    let kept = (!variables.is_empty()).then(|| Note::KeptByUser { container: name(), variables });
    let sources = wired && container.env_from.as_ref().is_some_and(|sources| !sources.is_empty());
    let sources = sources.then(|| Note::MayOverrideEnvFrom { container: name() });
    // Of an endpoint of ours nobody has to be told.
    let is_ours =
        |name: &str| !ownership.user_sets_otlp() && env.iter().any(|e| e.group == Group::Otlp && e.name == name);
    let otlp = diverting_variable(env, ownership).filter(|variable| {
        wired && has(Group::OtlpExporter) && !ownership.user_sets(OTLP_EXPORTER) && !is_ours(variable)
    });
    let otlp = otlp.map(|variable| Note::OtlpEndpoint { container: name(), variable });
    kept.into_iter().chain(sources).chain(otlp).collect()
}

/// Changed values first (their index still holds), then removals from the end, then appends.
pub(super) fn container_patch(
    kind: Kind,
    container_ref: &ContainerRef<'_, '_>,
    ownership: &EnvOwnership<'_, '_>,
    wanted: &[&Entry],
    record: &mut Record,
    patch: &mut Vec<PatchOperation>,
) {
    let name: &str = &container_ref.container.name;
    let index = container_ref.index.to_string();
    let at = |rest: &[&str]| pointer(&[kind.template(), &["spec", container_ref.list, &index, "env"], rest].concat());
    let created = format!("{name}.env");

    let is_ours = |entry_name: &str| ownership.ours.contains_key(entry_name) && !ownership.user_sets(entry_name);
    let mut removals = Vec::new();
    for (entry_name, entries) in &ownership.ours {
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

    let length = container_ref.container.env.as_ref().map_or(0, Vec::len);
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
    if container_ref.container.env.is_none() {
        record.note_created(&created);
        patch.push(add(at(&[]), Value::Array(appended)));
    } else {
        let end = at(&["-"]);
        patch.extend(appended.into_iter().map(|entry| add(end.clone(), entry)));
    }
}
