//! One object that the operator owns, whichever it is: brought to what is wanted.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::Status;
use serde_json::Value;

use super::Error;
use crate::controller::{Context, is_namespace_terminating};
use crate::core::children::child::{Change, Child};
use crate::core::children::obstacle::{Hindrance, is_lasting};
use crate::core::status::condition::ChildObstacle;
use crate::core::status::quote::shorten;
use crate::names;

/// What the API server refused: by [`Child::key`] what was asked of what, and the obstacle that this is.
pub(in crate::controller) type Refusals = BTreeMap<String, (u64, ChildObstacle)>;

/// What became of a child.
#[derive(Debug)]
pub(in crate::controller) enum Applied {
    /// Nothing had to be done.
    Unchanged,
    /// It was written, and this is what it is now.
    Written(Value),
    /// It was deleted.
    Deleted,
    /// It is not as wanted, for this reason.
    Hindered(ChildObstacle),
}

impl Applied {
    /// What keeps the child from being as wanted.
    pub(in crate::controller) fn obstacle(self) -> Option<ChildObstacle> {
        match self {
            Self::Hindered(obstacle) => Some(obstacle),
            Self::Unchanged | Self::Written(_) | Self::Deleted => None,
        }
    }
}

/// Brings a child to what is wanted, where it is the operator's; `live` is what was read of it.
pub(in crate::controller) async fn child(
    ctx: &Context,
    child: &Child,
    live: Option<&Value>,
    refusals: &mut Refusals,
) -> Result<Applied, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &child.namespace, &child.resource);
    let replaced = match child.change(live) {
        Change::Nothing => return Ok(Applied::Unchanged),
        Change::NotOurs => return Ok(Applied::Hindered(child.obstacle(&Hindrance::NotOurs))),
        Change::Delete => {
            delete(&api, child, live).await?;
            return Ok(Applied::Deleted);
        }
        Change::Replace => live,
        Change::Apply => None,
    };
    let print = fingerprint(child, live);
    let key = child.key();
    if let Some((refused, obstacle)) = refusals.get(&key).filter(|(refused, _)| *refused == print) {
        tracing::trace!(child = key, refused, "refused before");
        return Ok(Applied::Hindered(obstacle.clone()));
    }
    let Child { namespace, name, .. } = child;
    let kind = child.kind();
    match write(&api, child, replaced).await {
        Ok(written) => {
            tracing::info!(kind, namespace, name, "applied");
            refusals.remove(&key);
            Ok(Applied::Written(written))
        }
        Err(error) => {
            let Some(&Status { code, ref message, .. }) = error.refusal_status() else { return Err(error) };
            let answer = shorten(message);
            match is_namespace_terminating(message) {
                true => tracing::debug!(kind, namespace, name, answer, "refused: the namespace is going"),
                false => tracing::warn!(kind, namespace, name, answer, "refused"),
            }
            let is_lasting = is_lasting(code, message);
            let obstacle = child.obstacle(&Hindrance::Refused { code, message: answer });
            if is_lasting {
                refusals.insert(key, (print, obstacle.clone()));
            }
            Ok(Applied::Hindered(obstacle))
        }
    }
}

/// What is asked of which version of the object.
fn fingerprint(child: &Child, live: Option<&Value>) -> u64 {
    let version = live.and_then(|live| live.pointer("/metadata/resourceVersion")).map(Value::to_string);
    let mut hasher = DefaultHasher::new();
    (child.object().map(Value::to_string), version).hash(&mut hasher);
    hasher.finish()
}

/// Applies a child, in place of the one that is given.
async fn write(api: &Api<DynamicObject>, child: &Child, replaced: Option<&Value>) -> Result<Value, Error> {
    if replaced.is_some() {
        delete(api, child, replaced).await?;
    }
    let failed = |source| Error::Write { what: child.key(), source };
    let decoded = |object| serde_json::to_value(object).map_err(|source| Error::Encode { what: child.key(), source });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let written = api.patch(&child.name, &params, &Patch::Apply(child.object())).await.map_err(failed)?;
    let written = decoded(written)?;
    let Some(exact) = child.exact_patch(&written) else { return Ok(written) };
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    decoded(api.patch(&child.name, &params, &Patch::Merge(&exact)).await.map_err(failed)?)
}

/// Deletes one of ours, and exactly the one that was seen.
async fn delete(api: &Api<DynamicObject>, child: &Child, live: Option<&Value>) -> Result<(), Error> {
    let uid = live.and_then(|live| live.pointer("/metadata/uid")).and_then(Value::as_str).map(str::to_owned);
    let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
    match api.delete(&child.name, &params).await {
        Ok(_) => tracing::info!(kind = child.kind(), namespace = child.namespace, name = child.name, "deleted"),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(source) => return Err(Error::Write { what: child.key(), source }),
    }
    Ok(())
}
