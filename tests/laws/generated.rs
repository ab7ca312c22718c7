//! Workloads and wirings as people might have them.

use agent_tracing::api::{CaBundleScope, CaBundleStrategy, ConfigMapKey};
use agent_tracing::core::selection::kind::Kind;
use agent_tracing::core::settings::policy::CaChoice;
use agent_tracing::core::wiring::parts::AUTHORITIES;
use agent_tracing::core::wiring::parts::authorities::part;
use agent_tracing::core::wiring::{Entry, Group, Wiring};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Names that collide with ours often, so that the user's choice is exercised.
fn variable_name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[A-Z]{1,3}",
        1 => Just("MLFLOW_EXPERIMENT_NAME".to_owned()),
        1 => Just("MLFLOW_EXPERIMENT_ID".to_owned()),
        1 => Just("MLFLOW_HTTP_REQUEST_TIMEOUT".to_owned()),
        1 => Just("MLFLOW_TRACKING_URI".to_owned()),
    ]
}

fn env_entry() -> impl Strategy<Value = Value> {
    (
        variable_name(),
        prop_oneof![
            Just(json!({})),
            Just(json!({"value": ""})),
            "[a-z\"\\\\ é]{0,6}".prop_map(|v| json!({"value": v})),
            Just(json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})),
        ],
    )
        .prop_map(|(name, rest)| {
            let mut entry = json!({"name": name});
            entry.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            entry
        })
}

fn container(index: usize) -> impl Strategy<Value = Value> {
    let name = prop_oneof![4 => Just(format!("agent-{index}")), 1 => Just("istio-proxy".to_owned())];
    (name, prop::option::of(prop::collection::vec(env_entry(), 0..4)), any::<bool>(), any::<bool>()).prop_map(
        |(name, env, env_from, unknown)| {
            let mut out = json!({"name": name, "image": "example/agent:1"});
            if let Some(env) = env {
                out["env"] = Value::Array(env);
            }
            if env_from {
                out["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
            }
            if unknown {
                out["aFieldOfTomorrow"] = json!({"deep": [1, 2.50, null]});
            }
            out
        },
    )
}

fn metadata() -> impl Strategy<Value = Option<Value>> {
    let map = prop::option::of(prop::collection::btree_map("[a-z/~.]{1,5}", "[a-z]{0,3}", 0..3));
    prop::option::of((map.clone(), map)).prop_map(|parts| {
        parts.map(|(labels, annotations)| {
            let mut out = json!({});
            for (key, value) in [("labels", labels), ("annotations", annotations)] {
                if let Some(value) = value {
                    out[key] = json!(value);
                }
            }
            out
        })
    })
}

pub fn any_workload() -> impl Strategy<Value = Value> {
    let containers = (1_usize..4).prop_flat_map(|n| (0..n).map(container).collect::<Vec<_>>());
    let native = prop::option::of((container(9), any::<bool>()));
    // Names that collide with ours now and then.
    let volume = prop_oneof![8 => "[d-f]", 1 => Just("ca-bundle".to_owned()), 1 => Just("ca-sources".to_owned())];
    let volumes = prop::option::of(prop::collection::btree_set(volume, 0..3));
    let secrets = prop::option::of(prop::collection::btree_set("(mirror|own)", 0..3));
    let root = any::<bool>();
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let rest = (volumes, secrets, root, kind);
    let metadata = (metadata(), metadata());
    (metadata, containers, native, rest).prop_map(|((own, of_template), mut containers, native, rest)| {
        let (volumes, secrets, root, kind) = rest;
        let mut metadata = own.unwrap_or_else(|| json!({}));
        metadata["name"] = json!("teller");
        if let Some(volumes) = &volumes {
            let mounts = volumes.iter().map(|name| json!({"name": name, "mountPath": format!("/var/{name}")}));
            containers[0]["volumeMounts"] = mounts.collect();
        }
        let mut spec = json!({"containers": containers});
        if let Some(volumes) = volumes {
            spec["volumes"] = volumes.iter().map(|name| json!({"name": name, "emptyDir": {}})).collect();
        }
        if let Some(secrets) = secrets {
            spec["imagePullSecrets"] = secrets.iter().map(|name| json!({"name": name})).collect();
        }
        if root {
            spec["securityContext"] = json!({"runAsUser": 0});
        }
        if let Some((mut init, always)) = native {
            if always {
                init["restartPolicy"] = json!("Always");
            }
            spec["initContainers"] = json!([init]);
        }
        let mut template = json!({});
        if let Some(own) = of_template {
            template["metadata"] = own;
        }
        template["spec"] = spec;
        let api_version = [kind.group(), kind.version()].join("/");
        let mut out = json!({"apiVersion": api_version.trim_start_matches('/'), "kind": kind.as_str()});
        out["metadata"] = metadata;
        out["spec"] = match kind {
            Kind::Pod => template["spec"].take(),
            Kind::CronJob => json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
            _ => json!({"template": template}),
        };
        out
    })
}

pub fn wirings() -> impl Strategy<Value = Wiring> {
    let single = prop::collection::btree_map("(MLFLOW_HTTP_REQUEST_TIMEOUT|[A-D])", "[a-z0-9]{0,4}", 0..4);
    let strategy = prop_oneof![
        Just(CaBundleStrategy::InitContainer),
        Just(CaBundleStrategy::AgentInitContainer),
        Just(CaBundleStrategy::ConfigMap),
    ];
    let more = prop::collection::vec("[a-c]", 0..2);
    let ca = prop::option::of((strategy, more).prop_map(|(strategy, names)| CaChoice {
        scope: CaBundleScope::All,
        strategy,
        config_maps: names.into_iter().map(|name| ConfigMapKey { name, key: "ca.crt".into() }).collect(),
    }));
    ("[a-z]{1,8}", "[a-z]{1,4}", any::<bool>(), single, ca).prop_map(|(host, experiment, pin, single, ca)| {
        let entry = |name: &str, value: &str, group| Entry { name: name.into(), value: value.into(), group, why: "" };
        let mut env = vec![
            entry("MLFLOW_TRACKING_URI", &host, Group::Address),
            entry("MLFLOW_EXPERIMENT_NAME", &experiment, Group::Experiment),
        ];
        if pin {
            env.push(entry("MLFLOW_TRACING_DESTINATION", "12", Group::Experiment));
        }
        env.extend(single.iter().map(|(name, value)| entry(name, value, Group::Single)));
        let file = "/tmp/ca-bundle/combined-ca.crt";
        env.extend(ca.iter().map(|_| entry("REQUESTS_CA_BUNDLE", file, Group::Part(&AUTHORITIES))));
        let parts = ca.iter().map(part).collect();
        Wiring { tracing: "tracing".into(), experiment, env, parts, token: None, renews: true }
    })
}
