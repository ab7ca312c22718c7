//! Twenty Deployments: created while the operator is killed, then at rest, then robbed of a variable, then with an MLflow
//! that hangs.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::audit::{self, Audit};
use crate::operator;
use crate::world::{Scene, env, idle, is_wired, kubectl, say, scene, until};

const HERD: usize = 20;
const ROBBED: &str = "idle-07";

#[test]
#[ignore = "needs the node cluster: make test"]
fn deployments_survive_a_killed_operator_and_a_hanging_mlflow_and_are_left_in_peace() {
    scene("herd", true, |scene| {
        scene.apply_tracing("{}");
        scene.until_condition("MLflowReady", "True", "Available");
        what_is_created_while_the_operator_is_killed_is_wired_and_rolled_at_most_once(scene);
        send_a_trace_from_each(scene);
        at_rest_nothing_is_written_but_the_lease(scene);
        a_variable_taken_away_comes_back_in_the_same_request(scene);
        an_mlflow_that_hangs_is_told_and_recovers(scene);
        an_mlflow_that_nobody_reaches_is_told_and_recovers(scene);
    });
}

fn members() -> impl Iterator<Item = String> {
    (0..HERD).map(|n| format!("idle-{n:02}"))
}

fn what_is_created_while_the_operator_is_killed_is_wired_and_rolled_at_most_once(scene: &Scene) {
    let (mut killed, mut unwired) = (0, 0);
    for (n, name) in members().enumerate() {
        if n == 3 {
            killed = operator::kill();
        }
        let created = kubectl(&["-n", &scene.namespace, "create", "-o", "json", "-f", "-"], &idle(&name)).unwrap();
        unwired += usize::from(!is_wired(&serde_json::from_str::<Value>(&created).unwrap()));
    }
    say(&format!("{unwired:>7} of {HERD} created while nobody answered the API server; {killed} processes killed"));
    assert_eq!(killed, 2, "both replicas ran");
    assert!((1..HERD).contains(&unwired), "some were wired by the webhook and some were missed: {unwired} missed");
    until("all of them are wired", || {
        let missing: Vec<_> = members().filter(|name| !is_wired(&scene.live("deployments", name))).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not yet: {missing:?}")) }
    });
    scene.until_condition("WorkloadsReady", "True", "AllCurrent").ends_with_a_command();
    for name in members() {
        let live = scene.live("deployments", &name);
        let generation = live["metadata"]["generation"].as_u64().unwrap();
        assert!(
            generation <= 2 && scene.rollouts(&name) <= 1,
            "{name}: generation {generation}, {} rollouts",
            scene.rollouts(&name)
        );
        assert_eq!(env(&live, "MLFLOW_EXPERIMENT_NAME"), Some(&*name));
    }
    let injected = &scene.live("agenttracings", "tracing")["status"]["injected"];
    assert_eq!(injected, &format!("{HERD}/{HERD}"));
    until("the operator is whole again", || {
        let ready = operator::pods().iter().filter(|pod| operator::is_ready(pod)).count();
        if ready == 2 { Ok(()) } else { Err(format!("{ready} replicas are ready")) }
    });
}

/// With MLflow's own SDK, from MLflow's own pod: one process for all.
fn send_a_trace_from_each(scene: &Scene) {
    let script = "import sys, mlflow\n\
                  for name in sys.argv[1:]:\n    mlflow.set_experiment(name)\n    \
                  with mlflow.start_span('question') as span:\n        span.set_inputs({'name': name})\n    \
                  mlflow.flush_trace_async_logging()\n";
    let names: Vec<_> = members().collect();
    let mut command = vec![
        "exec",
        "deployment/tracing-mlflow",
        "-c",
        "mlflow",
        "--",
        "env",
        "MLFLOW_TRACKING_URI=http://127.0.0.1:5500",
    ];
    command.extend(["python3", "-c", script]);
    command.extend(names.iter().map(String::as_str));
    scene.kubectl(&command);
    until("a trace of each is in status", || {
        let status = &scene.live("agenttracings", "tracing")["status"];
        let rows = status["workloads"].as_array().unwrap();
        let silent: Vec<_> = rows.iter().filter(|row| row["lastTraceTime"].is_null()).map(|row| &row["name"]).collect();
        if silent.is_empty() { Ok(()) } else { Err(format!("not of {silent:?}")) }
    });
    scene.until_condition("Ready", "True", "TracesReceived");
}

fn at_rest_nothing_is_written_but_the_lease(scene: &Scene) {
    let window = Duration::from_secs(if std::env::var_os("SOAK").is_some() { 600 } else { 60 });
    // What was set off before may still be on its way.
    std::thread::sleep(Duration::from_secs(5));
    let before = scene.live("agenttracings", "tracing");
    let audit = Audit::from_now();
    std::thread::sleep(window);
    let (requests, writes) = (audit.requests().len(), audit.writes());
    say(&format!(
        "{:>7} s  of rest: {requests} requests of the operator, {} of them writes",
        window.as_secs(),
        writes.len()
    ));
    assert!(requests > 0, "the log tells of the operator at all");
    assert!(writes.is_empty(), "written at rest:\n{}", audit::lines(&writes));
    let after = scene.live("agenttracings", "tracing");
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

fn a_variable_taken_away_comes_back_in_the_same_request(scene: &Scene) {
    let before = scene.live("deployments", ROBBED);
    let rollouts = scene.rollouts(ROBBED);
    let answer = scene.kubectl(&["set", "env", &format!("deployment/{ROBBED}"), "MLFLOW_TRACKING_URI-", "-o", "json"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(is_wired(&answer), "the answer to the request already has it: {answer}");
    assert_eq!(env(&answer, "MLFLOW_TRACKING_URI"), env(&before, "MLFLOW_TRACKING_URI"));
    scene.until_rolled_out(ROBBED);
    // Long enough for a controller that sees something to repair.
    std::thread::sleep(Duration::from_secs(5));
    let generation = |deployment: &Value| deployment["metadata"]["generation"].as_u64().unwrap();
    let after = scene.live("deployments", ROBBED);
    assert_eq!(generation(&after), generation(&answer), "nobody changed it again");
    assert!(generation(&after) <= generation(&before) + 1 && scene.rollouts(ROBBED) <= rollouts + 1);
}

/// Stopped by a signal, the server accepts connections and never answers: worse than one that is gone.
fn an_mlflow_that_hangs_is_told_and_recovers(scene: &Scene) {
    let server = server(scene);
    operator::signal("STOP", &operator::processes(&server));
    let told = until("the hanging server is told", || match scene.condition("MLflowReady") {
        // Whoever notices first: the operator, who is answered nothing, or the kubelet's probe.
        Some(told) if ["Unreachable", "PodsNotReady"].contains(&&*told.reason) => Ok(told),
        other => Err(format!("{other:?}")),
    });
    told.ends_with_a_command();
    assert_eq!(scene.condition("Ready").unwrap().status, "False");
    what_stays_so_is_told_once(scene);
    operator::signal("CONT", &operator::processes(&server));
    recovers_without_any_write_to_the_herd(scene);
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
    assert_eq!(
        restarts(&self::server(scene)),
        restarts(&server),
        "a server that is busy for a while is not killed for it"
    );
}

/// A status that says how long something lasts would be written again and again, as long as it lasts.
fn what_stays_so_is_told_once(scene: &Scene) {
    std::thread::sleep(Duration::from_secs(5));
    let audit = Audit::from_now();
    std::thread::sleep(Duration::from_secs(15));
    let (writes, told) = (audit.writes(), scene.condition("MLflowReady"));
    assert!(writes.len() <= 1, "the news is not that new: {told:?}\n{}", audit::lines(&writes));
}

/// As by a network policy of somebody else: the kubelet, on the node, finds the server well; nobody else reaches it.
fn an_mlflow_that_nobody_reaches_is_told_and_recovers(scene: &Scene) {
    let blocked = Blocked::towards(server(scene)["status"]["podIP"].as_str().unwrap());
    let told = scene.until_condition("MLflowReady", "False", "Unreachable");
    told.ends_with_a_command().says(&format!("http://tracing-mlflow.{}.svc:5500", scene.namespace));
    scene.until_condition("Ready", "False", "Unreachable");
    drop(blocked);
    recovers_without_any_write_to_the_herd(scene);
}

fn recovers_without_any_write_to_the_herd(scene: &Scene) {
    scene.until_condition("MLflowReady", "True", "Available");
    scene.until_condition("Ready", "True", "TracesReceived");
    for name in members() {
        let wirings = scene.live("deployments", &name)["metadata"]["generation"].as_u64().unwrap();
        assert!(wirings <= if name == ROBBED { 3 } else { 2 }, "a server that is down changes no wiring: {name}");
    }
}

fn server(scene: &Scene) -> Value {
    scene.list("pods", "app.kubernetes.io/instance=tracing").remove(0)
}

/// Drops what is routed to a pod, until it is dropped itself.
struct Blocked;

impl Blocked {
    fn towards(pod: &str) -> Self {
        let rules = "table inet agent-tracing-test { chain towards { type filter hook forward priority -10; ip daddr POD drop; }; }";
        nft(&rules.replace("POD", pod));
        Self
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        nft("delete table inet agent-tracing-test");
    }
}

fn nft(command: &str) {
    assert!(Command::new("nft").arg(command).status().unwrap().success(), "nft {command}");
}
