//! The webhook's certificate from cert-manager or from OpenShift: both ways to install say the same.

use agent_tracing::names;
use serde_json::{Value, json};

use crate::component::kustomization;
use crate::rendered::{is_hook, same, strings, template};
use crate::{CHART, documents, helm, kubectl, object};

const SOURCES: [(&str, &str); 2] = [("CertManager", "cert-manager"), ("ServiceCA", "service-ca")];

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn a_component_and_the_charts_option_render_the_same_objects() {
    for (source, component) in SOURCES {
        let mut kustomize = with_component(component);
        kustomize.retain(|object| object["kind"] != "Namespace");
        let mut chart = template(names::OPERATOR_NAMESPACE, &[&format!("certificate.source={source}")]);
        chart.retain(|object| !is_hook(object));
        same(&format!("config/certificate/{component}"), kustomize, chart);
    }
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn whoever_makes_the_certificate_finds_what_it_looks_for() {
    for (source, _) in SOURCES {
        let objects = template("tools", &[&format!("certificate.source={source}")]);
        let container = object(&objects, "Deployment", "agent-tracing-operator")["spec"]["template"]["spec"].clone();
        let variable = json!({"name": "CERTIFICATE_SOURCE", "value": source});
        assert!(container["containers"][0]["env"].as_array().expect("env").contains(&variable));
        let mount = json!({"name": "tls", "mountPath": names::WEBHOOK_TLS_FOLDER, "readOnly": true});
        assert!(container["containers"][0]["volumeMounts"].as_array().expect("mounts").contains(&mount));
        let secret = json!({"secretName": names::WEBHOOK_TLS_SECRET, "optional": true});
        assert!(container["volumes"].as_array().expect("volumes").contains(&json!({"name": "tls", "secret": secret})));
    }

    let objects = template("tools", &["certificate.source=CertManager", "clusterDomain=corp.example"]);
    let configuration = object(&objects, "MutatingWebhookConfiguration", names::WEBHOOK_CONFIGURATION);
    let from = format!("tools/{}", names::WEBHOOK_CERTIFICATE);
    assert_eq!(configuration["metadata"]["annotations"], json!({"cert-manager.io/inject-ca-from": from}));
    let certificate = &object(&objects, "Certificate", names::WEBHOOK_CERTIFICATE)["spec"];
    assert_eq!(certificate["secretName"], names::WEBHOOK_TLS_SECRET);
    let host = format!("{}.tools.svc", names::WEBHOOK_SERVICE);
    assert_eq!(certificate["dnsNames"], json!([host, format!("{host}.corp.example")]));

    let objects = template("tools", &["certificate.source=ServiceCA"]);
    let configuration = object(&objects, "MutatingWebhookConfiguration", names::WEBHOOK_CONFIGURATION);
    let inject = json!({"service.beta.openshift.io/inject-cabundle": "true"});
    assert_eq!(configuration["metadata"]["annotations"], inject);
    let make = json!({"service.beta.openshift.io/serving-cert-secret-name": names::WEBHOOK_TLS_SECRET});
    assert_eq!(object(&objects, "Service", names::WEBHOOK_SERVICE)["metadata"]["annotations"], make);
    assert!(
        objects.iter().all(|object| !["Certificate", "Issuer"].contains(&object["kind"].as_str().expect("a kind")))
    );
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn the_rights_on_the_secret_are_there_only_for_the_operators_own_certificate() {
    let rights = |set: &[&str]| {
        let objects = template("tools", set);
        let rules = object(&objects, "Role", "agent-tracing-operator")["rules"].as_array().expect("rules").clone();
        rules.iter().filter(|rule| strings(&rule["resources"]).any(|resource| resource == "secrets")).count()
    };
    assert_eq!(rights(&[]), 2);
    for (source, _) in SOURCES {
        assert_eq!(rights(&[&format!("certificate.source={source}")]), 0, "{source}");
    }
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn an_issuer_of_ones_own_takes_the_place_of_the_charts() {
    let set = ["certificate.source=CertManager", "certificate.issuerRef.name=corporate"];
    let issuer = |more: &[&str]| {
        let objects = template("tools", &[&set[..], more].concat());
        assert!(objects.iter().all(|object| object["kind"] != "Issuer"));
        let certificates = objects.iter().filter(|object| object["kind"] == "Certificate");
        let issuers: Vec<_> = certificates.map(|certificate| certificate["spec"]["issuerRef"].clone()).collect();
        issuers
    };
    let group = "cert-manager.io";
    assert_eq!(issuer(&[]), [json!({"group": group, "kind": "Issuer", "name": "corporate"})]);
    let more = ["certificate.issuerRef.kind=ClusterIssuer", "certificate.issuerRef.group=issuers.example.com"];
    let expected = json!({"group": "issuers.example.com", "kind": "ClusterIssuer", "name": "corporate"});
    assert_eq!(issuer(&more), [expected]);
}

#[test]
#[ignore = "needs kubectl and helm: make test"]
fn a_source_that_is_none_is_refused() {
    for set in ["certificate.source=Vault", "certificate.sorce=ServiceCA", "certificate.issuerRef.kind=Issuer"] {
        let refused = helm(&["template", "x", CHART, "--set", set]).err();
        assert!(refused.contains("certificate"), "{set}: {refused}");
    }
}

fn with_component(component: &str) -> Vec<Value> {
    documents(&kubectl(&["kustomize", kustomization(component).to_str().expect("UTF-8")]).ok())
}
