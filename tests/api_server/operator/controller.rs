//! The slow path: what came while the webhook was away, or before there was anything to wire with.

use agent_tracing::names;
use serde_json::{Value, json};

use super::process::point_the_webhook_at;
use super::{Site, agent, generation, is_wired, variable, version};
use crate::cluster::{STRICT, read, wait_until};
use crate::support::documents;

#[test]
#[ignore = "needs an API server: make test"]
fn a_deployment_from_while_the_operator_was_down_is_rolled_once_by_touch() {
    let mut site = Site::open("operator-down");
    let expected = site.dry_run(&agent(&site.namespace.0, "teller"));
    site.stop_operator();
    let created = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    assert!(!is_wired(&created), "nobody was there to wire it");
    assert_eq!(generation(&created), 1);
    site.start_operator();
    brought(&site, "teller", &expected);
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_deployment_from_before_mlflow_was_up_is_wired_once_it_has_answered() {
    let site = Site::open_before_mlflow("operator-early");
    let created = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    assert!(!is_wired(&created), "without an AgentTracing there is no address");
    site.mlflow_answers();
    site.wait_until_wired();
    let expected = site.dry_run(&agent(&site.namespace.0, "teller-too"));
    wait_until("it is wired", || is_wired(&site.deployment("teller")));
    let live = site.deployment("teller");
    assert_eq!(generation(&live), 2, "{live:#}");
    assert_eq!(variable(&live, "MLFLOW_TRACKING_URI"), variable(&expected, "MLFLOW_TRACKING_URI"));
    site.close();
}

/// The workload got its wiring in one generation, by touch, and nobody but the user owns a field of the template.
fn brought(site: &Site, name: &str, expected: &Value) {
    wait_until("it is touched", || is_wired(&site.deployment(name)));
    wait_until("the status tells of it", || site.row(name).is_some_and(|row| row["state"] == "RollingOut"));
    let live = site.deployment(name);
    assert_eq!(live["spec"]["template"], expected["spec"]["template"], "as the webhook would have done");
    assert_eq!(generation(&live), 2, "rolled more than once");

    let touch = live["metadata"]["annotations"][names::ANNOTATION_TOUCH].as_str().unwrap_or_else(|| panic!("{live:#}"));
    let parts: Vec<_> = touch.split('/').collect();
    let record: Value = serde_json::from_str(
        live["spec"]["template"]["metadata"]["annotations"][names::ANNOTATION_RECORD].as_str().unwrap(),
    )
    .unwrap();
    assert_eq!((parts[0], parts[1]), (record["hash"].as_str().unwrap(), "0"), "the first wiring is no repair: {touch}");
    assert_eq!(parts[3..], ["unavailable"], "no pod of it ever ran here: {touch}");

    let fields = live["metadata"]["managedFields"].as_array().unwrap();
    let ours: Vec<_> = fields.iter().filter(|entry| entry["manager"] == names::FIELD_MANAGER).collect();
    let touched = json!({"f:metadata": {"f:annotations": {format!("f:{}", names::ANNOTATION_TOUCH): {}}}});
    // `.` is ownership of the map itself, where the object had no annotation before.
    let mut owned = ours[0]["fieldsV1"].clone();
    if let Some(annotations) = owned.pointer_mut("/f:metadata/f:annotations").and_then(Value::as_object_mut) {
        annotations.remove(".");
    }
    assert_eq!((ours.len(), &owned), (1, &touched), "{ours:#?}");
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_server_that_is_down_changes_no_wiring() {
    let mut site = Site::open("operator-server-down");
    let wired = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    site.lose_the_node();
    wait_until("MLflow is seen to be down", || site.condition("MLflowReady").is_some_and(|c| c["status"] == "False"));
    wait_until("the workload is seen", || site.row("teller").is_some());

    // A restart forgets what was only in memory.
    site.stop_operator();
    site.start_operator();
    site.wait_until_wired();
    wait_until("a pass of the new leader", || site.operator().metric("agent_tracing_reconciles_total") >= 1.0);
    let status = site.admin.live(&site.tracing())["status"].clone();
    assert_eq!(status["mlflow"]["url"], site.url(), "once good, facts stay good");
    let live = site.deployment("teller");
    assert_eq!(live["spec"], wired["spec"]);
    assert_eq!(generation(&live), 1);
    let second = site.admin.create(&agent(&site.namespace.0, "second"), STRICT).unwrap();
    assert_eq!(variable(&second, "MLFLOW_TRACKING_URI"), Some(site.url().as_str()));
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_namespace_that_loses_its_label_gets_its_workloads_back_as_they_were() {
    let site = Site::open("operator-unlabel");
    let manifest = agent(&site.namespace.0, "teller");
    let bare = site.stored_elsewhere(&manifest);
    assert!(is_wired(&site.admin.create(&manifest, STRICT).unwrap()));
    wait_until("the workload is seen", || site.row("teller").is_some());

    let mut label = json!({"kind": "Namespace", "metadata": {"name": site.namespace.0}});
    label["metadata"]["labels"] = json!({names::LABEL_INJECTION: null});
    site.admin.merge(&label, STRICT).unwrap();
    wait_until("the wiring is gone", || !is_wired(&site.deployment("teller")));
    let live = site.deployment("teller");
    assert_eq!(live["spec"], bare["spec"]);
    assert_eq!(live["metadata"]["labels"], json!({"app": "teller"}));
    assert_eq!(generation(&live), 2);

    label["metadata"]["labels"] = json!({names::LABEL_INJECTION: names::ENABLED});
    site.admin.merge(&label, STRICT).unwrap();
    wait_until("it is wired again", || is_wired(&site.deployment("teller")));
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn the_owner_of_a_field_that_the_operator_needs_is_told_and_not_fought() {
    let site = Site::open("operator-conflict");
    // Somebody else's, under the name that MLflow's Service would have.
    let namespace = &site.namespace.0;
    let mut second = site.tracing();
    second["metadata"]["name"] = json!("second");
    let theirs = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "second-mlflow", "namespace": namespace},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    });
    let before = site.admin.create(&theirs, STRICT).unwrap();
    site.admin.create(&second, STRICT).unwrap();
    let ready = || {
        let live = site.admin.live(&second);
        live["status"]["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == "MLflowReady").cloned())
    };
    wait_until("the condition says so", || ready().is_some_and(|c| c["reason"] == "NameConflict"));
    let message = ready().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("second-mlflow") && message.contains("kubectl "), "{message}");
    assert_eq!(version(&site.admin.live(&theirs)), version(&before), "it was touched");
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn where_the_api_server_does_not_reach_the_webhook_the_controller_patches_and_rolls_once() {
    let site = Site::open("operator-unreached");
    let expected = site.dry_run(&agent(&site.namespace.0, "teller"));
    point_the_webhook_at(1);
    wait_until("nobody is asked any more", || !is_wired(&site.dry_run(&agent(&site.namespace.0, "probe"))));
    assert!(!is_wired(&site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap()));
    wait_until("it is wired all the same", || is_wired(&site.deployment("teller")));
    wait_until("the status says why", || {
        site.condition("InjectionReady").is_some_and(|c| c["reason"] == "WebhookUnavailable")
    });
    assert_eq!(site.deployment("teller")["spec"]["template"], expected["spec"]["template"]);
    let replica_sets = site.kubectl(&["get", "replicasets", "-l", "app=teller", "-o", "name"], "").unwrap();
    assert_eq!(replica_sets.lines().count(), 2, "the first and the wired one: {replica_sets}");
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn when_the_older_of_two_is_deleted_the_younger_takes_over() {
    let site = Site::open("operator-two-tracings");
    let mut younger = site.tracing();
    younger["metadata"]["name"] = json!("younger");
    younger["spec"]["mlflow"]["standalone"] = json!({"port": 5601});
    site.admin.create(&younger, STRICT).unwrap();
    let url = format!("http://younger-mlflow.{}.svc:5601", site.namespace.0);
    site.mlflow_comes_up(&younger, &url);

    let stored = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    assert_eq!(variable(&stored, "MLFLOW_TRACKING_URI"), Some(site.url().as_str()), "the older one's");
    site.admin.delete("AgentTracing", &site.namespace.0, "tracing");
    wait_until("the younger one's address", || {
        variable(&site.deployment("teller"), "MLFLOW_TRACKING_URI") == Some(url.as_str())
    });
    let live = site.deployment("teller");
    assert_eq!(live["metadata"]["labels"][names::LABEL_WIRED], "younger");
    assert_eq!(generation(&live), 2, "in one step");
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_server_with_every_field_set_is_admitted_where_pods_are_restricted() {
    let site = Site::open_before_mlflow("operator-full");
    let mut labels = json!({"kind": "Namespace", "metadata": {"name": site.namespace.0}});
    labels["metadata"]["labels"] = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    site.admin.merge(&labels, STRICT).unwrap();
    for (sample, name) in [("standalone-full", "full"), ("standalone", "small")] {
        let mut tracing = documents(&read(&format!("config/samples/{sample}.yaml"))).remove(0);
        tracing["metadata"] = json!({"name": name, "namespace": site.namespace.0});
        site.admin.create(&tracing, STRICT).unwrap();
        let owner = format!("{name}-mlflow-");
        wait_until("its pod", || {
            let pods = site.admin.list("Pod", &site.namespace.0);
            pods.iter().any(|pod| pod["metadata"]["name"].as_str().unwrap().starts_with(&owner))
        });
    }
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn what_somebody_changes_on_mlflows_objects_is_set_right() {
    let site = Site::open("operator-heal");
    let child = |kind| site.admin.get(kind, &site.namespace.0, "tracing-mlflow");
    let (uid, volume) = (child("Service").unwrap()["metadata"]["uid"].clone(), child("PersistentVolumeClaim").unwrap());
    site.kubectl(&["scale", "deployment/tracing-mlflow", "--replicas=0"], "").unwrap();
    site.kubectl(&["set", "image", "deployment/tracing-mlflow", "mlflow=example.com/other:v1"], "").unwrap();
    site.admin.delete("Service", &site.namespace.0, "tracing-mlflow");
    wait_until("the Service is back", || child("Service").is_ok_and(|service| service["metadata"]["uid"] != uid));
    wait_until("the Deployment is what it was", || {
        let spec = child("Deployment").unwrap()["spec"].clone();
        let image = spec["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
        spec["replicas"] == 1 && image == "ghcr.io/mlflow/mlflow:v3.10.1"
    });
    let kept = child("PersistentVolumeClaim").unwrap();
    assert_eq!(kept["metadata"]["uid"], volume["metadata"]["uid"]);
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_suspended_one_changes_nothing_and_then_goes_on_where_it_was() {
    let site = Site::open("operator-suspend");
    let wired = site.admin.create(&agent(&site.namespace.0, "wired"), STRICT).unwrap();
    let suspend = |suspend: bool| {
        let mut tracing = site.tracing();
        tracing["spec"]["suspend"] = json!(suspend);
        site.admin.merge(&tracing, STRICT).unwrap();
        let holds = |ready: Value| (ready["reason"] == "Suspended") == suspend;
        wait_until("the status follows", || site.condition("Ready").is_some_and(holds));
    };
    suspend(true);
    assert!(!is_wired(&site.admin.create(&agent(&site.namespace.0, "late"), STRICT).unwrap()));
    site.kubectl(&["scale", "deployment/tracing-mlflow", "--replicas=0"], "").unwrap();
    let mut untouched = site.deployment("wired");
    untouched["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.com/agent:v2");
    untouched["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert!(is_wired(&site.admin.replace(&untouched, STRICT).unwrap()), "what is there stays");
    assert_eq!(site.admin.live(&site.tracing())["status"]["mlflow"]["url"], site.url(), "facts are kept");
    assert!(!is_wired(&site.deployment("late")));
    assert_eq!(site.deployment("tracing-mlflow")["spec"]["replicas"], 0);

    suspend(false);
    wait_until("what came meanwhile is wired", || is_wired(&site.deployment("late")));
    wait_until("MLflow is scaled back", || site.deployment("tracing-mlflow")["spec"]["replicas"] == 1);
    assert_eq!(variable(&site.deployment("wired"), "MLFLOW_TRACKING_URI"), variable(&wired, "MLFLOW_TRACKING_URI"));
    site.close();
}

/// What a user writes ends in the status, and a status that the API server refuses would be tried for ever.
#[test]
#[ignore = "needs an API server: make test"]
fn an_absurd_experiment_name_does_not_keep_the_status_from_being_written() {
    let site = Site::open("operator-absurd");
    let mut absurd = agent(&site.namespace.0, "absurd");
    absurd["metadata"]["annotations"] = json!({names::ANNOTATION_EXPERIMENT: "ü".repeat(40_000)});
    site.admin.create(&absurd, STRICT).unwrap();
    site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    wait_until("both are in the list", || site.row("teller").is_some() && site.row("absurd").is_some());
    let shown = site.row("absurd").unwrap()["experiment"].as_str().unwrap().chars().count();
    assert!(shown <= 512, "{shown} characters of it");
    site.close();
}
