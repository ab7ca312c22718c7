//! How an entry of ours is known again.
//!
//! A fingerprint is taken over the fields that we set and no others: the API server adds defaults, and policy engines add
//! security contexts and mounts to every container of a template. Who *adds* to an entry leaves it ours; who *changes* a
//! field of ours takes it over. The image is left out, so that an upgrade of the operator alone rolls nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::list::ManagedEntry;
use super::record::{Record, short_hash};
use super::view::{ConfigMapVolume, Container, EnvEntry, Mount, TokenSource, Volume};
use crate::core::wiring::parts::container_kinds;

pub(super) fn of_volume(volume: &Volume<'_>) -> String {
    of_volume_with(volume, usize::MAX)
}

/// The recorded fingerprint where the volume is still as recorded, but for sources that somebody appended.
pub(super) fn of_volume_as(volume: &Volume<'_>, recorded: Option<&String>) -> String {
    let sources = volume.projected.as_ref().map_or(0, |projected| projected.sources.len()).min(MAX_SOURCES);
    as_recorded(of_volume(volume), recorded, (0..sources).map(|count| of_volume_with(volume, count)))
}

fn of_volume_with(volume: &Volume<'_>, sources: usize) -> String {
    let mut parts = vec![volume.name.to_string()];
    if let Some(folder) = &volume.empty_dir {
        parts.extend(["emptyDir".to_owned(), folder.size_limit.as_deref().unwrap_or_default().to_owned()]);
    }
    let projected = || volume.projected.iter().flat_map(|p| p.sources.iter().take(sources));
    for map in volume.config_map.iter().chain(projected().filter_map(|source| source.config_map.as_ref())) {
        let ConfigMapVolume { name, optional, items } = map;
        parts.extend(["configMap".to_owned(), name.to_string(), optional.unwrap_or(false).to_string()]);
        parts.extend(items.iter().flat_map(|item| [item.key.to_string(), item.path.to_string()]));
    }
    for token in projected().filter_map(|source| source.service_account_token.as_ref()) {
        let TokenSource { path, audience } = token;
        parts.extend(["token".to_owned(), path.to_string(), audience.as_deref().unwrap_or_default().to_owned()]);
    }
    short_hash(parts.iter().map(String::as_str))
}

pub(super) fn of_container(container: &Container<'_>) -> String {
    of_container_with(container, container.security_context.as_ref())
}

/// The recorded fingerprint where the init container is still as recorded, but for fields that somebody added.
pub(super) fn of_container_as(container: &Container<'_>, record: &Record) -> String {
    let found = container.security_context.as_ref().filter(|found| found.to_string().len() <= MAX_CONTEXT);
    let contexts = found.map(|found| match container.command.is_empty() {
        true => contexts_of_ours(found).into(),
        false => vec![context_of_an_agent(&container.name, found, record)],
    });
    let reduced = contexts.into_iter().flatten().map(|context| of_container_with(container, context.as_ref()));
    as_recorded(of_container(container), record.pod.init_containers.get(&*container.name), reduced)
}

/// What one of these is, if it is what the record says, and otherwise what there is.
fn as_recorded(found: String, recorded: Option<&String>, mut reduced: impl Iterator<Item = String>) -> String {
    match recorded {
        Some(recorded) if found != *recorded => reduced.find(|reduced| reduced == recorded).unwrap_or(found),
        _ => found,
    }
}

fn of_container_with(container: &Container<'_>, security_context: Option<&Value>) -> String {
    // Of the agent's shell its name and `-c`: a better script is, like a newer image, no reason to roll anything. Our own
    // program has one argument, and leaves out those that it does not know.
    let arguments = match container.command.is_empty() {
        true => container.args.iter().take(1),
        false => container.command.iter().take(2),
    };
    let mut parts: Vec<String> = arguments.map(|argument| argument.to_string()).collect();
    let mounts = || container.volume_mounts.iter().flatten();
    let kind = container_kinds().find(|kind| kind.name == &*container.name);
    let (paths, variables) = kind.map_or((&[][..], &[][..]), |kind| (kind.mounts, kind.env));
    parts.extend(paths.iter().filter_map(|path| mounts().find(|m| &*m.mount_path == *path)).map(of_mount));
    let entry = |name: &&str| container.env.iter().flatten().find(|entry| &*entry.name == *name);
    let value = |entry: &EnvEntry<'_>| entry.value.as_deref().unwrap_or_default().to_owned();
    parts.extend(variables.iter().filter_map(entry).flat_map(|entry| [entry.name.to_string(), value(entry)]));
    parts.push(security_context.map(context).unwrap_or_default());
    // With a command it runs the agent's image, which it has to follow; the operator's may be an older one.
    parts.extend((!container.command.is_empty()).then(|| container.image.to_string()));
    short_hash(parts.iter().map(String::as_str))
}

/// The security contexts that we may have given to our own image, each with only those fields of what is there.
fn contexts_of_ours(found: &Value) -> [Option<Value>; 4] {
    let mut always = Map::new();
    for field in ["allowPrivilegeEscalation", "readOnlyRootFilesystem", "runAsNonRoot"] {
        if let Some(value) = found.get(field) {
            always.insert(field.to_owned(), value.clone());
        }
    }
    let dropped = found.pointer("/capabilities/drop").and_then(Value::as_array);
    if dropped.is_some_and(|dropped| dropped.iter().any(|capability| capability == "ALL")) {
        always.insert("capabilities".to_owned(), json!({"drop": ["ALL"]}));
    }
    let profile = found.pointer("/seccompProfile/type").map(|kind| ("seccompProfile", json!({"type": kind})));
    let user = found.get("runAsUser").map(|user| ("runAsUser", user.clone()));
    let choices = [(false, false), (true, false), (false, true), (true, true)];
    choices.map(|(with_profile, with_user)| {
        let optional = [profile.clone().filter(|_| with_profile), user.clone().filter(|_| with_user)];
        let mut fields = always.clone();
        fields.extend(optional.into_iter().flatten().map(|(field, value)| (field.to_owned(), value)));
        Some(Value::Object(fields))
    })
}

/// What there is of the fields that an agent's security context had when our init container took it over.
fn context_of_an_agent(container: &str, found: &Value, record: &Record) -> Option<Value> {
    let mut context = Map::new();
    for (field, value) in found.as_object().into_iter().flatten() {
        let inner = value.as_object().filter(|inner| !inner.is_empty()).map(|inner| {
            let set = inner.iter().filter(|(name, _)| record.created(&noted(container, field, Some(name))));
            Value::Object(set.map(|(name, value)| (name.clone(), value.clone())).collect())
        });
        match inner {
            Some(inner) if inner.as_object().is_some_and(Map::is_empty) => {}
            Some(inner) => {
                context.insert(field.clone(), inner);
            }
            None if record.created(&noted(container, field, None)) => {
                context.insert(field.clone(), value.clone());
            }
            None => {}
        }
    }
    (!context.is_empty()).then_some(Value::Object(context))
}

/// Notes in the record which fields of an agent's security context our init containers took over: only then can be told what
/// somebody adds to it.
pub(super) fn note_contexts(record: &mut Record, containers: &[ManagedEntry]) {
    record.created.retain(|created| !created.contains(CONTEXT));
    for ManagedEntry { name, value, .. } in containers.iter().filter(|managed| managed.value.get("command").is_some()) {
        let context = value.get("securityContext").and_then(Value::as_object);
        for (field, value) in context.into_iter().flatten() {
            match value.as_object().filter(|inner| !inner.is_empty()) {
                Some(inner) => inner.keys().for_each(|key| record.note_created(&noted(name, field, Some(key)))),
                None => record.note_created(&noted(name, field, None)),
            }
        }
    }
}

/// How the record names a field of a container's security context, or a field of that.
fn noted(container: &str, field: &str, inner: Option<&str>) -> String {
    match inner {
        Some(inner) => format!("{container}{CONTEXT}{field}.{inner}"),
        None => format!("{container}{CONTEXT}{field}"),
    }
}

const CONTEXT: &str = ".securityContext.";

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

/// Bytes and levels of a security context: one of every field of Kubernetes' has 1 KiB and three levels.
const MAX_CONTEXT: usize = 4096;
const MAX_LEVELS: usize = 4;
/// Sources of a projected volume that are looked at; we set at most eleven.
const MAX_SOURCES: usize = 32;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::core::inject::record::RecordedPod;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_security_context_is_told_by_its_content_and_a_deep_or_long_one_costs_no_more() {
        let contexted = |text: &str| context(&parsed(text));
        let [one, other] = [r#"{"a": {"b": 1, "c": ["\\\""]}}"#, r#"{"a": {"c": ["\\\""], "b": 1}}"#].map(contexted);
        assert_eq!(one, other);
        let deep = format!("{}\"\\\\\"{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert!(contexted(&deep).len() < 64 * deep.len());
        let long = format!("[[[[\"{}\"]]]]", "\\\\".repeat(1 << 20));
        assert_eq!(contexted(&long), long);
    }

    fn init_container(context: &Value) -> Value {
        json!({"name": "merge-ca", "image": "x", "args": ["merge-ca"], "securityContext": context, "volumeMounts": [
            {"name": "ca-bundle", "mountPath": "/tmp/ca-bundle"},
            {"name": "ca-sources", "mountPath": "/tmp/ca-sources", "readOnly": true},
        ]})
    }

    fn fingerprint(container: &Value) -> String {
        of_container(&Container::deserialize(container).unwrap())
    }

    fn is_as_recorded(container: &Value, recorded: &str) -> bool {
        is_as(container, &Record { pod: pod(recorded), ..Record::default() })
    }

    fn is_as(container: &Value, record: &Record) -> bool {
        let found = of_container_as(&Container::deserialize(container).unwrap(), record);
        found == record.pod.init_containers["merge-ca"]
    }

    fn pod(recorded: &str) -> RecordedPod {
        let init_containers = [("merge-ca".to_owned(), recorded.to_owned())].into();
        RecordedPod { init_containers, ..RecordedPod::default() }
    }

    /// Cases B01 and B02.
    #[test]
    fn who_adds_to_our_init_container_leaves_it_ours_and_who_changes_a_field_takes_it() {
        let ours = json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
        });
        let mut with_profile = ours.clone();
        with_profile["seccompProfile"] = json!({"type": "RuntimeDefault"});
        for set in [ours, with_profile] {
            let recorded = fingerprint(&init_container(&set));
            for (field, value) in [
                ("privileged", json!(false)),
                ("runAsUser", json!(1000)),
                ("runAsGroup", json!(1000)),
                ("capabilities", json!({"drop": ["ALL", "NET_RAW"], "add": ["CHOWN"]})),
            ] {
                let mut context = set.clone();
                context[field] = value;
                assert!(is_as_recorded(&init_container(&context), &recorded), "{field} was added");
            }
            for (field, value) in [
                ("runAsNonRoot", json!(false)),
                ("capabilities", json!({"drop": ["NET_RAW"]})),
                ("readOnlyRootFilesystem", Value::Null),
            ] {
                let mut context = set.clone();
                context[field] = value;
                assert!(!is_as_recorded(&init_container(&context), &recorded), "{field} was changed");
            }
            let mut mounted = init_container(&set);
            mounted["volumeMounts"]
                .as_array_mut()
                .unwrap()
                .insert(0, json!({"name": "roots", "mountPath": "/etc/ssl/certs"}));
            mounted["args"] = json!(["merge-ca", "--added"]);
            assert!(is_as_recorded(&mounted, &recorded));
            mounted["volumeMounts"][1]["mountPath"] = json!("/elsewhere");
            assert!(!is_as_recorded(&mounted, &recorded));
        }
    }

    #[test]
    fn who_adds_to_an_init_container_with_the_agents_image_leaves_it_ours() {
        let shell = |context: &Value| {
            let mut container = init_container(context);
            container["command"] = json!(["/bin/sh", "-c", "the script"]);
            container
        };
        let managed = |value: Value| ManagedEntry { name: "merge-ca".to_owned(), value, fingerprint: String::new() };
        let recorded = |context: &Value| {
            let mut record = Record { pod: pod(&fingerprint(&shell(context))), ..Record::default() };
            note_contexts(&mut record, &[managed(shell(context))]);
            record
        };
        let set = json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}, "procMount": {}});
        let mut added = set.clone();
        added["capabilities"]["add"] = json!(["CHOWN"]);
        added["privileged"] = json!(false);
        added["seLinuxOptions"] = json!({"level": "s0"});
        assert!(is_as(&shell(&added), &recorded(&set)));
        added["runAsUser"] = json!(0);
        assert!(!is_as(&shell(&added), &recorded(&set)));
        let mut without = recorded(&Value::Null);
        assert_eq!(without.created, Vec::<String>::new());
        let mut plain = shell(&Value::Null);
        plain.as_object_mut().unwrap().remove("securityContext");
        without.pod = pod(&fingerprint(&plain));
        assert!(is_as(&shell(&json!({"privileged": false})), &without), "all of it was added");
    }

    #[test]
    fn who_appends_a_source_to_our_volume_leaves_it_ours() {
        let of = |sources: &[&str]| {
            let map = |name: &&str| json!({"configMap": {"name": name, "items": [{"key": "ca.crt", "path": "ca.crt"}], "optional": true}});
            json!({"name": "ca-sources", "projected": {"sources": sources.iter().map(map).collect::<Vec<_>>()}})
        };
        let read = |value: &Value| Volume::deserialize(value).map(|v| of_volume(&v)).unwrap();
        let recorded = read(&of(&["one", "two"]));
        let found = |value: &Value| of_volume_as(&Volume::deserialize(value).unwrap(), Some(&recorded));
        assert_eq!(found(&of(&["one", "two", "corporate"])), recorded);
        assert_ne!(found(&of(&["two", "one", "corporate"])), recorded);
    }
}
