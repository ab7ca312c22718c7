//! Every write to Kubernetes but events.
//!
//! Nothing is written that is so already: at rest the API server's audit log shows no request of ours that changes
//! anything. Nothing that is not ours is changed, and what the API server found invalid is not tried again until either side
//! is different; quotas and policies are asked again in each pass.

mod child;
mod server;
mod workload;

use std::sync::LazyLock;

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::{Value, json};

use super::Context;
use super::observe;
use crate::api::{AgentTracing, AgentTracingStatus};
use crate::core::settings::Settings;
use crate::core::status::mlflow_cr;
use crate::core::status::quote::shorten;
use crate::names;
pub(super) use child::{Applied, Refusals, child};
pub(super) use server::children;
pub(super) use workload::{Written, patch, touch, without_merge_ca, would_create, would_touch_without_merge_ca};

/// A write that failed, or a read that it needed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the API server.
    #[error("failed to write {what}")]
    Write {
        /// The object.
        what: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// An object that cannot be serialized.
    #[error("failed to serialize {what}")]
    Encode {
        /// The object.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A read that a write needed.
    #[error(transparent)]
    Observe(#[from] observe::Error),
}

impl Error {
    /// Someone else wrote in between, or the object is gone: reading anew is the remedy.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.is_conflict() || s.is_not_found() || is_failed_test(s))
    }

    /// The API server understood and refused: trying the same again is no use.
    pub fn refusal(&self) -> Option<String> {
        self.refusal_status().map(|status| shorten(&status.message))
    }

    fn refusal_status(&self) -> Option<&Status> {
        self.status().filter(|s| matches!(s.code, 400 | 403 | 422) && !is_failed_test(s))
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Write { source: kube::Error::Api(status), .. } => Some(status),
            _ => None,
        }
    }
}

/// A JSON patch whose `test` fails is answered with 422 and this text alone.
fn is_failed_test(status: &Status) -> bool {
    status.code == 422 && status.message.contains("the server rejected our request due to an error in our request")
}

/// Creates the MLflow resource; one that exists meanwhile is not touched.
pub(super) async fn mlflow_resource(
    ctx: &Context,
    settings: &Settings,
    name: &str,
    spec: &Value,
) -> Result<mlflow_cr::Resource, Error> {
    let what = || format!("MLflow {name}");
    let object = json!({
        "apiVersion": "mlflow.opendatahub.io/v1",
        "kind": "MLflow",
        "metadata": {"name": name, "labels": {(names::LABEL_MANAGED_BY): names::MANAGED_BY}},
        "spec": spec,
    });
    let object: DynamicObject =
        serde_json::from_value(object).map_err(|source| Error::Encode { what: what(), source })?;
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match observe::mlflows(&ctx.client).create(&params, &object).await {
        Ok(created) => {
            tracing::info!(name, "MLflow resource created");
            serde_json::to_value(created)
                .map(mlflow_cr::Resource::Present)
                .map_err(|source| Error::Encode { what: what(), source })
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(observe::mlflow_resource(ctx, name).await?),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let field =
                causes.map(|cause| (cause.field.clone(), cause.message.clone())).find(|(field, _)| !field.is_empty());
            let refusal = mlflow_cr::CreateRefusal { code: status.code, message: status.message.clone(), field };
            Ok(mlflow_cr::not_created(settings, &refusal, &ctx.platform.operator_namespace))
        }
        Err(source) => Err(Error::Write { what: what(), source }),
    }
}

/// Every field of a status, by its own schema: a list kept by hand once forgot one, whose last value then stayed for ever.
static STATUS_FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let schema = schemars::schema_for!(AgentTracingStatus);
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect()
});

/// Writes a status. The uid keeps it off an AgentTracing of the same name that was created meanwhile.
pub(super) async fn status(
    ctx: &Context,
    tracing: &AgentTracing,
    status: &AgentTracingStatus,
) -> Result<AgentTracing, Error> {
    let (namespace, name) = (tracing.metadata.namespace.as_deref(), tracing.metadata.name.as_deref());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    let what = || format!("the status of AgentTracing {namespace}/{name}");
    let mut wanted = serde_json::to_value(status).map_err(|source| Error::Encode { what: what(), source })?;
    if let Some(fields) = wanted.as_object_mut() {
        // A merge patch keeps what it does not name: fields that are empty now have to be named.
        for field in STATUS_FIELDS.iter().filter(|field| !fields.contains_key(*field)).collect::<Vec<_>>() {
            fields.insert(field.clone(), Value::Null);
        }
    }
    let patch = json!({"metadata": {"uid": tracing.metadata.uid}, "status": wanted});
    let api: Api<AgentTracing> = Api::namespaced(ctx.client.clone(), namespace);
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &params, &Patch::Merge(&patch)).await.map_err(|source| Error::Write { what: what(), source })
}
