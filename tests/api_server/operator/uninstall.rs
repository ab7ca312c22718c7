//! `uninstall`, cut off at each of its writes in turn (review C5): what is still wired has its MLflow, and the next attempt
//! makes the rest. Where it is not asked to, it keeps the AgentTracings.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use agent_tracing::names;
use serde_json::{Value, json};

use super::process::kubeconfig_of;
use super::{KINDS, Site, agent, agent_of, is_wired, record};
use crate::cluster::{CRD, STRICT, define, operator_binary, reset_webhook_configuration, wait_until};
use crate::proxy::{Fault, Moment, Proxy};

/// More writes than it has.
const MOST_ATTEMPTS: usize = 60;

#[test]
#[ignore = "needs an API server: make test"]
fn an_uninstall_that_is_killed_at_any_write_leaves_agents_working_and_can_be_run_again() {
    let mut site = Site::open("operator-uninstall-cut");
    let manifests = KINDS.map(|kind| agent_of(kind, &site.namespace.0, "teller"));
    let bare = manifests.each_ref().map(|manifest| site.stored_elsewhere(manifest));
    for manifest in &manifests {
        assert!(record(&site.admin.create(manifest, STRICT).unwrap()).is_some());
    }
    site.stop_operator();

    let account = administrator(&site);
    let proxy = Proxy::start(1);
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uninstall-cut.kubeconfig");
    let config = kubeconfig_of(&account, &config, Some(&proxy.url()));
    let whole = (1..MOST_ATTEMPTS).find(|at| {
        let moment = if at % 2 == 0 { Moment::Unheard } else { Moment::Before };
        let output = attempt(&config, &proxy, Fault::Signal { signal: "-KILL", at: *at, moment });
        assert_agents_work(&site, &manifests, &format!("killed at write {at}, {moment:?}"));
        let seen = proxy.seen();
        assert!(seen.signalled || output.status.success(), "{output:?}");
        !seen.signalled
    });
    assert!(whole.is_some_and(|at| at > KINDS.len()), "it was whole at attempt {whole:?}");
    for (manifest, bare) in manifests.iter().zip(&bare) {
        let live = site.admin.live(manifest);
        assert_eq!(live["spec"], bare["spec"]);
        assert_eq!(live["metadata"]["labels"], bare["metadata"]["labels"]);
    }
    let left = |kind, namespace: &str, name| site.admin.get(kind, namespace, name).is_ok();
    assert!(!left("CustomResourceDefinition", "", CRD));
    assert!(!left("MutatingWebhookConfiguration", "", names::WEBHOOK_CONFIGURATION));
    assert!(!left("Deployment", &site.namespace.0, "tracing-mlflow"));
    assert!(!left("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_CA_SECRET));
    assert!(left("PersistentVolumeClaim", &site.namespace.0, "tracing-mlflow"), "the traces stay");

    site.admin.delete("ClusterRoleBinding", "", &site.namespace.0);
    define(&site.admin);
}

#[test]
#[ignore = "needs an API server: make test"]
fn an_uninstall_that_is_not_asked_to_keeps_every_agent_tracing_and_the_next_install_takes_them_up() {
    let mut site = Site::open("operator-uninstall-keep");
    let manifest = agent(&site.namespace.0, "teller");
    let bare = site.stored_elsewhere(&manifest);
    assert!(is_wired(&site.admin.create(&manifest, STRICT).unwrap()));
    wait_until("the status tells of it", || site.row("teller").is_some());
    let kept = [
        ("CustomResourceDefinition", "", CRD),
        ("AgentTracing", &*site.namespace.0, "tracing"),
        ("Deployment", &site.namespace.0, "tracing-mlflow"),
        ("Service", &site.namespace.0, "tracing-mlflow"),
        ("PersistentVolumeClaim", &site.namespace.0, "tracing-mlflow"),
    ]
    .map(|(kind, namespace, name)| site.admin.get(kind, namespace, name).unwrap());
    site.stop_operator();

    let account = administrator(&site);
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uninstall-keep.kubeconfig");
    let output = uninstall(&kubeconfig_of(&account, &config, None), &[]).spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let named = format!("every AgentTracing ({}/tracing) stay with their MLflow servers", site.namespace.0);
    assert!(said.contains(&named), "{said}");
    let live = site.admin.live(&manifest);
    assert_eq!((&live["spec"], &live["metadata"]["labels"]), (&bare["spec"], &bare["metadata"]["labels"]));
    for before in &kept {
        let uid = |object: &Value| object["metadata"]["uid"].clone();
        assert_eq!(uid(&site.admin.live(before)), uid(before), "it is the one from before: {}", before["kind"]);
    }
    assert!(site.admin.get("MutatingWebhookConfiguration", "", names::WEBHOOK_CONFIGURATION).is_err());

    reset_webhook_configuration(&site.admin);
    site.start_operator();
    wait_until("the agent is wired again", || is_wired(&site.deployment("teller")));
    site.admin.delete("ClusterRoleBinding", "", &site.namespace.0);
    site.close();
}

/// Runs it with all that it deletes, until it ends or is ended.
fn attempt(config: &Path, proxy: &Proxy, fault: Fault) -> Output {
    let child = uninstall(config, &["--delete-tracings"]).spawn().unwrap();
    proxy.begin(fault, child.id());
    child.wait_with_output().unwrap()
}

fn uninstall(config: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(operator_binary());
    command.arg("uninstall").args(flags).env("KUBECONFIG", config);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What is wired finds what it is wired to.
fn assert_agents_work(site: &Site, manifests: &[Value], after: &str) {
    let wired = manifests.iter().filter(|manifest| record(&site.admin.live(manifest)).is_some()).count();
    let there = |kind, name| site.admin.get(kind, &site.namespace.0, name).is_ok();
    let served =
        there("Service", "tracing-mlflow") && there("Deployment", "tracing-mlflow") && there("AgentTracing", "tracing");
    assert!(wired == 0 || served, "{after}: {wired} wired workloads without their MLflow");
}

/// An account that may do everything, by a token that a proxy can pass on; as namespace and name.
fn administrator(site: &Site) -> (String, String) {
    let (namespace, name) = (site.namespace.0.clone(), "administrator".to_owned());
    let metadata = json!({"name": name, "namespace": namespace});
    site.admin.create(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}), STRICT).unwrap();
    site.admin.delete("ClusterRoleBinding", "", &namespace);
    wait_until("the binding of an earlier run is gone", || {
        site.admin.get("ClusterRoleBinding", "", &namespace).is_err()
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    });
    site.admin.create(&binding, STRICT).unwrap();
    (namespace, name)
}
