//! Every write to Kubernetes but events.
//!
//! Nothing is written that is so already: at rest the API server's audit log shows no request of ours that changes
//! anything. Nothing that is not ours is changed, and what the API server refused once is not tried again until either side
//! is different.

mod children;
mod workload;

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use serde_json::{Value, json};

use super::Context;
use super::observe;
use crate::api::{AgentTracing, AgentTracingStatus};
use crate::core::settings::Settings;
use crate::core::status::mlflow_cr;
use crate::core::status::quote::shorten;
use crate::names;
pub(super) use children::{Refusals, children, is_ours};
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
        let status = self.status().filter(|s| matches!(s.code, 400 | 403 | 422) && !is_failed_test(s))?;
        Some(shorten(&status.message))
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

/// Whether an object that a namespace shares is the operator's.
pub(super) fn is_managed(live: &Value) -> bool {
    let labels = live.pointer("/metadata/labels");
    labels.and_then(|l| l.get(names::LABEL_MANAGED_BY)).and_then(Value::as_str) == Some(names::MANAGED_BY)
}

/// The RoleBinding of a namespace. Whom it binds to is immutable: another one takes its place.
pub(super) async fn role_binding(ctx: &Context, wanted: &RoleBinding, role: &str) -> Result<Value, Error> {
    let namespace = wanted.metadata.namespace.as_deref().unwrap_or_default();
    let what = || format!("RoleBinding {namespace}/{}", names::ROLE_BINDING);
    let write = |source| Error::Write { what: what(), source };
    let api: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), namespace);
    let live = api.get_opt(names::ROLE_BINDING).await.map_err(write)?;
    if let Some(live) = live.filter(|live| live.role_ref.name != role || live.role_ref.kind != "ClusterRole") {
        let preconditions = Preconditions { uid: live.metadata.uid, resource_version: None };
        let params = DeleteParams::default().preconditions(preconditions);
        api.delete(names::ROLE_BINDING, &params).await.map_err(write)?;
    }
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let mut written = api.patch(names::ROLE_BINDING, &params, &Patch::Apply(wanted)).await.map_err(write)?;
    // An apply leaves what another writer owns, and nobody else is to say who is bound.
    if written.subjects != wanted.subjects || written.metadata.owner_references != wanted.metadata.owner_references {
        let exact = json!({
            "metadata": {"ownerReferences": wanted.metadata.owner_references},
            "subjects": wanted.subjects,
        });
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        written = api.patch(names::ROLE_BINDING, &params, &Patch::Merge(&exact)).await.map_err(write)?;
    }
    tracing::info!(namespace, name = names::ROLE_BINDING, "applied");
    serde_json::to_value(written).map_err(|source| Error::Encode { what: what(), source })
}

/// The ConfigMap with the certificate authorities of a namespace.
pub(super) async fn config_map(ctx: &Context, wanted: &ConfigMap) -> Result<(), Error> {
    let namespace = wanted.metadata.namespace.as_deref().unwrap_or_default();
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
    let write = |source| Error::Write { what: format!("ConfigMap {namespace}/{name}"), source };
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let written = api.patch(name, &params, &Patch::Apply(wanted)).await.map_err(write)?;
    // An apply leaves what another writer owns, and with an owner it would be taken from agents that run.
    if written.metadata.owner_references.is_some_and(|owners| !owners.is_empty()) {
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let none = json!({"metadata": {"ownerReferences": null}});
        api.patch(name, &params, &Patch::Merge(&none)).await.map_err(write)?;
    }
    tracing::info!(namespace, name, "applied");
    Ok(())
}

/// Creates the MLflow resource; one that exists meanwhile is not touched.
pub(super) async fn mlflow_resource(
    ctx: &Context,
    settings: &Settings,
    spec: &Value,
) -> Result<mlflow_cr::Resource, Error> {
    let name = &settings.cr.name;
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
