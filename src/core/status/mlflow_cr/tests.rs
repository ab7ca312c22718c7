use serde_json::json;

use super::*;

fn settings(url: Option<&str>) -> CrSettings {
    CrSettings { name: "mlflow".into(), url: url.map(str::to_owned), create: None }
}

fn present(spec: Value, status: Value) -> Resource {
    Resource::Present(json!({"spec": spec, "status": status}))
}

#[test]
fn the_address_of_the_resource_comes_first_without_its_path_then_the_documented_one() {
    let address = "https://mlflow.redhat-ods-applications.svc:8443/mlflow";
    let found = present(json!({}), json!({"address": {"url": address}, "url": "http://plain.example.com"}));
    let origins: Vec<_> = candidates(&settings(None), &found).into_iter().map(|c| (c.origin, c.source)).collect();
    assert_eq!(
        origins,
        [
            ("https://mlflow.redhat-ods-applications.svc:8443".to_owned(), "MLflowStatusAddress"),
            (DEFAULT_CR_ORIGIN.to_owned(), "Default"),
        ],
        "a token is never sent over http"
    );
    assert_eq!(candidates(&settings(None), &Resource::Absent), []);
    assert_eq!(candidates(&settings(Some("https://m.example.com:8443/x")), &found)[0].source, "Spec");
}

/// review A12
#[test]
fn an_address_in_the_spec_is_asked_as_it_is_written() {
    let candidates = candidates(&settings(Some("https://m.example.com:8443/team/mlflow/")), &Resource::Absent);
    assert_eq!(candidates[0].origin, "https://m.example.com:8443/team/mlflow");
}

/// review A13
#[test]
fn no_less_likely_server_takes_the_place_of_the_one_in_use() {
    let found = present(json!({}), json!({"address": {"url": "https://told:8443"}, "url": "https://other:8443"}));
    let asked = |in_use: Option<&str>| {
        let all = sticky_candidates(candidates(&settings(None), &found), in_use);
        all.into_iter().map(|candidate| candidate.origin).collect::<Vec<_>>()
    };
    assert_eq!(asked(Some("https://told:8443/mlflow")), ["https://told:8443"]);
    assert_eq!(asked(Some("https://other:8443")), ["https://told:8443", "https://other:8443"], "a likelier one does");
    assert_eq!(asked(Some("https://gone:8443")).len(), 3, "what nobody names any more is left");
    assert_eq!(asked(None).len(), 3);
}

#[test]
fn what_the_resource_says_is_passed_on() {
    let status = |available: &str, reason: &str| json!({"conditions": [{"type": "Available", "status": available, "reason": reason, "message": "m"}]});
    let probe = Probe::NotAsked;
    let update = |status| shared_ready(&settings(None), &present(json!({}), status), &probe, "https://m").reason;
    assert_eq!(update(status("False", "MigrationRunning")), Reason::MLflowNotReady);
    assert_eq!(update(status("False", "MigrationFailed")), Reason::MigrationFailed);
    assert_eq!(update(json!({})), Reason::MLflowNotReady);
    assert_eq!(update(status("True", "DeploymentReady")), Reason::Progressing);
}

// Section 3, point 10: a message said "rerun.); look with".
#[test]
fn a_sentence_of_the_resource_does_not_end_ours() {
    let told =
        json!({"type": "Available", "status": "False", "reason": "MigrationFailed", "message": "force a rerun."});
    let resource = present(json!({}), json!({"conditions": [told]}));
    let message = shared_ready(&settings(None), &resource, &Probe::NotAsked, "https://m").message;
    assert!(message.contains("(force a rerun); look with: "), "{message}");
}

// Section 3, point 9: `serveArtifacts: false` was told as a missing right, with a command that answers yes.
#[test]
fn a_template_that_the_schema_refuses_is_no_missing_right() {
    let yaml = "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {name: tracing, namespace: bank-agents}\n\
                spec: {mlflow: {mode: CR}}";
    let of = crate::core::settings::parse(&serde_yaml::from_str(yaml).unwrap()).unwrap();
    let told = |refusal: CreateRefusal| {
        let resource = not_created(&of, &refusal, "agent-tracing-system");
        let update = shared_ready(&settings(None), &resource, &Probe::NotAsked, "https://m");
        (update.reason, update.message)
    };
    let why = "defaultArtifactRoot must be set when serveArtifacts is false.".to_owned();
    let message = format!("MLflow.mlflow.opendatahub.io \"mlflow\" is invalid: spec: Invalid value: {why}");
    let (reason, told_field) =
        told(CreateRefusal { code: 422, message: message.clone(), field: Some(("spec".into(), why)) });
    assert_eq!(reason, Reason::TemplateInvalid);
    let end = "is refused: spec: defaultArtifactRoot must be set when serveArtifacts is false; change it: kubectl edit \
               agenttracing -n bank-agents tracing";
    assert!(told_field.ends_with(end), "{told_field}");
    assert_eq!(told(CreateRefusal { code: 400, message, field: None }).0, Reason::TemplateInvalid);

    let message =
        "mlflows.mlflow.opendatahub.io is forbidden: User \"x\" cannot create resource \"mlflows\"".to_owned();
    let (reason, rights) = told(CreateRefusal { code: 403, message, field: None });
    assert!(
        reason == Reason::CreateForbidden && rights.ends_with("--set 'createMlflowNamespaces={bank-agents}'"),
        "{rights}"
    );
    let message = "admission webhook \"sizes.example.com\" denied the request: too large.".to_owned();
    let (reason, policy) = told(CreateRefusal { code: 403, message, field: None });
    assert!(reason == Reason::CreateForbidden && policy.contains("too large; see who refuses it: "), "{policy}");
}

#[test]
fn a_selector_that_hides_the_namespace_names_the_label_that_is_missing() {
    let hidden = present(json!({"workspaceLabelSelector": {"matchLabels": {"mlflow": "on"}}}), json!({}));
    let labels = BTreeMap::from([("mlflow".to_owned(), "on".to_owned())]);
    let update = workspace_ready("bank", &BTreeMap::new(), &hidden, Some(true));
    assert_eq!(update.reason, Reason::NamespaceLabelMissing);
    assert!(update.message.ends_with("kubectl label namespace bank --overwrite mlflow=on"), "{}", update.message);
    assert_eq!(workspace_ready("bank", &labels, &hidden, Some(true)).reason, Reason::Visible);
    assert_eq!(workspace_ready("bank", &labels, &hidden, Some(false)).reason, Reason::WorkspacesDisabled);
    assert_eq!(workspace_ready("kube-bank", &labels, &hidden, Some(true)).reason, Reason::SystemNamespace);
}
