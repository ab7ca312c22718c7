//! `check` names the one link that is broken, and what it says to type mends it.

use std::process::Command;

use agent_tracing::names;
use serde_json::Value;

use crate::operator;
use crate::world::{Scene, idle, is_wired, scene, tracing, typed, until};

#[test]
#[ignore = "needs the node cluster: make test"]
fn check_names_the_broken_link() {
    scene("check", false, |scene| {
        assert_broken(scene, "AgentTracing", "kubectl apply -n check");
        scene.apply(&idle("teller"));
        scene.apply(&tracing("tracing", "{}"));
        let label = assert_broken(scene, "namespace label", "kubectl label namespace check");
        type_what_it_says(&label);
        scene.until_condition("MLflowReady", "True", "Available");
        // Before the label nothing matched, and all of nothing was current.
        until("teller is wired", || match is_wired(&scene.live("deployments", "teller")) {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        });
        scene.until_condition("WorkloadsReady", "True", "AllCurrent");
        scene.until_rolled_out("teller");
        // Nobody has asked this agent anything: it is too early to tell whether its traces arrive.
        let (code, links) = check(scene, &[]);
        assert_eq!(code, 2, "{links:#?}");
        let unknown: Vec<_> = links.iter().filter(|link| link["state"] != "good").map(|link| &link["link"]).collect();
        assert_eq!(unknown, ["deployment/teller", "traces"], "{links:#?}");
        assert_eq!(links.last().unwrap()["link"], "traces");
        let (code, links) = check(scene, &["--workload", "sts/ledger"]);
        assert_eq!((code, broken(&links).as_deref()), (1, Some("statefulset/ledger")), "{links:#?}");

        // A Service without endpoints would not do: the API server goes on using the connections that it has.
        let nowhere = r#"[{"op":"replace","path":"/webhooks/0/clientConfig/service/port","value":444}]"#;
        typed(&["patch", "mutatingwebhookconfiguration", names::WEBHOOK_CONFIGURATION, "--type=json", "-p", nowhere]);
        until_broken(scene, "webhook answers");
        typed(&["delete", "mutatingwebhookconfiguration", names::WEBHOOK_CONFIGURATION]);
        let install = assert_broken(scene, "webhook", "kubectl apply -k config/default");
        type_what_it_says(&install);
        operator::stop();
        assert_broken(scene, "operator", "kubectl describe pods");
        typed(&["apply", "-k", "config/default"]);
        until("the operator is whole again", operator::ready);
        until("nothing is broken any more", || match check(scene, &[]) {
            (2, links) if broken(&links).is_none() => Ok(()),
            (code, links) => Err(format!("{code} {:?}", broken(&links))),
        });
    });
}

pub fn check(scene: &Scene, more: &[&str]) -> (i32, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"))
        .args(["check", "-n", &scene.namespace, "-o", "json"])
        .args(more)
        .output()
        .unwrap();
    let links = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), links)
}

pub fn broken(links: &[Value]) -> Option<String> {
    let bad = links.iter().find(|link| link["state"] == "bad")?;
    bad["link"].as_str().map(str::to_owned)
}

/// Says what the broken link says.
pub fn assert_broken(scene: &Scene, link: &str, remedy: &str) -> String {
    let (code, links) = check(scene, &[]);
    assert_eq!((code, broken(&links).as_deref()), (1, Some(link)), "{links:#?}");
    let said = links.iter().find(|found| found["link"] == link).unwrap()["said"].as_str().unwrap().to_owned();
    assert!(said.contains(remedy), "{said}");
    said
}

fn until_broken(scene: &Scene, link: &str) {
    until(&format!("check names {link}"), || {
        let (_, links) = check(scene, &[]);
        if broken(&links).as_deref() == Some(link) { Ok(()) } else { Err(format!("{links:?}")) }
    });
}

pub fn type_what_it_says(said: &str) {
    let command = &said[said.rfind("kubectl ").unwrap()..];
    typed(&command.split(' ').skip(1).collect::<Vec<_>>());
}
