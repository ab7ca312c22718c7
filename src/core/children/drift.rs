//! Whether a live object still is what we applied, judged without writing.
//!
//! An API server answers with more than was applied (defaults, status, what admission and other managers added), with
//! quantities rewritten and empty values dropped. A server-side apply that changes nothing still is a request in the
//! audit log of every cluster, so the comparison has to be exact in both directions: a miss leaves a broken server, a
//! false alarm writes for ever.
//!
//! A field that we no longer want is not in `desired`, so no comparison finds it. [`crate::names::ANNOTATION_APPLIED`]
//! does: it is a hash of the whole desired object.

use serde_json::{Map, Value};

use crate::core::children::quantity;

/// Whether any field of `desired` is missing or different in `live`. Fields that only `live` has do not count.
pub fn has_drifted(desired: &Value, live: &Value) -> bool {
    !is_covered(desired, Some(live), ValueKind::Plain, "")
}

/// Whether a field is the same on both sides: nothing is missing, different or there beside it.
pub fn is_exact(desired: Option<&Value>, live: Option<&Value>) -> bool {
    let covers = |one: Option<&Value>, other| is_covered(one.unwrap_or(&Value::Null), other, ValueKind::Plain, "");
    covers(desired, live) && covers(live, desired)
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
    fn an_exact_field_has_nothing_beside_what_is_desired_in_whatever_order() {
        let subject = |name: &str| json!({"kind": "ServiceAccount", "namespace": "bank", "name": name});
        let ours = json!([subject("default"), subject("teller")]);
        assert!(is_exact(Some(&ours), Some(&json!([subject("teller"), subject("default")]))));
        for live in [
            json!([subject("default")]),
            json!([subject("default"), subject("teller"), subject("mallory")]),
            json!([subject("default"), {"kind": "User", "name": "teller"}]),
            json!(null),
        ] {
            assert!(!is_exact(Some(&ours), Some(&live)), "{live}");
            assert!(!is_exact(Some(&live), Some(&ours)), "{live}");
        }
        assert!(is_exact(None, Some(&json!([]))) && is_exact(Some(&json!([])), None), "an empty list is an absent one");
        assert!(!is_exact(None, Some(&ours)));
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
