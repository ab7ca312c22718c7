//! The command line over files as people have them: what kubectl reads is read, and what is written kubectl reads back the same.
//!
//! Cases that golden folders cannot hold: more than one command, documents that are no whole objects, options.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::documents;

const TRACING: &str = "{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {name: tracing, namespace: agents}, \
                       spec: {mlflow: {mode: Standalone}}}\n";
const TELLER: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: teller
  namespace: agents
spec:
  selector:
    matchLabels: {app: teller}
  template:
    metadata:
      labels: {app: teller}
    spec:
      containers:
      - name: agent
        image: registry.example.com/agents/teller:4
";

struct Run {
    stdout: String,
    stderr: String,
    code: i32,
}

/// Runs the program on a text.
fn run(args: &[&str], input: &str) -> Run {
    let mut process = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"));
    process.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A program that ends before it has read everything says why itself.
    let _ = writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code().unwrap() }
}

fn inject(input: &str) -> Run {
    run(&["inject", "-f", "-"], input)
}

fn is_wired(object: &Value) -> bool {
    object.pointer("/metadata/labels").is_some_and(|labels| labels.get("agenttracing.dev/wired").is_some())
}

fn value_of(object: &Value, variable: &str) -> Option<String> {
    let env = object.pointer("/spec/template/spec/containers/0/env")?.as_array()?;
    Some(env.iter().find(|entry| entry["name"] == variable)?["value"].as_str()?.to_owned())
}

/// case B20
#[test]
fn an_agent_tracing_without_a_namespace_is_of_the_one_that_is_given() {
    let teller = TELLER.replace("  namespace: agents\n", "");
    for (mode, variable, value) in [
        ("Standalone", "MLFLOW_TRACKING_URI", "http://tracing-mlflow.bank.svc:5500"),
        ("CR", "MLFLOW_WORKSPACE", "bank"),
    ] {
        let tracing = TRACING.replace(", namespace: agents", "").replace("Standalone", mode);
        let wired = run(&["inject", "-n", "bank", "-f", "-"], &format!("{tracing}---\n{teller}"));
        assert_eq!((wired.code, wired.stderr.as_str()), (0, ""), "{mode}");
        assert_eq!(value_of(&documents(&wired.stdout)[1], variable).as_deref(), Some(value), "{mode}");
        let table = run(&["explain", "-n", "bank", "-o", "json", "-f", "-"], &tracing);
        let rows: Value = serde_json::from_str(&table.stdout).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["variable"] == variable).unwrap();
        assert_eq!(row["value"], value, "explain, {mode}");
    }
    // Its own counts before the one that is given.
    let wired = run(&["inject", "-n", "bank", "-f", "-"], &format!("{TRACING}---\n{TELLER}"));
    let uri = value_of(&documents(&wired.stdout)[1], "MLFLOW_TRACKING_URI");
    assert_eq!(uri.as_deref(), Some("http://tracing-mlflow.agents.svc:5500"));
}

/// case B20
#[test]
fn a_patch_names_the_namespace_that_it_is_for() {
    let teller = TELLER.replace("  namespace: agents\n", "");
    let tracing = TRACING.replace(", namespace: agents", "");
    let wired = run(&["inject", "-n", "bank", "-f", "-"], &format!("{tracing}---\n{teller}")).stdout;
    for command in ["inject", "uninject"] {
        let input = if command == "inject" { format!("{tracing}---\n{teller}") } else { wired.clone() };
        let patch: Value =
            serde_json::from_str(&run(&[command, "-n", "bank", "-o", "patch", "-f", "-"], &input).stdout).unwrap();
        assert_eq!((&patch["namespace"], &patch["name"]), (&json!("bank"), &json!("teller")), "{command}");
    }
}

/// case B20
#[test]
fn explain_takes_a_mode_in_any_case_and_says_what_its_marks_mean() {
    let tables = ["CR", "cr", "Cr"].map(|mode| run(&["explain", "--mode", mode, "-n", "bank"], ""));
    for table in &tables {
        assert_eq!((table.code, &table.stdout), (0, &tables[0].stdout), "{}", table.stderr);
        let workspace = table.stdout.lines().find(|line| line.starts_with("MLFLOW_WORKSPACE")).unwrap();
        assert!(workspace.contains(" bank "), "{workspace}");
    }
    let all = run(&["explain", "-n", "bank"], "").stdout;
    let (rows, legend) = all.split_once("\n\n").unwrap();
    for mark in ["●", "○", "–"] {
        assert!(rows.contains(mark) && legend.contains(&format!("{mark} ")), "{mark}: {legend}");
    }
}

/// case B47
#[test]
fn an_unknown_field_of_an_agent_tracing_is_an_error_that_names_it() {
    for (spec, said) in [
        (
            "injektion: {kinds: [StatefulSet]}",
            "there is no field spec.injektion, which is {\"kinds\":[\"StatefulSet\"]}; correct its name or take it out: \
             kubectl explain agenttracing.spec",
        ),
        ("injection: {env: [{name: A, wert: b}]}", "spec.injection.env.0.wert, which is \"b\"; "),
        ("injection: {rollout: {maxConcurent: 3}}", ": kubectl explain agenttracing.spec.injection.rollout"),
    ] {
        let tracing = TRACING.replace("mlflow:", &format!("{spec}, mlflow:"));
        for (command, input) in [("inject", format!("{tracing}---\n{TELLER}")), ("explain", tracing)] {
            let run = run(&[command, "-f", "-"], &input);
            assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{command} {spec}");
            assert!(run.stderr.contains(said), "{command}: {}", run.stderr);
        }
    }
    let beside = TRACING.replace("spec:", "specs: {}, spec:");
    assert!(run(&["explain", "-f", "-"], &beside).stderr.contains("there is no field specs, which is {}"));
    // A newer operator may have written the status, and the API server the metadata.
    let written = TRACING.replace(
        "spec:",
        "status: {mlflow: {url: 'http://m', version: '3', workspaces: false, source: Service, x: 1}}, spec:",
    );
    assert_eq!(run(&["explain", "-f", "-"], &written).code, 0);
}

/// case B21
#[test]
fn what_is_written_as_json_is_read_again() {
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: prompts, namespace: agents}\n";
    let wired = run(&["inject", "-o", "json", "-f", "-"], &format!("{TRACING}---\n{settings}---\n{TELLER}"));
    assert_eq!(wired.stdout.lines().count(), 3);
    let back = run(&["uninject", "-f", "-"], &wired.stdout);
    assert_eq!((back.code, back.stderr.as_str()), (0, ""));
    assert_eq!(documents(&back.stdout), documents(&format!("{TRACING}---\n{settings}---\n{TELLER}")));
    let again = inject(&wired.stdout);
    assert_eq!(documents(&again.stdout), documents(&wired.stdout), "a second injection");
}

/// case B21
#[test]
fn json_is_read_as_people_write_it() {
    let teller = documents(TELLER).remove(0);
    let (short, long) = (teller.to_string(), serde_json::to_string_pretty(&teller).unwrap());
    for (name, input, count) in [
        ("side by side", format!("{short}{short}"), 2),
        ("over many lines", format!("\n{long}\n{long}\n"), 2),
        ("between YAML", format!("{TELLER}---\n{long}\n---\n# the next\n{short}\n---\n{TELLER}"), 4),
        ("YAML that begins with a brace", "{apiVersion: v1, kind: ConfigMap}\n---\n{a: 1}\n".to_owned(), 2),
        ("a byte order mark and carriage returns", format!("\u{feff}{short}\r\n---\r\n{short}\r\n"), 2),
    ] {
        let run = inject(&format!("{input}\n---\n{TRACING}"));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{name}");
        let printed = documents(&run.stdout);
        assert_eq!(printed.len(), count + 1, "{name}");
        assert!(printed.iter().all(|object| object["kind"] != "Deployment" || is_wired(object)), "{name}");
    }
}

/// case B24
#[test]
fn a_partial_workload_is_passed_on_and_named_and_the_rest_is_wired() {
    for partial in [
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: scale-only, namespace: agents}, spec: {replicas: 3}}",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: scale-only, namespace: agents}}",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: scale-only}, spec: {template: {spec: {containers: 7}}}}",
        "{apiVersion: batch/v1, kind: CronJob, metadata: {name: scale-only}, spec: {suspend: true}}",
    ] {
        let input = format!("{TRACING}---\n{partial}\n---\n{TELLER}");
        for command in ["inject", "uninject"] {
            let run = run(&[command, "-f", "-"], &input);
            assert_eq!(run.code, 1, "{partial}");
            assert!(
                run.stderr.contains(" scale-only: skipped: document 2 of stdin (line 2) is no whole "),
                "{}",
                run.stderr
            );
            assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
            let printed = documents(&run.stdout);
            assert_eq!(printed[1], documents(partial)[0]);
            assert_eq!(is_wired(&printed[2]), command == "inject");
        }
    }
}

/// case B24
#[test]
fn a_document_that_cannot_be_read_spoils_no_other() {
    let broken = "kind: Deployment\nmetadata: {name: teller\nspec: [\n";
    let input = format!("{TRACING}---\n{broken}---\n{TELLER}");
    let yaml = inject(&input);
    assert_eq!(yaml.code, 1);
    assert!(yaml.stderr.starts_with("document 2 of stdin (line 2): skipped: it cannot be read: "), "{}", yaml.stderr);
    let (before, after) = yaml.stdout.split_once(broken).expect("it goes on as it came");
    assert!(before.ends_with("---\n") && documents(before).len() == 1);
    assert!(is_wired(&documents(after)[0]));
    let json = run(&["inject", "-o", "json", "-f", "-"], &input);
    assert_eq!((json.code, documents(&json.stdout).len()), (1, 2));
    // Within a stream of JSON the next one begins on a line of its own.
    let teller = documents(TELLER)[0].to_string();
    let stream = inject(&format!("{teller}\n{{\"kind\": oops}}\n{teller}\n---\n{TRACING}"));
    assert_eq!(stream.code, 1);
    assert!(stream.stderr.starts_with("document 2 of stdin (line 2): skipped: "), "{}", stream.stderr);
    assert_eq!(stream.stdout.matches("agenttracing.dev/wired").count(), 2);
    // Where it might have been the AgentTracing, that is said.
    let lost = inject(&format!("---\n{broken}---\n{TELLER}"));
    assert_eq!(lost.code, 2);
    assert!(
        lost.stderr.contains("no AgentTracing in the input, and document 1 of stdin (line 1) cannot be read"),
        "{}",
        lost.stderr
    );
}

/// case B25
#[test]
fn of_a_key_that_stands_twice_the_last_one_counts() {
    let twice = TELLER.replace("spec:\n  selector", "spec:\n  replicas: 1\n  replicas: 2\n  selector");
    let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "x", "a": "2"}}"#;
    let run = inject(&format!("{TRACING}---\n{twice}---\n{json}\n"));
    assert_eq!(run.code, 0);
    let printed = documents(&run.stdout);
    assert_eq!((&printed[1]["spec"]["replicas"], &printed[2]["data"]["a"]), (&json!(2), &json!("2")));
    assert_eq!(
        run.stderr.lines().collect::<Vec<_>>(),
        [
            "document 2 of stdin (line 2): spec.replicas stands there more than once; the last one counts, as kubectl reads it",
            "document 3 of stdin (line 21): data.a stands there more than once; the last one counts, as kubectl reads it",
        ]
    );
}

/// case B31
#[test]
fn a_template_whose_annotations_leave_no_room_for_the_record_is_left_alone() {
    let of = |length: usize| {
        let text = "x".repeat(length);
        let annotated = TELLER.replace(
            "      labels: {app: teller}\n",
            &format!("      labels: {{app: teller}}\n      annotations: {{policy: {text}}}\n"),
        );
        (documents(&annotated).remove(0), inject(&format!("{}---\n{annotated}", TRACING.replace("Standalone", "CR"))))
    };
    let size = |object: &Value| -> usize {
        let all = object["spec"]["template"]["metadata"]["annotations"].as_object().unwrap();
        all.iter().map(|(name, value)| name.len() + value.as_str().unwrap().len()).sum()
    };
    let (_, roomy) = of(200_000);
    let wired = documents(&roomy.stdout).remove(1);
    assert!(is_wired(&wired));
    // The longest text that leaves room, and one byte more.
    let most = 200_000 + 262_144 - size(&wired);
    let (_, full) = of(most);
    assert_eq!((full.code, size(&documents(&full.stdout)[1])), (0, 262_144));
    let (before, over) = of(most + 1);
    assert_eq!(over.code, 1);
    assert!(over.stderr.contains("Deployment teller: skipped: AnnotationsTooLong"), "{}", over.stderr);
    assert_eq!(documents(&over.stdout)[1], before);
}

/// case B39: null counts as absent.
#[test]
fn what_is_null_and_was_filled_is_absent_afterwards() {
    let nulls = TELLER
        .replace("      labels: {app: teller}\n", "      labels: {app: teller}\n      annotations:\n")
        .replace("teller:4\n", "teller:4\n        env:\n        command:\n");
    let wired = inject(&format!("{TRACING}---\n{nulls}"));
    let back = run(&["uninject", "-f", "-"], &wired.stdout);
    assert_eq!((wired.code, back.code), (0, 0), "{}{}", wired.stderr, back.stderr);
    let mut expected = documents(&nulls).remove(0);
    let template = expected.pointer_mut("/spec/template").unwrap();
    template["metadata"].as_object_mut().unwrap().remove("annotations");
    template["spec"]["containers"][0].as_object_mut().unwrap().remove("env");
    assert_eq!(documents(&back.stdout)[1], expected, "what was not filled stays null");
}

/// case B21: lists of every kind, also within lists.
#[test]
fn the_objects_of_every_list_are_found() {
    let teller = documents(TELLER).remove(0);
    let tracing = documents(TRACING).remove(0);
    let mut bare = teller.clone();
    bare.as_object_mut().unwrap().remove("kind");
    bare.as_object_mut().unwrap().remove("apiVersion");
    let of_kind = json!({"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [bare]});
    let nested = json!({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "List", "items": [tracing, teller]}]});
    let run = inject(&format!("{of_kind}\n{nested}\n"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let printed = documents(&run.stdout);
    assert!(is_wired(&printed[0]["items"][0]) && printed[0]["items"][0]["kind"] == "Deployment");
    assert!(is_wired(&printed[1]["items"][0]["items"][1]));
}

/// What the documentation says of a file, in the place where people look for a mistake.
#[test]
fn a_file_that_does_not_exist_is_named() {
    let path = PathBuf::from("no-such-file.yaml");
    let run = run(&["inject", "-f", path.to_str().unwrap()], "");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("no-such-file.yaml cannot be read"), "{}", run.stderr);
}
