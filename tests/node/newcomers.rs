//! New agents of the shared MLflow, which keeps a denial for 300 s: whoever asks before he is bound stays refused that long.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};

use agent_tracing::names;
use serde_json::{Value, json};

use crate::shared::TRACING;
use crate::shared_limits::scripted;
use crate::world::{Scene, collection, kubectl, say, typed_script, until, world};

const NEWCOMERS: usize = 20;

/// Its first request with its token needs the right `create`, and it says what the answer was. Without wiring it only waits.
const FIRST_REQUEST: &str = "
import os, time
if uri := os.environ.get('MLFLOW_TRACKING_URI'):
    import requests
    with open(os.environ['MLFLOW_TRACKING_TOKEN_FILE']) as file:
        headers = {'Authorization': f'Bearer {file.read()}', 'X-MLFLOW-WORKSPACE': os.environ['MLFLOW_WORKSPACE']}
    name = 'first of ' + os.environ['MLFLOW_EXPERIMENT_NAME']
    answer = requests.post(f'{uri}/api/2.0/mlflow/experiments/create', json={'name': name}, headers=headers)
    print('first request:', answer.status_code)
time.sleep(3600)
";

pub fn twenty_of_twenty_are_bound_before_their_first_request() {
    let team = Scene::second("limits-twenty", true);
    typed_script("tests/cr/ca.sh", &["publish", &team.namespace]);
    team.apply(TRACING);
    team.until_condition("MLflowReady", "True", "Available");
    let (bindings, pods) = (History::of("rolebindings", &team.namespace), History::of("pods", &team.namespace));
    let names: Vec<_> = (0..NEWCOMERS).map(|n| format!("newcomer-{n:02}")).collect();
    let accounts =
        names.iter().map(|name| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}));
    let agents = names.iter().map(|name| {
        serde_json::from_str::<Value>(&scripted(name, "demo/langgraph-agent:1", name, FIRST_REQUEST)).unwrap()
    });
    let all: Vec<_> = accounts.chain(agents).collect();
    team.apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string());

    let answers = until("all of them have made their first request", || {
        let said = |name: &String| {
            let selector = format!("app={name}");
            let log = kubectl(&["-n", &team.namespace, "logs", "--selector", &selector, "-c", "agent"], "").ok()?;
            // A pod without wiring says nothing, and one that is going may have no log any more.
            let answer = log.lines().find(|line| line.starts_with("first request: "))?.to_owned();
            Some((name.clone(), answer))
        };
        let answers: BTreeMap<_, _> = names.iter().filter_map(said).collect();
        if answers.len() == NEWCOMERS { Ok(answers) } else { Err(format!("{} of {NEWCOMERS}", answers.len())) }
    });
    let granted = answers.values().filter(|answer| *answer == "first request: 200").count();
    let bound_at = bindings.first_seen(|binding| {
        let subjects = binding["subjects"].as_array().cloned().unwrap_or_default();
        subjects.iter().filter_map(|subject| Some(subject["name"].as_str()?.to_owned())).collect()
    });
    let wired_at = pods.first_seen(|pod| match pod["metadata"]["annotations"][names::ANNOTATION_RECORD].is_string() {
        true => vec![pod["metadata"]["labels"]["app"].as_str().unwrap().to_owned()],
        false => Vec::new(),
    });
    let in_order = names.iter().filter(|name| bound_at[*name] < wired_at[*name]).count();
    say(&format!(
        "{in_order:>7} of {NEWCOMERS} were bound before their first wired pod was there; {granted} first requests granted"
    ));
    assert_eq!((in_order, granted), (NEWCOMERS, NEWCOMERS), "{answers:?}\n{bound_at:?}\n{wired_at:?}");
}

/// All that happens to a collection from now on. One store gives all objects their revisions, so that they tell what came first.
struct History {
    watch: Child,
    file: PathBuf,
}

impl History {
    fn of(resource: &str, namespace: &str) -> Self {
        let path = collection(resource, namespace);
        let now = world().get(&path).unwrap()["metadata"]["resourceVersion"].clone();
        let watch = format!("{path}?watch=true&timeoutSeconds=900&resourceVersion={}", now.as_str().unwrap());
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{namespace}-{resource}.json"));
        let output = File::create(&file).unwrap();
        let watch = Command::new("kubectl").args(["get", "--raw", &watch]).stdout(output).spawn().unwrap();
        Self { watch, file }
    }

    /// At which revision an object named each thing first.
    fn first_seen(&self, named: impl Fn(&Value) -> Vec<String>) -> BTreeMap<String, u64> {
        let text = fs::read_to_string(&self.file).unwrap();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map(|(whole, _)| whole).unwrap_or_default();
        let mut first = BTreeMap::new();
        for event in whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            assert!(event["type"] != "ERROR", "{event}");
            let object = &event["object"];
            let revision = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            for name in named(object) {
                first.entry(name).or_insert(revision);
            }
        }
        first
    }
}

impl Drop for History {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
        let _ = fs::remove_file(&self.file);
    }
}
