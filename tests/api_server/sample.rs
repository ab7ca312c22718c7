//! A sample of the workloads of the laws: what the API server takes bare it takes wired.

use agent_tracing::core::inject::inject;
use agent_tracing::core::settings::Platform;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace};
use crate::generated::{any_workload, wirings};
use crate::support::{in_template, workload};

#[test]
#[ignore = "needs an API server: make test"]
fn what_the_api_server_takes_bare_it_takes_wired() {
    let namespace = Namespace::create("api-server-sample", json!({}));
    let admin = Cluster::admin();
    let dry_run = |object: &Value| admin.create(object, "dryRun=All");
    let mut runner = TestRunner::deterministic();
    let tries = if std::env::var_os("SOAK").is_some() { 5000 } else { 300 };
    let mut taken = 0;
    for _ in 0..tries {
        let mut bare = any_workload().new_tree(&mut runner).unwrap().current();
        let wiring = wirings().new_tree(&mut runner).unwrap().current();
        complete(&mut bare, &namespace.0);
        // Two containers of one name, labels that are none: people write such things, and the API server says so.
        if dry_run(&bare).is_err() {
            continue;
        }
        let injection = inject(&workload(&bare).unwrap(), &wiring, &Default::default(), &Platform::default()).unwrap();
        let mut wired = bare.clone();
        json_patch::patch(&mut wired, &injection.patch).unwrap();
        if let Err(refused) = dry_run(&wired) {
            panic!("{refused}\nbare:\n{bare:#}\nwired:\n{wired:#}");
        }
        taken += 1;
    }
    assert!(taken * 3 >= tries, "only {taken} of {tries} could be tried");
    println!("{taken} of {tries} generated workloads are taken bare and wired");
}

/// What the laws do not need and the API server does.
fn complete(document: &mut Value, namespace: &str) {
    document["metadata"]["namespace"] = json!(namespace);
    let template = in_template(document, "");
    let labels = json!({"app": "teller"});
    let kind = document["kind"].as_str().unwrap().to_owned();
    if kind != "Pod" {
        document.pointer_mut(&template).unwrap()["metadata"]["labels"] = labels.clone();
    }
    if ["Deployment", "StatefulSet", "DaemonSet"].contains(&kind.as_str()) {
        document["spec"]["selector"] = json!({"matchLabels": labels});
    } else {
        document.pointer_mut(&format!("{template}/spec")).unwrap()["restartPolicy"] = json!("Never");
    }
}
