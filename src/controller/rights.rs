//! Who may write to the shared MLflow of mode CR: one RoleBinding per namespace, and the proof that it works.
//!
//! MLflow keeps each decision for 300 s per token. So a right is proven by a SubjectAccessReview before an agent is wired
//! and before the operator asks MLflow anything in a namespace as its observer.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::Value;

use super::{Context, Error, apply, observe};
use crate::api::{AgentTracing, MlflowMode, Reason};
use crate::core::children::binding::{TracingOwner, role_binding};
use crate::core::children::drift::has_drifted;
use crate::core::settings::Settings;
use crate::core::status::condition::ConditionUpdate;
use crate::names;

/// What was proven: by service account, and for which state of binding and role.
#[derive(Debug, Default)]
pub(super) struct AccessCache {
    state: String,
    allowed: BTreeSet<(String, String)>,
}

/// The rights in a namespace.
pub(super) struct Rights {
    /// Condition `RBACReady`.
    pub verdict: Option<ConditionUpdate>,
    /// Service accounts of workloads that may write to MLflow.
    pub bound: BTreeSet<String>,
    /// Whether the operator may ask MLflow about the namespace.
    pub may_ask: bool,
}

/// Brings the RoleBinding about and proves what it gives.
pub(super) async fn rights(
    ctx: &Context,
    settings: &Settings,
    tracings: &[AgentTracing],
    accounts: &BTreeSet<String>,
    workspace: Option<&ConditionUpdate>,
    memory: &mut AccessCache,
) -> Result<Rights, Error> {
    if settings.mode != MlflowMode::Cr {
        return Ok(Rights { verdict: None, bound: BTreeSet::new(), may_ask: true });
    }
    let namespace = settings.namespace.as_str();
    let role = ctx.options.integration_role.as_str();
    let look = format!("kubectl get rolebinding -n {namespace} {} -o yaml", names::ROLE_BINDING);
    let none = |verdict| Ok(Rights { verdict: Some(verdict), bound: BTreeSet::new(), may_ask: false });
    let Some(role_version) = observe::cluster_role(ctx, role).await? else {
        let message = format!(
            "ClusterRole {role} does not exist, so nobody can be allowed to write to MLflow; the MLflow operator brings it: \
             kubectl get clusterrole {role}"
        );
        return none(ConditionUpdate::bad(Reason::ClusterRoleMissing, message));
    };
    let wanted = role_binding(namespace, &users(tracings), accounts, &ctx.platform.operator_namespace, role); // pure
    let live = observe::child::<RoleBinding>(ctx, namespace, names::ROLE_BINDING).await?; // IO
    if live.as_ref().is_some_and(|live| !apply::is_managed(live)) {
        let message = format!(
            "RoleBinding {} exists and is not the operator's, so it is left alone; delete or rename it: {look}",
            names::ROLE_BINDING
        );
        return none(ConditionUpdate::bad(Reason::NameConflict, message));
    }
    let is_so = live.as_ref().is_some_and(|live| is_as_wanted(&wanted, live));
    let live = match live.filter(|_| is_so) {
        Some(live) => live,
        None => match apply::role_binding(ctx, &wanted, role).await {
            Ok(live) => live,
            Err(error) => match error.refusal() {
                Some(said) => {
                    return none(ConditionUpdate::bad(
                        Reason::BindForbidden,
                        format!(
                            "The API server refuses RoleBinding {} ({said}); look with: {look}",
                            names::ROLE_BINDING
                        ),
                    ));
                }
                None => return Err(error.into()),
            },
        },
    };
    let version =
        |object: &Value| object.pointer("/metadata/resourceVersion").map(Value::to_string).unwrap_or_default();
    let state = format!("{role_version} {}", version(&live));
    let is_new = state != memory.state;
    if is_new {
        (memory.state, memory.allowed) = (state, BTreeSet::new());
    }
    // Where MLflow does not show the namespace a question would be answered with a refusal that it keeps.
    if workspace.is_some_and(|workspace| workspace.good == Some(false)) {
        let message = format!("The service accounts are bound ({}); see them with: {look}", accounts.len());
        return Ok(Rights {
            verdict: Some(ConditionUpdate::good(Reason::Bound, message)),
            bound: BTreeSet::new(),
            may_ask: false,
        });
    }
    let observer = (ctx.platform.operator_namespace.clone(), names::OBSERVER.to_owned());
    let agents = accounts.iter().map(|account| (namespace.to_owned(), account.clone()));
    let mut refused = BTreeMap::new();
    for (of, account) in [observer.clone()].into_iter().chain(agents) {
        if memory.allowed.contains(&(of.clone(), account.clone())) {
            continue;
        }
        match observe::denied(ctx, namespace, &of, &account).await? {
            None => {
                memory.allowed.insert((of, account));
            }
            Some(verb) => {
                refused.insert((of, account), verb);
            }
        }
    }
    let bound = accounts.iter().filter(|a| memory.allowed.contains(&(namespace.to_owned(), (*a).clone()))).cloned();
    let verdict = match refused.iter().next() {
        None => ConditionUpdate::good(
            Reason::Bound,
            format!(
                "Every service account of the workloads may write to MLflow ({}); see them with: {look}",
                accounts.len()
            ),
        ),
        // Authorization follows a new binding with a delay of milliseconds.
        Some(_) if is_new => ConditionUpdate::bad(
            Reason::Progressing,
            format!("The service accounts are being bound; watch with: {look}"),
        ),
        Some(((of, account), verb)) => ConditionUpdate::bad(
            Reason::AccessDenied,
            format!(
                "Service account {of}/{account} is bound to ClusterRole {role} and still may not {verb} experiments.mlflow.kubeflow.org; see \
                 what the role allows: kubectl describe clusterrole {role}"
            ),
        ),
    };
    Ok(Rights { verdict: Some(verdict), bound: bound.collect(), may_ask: memory.allowed.contains(&observer) })
}

/// The AgentTracings of mode CR, which all own the binding.
fn users(tracings: &[AgentTracing]) -> BTreeSet<TracingOwner> {
    let of_mode = tracings.iter().filter(|t| t.spec.mlflow.mode == MlflowMode::Cr);
    of_mode.filter(|t| t.metadata.deletion_timestamp.is_none()).filter_map(user).collect()
}

/// An AgentTracing as an owner.
fn user(tracing: &AgentTracing) -> Option<TracingOwner> {
    Some(TracingOwner { name: tracing.metadata.name.clone()?, uid: tracing.metadata.uid.clone()? })
}

/// Subjects beside ours are drift: whoever may write to MLflow here is decided by the workloads alone.
fn is_as_wanted(wanted: &RoleBinding, live: &Value) -> bool {
    let Ok(wanted) = serde_json::to_value(wanted) else { return false };
    let subjects = |object: &Value| -> BTreeSet<String> {
        let list = object.get("subjects").and_then(Value::as_array);
        let part =
            |subject: &Value, field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        list.into_iter()
            .flatten()
            .map(|s| ["kind", "namespace", "name"].map(|field| part(s, field)).join("/"))
            .collect()
    };
    let owners =
        |object: &Value| object.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(0, Vec::len);
    !has_drifted(&wanted, live) && subjects(&wanted) == subjects(live) && owners(&wanted) == owners(live)
}
