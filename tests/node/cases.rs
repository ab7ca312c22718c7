//! Cases of public reports, on a real node: each was seen to break agents of other injectors, and is named by its number.
//! All of them are made first and waited for afterwards.

mod device;

use agent_tracing::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::audit::lines;
use crate::kinds::workloads::{finite, job};
use crate::mlflow::Mlflow;
use crate::pace::row;
use crate::shared::{TRACING, agent, start_model};
use crate::world::{
    Scene, collection, delete_namespace, env, idle, is_wired, kubectl, scene, template, typed_script, until,
};
use device::BlockDevice;

/// An AgentTracing whose authorities the agents' own shell merges, for those that ask for it.
const SHELL: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: shell}
spec: {mlflow: {mode: CR}, caBundle: {strategy: AgentInitContainer}, injection: {selector: {matchLabels: {merges: itself}}}}
";
const RUNS: usize = 10;
/// Bytes of all names and values of an object's annotations that the API server takes.
const MAX_ANNOTATIONS: usize = 262_144;
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[test]
#[ignore = "needs the node cluster: make test"]
fn what_public_reports_tell_of_breaks_no_agent() {
    scene("cases", true, |scene| {
        start_model();
        let (limits, classes) = (Scene::second("cases-limits", true), Scene::second("cases-classes", true));
        let device = BlockDevice::attach();
        some_run_before_there_is_an_agent_tracing(scene, &limits);
        the_shared_mlflow_comes_up(&[scene, &limits, &classes]);
        b36_is_made(scene);
        b42_is_made(scene);
        b17_is_made(scene);
        b06_b07_are_made(&limits);
        b19_is_made(&classes);
        b41_is_made(scene);
        b16_a_job_for_windows_is_left_alone(scene);
        b30_b43_are_made(scene, &device);

        b05_a_running_pod_with_resources_of_its_own_is_wired(scene);
        annotations_without_room_for_a_touch_are_told_and_left_alone(scene);
        b06_b07_quota_and_limit_range_take_merge_ca(&limits);
        b19_best_effort_stays_best_effort(&classes);
        b17_merge_ca_ran_before_the_users_init_container(scene);
        b30_b43_the_containers_are_created_and_run(scene);
        b41_unique_jobs_share_an_experiment(scene);
        b42_a_pod_of_an_unknown_owner_traces(scene);
        b36_an_image_without_a_shell_does_without(scene);
        drop(device);
        typed_script("tests/cr/world.sh", &["down"]);
        delete_namespace("demo-llm");
    });
}

/// An idle agent with something else in its pod.
fn idle_with(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut deployment: Value = serde_json::from_str(&idle(name)).unwrap();
    change(&mut deployment["spec"]["template"]["spec"]);
    deployment
}

fn create(scene: &Scene, object: &Value) -> Value {
    let made = kubectl(&["-n", &scene.namespace, "create", "-f", "-", "-o", "json"], &object.to_string());
    serde_json::from_str(&made.unwrap_or_else(|error| panic!("{}: {error}", object["metadata"]))).unwrap()
}

/// The newest pod of a workload that is not on its way out.
fn pod_of(scene: &Scene, app: &str) -> Value {
    let mut pods = scene.list("pods", &format!("app={app}"));
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods.sort_by_key(|pod| pod["metadata"]["creationTimestamp"].to_string());
    pods.pop().unwrap_or_else(|| panic!("{app} has no pod"))
}

fn until_wired_and_up(scene: &Scene, case: &str, name: &str) -> Value {
    until(&format!("{case}: {name} is wired"), || match is_wired(&scene.live("deployments", name)) {
        true => Ok(()),
        false => Err(row(scene, name).to_string()),
    });
    scene.until_rolled_out(name);
    scene.live("deployments", name)["spec"]["template"]["spec"].take()
}

/// The init container of ours in a pod, which has ended well.
fn merged(case: &str, pod: &Value) -> Value {
    let mut all = pod["status"]["initContainerStatuses"].as_array().into_iter().flatten();
    let ours = all.rfind(|status| status["name"] == names::MERGE_CA);
    let ours = ours.unwrap_or_else(|| panic!("{case}: no merge-ca in {}", pod["status"]));
    assert_eq!(ours["state"]["terminated"]["exitCode"], 0, "{case}: {ours}");
    ours["state"]["terminated"].clone()
}

fn some_run_before_there_is_an_agent_tracing(scene: &Scene, limits: &Scene) {
    let whole = json!({"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let budgeted = idle_with("budgeted", |pod| {
        pod["resources"] = whole;
        pod["containers"][0]["resources"] = json!({});
    });
    create(scene, &budgeted);
    // What its own controller adds still has room (34 bytes), a touch has none.
    let mut crowded = idle_with("crowded", |_| {});
    let annotations = crowded["metadata"]["annotations"].as_object().unwrap();
    let taken: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().unwrap().len()).sum();
    let left = MAX_ANNOTATIONS - taken - APPLIED.len() - 34 - 20;
    // The one annotation that no ReplicaSet gets too; `kubectl create` would write it anew.
    crowded["metadata"]["annotations"][APPLIED] = json!("x".repeat(left));
    let path = collection("deployments", &scene.namespace);
    kubectl(&["create", "--raw", &path, "-f", "-"], &crowded.to_string()).unwrap();
    limit(limits);
    create(limits, &measured("thrifty"));
    for (scene, name) in [(scene, "budgeted"), (scene, "crowded"), (limits, "thrifty")] {
        scene.until_rolled_out(name);
    }
}

fn the_shared_mlflow_comes_up(scenes: &[&Scene]) {
    let namespaces = scenes.iter().map(|scene| scene.namespace.as_str());
    let whom: Vec<_> = ["up", "a", names::OPERATOR_NAMESPACE].into_iter().chain(namespaces).collect();
    typed_script("tests/cr/world.sh", &whom);
    scenes.iter().for_each(|scene| scene.apply(TRACING));
    scenes[0].apply(SHELL);
    for scene in scenes {
        scene.until_condition("MLflowReady", "True", "Available");
    }
}

fn b05_a_running_pod_with_resources_of_its_own_is_wired(scene: &Scene) {
    let spec = until_wired_and_up(scene, "B05", "budgeted");
    assert!(spec["initContainers"][0]["resources"]["requests"].is_null(), "B05: the pod's are for all: {spec}");
    merged("B05", &pod_of(scene, "budgeted"));
}

/// A quota asks for ephemeral storage, and a LimitRange for more than any fixed request of an init container.
fn limit(scene: &Scene) {
    scene.apply(
        "{apiVersion: v1, kind: ResourceQuota, metadata: {name: all}, spec: {hard: {requests.ephemeral-storage: 1Gi, \
         limits.ephemeral-storage: 1Gi}}}",
    );
    scene.apply(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: all}, spec: {limits: [{type: Container, \
         min: {cpu: 60m, memory: 80Mi}, default: {cpu: 100m, memory: 96Mi, ephemeral-storage: 32Mi}, \
         defaultRequest: {cpu: 60m, memory: 80Mi, ephemeral-storage: 32Mi}}]}}",
    );
}

/// An idle agent with all resources that the quota counts.
fn measured(name: &str) -> Value {
    let all = json!({"cpu": "70m", "memory": "90Mi", "ephemeral-storage": "40Mi"});
    idle_with(name, |pod| pod["containers"][0]["resources"] = json!({"requests": all, "limits": all}))
}

fn b06_b07_are_made(limits: &Scene) {
    create(limits, &measured("newcomer"));
    create(limits, &idle_with("plain", |pod| pod["containers"][0]["resources"] = json!({})));
    let run: Value = serde_json::from_str(&job("run-", &measured("run").to_string())).unwrap();
    assert!(is_wired(&create(limits, &run)), "B06: a Job is wired when it is created");
}

fn b06_b07_quota_and_limit_range_take_merge_ca(limits: &Scene) {
    for name in ["thrifty", "newcomer", "plain"] {
        let spec = until_wired_and_up(limits, "B06, B07", name);
        let [ours, agents] = ["initContainers", "containers"].map(|list| &spec[list][0]["resources"]);
        assert_eq!(ours, agents, "B06, B07: {name} sets the measure");
        merged("B06, B07", &pod_of(limits, name));
    }
    until("B06: the Job's pod runs", || match limits.list("pods", "app=run").first() {
        Some(pod) if pod["status"]["phase"] == "Running" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn b19_is_made(classes: &Scene) {
    classes.apply(
        "{apiVersion: v1, kind: ResourceQuota, metadata: {name: all}, spec: {scopes: [NotBestEffort], \
         hard: {limits.cpu: '1', limits.memory: 512Mi}}}",
    );
    create(classes, &idle_with("frugal", |pod| pod["containers"][0]["resources"] = json!({})));
}

fn b19_best_effort_stays_best_effort(classes: &Scene) {
    until_wired_and_up(classes, "B19", "frugal");
    let pod = pod_of(classes, "frugal");
    assert_eq!(pod["status"]["qosClass"], "BestEffort", "B19");
    merged("B19", &pod);
}

/// It runs, with the options of a Windows pod that Linux passes over.
fn b16_a_job_for_windows_is_left_alone(scene: &Scene) {
    let windows = idle_with("windows", |pod| {
        pod["securityContext"]["windowsOptions"] = json!({"runAsUserName": "ContainerUser"});
    });
    let made: Value = serde_json::from_str(&job("windows-", &windows.to_string())).unwrap();
    let made = create(scene, &made);
    let annotations = &template(&made)["metadata"]["annotations"];
    assert!(annotations[names::ANNOTATION_RECORD].is_null() && env(&made, "MLFLOW_TRACKING_URI").is_none(), "B16");
}

/// Its owner puts a native side container in front later, which is ready only once it has its authorities.
fn b17_is_made(scene: &Scene) {
    scene.apply(&idle("librarian"));
    let embedder = json!({
        "name": "embedder", "image": "demo/langgraph-agent:1", "imagePullPolicy": "IfNotPresent", "restartPolicy": "Always",
        "command": ["sh", "-c", "exec sleep 3600"],
        "startupProbe": {
            "exec": {"command": ["sh", "-c", "test -s /tmp/ca-bundle/combined-ca.crt"]}, "periodSeconds": 1, "failureThreshold": 60,
        },
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let later = idle_with("librarian", |pod| pod["initContainers"] = json!([embedder]));
    until("B17: librarian is wired", || match is_wired(&scene.live("deployments", "librarian")) {
        true => Ok(()),
        false => Err(row(scene, "librarian").to_string()),
    });
    scene.apply(&later.to_string());
}

fn b17_merge_ca_ran_before_the_users_init_container(scene: &Scene) {
    scene.until_rolled_out("librarian");
    let pod = pod_of(scene, "librarian");
    let merged = merged("B17", &pod);
    let statuses = pod["status"]["initContainerStatuses"].as_array().unwrap();
    let embedder = statuses.iter().find(|status| status["name"] == "embedder").expect("B17: embedder");
    let moment = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let (ended, started) = (moment(&merged["finishedAt"]), moment(&embedder["state"]["running"]["startedAt"]));
    assert!(ended <= started, "B17: merge-ca ended at {ended}, embedder began at {started}");
    assert_eq!(embedder["started"], true, "B17: {embedder}");
}

/// A place where no mount point can be made, and one where a device is.
fn b30_b43_are_made(scene: &Scene, device: &BlockDevice) {
    create(
        scene,
        &idle_with("sealed", |pod| {
            pod["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
            pod["containers"][0]["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/tmp", "readOnly": true}]);
        }),
    );
    device.claim(scene, "disk");
    create(
        scene,
        &idle_with("raw", |pod| {
            pod["volumes"] = json!([{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]);
            pod["containers"][0]["volumeDevices"] = json!([{"name": "disk", "devicePath": names::CA_FOLDER}]);
        }),
    );
}

fn b30_b43_the_containers_are_created_and_run(scene: &Scene) {
    for (case, name, kept) in [("B30", "sealed", "mount:/tmp"), ("B43", "raw", "device:/tmp/ca-bundle")] {
        let spec = until_wired_and_up(scene, case, name);
        assert!(spec["initContainers"].is_null(), "{case}: {spec}");
        assert_eq!(pod_of(scene, name)["status"]["phase"], "Running", "{case}");
        until(&format!("{case}: what {name} keeps is told"), || match row(scene, name)["notes"].to_string() {
            notes if notes.contains(kept) => Ok(()),
            notes => Err(notes),
        });
    }
}

fn b41_is_made(scene: &Scene) {
    for number in 0..RUNS {
        let mut run: Value = serde_json::from_str(&job("", &idle("import").to_string())).unwrap();
        let name = format!("import-run{number}-8f{number}");
        run["metadata"] = json!({"name": name, "labels": {names::LABEL_NAME: "import"}});
        let made = create(scene, &run);
        assert_eq!(env(&made, "MLFLOW_EXPERIMENT_NAME"), Some("import"), "B41: {name}");
    }
}

fn b41_unique_jobs_share_an_experiment(scene: &Scene) {
    let experiments = until("B41: their experiment is there", || {
        let status = scene.live("agenttracings", "tracing")["status"].clone();
        let names: Vec<_> =
            status["experiments"].as_array().into_iter().flatten().map(|e| e["name"].to_string()).collect();
        if names.iter().any(|name| name == "\"import\"") { Ok(names) } else { Err(format!("{names:?}")) }
    });
    let of_them = experiments.iter().filter(|name| name.contains("import")).count();
    assert_eq!(of_them, 1, "B41: {RUNS} Jobs have {experiments:?}");
    let uri = env(&scene.live("deployments", "budgeted"), "MLFLOW_TRACKING_URI").unwrap().to_owned();
    let mlflow = Mlflow::shared(scene, &uri);
    mlflow.experiment("import").unwrap();
    assert!(mlflow.experiment("import-run0-8f0").is_err(), "B41");
}

/// The operator never wires a ReplicaSet, whoever made it: its Pods ask for it.
fn b42_is_made(scene: &Scene) {
    scene.kubectl(&["create", "serviceaccount", "rag"]);
    let more = json!({"serviceAccountName": "rag", "terminationGracePeriodSeconds": 1});
    let mut set: Value = serde_json::from_str(&agent("rag", "demo/langgraph-agent:1", more)).unwrap();
    set["kind"] = json!("ReplicaSet");
    set["spec"]["template"]["metadata"]["labels"][names::LABEL_INJECT] = json!("true");
    let made = create(scene, &set);
    assert!(!is_wired(&made), "B42: its template is its owner's");
}

fn b42_a_pod_of_an_unknown_owner_traces(scene: &Scene) {
    until("B42: its account is bound", || {
        let binding = scene.get("rolebindings", names::ROLE_BINDING).ok_or("there is no binding")?;
        let subjects = binding["subjects"].to_string();
        if subjects.contains("\"rag\"") { Ok(()) } else { Err(subjects) }
    });
    let pod = pod_of(scene, "rag");
    assert!(is_wired(&pod), "B42: {}", pod["metadata"]);
    let file = env(&pod, "MLFLOW_TRACKING_TOKEN_FILE").expect("B42: a token file").to_owned();
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let is_there = format!("test -s {file}");
    until("B42: the token is there", || {
        kubectl(&["-n", &scene.namespace, "exec", &name, "-c", "agent", "--", "sh", "-c", &is_there], "")
    });
    let uri = env(&pod, "MLFLOW_TRACKING_URI").unwrap().to_owned();
    Mlflow::shared(scene, &uri).until_traced_since("rag", Timestamp::UNIX_EPOCH);
}

/// No shell is in the image, so that the init container of this strategy cannot be started.
fn b36_is_made(scene: &Scene) {
    let chosen = |mut object: Value| {
        object["metadata"]["annotations"][names::ANNOTATION_TRACING] = json!("shell");
        object
    };
    let shellless = |name: &str| {
        let mut deployment = idle_with(name, |_| {});
        deployment["spec"]["template"]["metadata"]["labels"]["merges"] = json!("itself");
        deployment
    };
    let run = finite(&shellless("nightly"));
    let nightly = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": {"template": run}}},
    });
    for made in [chosen(nightly), chosen(shellless("bare"))] {
        create(scene, &made);
    }
}

fn b36_an_image_without_a_shell_does_without(scene: &Scene) {
    for (resource, name) in [("deployments", "bare"), ("cronjobs", "nightly")] {
        until(&format!("B36: {name} takes its authorities from the ConfigMap"), || {
            let live = scene.live(resource, name);
            let pod = &template(&live)["spec"];
            match pod["volumes"][0]["configMap"]["name"] == names::CA_CONFIG_MAP && pod["initContainers"].is_null() {
                true => Ok(()),
                false => Err(scene.live("agenttracings", "shell")["status"]["workloads"].to_string()),
            }
        });
    }
    scene.until_rolled_out("bare");
    scene.kubectl(&["create", "job", "by-hand", "--from=cronjob/nightly"]);
    until("B36: the next Job's pod runs", || {
        match scene.list("pods", &format!("{}=by-hand", names::LABEL_JOB_NAME)).first() {
            Some(pod) if pod["status"]["phase"] == "Running" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn annotations_without_room_for_a_touch_are_told_and_left_alone(scene: &Scene) {
    until("the refused touch of crowded is told", || match row(scene, "crowded")["notes"].to_string() {
        notes if notes.contains("PatchRefused") => Ok(()),
        notes => Err(notes),
    });
    let live = scene.live("deployments", "crowded");
    assert_eq!(live["metadata"]["generation"], 1, "annotations at the limit: nothing is changed");
    let writes = lines(&scene.audit.writes());
    let tried = writes.lines().filter(|line| line.contains("deployments cases/crowded")).count();
    assert!(tried < 40, "annotations at the limit: {tried} attempts\n{writes}");
    scene.kubectl(&["annotate", "deployment/crowded", &format!("{APPLIED}-")]);
    until_wired_and_up(scene, "annotations at the limit, once there is room", "crowded");
}
