//! The fast path: what is created or changed leaves the API server wired.

use agent_tracing::core::selection::kind::Kind;
use agent_tracing::names;
use serde_json::{Value, json};

use super::{Site, agent, agent_of, generation, is_wired, variable, version};
use crate::cluster::{DRY, STRICT, wait_until};
use crate::support::in_template;

#[test]
#[ignore = "needs an API server: make test"]
fn a_new_deployment_gets_exactly_what_the_command_line_prints() {
    let site = Site::open("operator-create");
    let manifest = agent(&site.namespace.0, "teller");
    let printed = site.by_command_line(&manifest);
    assert!(is_wired(&printed));
    let expected = site.stored_elsewhere(&printed);

    let stored = site.admin.create(&manifest, STRICT).unwrap();
    assert_eq!(stored["spec"], expected["spec"]);
    assert_eq!(stored["metadata"]["labels"], expected["metadata"]["labels"]);
    assert_eq!(variable(&stored, "MLFLOW_TRACKING_URI"), Some(site.url().as_str()));
    assert_eq!(variable(&stored, "MLFLOW_EXPERIMENT_NAME"), Some("teller"));
    assert_eq!(stored["metadata"]["labels"][names::LABEL_WIRED], "tracing");
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn every_kind_gets_exactly_what_the_command_line_prints() {
    let site = Site::open("operator-kinds");
    for kind in Kind::ALL {
        let manifest = agent_of(kind, &site.namespace.0, "teller");
        let printed = site.by_command_line(&manifest);
        let expected = site.stored_elsewhere(&printed);
        let stored = site.admin.create(&manifest, STRICT).unwrap();
        let paths = match kind {
            // What else is there is each pod's own: its node, the volume of its token.
            Kind::Pod => ["/spec/containers", "/spec/initContainers"].map(str::to_owned).to_vec(),
            // Its selector is a uid.
            Kind::Job => vec![in_template(&stored, "/spec")],
            _ => vec!["/spec".to_owned()],
        };
        for path in paths {
            assert_eq!(without_tokens(&stored, &path), without_tokens(&expected, &path), "{kind:?}");
        }
        let record = format!("{}/metadata/annotations", in_template(&stored, ""));
        assert!(stored.pointer(&record).unwrap()[names::ANNOTATION_RECORD].is_string(), "{kind:?}");
        assert_eq!(stored["metadata"]["labels"], expected["metadata"]["labels"], "{kind:?}");
    }
    site.close();
}

/// Without the mounts that a service account brings, whose names are random.
fn without_tokens(object: &Value, path: &str) -> Value {
    let mut part = object.pointer(path).unwrap().clone();
    for container in part.as_array_mut().into_iter().flatten() {
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.retain(|mount| mount["mountPath"] != names::TOKEN_FOLDER);
        }
    }
    part
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_dry_run_is_answered_alike_and_leaves_no_trace() {
    let site = Site::open("operator-dry-run");
    wait_until("a pass with nothing to say", || site.condition("InjectionReady").is_some());
    let manifest = agent(&site.namespace.0, "teller");
    let (before, events) =
        (version(&site.admin.live(&site.tracing())), site.admin.list("Event", &site.namespace.0).len());
    let answered = site.admin.create(&manifest, DRY).unwrap();
    let known = site.admin.list("Event", &site.namespace.0).len();
    assert!(site.admin.get("Deployment", &site.namespace.0, "teller").is_err());
    assert_eq!(version(&site.admin.live(&site.tracing())), before, "the status was written");
    assert_eq!(known, events, "somebody told of it");

    let stored = site.admin.create(&manifest, STRICT).unwrap();
    assert_eq!(answered["spec"], stored["spec"]);
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn what_somebody_strips_is_back_in_the_same_request() {
    let site = Site::open("operator-strip");
    let stored = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    for name in ["MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY"] {
        let mut stripped = site.deployment("teller");
        let env = stripped.pointer_mut("/spec/template/spec/containers/0/env").unwrap().as_array_mut().unwrap();
        env.retain(|entry| entry["name"] != name);
        stripped["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let answered = site.admin.replace(&stripped, STRICT).unwrap();
        assert_eq!(variable(&answered, name), variable(&stored, name), "{name}");
    }
    // The record and all it stands for.
    let mut bare = agent(&site.namespace.0, "teller");
    bare["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.com/agent:v2");
    let mut expected = stored["spec"].clone();
    expected["template"]["spec"]["containers"][0]["image"] = json!("example.com/agent:v2");
    assert_eq!(site.admin.replace(&bare, STRICT).unwrap()["spec"], expected);
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn the_users_own_manifest_comes_again_without_conflict_or_change() {
    let site = Site::open("operator-again");
    let ns = site.namespace.0.as_str();
    let replaced = |before: &Value, how: &str, after: Value| {
        assert!(is_wired(&after), "{how}");
        assert_eq!(after["spec"], before["spec"], "{how}");
        assert_eq!(generation(&after), generation(before), "{how}");
    };

    // Server-side apply, by two people; the second sets one of our variables to the value that it has.
    let manifest = agent(ns, "applied");
    let before = site.admin.apply(&manifest, "paula", STRICT).unwrap();
    replaced(&before, "apply", site.admin.apply(&manifest, "paula", STRICT).unwrap());
    let ours = json!([{"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"}]);
    let claims = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "applied", "namespace": ns},
        "spec": {"template": {"spec": {"containers": [{"name": "agent", "env": ours}]}}},
    });
    replaced(&before, "another manager", site.admin.apply(&claims, "gitops", STRICT).unwrap());
    site.shows_no_difference(&["--server-side", "--field-manager=paula"], &manifest.to_string());

    // Client-side apply.
    let manifest = agent(ns, "three-way").to_string();
    site.kubectl(&["apply", "-f", "-"], &manifest).unwrap();
    let before = site.deployment("three-way");
    assert!(is_wired(&before));
    site.shows_no_difference(&[], &manifest);
    site.kubectl(&["apply", "-f", "-"], &manifest).unwrap();
    replaced(&before, "client-side apply", site.deployment("three-way"));

    // Replace, which sends the whole object without us. The generation counts changed annotations too, and kubectl's own
    // is among those that go.
    site.kubectl(&["replace", "-f", "-"], &manifest).unwrap();
    assert_eq!(site.deployment("three-way")["spec"], before["spec"], "replace");
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn an_undone_rollout_ends_wired() {
    let mut site = Site::open("operator-undo");
    site.stop_operator();
    let unwired = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    assert!(!is_wired(&unwired), "nobody was there to wire it");
    observed(&site);
    site.start_operator();
    wait_until("it is brought to its wiring", || is_wired(&site.deployment("teller")));
    observed(&site);
    site.kubectl(&["set", "env", "deployment/teller", "STAGE=second"], "").unwrap();
    observed(&site);

    site.kubectl(&["rollout", "undo", "deployment/teller", "--to-revision=1"], "").unwrap();
    let undone = site.deployment("teller");
    assert_eq!(variable(&undone, "STAGE"), Some("first"));
    assert_eq!(variable(&undone, "MLFLOW_TRACKING_URI"), Some(site.url().as_str()));
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn opting_out_strips_in_the_same_request_and_opting_in_again_wires() {
    let site = Site::open("operator-opt-out");
    let manifest = agent(&site.namespace.0, "teller");
    let bare = site.stored_elsewhere(&manifest);
    let wired = site.admin.create(&manifest, STRICT).unwrap();

    let mut label = json!({"kind": "Deployment", "metadata": {"name": "teller", "namespace": site.namespace.0}});
    label["metadata"]["labels"] = json!({names::LABEL_INJECT: "false"});
    let out = site.admin.merge(&label, STRICT).unwrap();
    assert_eq!(out["spec"], bare["spec"], "byte for byte what it was");
    assert_eq!(out["metadata"]["labels"], json!({"app": "teller", names::LABEL_INJECT: "false"}));

    label["metadata"]["labels"] = json!({names::LABEL_INJECT: null});
    let again = site.admin.merge(&label, STRICT).unwrap();
    assert_eq!(again["spec"], wired["spec"]);
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn what_does_not_concern_the_template_never_reaches_the_webhook() {
    let site = Site::open("operator-scale");
    let admissions = || site.operator().metric("agent_tracing_admissions_total");
    let before = admissions();
    site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    assert_eq!(admissions(), before + 1.0, "the create did");
    observed(&site);
    for args in [
        &["scale", "deployment/teller", "--replicas=3"][..],
        &["annotate", "deployment/teller", "example.com/note=x"],
        &["label", "deployment/teller", "example.com/team=x"],
        &["rollout", "pause", "deployment/teller"],
        &["rollout", "resume", "deployment/teller"],
    ] {
        site.kubectl(args, "").unwrap();
    }
    observed(&site);
    wait_until("the controllers have followed", || site.deployment("teller")["status"]["replicas"] == 3);
    assert_eq!(admissions(), before + 1.0);
    site.kubectl(&["rollout", "restart", "deployment/teller"], "").unwrap();
    assert_eq!(admissions(), before + 2.0, "a restart changes the template");
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_deployment_as_large_as_they_come_is_wired_too() {
    let site = Site::open("operator-large");
    let mut manifest = agent(&site.namespace.0, "teller");
    let env = manifest.pointer_mut("/spec/template/spec/containers/0/env").unwrap().as_array_mut().unwrap();
    // The API server takes 3 MiB, and an update carries the object twice.
    env.extend((0..24).map(|n| json!({"name": format!("PROMPT_{n}"), "value": "word ".repeat(12_000)})));
    assert!(manifest.to_string().len() > 1_400_000);
    let stored = site.admin.create(&manifest, STRICT).unwrap();
    assert!(is_wired(&stored));
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.com/agent:v2");
    assert!(is_wired(&site.admin.replace(&manifest, STRICT).unwrap()));
    site.close();
}

/// The deployment controller has seen the newest generation and made its ReplicaSet.
fn observed(site: &Site) {
    wait_until("the deployment controller", || {
        let live = site.deployment("teller");
        live["status"]["observedGeneration"] == live["metadata"]["generation"]
    });
}
