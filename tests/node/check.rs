//! `check` names the one link that is broken, and what it says to type mends it.

use std::process::Command;

use agent_tracing::names;
use serde_json::Value;

use crate::operator;
use crate::world::{Scene, idle, scene, tracing, typed, until};

#[test]
#[ignore = "needs the node cluster: make test"]
fn check_names_the_broken_link() {
    scene("check", false, |scene| {
        until_broken(scene, "AgentTracing", "kubectl apply -n check");
        scene.apply(&idle("teller"));
        scene.apply(&tracing("tracing", "{}"));
        let label = until_broken(scene, "namespace label", "kubectl label namespace check");
        type_what_it_says(&label);
        scene.until_condition("MLflowReady", "True", "Available");
        // Before the label nothing matched, and all of nothing was current.
        scene.until_wired("teller");
        scene.until_rolled_out("teller");
        // Nobody has asked this agent anything: it is too early to tell whether its traces arrive. The status may say for a
        // moment longer that the workload is on its way.
        until("check knows all but the traces", || {
            let (code, links) = check(scene, &[]);
            let unknown = links.iter().filter(|link| link["state"] != "good").map(|link| &link["link"]);
            let expected = unknown.eq(["deployment/teller", "traces"]) && links.last().unwrap()["link"] == "traces";
            match expected && code == 2 {
                true => Ok(()),
                false => Err(format!("{code} {links:#?}")),
            }
        });
        let (code, links) = check(scene, &["--workload", "sts/ledger"]);
        assert_eq!((code, broken(&links).as_deref()), (1, Some("statefulset/ledger")), "{links:#?}");

        // A Service without endpoints would not do: the API server goes on using the connections that it has.
        let nowhere = r#"[{"op":"replace","path":"/webhooks/0/clientConfig/service/port","value":444}]"#;
        typed(&["patch", "mutatingwebhookconfiguration", names::WEBHOOK_CONFIGURATION, "--type=json", "-p", nowhere]);
        until_broken(scene, "webhook answers", "");
        typed(&["delete", "mutatingwebhookconfiguration", names::WEBHOOK_CONFIGURATION]);
        let install = until_broken(scene, "webhook", "kubectl apply -k config/default");
        type_what_it_says(&install);
        operator::stop();
        until_broken(scene, "operator", "kubectl describe pods");
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

/// Waits until this link is the broken one; what `check` says of it. What was changed a moment ago takes effect a moment
/// later.
pub fn until_broken(scene: &Scene, link: &str, remedy: &str) -> String {
    until(&format!("check names {link} and says: {remedy}"), || {
        let (code, links) = check(scene, &[]);
        let named = links.iter().find(|found| found["link"] == link && broken(&links).as_deref() == Some(link));
        let said = named.and_then(|found| found["message"].as_str()).filter(|said| code == 1 && said.contains(remedy));
        said.map(str::to_owned).ok_or_else(|| format!("{code} {links:#?}"))
    })
}

pub fn type_what_it_says(said: &str) {
    let command = &said[said.rfind("kubectl ").unwrap()..];
    typed(&command.split(' ').skip(1).collect::<Vec<_>>());
}
