//! The life of a wired workload of each kind: repaired, changed, given back byte for byte, whoever was there to see it.

use std::process::Command;
use std::time::Duration;

use agent_tracing::core::selection::kind::Kind;
use agent_tracing::names;
use serde_json::{Value, json};

use super::process::kubeconfig;
use super::{KINDS, Site, agent_of, generation, record};
use crate::cluster::{STRICT, operator_binary, wait_until};
use crate::support::in_template;

fn live(site: &Site, kind: Kind) -> Value {
    site.admin.get(kind.as_str(), &site.namespace.0, "teller").unwrap()
}

fn all_wired(site: &Site) -> bool {
    KINDS.iter().all(|kind| record(&live(site, *kind)).is_some())
}

/// What each kind is without us.
fn bare(site: &Site) -> Vec<Value> {
    KINDS.iter().map(|kind| site.stored_elsewhere(&agent_of(*kind, &site.namespace.0, "teller"))).collect()
}

fn create_all(site: &Site) {
    for kind in KINDS {
        site.admin.create(&agent_of(kind, &site.namespace.0, "teller"), STRICT).unwrap();
    }
}

fn assert_given_back(site: &Site, bare: &[Value]) {
    wait_until("nothing is wired any more", || KINDS.iter().all(|kind| record(&live(site, *kind)).is_none()));
    for (kind, bare) in KINDS.iter().zip(bare) {
        let live = live(site, *kind);
        assert_eq!(live["spec"], bare["spec"], "{kind:?}");
        assert_eq!(live["metadata"]["labels"], bare["metadata"]["labels"], "{kind:?}");
        let annotations = live["metadata"]["annotations"].to_string();
        assert!(!annotations.contains(names::PREFIX), "{kind:?}: {annotations}");
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn every_kind_that_came_while_the_operator_was_down_is_wired_once_and_given_back() {
    let mut site = Site::open("operator-life");
    let bare = bare(&site);
    site.stop_operator();
    create_all(&site);
    assert!(!all_wired(&site));
    site.start_operator();
    wait_until("every kind is wired", || all_wired(&site));
    for kind in KINDS {
        assert_eq!(generation(&live(&site, kind)), 2, "{kind:?}: once");
        wait_until("its row says so", || {
            site.row_of(kind.as_str(), "teller").is_some_and(|row| row["state"] != "Pending")
        });
    }
    assert_eq!(site.events_about("teller", names::event::INJECTED), KINDS.len());

    // A changed spec reaches all of them, each once.
    let mut changed = site.tracing();
    changed["spec"] = json!({"sdk": {"timeoutSeconds": 9}});
    site.admin.merge(&changed, STRICT).unwrap();
    let nine = |object: &Value| {
        let env = object.pointer(&in_template(object, "/spec/containers/0/env")).unwrap().as_array().unwrap();
        env.iter().any(|entry| entry["name"] == "MLFLOW_HTTP_REQUEST_TIMEOUT" && entry["value"] == "9")
    };
    wait_until("every kind has the changed spec", || KINDS.iter().all(|kind| nine(&live(&site, *kind))));
    for kind in KINDS {
        assert_eq!(generation(&live(&site, kind)), 3, "{kind:?}: once more");
    }

    site.admin.delete("AgentTracing", &site.namespace.0, "tracing");
    assert_given_back(&site, &bare);
    assert_eq!(site.events_about("teller", names::event::REMOVED), KINDS.len());
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn what_a_deletion_left_while_the_operator_was_down_is_found_at_its_start() {
    let mut site = Site::open("operator-orphans");
    let bare = bare(&site);
    create_all(&site);
    wait_until("every kind is wired", || all_wired(&site));
    site.stop_operator();
    site.admin.delete("AgentTracing", &site.namespace.0, "tracing");
    // Somebody took the label by which they are found, too.
    let mut unlabelled = live(&site, Kind::StatefulSet);
    unlabelled["metadata"] =
        json!({"name": "teller", "namespace": site.namespace.0, "labels": {names::LABEL_WIRED: null}});
    unlabelled["spec"] = json!({});
    site.admin.merge(&unlabelled, STRICT).unwrap();
    site.start_operator();
    assert_given_back(&site, &bare);
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn uninject_all_gives_everything_back_but_not_beside_an_operator() {
    let mut site = Site::open("operator-uninject");
    let bare = bare(&site);
    create_all(&site);
    wait_until("every kind is wired", || all_wired(&site));
    let uninject = || {
        let config = kubeconfig(&std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("uninject.kubeconfig"));
        let command = Command::new(operator_binary()).args(["uninject", "--all"]).env("KUBECONFIG", config).output();
        let output = command.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, error) = uninject();
    assert_eq!(code, Some(2));
    assert!(error.contains("would wire everything again") && error.contains("kubectl scale"), "{error}");
    assert!(all_wired(&site));

    site.stop_operator();
    // Its processes are gone, and with them whoever would answer the webhook's calls.
    site.admin.delete("Lease", names::OPERATOR_NAMESPACE, names::LEASE);
    let (code, told, error) = uninject();
    assert_eq!((code, error.as_str()), (Some(0), ""), "{told}");
    assert!(told.contains(&format!("{} statefulset/teller  wiring taken out", site.namespace.0)), "{told}");
    assert_given_back(&site, &bare);
}

#[test]
#[ignore = "needs an API server: make test"]
fn the_users_manifest_of_every_kind_comes_again_without_a_change() {
    let site = Site::open("operator-gitops");
    for kind in KINDS {
        let server_side = agent_of(kind, &site.namespace.0, "teller");
        let apply = || site.admin.apply(&server_side, "argocd-controller", STRICT).unwrap();
        let before = apply();
        assert!(record(&before).is_some(), "{kind:?}");
        assert_eq!(generation(&apply()), generation(&before), "{kind:?}");
        site.shows_no_difference(&["--server-side", "--field-manager=argocd-controller"], &server_side.to_string());

        let client_side = agent_of(kind, &site.namespace.0, "three-way").to_string();
        let apply = || site.kubectl(&["apply", "-f", "-"], &client_side).unwrap();
        apply();
        let stored = || site.admin.get(kind.as_str(), &site.namespace.0, "three-way").unwrap();
        let before = stored();
        site.shows_no_difference(&[], &client_side);
        apply();
        assert!(record(&stored()).is_some(), "{kind:?}");
        assert_eq!(stored()["spec"], before["spec"], "{kind:?}");
        assert_eq!(generation(&stored()), generation(&before), "{kind:?}");
    }
    site.close();
}

/// Takes everything of ours out of a template while no webhook answers, as a tool does that renders manifests by itself.
fn strip(site: &mut Site) {
    site.stop_operator();
    let mut stripped = live(site, Kind::Deployment);
    stripped["spec"] = site.stored_elsewhere(&agent_of(Kind::Deployment, &site.namespace.0, "teller"))["spec"].take();
    stripped["metadata"]["resourceVersion"] = Value::Null;
    // Something of its own, as such tools write: one that only takes out owns nothing, and is in no managedFields.
    stripped["metadata"]["labels"]["app.kubernetes.io/instance"] = json!("bank");
    let answer = site.admin.replace(&stripped, &format!("{STRICT}&fieldManager=argocd-controller")).unwrap();
    assert_eq!(record(&answer), None);
    site.start_operator();
}

#[test]
#[ignore = "needs an API server: make test"]
fn whoever_takes_the_wiring_out_a_fourth_time_is_named_and_left_alone_until_the_spec_changes() {
    let mut site = Site::open("operator-contested");
    site.admin.create(&agent_of(Kind::Deployment, &site.namespace.0, "teller"), STRICT).unwrap();
    let wired = |site: &Site| record(&live(site, Kind::Deployment)).is_some();
    let told = |site: &Site| site.row("teller").map(|row| row["state"].as_str().unwrap_or_default().to_owned());
    wait_until("it is wired", || wired(&site) && told(&site).is_some_and(|state| state != "Pending"));
    // The API server dates writers by the second.
    std::thread::sleep(Duration::from_secs(1));
    for repair in 1..=3 {
        strip(&mut site);
        wait_until(&format!("repair {repair}"), || wired(&site));
    }
    strip(&mut site);
    wait_until("somebody is named", || told(&site).is_some_and(|state| state == "Contested"));
    let message = site.row("teller").unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("by argocd-controller:"), "{message}");
    assert!(!wired(&site), "it was left alone");
    assert_eq!(site.condition("WorkloadsReady").unwrap()["reason"], "Contested");

    let mut changed = site.tracing();
    changed["spec"] = json!({"sdk": {"timeoutSeconds": 9}});
    site.admin.merge(&changed, STRICT).unwrap();
    wait_until("another spec is another matter", || {
        wired(&site) && told(&site).is_some_and(|state| state != "Contested")
    });
    site.close();
}

/// Nothing of ours holds a namespace: five orders in every run, a hundred in the soak.
#[test]
#[ignore = "needs an API server: make test"]
fn a_namespace_goes_in_seconds_in_whatever_order_things_are_deleted() {
    let orders = if std::env::var_os("SOAK").is_some() { 100 } else { 5 };
    let mut slowest = 0.0_f64;
    for order in 0..orders {
        let mut site = Site::open(&format!("operator-order-{order}"));
        create_all(&site);
        let namespace = site.namespace.0.clone();
        let mut steps = ["operator", "tracing", "namespace"];
        // Every permutation comes in turn, and with each other number the operator stays.
        let rotate = order % 3;
        steps.rotate_left(rotate);
        if order % 2 == 1 {
            steps.swap(1, 2);
        }
        let began = std::time::Instant::now();
        for step in steps {
            match step {
                "operator" if order % 6 < 3 => site.operator = None,
                "operator" => {}
                "tracing" => site.admin.delete("AgentTracing", &namespace, "tracing"),
                _ => site.admin.delete("Namespace", "", &namespace),
            }
        }
        wait_until("the namespace is gone", || site.admin.get("Namespace", "", &namespace).is_err());
        slowest = slowest.max(began.elapsed().as_secs_f64());
    }
    println!("{orders} orders, the slowest namespace was gone after {slowest:.1} s");
}
