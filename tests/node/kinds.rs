//! Every kind of workload with a real agent in it: wired, rolled once, traced under its own name, and given back as it was.

pub mod workloads;

use std::time::Instant;

use agent_tracing::names;
use jiff::Timestamp;
use serde_json::Value;

use crate::mlflow::Mlflow;
use crate::shared::start_model;
use crate::world::{Scene, delete_namespace, env, idle, is_wired, kubectl, say, scene, typed, until};
use workloads::{batch, job, of_kind, on_delete, pod, slow, tracer, tracer_deployment, two_replicas};

const TRACING: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: tracing}
spec:
  mlflow: {mode: Standalone}
  injection:
    kinds: [Deployment, StatefulSet, DaemonSet, Job, CronJob]
    rollout: {maxConcurrent: 2}
";
/// Of one AgentTracing that is there, as it says; of one that is gone, the default.
const AT_A_TIME: usize = 2;
const AT_A_TIME_WITHOUT_A_SPEC: usize = 5;
/// More than may roll at a time.
const HERD: [&str; 5] = ["herd-a", "herd-b", "herd-c", "herd-d", "herd-e"];

#[test]
#[ignore = "needs the node cluster: make test"]
fn every_kind_is_wired_rolled_once_traced_and_given_back_as_it_was() {
    scene("kinds", true, |scene| {
        start_model();
        let before = they_are_there_before_the_agent_tracing(scene);
        scene.apply(TRACING);
        those_that_roll_are_brought_two_at_a_time(scene);
        others_come_when_mlflow_is_there(scene);
        a_job_from_before_says_so(scene);
        what_its_owner_replaces_says_what_to_type(scene);
        an_undone_rollout_is_wired(scene);
        each_traces_under_the_name_of_its_kind(scene);
        each_has_its_row(scene);
        each_was_rolled_once(scene);
        what_a_person_scaled_and_guards_is_left_alone(scene, &before);
        an_opt_out_takes_it_out(scene, &before);
        without_the_agent_tracing_all_are_what_they_were_a_few_at_a_time(scene, &before);
        delete_namespace("demo-llm");
    });
}

/// What the API server makes of each manifest where there is nobody to wire it.
struct Before(Vec<(&'static str, &'static str, Value)>);

impl Before {
    #[track_caller]
    fn of(&self, resource: &str, name: &str) -> &Value {
        let found = self.0.iter().find(|(of, called, _)| (*of, *called) == (resource, name));
        &found.unwrap_or_else(|| panic!("{resource}/{name} was not noted")).2
    }

    /// As its owner wrote it, to the last field, and with nothing of ours around it.
    #[track_caller]
    fn assert_is_back(&self, scene: &Scene, resource: &str, name: &str) {
        let (before, after) = (self.of(resource, name), scene.live(resource, name));
        assert_eq!(after["spec"], before["spec"], "{resource}/{name}");
        let metadata = after["metadata"]["labels"].to_string() + &after["metadata"]["annotations"].to_string();
        for ours in [names::LABEL_WIRED, names::ANNOTATION_TOUCH] {
            assert!(!metadata.contains(ours), "{resource}/{name} has {ours}: {metadata}");
        }
    }
}

fn they_are_there_before_the_agent_tracing(scene: &Scene) -> Before {
    let first = [
        ("statefulsets", "ledger", tracer("StatefulSet", "ledger")),
        ("daemonsets", "watcher", tracer("DaemonSet", "watcher")),
        ("statefulsets", "vault", on_delete(of_kind("StatefulSet", "vault", &idle("vault")))),
        ("deployments", "desk", two_replicas(&idle("desk"))),
    ];
    let later = HERD.map(|name| ("deployments", name, slow(&idle(name))));
    let later = later.into_iter().chain([("cronjobs", "nightly", tracer("CronJob", "nightly"))]);
    let mut noted = Vec::new();
    for (resource, name, manifest) in &first {
        scene.apply(manifest);
        noted.push((*resource, *name, scene.live(resource, name)));
    }
    for (resource, name, manifest) in later {
        let dry = ["-n", &scene.namespace, "create", "--dry-run=server", "-o", "json", "-f", "-"];
        let answer = kubectl(&dry, &manifest).unwrap();
        noted.push((resource, name, serde_json::from_str(&answer).unwrap()));
    }
    scene.apply(&job("early", &idle("early")).replace("generateName", "name"));
    scene.apply(
        "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: desk}, \
         spec: {minAvailable: 1, selector: {matchLabels: {app: desk}}}}",
    );
    noted.push(("poddisruptionbudgets", "desk", scene.live("poddisruptionbudgets", "desk")));
    for (resource, name, object) in &noted {
        assert!(!is_wired(object), "{resource}/{name} was wired by nobody yet");
    }
    Before(noted)
}

fn those_that_roll_are_brought_two_at_a_time(scene: &Scene) {
    let all = [("statefulsets", "ledger"), ("daemonsets", "watcher"), ("deployments", "desk")];
    let most = most_at_a_time(scene, "those that were there are wired", &all, true);
    assert!((1..=AT_A_TIME).contains(&most), "{most} at a time");
    scene.until_condition("MLflowReady", "True", "Available");
}

fn others_come_when_mlflow_is_there(scene: &Scene) {
    let created = |manifest: &str| -> Value {
        let answer = kubectl(&["-n", &scene.namespace, "create", "-o", "json", "-f", "-"], manifest).unwrap();
        let created = serde_json::from_str(&answer).unwrap();
        assert!(is_wired(&created), "wired in the very request: {answer}");
        created
    };
    created(&tracer("CronJob", "nightly"));
    scene.kubectl(&["create", "job", "nightly-by-hand", "--from=cronjob/nightly"]);
    let owner = &scene.live("jobs", "nightly-by-hand")["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&"CronJob".into(), &"nightly".into()));
    created(&job("batch-", &tracer_deployment("batch")));
    created(&pod("scout"));
    for name in HERD {
        created(&slow(&idle(name)));
    }
    // Nobody asked for this one.
    let unasked = pod("loner").replace(names::LABEL_INJECT, "example.com/other");
    let answer = kubectl(&["-n", &scene.namespace, "create", "-o", "json", "-f", "-"], &unasked).unwrap();
    assert!(!is_wired(&serde_json::from_str(&answer).unwrap()), "a bare Pod is wired where it asks for it: {answer}");
    scene.kubectl(&["delete", "pod", "loner", "--wait=false"]);
}

fn a_job_from_before_says_so(scene: &Scene) {
    let told = row(scene, "Job", "early");
    assert_eq!((&told["state"], &told["reason"]), (&"Skipped".into(), &"CreatedUnwired".into()), "{told}");
    assert!(!is_wired(&scene.live("jobs", "early")), "a Job is never changed");
    scene.kubectl(&["delete", "job", "early"]);
}

fn what_its_owner_replaces_says_what_to_type(scene: &Scene) {
    assert!(is_wired(&scene.live("statefulsets", "vault")), "its template is");
    assert!(!is_wired(&scene.live("pods", "vault-0")), "its pod is its owner's to replace");
    let told = until("vault is told to be outdated", || match row(scene, "StatefulSet", "vault") {
        row if row["state"] == "Outdated" => Ok(row),
        row => Err(row.to_string()),
    });
    scene.until_condition("WorkloadsReady", "False", "Outdated").ends_with_a_command().says("vault");
    let (_, command) = told["message"].as_str().unwrap().rsplit_once(": kubectl ").unwrap();
    assert_eq!(command, format!("delete pods -n {} -l app=vault", scene.namespace));
    typed(&command.split(' ').collect::<Vec<_>>());
    until("vault's new pod is wired", || match scene.get("pods", "vault-0") {
        Some(pod) if is_wired(&pod) => Ok(()),
        other => Err(other.map_or("there is none".to_owned(), |pod| pod["metadata"].to_string())),
    });
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
}

/// Its own change goes, our wiring does not, and the template that comes back is not the one from before we were there.
fn an_undone_rollout_is_wired(scene: &Scene) {
    scene.kubectl(&["scale", "deployment/desk", "--replicas=3"]);
    scene.kubectl(&["set", "env", "deployment/desk", "COLOUR=blue"]);
    assert_eq!(env(&scene.live("deployments", "desk"), "COLOUR"), Some("blue"));
    // The first revision is the one without wiring.
    let unwired = scene.replica_sets("desk")[0].clone();
    assert!(!is_wired(&unwired));
    scene.kubectl(&["rollout", "undo", "deployment/desk", "--to-revision=1"]);
    let live = scene.live("deployments", "desk");
    assert_eq!(env(&live, "COLOUR"), None, "it was undone");
    assert!(is_wired(&live), "and wired in the very request");
    scene.until_rolled_out("desk");
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
    assert!(is_wired(&scene.live("deployments", "desk")));
}

fn each_traces_under_the_name_of_its_kind(scene: &Scene) {
    let mlflow = Mlflow::of(scene);
    for experiment in ["ledger", "watcher", "nightly", "batch", "scout"] {
        mlflow.until_traced_since(experiment, Timestamp::UNIX_EPOCH);
    }
    for other in ["nightly-by-hand", &*batch(scene), "ledger-0"] {
        assert!(mlflow.traces(other).is_err(), "no experiment {other}");
    }
    scene.until_condition("Ready", "True", "TracesReceived").ends_with_a_command();
}

fn each_has_its_row(scene: &Scene) {
    let batch = batch(scene);
    let traced = [
        ("CronJob", "nightly", "nightly"),
        ("DaemonSet", "watcher", "watcher"),
        ("Job", &*batch, "batch"),
        ("Pod", "scout", "scout"),
        ("StatefulSet", "ledger", "ledger"),
    ];
    for (kind, name, experiment) in traced {
        let told = until(&format!("a trace of {kind} {name} is in status"), || match row(scene, kind, name) {
            row if row["lastTraceTime"].is_string() => Ok(row),
            row => Err(row.to_string()),
        });
        assert_eq!((&told["state"], &told["experiment"]), (&"Injected".into(), &experiment.into()), "{told}");
    }
    let mut all: Vec<_> = traced.iter().map(|(kind, name, _)| format!("{kind} {name}")).collect();
    all.extend(HERD.map(|name| format!("Deployment {name}")));
    all.extend(["Deployment desk".to_owned(), "StatefulSet vault".to_owned()]);
    all.sort();
    let mut told: Vec<_> = rows(scene)
        .iter()
        .map(|row| format!("{} {}", row["kind"].as_str().unwrap(), row["name"].as_str().unwrap()))
        .collect();
    told.sort();
    assert_eq!(told, all, "no Pods of what is listed itself, nor the Jobs of a CronJob");
    let injected = &scene.live("agenttracings", "tracing")["status"]["injected"];
    assert_eq!(injected, &format!("{0}/{0}", all.len()));
}

fn each_was_rolled_once(scene: &Scene) {
    for (resource, name) in [("statefulsets", "ledger"), ("daemonsets", "watcher"), ("statefulsets", "vault")] {
        assert_eq!(revisions(scene, name), 2, "{name} as it was, and wired");
        assert_eq!(scene.live(resource, name)["metadata"]["generation"], 2, "{name}");
    }
    for name in HERD {
        assert_eq!(scene.rollouts(name), 0, "{name} was wired when it was created");
    }
}

fn what_a_person_scaled_and_guards_is_left_alone(scene: &Scene, before: &Before) {
    let desk = scene.live("deployments", "desk");
    assert_eq!(desk["spec"]["replicas"], 3);
    assert_eq!(desk["metadata"]["generation"], 5, "created, wired, scaled, coloured, undone, and nothing else");
    let budget = scene.live("poddisruptionbudgets", "desk");
    let then = before.of("poddisruptionbudgets", "desk");
    assert_eq!(budget["spec"].to_string(), then["spec"].to_string());
    for part in ["generation", "uid", "labels", "annotations"] {
        assert_eq!(budget["metadata"][part], then["metadata"][part], "{part}");
    }
    let budgets = scene.list("poddisruptionbudgets", "");
    assert_eq!(budgets.len(), 1, "no other one: {budgets:?}");
}

fn an_opt_out_takes_it_out(scene: &Scene, before: &Before) {
    let out = format!("{}=false", names::LABEL_INJECT);
    scene.kubectl(&["label", "statefulset/ledger", &out]);
    until("ledger's wiring is out", || match scene.live("statefulsets", "ledger") {
        live if is_wired(&live) => Err(row(scene, "StatefulSet", "ledger").to_string()),
        _ => Ok(()),
    });
    before.assert_is_back(scene, "statefulsets", "ledger");
    until("ledger's pod is as its owner wrote it", || match scene.get("pods", "ledger-0") {
        Some(pod) if is_wired(&pod) => Err(pod["metadata"].to_string()),
        Some(_) => Ok(()),
        None => Err("there is none".to_owned()),
    });
    let told = until("ledger is told to be left alone", || match row(scene, "StatefulSet", "ledger") {
        row if row["state"] == "Skipped" => Ok(row),
        row => Err(row.to_string()),
    });
    assert_eq!(told["reason"], "OptedOut", "{told}");
    scene.until_condition("Ready", "True", "TracesReceived");
}

fn without_the_agent_tracing_all_are_what_they_were_a_few_at_a_time(scene: &Scene, before: &Before) {
    let (batch, scout) = (scene.live("jobs", &batch(scene)), scene.live("pods", "scout"));
    let desk = scene.live("deployments", "desk")["spec"].clone();
    // MLflow goes with it, so the agents that still have the wiring would only tell of that.
    scene.kubectl(&["delete", "agenttracing", "tracing", "--timeout=10s"]);
    let began = Instant::now();
    let mut all = vec![("daemonsets", "watcher"), ("deployments", "desk")];
    all.extend(HERD.map(|name| ("deployments", name)));
    let most = most_at_a_time(scene, "those that roll are as they were", &all, false);
    assert!((2..=AT_A_TIME_WITHOUT_A_SPEC).contains(&most), "{most} at a time");
    all.extend([("statefulsets", "vault"), ("cronjobs", "nightly"), ("statefulsets", "ledger")]);
    until("all are", || match all.iter().filter(|(resource, name)| is_wired(&scene.live(resource, name))).count() {
        0 => Ok(()),
        wired => Err(format!("{wired} are wired")),
    });
    say(&format!("{:>7.1} s  until all {} were given back", began.elapsed().as_secs_f64(), all.len()));
    for (resource, name) in all {
        if name == "desk" {
            continue;
        }
        before.assert_is_back(scene, resource, name);
    }
    // What its owner scaled stays scaled.
    let mut then = before.of("deployments", "desk")["spec"].clone();
    then["replicas"] = desk["replicas"].clone();
    assert_eq!(scene.live("deployments", "desk")["spec"], then);
    assert!(is_wired(&scene.live("pods", "vault-0")), "its pod is its owner's to replace");
    for (resource, then) in [("jobs", batch), ("pods", scout)] {
        let live = scene.live(resource, then["metadata"]["name"].as_str().unwrap());
        assert_eq!(live["spec"].to_string(), then["spec"].to_string(), "{resource} are never changed");
    }
}

/// Waits until all of these carry the wiring, or none, and their pods too. The most that rolled for it at any moment.
#[track_caller]
fn most_at_a_time(scene: &Scene, what: &str, all: &[(&str, &str)], wired: bool) -> usize {
    let mut most = 0;
    until(what, || {
        let live: Vec<_> = all.iter().map(|(resource, name)| scene.live(resource, name)).collect();
        let brought = live.iter().filter(|object| is_wired(object) == wired);
        let rolling: Vec<_> = brought.clone().filter(|object| !is_settled(object)).collect();
        most = most.max(rolling.len());
        match brought.count() {
            done if done == all.len() && rolling.is_empty() => Ok(()),
            done => Err(format!("{done} of {}, {} rolling; {:?}", all.len(), rolling.len(), scene.condition("Ready"))),
        }
    });
    say(&format!("{:>7} at a time at most", most));
    most
}

/// Whether all pods are of the current template, and there.
fn is_settled(object: &Value) -> bool {
    let status = &object["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or_default();
    let seen = status["observedGeneration"] == object["metadata"]["generation"];
    seen && match object["kind"].as_str().unwrap() {
        "DaemonSet" => {
            let wanted = count("desiredNumberScheduled");
            count("updatedNumberScheduled") == wanted && count("numberAvailable") == wanted
        }
        _ => {
            let wanted = object["spec"]["replicas"].as_i64().unwrap();
            ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|field| count(field) == wanted)
        }
    }
}

/// How many templates a StatefulSet or DaemonSet has had.
fn revisions(scene: &Scene, of: &str) -> usize {
    let all = scene.list("controllerrevisions", "");
    all.iter().filter(|revision| revision["metadata"]["ownerReferences"][0]["name"] == of).count()
}

fn rows(scene: &Scene) -> Vec<Value> {
    let status = scene.live("agenttracings", "tracing")["status"].clone();
    status["workloads"].as_array().cloned().unwrap_or_default()
}

fn row(scene: &Scene, kind: &str, name: &str) -> Value {
    rows(scene).into_iter().find(|row| row["kind"] == kind && row["name"] == name).unwrap_or_default()
}
