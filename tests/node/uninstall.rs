//! `helm uninstall`: nothing of ours stays in the cluster but the volumes with traces, and no agent notices but by its one
//! rollout. And `uninstall` typed by a person, after somebody deleted the operator's namespace.

use std::process::Command;

use agent_tracing::names;
use serde_json::Value;

use crate::audit::Audit;
use crate::operator::{self, CHART, RELEASE, helm};
use crate::world::{Scene, idle, is_wired, kubectl, say, tracing, typed, until};

const AGENTS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
/// What no object of anybody else has in it.
const OURS: [&str; 2] = ["agenttracing", "agent-tracing"];

#[test]
#[ignore = "needs the node cluster: make test"]
fn after_helm_uninstall_nothing_of_ours_stays_but_the_volumes_with_traces() {
    say("\nuninstall");
    operator::install();
    as_the_readme_says_for_kustomize();
    helm(&["install", RELEASE, CHART, "--create-namespace", "--set", "uninstall.deleteTracings=true"]);
    until("the operator is ready", operator::ready);
    let scene = Scene::second("leaving", true);
    let before = agents_before_and_after_they_are_wired(&scene);
    scene.apply(&tracing("brief", "{deletionPolicy: Delete}"));
    until("the other volume is there", || scene.get("persistentvolumeclaims", "brief-mlflow").ok_or_else(String::new));

    let audit = Audit::from_now();
    let said = helm(&["uninstall", RELEASE, "--timeout", "10m"]);
    scene.audit.assert_nothing_was_forbidden();
    assert!(said.contains("kept with its traces: PersistentVolumeClaim leaving/tracing-mlflow"), "{said}");
    assert!(!said.contains("brief-mlflow"), "{said}");

    the_webhook_goes_first_and_the_agent_tracings_last(&audit);
    each_agent_is_what_it_was_after_one_rollout(&scene, &before);
    until("nothing of ours stays", || {
        let left = ours();
        let expected = left.iter().all(|object| object.contains("leaving/tracing-mlflow"));
        if expected { Ok(()) } else { Err(left.join(", ")) }
    });
    let kept = scene.live("persistentvolumeclaims", "tracing-mlflow");
    assert_eq!(kept["metadata"]["deletionTimestamp"], Value::Null);
    drop(scene);
    typed(&["delete", "namespace", names::OPERATOR_NAMESPACE]);
    operator::install();
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn after_a_brutal_deletion_one_command_clears_what_is_left() {
    say("\nuninstall by hand");
    operator::install();
    let scene = Scene::second("left-behind", true);
    let before = agents_before_and_after_they_are_wired(&scene);
    operator::delete_brutally();
    typed(&["-n", &scene.namespace, "rollout", "restart", "deployment/a"]);
    scene.until_rolled_out("a");
    assert!(is_wired(&scene.live("deployments", "a")), "a wired pod starts with nobody there");

    let output = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"))
        .args(["uninstall", "--delete-tracings"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    say(&said);
    // The first one was restarted meanwhile, which its owner's template says.
    for (name, before) in AGENTS.iter().zip(&before).skip(1) {
        assert_eq!(scene.live("deployments", name)["spec"], before["spec"]);
    }
    assert_eq!(kubectl(&["get", "agenttracings", "-A"], "").map_err(|_| ()), Err(()), "the kind is gone");
    // As docs/operations/uninstall.md says: the objects of all namespaces are ours, and no namespace's deletion takes them.
    typed(&["delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/part-of=agent-tracing"]);
    until("nothing of ours stays", || {
        let left = ours();
        let expected = left.iter().all(|object| object.contains("left-behind/tracing-mlflow"));
        if expected { Ok(()) } else { Err(left.join(", ")) }
    });
    drop(scene);
    operator::install();
}

fn as_the_readme_says_for_kustomize() {
    let job = ["-n", names::OPERATOR_NAMESPACE];
    typed(&["apply", "-k", "config/uninstall"]);
    typed(&[&job[..], &["wait", "job/agent-tracing-uninstall", "--for=condition=Complete", "--timeout=10m"]].concat());
    let said = typed(&[&job[..], &["logs", "job/agent-tracing-uninstall"]].concat());
    assert!(said.contains("the operator has ended\n0 workloads are what they were; left: 0\n"), "{said}");
    typed(&["delete", "-k", "config/uninstall"]);
    operator::uninstall();
    assert_eq!(ours(), [] as [String; 0]);
}

/// Each Deployment as its owner wrote it, in the order of [`AGENTS`].
fn agents_before_and_after_they_are_wired(scene: &Scene) -> Vec<Value> {
    let before = AGENTS.map(|name| {
        scene.apply(&idle(name));
        scene.live("deployments", name)
    });
    assert!(!before.iter().any(is_wired));
    scene.apply_tracing("{}");
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
    before.to_vec()
}

fn the_webhook_goes_first_and_the_agent_tracings_last(audit: &Audit) {
    let requests = audit.requests_of("agent-tracing-uninstall");
    let nth = |verb: &str, resource: &str| {
        let found = requests.iter().enumerate().filter(|(_, r)| r.verb == verb && r.resource == resource);
        found.map(|(n, _)| n).collect::<Vec<_>>()
    };
    let webhook = nth("delete", "mutatingwebhookconfigurations");
    let changes = nth("patch", "deployments");
    let kind = nth("delete", "customresourcedefinitions");
    // The first one ends the operator.
    assert_eq!((webhook.len(), changes.len(), kind.len()), (1, 1 + AGENTS.len(), 1));
    assert!(webhook[0] < changes[0] && changes[AGENTS.len()] < kind[0]);
    assert!(requests.iter().all(|request| request.code != 403), "the hook's own rights suffice");
}

fn each_agent_is_what_it_was_after_one_rollout(scene: &Scene, before: &[Value]) {
    for (name, before) in AGENTS.iter().zip(before) {
        let after = scene.live("deployments", name);
        assert_eq!(after["spec"], before["spec"], "{name}");
        scene.until_rolled_out(name);
        // One with the wiring, and back to the template of before: the Deployment controller takes up its first ReplicaSet.
        assert_eq!(scene.rollouts(name), 1, "{name}");
    }
}

/// What in the cluster has a name, label, annotation or field of ours. Not counted: events, which expire, the history of
/// other people's workloads, the label of their namespaces, and what is the cluster's: volumes, whose paths have our name here, and
/// nodes, which list the images that they hold.
fn ours() -> Vec<String> {
    let kinds = typed(&["api-resources", "--verbs=list", "-o", "name"]);
    let history = ["events", "replicasets", "controllerrevisions", "persistentvolumes", "nodes"];
    let kinds: Vec<_> = kinds.lines().filter(|kind| !history.iter().any(|past| kind.starts_with(past))).collect();
    let all = typed(&["get", &kinds.join(","), "-A", "-o", "json"]);
    let mut all: Value = serde_json::from_str(&all).unwrap();
    let items = all["items"].as_array_mut().unwrap();
    items
        .iter_mut()
        .filter_map(|object| {
            let (title, operators_own) = (title(object), object["metadata"]["name"] == names::OPERATOR_NAMESPACE);
            let is_namespace = object["kind"] == "Namespace";
            let metadata = object["metadata"].as_object_mut().unwrap();
            // Who wrote in the past is no remainder, and what is in the operator's namespace is not ours for that.
            for field in ["managedFields", "namespace"] {
                metadata.remove(field);
            }
            if is_namespace {
                object["metadata"]["labels"].as_object_mut().unwrap().remove(names::LABEL_INJECTION);
            }
            let text = object.to_string();
            (OURS.iter().any(|ours| text.contains(ours)) && !(is_namespace && operators_own)).then_some(title)
        })
        .collect()
}

/// Kind and name; of a volume also whose it is.
fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let claim = &object["spec"]["claimRef"];
    let [kind, namespace, name] =
        [&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"]].map(text);
    format!("{kind} {namespace}/{name} {}/{}", text(&claim["namespace"]), text(&claim["name"]))
}
