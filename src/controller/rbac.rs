//! Who may write to the shared MLflow of mode CR: one RoleBinding per namespace, and the proof that it works.
//!
//! MLflow keeps each decision for 300 s per token. So a right is proven by a SubjectAccessReview before an agent is wired
//! and before the operator asks MLflow anything in a namespace as its observer.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt, stream};
use serde_json::Value;

use super::apply::Applied;
use super::{Context, Error, apply, observe};
use crate::api::{AgentTracing, MlflowMode, Reason};
use crate::core::children::child::TracingOwner;
use crate::core::children::namespace::role_binding;
use crate::core::kubectl::Kubectl;
use crate::core::settings::Settings;
use crate::core::status::condition::{ChildObstacle, ConditionUpdate};
use crate::names;

/// What was proven. It stays so until the role's rules change, or the binding loses that subject.
#[derive(Debug, Default)]
pub(super) struct AccessCache {
    /// The rules of the role, and the binding.
    state: String,
    /// The version of the binding that was seen last.
    version: String,
    /// Service accounts by namespace and name.
    proven: BTreeSet<Account>,
}

/// Namespace and name of a service account.
type Account = (String, String);

impl AccessCache {
    /// Forgets what no longer counts: `before` is the binding as it was found.
    fn forget(&mut self, state: String, before: Option<&Value>) {
        let bound = before.map(subjects).unwrap_or_default();
        match self.state == state {
            true => {
                self.proven.retain(|(namespace, name)| bound.contains(&format!("ServiceAccount/{namespace}/{name}")))
            }
            false => self.proven.clear(),
        }
        self.state = state;
    }
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

/// Who is to be bound in a namespace.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Service accounts of workloads.
    pub agents: &'a BTreeSet<String>,
    /// Service accounts of relays, which write for agents.
    pub relays: &'a BTreeSet<String>,
    /// The AgentTracings of the namespace.
    pub tracings: &'a [AgentTracing],
}

/// Brings the RoleBinding about and proves what it gives.
pub(super) async fn rights(
    ctx: &Context,
    settings: &Settings,
    wanted: Wanted<'_>,
    workspace: Option<&ConditionUpdate>,
    cache: &mut AccessCache,
    refusals: &mut apply::Refusals,
) -> Result<Rights, Error> {
    if settings.server.mode() != MlflowMode::Cr {
        return Ok(Rights { verdict: None, bound: BTreeSet::new(), may_ask: true });
    }
    let Wanted { agents, relays, tracings } = wanted;
    let accounts = agents | relays;
    let namespace = settings.namespace.as_str();
    let role = ctx.options.integration_role.as_str();
    let look = Kubectl::new("get rolebinding").namespace(namespace).arg(names::ROLE_BINDING).yaml();
    let none = |verdict| Ok(Rights { verdict: Some(verdict), bound: BTreeSet::new(), may_ask: false });
    let Some(rules) = observe::cluster_role(ctx, role).await? else {
        let message = format!(
            "ClusterRole {role} does not exist, so nobody can be allowed to write to MLflow; the MLflow operator brings it: {}",
            Kubectl::new("get clusterrole").arg(role)
        );
        return none(ConditionUpdate::bad(Reason::ClusterRoleMissing, message));
    };
    let wanted = role_binding(namespace, users(tracings), &accounts, &ctx.platform.operator_namespace, role); // pure
    let before = observe::child(ctx, &wanted).await?; // IO
    let live = match apply::child(ctx, &wanted, before.as_ref(), refusals).await? {
        Applied::Written(live) => Some(live),
        Applied::Unchanged | Applied::Deleted => before.clone(),
        Applied::Hindered(ChildObstacle { reason, message }) => return none(ConditionUpdate::bad(reason, message)),
    };
    let text =
        |pointer: &str| live.as_ref().and_then(|live| live.pointer(pointer)).map(Value::to_string).unwrap_or_default();
    cache.forget(format!("{rules} {}", text("/metadata/uid")), before.as_ref());
    let version = text("/metadata/resourceVersion");
    let is_new = std::mem::replace(&mut cache.version, version.clone()) != version;
    // Where MLflow does not show the namespace a question would be answered with a refusal that it keeps.
    if workspace.is_some_and(|workspace| workspace.good == Some(false)) {
        let message = format!("The service accounts are bound ({}); see them with: {look}", accounts.len());
        return none(ConditionUpdate::good(Reason::Bound, message));
    }
    let observer = (ctx.platform.operator_namespace.clone(), names::OBSERVER.to_owned());
    let of = |account: &String| (namespace.to_owned(), account.clone());
    let all = [observer.clone()].into_iter().chain(accounts.iter().map(of));
    let denied = prove(ctx, namespace, all, cache).await?; // IO
    let verdict = match denied {
        None => all_bound(accounts.len(), !relays.is_empty(), &look),
        // Authorization follows a new binding with a delay of milliseconds.
        Some(_) if is_new => ConditionUpdate::bad(
            Reason::Progressing,
            format!("The service accounts are being bound; watch with: {look}"),
        ),
        Some(((of, account), verb)) => ConditionUpdate::bad(
            Reason::AccessDenied,
            format!(
                "Service account {of}/{account} is bound to ClusterRole {role} and still may not {verb} experiments.mlflow.kubeflow.org; see \
                 what the role allows: {}",
                Kubectl::new("describe clusterrole").arg(role)
            ),
        ),
    };
    let bound = agents.iter().filter(|account| cache.proven.contains(&of(account))).cloned().collect();
    Ok(Rights { verdict: Some(verdict), bound, may_ask: cache.proven.contains(&observer) })
}

fn all_bound(accounts: usize, with_relay: bool, look: &Kubectl) -> ConditionUpdate {
    let relay = if with_relay { " and of the relay" } else { "" };
    let message = format!(
        "Every service account of the workloads{relay} may write to MLflow ({accounts}); see them with: {look}"
    );
    ConditionUpdate::good(Reason::Bound, message)
}

/// Asks what is not proven yet. The first account that is denied something, and the verb.
async fn prove(
    ctx: &Context,
    namespace: &str,
    accounts: impl Iterator<Item = Account>,
    cache: &mut AccessCache,
) -> Result<Option<(Account, &'static str)>, Error> {
    let reviews: Vec<_> = accounts
        .filter(|account| !cache.proven.contains(account))
        .map(|account| async move {
            Ok::<_, Error>((observe::denied(ctx, namespace, &account.0, &account.1).await?, account))
        })
        .map(FutureExt::boxed)
        .collect();
    let mut denied = BTreeMap::new();
    let mut reviews = stream::iter(reviews).buffer_unordered(REVIEWS);
    while let Some(reviewed) = reviews.next().await {
        match reviewed? {
            (None, account) => _ = cache.proven.insert(account),
            (Some(verb), account) => _ = denied.insert(account, verb),
        }
    }
    Ok(denied.pop_first())
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

/// Kind, namespace and name of each subject.
fn subjects(binding: &Value) -> BTreeSet<String> {
    let list = binding.get("subjects").and_then(Value::as_array);
    let part = |subject: &Value, field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    list.into_iter().flatten().map(|s| ["kind", "namespace", "name"].map(|field| part(s, field)).join("/")).collect()
}

/// Service accounts whose rights are asked for at a time.
const REVIEWS: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(name: &str) -> Account {
        ("bank".to_owned(), name.to_owned())
    }

    fn binding(names: &[&str]) -> Value {
        let subject = |name: &&str| json!({"kind": "ServiceAccount", "namespace": "bank", "name": name});
        json!({"subjects": names.iter().map(subject).collect::<Vec<_>>()})
    }

    /// Review C4: each new account had all others asked for again.
    #[test]
    fn what_was_proven_stays_proven_until_the_role_or_that_subject_changes() {
        let with = |state: &str, before: Option<&Value>| {
            let proven = ["a", "b"].map(account).into();
            let mut cache = AccessCache { state: "rules 1".to_owned(), version: "7".to_owned(), proven };
            cache.forget(state.to_owned(), before);
            cache.proven.into_iter().map(|(_, name)| name).collect::<String>()
        };
        assert_eq!(with("rules 1", Some(&binding(&["a", "b", "new"]))), "ab");
        assert_eq!(with("rules 1", Some(&binding(&["b"]))), "b", "somebody took a out, and it was put in again");
        assert_eq!(with("rules 2", Some(&binding(&["a", "b"]))), "");
        assert_eq!(with("rules 1", None), "", "the binding was deleted");
    }
}
