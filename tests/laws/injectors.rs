//! Ours is not the only webhook.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::generated::{any_workload, wirings};
use crate::{config, injected, injection, pod_mut, uninjected};

proptest! {
    // Each case is 120 orders.
    #![proptest_config(ProptestConfig { cases: config(10_000).cases / 200, ..config(0) })]

    #[test]
    fn among_other_injectors_in_every_order_ours_ends_the_same_and_leaves_theirs_alone(
        before in any_workload(), wiring in wirings(), place in 0_usize..=5,
    ) {
        for order in orders(OTHERS.len()) {
            let run = |with_ours: bool| {
                let mut document = before.clone();
                for (step, other) in order.iter().enumerate() {
                    if with_ours && step == place {
                        document = injected(&document, &wiring);
                    }
                    OTHERS[*other](&mut document);
                }
                document
            };
            // The API server calls again whoever asked for it, when somebody changed something after them.
            let once = injected(&run(true), &wiring);
            prop_assert!(injection(&once, &wiring).patch.is_empty(), "{order:?}");
            prop_assert_eq!(uninjected(&once), run(false), "{:?}", order);
            let alone = injected(&run(false), &wiring);
            prop_assert_eq!(injection(&once, &wiring).hash, injection(&alone, &wiring).hash, "{:?}", order);
        }
    }
}

/// What others do to a template that is on its way in: side containers, entries before and behind the user's, volumes, notes, and
/// what policy engines add to every container, ours among them.
const OTHERS: [fn(&mut Value); 5] = [
    |document| {
        let pod = pod_mut(document);
        push(pod, "containers", json!({"name": "istio-proxy", "image": "istio"}));
        push(pod, "initContainers", json!({"name": "istio-init", "image": "istio"}));
        push(pod, "volumes", json!({"name": "istio-envoy", "emptyDir": {}}));
    },
    |document| {
        // OpenTelemetry puts its entries first.
        for container in all_containers_mut(pod_mut(document)) {
            let mut env = vec![json!({"name": "OTEL_SERVICE_NAME", "value": "x"})];
            env.extend(container["env"].as_array().cloned().unwrap_or_default());
            container["env"] = json!(env);
        }
    },
    |document| {
        let pod = pod_mut(document);
        push(pod, "volumes", json!({"name": "vault-secrets", "emptyDir": {}}));
        for container in all_containers_mut(pod) {
            push(container, "volumeMounts", json!({"name": "vault-secrets", "mountPath": "/vault/secrets"}));
        }
    },
    |document| {
        let containers = pod_mut(document)["containers"].as_array_mut().expect("containers");
        containers.insert(0, json!({"name": "linkerd-proxy", "image": "linkerd"}));
    },
    |document| {
        let pod = pod_mut(document);
        push(pod, "imagePullSecrets", json!({"name": "registry"}));
        for container in pod["initContainers"].as_array_mut().into_iter().flatten() {
            container["securityContext"]["privileged"] = json!(false);
            container["securityContext"]["runAsGroup"] = json!(1000);
        }
    },
];

fn all_containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let lists = pod.as_object_mut().into_iter().flatten();
    let lists = lists.filter(|(name, _)| ["containers", "initContainers"].contains(&name.as_str()));
    lists.flat_map(|(_, list)| list.as_array_mut().into_iter().flatten())
}

fn push(parent: &mut Value, list: &str, entry: Value) {
    match parent[list].as_array_mut() {
        Some(entries) => entries.push(entry),
        None => parent[list] = json!([entry]),
    }
}

/// Every order of the first numbers.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        let longer = |order: &Vec<usize>| {
            let missing = (0..count).filter(|n| !order.contains(n));
            missing.map(|n| [order.as_slice(), &[n]].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}
