//! The certificate authorities of running pods: which they lack is told.

use agent_tracing::names;
use serde_json::{Value, json};

use crate::authorities::Authority;
use crate::check::{assert_broken, broken, check, type_what_it_says};
use crate::world::{Scene, idle, scene, until};

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
            let said = assert_broken(scene, LINK, "kubectl rollout restart -n trust deployment/teller");
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
        let said = assert_broken(scene, LINK, "kubectl delete configmap -n trust agenttracing-ca");
        assert!(said.contains("is not the operator's and lacks root of the fourth year (sha256 "), "{said}");
        type_what_it_says(&said);
        until_all_is_well(scene, "ConfigMap: the operator's own has it");
    });
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
        match links.iter().filter(|link| link["state"] != "good").count() {
            1 if good && links.last().unwrap()["link"] == "traces" => Ok(()),
            _ => Err(format!("{:?} {:?}", broken(&links), links.iter().find(|link| link["state"] != "good"))),
        }
    });
}

fn with_a_shell(deployment: &str) -> String {
    let mut deployment: Value = serde_json::from_str(deployment).unwrap();
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!("demo/langgraph-agent:1");
    container["command"] = json!(["sh", "-c", "exec sleep 3600"]);
    deployment.to_string()
}
