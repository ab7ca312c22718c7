//! The operator: installed as its README says, and ended in ways that it does not say.

use std::fs;
use std::process::Command;

use agent_tracing::names;
use serde_json::Value;

use crate::canary::assert_kept;
use crate::world::{collection, delete_namespace, kubectl, typed, until, world};

/// Where it is installed.
pub const NAMESPACE: &str = names::OPERATOR_NAMESPACE;
/// As the README installs it with Helm.
pub const RELEASE: &str = "agent-tracing-operator";
pub const CHART: &str = "charts/agent-tracing-operator";

/// Installs `config/default` unless it stands already.
pub fn install() {
    if ready().is_err() {
        until("the operator's namespace is not being deleted", || match namespace() {
            Some(live) if live["metadata"]["deletionTimestamp"].is_string() => Err(live["status"].to_string()),
            _ => Ok(()),
        });
        typed(&["apply", "-k", "config/default"]);
        until("the operator is ready", ready);
    }
}

/// Sets options by their variables, as docs/reference/install.md has it for `kubectl apply -k`; `NAME-` takes one away.
pub fn set_options(variables: &[&str]) {
    let deployment = format!("deployment/{}", names::MANAGED_BY);
    typed(&[&["-n", NAMESPACE, "set", "env", &deployment], variables].concat());
    typed(&["-n", NAMESPACE, "rollout", "status", &deployment, "--timeout=180s"]);
    until("the operator is ready with other options", ready);
}

/// Gives the operator the ClusterRole that the chart renders with a value.
pub fn grant_as_the_chart_with(value: &str) {
    let rendered = helm(&["template", RELEASE, CHART, "--set", value, "--show-only", "templates/role.yaml"]);
    kubectl(&["apply", "-f", "-"], &rendered).unwrap();
}

/// What a person types with Helm, in the operator's namespace; what it prints.
#[track_caller]
pub fn helm(args: &[&str]) -> String {
    let mut helm = Command::new("helm");
    let output =
        helm.args(args).args(["--namespace", NAMESPACE]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    // Since version 4 the output of hooks is among its messages.
    text(&output.stdout) + &text(&output.stderr)
}

/// Whether the operator's service account has a right, as `kubectl auth can-i` tells.
pub fn may(verb: &str, resource: &str) -> bool {
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:{}", names::SERVICE_ACCOUNT);
    match kubectl(&["auth", "can-i", verb, resource, &account], "").as_deref().map(str::trim) {
        Ok("yes") => true,
        // "no" is its exit code as well, with nothing to report.
        Err(error) if error.lines().all(|line| line.is_empty() || line.starts_with("Warning: ")) => false,
        other => panic!("kubectl auth can-i {verb} {resource}: {other:?}"),
    }
}

/// Takes away all that `config/default` installs, whoever may miss it.
pub fn uninstall() {
    typed(&["delete", "-k", "config/default", "--ignore-not-found"]);
    until("the operator's namespace is gone", || match namespace() {
        None => Ok(()),
        Some(live) => Err(live["status"].to_string()),
    });
}

/// Ends all replicas and lets everything else stand.
pub fn stop() {
    typed(&["-n", NAMESPACE, "scale", "deployment", names::MANAGED_BY, "--replicas=0"]);
    until("no operator runs", || match pods().len() {
        0 => Ok(()),
        more => Err(format!("{more} pods")),
    });
}

/// Its namespace and all in it, without asking the processes; what is cluster-wide stays.
pub fn delete_brutally() {
    delete_namespace(NAMESPACE);
    until("the operator, its namespace and its pods are gone", || {
        typed(&["-n", NAMESPACE, "delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"]);
        match namespace() {
            None => Ok(()),
            Some(live) => Err(live["status"].to_string()),
        }
    });
}

fn namespace() -> Option<Value> {
    world().get(&format!("{}/{NAMESPACE}", collection("namespaces", "")))
}

/// Both replicas are ready, one of them leads, and the API server knows whom to trust.
pub fn ready() -> Result<(), String> {
    let pods = pods();
    let names: Vec<_> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    if names.len() != 2 || !pods.iter().all(is_ready) {
        return Err(format!("pods {names:?}"));
    }
    let holder = leader().unwrap_or_default();
    if !names.contains(&holder.as_str()) {
        return Err(format!("the lease is held by {holder:?}"));
    }
    match trusted() {
        bundle if bundle.is_empty() => Err("caBundle is empty".to_owned()),
        _ => Ok(()),
    }
}

/// Neither what it says in its logs and metrics nor what it has written for people tells a secret.
pub fn assert_secrets_are_kept() {
    for pod in pods_that_answer() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        for more in [&[][..], &["--previous"]] {
            // A pod that just went, or one that never started anew, has none.
            let log = kubectl(&[&["-n", NAMESPACE, "logs", name], more].concat(), "").unwrap_or_default();
            assert_kept(&format!("the log of {name}"), &log);
        }
        let metrics = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:8080/proxy/metrics");
        assert_kept("the metrics", &kubectl(&["get", "--raw", &metrics], "").unwrap_or_default());
    }
    for event in world().items(&collection("events", "")) {
        // The kubelet and others have their say about pods; what is ours is said by us.
        if event["reportingController"] == names::MANAGED_BY {
            assert_kept("an event", &event.to_string());
        }
    }
    for tracing in
        world().get(&collection("agenttracings", "")).iter().flat_map(|list| list["items"].as_array()).flatten()
    {
        assert_kept("a status", &tracing["status"].to_string());
    }
}

/// Its pods that are not on their way out.
pub fn pods() -> Vec<Value> {
    let mut pods = pods_that_answer();
    pods.retain(|pod| !pod["metadata"]["deletionTimestamp"].is_string());
    pods
}

/// The same with those on their way out, whose connections the API server goes on using for a while.
pub fn pods_that_answer() -> Vec<Value> {
    let labels = format!("{}%3D{}", names::LABEL_NAME, names::MANAGED_BY);
    world().items(&format!("{}?labelSelector={labels}", collection("pods", NAMESPACE)))
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The addresses of DNS servers, as its pods have them.
pub fn name_servers() -> Vec<String> {
    let of_pod = |process: u32| fs::read_to_string(format!("/proc/{process}/root/etc/resolv.conf")).unwrap();
    let files = pods().iter().flat_map(processes).map(of_pod).collect::<String>();
    files.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(|address| address.trim().to_owned()).collect()
}

/// The pod that holds the lease.
pub fn leader() -> Option<String> {
    let lease = world().get(&format!("{}/{}", collection("leases", NAMESPACE), names::LEASE))?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

/// The webhook's configuration.
pub fn configuration() -> Option<Value> {
    world().get(&format!("{}/{}", collection("mutatingwebhookconfigurations", ""), names::WEBHOOK_CONFIGURATION))
}

/// The webhook's `caBundle`.
pub fn trusted() -> String {
    configuration().unwrap_or_default()["webhooks"][0]["clientConfig"]["caBundle"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Ends the processes of both replicas by SIGKILL: no SIGTERM, no grace, no deletion of a pod. Says how many ran.
pub fn kill() -> usize {
    let processes: Vec<_> = pods().iter().flat_map(processes).collect();
    if !processes.is_empty() {
        signal("KILL", &processes);
    }
    processes.len()
}

/// Sends a signal to processes of this machine.
pub fn signal(signal: &str, processes: &[u32]) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{signal}")).args(processes.iter().map(u32::to_string));
    assert!(kill.status().unwrap().success(), "{kill:?}");
}

/// The processes of a pod's containers. A container's id is part of the name of its cgroup.
pub fn processes(pod: &Value) -> Vec<u32> {
    let statuses = pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids: Vec<_> =
        statuses.iter().filter_map(|s| s["containerID"].as_str()?.strip_prefix("containerd://")).collect();
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_of_the_pod = |pid: &u32| {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        ids.iter().any(|id| cgroups.contains(id))
    };
    all.filter(is_of_the_pod).collect()
}
