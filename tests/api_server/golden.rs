//! The output of every golden case goes to a real API server, in a namespace that enforces Pod Security `restricted`: as a
//! workload and, since only pods are judged there, as the pod that it would make.

use std::collections::BTreeSet;
use std::path::Path;

use agent_tracing::core::decide::{Decision, decide};
use agent_tracing::core::selection::SelectionContext;
use agent_tracing::core::settings::Platform;
use serde_json::{Value, json};

use crate::cluster::{Cluster, DRY, Namespace, STRICT, operator};
use crate::support::{folders, in_template, policies_of, workload, workloads};

#[test]
#[ignore = "needs an API server: make test"]
fn every_golden_workload_and_its_pod_are_admitted() {
    let restricted = restricted("api-server-golden");
    let [baseline, privileged] = ["baseline", "privileged"].map(|level| {
        Namespace::create(&format!("api-server-golden-{level}"), json!({"pod-security.kubernetes.io/enforce": level}))
    });
    let admin = Cluster::admin();
    let mut failures = Vec::new();
    let mut admitted = 0;
    for case in folders("tests/golden") {
        // A pod that runs as root is admitted nowhere else, wired or not.
        let namespace = match std::fs::read_to_string(case.join("pod-security.txt")).as_deref().map(str::trim) {
            Ok("baseline") => &baseline,
            Ok("privileged") => &privileged,
            Ok(level) => panic!("{}: pod-security.txt says {level}", case.display()),
            Err(_) => &restricted,
        };
        for object in workloads(&case.join("expected.yaml")) {
            let object = moved(object, &namespace.0);
            let pod = pod_of(&object);
            furnish(&admin, &pod);
            for object in [object, pod] {
                match admin.create(&object, DRY) {
                    Ok(_) => admitted += 1,
                    Err(refused) => failures.push(format!("{}: {}: {refused}", case.display(), object["kind"])),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} refused\n{}", failures.len(), failures.join("\n"));
    assert!(admitted >= 320, "only {admitted} objects were tried");
}

#[test]
#[ignore = "needs an API server: make test"]
fn what_the_api_server_stores_is_not_wired_again() {
    let namespace = restricted("api-server-stored");
    let admin = Cluster::admin();
    for (case, tries) in [
        // Values of every kind, `""` among them, which the API server gives back as an absent value.
        ("two-hundred-variables", 1),
        ("several-agents-one-pod", 1),
        ("adk-cloudsql-native-sidecar", 1),
        ("record-empty-value-comes-back-absent", 1),
        ("injection-env", 1),
        ("two-tracings-disjoint-selectors", 2),
        ("cr-minimal", 1),
        ("cr-native-sidecar-agent", 1),
        ("cr-existing-volumes-and-mounts", 1),
        ("cr-ca-same-config-map-twice", 1),
        ("cr-ca-agent-init-container-of-two", 1),
        ("cr-ca-config-map", 1),
        ("cr-pod-runs-as-1000", 1),
        ("external-kubernetes-plugin", 1),
        ("every-kind-side-by-side", 6),
        ("cr-statefulset-listed", 1),
        ("cr-daemonset-opt-in", 1),
        ("cr-cronjob-account-bound", 1),
        ("cr-job-account-not-bound-yet", 1),
        ("cr-pod-opted-in", 1),
    ] {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
        let policies = policies_of(&case.join("tracing.yaml"));
        let mut wired = 0;
        for object in workloads(&case.join("expected.yaml")) {
            // The AgentTracings of the case keep their namespace: addresses contain it.
            let home = object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
            let mut live = admin.create(&moved(object, &namespace.0), STRICT).unwrap();
            live["metadata"]["namespace"] = json!(home);
            let here: Vec<_> = policies.iter().filter(|policy| policy.settings.namespace == home).cloned().collect();
            let context = SelectionContext {
                namespace: &home,
                injection_enabled: true,
                platform: &Platform::default(),
                tokenless: &BTreeSet::new(),
                policies: &here,
                renews: true,
            };
            let Decision::Wire { injection, .. } = decide(&workload(&live).unwrap(), &context) else {
                continue;
            };
            assert!(injection.was_wired, "{}: the record came back", case.display());
            assert_eq!(injection.patch, [], "{}: defaults of the API server look like drift", case.display());
            wired += 1;
        }
        assert!(wired >= tries, "{}: {wired} of {tries} are wired", case.display());
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_live_object_without_its_wiring_is_what_it_would_be_had_there_been_none() {
    let namespace = restricted("api-server-removal");
    let admin = Cluster::admin();
    for case in [
        "several-agents-one-pod",
        "template-without-annotations",
        "metadata-without-labels",
        "env-empty-list",
        "cr-minimal",
        "cr-native-sidecar-agent",
        "cr-existing-volumes-and-mounts",
        "cr-ca-config-map",
        "statefulset-listed",
        "cr-statefulset-listed",
        "cr-daemonset-opt-in",
        "cronjob-job-template-metadata",
        "cr-cronjob-account-bound",
    ] {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
        for (before, wired) in
            std::iter::zip(workloads(&case.join("workload.yaml")), workloads(&case.join("expected.yaml")))
        {
            let never_wired = admin.create(&moved(before, &namespace.0), DRY).unwrap();
            let live = admin.create(&moved(wired, &namespace.0), STRICT).unwrap();
            assert_ne!(live["spec"], never_wired["spec"], "{}", case.display());
            let printed = operator(&["uninject", "-o", "json"], &live.to_string()).unwrap();
            let mut bare: Value = serde_json::from_str(&printed).unwrap();
            // The deployment controller writes its status meanwhile.
            bare["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            let stored = admin.replace(&bare, STRICT).unwrap();
            assert_eq!(stored["spec"], never_wired["spec"], "{}", case.display());
            assert_eq!(stored["metadata"]["labels"], never_wired["metadata"]["labels"], "{}", case.display());
        }
    }
}

fn restricted(name: &str) -> Namespace {
    Namespace::create(name, json!({"pod-security.kubernetes.io/enforce": "restricted"}))
}

/// As it would be created here, without what an API server of elsewhere has written.
fn moved(mut object: Value, namespace: &str) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    for theirs in ["resourceVersion", "uid", "managedFields", "generation", "creationTimestamp"] {
        metadata.remove(theirs);
    }
    metadata.insert("namespace".to_owned(), json!(namespace));
    object.as_object_mut().unwrap().remove("status");
    object
}

fn pod_of(object: &Value) -> Value {
    let template = |field| object.pointer(&in_template(object, field)).cloned().unwrap_or_default();
    let mut metadata = template("/metadata");
    metadata["name"] = json!(object["metadata"]["name"].as_str().unwrap_or("generated"));
    metadata["namespace"] = object["metadata"]["namespace"].clone();
    let mut spec = template("/spec");
    for claim in object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
        let volumes = spec.as_object_mut().unwrap().entry("volumes").or_insert_with(|| json!([]));
        volumes.as_array_mut().unwrap().push(json!({"name": claim["metadata"]["name"], "emptyDir": {}}));
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// What a pod refers to and admission asks for.
fn furnish(admin: &Cluster, pod: &Value) {
    let (spec, namespace) = (&pod["spec"], &pod["metadata"]["namespace"]);
    for field in ["serviceAccountName", "serviceAccount"] {
        if let Some(account) = spec[field].as_str().filter(|account| !account.is_empty()) {
            let metadata = json!({"name": account, "namespace": namespace});
            admin.ensure(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
        }
    }
    if let Some(class) = spec["priorityClassName"].as_str().filter(|class| !class.starts_with("system-")) {
        let metadata = json!({"name": class});
        admin.ensure(
            &json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata, "value": 7}),
        );
    }
    if let Some(class) = spec["runtimeClassName"].as_str() {
        let metadata = json!({"name": class});
        admin.ensure(
            &json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": metadata, "handler": class}),
        );
    }
}
