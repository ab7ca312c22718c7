//! The story of a team's three LangGraph agents: their first trace, the day MLflow's pod dies, the day somebody deletes the
//! AgentTracing, and the day everything of ours is gone.

use std::fs;

use agent_tracing::names;
use jiff::Timestamp;
use serde_json::Value;

use crate::mlflow::Mlflow;
use crate::operator;
use crate::world::{Scene, delete_namespace, env, idle, is_wired, kubectl, say, scene, until, world};

/// The team's namespace in the demo's manifests.
const TEAM: &str = "bank-agents";

#[test]
#[ignore = "needs the node cluster: make test"]
fn the_life_of_an_agent() {
    scene("life", false, |scene| {
        start_model();
        let bystander = the_agents_come_first(scene);
        a_label_and_an_agent_tracing_wire_them_once_mlflow_has_answered(scene);
        their_traces_arrive(scene);
        what_is_not_to_be_touched_is_as_it_was(scene, &bystander);
        each_event_was_told_once(scene);
        traces_go_on_when_mlflows_pod_is_deleted(scene);
        old_traces_are_there_when_the_agent_tracing_is_created_again(scene);
        agents_start_with_the_operator_and_mlflow_gone(scene);
        an_install_after_that_heals(scene);
        delete_namespace("demo-llm");
    });
}

fn start_model() {
    until("namespace demo-llm is not being deleted", || match world().get("/api/v1/namespaces/demo-llm") {
        Some(live) if live["metadata"]["deletionTimestamp"].is_string() => Err(live["status"].to_string()),
        _ => Ok(()),
    });
    kubectl(&["apply", "-f", "tests/demo/manifests/llm.yaml"], "").unwrap();
}

/// As people do: agents first. Returns the one that opts out.
fn the_agents_come_first(scene: &Scene) -> Value {
    scene.apply(&manifest(scene, "agents.yaml").replace("value: \"20\"", "value: \"3\""));
    for agent in ["teller", "advisor", "backoffice"] {
        scene.until_rolled_out(agent);
        assert!(!is_wired(&scene.live("deployments", agent)), "{agent} was wired by nobody yet");
    }
    scene.live("deployments", "backoffice")
}

fn a_label_and_an_agent_tracing_wire_them_once_mlflow_has_answered(scene: &Scene) {
    enable(scene);
    scene.apply(&manifest(scene, "tracing.yaml"));
    let mut waited = 0;
    until("MLflow has answered and the agents are wired", || {
        // In this order: an agent that is wired now must find MLflow's answer in a status read later.
        let wired = ["teller", "advisor"].map(|agent| is_wired(&scene.live("deployments", agent)));
        let tracing = scene.live("agenttracings", "tracing");
        if tracing["status"]["mlflow"].is_null() {
            assert_eq!(wired, [false, false], "wired before MLflow answered: {}", tracing["status"]);
            waited += 1;
        }
        if wired == [true, true] {
            Ok(())
        } else {
            Err(format!("wired: {wired:?}; {:?}", scene.condition("MLflowReady")))
        }
    });
    assert!(waited > 0, "the agents were there before MLflow");
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
    // Status is written after the fact; the cluster's own objects cannot be mistaken.
    let server = &scene.list("pods", "app.kubernetes.io/instance=tracing")[0];
    assert!(operator::is_ready(server));
    let conditions = server["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    for agent in ["teller", "advisor"] {
        let sets = scene.replica_sets(agent);
        assert_eq!(sets.len(), 2, "one rollout of {agent}");
        let (rolled, up) = (moment(&sets[1]["metadata"]["creationTimestamp"]), moment(&ready["lastTransitionTime"]));
        assert!(rolled >= up, "{agent} was rolled at {rolled}, MLflow was ready at {up}");
        let live = scene.live("deployments", agent);
        assert_eq!(live["metadata"]["generation"], 2, "one change of {agent}");
        assert_eq!(live["metadata"]["labels"][names::LABEL_WIRED], "tracing");
        assert_eq!(
            env(&live, "MLFLOW_TRACKING_URI"),
            Some(&*format!("http://tracing-mlflow.{}.svc:5500", scene.namespace))
        );
    }
}

fn their_traces_arrive(scene: &Scene) {
    scene.until_condition("Ready", "True", "TracesReceived").ends_with_a_command();
    until("both agents' traces are in status", || {
        let status = status(scene);
        let rows = status["workloads"].as_array().unwrap();
        let traced = rows.iter().filter(|row| row["lastTraceTime"].is_string()).count();
        if traced == 2 { Ok(()) } else { Err(status["workloads"].to_string()) }
    });
    let table = scene.kubectl(&["get", "agenttracing"]);
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["tracing", "Standalone", "True", "TracesReceived", "2/2", "{workload}"], "{table}");
    let mlflow = Mlflow::of(scene);
    for experiment in ["teller", "advice"] {
        let trace = mlflow.until_traced_since(experiment, Timestamp::UNIX_EPOCH);
        // A question to the model, its call of the tool, the tool, the answer.
        assert!(mlflow.spans(&trace.id).unwrap() >= 4, "the whole of LangGraph's run");
    }
    assert!(mlflow.traces("advisor").is_err(), "advisor's choice is the only one");
}

fn what_is_not_to_be_touched_is_as_it_was(scene: &Scene, before: &Value) {
    let after = scene.live("deployments", "backoffice");
    for part in ["labels", "annotations", "generation", "uid"] {
        assert_eq!(after["metadata"][part].to_string(), before["metadata"][part].to_string(), "{part}");
    }
    assert_eq!(after["spec"].to_string(), before["spec"].to_string(), "byte for byte");
    let advisor = scene.live("deployments", "advisor");
    let all = advisor["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let names = all.iter().filter(|entry| entry["name"] == "MLFLOW_EXPERIMENT_NAME").count();
    assert_eq!((names, env(&advisor, "MLFLOW_EXPERIMENT_NAME")), (1, Some("advice")));
    let status = status(scene);
    let row = |name: &str| status["workloads"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(row("advisor")["experiment"], "advice");
    assert!(row("advisor")["notes"].to_string().contains("KeptByUser"), "{}", row("advisor"));
    assert_eq!((&row("backoffice")["state"], &row("backoffice")["reason"]), (&"Skipped".into(), &"OptedOut".into()));
}

fn each_event_was_told_once(scene: &Scene) {
    for (kind, name, reason) in [
        ("AgentTracing", "tracing", names::event::MLFLOW_READY),
        ("AgentTracing", "tracing", names::event::TRACES_RECEIVED),
        ("Deployment", "teller", names::event::INJECTED),
        ("Deployment", "teller", names::event::TRACES_RECEIVED),
        ("Deployment", "advisor", names::event::INJECTED),
        ("Deployment", "advisor", names::event::TRACES_RECEIVED),
        ("Deployment", "backoffice", names::event::INJECTION_SKIPPED),
    ] {
        let events = scene.events(kind, name, reason);
        assert_eq!(events.len(), 1, "{reason} about {kind} {name}: {events:?}");
        assert!(events[0]["series"].is_null(), "{reason} about {kind} {name} was repeated: {}", events[0]);
    }
    let repaired = scene.events("Deployment", "teller", names::event::REPAIRED);
    assert!(repaired.is_empty(), "nothing was to be repaired: {repaired:?}");
}

fn traces_go_on_when_mlflows_pod_is_deleted(scene: &Scene) {
    let mlflow = Mlflow::of(scene);
    let before = mlflow.finished("teller");
    assert!(!before.is_empty());
    let wiring = scene.live("deployments", "teller")["metadata"]["generation"].clone();
    scene.kubectl(&["delete", "pod", "-l", "app.kubernetes.io/instance=tracing"]);
    let deleted = Timestamp::now();
    mlflow.until_traced_since("teller", deleted);
    assert!(mlflow.finished("teller").is_superset(&before), "all that were there still are");
    assert_eq!(scene.live("deployments", "teller")["metadata"]["generation"], wiring, "an outage changes no wiring");
    scene.until_condition("Ready", "True", "TracesReceived");
}

fn old_traces_are_there_when_the_agent_tracing_is_created_again(scene: &Scene) {
    let mlflow = Mlflow::of(scene);
    let before = mlflow.finished("teller");
    let claim = scene.live("persistentvolumeclaims", "tracing-mlflow");
    let finalizers = &scene.live("agenttracings", "tracing")["metadata"]["finalizers"];
    assert!(finalizers.is_null(), "nothing holds it: {finalizers}");
    delete_tracing(scene);
    let retained = scene.live("persistentvolumeclaims", "tracing-mlflow");
    assert_eq!(
        (&retained["metadata"]["uid"], &retained["status"]["phase"]),
        (&claim["metadata"]["uid"], &"Bound".into())
    );
    assert!(retained["metadata"]["ownerReferences"].is_null() && retained["metadata"]["deletionTimestamp"].is_null());

    let created = Timestamp::now();
    scene.apply(&manifest(scene, "tracing.yaml"));
    scene.until_condition("MLflowReady", "True", "Available");
    let adopted = scene.live("persistentvolumeclaims", "tracing-mlflow");
    assert_eq!(adopted["metadata"]["uid"], claim["metadata"]["uid"], "the volume is the old one");
    assert!(mlflow.finished("teller").is_superset(&before), "the old traces are there");
    mlflow.until_traced_since("teller", created);
    scene.until_condition("Ready", "True", "TracesReceived");
}

/// The children are owned by the AgentTracing: whether the operator runs makes no difference.
fn delete_tracing(scene: &Scene) {
    scene.kubectl(&["delete", "agenttracing", "tracing", "--timeout=10s"]);
    until("the AgentTracing's children are gone", || {
        let left =
            ["deployments", "services", "networkpolicies"].map(|kind| scene.get(kind, "tracing-mlflow").is_some());
        let pods = scene.list("pods", "app.kubernetes.io/instance=tracing").len();
        if left == [false; 3] && pods == 0 { Ok(()) } else { Err(format!("{left:?}, {pods} pods")) }
    });
}

fn agents_start_with_the_operator_and_mlflow_gone(scene: &mut Scene) {
    // Its rights go with its namespace, while its processes still run.
    scene.audit.assert_nothing_was_forbidden();
    operator::delete_brutally();
    delete_tracing(scene);
    until("the webhook's configuration went with the operator's namespace", || match operator::configuration() {
        None => Ok(()),
        Some(left) => Err(left["metadata"].to_string()),
    });

    scene.kubectl(&["delete", "pod", "-l", "app=teller", "--wait=false"]);
    until("a new pod of teller has answered a question", || {
        let mut pods = scene.list("pods", "app=teller");
        pods.retain(|pod| !pod["metadata"]["deletionTimestamp"].is_string());
        let [pod] = &pods[..] else { return Err(format!("{} pods", pods.len())) };
        let name = pod["metadata"]["name"].as_str().unwrap();
        let log = kubectl(&["-n", &scene.namespace, "logs", name], "")?;
        let is_answer = |line: &&str| line.contains(" -> ") && !line.contains("no answer");
        let last = log.lines().next_back().unwrap_or("no line yet");
        log.lines().find(is_answer).map(str::to_owned).ok_or(format!("{}: {last}", pod["status"]["phase"]))
    });
    assert!(is_wired(&scene.live("deployments", "teller")), "it does so with its wiring");

    let began = std::time::Instant::now();
    scene.apply(&idle("latecomer"));
    let took = began.elapsed();
    say(&format!("{:>7.1} s  to create a Deployment after the operator's namespace is gone", took.as_secs_f64()));
    assert!(took.as_secs() < 10, "nobody waits for a webhook that is no more");
    assert!(!is_wired(&scene.live("deployments", "latecomer")));
    scene.until_rolled_out("latecomer");
}

fn an_install_after_that_heals(scene: &mut Scene) {
    let bundle = operator::trusted();
    operator::install();
    scene.audit.restart();
    until("a new certificate authority is published", || {
        if operator::trusted() == bundle { Err("the old one".to_owned()) } else { Ok(()) }
    });
    scene.apply(&manifest(scene, "tracing.yaml"));
    scene.until_condition("MLflowReady", "True", "Available");
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
    assert!(is_wired(&scene.live("deployments", "latecomer")), "what came while nobody was there is wired");
    assert_eq!(scene.rollouts("latecomer"), 1);
    let answer = kubectl(&["-n", &scene.namespace, "create", "-o", "json", "-f", "-"], &idle("newcomer")).unwrap();
    assert!(is_wired(&serde_json::from_str(&answer).unwrap()), "the webhook wires in the very request: {answer}");
}

fn status(scene: &Scene) -> Value {
    scene.live("agenttracings", "tracing")["status"].clone()
}

fn enable(scene: &Scene) {
    let label = format!("{}={}", names::LABEL_INJECTION, names::ENABLED);
    kubectl(&["label", "namespace", &scene.namespace, &label], "").unwrap();
}

/// One of the demo's manifests, for this namespace.
fn manifest(scene: &Scene, file: &str) -> String {
    let path = format!("{}/tests/demo/manifests/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap().replace(TEAM, &scene.namespace)
}

fn moment(time: &Value) -> Timestamp {
    time.as_str().unwrap().parse().unwrap()
}
