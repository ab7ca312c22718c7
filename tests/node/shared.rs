//! Mode CR against the real shared MLflow with its Kubernetes authorization, in both generations: everything comes too late
//! and in the wrong order, and nobody helps.

use agent_tracing::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::canary::CANARY;
use crate::mlflow::Mlflow;
use crate::operator;
use crate::world::{
    Scene, delete_namespace, env, idle, is_wired, kubectl, say, scene, typed, typed_script, until, world,
};

pub const TRACING: &str = "
apiVersion: agenttracing.dev/v1alpha1
kind: AgentTracing
metadata: {name: tracing}
spec: {mlflow: {mode: CR}}
";

#[test]
#[ignore = "needs the node cluster: make test"]
fn the_shared_mlflow_and_everything_in_the_wrong_order() {
    scene("shared", true, |scene| {
        start_model();
        agents_and_tracing_come_before_the_kind(scene);
        then_the_kind_then_its_resource_then_the_role_each_is_named_while_it_is_missing(scene);
        a_server_and_its_authority_and_traces_arrive_without_a_person(scene);
        the_binding_came_before_the_agents(scene);
        a_deleted_binding_is_healed_and_an_edited_one_too(scene);
        other_namespaces(scene);
        a_guaranteed_pod_of_root_under_a_quota_keeps_its_class_and_starts();
        an_upgrade_moves_the_address_and_rolls_once(scene);
        a_new_authority_is_told_until_everybody_has_it(scene);
        the_binding_goes_with_the_last_agent_tracing(scene);
        typed_script("tests/cr/world.sh", &["down"]);
        delete_namespace("demo-llm");
    });
}

pub fn start_model() {
    until("namespace demo-llm is not being deleted", || match world().get("/api/v1/namespaces/demo-llm") {
        Some(live) if live["metadata"]["deletionTimestamp"].is_string() => Err(live["status"].to_string()),
        _ => Ok(()),
    });
    typed(&["apply", "-f", "tests/demo/manifests/llm.yaml"]);
}

fn agents_and_tracing_come_before_the_kind(scene: &Scene) {
    let untokened = agent("untokened", "demo/langgraph-agent:1", json!({"automountServiceAccountToken": false}));
    scene.apply(&agent("teller", "demo/langgraph-agent:1", json!({})));
    scene.apply(&untokened);
    scene.apply(TRACING);
    scene.until_condition("MLflowReady", "False", "MLflowCRDMissing").ends_with_a_command();
    scene.until_condition("RBACReady", "False", "ClusterRoleMissing").ends_with_a_command();
    scene.until_rolled_out("teller");
    assert!(!is_wired(&scene.live("deployments", "teller")), "it could not work yet");
}

fn then_the_kind_then_its_resource_then_the_role_each_is_named_while_it_is_missing(scene: &Scene) {
    typed(&["apply", "-f", "tests/cr/crd.yaml"]);
    typed(&["wait", "--for=condition=Established", "crd/mlflows.mlflow.opendatahub.io", "--timeout=30s"]);
    scene.until_condition("MLflowReady", "False", "MLflowNotFound").ends_with_a_command();
    // Who may create it is for an administrator to say.
    let create = |create: bool| {
        let patch = json!({"spec": {"mlflow": {"cr": {"create": create}}}}).to_string();
        scene.kubectl(&["patch", "agenttracing", "tracing", "--type=merge", "-p", &patch]);
    };
    create(true);
    let told = scene.until_condition("MLflowReady", "False", "CreateForbidden");
    told.ends_with_a_command().says("--create-mlflow-namespaces");
    create(false);
    until("the kind is served", || kubectl(&["apply", "-f", "tests/cr/mlflow.yaml"], ""));
    for (state, reason) in [("starting", "MLflowNotReady"), ("migration-failed", "MigrationFailed")] {
        typed_script("tests/cr/stand-in.sh", &["a", state]);
        scene.until_condition("MLflowReady", "False", reason).ends_with_a_command();
    }
    typed(&["apply", "-f", "tests/cr/role.yaml"]);
    scene.until_condition("RBACReady", "True", "Bound").ends_with_a_command();
    assert!(!is_wired(&scene.live("deployments", "teller")), "there is no server yet");
}

fn a_server_and_its_authority_and_traces_arrive_without_a_person(scene: &Scene) {
    typed(&["create", "namespace", "redhat-ods-applications"]);
    typed_script("tests/cr/ca.sh", &["make", &scene.namespace]);
    typed_script("tests/cr/world.sh", &["server", "a"]);
    typed_script("tests/cr/stand-in.sh", &["a", "ready"]);
    // The service CA gives every namespace its authority; the operator's own comes last here.
    scene.until_condition("MLflowReady", "False", "TLSUntrusted").ends_with_a_command();
    typed_script("tests/cr/ca.sh", &["publish", names::OPERATOR_NAMESPACE]);
    scene.until_condition("MLflowReady", "True", "Available").says("3.10.1");
    scene.until_condition("WorkspaceReady", "True", "Visible");
    scene.until_condition("Ready", "False", "Skipped").says("untokened");
    scene.until_condition("TracesFlowing", "True", "TracesReceived").ends_with_a_command();
    assert_eq!(scene.rollouts("teller"), 1);
    let live = scene.live("deployments", "teller");
    let uri = env(&live, "MLFLOW_TRACKING_URI").unwrap();
    assert_eq!(uri, "https://mlflow.redhat-ods-applications.svc:8443");
    assert_eq!(env(&live, "MLFLOW_WORKSPACE"), Some(&*scene.namespace));
    assert_eq!(env(&live, "MLFLOW_TRACKING_AUTH"), None, "never two methods");
    let trace = Mlflow::shared(scene, uri).until_traced_since("teller", Timestamp::UNIX_EPOCH);
    say(&format!("{:>9}  trace {} in workspace {}", "", trace.id, scene.namespace));
    // What could not work is as it was, and says so.
    let untokened = scene.live("deployments", "untokened");
    assert_eq!(untokened["metadata"]["generation"], 1);
    let row = row(scene, "untokened");
    assert_eq!((&row["state"], &row["reason"]), (&"Skipped".into(), &"NoServiceAccountToken".into()));
    scene.kubectl(&["delete", "deployment", "untokened"]);
    scene.until_condition("Ready", "True", "TracesReceived");
}

fn the_binding_came_before_the_agents(scene: &Scene) {
    let moment = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let binding = scene.live("rolebindings", names::ROLE_BINDING);
    let rolled = &scene.replica_sets("teller")[1];
    assert!(moment(&binding["metadata"]["creationTimestamp"]) <= moment(&rolled["metadata"]["creationTimestamp"]));
    assert_eq!(binding["roleRef"]["name"], names::INTEGRATION_ROLE);
    let subjects: Vec<_> =
        binding["subjects"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(subjects, [names::OBSERVER, "default"]);
}

fn a_deleted_binding_is_healed_and_an_edited_one_too(scene: &Scene) {
    let bound = |scene: &Scene| {
        let binding = scene.get("rolebindings", names::ROLE_BINDING).ok_or("there is none")?;
        let subjects = binding["subjects"].as_array().map_or(0, Vec::len);
        let role = binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned();
        if subjects == 2 && role == names::INTEGRATION_ROLE { Ok(()) } else { Err(format!("{role} with {subjects}")) }
    };
    scene.kubectl(&["delete", "rolebinding", names::ROLE_BINDING]);
    until("the deleted binding is back", || bound(scene));
    let intruder = r#"[{"op":"add","path":"/subjects/-","value":{"kind":"ServiceAccount","name":"intruder","namespace":"kube-system"}}]"#;
    scene.kubectl(&["patch", "rolebinding", names::ROLE_BINDING, "--type=json", "-p", intruder]);
    until("the intruder is out", || bound(scene));
    // Whom it binds to cannot be changed, so somebody makes another one.
    scene.kubectl(&["delete", "rolebinding", names::ROLE_BINDING]);
    let labels = format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY);
    let _ = kubectl(
        &[
            "-n",
            &scene.namespace,
            "create",
            "rolebinding",
            names::ROLE_BINDING,
            "--clusterrole=view",
            "--serviceaccount=x:y",
        ],
        "",
    );
    let _ = kubectl(&["-n", &scene.namespace, "label", "rolebinding", names::ROLE_BINDING, &labels], "");
    until("it binds to the right role", || bound(scene));
    let uri = tracking_uri(scene);
    Mlflow::shared(scene, &uri).until_traced_since("teller", Timestamp::now());
}

/// Two teams do not see each other, whatever brings their authorities, and whoever is not bound is refused.
fn other_namespaces(scene: &Scene) {
    let second = Scene::second("shared-two", true);
    typed_script("tests/cr/ca.sh", &["publish", &second.namespace]);
    let strategies = [
        ("mapped", "ConfigMap", "TokenFile", "demo/langgraph-agent:1"),
        ("scripted", "AgentInitContainer", "TokenFile", "demo/langgraph-agent:1"),
        ("plugged", "InitContainer", "KubernetesPlugin", "demo/langgraph-plugin-agent:1"),
        // Google's ADK, whose spans go to /v1/traces by OTLP.
        ("courier", "InitContainer", "TokenFile", "demo/adk-agent:1"),
    ];
    for (name, strategy, method, image) in strategies {
        second.apply(&format!(
            "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {{name: {name}}}\nspec: {{mlflow: {{mode: CR}}, \
             caBundle: {{strategy: {strategy}}}, auth: {{method: {method}}}, injection: {{selector: {{matchLabels: {{app: {name}}}}}}}}}"
        ));
        second.apply(&agent(name, image, json!({})));
    }
    for (name, strategy, ..) in strategies {
        until(&format!("traces of {name} ({strategy})"), || {
            let tracing = second.live("agenttracings", name);
            let conditions = tracing["status"]["conditions"].as_array().cloned().unwrap_or_default();
            match conditions.iter().find(|c| c["type"] == "TracesFlowing") {
                Some(flowing) if flowing["reason"] == "TracesReceived" => Ok(()),
                _ => Err(tracing["status"]["conditions"][0].to_string()),
            }
        });
        let live = second.live("deployments", name);
        let init = live["spec"]["template"]["spec"]["initContainers"].as_array().map_or(0, Vec::len);
        assert_eq!(init, usize::from(strategy != "ConfigMap"));
    }
    a_server_that_nobody_may_ask_is_used_and_said_to_be_so(&second);
    let (ours, theirs) = (Mlflow::shared(scene, &tracking_uri(scene)), Mlflow::shared(&second, &tracking_uri(scene)));
    assert!(ours.traces("mapped").is_err(), "another workspace's");
    assert!(theirs.traces("teller").is_err(), "another workspace's");
    let third = Scene::second("shared-unbound", false);
    assert!(Mlflow::shared(&third, &tracking_uri(scene)).traces("teller").is_err(), "whoever is not bound");
}

fn a_server_that_nobody_may_ask_is_used_and_said_to_be_so(scene: &Scene) {
    scene.apply(
        "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {name: outside}\nspec: {mlflow: {mode: External, \
         external: {trackingURI: 'https://mlflow.example.com/base', workspace: team}}, injection: {selector: {matchLabels: {app: outsider}}}}",
    );
    scene.apply(&idle("outsider"));
    let wiring = until("outsider is wired to a server that was never asked", || {
        let live = scene.live("deployments", "outsider");
        match env(&live, "MLFLOW_TRACKING_URI") {
            Some(uri) => Ok((uri.to_owned(), env(&live, "MLFLOW_WORKSPACE").map(str::to_owned))),
            None => Err(scene.live("agenttracings", "outside")["status"].to_string()),
        }
    });
    assert_eq!(wiring, ("https://mlflow.example.com/base".to_owned(), Some("team".to_owned())));
    let status = scene.live("agenttracings", "outside")["status"].clone();
    let conditions = status["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "MLflowReady").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&"Unknown".into(), &"NotObservable".into()), "{ready}");
}

/// Our init container asks for as much as it is limited to, and for no uid of root's.
fn a_guaranteed_pod_of_root_under_a_quota_keeps_its_class_and_starts() {
    let quota = Scene::second("shared-quota", true);
    typed(&["label", "--overwrite", "namespace", &quota.namespace, "pod-security.kubernetes.io/enforce=baseline"]);
    typed_script("tests/cr/ca.sh", &["publish", &quota.namespace]);
    quota.apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: all}, spec: {hard: {limits.cpu: '2', limits.memory: 1Gi, requests.cpu: '2', requests.memory: 1Gi}}}");
    quota.apply("{apiVersion: v1, kind: LimitRange, metadata: {name: all}, spec: {limits: [{type: Container, default: {cpu: 100m, memory: 64Mi}, max: {cpu: '1', memory: 512Mi}, min: {cpu: 10m, memory: 16Mi}}]}}");
    quota.apply(TRACING);
    let mut rooted: Value = serde_json::from_str(&idle("rooted")).unwrap();
    let pod = &mut rooted["spec"]["template"]["spec"];
    pod["securityContext"] = json!({"runAsUser": 0});
    let all = json!({"cpu": "20m", "memory": "32Mi"});
    pod["containers"][0]["resources"] = json!({"limits": all, "requests": all});
    quota.apply(&rooted.to_string());
    quota.until_wired("rooted");
    quota.until_rolled_out("rooted");
    let pod =
        quota.list("pods", "app=rooted").into_iter().find(|p| p["metadata"]["deletionTimestamp"].is_null()).unwrap();
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    let log = quota.kubectl(&["logs", pod["metadata"]["name"].as_str().unwrap(), "-c", "merge-ca"]);
    say(&format!("{:>9}  merge-ca: {}", "", log.lines().last().unwrap_or_default()));
}

fn an_upgrade_moves_the_address_and_rolls_once(scene: &Scene) {
    let before = scene.rollouts("teller");
    let old = Mlflow::shared(scene, &tracking_uri(scene)).finished("teller");
    typed_script("tests/cr/world.sh", &["upgrade", "b"]);
    until("the address is the new one's", || match tracking_uri(scene) {
        uri if uri.ends_with(":8443/mlflow") => Ok(()),
        uri => Err(uri),
    });
    scene.until_rolled_out("teller");
    scene.until_condition("Ready", "True", "TracesReceived");
    assert_eq!(scene.rollouts("teller"), before + 1, "one rollout");
    let mlflow = Mlflow::shared(scene, &tracking_uri(scene));
    mlflow.until_traced_since("teller", Timestamp::now());
    assert!(mlflow.finished("teller").is_superset(&old), "the traces of before are there");
}

fn a_new_authority_is_told_until_everybody_has_it(scene: &Scene) {
    let operators = ["-n", names::OPERATOR_NAMESPACE, "get", "configmap", "openshift-service-ca.crt", "-o", "json"];
    let mut old: Value = serde_json::from_str(&typed(&operators)).unwrap();
    typed_script("tests/cr/ca.sh", &["rotate"]);
    // The kubelet may bring the operator the new one before the server has its certificate: here it comes late.
    old["metadata"].as_object_mut().unwrap().retain(|field, _| ["name", "namespace"].contains(&field.as_str()));
    kubectl(&["apply", "-f", "-"], &old.to_string()).unwrap();
    typed(&["-n", "redhat-ods-applications", "rollout", "restart", "deployment/mlflow"]);
    scene.until_condition("MLflowReady", "False", "TLSUntrusted").ends_with_a_command();
    typed_script("tests/cr/ca.sh", &["publish", names::OPERATOR_NAMESPACE]);
    // The kubelet brings it to the operator within about a minute; agents read theirs at their next start.
    scene.until_condition("MLflowReady", "True", "Available");
    scene.kubectl(&["rollout", "restart", "deployment/teller"]);
    scene.until_rolled_out("teller");
    Mlflow::shared(scene, &tracking_uri(scene)).until_traced_since("teller", Timestamp::now());
}

fn the_binding_goes_with_the_last_agent_tracing(scene: &Scene) {
    operator::stop();
    scene.kubectl(&["delete", "agenttracing", "tracing", "--timeout=10s"]);
    until("the binding went with it, with no operator running", || {
        match scene.get("rolebindings", names::ROLE_BINDING) {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        }
    });
    typed(&["apply", "-k", "config/default"]);
}

fn tracking_uri(scene: &Scene) -> String {
    let live = scene.live("deployments", "teller");
    env(&live, "MLFLOW_TRACKING_URI").unwrap().to_owned()
}

fn row(scene: &Scene, name: &str) -> Value {
    let status = scene.live("agenttracings", "tracing")["status"].clone();
    status["workloads"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
}

/// An agent as its team wrote it, with more for its pod.
pub fn agent(name: &str, image: &str, more: Value) -> String {
    let mut pod = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "agent",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "workingDir": "/tmp",
            "env": [
                {"name": "OPENAI_BASE_URL", "value": "http://llm.demo-llm.svc/v1"},
                {"name": "OPENAI_API_KEY", "value": CANARY},
                {"name": "QUESTION_EVERY_SECONDS", "value": "3"},
            ],
            "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    });
    pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
    .to_string()
}
