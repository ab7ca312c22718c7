//! The blocks of the three modes, authentication and certificate authorities.

use super::*;

const STANDALONE_BLOCK: &str = "mlflow.standalone is set, but mlflow.mode is another: only the block of the chosen mode may be \
    set; take mlflow.standalone out";
const CR_BLOCK: &str = "mlflow.cr is set, but mlflow.mode is another: only the block of the chosen mode may be set; take \
    mlflow.cr out";
const EXTERNAL_BLOCK: &str = "mlflow.external belongs to mlflow.mode External and to no other: give it there with a trackingURI, \
    take it out elsewhere";
const AUTH: &str = "auth.method must be None here: a token is sent only in mode CR and to an https:// address; take auth out, or \
    write https:// in mlflow.external.trackingURI";

#[test]
#[ignore = "needs an API server: make test"]
fn a_spec_of_any_mode_that_means_something_is_accepted() {
    let https = "mode: External, external: {trackingURI: 'https://mlflow.example.com'";
    let maps = (0..8).map(|n| format!("{{name: ca-{n}, key: ca.crt}}")).collect::<Vec<_>>().join(", ");
    let mut specs = vec![
        "{mlflow: {mode: CR}}".to_owned(),
        "{mlflow: {mode: CR, cr: {}}, auth: {}, caBundle: {}}".to_owned(),
        "{mlflow: {mode: CR, cr: null, standalone: null, external: null}, auth: null, caBundle: null}".to_owned(),
        "{mlflow: {mode: CR, cr: {name: mlflow, create: true, template: {}}}}".to_owned(),
        "{mlflow: {mode: CR, cr: {create: true, template: {artifactsDestination: 's3://b/p', backendStoreUri: 'postgresql://db/m', \
          replicas: 2, serveArtifacts: true, workers: 4, storage: {accessModes: [ReadWriteOnce], storageClassName: fast, \
          resources: {requests: {storage: 10Gi}}}}}}}"
            .to_owned(),
        "{mlflow: {mode: External, external: {trackingURI: 'http://mlflow.shared.svc:5000'}}, auth: {method: None}}".to_owned(),
        format!("{{mlflow: {{{https}, workspace: team-a}}}}, auth: {{method: TokenFile}}}}"),
        format!("{{mlflow: {{{https}}}}}, auth: {{method: KubernetesPlugin}}, caBundle: {{configMaps: [{maps}]}}}}"),
        "{mlflow: {mode: Standalone}, auth: {method: None}, caBundle: {mode: Always, strategy: ConfigMap}}".to_owned(),
    ];
    specs.extend(
        ["TokenFile", "KubernetesPlugin", "Relay", "None"]
            .map(|m| format!("{{mlflow: {{mode: CR}}, auth: {{method: {m}}}}}")),
    );
    for (mode, strategy) in [("Auto", "InitContainer"), ("Always", "AgentInitContainer"), ("Never", "ConfigMap")] {
        specs.push(format!("{{mlflow: {{mode: CR}}, caBundle: {{mode: {mode}, strategy: {strategy}}}}}"));
    }
    for url in ["https://mlflow.example.com", "https://mlflow.example.com:8443/mlflow", "https://[fd00::1]:8443/"] {
        specs.push(format!("{{mlflow: {{mode: CR, cr: {{url: '{url}'}}}}}}"));
    }
    accepts(&specs);
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_block_of_another_mode_is_refused() {
    let external = "external: {trackingURI: 'https://m.example.com'}";
    refuses(&[
        ("{mlflow: {mode: CR, standalone: {}}}".into(), "spec.mlflow", rule(STANDALONE_BLOCK)),
        (
            format!("{{mlflow: {{mode: External, standalone: {{port: 5600}}, {external}}}}}"),
            "spec.mlflow",
            rule(STANDALONE_BLOCK),
        ),
        ("{mlflow: {mode: Standalone, cr: {}}}".into(), "spec.mlflow", rule(CR_BLOCK)),
        (format!("{{mlflow: {{mode: External, cr: {{name: mlflow}}, {external}}}}}"), "spec.mlflow", rule(CR_BLOCK)),
        (format!("{{mlflow: {{mode: Standalone, {external}}}}}"), "spec.mlflow", rule(EXTERNAL_BLOCK)),
        (format!("{{mlflow: {{mode: CR, {external}}}}}"), "spec.mlflow", rule(EXTERNAL_BLOCK)),
        ("{mlflow: {mode: External}}".into(), "spec.mlflow", rule(EXTERNAL_BLOCK)),
        ("{mlflow: {mode: External, external: null}}".into(), "spec.mlflow", rule(EXTERNAL_BLOCK)),
        (
            "{mlflow: {mode: External, external: {}}}".into(),
            "spec.mlflow.external.trackingURI",
            "Required value".into(),
        ),
    ]);
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_token_is_sent_only_in_mode_cr_and_to_an_https_address() {
    let mut table = Vec::new();
    for method in ["TokenFile", "KubernetesPlugin", "Relay"] {
        for mlflow in [
            "mode: Standalone",
            "mode: External, external: {trackingURI: 'http://mlflow.example.com'}",
            // A host that begins as the scheme does is no https.
            "mode: External, external: {trackingURI: 'http://https.example.com'}",
        ] {
            table.push((format!("{{mlflow: {{{mlflow}}}, auth: {{method: {method}}}}}"), "spec", rule(AUTH)));
        }
    }
    table.push((
        "{mlflow: {mode: CR}, auth: {method: Token}}".into(),
        "spec.auth.method",
        r#"Unsupported value: "Token": supported values: "TokenFile", "KubernetesPlugin", "Relay", "None""#.into(),
    ));
    refuses(&table);
}

#[test]
#[ignore = "needs an API server: make test"]
fn an_address_has_neither_user_nor_query() {
    let (cr, external) = (r"^https://[^\s/@?#]+(/[^\s@?#]*)?$", r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$");
    let mut table = Vec::new();
    for bad in [
        "https://ann:secret@mlflow.example.com",
        "https://token@mlflow.example.com/mlflow",
        "https://mlflow.example.com/a@b",
        "https://mlflow.example.com?x=1",
        "https://mlflow.example.com/#top",
        "https://",
        "https:///mlflow",
        "https://mlflow .example.com",
        "mlflow.example.com",
        "ftp://mlflow.example.com",
        "HTTPS://mlflow.example.com",
        "databricks",
    ] {
        let message =
            |field: &str, pattern: &str| invalid(json!(bad), &format!("{field} in body should match '{pattern}'"));
        let field = "spec.mlflow.cr.url";
        table.push((format!("{{mlflow: {{mode: CR, cr: {{url: '{bad}'}}}}}}"), field, message(field, cr)));
        let field = "spec.mlflow.external.trackingURI";
        let spec = format!("{{mlflow: {{mode: External, external: {{trackingURI: '{bad}'}}}}}}");
        table.push((spec, field, message(field, external)));
    }
    let field = "spec.mlflow.cr.url";
    let message = invalid(json!("http://mlflow.example.com"), &format!("{field} in body should match '{cr}'"));
    table.push(("{mlflow: {mode: CR, cr: {url: 'http://mlflow.example.com'}}}".into(), field, message));
    let long = format!("https://{}", "x".repeat(505));
    table.push((
        format!("{{mlflow: {{mode: External, external: {{trackingURI: '{long}'}}}}}}"),
        "spec.mlflow.external.trackingURI",
        "Too long: may not be more than 512 bytes".into(),
    ));
    refuses(&table);
}

/// Review B6: whoever may edit an AgentTracing has no say in the MLflow operator's namespace.
#[test]
#[ignore = "needs an API server: make test"]
fn a_template_chooses_neither_image_nor_service_account() {
    let (admin, _namespace) = prepare();
    for field in ["image: {image: 'r.example.com/mlflow:1'}", "serviceAccountName: mlflow-operator"] {
        let name = field.split(':').next().unwrap();
        let spec = format!("{{mlflow: {{mode: CR, cr: {{create: true, template: {{{field}}}}}}}}}");
        let refused = admin.create(&tracing("tracing", &spec), DRY).unwrap_err();
        let unknown = format!(r#"unknown field "spec.mlflow.cr.template.{name}""#);
        assert!(refused.code == 400 && refused.to_string().contains(&unknown), "{refused}");
    }
}

#[test]
#[ignore = "needs an API server: make test"]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_can_grow_is_bounded() {
    let too_many = |n: u32, most: u32| format!("Too many: {n}: must have at most {most} items");
    let maps = (0..9).map(|n| format!("{{name: ca-{n}, key: ca.crt}}")).collect::<Vec<_>>().join(", ");
    let template = |fields: &str| format!("{{mlflow: {{mode: CR, cr: {{create: true, template: {{{fields}}}}}}}}}");
    let of = "spec.mlflow.cr.template";
    refuses(&[
        (
            format!("{{mlflow: {{mode: CR}}, caBundle: {{configMaps: [{maps}]}}}}"),
            "spec.caBundle.configMaps",
            too_many(9, 8),
        ),
        (
            "{mlflow: {mode: CR}, caBundle: {configMaps: [{name: corp}]}}".into(),
            "spec.caBundle.configMaps[0].key",
            "Required value".into(),
        ),
        (
            "{mlflow: {mode: CR}, caBundle: {mode: Sometimes}}".into(),
            "spec.caBundle.mode",
            r#"Unsupported value: "Sometimes": supported values: "Auto", "Always", "Never""#.into(),
        ),
        (
            "{mlflow: {mode: CR}, caBundle: {strategy: Sidecar}}".into(),
            "spec.caBundle.strategy",
            r#"Unsupported value: "Sidecar": supported values: "InitContainer", "AgentInitContainer", "ConfigMap""#
                .into(),
        ),
        (
            "{mlflow: {mode: CR, cr: {name: MLflow}}}".into(),
            "spec.mlflow.cr.name",
            invalid(json!("MLflow"), "spec.mlflow.cr.name in body should match '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'"),
        ),
        (
            template("replicas: 0"),
            "spec.mlflow.cr.template.replicas",
            invalid(0, &format!("{of}.replicas in body should be greater than or equal to 1")),
        ),
        (
            template("workers: 33"),
            "spec.mlflow.cr.template.workers",
            invalid(33, &format!("{of}.workers in body should be less than or equal to 32")),
        ),
        (
            template("storage: {accessModes: [a, b, c, d, e], resources: {requests: {storage: 1Gi}}}"),
            "spec.mlflow.cr.template.storage.accessModes",
            too_many(5, 4),
        ),
        (
            template("storage: {resources: {requests: {a: 1, b: 1, c: 1, d: 1, e: 1}}}"),
            "spec.mlflow.cr.template.storage.resources.requests",
            too_many(5, 4),
        ),
        (template("storage: {}"), "spec.mlflow.cr.template.storage.resources", "Required value".into()),
        (
            format!(
                "{{mlflow: {{mode: External, external: {{trackingURI: 'https://m', workspace: {}}}}}}}",
                "w".repeat(254)
            ),
            "spec.mlflow.external.workspace",
            "Too long: may not be more than 253 bytes".into(),
        ),
    ]);
}

#[test]
#[ignore = "needs an API server: make test"]
fn the_mode_is_immutable() {
    let (admin, _namespace) = prepare();
    let modes = [
        "{mlflow: {mode: Standalone}}",
        "{mlflow: {mode: CR}}",
        "{mlflow: {mode: External, external: {trackingURI: 'https://m.example.com'}}}",
    ];
    for old in modes {
        admin.delete("AgentTracing", PLACE, "tracing");
        let live = admin.create(&tracing("tracing", old), STRICT).unwrap();
        for new in modes {
            let mut changed = tracing("tracing", new);
            changed["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
            let causes = admin.replace(&changed, DRY).map_or_else(|refused| refused.causes, |_| Vec::new());
            let expected: Vec<_> = (old != new).then(|| ("spec".to_owned(), rule(MODE))).into_iter().collect();
            assert_eq!(causes, expected, "{old} to {new}");
        }
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn an_address_may_change_and_a_token_may_not_follow_it_to_http() {
    let (admin, _namespace) = prepare();
    admin.delete("AgentTracing", PLACE, "tracing");
    let at = |uri: &str, method: &str| {
        format!("{{mlflow: {{mode: External, external: {{trackingURI: '{uri}'}}}}, auth: {{method: {method}}}}}")
    };
    let live = admin.create(&tracing("tracing", &at("https://old.example.com", "TokenFile")), STRICT).unwrap();
    for (spec, refusal) in [
        (at("https://new.example.com", "TokenFile"), None),
        (at("http://new.example.com", "None"), None),
        (at("http://new.example.com", "TokenFile"), Some(rule(AUTH))),
    ] {
        let mut changed = tracing("tracing", &spec);
        changed["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        let causes = admin.replace(&changed, DRY).map_or_else(|refused| refused.causes, |_| Vec::new());
        let expected: Vec<_> = refusal.map(|message| ("spec".to_owned(), message)).into_iter().collect();
        assert_eq!(causes, expected, "{spec}");
    }
}

/// The API server takes each of these specs, and the operator reads what it stores.
pub(super) fn accepts(specs: &[String]) {
    let (admin, _namespace) = prepare();
    for spec in specs {
        let stored = admin.create(&tracing("tracing", spec), DRY).unwrap_or_else(|refused| panic!("{spec}: {refused}"));
        let read: AgentTracing = serde_json::from_value(stored).unwrap_or_else(|error| panic!("{spec}: {error}"));
        settings::parse(&read).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"));
    }
}

/// Spec, field and message; all that are not as expected are told at once.
#[track_caller]
pub(super) fn refuses(table: &[(String, &str, String)]) {
    let (admin, _namespace) = prepare();
    let mut wrong = Vec::new();
    for (spec, field, message) in table {
        match admin.create(&tracing("tracing", spec), DRY) {
            Ok(_) => wrong.push(format!("{spec}: accepted")),
            Err(refused) if refused.code != 422 => wrong.push(format!("{spec}: {refused}")),
            Err(refused) => {
                let first = first_cause(&refused);
                if first != ((*field).to_owned(), message.clone()) {
                    wrong.push(format!("{spec}: {first:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub(super) fn rule(message: &str) -> String {
    format!("Invalid value: {message}")
}
