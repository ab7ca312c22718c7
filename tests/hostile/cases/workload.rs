//! Workloads as no person writes them.

use serde_json::{Value, json};

use super::case::{Case, Hears};
use super::{CANARY, request, review};

pub fn cases() -> Vec<Case> {
    [containers(), environments(), records(), metadata(), pods(), large()].into_iter().flatten().collect()
}

/// The template, changed.
fn template(name: impl Into<String>, hears: Hears, change: impl FnOnce(&mut Value)) -> Case {
    object(name, hears, |object| change(&mut object["spec"]["template"]))
}

fn object(name: impl Into<String>, hears: Hears, change: impl FnOnce(&mut Value)) -> Case {
    let mut review = review();
    change(&mut review["request"]["object"]);
    Case::new(name, request("", review.to_string()), hears)
}

fn pod(name: impl Into<String>, hears: Hears, field: &str, value: Value) -> Case {
    template(name, hears, |template| template["spec"][field] = value)
}

fn container(name: impl Into<String>, hears: Hears, field: &str, value: Value) -> Case {
    template(name, hears, |template| template["spec"]["containers"][0][field] = value)
}

fn of(count: usize) -> Value {
    (0..count).map(|n| json!({"name": format!("agent-{n}"), "image": "r/a:1"})).collect()
}

fn containers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, value, hears) in [
        ("no containers", json!([]), Hears::Unchanged),
        ("containers of null", json!(null), Hears::Unchanged),
        ("containers that are an object", json!({"agent": {}}), Hears::Unchanged),
        ("containers that are a text", json!(CANARY), Hears::Unchanged),
        ("a container of null", json!([null]), Hears::Unchanged),
        ("a container that is a list", json!([["agent"]]), Hears::Unchanged),
        ("a container that is a text", json!([CANARY]), Hears::Unchanged),
        ("a container with nothing in it", json!([{}]), Hears::Patched),
        ("a container without a name", json!([{"image": "r/a:1"}]), Hears::Patched),
        ("a container whose name is a number", json!([{"name": 7}]), Hears::Unchanged),
        ("a container whose name has a slash and a tilde", json!([{"name": "a/~0~1"}]), Hears::Patched),
        ("a container whose name has 100,000 characters", json!([{"name": "a".repeat(100_000)}]), Hears::Patched),
        ("two containers of one name", json!([{"name": "agent"}, {"name": "agent"}]), Hears::Patched),
        ("five hundred containers", of(500), Hears::Patched),
        ("five hundred and one containers", of(501), Hears::Unchanged),
        ("ten thousand containers", of(10_000), Hears::Unchanged),
        ("a hundred thousand containers", of(100_000), Hears::Unchanged),
        ("two million containers with nothing in them", vec![json!({}); 2_000_000].into(), Hears::Unchanged),
    ] {
        cases.push(pod(name, hears, "containers", value));
    }
    for (name, value, hears) in [
        ("no init containers", json!([]), Hears::Patched),
        ("init containers of null", json!(null), Hears::Patched),
        ("init containers that are a text", json!(CANARY), Hears::Unchanged),
        ("an init container of null", json!([null]), Hears::Unchanged),
        (
            "an init container that restarts for no known reason",
            json!([{"name": "a", "restartPolicy": "x"}]),
            Hears::Patched,
        ),
        ("an init container that restarts by a number", json!([{"restartPolicy": 7}]), Hears::Unchanged),
        ("five hundred init containers", of(500), Hears::Unchanged),
    ] {
        cases.push(pod(name, hears, "initContainers", value));
    }
    cases.push(template("no list of containers", Hears::Unchanged, |template| template["spec"] = json!({})));
    cases
}

fn environments() -> Vec<Case> {
    let many = |count: usize| (0..count).map(|n| json!({"name": format!("V{n}"), "value": CANARY})).collect::<Value>();
    let same = |count: usize, name: &str| vec![json!({"name": name, "value": CANARY}); count].into();
    let ours = "MLFLOW_TRACKING_URI";
    let mut cases = Vec::new();
    for (name, value, hears) in [
        ("an environment of null", json!(null), Hears::Patched),
        ("an environment that is an object", json!({"A": CANARY}), Hears::Unchanged),
        ("an environment that is a text", json!(CANARY), Hears::Unchanged),
        ("a variable of null", json!([null]), Hears::Unchanged),
        ("a variable with nothing in it", json!([{}]), Hears::Patched),
        ("a variable whose name is a number", json!([{"name": 7}]), Hears::Unchanged),
        ("a variable whose value is a number", json!([{"name": "A", "value": 7}]), Hears::Unchanged),
        ("a variable whose value is a truth", json!([{"name": "A", "value": true}]), Hears::Unchanged),
        ("a variable whose value is an object", json!([{"name": "A", "value": {"b": CANARY}}]), Hears::Unchanged),
        ("a variable whose value is null", json!([{"name": "A", "value": null}]), Hears::Patched),
        ("a variable from a text", json!([{"name": "A", "valueFrom": CANARY}]), Hears::Patched),
        (
            "a variable with a value and from elsewhere",
            json!([{"name": "A", "value": CANARY, "valueFrom": {}}]),
            Hears::Patched,
        ),
        ("two variables of one name", same(2, "A"), Hears::Patched),
        ("ten thousand variables of one name", same(10_000, "A"), Hears::Patched),
        ("thirty thousand variables", many(30_000), Hears::Patched),
        ("a hundred thousand variables", many(100_000), Hears::Unchanged),
        ("an address of the user's", same(1, ours), Hears::Unchanged),
        ("ten thousand addresses of the user's", same(10_000, ours), Hears::Unchanged),
        ("an address of the user's that is null", json!([{"name": ours, "value": null}]), Hears::Unchanged),
        (
            "an address of the user's with a password",
            json!([{"name": ours, "value": format!("http://u:{CANARY}@h")}]),
            Hears::Unchanged,
        ),
        ("a variable of a mebibyte", json!([{"name": "A", "value": "v".repeat(1 << 20)}]), Hears::Patched),
        (
            "a variable of lone quotes and backslashes",
            json!([{"name": "A\"\\", "value": "\"\\".repeat(1000)}]),
            Hears::Patched,
        ),
    ] {
        cases.push(container(name, hears, "env", value));
    }
    for (name, value, hears) in [
        ("sources of an environment that are an object", json!({}), Hears::Unchanged),
        ("ten thousand sources of an environment", vec![json!({}); 10_000].into(), Hears::Patched),
    ] {
        cases.push(container(name, hears, "envFrom", value));
    }
    cases
}

fn records() -> Vec<Case> {
    let record =
        |version: &str, rest: &str| format!(r#"{{"tracing":"t","hash":"h","version":{version},"containers":{rest}}}"#);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut cases = Vec::new();
    for (name, text, hears) in [
        ("a record of nothing", String::new(), Hears::Unchanged),
        ("a record of null", "null".into(), Hears::Unchanged),
        ("a record that is a list", "[]".into(), Hears::Unchanged),
        ("a record that is a text", format!("\"{CANARY}\""), Hears::Unchanged),
        ("a record that is no JSON", CANARY.into(), Hears::Unchanged),
        ("a record with nothing in it", "{}".into(), Hears::Unchanged),
        ("a record that ends too early", r#"{"version":1,"#.into(), Hears::Unchanged),
        ("a record of a newer operator", record("2", "{}"), Hears::Unchanged),
        ("a record of version zero", record("0", "{}"), Hears::Patched),
        ("a record of a version below zero", record("-1", "{}"), Hears::Unchanged),
        ("a record of version two to the 32nd", record("4294967296", "{}"), Hears::Unchanged),
        ("a record of half a version", record("1.5", "{}"), Hears::Unchanged),
        ("a record whose version is a text", record("\"1\"", "{}"), Hears::Unchanged),
        ("a record of no containers", record("1", "{}"), Hears::Patched),
        ("a record whose containers are a list", record("1", "[]"), Hears::Unchanged),
        ("a record whose container is null", record("1", r#"{"agent":null}"#), Hears::Unchanged),
        ("a record whose variable is a number", record("1", r#"{"agent":{"env":{"A":7}}}"#), Hears::Unchanged),
        ("a record of containers that are not there", record("1", r#"{"gone":{"env":{"A":"x"}}}"#), Hears::Patched),
        ("a record with a field that nobody knows", record("1", r#"{},"secret":"#) + "1}", Hears::Unchanged),
        ("a record with two versions", record("1", "{}").replacen('{', r#"{"version":1,"#, 1), Hears::Unchanged),
        (
            "a record that made everything",
            record("1", r#"{},"created":["labels","template.metadata","a.env"]"#),
            Hears::Patched,
        ),
        (
            "a record that made ten thousand things",
            record("1", &format!("{{}},\"created\":[{}1]", "1,".repeat(10_000))),
            Hears::Unchanged,
        ),
        ("a record of ten thousand levels", record("1", &deep), Hears::Unchanged),
        (
            "a record of 600 KiB",
            record("1", &format!("{{\"{}\":{{\"env\":{{}}}}}}", "a".repeat(600 << 10))),
            Hears::Unchanged,
        ),
    ] {
        cases.push(template(name, hears, |template| {
            template["metadata"]["annotations"]["agenttracing.dev/injected"] = json!(text);
        }));
    }
    cases
}

fn metadata() -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, pointer) in [("workload", "/metadata"), ("template", "/spec/template/metadata")] {
        for (name, field, value, hears) in [
            ("annotations of null", "annotations", json!(null), Hears::Patched),
            ("annotations that are a list", "annotations", json!([]), Hears::Unchanged),
            ("annotations that are a text", "annotations", json!(CANARY), Hears::Unchanged),
            ("somebody's annotation that is a number", "annotations", json!({"a": 7}), Hears::Patched),
            (
                "an annotation of ours that is a number",
                "annotations",
                json!({"agenttracing.dev/x": 7}),
                Hears::Unchanged,
            ),
            ("an annotation of ours that is null", "annotations", json!({"agenttracing.dev/x": null}), Hears::Patched),
            (
                "annotations of ours of 600 KiB",
                "annotations",
                json!({"agenttracing.dev/containers": "v,".repeat(300 << 10)}),
                Hears::Unchanged,
            ),
            ("labels of null", "labels", json!(null), Hears::Patched),
            ("labels that are a list", "labels", json!([]), Hears::Unchanged),
            ("a label that is a number", "labels", json!({"a": 7}), Hears::Unchanged),
            ("a label that is null", "labels", json!({"a": null}), Hears::Patched),
            ("a name that is a list", "name", json!([CANARY]), Hears::Unchanged),
            ("owners that are a text", "ownerReferences", json!(CANARY), Hears::Unchanged),
            ("an owner that is null", "ownerReferences", json!([null]), Hears::Unchanged),
            ("an owner that controls by a text", "ownerReferences", json!([{"controller": "yes"}]), Hears::Unchanged),
            ("an owner with nothing in it", "ownerReferences", json!([{}]), Hears::Patched),
            ("managed fields that are a text", "managedFields", json!(CANARY), Hears::Patched),
        ] {
            cases.push(object(format!("{name}, on the {place}"), hears, |object| {
                object.pointer_mut(pointer).unwrap()[field] = value;
            }));
        }
    }
    let many = json!({"a": "v".repeat(600 << 10)});
    cases.push(object("annotations of 600 KiB, on the workload", Hears::Patched, |object| {
        object["metadata"]["annotations"] = many.clone();
    }));
    // There the record has no room (case B31).
    cases.push(template("annotations of 600 KiB, on the template", Hears::Unchanged, |template| {
        template["metadata"]["annotations"] = many;
    }));
    for (name, value, hears) in [
        ("a template of null", json!(null), Hears::Unchanged),
        ("a template that is a list", json!([]), Hears::Unchanged),
        ("a template with nothing in it", json!({}), Hears::Unchanged),
        ("a template without metadata", json!({"spec": {"containers": [{"name": "agent"}]}}), Hears::Patched),
        ("a template whose metadata are null", json!({"metadata": null, "spec": {"containers": [{}]}}), Hears::Patched),
        (
            "a template whose metadata are a list",
            json!({"metadata": [], "spec": {"containers": [{}]}}),
            Hears::Unchanged,
        ),
    ] {
        cases.push(object(name, hears, |object| object["spec"]["template"] = value));
    }
    cases
}

fn pods() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, field, value, hears) in [
        ("volumes that are a text", "volumes", json!(CANARY), Hears::Unchanged),
        ("a volume of null", "volumes", json!([null]), Hears::Unchanged),
        ("a volume with nothing in it", "volumes", json!([{}]), Hears::Patched),
        ("a volume whose sources are null", "volumes", json!([{"projected": {"sources": null}}]), Hears::Patched),
        ("a volume whose size is a number", "volumes", json!([{"emptyDir": {"sizeLimit": 7}}]), Hears::Unchanged),
        ("a node selector that is a list", "nodeSelector", json!([]), Hears::Unchanged),
        ("a node selector with a number", "nodeSelector", json!({"kubernetes.io/os": 7}), Hears::Unchanged),
        ("nodes of Windows", "nodeSelector", json!({"kubernetes.io/os": "windows"}), Hears::Unchanged),
        ("an operating system that is a text", "os", json!("linux"), Hears::Unchanged),
        ("an operating system that nobody knows", "os", json!({"name": "plan9"}), Hears::Patched),
        ("an account that is a number", "serviceAccountName", json!(7), Hears::Unchanged),
        ("a token that is mounted by a text", "automountServiceAccountToken", json!("yes"), Hears::Unchanged),
        ("a security context that is a text", "securityContext", json!(CANARY), Hears::Unchanged),
        (
            "a uid of the pod of two to the 63rd",
            "securityContext",
            json!({"runAsUser": 9_223_372_036_854_775_808_u64}),
            Hears::Unchanged,
        ),
        ("a uid of the pod below zero", "securityContext", json!({"runAsUser": -1}), Hears::Patched),
        ("a uid of the pod that is a text", "securityContext", json!({"runAsUser": "root"}), Hears::Unchanged),
        ("a uid of the pod with a fraction", "securityContext", json!({"runAsUser": 0.5}), Hears::Unchanged),
        ("pull secrets that are a text", "imagePullSecrets", json!(CANARY), Hears::Unchanged),
        ("a pull secret with its data", "imagePullSecrets", json!([{"name": "a", "data": CANARY}]), Hears::Patched),
    ] {
        cases.push(pod(name, hears, field, value));
    }
    for (name, field, value, hears) in [
        ("an image that is a number", "image", json!(7), Hears::Unchanged),
        ("a command that is a text", "command", json!("sh"), Hears::Unchanged),
        ("a command of null", "command", json!(null), Hears::Patched),
        ("an argument that is a number", "args", json!([7]), Hears::Unchanged),
        ("mounts that are an object", "volumeMounts", json!({}), Hears::Unchanged),
        ("a mount whose path is a list", "volumeMounts", json!([{"mountPath": []}]), Hears::Unchanged),
        ("a mount with nothing in it", "volumeMounts", json!([{}]), Hears::Patched),
        (
            "ten thousand mounts",
            "volumeMounts",
            vec![json!({"name": "v", "mountPath": "/v"}); 10_000].into(),
            Hears::Patched,
        ),
        ("a security context that is a list", "securityContext", json!([CANARY]), Hears::Patched),
        ("ports that are a text", "ports", json!(CANARY), Hears::Patched),
        ("a probe that is a truth", "livenessProbe", json!(true), Hears::Patched),
    ] {
        cases.push(container(name, hears, field, value));
    }
    cases
}

fn large() -> Vec<Case> {
    let text = "v".repeat(3 << 20);
    let mut update = review();
    update["request"]["operation"] = json!("UPDATE");
    update["request"]["object"]["spec"]["template"]["spec"]["containers"][0]["args"] = json!([text]);
    update["request"]["oldObject"] = update["request"]["object"].clone();
    let contexts: Value =
        (0..400).map(|_| json!({"securityContext": {"a": {"b": {"c": {"d": "\\".repeat(1000)}}}}})).collect();
    vec![
        container("a template of 3 MiB in one variable", Hears::Patched, "env", json!([{"name": "A", "value": text}])),
        container("a template of 3 MiB in one argument", Hears::Patched, "args", json!([text])),
        template("a template of 3 MiB in one annotation", Hears::Unchanged, |template| {
            template["metadata"]["annotations"] = json!({"last": text});
        }),
        template("a template of 3 MiB in a hundred thousand labels", Hears::Unchanged, |template| {
            (0..100_000).for_each(|n| template["metadata"]["labels"][format!("label-{n}")] = json!("value"));
        }),
        container(
            "a template of 3 MiB in a million lists",
            Hears::Unchanged,
            "securityContext",
            vec![json!([]); 1_000_000].into(),
        ),
        pod("security contexts of backslashes", Hears::Patched, "initContainers", contexts),
        container("an argument of 3 MiB of backslashes", Hears::Patched, "args", json!(["\\".repeat(3 << 20)])),
        Case::new("an update of a template of 3 MiB", request("", update.to_string()), Hears::Patched),
    ]
}
