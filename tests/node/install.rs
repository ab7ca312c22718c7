//! `kubectl apply -k config/default`, on a cluster that has never seen the operator.

use std::fs;
use std::time::Instant;

use agent_tracing::names;

use crate::audit::Audit;
use crate::operator;
use crate::world::{delete_namespace, kubectl, say, tracing, typed, until};

#[test]
#[ignore = "needs the node cluster: make test"]
fn one_command_installs_two_replicas_of_which_one_leads() {
    let began = Instant::now();
    say("\ninstall");
    operator::uninstall();
    an_agent_tracing_before_the_crd_says_what_is_missing();

    let audit = Audit::from_now();
    operator::install();
    let pods = operator::pods();
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().any(|pod| pod["metadata"]["name"] == *operator::leader().unwrap()));
    for pod in &pods {
        let processes = operator::processes(pod);
        assert_eq!(processes.len(), 1, "one process: {processes:?}");
        runs_as_nobody_and_cannot_write(processes[0]);
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    }
    let typed_again = typed(&["apply", "-k", "config/default"]);
    // Of a disruption budget kubectl says "configured" whatever it does: its patch strategy is `replace`.
    let is_news = |line: &&str| !line.ends_with(" unchanged") && !line.starts_with("poddisruptionbudget");
    let changed: Vec<_> = typed_again.lines().filter(is_news).collect();
    assert!(changed.is_empty(), "a second apply changes nothing: {changed:?}");
    assert!(!operator::trusted().is_empty(), "a second apply leaves the operator's caBundle alone");
    audit.assert_nothing_was_forbidden();
    say(&format!("{:>7.1} s  in all: install", began.elapsed().as_secs_f64()));
}

/// What the kernel says of the process, not what the manifest asks for.
fn runs_as_nobody_and_cannot_write(process: u32) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let status = read("status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:").split_whitespace().collect::<Vec<_>>(), ["65532"; 4]);
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    let mounts = read("mountinfo");
    let root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).rfind(|fields| fields[4] == "/").unwrap();
    assert!(root[5].split(',').any(|option| option == "ro"), "the root file system is read-only: {root:?}");
}

fn an_agent_tracing_before_the_crd_says_what_is_missing() {
    until("the definition of an earlier run is gone", || match kubectl(&["get", "agenttracings"], "") {
        Err(_) => Ok(()),
        Ok(still) => Err(still),
    });
    // Discovery is cached for minutes: a new cache is what a new user has.
    let refusal = kubectl(
        &[concat!("--cache-dir=", env!("CARGO_TARGET_TMPDIR"), "/new-user"), "apply", "-f", "-"],
        &tracing("tracing", "{}"),
    )
    .unwrap_err();
    for part in ["no matches for kind \"AgentTracing\"", "ensure CRDs are installed first"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    delete_namespace(names::OPERATOR_NAMESPACE);
}
