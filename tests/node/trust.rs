//! The certificate authorities of running pods: which they lack is told, and where none of ours can be merged a CronJob does
//! without.

use std::time::{Duration, Instant};

use agent_tracing::names;
use serde_json::{Value, json};

use crate::authorities::Authority;
use crate::check::{broken, check, type_what_it_says, until_broken};
use crate::operator;
use crate::pace::{row, set_merge_ca_image};
use crate::world::{Scene, idle, is_wired, scene, template, typed, until};

const TRACING: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: tracing}
spec:
  mlflow: {mode: Standalone}
  caBundle: {mode: Always, configMaps: [{name: corporate-cas, key: ca.crt}]}
";
const LINK: &str = "CA bundle of deployment/teller";

#[test]
#[ignore = "needs the node cluster: make test"]
fn check_names_an_authority_that_a_running_pod_lacks() {
    scene("trust", true, |scene| {
        let mut authorities = vec![Authority::new("root of the first year")];
        publish(scene, &authorities);
        scene.apply(TRACING);
        scene.apply(&with_a_shell(&idle("teller")));
        for (strategy, year) in [("InitContainer", "second"), ("AgentInitContainer", "third")] {
            let chosen = json!({"spec": {"caBundle": {"strategy": strategy}}}).to_string();
            scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", &chosen]);
            until_all_is_well(scene, &format!("{strategy}: all is well"));
            authorities.push(Authority::new(&format!("root of the {year} year")));
            publish(scene, &authorities);
            let said = until_broken(scene, LINK, "kubectl rollout restart -n trust deployment/teller");
            let named = format!("started without root of the {year} year (sha256 ");
            assert!(said.contains(&named) && said.contains("ConfigMap corporate-cas/ca.crt"), "{said}");
            type_what_it_says(&said);
            scene.until_rolled_out("teller");
            until_all_is_well(scene, &format!("{strategy}: the new pod has it"));
        }
        scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", CONFIG_MAP]);
        until_all_is_well(scene, "ConfigMap: all is well");
        // What is somebody else's the operator leaves alone.
        let theirs = format!("{}=somebody", names::LABEL_MANAGED_BY);
        scene.kubectl(&["label", "configmap", names::CA_CONFIG_MAP, "--overwrite", &theirs]);
        authorities.push(Authority::new("root of the fourth year"));
        publish(scene, &authorities);
        let said = until_broken(scene, "InjectionReady", "kubectl get configmap -n trust agenttracing-ca");
        assert!(said.contains("NameConflict") && said.contains("is not the operator's"), "{said}");
        scene.kubectl(&["delete", "configmap", names::CA_CONFIG_MAP]);
        until_all_is_well(scene, "ConfigMap: the operator's own has it");
        what_the_owners_own_merge_ca_complains_of_is_named(scene);
    });
}

/// The documented script knows where UBI keeps its authorities, and makes an empty bundle of any other image.
fn what_the_owners_own_merge_ca_complains_of_is_named(scene: &Scene) {
    let mut vault: Value = serde_json::from_str(&with_a_shell(&idle("vault"))).unwrap();
    let pod = vault.pointer_mut("/spec/template/spec").unwrap();
    let mut merges = pod["containers"][0].clone();
    merges["name"] = json!(names::MERGE_CA);
    merges["command"] = json!(["sh", "-c", "cat /etc/pki/tls/certs/ca-bundle.crt >/merged/ca.crt || true"]);
    merges["volumeMounts"] = json!([{"name": "merged", "mountPath": "/merged"}]);
    pod["containers"][0]["volumeMounts"] = merges["volumeMounts"].clone();
    pod["initContainers"] = json!([merges]);
    pod["volumes"] = json!([{"name": "merged", "emptyDir": {}}]);
    scene.apply(&vault.to_string());
    scene.until_rolled_out("vault");
    let link = "CA bundle of deployment/vault";
    until("check names what vault's own merge-ca says", || {
        let (_, links) = check(scene, &["--workload", "deployment/vault"]);
        let found = links.iter().find(|found| found["link"] == link && found["state"] == "unknown");
        let message = found.and_then(|found| found["message"].as_str()).unwrap_or_default();
        match message.contains("No such file") && message.contains("kubectl exec -n trust vault-") {
            true => Ok(()),
            false => Err(format!("{links:#?}")),
        }
    });
}

/// A Pod is never replaced by us, so it needs its file for as long as it runs (finding A3). The kubelet takes out of a volume
/// what its ConfigMap has lost, within a minute and a half.
#[test]
#[ignore = "needs the node cluster: make test"]
fn a_running_agent_keeps_its_file_whatever_becomes_of_its_agenttracing() {
    scene("trust-kept", true, |scene| {
        publish(scene, &[Authority::new("root of the first year")]);
        scene.apply(TRACING);
        scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", CONFIG_MAP]);
        scene.until_condition("MLflowReady", "True", "Available");
        until("there is a ConfigMap", || scene.get("configmaps", names::CA_CONFIG_MAP).ok_or_else(String::new));
        scene.apply(&pod("courier"));
        assert!(is_wired(&scene.live("pods", "courier")));
        until("courier runs", || match scene.live("pods", "courier")["status"]["phase"].as_str() {
            Some("Running") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let before = file_of_courier(scene);
        assert!(before.contains("BEGIN CERTIFICATE"), "{before}");

        scene.kubectl(&["delete", "agenttracing", "tracing"]);
        scene.apply(&TRACING.replace("name: tracing", "name: second"));
        until("the second one has seen the namespace", || {
            let second = scene.live("agenttracings", "second");
            second["status"]["conditions"].is_array().then_some(()).ok_or_else(|| second["status"].to_string())
        });
        operator::stop();
        scene.kubectl(&["delete", "agenttracing", "second"]);
        let began = Instant::now();
        // The node's kubelet looks at its pods every 15 s.
        while began.elapsed() < Duration::from_secs(50) {
            assert_eq!(file_of_courier(scene), before, "after {:?} without an operator", began.elapsed());
            std::thread::sleep(Duration::from_secs(10));
        }
        operator::install();
        assert_eq!(file_of_courier(scene), before);
        assert!(scene.get("configmaps", names::CA_CONFIG_MAP).is_some());
    });
}

fn file_of_courier(scene: &Scene) -> String {
    scene.kubectl(&["exec", "courier", "--", "cat", "/tmp/ca-bundle/combined-ca.crt"])
}

/// An agent of nobody's, which asks to be wired.
fn pod(name: &str) -> String {
    let deployment: Value = serde_json::from_str(&with_a_shell(&idle(name))).unwrap();
    let metadata = json!({"name": name, "labels": {names::LABEL_INJECT: "true"}});
    let spec = &deployment["spec"]["template"]["spec"];
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
}

const CONFIG_MAP: &str = r#"{"spec": {"caBundle": {"strategy": "ConfigMap"}}}"#;

fn publish(scene: &Scene, authorities: &[Authority]) {
    let pem: String = authorities.iter().map(Authority::pem).collect();
    let metadata = json!({"name": "corporate-cas"});
    scene.apply(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": pem}}).to_string(),
    );
}

/// Nobody asks this agent anything, so only of its traces nothing is known.
fn until_all_is_well(scene: &Scene, what: &str) {
    until(what, || {
        let (_, links) = check(scene, &[]);
        let good = links.iter().any(|link| link["link"] == LINK && link["state"] == "good");
        // Nobody has asked this agent anything.
        let unclear: Vec<_> = links.iter().filter(|link| link["state"] != "good").collect();
        match unclear.iter().all(|link| {
            link["state"] == "unknown" && ["deployment/teller", "traces"].iter().any(|known| link["link"] == *known)
        }) {
            true if good => Ok(()),
            _ => Err(format!("{:?} {:?}", broken(&links), links.iter().find(|link| link["state"] != "good"))),
        }
    });
}

#[test]
#[ignore = "needs the node cluster: make test"]
fn a_cron_job_whose_merge_ca_cannot_be_pulled_does_without_from_its_next_job_on() {
    scene("trust-jobs", true, |scene| {
        set_merge_ca_image("demo/absent:1");
        scene.apply(TRACING);
        scene.until_condition("MLflowReady", "True", "Available");
        scene.apply(&cron_job("nightly"));
        scene.apply(&job("report"));
        assert!(is_wired(&scene.live("jobs", "report")));
        the_stuck_job_is_named_and_the_next_one_does_without(scene);
        the_job_of_a_person_is_told_and_left_alone(scene);
        an_install_with_another_image_brings_it_back(scene);
    });
}

fn the_stuck_job_is_named_and_the_next_one_does_without(scene: &Scene) {
    assert_eq!(template(&scene.live("cronjobs", "nightly"))["spec"]["initContainers"][0]["image"], "demo/absent:1");
    until("nightly takes its authorities from the ConfigMap", || {
        let live = scene.live("cronjobs", "nightly");
        let pod = &template(&live)["spec"];
        match pod["volumes"][0]["configMap"]["name"] == names::CA_CONFIG_MAP && pod["initContainers"].is_null() {
            true => Ok(()),
            false => Err(format!("{} {}", row(scene, "nightly"), live["status"])),
        }
    });
    let told = until("its stuck Job is named", || match row(scene, "nightly") {
        row if row["state"] == "Halted" => Ok(row),
        row => Err(row.to_string()),
    });
    assert_eq!(told["reason"], "MergeCAImage", "{told}");
    scene.until_condition("WorkloadsReady", "False", "RolloutHalted").ends_with_a_command().says("nightly (CronJob)");
    // It keeps all others from beginning.
    let jobs = jobs_of(scene, "nightly");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert!(broken(&check(scene, &[]).1).is_some());
    type_what_it_says(told["message"].as_str().unwrap());
    until("the next Job runs through", || {
        let jobs = jobs_of(scene, "nightly");
        match jobs.iter().any(|job| job["status"]["succeeded"] == 1) {
            true => Ok(()),
            false => Err(jobs.iter().map(|job| job["status"].to_string()).collect()),
        }
    });
    let told = until("nightly is well, and what it does without is told", || match row(scene, "nightly") {
        row if row["state"] == "Injected" => Ok(row),
        row => Err(row.to_string()),
    });
    let command = format!("kubectl annotate -n trust-jobs cronjob/nightly {}-", names::ANNOTATION_MERGE_CA_FAILED);
    assert!(told["reason"] == "MergeCAImage" && told["message"].as_str().unwrap().ends_with(&command), "{told}");
}

fn the_job_of_a_person_is_told_and_left_alone(scene: &Scene) {
    let told = row(scene, "report");
    assert_eq!((&told["state"], &told["reason"]), (&"Halted".into(), &"MergeCAImage".into()), "{told}");
    type_what_it_says(told["message"].as_str().unwrap());
    let live = scene.live("jobs", "report");
    assert_eq!(live["metadata"]["generation"], 1);
    assert!(live["metadata"]["annotations"][names::ANNOTATION_MERGE_CA_FAILED].is_null());
    scene.kubectl(&["delete", "job", "report", "--wait=false"]);
    scene.until_condition("WorkloadsReady", "True", "AllCurrent");
}

fn an_install_with_another_image_brings_it_back(scene: &Scene) {
    typed(&["apply", "-k", "config/default"]);
    until("nightly merges for itself", || {
        let pod = template(&scene.live("cronjobs", "nightly"))["spec"].clone();
        match pod["initContainers"][0]["name"] == names::MERGE_CA {
            true => Ok(()),
            false => Err(row(scene, "nightly").to_string()),
        }
    });
    until("the operator is whole again", operator::ready);
}

fn jobs_of(scene: &Scene, cron_job: &str) -> Vec<Value> {
    let mut jobs = scene.list("jobs", "");
    jobs.retain(|job| job["metadata"]["ownerReferences"][0]["name"] == cron_job);
    jobs
}

fn with_a_shell(deployment: &str) -> String {
    let mut deployment: Value = serde_json::from_str(deployment).unwrap();
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("demo/langgraph-agent:1");
    container["command"] = json!(["sh", "-c", "exec sleep 3600"]);
    deployment.to_string()
}

/// Each minute, but never two at a time.
fn cron_job(name: &str) -> String {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job_spec(name)}},
    })
    .to_string()
}

fn job(name: &str) -> String {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": job_spec(name)}).to_string()
}

fn job_spec(name: &str) -> Value {
    let deployment: Value = serde_json::from_str(&with_a_shell(&idle(name))).unwrap();
    let mut template = deployment["spec"]["template"].clone();
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["containers"][0]["command"] = json!(["sh", "-c", "exec sleep 3"]);
    json!({"template": template})
}
