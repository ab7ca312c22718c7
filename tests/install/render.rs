use agent_tracing::core::selection::kind::Kind;
use agent_tracing::names;
use serde_json::{Value, json};

use crate::rendered::{is_hook, pod_and_replicas, read, same, strings, template};
use crate::{CHART, documents, helm, kubectl, kustomize, object};

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn kustomize_and_helm_render_the_same_objects() {
    // The one difference: Helm's convention is `--create-namespace`, so the chart has no Namespace.
    let (namespaces, kustomize): (Vec<_>, Vec<_>) =
        kustomize().into_iter().partition(|object| object["kind"] == "Namespace");
    assert_eq!(namespaces.len(), 1);
    let chart = template(names::OPERATOR_NAMESPACE, &[]);
    let (hooks, chart): (Vec<_>, Vec<_>) = chart.into_iter().partition(is_hook);
    same("config/default", kustomize, chart);
    same("config/uninstall", documents(&kubectl(&["kustomize", "config/uninstall"]).ok()), hooks);
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn uninstalling_is_a_hook_of_its_own_account_whose_rights_go_with_it() {
    let objects = template("tools", &[]);
    let hooks: Vec<_> = objects.iter().filter(|object| is_hook(object)).collect();
    let mut weights = Vec::new();
    for hook in &hooks {
        let annotations = &hook["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook"], "pre-delete");
        assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded");
        weights.push((
            annotations["helm.sh/hook-weight"].as_str().expect("a weight"),
            hook["kind"].as_str().expect("a kind"),
        ));
    }
    weights.sort_unstable();
    let expected =
        ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"].map(|kind| ("0", kind));
    assert_eq!(weights, [&expected[..], &[("1", "Job")]].concat());
    let job = hooks.iter().find(|hook| hook["kind"] == "Job").expect("a Job");
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["args"], json!(["uninstall", "--operator-namespace", "tools"]));
    let asked = template("tools", &["uninstall.deleteTracings=true"]);
    let args = asked.iter().filter(|o| is_hook(o)).find(|o| o["kind"] == "Job").expect("a Job");
    let args = &args["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(args, &json!(["uninstall", "--operator-namespace", "tools", "--delete-tracings"]));
    let operator = object(&objects, "Deployment", "agent-tracing-operator");
    assert_eq!(pod["containers"][0]["image"], operator["spec"]["template"]["spec"]["containers"][0]["image"]);
    // Or its pod would count as one of the operator's: an endpoint of the webhook, protected by the disruption budget.
    assert_ne!(job["spec"]["template"]["metadata"]["labels"][names::LABEL_NAME], names::MANAGED_BY);

    assert!(!template("tools", &["uninstall.cleanUp=false"]).iter().any(is_hook));
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn an_excluded_namespace_is_excluded_by_the_api_server_and_by_the_operator() {
    let objects = template("tools", &["excludedNamespaces={bank,0123}"]);
    for webhook in object(&objects, "MutatingWebhookConfiguration", names::WEBHOOK_CONFIGURATION)["webhooks"]
        .as_array()
        .expect("a list")
    {
        let values = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
        assert_eq!(values, &json!(["kube-system", "kube-public", "kube-node-lease", "tools", "bank", "0123"]));
    }
    let operator = object(&objects, "Deployment", "agent-tracing-operator").to_string();
    assert!(operator.contains(r#"{"name":"EXCLUDED_NAMESPACES","value":"bank,0123"}"#), "{operator}");
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn the_network_policy_leaves_the_webhook_open_and_metrics_to_whom_it_names() {
    let policy = |set: &[&str]| {
        let set = [&["networkPolicy.enabled=true"], set].concat();
        object(&template("tools", &set), "NetworkPolicy", "agent-tracing-operator")["spec"].clone()
    };
    let webhook = json!({"ports": [{"port": "webhook", "protocol": "TCP"}]});
    let selector = json!({"matchLabels": {names::LABEL_NAME: names::MANAGED_BY}});
    assert_eq!(policy(&[]), json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [webhook]}));
    let open = policy(&[
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=watch",
        "networkPolicy.egress[0].ports[0].port=443",
    ]);
    let metrics = json!({
        "ports": [{"port": "http", "protocol": "TCP"}],
        "from": [{"namespaceSelector": {"matchLabels": {"team": "watch"}}}],
    });
    let expected = json!({
        "podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": [webhook, metrics],
        "egress": [{"ports": [{"port": 443}]}],
    });
    assert_eq!(open, expected);
    // The names of the ports are the pods'.
    let objects = template("tools", &[]);
    let ports =
        &object(&objects, "Deployment", "agent-tracing-operator")["spec"]["template"]["spec"]["containers"][0]["ports"];
    let named: Vec<_> = ports.as_array().expect("ports").iter().map(|port| &port["name"]).collect();
    assert_eq!(named, ["webhook", "http"]);
    assert!(objects.iter().all(|object| object["kind"] != "NetworkPolicy"));
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn names_are_those_of_the_code() {
    let objects = kustomize();
    let deployment = object(&objects, "Deployment", "agent-tracing-operator");
    assert_eq!(deployment["metadata"]["namespace"], names::OPERATOR_NAMESPACE);
    assert_eq!(deployment["spec"]["template"]["spec"]["serviceAccountName"], names::SERVICE_ACCOUNT);
    object(&objects, "ServiceAccount", names::SERVICE_ACCOUNT);

    let service = object(&objects, "Service", names::WEBHOOK_SERVICE);
    assert_eq!(service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"]);

    let rules = object(&objects, "Role", "agent-tracing-operator")["rules"].as_array().expect("rules");
    let named: Vec<_> = rules.iter().filter_map(|rule| rule["resourceNames"][0].as_str()).collect();
    assert_eq!(named, [names::LEASE, names::WEBHOOK_CA_SECRET, names::OBSERVER]);
    assert_eq!(object(&objects, "ServiceAccount", names::OBSERVER)["automountServiceAccountToken"], false);

    let webhooks = &object(&objects, "MutatingWebhookConfiguration", names::WEBHOOK_CONFIGURATION)["webhooks"];
    let webhooks = webhooks.as_array().expect("webhooks");
    for webhook in webhooks {
        assert_eq!(webhook["clientConfig"]["service"]["name"], names::WEBHOOK_SERVICE);
        assert_eq!(webhook["clientConfig"]["service"]["namespace"], names::OPERATOR_NAMESPACE);
        assert_eq!(webhook["clientConfig"]["service"]["path"], names::WEBHOOK_PATH);
        assert_eq!(webhook["clientConfig"].get("caBundle"), None, "the operator owns it");
        let selector = &webhook["namespaceSelector"];
        assert_eq!(selector["matchLabels"], json!({ names::LABEL_INJECTION: names::ENABLED }));
        assert_eq!(selector["matchExpressions"][0]["key"], names::LABEL_NAMESPACE_NAME);
    }
    let conditions = webhooks[0]["matchConditions"].to_string();
    assert!(conditions.contains(&format!("'{}'", names::ANNOTATION_TOUCH)));
    assert!(conditions.contains(&format!("'{}'", names::LABEL_INJECT)));
    assert_eq!(webhooks[1]["objectSelector"], json!({"matchLabels": {names::LABEL_INJECT: "true"}}));
    let rules = webhooks.iter().flat_map(|webhook| webhook["rules"].as_array().expect("rules"));
    let mut kinds: Vec<_> = rules
        .flat_map(|rule| {
            let update = rule["operations"] == json!(["CREATE", "UPDATE"]);
            strings(&rule["resources"]).map(move |resource| (rule["apiGroups"][0].as_str(), resource, update))
        })
        .collect();
    kinds.sort();
    let mut wired = Kind::ALL.map(|kind| (Some(kind.group()), kind.plural(), kind.template_is_mutable()));
    wired.sort();
    assert_eq!(kinds, wired);
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn versions_are_the_crates_own() {
    let version = env!("CARGO_PKG_VERSION");
    let deployment = object(&kustomize(), "Deployment", "agent-tracing-operator").clone();
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &json!(format!("ghcr.io/agenttracing/agent-tracing-operator:v{version}")));
    let chart = &documents(&read(&format!("{CHART}/Chart.yaml")))[0];
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], format!("v{version}"));
    assert!(read("Dockerfile").contains(&format!("image.version=\"v{version}\"")));
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn no_right_is_wider_than_promised() {
    for object in kustomize() {
        let Some(rules) = object["rules"].as_array() else { continue };
        for rule in rules {
            let cluster_wide = object["kind"] == "ClusterRole";
            assert!(!rule.to_string().contains('*'), "{rule}");
            for verb in strings(&rule["verbs"]) {
                assert!(!["escalate", "impersonate"].contains(&verb), "{rule}");
                // Whoever may bind to any ClusterRole is an administrator.
                let one = rule["resourceNames"] == json!([names::INTEGRATION_ROLE]);
                assert!(verb != "bind" || (one && rule["resources"] == json!(["clusterroles"])), "{rule}");
            }
            for resource in strings(&rule["resources"]) {
                assert!(!(cluster_wide && resource == "secrets"), "{rule}");
                // The one account whose token it may have has no right (review B1).
                let of_observer = !cluster_wide && rule["resourceNames"] == json!([names::OBSERVER]);
                assert!(resource != "serviceaccounts/token" || of_observer, "{rule}");
                let of_users =
                    object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("agenttracing-"));
                assert!(!(of_users && resource.ends_with("/status")), "the webhook decides from status: {rule}");
            }
        }
    }
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_value_of_the_chart_has_its_effect() {
    let default = pod_and_replicas(&[]);
    let cases: &[(&[&str], &str, Value)] = &[
        (&["replicas=3"], "/replicas", json!(3)),
        (
            &["image.repository=r.example:5000/a/b"],
            "/pod/containers/0/image",
            json!(format!("r.example:5000/a/b:v{}", env!("CARGO_PKG_VERSION"))),
        ),
        (&["image.tag=v9"], "/pod/containers/0/image", json!("ghcr.io/agenttracing/agent-tracing-operator:v9")),
        (
            &["image.tag=v9", &format!("image.digest=sha256:{}", "0a".repeat(32))],
            "/pod/containers/0/image",
            json!(format!("ghcr.io/agenttracing/agent-tracing-operator@sha256:{}", "0a".repeat(32))),
        ),
        (&["image.pullPolicy=Never"], "/pod/containers/0/imagePullPolicy", json!("Never")),
        (&["imagePullSecrets[0].name=mirror"], "/pod/imagePullSecrets", json!([{"name": "mirror"}])),
        (&["resources.limits.cpu=1"], "/pod/containers/0/resources/limits", json!({"cpu": 1, "memory": "128Mi"})),
        (&["nodeSelector.zone=b"], "/pod/nodeSelector", json!({"zone": "b"})),
        (&["tolerations[0].key=infra"], "/pod/tolerations", json!([{"key": "infra"}])),
        (&["clusterDomain=corp.example"], "/pod/containers/0/env/2/value", json!("corp.example")),
        (&["logLevel=info\\,kube=debug"], "/pod/containers/0/env/3/value", json!("info,kube=debug")),
        (&["mergeCa.image=r.example/merge:v2"], MERGE_CA_IMAGE, json!("r.example/merge:v2")),
        (&["integrationClusterRole=other"], "/pod/containers/0/env/5/value", json!("other")),
        (&["maxConcurrentRollouts=7"], "/pod/containers/0/env/6/value", json!("7")),
        (&["mergeCa.pullSecrets={mirror,own}"], MORE, json!({"name": "MERGE_CA_PULL_SECRETS", "value": "mirror,own"})),
        (
            &["trustedMlflowHosts={a.example.com,b.example.com}"],
            MORE,
            json!({"name": "TRUSTED_MLFLOW_HOSTS", "value": "a.example.com,b.example.com"}),
        ),
        (
            &["mlflowTokenHosts={a.example.com:8443,[fd00::1]:443}"],
            MORE,
            json!({"name": "MLFLOW_TOKEN_HOSTS", "value": "a.example.com:8443,[fd00::1]:443"}),
        ),
        (
            &["webhookClientCA.configMap=api-servers"],
            MORE,
            json!({"name": "WEBHOOK_CLIENT_CA", "value": "/etc/agent-tracing/client-ca/ca.crt"}),
        ),
        (
            &["createMlflowNamespaces={bank,shop}"],
            MORE,
            json!({"name": "CREATE_MLFLOW_NAMESPACES", "value": "bank,shop"}),
        ),
        (
            &["allowedMlflowImages={ghcr.io/mlflow/mlflow,r.example/}"],
            MORE,
            json!({"name": "ALLOWED_MLFLOW_IMAGES", "value": "ghcr.io/mlflow/mlflow,r.example/"}),
        ),
        (&["excludedNamespaces={bank}"], MORE, json!({"name": "EXCLUDED_NAMESPACES", "value": "bank"})),
        (&["priorityClassName=high"], "/pod/priorityClassName", json!("high")),
        (&["extraCAs.configMap=corporate"], "/pod/volumes/0/projected/sources/1/configMap/name", json!("corporate")),
        (&["extraCAs.key=b.pem"], "/pod/volumes/0/projected/sources/1/configMap/items/0/key", json!("b.pem")),
    ];
    for (set, pointer, expected) in cases {
        let mut rendered = pod_and_replicas(set);
        assert_eq!(rendered.pointer(pointer), Some(expected), "{set:?}");
        assert_ne!(rendered, default, "{set:?}");
        // The operator's image is also the one that merges certificate authorities.
        let follows = (*pointer == "/pod/containers/0/image").then_some(MERGE_CA_IMAGE);
        if let Some(follows) = follows {
            assert_eq!(rendered.pointer(follows), Some(expected), "{set:?}");
        }
        if default.pointer(pointer).is_some() {
            for changed in [Some(*pointer), follows].into_iter().flatten() {
                *rendered.pointer_mut(changed).expect(changed) = default.pointer(changed).expect(changed).clone();
            }
            assert_eq!(rendered, default, "{set:?} has an effect elsewhere");
        }
    }
}

const MERGE_CA_IMAGE: &str = "/pod/containers/0/env/4/value";
/// The first of the variables that are there only when asked for.
const MORE: &str = "/pod/containers/0/env/7";

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn rights_follow_the_values() {
    let rule = |set: &[&str], resource: &str, verb: &str| {
        let role = object(&template("tools", set), "ClusterRole", "agent-tracing-operator").clone();
        let mut rules = role["rules"].as_array().expect("rules").clone();
        rules.retain(|rule| rule["resources"] == json!([resource]) && strings(&rule["verbs"]).any(|v| v == verb));
        rules
    };
    assert_eq!(rule(&[], "mlflows", "create"), [] as [Value; 0]);
    assert_eq!(rule(&["createMlflowNamespaces={bank}"], "mlflows", "create").len(), 1);
    for (set, name) in [(&[][..], names::INTEGRATION_ROLE), (&["integrationClusterRole=other"], "other")] {
        let bind = rule(set, "clusterroles", "bind");
        assert_eq!(bind.iter().map(|rule| &rule["resourceNames"]).collect::<Vec<_>>(), [&json!([name])]);
    }
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn a_value_that_the_chart_does_not_have_is_refused() {
    let misspelt = [
        "replica=3",
        "image.tags=v9",
        "resources.limit.cpu=1",
        "imagePullSecrets[0].nam=x",
        "tolerations[0].keys=x",
        "mergeCa.imag=x",
        "trustedMLflowHosts={x}",
        "extraCAs.configmap=x",
        "networkPolicy.from={}",
        "uninstall.cleanup=false",
    ];
    let wrong = [
        "replicas=0",
        "replicas=two",
        "image.digest=0a",
        "image.pullPolicy=Sometimes",
        "clusterDomain=.local",
        "logLevel=",
        "integrationClusterRole=",
        "maxConcurrentRollouts=0",
        "trustedMlflowHosts=x",
        "mlflowTokenHosts={https://x}",
        "createMlflowNamespaces[0]=Bank",
        "mergeCa.cpu=100m",
        "excludedNamespaces={Bank}",
        "allowedMlflowImages[0]=",
        "extraCAs.configMap=",
        "priorityClassName=High",
        "networkPolicy.enabled=maybe",
        "uninstall.cleanUp=maybe",
        "uninstall.deleteTracings=maybe",
    ];
    for set in misspelt.iter().chain(&wrong) {
        let refused = helm(&["template", "x", CHART, "--set", set]).err();
        let key = set.split(['=', '.', '[']).next().expect("a key");
        assert!(refused.contains(key), "{set}: {refused}");
    }
    // Helm gives this one to every chart that is a dependency of another.
    helm(&["template", "x", CHART, "--set", "global.registry=r"]).ok();
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn the_chart_installs_into_any_namespace() {
    // Not every name of a namespace is a string to YAML.
    for namespace in ["tools", "0123"] {
        let objects = template(namespace, &[]);
        for object in &objects {
            let text = object.to_string();
            let crd = object["kind"] == "CustomResourceDefinition";
            assert!(crd || !text.contains(names::OPERATOR_NAMESPACE), "{text}");
        }
        let webhooks = &object(&objects, "MutatingWebhookConfiguration", names::WEBHOOK_CONFIGURATION)["webhooks"];
        for webhook in webhooks.as_array().expect("webhooks") {
            assert_eq!(webhook["clientConfig"]["service"]["namespace"], namespace);
            assert_eq!(
                webhook["namespaceSelector"]["matchExpressions"][0]["values"],
                json!(["kube-system", "kube-public", "kube-node-lease", namespace])
            );
        }
    }
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn one_replica_has_no_disruption_budget() {
    let objects = template("tools", &["replicas=1"]);
    assert!(objects.iter().all(|object| object["kind"] != "PodDisruptionBudget"), "it would forbid every drain");
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn the_chart_passes_helms_own_lint() {
    helm(&["lint", "--strict", CHART]).ok();
}
