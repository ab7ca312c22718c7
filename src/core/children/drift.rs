//! Whether a live object still is what we applied, judged without writing.
//!
//! An API server answers with more than was applied (defaults, status, what admission and other managers added), with
//! quantities rewritten and empty values dropped. A server-side apply that changes nothing still is a request in the
//! audit log of every cluster, so the comparison has to be exact in both directions: a miss leaves a broken server, a
//! false alarm writes for ever.
//!
//! A field that we no longer want is not in `desired`, so no comparison finds it. [`crate::names::ANNOTATION_APPLIED`]
//! does: it is a hash of the whole desired object.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

use crate::core::children::quantity;

/// Whether any field of `desired` is missing or different in `live`. Fields that only `live` has do not count.
pub fn has_drifted(desired: &Value, live: &Value) -> bool {
    !is_covered(desired, Some(live), ValueKind::Plain, "")
}

/// What the comparison must know of a value's place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    /// Text is compared as text.
    Plain,
    /// Text is a quantity.
    Quantity,
    /// Its values are quantities.
    Quantities,
}

/// Maps whose emptiness is the same as their absence. **Not** a `podSelector` or `namespaceSelector`: `{}` there selects
/// everything, and their absence means something else.
const MAPS: [&str; 7] = ["annotations", "labels", "limits", "matchLabels", "nodeSelector", "requests", "selector"];

fn is_covered(desired: &Value, live: Option<&Value>, kind: ValueKind, key: &str) -> bool {
    match (desired, live) {
        (desired, None | Some(Value::Null)) => is_empty(desired, key),
        (Value::Object(desired), Some(Value::Object(live))) => is_object_covered(desired, live, kind),
        (Value::Array(desired), Some(Value::Array(live))) => is_list_covered(desired, live),
        (Value::String(desired), Some(Value::String(live))) if kind == ValueKind::Quantity => {
            quantity::equal(desired, live)
        }
        (Value::Null, Some(live)) => is_empty(live, key),
        (desired, Some(live)) => desired == live,
    }
}

fn is_object_covered(desired: &Map<String, Value>, live: &Map<String, Value>, kind: ValueKind) -> bool {
    desired.iter().all(|(key, value)| {
        let inner = match (kind, key.as_str()) {
            (ValueKind::Quantities, _) | (ValueKind::Plain, "sizeLimit") => ValueKind::Quantity,
            (ValueKind::Plain, "limits" | "requests") => ValueKind::Quantities,
            _ => ValueKind::Plain,
        };
        is_covered(value, live.get(key), inner, key)
    })
}

/// A list with named entries is a map to the API server: others may add to it, and apply may reorder it. Any other list
/// is ours as a whole.
fn is_list_covered(desired: &[Value], live: &[Value]) -> bool {
    let covers = |wanted: &Value, found: &Value| is_covered(wanted, Some(found), ValueKind::Plain, "");
    if !desired.is_empty() && desired.iter().all(|entry| name_of(entry).is_some()) {
        // Owner references of two kinds may share a name: one of the namesakes has to fit, not the first.
        return desired
            .iter()
            .all(|wanted| live.iter().any(|found| name_of(found) == name_of(wanted) && covers(wanted, found)));
    }
    desired.len() == live.len() && desired.iter().zip(live).all(|(wanted, found)| covers(wanted, found))
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("name").and_then(Value::as_str)
}

fn is_empty(value: &Value, key: &str) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty() && MAPS.contains(&key),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A change that the API server would refuse for ever. It is told, never tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedChange {
    /// The field of the AgentTracing's spec.
    pub field: &'static str,
    /// What the spec asks for.
    pub wanted: String,
    /// What the object has.
    pub live: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for RefusedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, wanted, live, remedy } = self;
        write!(f, "{field} is \"{wanted}\", but the volume that exists has \"{live}\": {remedy}")
    }
}

const SIZE: &str = "/spec/resources/requests/storage";
const SIZE_FIELD: &str = "spec.mlflow.standalone.storage.size";
const CLASS: &str = "/spec/storageClassName";
const CLASS_FIELD: &str = "spec.mlflow.standalone.storage.storageClassName";

/// What a PersistentVolumeClaim that exists will not become: a smaller one, one of another class and, until it is bound,
/// one of any other size.
pub fn refused_changes(desired: &Value, live: &Value) -> Vec<RefusedChange> {
    let text = |object: &Value, path| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let phase = text(live, "/status/phase");
    let delete =
        format!("kubectl delete pvc -n {} {}", text(live, "/metadata/namespace"), text(live, "/metadata/name"));
    let unbound = format!("nothing is stored yet and an unbound claim cannot change; let it be made anew: {delete}");
    let is_bound = phase.is_empty() || phase == "Bound";
    let mut refused_changes = Vec::new();

    let (wanted, found) = (text(desired, SIZE), text(live, SIZE));
    let order = match (quantity::parse(&wanted), quantity::parse(&found)) {
        (Some(wanted), Some(found)) => wanted.cmp(&found),
        _ => Ordering::Equal,
    };
    if order == Ordering::Less || (order == Ordering::Greater && !is_bound) {
        let remedy = if is_bound {
            format!("a volume cannot shrink; set the field to {found} or more")
        } else {
            unbound.clone()
        };
        refused_changes.push(RefusedChange { field: SIZE_FIELD, wanted, live: found, remedy });
    }
    // A claim without a class yet gets the default class later; both may still be set once.
    let (wanted, found) = (text(desired, CLASS), text(live, CLASS));
    if !wanted.is_empty() && !found.is_empty() && wanted != found {
        let remedy = if is_bound {
            format!(
                "a class cannot change; set the field to {found}, or delete the volume with all its traces: {delete}"
            )
        } else {
            unbound
        };
        refused_changes.push(RefusedChange { field: CLASS_FIELD, wanted, live: found, remedy });
    }
    refused_changes
}

/// The desired claim with what is [`refused_changes`] left as it is, so that the rest of it, above all whether the AgentTracing
/// owns it, still follows the spec. This is what is compared with [`has_drifted`] and what is applied.
///
/// A class that the spec does not name (any more) is the live one: an apply that leaves out a class which an earlier one
/// had, as for an adopted claim, means to remove it, and is refused with 422.
pub fn without_refused(mut desired: Value, live: &Value) -> Value {
    let refused_changes = refused_changes(&desired, live);
    if let (Some(size), Some(found)) = (desired.pointer_mut(SIZE), live.pointer(SIZE))
        && refused_changes.iter().any(|r| r.field == SIZE_FIELD)
    {
        *size = found.clone();
    }
    if let (Some(spec), Some(found)) = (desired.get_mut("spec").and_then(Value::as_object_mut), live.pointer(CLASS)) {
        spec.insert("storageClassName".to_owned(), found.clone());
    }
    desired
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_is_no_drift() {
        let desired = json!({
            "metadata": {"name": "tracing-mlflow", "labels": {"a": "b"}},
            "spec": {"type": "ClusterIP", "ports": [{"name": "http", "port": 5500, "targetPort": "http"}]},
        });
        let live = json!({
            "metadata": {"name": "tracing-mlflow", "labels": {"a": "b", "theirs": "x"}, "uid": "1", "managedFields": [{}]},
            "spec": {
                "type": "ClusterIP", "clusterIP": "10.0.0.7", "sessionAffinity": "None",
                "ports": [{"name": "http", "port": 5500, "targetPort": "http", "protocol": "TCP", "nodePort": 31000}],
            },
            "status": {"loadBalancer": {}},
        });
        assert!(!has_drifted(&desired, &live));
    }

    #[test]
    fn a_changed_missing_or_retyped_field_is_drift() {
        let desired = json!({"spec": {"replicas": 1, "args": ["a", "b"], "targetPort": "80"}});
        for live in [
            json!({"spec": {"replicas": 2, "args": ["a", "b"], "targetPort": "80"}}),
            json!({"spec": {"args": ["a", "b"], "targetPort": "80"}}),
            json!({"spec": {"replicas": 1, "args": ["b", "a"], "targetPort": "80"}}),
            json!({"spec": {"replicas": 1, "args": ["a", "b", "c"], "targetPort": "80"}}),
            json!({"spec": {"replicas": 1, "args": ["a"], "targetPort": "80"}}),
            json!({"spec": {"replicas": 1, "args": ["a", "b"], "targetPort": 80}}),
            json!({"spec": null}),
            json!({}),
        ] {
            assert!(has_drifted(&desired, &live), "{live}");
        }
    }

    #[test]
    fn named_entries_are_found_wherever_they_stand_and_others_may_stand_beside_them() {
        let desired = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let reordered = json!({"env": [{"name": "C"}, {"name": "B", "value": "2"}, {"name": "A", "value": "1"}]});
        assert!(!has_drifted(&desired, &reordered));
        assert!(has_drifted(&desired, &json!({"env": [{"name": "A", "value": "1"}]})));
        assert!(has_drifted(&desired, &json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]})));
    }

    #[test]
    fn an_owner_is_found_behind_its_namesake() {
        let desired = json!({"ownerReferences": [{"name": "tracing", "uid": "ours"}]});
        let both =
            json!({"ownerReferences": [{"name": "tracing", "uid": "other"}, {"name": "tracing", "uid": "ours"}]});
        assert!(!has_drifted(&desired, &both));
        assert!(has_drifted(&desired, &json!({"ownerReferences": [{"name": "tracing", "uid": "other"}]})));
    }

    #[test]
    fn quantities_are_numbers_and_labels_are_not() {
        let resources = |cpu: &str, memory: &str| json!({"limits": {"memory": memory}, "requests": {"cpu": cpu}});
        assert!(!has_drifted(&resources("0.1", "1024Mi"), &resources("100m", "1Gi")));
        assert!(has_drifted(&resources("0.1", "1024Mi"), &resources("100m", "1G")));
        assert!(!has_drifted(
            &json!({"emptyDir": {"sizeLimit": "1024Mi"}}),
            &json!({"emptyDir": {"sizeLimit": "1Gi"}})
        ));
        assert!(has_drifted(&json!({"labels": {"cost": "1.0"}}), &json!({"labels": {"cost": "1"}})));
    }

    #[test]
    fn empty_values_are_absent_ones() {
        let desired = json!({"labels": {}, "args": [], "value": "", "nothing": null});
        assert!(!has_drifted(&desired, &json!({})));
        assert!(!has_drifted(&json!({"nothing": null}), &json!({"nothing": []})));
        assert!(has_drifted(&json!({"enabled": false}), &json!({})), "false is a value: automountServiceAccountToken");
    }

    #[test]
    fn an_empty_selector_selects_everything_and_is_no_absent_one() {
        let desired = json!({"from": [{"podSelector": {}}]});
        assert!(!has_drifted(&desired, &json!({"from": [{"podSelector": {}}]})));
        assert!(has_drifted(&desired, &json!({"from": [{"namespaceSelector": {}}]})));
    }

    fn claim(size: &str, class: Option<&str>) -> Value {
        let mut claim = json!({
            "metadata": {"name": "tracing-mlflow", "namespace": "bank"},
            "spec": {"resources": {"requests": {"storage": size}}},
        });
        if let Some(class) = class {
            claim["spec"]["storageClassName"] = json!(class);
        }
        claim
    }

    #[test]
    fn a_claim_grows_but_neither_shrinks_nor_changes_its_class() {
        let live = claim("10Gi", Some("fast"));
        for size in ["10240Mi", "20Gi"] {
            for class in [None, Some("fast")] {
                assert_eq!(refused_changes(&claim(size, class), &live), []);
                assert_eq!(without_refused(claim(size, class), &live), claim(size, Some("fast")));
            }
        }
        let (wanted, classless) = (claim("10Gi", Some("fast")), claim("10Gi", None));
        assert_eq!(refused_changes(&wanted, &classless), [], "a claim without a class yet may get one");
        assert_eq!(without_refused(wanted.clone(), &classless), wanted);

        let impossible = claim("5Gi", Some("slow"));
        let told: Vec<String> = refused_changes(&impossible, &live).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("5Gi") && told[0].contains("set the field to 10Gi"), "{}", told[0]);
        assert!(
            told[1].contains("slow") && told[1].ends_with("kubectl delete pvc -n bank tracing-mlflow"),
            "{}",
            told[1]
        );
        assert_eq!(without_refused(impossible, &live), live);
    }

    #[test]
    fn a_claim_that_is_not_bound_is_made_anew_by_the_user() {
        let mut live = claim("5Ti", Some("misspelt"));
        live["status"] = json!({"phase": "Pending"});
        for size in ["5Gi", "6Ti"] {
            let told = refused_changes(&claim(size, Some("fast")), &live);
            assert_eq!(told.len(), 2);
            assert!(told.iter().all(|r| r.remedy.ends_with("made anew: kubectl delete pvc -n bank tracing-mlflow")));
        }
        live["status"]["phase"] = json!("Bound");
        assert_eq!(refused_changes(&claim("6Ti", None), &live), []);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z0-9]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("name|limits|labels|[a-e]", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// What an API server answers: fields added to every object, named lists reversed and lengthened.
    fn answered(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut map: Map<String, Value> = map.iter().map(|(k, v)| (k.clone(), answered(v))).collect();
                map.insert("addedByTheServer".into(), json!({"x": [1]}));
                Value::Object(map)
            }
            Value::Array(list) if !list.is_empty() && list.iter().all(|e| name_of(e).is_some()) => {
                let added = std::iter::once(json!({"name": "added-by-another-manager"}));
                added.chain(list.iter().rev().map(answered)).collect()
            }
            Value::Array(list) => list.iter().map(answered).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn a_value_never_drifts_from_itself_plus_what_the_server_adds(value in any_value()) {
            prop_assert!(!has_drifted(&value, &value));
            prop_assert!(!has_drifted(&value, &answered(&value)));
        }

        #[test]
        fn a_changed_leaf_always_drifts(value in any_value(), key in "[f-z]{3}", leaf in 0..9) {
            let object = |leaf: i32| json!({"spec": {(&key): leaf, "rest": &value}});
            prop_assert!(has_drifted(&object(leaf), &object(leaf + 1)));
        }
    }
}
