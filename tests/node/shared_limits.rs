//! Where an administrator draws limits around the shared MLflow: who may create it, whom the operator may ask, which rights are
//! too narrow for spans, which namespaces are workspaces.

use std::collections::BTreeSet;

use agent_tracing::names;
use serde_json::{Value, json};

use crate::audit::lines;
use crate::egress::Egress;
use crate::newcomers;
use crate::operator;
use crate::shared::{TRACING, agent, start_model};
use crate::world::{
    Scene, collection, delete_namespace, env, idle, is_wired, kubectl, say, scene, typed, typed_script,
    typed_script_with, until, world,
};

const SERVER: &str = "https://mlflow.redhat-ods-applications.svc:8443";
const TRUSTED: &str = "mlflow.redhat-ods-applications.svc";
const WITNESS: &str = "witness.limits-witness.svc";
const INTEGRATION: &str = "--clusterrole=mlflow-operator-mlflow-integration";

#[test]
#[ignore = "needs the node cluster: make test"]
fn the_shared_mlflow_and_what_an_administrator_allows() {
    scene("limits", true, |scene| {
        start_model();
        let witness = a_server_that_no_administrator_listed();
        the_mlflow_resource_is_created_where_it_may_be_and_never_touched(scene);
        let egress = Egress::record();
        typed_script("tests/cr/world.sh", &["server", "a"]);
        typed_script("tests/cr/stand-in.sh", &["a", "ready"]);

        let narrow = a_team_binds_its_agent_too_narrowly();
        let public = agents_that_use_a_public_site_too();
        newcomers::twenty_of_twenty_are_bound_before_their_first_request();
        both_authorities_are_trusted(&public);
        spans_that_are_refused_are_told_until_the_right_is_wide_enough(&narrow);
        drop((narrow, public));
        a_namespace_that_is_no_workspace_is_told_the_label(scene);
        a_role_that_is_narrowed_later_is_told(scene);
        a_server_without_workspaces_is_for_mode_external(scene);

        nobody_else_was_asked(&egress);
        an_administrator_lists_a_host_and_it_is_asked(&witness);
        operator::set_options(&["CREATE_MLFLOW_NAMESPACES-", "TRUSTED_MLFLOW_HOSTS-", "MLFLOW_TOKEN_HOSTS-"]);
        typed(&["apply", "-k", "config/default"]);
        typed_script("tests/cr/world.sh", &["down"]);
        delete_namespace("demo-llm");
    });
}

/// The switch alone is not enough: the chart grants the verb with it, with `kubectl apply -k` an administrator does.
fn the_mlflow_resource_is_created_where_it_may_be_and_never_touched(scene: &mut Scene) {
    typed(&["apply", "-f", "tests/cr/crd.yaml", "-f", "tests/cr/role.yaml"]);
    typed(&["wait", "--for=condition=Established", "crd/mlflows.mlflow.opendatahub.io", "--timeout=30s"]);
    typed(&["create", "namespace", "redhat-ods-applications"]);
    // The operator's pods mount it when they start; one that comes later comes within a minute.
    typed_script("tests/cr/ca.sh", &["make", &scene.namespace, names::OPERATOR_NAMESPACE]);
    operator::set_options(&[
        &format!("CREATE_MLFLOW_NAMESPACES=elsewhere,{}", scene.namespace),
        &format!("TRUSTED_MLFLOW_HOSTS={TRUSTED}"),
        &format!("MLFLOW_TOKEN_HOSTS={TRUSTED}:8443"),
    ]);
    scene.apply(&creating(1));
    let told = scene.until_condition("MLflowReady", "False", "CreateForbidden");
    told.ends_with_a_command().says("mlflows.mlflow.opendatahub.io is forbidden");
    assert!(!operator::may("create", "mlflows.mlflow.opendatahub.io"));
    scene.apply(&creating(1).replace("workers: 2", "workers: 2, serveArtifacts: false"));
    operator::grant_as_the_chart_with(&format!("createMlflowNamespaces={{{}}}", scene.namespace));
    for (verb, expected) in [("get", true), ("create", true), ("update", false), ("patch", false), ("delete", false)] {
        assert_eq!(operator::may(verb, "mlflows.mlflow.opendatahub.io"), expected, "{verb}");
    }
    a_template_that_the_schema_refuses_names_its_field(scene);
    let created = until("the operator has created the MLflow resource", || mlflow().ok_or("there is none".to_owned()));
    scene.audit.restart();
    let expected = json!({
        "artifactsDestination": "file:///mlflow/artifacts", "backendStoreUri": "sqlite:////mlflow/mlflow.db", "replicas": 1,
        // The account is the kind's own default: no template chooses one.
        "serveArtifacts": true, "serviceAccountName": "mlflow-sa", "workers": 2,
        "storage": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    });
    assert_eq!(created["spec"], expected);
    assert!(created["metadata"]["ownerReferences"].is_null(), "nothing takes it away");
    scene.until_condition("MLflowReady", "False", "MLflowNotReady");

    // Once it is there it is its administrator's, whatever the template says.
    typed(&["patch", "mlflow", "mlflow", "--type=merge", "-p", r#"{"spec": {"workers": 1}}"#]);
    scene.apply(&creating(3));
    until("the new template is seen", || {
        let tracing = scene.live("agenttracings", "tracing");
        match tracing["status"]["observedGeneration"] == tracing["metadata"]["generation"] {
            true => Ok(()),
            false => Err(tracing["status"].to_string()),
        }
    });
    scene.live("rolebindings", names::ROLE_BINDING);
    // Its RoleBinding, which it owns, goes with it: by then the MLflow resource would have gone too.
    scene.kubectl(&["delete", "agenttracing", "tracing", "--timeout=10s"]);
    until("what the AgentTracing owns is gone", || match scene.get("rolebindings", names::ROLE_BINDING) {
        None => Ok(()),
        Some(_) => Err("the binding is there".to_owned()),
    });
    let left = mlflow().unwrap();
    assert_eq!(left["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!((&left["spec"]["workers"], &left["spec"]["replicas"]), (&1.into(), &1.into()));
    let writes = lines(&scene.audit.writes());
    assert!(!writes.contains(" mlflows "), "written by the operator:\n{writes}");
    scene.apply(TRACING);
}

/// Issue 11, section 3, point 9: it was told as a missing right, with a command that answers yes.
fn a_template_that_the_schema_refuses_names_its_field(scene: &Scene) {
    let told = scene.until_condition("MLflowReady", "False", "TemplateInvalid");
    told.ends_with_a_command()
        .says("refused: spec: ")
        .says("defaultArtifactRoot must be set when serveArtifacts is not true");
    scene.until_condition("Ready", "False", "TemplateInvalid");
    scene.apply(&creating(1));
}

fn creating(replicas: u8) -> String {
    format!(
        "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {{name: tracing}}\nspec: {{mlflow: {{mode: CR, cr: \
         {{create: true, template: {{replicas: {replicas}, workers: 2}}}}}}}}"
    )
}

fn mlflow() -> Option<Value> {
    world().get(&format!("{}/mlflow", collection("mlflows", "")))
}

/// A server that somebody else runs, for which teams make their bindings themselves. MLflow asks for the upload of spans in the
/// whole workspace, so that a right on one experiment lets rows in and no spans.
fn a_team_binds_its_agent_too_narrowly() -> Scene {
    let team = Scene::second("limits-narrow", true);
    typed_script("tests/cr/ca.sh", &["publish", &team.namespace]);
    team.apply(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: teller}, rules: [\
         {apiGroups: [mlflow.kubeflow.org], resources: [experiments], resourceNames: [teller], verbs: [get, update]}]}",
    );
    bind(&team, "teller", "--role=teller", &format!("{}:default", team.namespace));
    bind(&team, "operator", INTEGRATION, &format!("{}:{}", names::OPERATOR_NAMESPACE, names::OBSERVER));
    team.apply(&external(SERVER, ", workspace: limits-narrow", ", auth: {method: TokenFile}"));
    team.apply(&agent("teller", "demo/langgraph-agent:1", json!({})));
    team.until_condition("MLflowReady", "True", "Available");
    team
}

fn spans_that_are_refused_are_told_until_the_right_is_wide_enough(team: &Scene) {
    let told = team.until_condition("TracesFlowing", "False", "TracesWithoutSpans");
    told.ends_with_a_command().says("in experiment teller:");
    team.until_condition("Ready", "False", "TracesWithoutSpans");
    // The command that it ends with.
    told.says(": kubectl logs -n limits-narrow deployment/teller");
    let log = team.kubectl(&["logs", "deployment/teller", "-c", "agent"]);
    assert!(log.contains("403 Client Error: Forbidden for url") && log.contains("traces.json"), "{log}");
    bind(team, "agents", INTEGRATION, &format!("{}:default", team.namespace));
    // MLflow keeps what it has refused to a token for 300 s: a new pod has a new one.
    team.kubectl(&["rollout", "restart", "deployment/teller"]);
    team.until_condition("TracesFlowing", "True", "TracesReceived");
    team.until_condition("Ready", "True", "TracesReceived");
    let live = team.live("deployments", "teller");
    assert_eq!(env(&live, "MLFLOW_TRACKING_URI"), Some(SERVER));
    assert_eq!(env(&live, "MLFLOW_WORKSPACE"), Some("limits-narrow"));
    assert_eq!(env(&live, "MLFLOW_TRACKING_TOKEN_FILE"), Some("/var/run/secrets/kubernetes.io/serviceaccount/token"));
    assert!(team.get("rolebindings", names::ROLE_BINDING).is_none(), "whoever runs the server binds");
}

fn bind(team: &Scene, name: &str, role: &str, account: &str) {
    team.kubectl(&["create", "rolebinding", name, role, &format!("--serviceaccount={account}")]);
}

/// An AgentTracing of mode External, with more for `external` and for the spec.
fn external(uri: &str, more: &str, rest: &str) -> String {
    format!(
        "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {{name: tracing}}\nspec: {{mlflow: {{mode: External, \
         external: {{trackingURI: '{uri}'{more}}}}}, caBundle: {{mode: Always}}{rest}}}"
    )
}

/// Python's `requests` trusts what REQUESTS_CA_BUNDLE names and nothing else, for all that an agent asks.
fn agents_that_use_a_public_site_too() -> Scene {
    let team = Scene::second("limits-public", true);
    typed_script("tests/cr/ca.sh", &["publish", &team.namespace]);
    typed_script("tests/cr/site.sh", &[&team.namespace]);
    let script = "import os, time\n\
        import certifi, requests\n\
        def get(url, **more):\n    \
            try:\n        return requests.get(url, timeout=5, **more).status_code\n    \
            except requests.exceptions.SSLError:\n        return 'untrusted'\n    \
            except requests.exceptions.RequestException as error:\n        return type(error).__name__\n\
        uri, site = os.environ.get('MLFLOW_TRACKING_URI'), 'https://site.limits-public.svc'\n\
        while True:\n    \
            if uri: print('site', get(site), 'without our bundle', get(site, verify=certifi.where()), 'mlflow', get(uri + '/mlflow/health'))\n    \
            time.sleep(1)\n";
    let choices = [
        // The authority comes by a ConfigMap, or with the agent's own image.
        (
            "carried",
            "strategy: InitContainer, configMaps: [{name: corporate-cas, key: ca.crt}]",
            "demo/langgraph-agent:1",
        ),
        ("baked", "strategy: AgentInitContainer", "demo/corporate-agent:1"),
    ];
    for (name, bundle, image) in choices {
        team.apply(&format!(
            "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {{name: {name}}}\nspec: {{mlflow: {{mode: CR}}, \
             caBundle: {{{bundle}}}, injection: {{selector: {{matchLabels: {{app: {name}}}}}}}}}"
        ));
        team.apply(&scripted(name, image, "default", script));
    }
    team
}

fn both_authorities_are_trusted(team: &Scene) {
    for name in ["carried", "baked"] {
        until(&format!("{name} trusts a public site and MLflow"), || {
            let deployment = format!("deployment/{name}");
            let log = kubectl(&["-n", &team.namespace, "logs", &deployment, "-c", "agent", "--tail=1"], "")?;
            if log == "site 200 without our bundle untrusted mlflow 200\n" { Ok(()) } else { Err(log) }
        });
    }
}

/// An agent with a script in place of its program.
pub fn scripted(name: &str, image: &str, account: &str, script: &str) -> String {
    let more = json!({"serviceAccountName": account, "terminationGracePeriodSeconds": 1});
    let mut deployment: Value = serde_json::from_str(&agent(name, image, more)).unwrap();
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["command"] = json!(["python", "-u", "-c", script]);
    container["resources"] = json!({"requests": {"cpu": "5m", "memory": "48Mi"}});
    deployment.to_string()
}

fn a_namespace_that_is_no_workspace_is_told_the_label(scene: &Scene) {
    scene.until_condition("WorkspaceReady", "True", "Visible");
    typed_script("tests/cr/world.sh", &["hide", "bank/tracing=yes"]);
    let told = scene.until_condition("WorkspaceReady", "False", "NamespaceLabelMissing");
    scene.until_condition("Ready", "False", "NamespaceLabelMissing");
    scene.apply(&agent("advisor", "demo/langgraph-agent:1", json!({})));
    let (_, command) = told.ends_with_a_command().message.rsplit_once(": kubectl ").unwrap();
    say(&format!("{:>9}  kubectl {command}", ""));
    typed(&command.split(' ').collect::<Vec<_>>());
    scene.until_condition("WorkspaceReady", "True", "Visible");
    scene.until_condition("TracesFlowing", "True", "TracesReceived");
    scene.until_condition("Ready", "True", "TracesReceived");
}

/// MLflow itself goes on with what it has granted, for 300 s.
fn a_role_that_is_narrowed_later_is_told(scene: &Scene) {
    let narrow = r#"[{"op": "add", "path": "/rules/0/resourceNames", "value": ["advisor"]}]"#;
    typed(&["patch", "clusterrole", names::INTEGRATION_ROLE, "--type=json", "-p", narrow]);
    let told = scene.until_condition("RBACReady", "False", "AccessDenied");
    told.ends_with_a_command().says("still may not get experiments.mlflow.kubeflow.org");
    scene.until_condition("Ready", "False", "AccessDenied");
    typed(&["apply", "-f", "tests/cr/role.yaml"]);
    scene.until_condition("RBACReady", "True", "Bound");
    scene.until_condition("Ready", "True", "TracesReceived");
}

/// With MLFLOW_WORKSPACE such a server answers every request with 500.
fn a_server_without_workspaces_is_for_mode_external(scene: &Scene) {
    typed_script_with(&[("WORKSPACES", "off")], "tests/cr/world.sh", &["server", "a"]);
    scene.until_condition("WorkspaceReady", "False", "WorkspacesDisabled").ends_with_a_command().says("mode External");
    scene.until_condition("Ready", "False", "WorkspacesDisabled");
    until("no agent sends to a workspace", || {
        let advisor = scene.live("deployments", "advisor");
        match env(&advisor, "MLFLOW_WORKSPACE") {
            None if is_wired(&advisor) => Ok(()),
            other => Err(format!("{other:?}; {}", scene.live("agenttracings", "tracing")["status"])),
        }
    });
    let single = Scene::second("limits-single", true);
    typed_script("tests/cr/ca.sh", &["publish", &single.namespace]);
    single.apply(&external(SERVER, "", ""));
    single.apply(&agent("lender", "demo/langgraph-agent:1", json!({})));
    single.until_condition("TracesFlowing", "True", "TracesReceived");
    single.until_condition("Ready", "True", "TracesReceived");
    let lender = single.live("deployments", "lender");
    assert_eq!(env(&lender, "MLFLOW_TRACKING_URI"), Some(SERVER));
    for absent in ["MLFLOW_WORKSPACE", "MLFLOW_TRACKING_TOKEN_FILE", "MLFLOW_TRACKING_AUTH"] {
        assert_eq!(env(&lender, absent), None, "{absent}");
    }
}

/// It tells who connects to it.
fn a_server_that_no_administrator_listed() -> Scene {
    let witness = Scene::second("limits-witness", true);
    let script = "import socket\n\
        server = socket.create_server(('', 8080))\n\
        print('listening')\n\
        while True:\n    \
            connection, peer = server.accept()\n    print('connection from', peer[0])\n    connection.close()\n";
    let mut deployment: Value =
        serde_json::from_str(&scripted("witness", "demo/openai-stand-in:1", "default", script)).unwrap();
    deployment["metadata"]["labels"] = json!({names::LABEL_INJECT: "false"});
    witness.apply(&deployment.to_string());
    witness.kubectl(&["expose", "deployment", "witness", "--port=80", "--target-port=8080"]);
    until("the witness listens", || match told_by_the_witness()?.as_str() {
        "listening\n" => Ok(()),
        more => Err(more.to_owned()),
    });
    witness.apply(&external(&format!("http://{WITNESS}"), "", ""));
    witness.apply(&idle("teller"));
    witness.until_condition("MLflowReady", "Unknown", "NotObservable").ends_with_a_command().says(WITNESS);
    until("teller is wired to the witness", || match is_wired(&witness.live("deployments", "teller")) {
        true => Ok(()),
        false => Err(witness.live("agenttracings", "tracing")["status"].to_string()),
    });
    witness
}

fn told_by_the_witness() -> Result<String, String> {
    kubectl(&["-n", "limits-witness", "logs", "deployment/witness"], "")
}

/// The kernel's record of all that both replicas connected to since `Egress::record`.
fn nobody_else_was_asked(egress: &Egress) {
    let address = |namespace: &str, service: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/services/{service}");
        world().get(&path).unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned()
    };
    let mlflow = format!("{} tcp 8443", address("redhat-ods-applications", "mlflow"));
    let api = format!("{} tcp 443", address("default", "kubernetes"));
    let dns =
        operator::name_servers().into_iter().flat_map(|server| ["udp", "tcp"].map(|by| format!("{server} {by} 53")));
    let allowed: BTreeSet<String> = dns.chain([mlflow.clone(), api]).collect();
    let seen = egress.destinations();
    say(&format!("{:>9}  the operator connected to {seen:?}", ""));
    assert!(seen.is_subset(&allowed), "beyond {allowed:?}");
    assert!(seen.contains(&mlflow), "what it asks is seen");
    assert_eq!(told_by_the_witness().unwrap(), "listening\n", "an unlisted host is never contacted");
}

/// The same witness, and the same record: they would have told.
fn an_administrator_lists_a_host_and_it_is_asked(witness: &Scene) {
    witness.until_condition("Ready", "True", "WaitingForTraces");
    let wired = witness.live("deployments", "teller")["metadata"]["generation"].clone();
    operator::set_options(&[&format!("TRUSTED_MLFLOW_HOSTS={TRUSTED},{WITNESS}")]);
    let egress = Egress::record();
    witness.until_condition("MLflowReady", "False", "Unreachable").ends_with_a_command();
    assert!(told_by_the_witness().unwrap().contains("\nconnection from "));
    let address = witness.live("services", "witness")["spec"]["clusterIP"].clone();
    let address = format!("{} tcp 80", address.as_str().unwrap());
    until("the kernel tells of it too", || match egress.destinations() {
        seen if seen.contains(&address) => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    assert_eq!(witness.live("deployments", "teller")["metadata"]["generation"], wired, "no answer changes no wiring");
}
