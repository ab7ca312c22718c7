//! The shared MLflow of mode CR, as the spec has it.

use serde_json::{Value, json};

use crate::api::{Cr, CrTemplate};

/// The shared server, every default resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct CrSettings {
    /// Name of the MLflow resource.
    pub name: String,
    /// The address, where it is not discovered.
    pub url: Option<String>,
    /// The spec of the MLflow resource to create where there is none.
    pub create: Option<Value>,
}

pub(super) fn cr(spec: Cr) -> CrSettings {
    let Cr { name, url, create, template } = spec;
    CrSettings {
        name: name.unwrap_or_else(|| DEFAULT_CR_NAME.to_owned()),
        url: url.map(|url| url.trim_end_matches('/').to_owned()),
        create: create.then(|| mlflow_spec(template.unwrap_or_default())),
    }
}

/// The documented example, as far as the template does not say otherwise.
fn mlflow_spec(template: CrTemplate) -> Value {
    let CrTemplate { artifacts_destination, backend_store_uri, replicas, serve_artifacts, storage, workers } = template;
    let artifacts = artifacts_destination.unwrap_or_else(|| "file:///mlflow/artifacts".to_owned());
    let store = backend_store_uri.unwrap_or_else(|| "sqlite:////mlflow/mlflow.db".to_owned());
    let on_volume = artifacts.starts_with("file:") || store.starts_with("sqlite:");
    let volume = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}});
    let mut spec = json!({
        "artifactsDestination": artifacts,
        "backendStoreUri": store,
        "replicas": replicas.unwrap_or(1),
        "serveArtifacts": serve_artifacts.unwrap_or(true),
    });
    if let Some(workers) = workers {
        spec["workers"] = json!(workers);
    }
    match storage {
        Some(storage) => spec["storage"] = json!(storage),
        None if on_volume => spec["storage"] = volume,
        None => {}
    }
    spec
}

/// Name of the MLflow resource: the MLflow operator admits no other.
pub const DEFAULT_CR_NAME: &str = "mlflow";
/// The documented address of the shared server.
pub const DEFAULT_CR_ORIGIN: &str = "https://mlflow.redhat-ods-applications.svc.cluster.local:8443";
