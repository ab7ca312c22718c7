//! How workloads are changed: one cause, one change, and nobody waits for ever.

use super::*;

const POD: &str = "/api/v1/namespaces/bank-agents/pods/teller-1";

fn touch_of(world: &World) -> String {
    let teller = world.api.get(TELLER).unwrap();
    teller["metadata"]["annotations"]["agenttracing.dev/touch"].as_str().unwrap_or_default().to_owned()
}

fn row(world: &World) -> Value {
    world.status()["workloads"][0].clone()
}

#[tokio::test]
async fn whoever_strips_our_entries_three_times_is_left_alone_and_named() {
    let mut world = World::at_rest().await;
    let hash = touch_of(&world).split('/').next().unwrap().to_owned();
    for repair in 1..=3 {
        strip(&world);
        world.pass().await;
        assert!(touch_of(&world).starts_with(&format!("{hash}/{repair}/")), "{}", touch_of(&world));
    }
    strip(&world);
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.writes_to(TELLER), 0);
    assert_eq!(row(&world)["state"], "Contested");
    let message = row(&world)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("by argocd-controller:"), "{message}");
    assert_eq!(world.reason("WorkloadsReady"), "Contested");
    assert_eq!(world.condition("Ready").0, "False");

    // Another spec is another matter.
    world.api.edit(TRACING, json!({"spec": {"sdk": {"timeoutSeconds": 9}}, "metadata": {"generation": 2}}));
    world.pass().await;
    world.pass().await;
    assert_eq!(world.reason("WorkloadsReady"), "AllCurrent");
}

#[tokio::test]
async fn manual_only_says_what_is_outdated() {
    let mut world = World::at_rest().await;
    let manual = json!({"spec": {"sdk": {"timeoutSeconds": 9}, "injection": {"rollout": {"policy": "Manual"}}}, "metadata": {"generation": 2}});
    world.api.edit(TRACING, manual);
    world.pass().await;
    world.pass().await;
    assert_eq!(world.api.writes_to(TELLER), 0);
    assert_eq!(row(&world)["state"], "Outdated");
    assert!(
        row(&world)["message"].as_str().unwrap().ends_with("kubectl rollout restart -n bank-agents deployment/teller")
    );
    assert_eq!(world.reason("WorkloadsReady"), "Outdated");
}

#[tokio::test]
async fn a_workload_that_does_not_come_back_is_halted_and_the_others_wait() {
    let mut world = World::at_rest().await;
    world.api.put(
        "/apis/apps/v1/namespaces/bank-agents/deployments/vault",
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "vault", "namespace": "bank-agents", "generation": 1},
            "spec": {
                "paused": true,
                "selector": {"matchLabels": {"app": "vault"}},
                "template": {"metadata": {"labels": {"app": "vault"}}, "spec": {"containers": [{"name": "agent", "image": "i"}]}},
            },
        }),
    );
    let record = world.api.get(TELLER).unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
    let crashing = json!({"name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}});
    world.api.put(POD, json!({
        "metadata": {"name": "teller-1", "labels": {"app": "teller"}, "annotations": record, "creationTimestamp": Timestamp::now().to_string()},
        "status": {"containerStatuses": [crashing]},
    }));
    world.api.edit(TELLER, json!({"status": {"availableReplicas": 0}}));
    world.api.edit("/apis/apps/v1/namespaces/bank-agents/deployments/vault", json!({"spec": {"paused": false}}));
    world.pass().await;
    assert_eq!((row(&world)["name"].clone(), row(&world)["state"].clone()), (json!("teller"), json!("Halted")));
    assert_eq!(row(&world)["reason"], "CrashLoopBackOff");
    assert_eq!(world.reason("WorkloadsReady"), "RolloutHalted");
    world.pass().await;
    let vault = || world.api.get("/apis/apps/v1/namespaces/bank-agents/deployments/vault").unwrap();
    assert_eq!(vault()["spec"]["template"]["metadata"]["annotations"], Value::Null);
    assert_eq!(
        world.api.events().iter().filter(|e| e.starts_with("RolloutHalted")).count(),
        2,
        "workload and AgentTracing, once"
    );

    // Mended: the rest goes on by itself.
    world.api.edit(TELLER, json!({"status": {"availableReplicas": 1}}));
    world.api.delete(POD);
    world.pass().await;
    world.pass().await;
    let vault = world.api.get("/apis/apps/v1/namespaces/bank-agents/deployments/vault").unwrap();
    assert!(vault["spec"]["template"]["metadata"]["annotations"].is_object());
}

#[tokio::test]
async fn a_merge_ca_that_never_starts_is_replaced_by_a_config_map() {
    let mut world = World::new().await;
    world.api.edit(TRACING, json!({"spec": {"caBundle": {"mode": "Always"}}}));
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.pass().await;
    let template = |world: &World| world.api.get(TELLER).unwrap()["spec"]["template"].clone();
    assert_eq!(template(&world)["spec"]["initContainers"][0]["name"], "merge-ca");
    world.api.edit(TELLER, json!({"status": {"availableReplicas": 0}}));
    let waiting = |since: Timestamp, world: &World| {
        let merge_ca = json!({"name": "merge-ca", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff"}}});
        json!({
            "metadata": {"name": "teller-1", "labels": {"app": "teller"}, "creationTimestamp": since.to_string(),
                "annotations": template(world)["metadata"]["annotations"]},
            "status": {"initContainerStatuses": [merge_ca]},
        })
    };
    let ago = |seconds: i64| Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
    world.api.put(POD, waiting(ago(0), &world));
    world.pass().await;
    world.pass().await;
    assert!(template(&world)["spec"]["initContainers"].is_array(), "it has a minute");

    world.api.put(POD, waiting(ago(70), &world));
    for _ in 0..3 {
        world.pass().await;
    }
    assert!(template(&world)["spec"].get("initContainers").is_none_or(Value::is_null), "{}", template(&world));
    assert_eq!(template(&world)["spec"]["volumes"][0]["configMap"]["name"], "agenttracing-ca");
    let map = world.api.get("/api/v1/namespaces/bank-agents/configmaps/agenttracing-ca").unwrap();
    assert_eq!(map["metadata"].get("ownerReferences"), None, "it belongs to nobody (finding A3)");
    assert_eq!(row(&world)["reason"], "MergeCAImage");
    assert!(row(&world)["message"].as_str().unwrap().ends_with("agenttracing.dev/merge-ca-failed-"));

    // The image is there now, and somebody did as the message says.
    world.api.delete(POD);
    world.api.edit(TELLER, json!({"metadata": {"annotations": {"agenttracing.dev/merge-ca-failed": null}}}));
    world.pass().await;
    world.pass().await;
    assert_eq!(template(&world)["spec"]["initContainers"][0]["name"], "merge-ca");
}

const NIGHTLY: &str = "/apis/batch/v1/namespaces/bank-agents/cronjobs/nightly";
const STUCK: &str = "/api/v1/namespaces/bank-agents/pods/nightly-1-x";

/// A namespace with authorities for its agents and no other agent than a CronJob or a Job, once that is wired.
async fn world_of(path: &str, object: Value) -> World {
    let mut world = World::new().await;
    world.api.delete(TELLER);
    world.api.put(path, object);
    world.api.edit(TRACING, json!({"spec": {"caBundle": {"mode": "Always"}}}));
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.pass().await;
    world
}

/// A pod of a Job whose `merge-ca` has waited for so many seconds.
fn waiting(job: &str, annotations: &Value, seconds: i64) -> Value {
    let since = Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
    let merge_ca = json!({"name": "merge-ca", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff"}}});
    json!({
        "metadata": {"name": format!("{job}-x"), "labels": {"batch.kubernetes.io/job-name": job},
            "creationTimestamp": since.to_string(), "annotations": annotations},
        "status": {"phase": "Pending", "initContainerStatuses": [merge_ca]},
    })
}

#[tokio::test]
async fn a_cron_job_whose_merge_ca_never_starts_does_without_and_its_stuck_job_is_named() {
    let template = json!({"metadata": {}, "spec": {"containers": [{"name": "agent", "image": "i"}]}});
    let cron_job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "nightly", "namespace": "bank-agents"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}},
    });
    let mut world = world_of(NIGHTLY, cron_job).await;
    let template = |world: &World| world.api.get(NIGHTLY).unwrap()["spec"]["jobTemplate"]["spec"]["template"].clone();
    let wired = template(&world)["metadata"]["annotations"].clone();
    assert_eq!(template(&world)["spec"]["initContainers"][0]["name"], "merge-ca");
    world.api.edit(NIGHTLY, json!({"status": {"active": [{"kind": "Job", "name": "nightly-1"}]}}));
    world.api.put(STUCK, waiting("nightly-1", &wired, 0));
    world.pass().await;
    world.pass().await;
    assert!(template(&world)["spec"]["initContainers"].is_array(), "it has half a minute");
    assert_eq!(row(&world)["state"], "Injected");

    world.api.put(STUCK, waiting("nightly-1", &wired, 40));
    for _ in 0..3 {
        world.pass().await;
    }
    assert!(template(&world)["spec"].get("initContainers").is_none_or(Value::is_null), "{}", template(&world));
    assert_eq!(template(&world)["spec"]["volumes"][0]["configMap"]["name"], "agenttracing-ca");
    assert!(world.api.get("/api/v1/namespaces/bank-agents/configmaps/agenttracing-ca").is_some());
    world.pass().await;
    let told = row(&world);
    assert_eq!((&told["state"], &told["reason"]), (&json!("Halted"), &json!("MergeCAImage")));
    let message = told["message"].as_str().unwrap();
    assert!(message.ends_with(": kubectl delete jobs -n bank-agents nightly-1"), "{message}");
    assert_eq!(world.reason("WorkloadsReady"), "RolloutHalted");
    let mut halts = world.api.events();
    halts.retain(|event| event.starts_with("RolloutHalted"));
    assert_eq!(halts, ["RolloutHalted nightly", "RolloutHalted tracing"], "on each of them once");

    // Somebody typed it.
    world.api.delete(STUCK);
    world.api.edit(NIGHTLY, json!({"status": {"active": []}}));
    world.pass().await;
    assert_eq!((&row(&world)["state"], &row(&world)["reason"]), (&json!("Injected"), &json!("MergeCAImage")));
    assert!(row(&world)["message"].as_str().unwrap().ends_with("cronjob/nightly agenttracing.dev/merge-ca-failed-"));
    assert_eq!(world.reason("WorkloadsReady"), "AllCurrent");
}

#[tokio::test]
async fn a_job_whose_merge_ca_never_starts_is_told_and_left_as_it_is() {
    const JOB: &str = "/apis/batch/v1/namespaces/bank-agents/jobs/report";
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "report", "namespace": "bank-agents"},
        "spec": {"selector": {"matchLabels": {"job": "report"}},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "agent", "image": "i"}]}}},
        "status": {"active": 1},
    });
    let mut world = world_of(JOB, job).await;
    // The webhook wires it when it is created.
    world.api.wire_as_created(JOB);
    let wired = world.api.get(JOB).unwrap();
    let annotations = &wired["spec"]["template"]["metadata"]["annotations"];
    world.api.put(STUCK, waiting("report", annotations, 40));
    world.api.take_writes();
    world.pass().await;
    world.pass().await;
    let told = row(&world);
    assert_eq!((&told["state"], &told["reason"]), (&json!("Halted"), &json!("MergeCAImage")), "{told}");
    let command = ": kubectl describe pods -n bank-agents -l batch.kubernetes.io/job-name=report";
    assert!(told["message"].as_str().unwrap().ends_with(command), "{told}");
    assert_eq!(world.reason("WorkloadsReady"), "RolloutHalted");
    assert_eq!((world.api.writes_to(JOB), world.api.get(JOB).unwrap()), (0, wired));

    world.api.edit(STUCK, json!({"status": {"phase": "Running", "initContainerStatuses": null}}));
    world.pass().await;
    assert_eq!(row(&world)["state"], "Injected");
}

#[tokio::test]
async fn a_touch_that_meets_a_conflict_is_no_repair() {
    let mut world = World::new().await;
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.api.refuse(TELLER, 409, "somebody else wrote");
    for _ in 0..5 {
        world.pass().await;
    }
    assert_eq!(row(&world)["state"], "Pending");
    world.api.refuse(TELLER, 0, "");
    world.pass().await;
    assert_eq!(touch_of(&world).split('/').nth(1), Some("0"), "{}", touch_of(&world));
}
