//! Changes of workloads: the touch, and patches of our own.

use json_patch::PatchOperation;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams, Request};
use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use crate::controller::{Context, observe};
use crate::core::inject::canary::{self, Answer};
use crate::core::selection::kind::Kind;
use crate::core::status::quote::shorten;
use crate::core::wiring::parts::FallbackReason;
use crate::names;

/// A workload that is written.
#[derive(Clone, Copy, Debug)]
pub(in crate::controller) struct Written<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Touches a workload, so that the webhook wires it in this very request. Returns the workload as it is then. `unlabel` takes the
/// webhook's label away, which comes back where the webhook runs.
pub(in crate::controller) async fn touch(
    client: &Client,
    workload: Written<'_>,
    touch: &str,
    unlabel: bool,
) -> Result<String, Error> {
    let mut patch = json!({"metadata": {"annotations": {(names::ANNOTATION_TOUCH): touch}}});
    if unlabel {
        patch["metadata"]["labels"] = json!({(names::LABEL_WIRED): null});
    }
    patch_workload(client, workload, &Patch::Merge(patch), false).await
}

/// Notes on a workload that the operator's init container is not admitted or does not start in it. The touch that follows
/// wires it without.
pub(in crate::controller) async fn without_merge_ca(
    client: &Client,
    workload: Written<'_>,
    source: &str,
    why: FallbackReason,
) -> Result<(), Error> {
    let patch = json!({"metadata": {"annotations": {(annotation_of(why)): source}}});
    patch_workload(client, workload, &Patch::Merge(patch), false).await.map(|_| ())
}

/// Whether the API server would take a touch of a workload that does without the operator's init container. Nothing is stored.
pub(in crate::controller) async fn would_touch_without_merge_ca(
    client: &Client,
    workload: Written<'_>,
    touch: &str,
    source: &str,
) -> bool {
    let refused = annotation_of(FallbackReason::Refused);
    let patch = json!({"metadata": {"annotations": {(names::ANNOTATION_TOUCH): touch, (refused): source}}});
    patch_workload(client, workload, &Patch::Merge(patch), true).await.is_ok()
}

fn annotation_of(why: FallbackReason) -> &'static str {
    match why {
        FallbackReason::NotStarted => names::ANNOTATION_MERGE_CA_FAILED,
        FallbackReason::Refused | FallbackReason::RefusedInNamespace => names::ANNOTATION_MERGE_CA_REFUSED,
    }
}

/// Changes a workload by a patch of our own, if it still is in the state that the patch was made for.
pub(in crate::controller) async fn patch(
    client: &Client,
    workload: Written<'_>,
    resource_version: &str,
    operations: &[PatchOperation],
) -> Result<String, Error> {
    let test = json!({"op": "test", "path": "/metadata/resourceVersion", "value": resource_version});
    let test = serde_json::from_value(test).map_err(|source| Error::Encode { what: workload.to_string(), source })?;
    let operations = std::iter::once(test).chain(operations.iter().cloned()).collect();
    patch_workload(client, workload, &Patch::<()>::Json(json_patch::Patch(operations)), false).await
}

async fn patch_workload<P: Serialize + std::fmt::Debug>(
    client: &Client,
    workload: Written<'_>,
    patch: &Patch<P>,
    dry_run: bool,
) -> Result<String, Error> {
    let params =
        PatchParams { dry_run, field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let url = observe::url(workload.kind, Some(workload.namespace));
    let answer = match Request::new(url).patch(workload.name, &params, patch).map_err(kube::Error::BuildRequest) {
        Ok(request) => client.request_text(request).await,
        Err(error) => Err(error),
    };
    answer.map_err(|source| Error::Write { what: workload.to_string(), source })
}

/// What the API server would say to a new workload or Pod. Nothing is stored.
pub(in crate::controller) async fn would_create(ctx: &Context, kind: Kind, namespace: &str, object: &Value) -> Answer {
    let params = PostParams { dry_run: true, field_manager: Some(names::FIELD_MANAGER.to_owned()) };
    let request = Request::new(observe::url(kind, Some(namespace))).create(&params, object.to_string().into_bytes());
    let Ok(request) = request else { return Answer::Unclear };
    ctx.budget.wait_for_write().await;
    match ctx.client.request_text(request).await {
        Ok(_) => Answer::Admitted,
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Answer::Refused(shorten(&canary::without_generated_names(&status.message)))
        }
        Err(error) => {
            tracing::debug!(namespace, %error, "a dry run failed");
            Answer::Unclear
        }
    }
}

impl std::fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name } = self;
        write!(f, "{} {namespace}/{name}", kind.as_str())
    }
}
