//! Every read from Kubernetes.

mod items;
mod lists;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::Context;
use crate::api::AgentTracing;
use crate::core::children::Desired;
use crate::core::children::child::Child;
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::Policy;
use crate::core::status::mlflow_cr;
use crate::lean::LeanAccount;
use crate::names;
pub(super) use lists::{List, url};
pub(super) use workloads::{Troubles, Workloads, is_settled, object, pod_ages, troubles, workload, workloads};

/// Pods of a server that are looked at.
const MAX_SERVER_PODS: usize = 20;

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the API server.
    #[error("failed to read {what}")]
    Read {
        /// The object or list.
        what: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// An answer that is not what it should be.
    #[error("failed to understand {what}")]
    Decode {
        /// The object or list.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No answer in time.
    #[error("failed to read {what} in time")]
    Timeout {
        /// The object or list.
        what: String,
    },
}

/// The child objects as they are.
#[derive(Debug, Default)]
pub(super) struct LiveChildren {
    pub deployment: Option<Value>,
    pub service: Option<Value>,
    pub claim: Option<Value>,
    pub network_policy: Option<Value>,
}

/// Whether the cluster is OpenShift: its SCCs give uid and fsGroup.
pub(super) async fn openshift(client: &Client) -> Result<bool, Error> {
    let what = || "the API groups".to_owned();
    let groups = tokio::time::timeout(Duration::from_secs(30), client.list_api_groups()).await;
    let groups = groups.map_err(|_| Error::Timeout { what: what() })?;
    let groups = groups.map_err(|source| Error::Read { what: what(), source })?;
    Ok(groups.groups.iter().any(|g| g.name == names::OPENSHIFT_GROUP))
}

/// The objects of a standalone server, read live.
pub(super) async fn children(ctx: &Context, wanted: &Desired) -> Result<LiveChildren, Error> {
    let Desired { deployment, service, claim, network_policy } = wanted;
    let (deployment, service, claim, network_policy) = futures::try_join!(
        child(ctx, deployment),
        child(ctx, service),
        child(ctx, claim),
        child(ctx, network_policy),
    )?;
    Ok(LiveChildren { deployment, service, claim, network_policy })
}

/// A child as it is.
pub(super) async fn child(ctx: &Context, child: &Child) -> Result<Option<Value>, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &child.namespace, &child.resource);
    let found = api.get_opt(&child.name).await.map_err(|source| Error::Read { what: child.key(), source })?;
    let Some(mut found) = found else { return Ok(None) };
    found.metadata.managed_fields = None;
    serde_json::to_value(found).map(Some).map_err(|source| Error::Decode { what: child.key(), source })
}

/// The labels of a namespace; none where it is gone.
pub(super) async fn namespace_labels(ctx: &Context, namespace: &str) -> Result<BTreeMap<String, String>, Error> {
    let read = |source| Error::Read { what: format!("Namespace {namespace}"), source };
    let found = Api::<Namespace>::all(ctx.client.clone()).get_metadata_opt(namespace).await.map_err(read)?;
    Ok(found.and_then(|namespace| namespace.metadata.labels).unwrap_or_default())
}

/// Whether a namespace carries the injection label.
pub(super) fn is_labelled(labels: &BTreeMap<String, String>) -> bool {
    labels.get(names::LABEL_INJECTION).is_some_and(|value| value == names::ENABLED)
}

/// The AgentTracings of a namespace, from memory; `this` one as it is given.
pub(super) fn tracings(ctx: &Context, namespace: &str, this: &AgentTracing) -> Vec<AgentTracing> {
    let all = ctx.store.state();
    let readable = all.iter().filter_map(|t| t.0.as_ref().ok());
    let others =
        readable.filter(|t| t.metadata.namespace.as_deref() == Some(namespace) && t.metadata.uid != this.metadata.uid);
    others.chain([this]).cloned().collect()
}

/// The service accounts of a namespace that mount no token; asked only where a token is needed.
pub(super) async fn tokenless(ctx: &Context, namespace: &str, policies: &[Policy]) -> Result<BTreeSet<String>, Error> {
    if !policies.iter().any(|policy| policy.settings.agents_need_token()) {
        return Ok(BTreeSet::new());
    }
    let mut found = BTreeSet::new();
    let each = |item: &str| {
        let account: LeanAccount = serde_json::from_str(item)?;
        found.extend((account.automount_token == Some(false)).then(|| account.name_any()));
        Ok(())
    };
    List::service_accounts(namespace).for_each(&ctx.client, each).await?;
    Ok(found)
}

/// The MLflow resource, whose kind may be absent, appear and go while we run.
pub(super) async fn mlflow_resource(ctx: &Context, name: &str) -> Result<mlflow_cr::Resource, Error> {
    let read = |source| Error::Read { what: format!("MLflow {name}"), source };
    match mlflows(&ctx.client).get(name).await {
        Ok(mut found) => {
            found.metadata.managed_fields = None;
            let decode = |source| Error::Decode { what: format!("MLflow {name}"), source };
            serde_json::to_value(found).map(mlflow_cr::Resource::Present).map_err(decode)
        }
        // A known kind is named in the answer; an unknown one has no path.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let named = status.details.as_ref().is_some_and(|details| details.name == name);
            Ok(if named { mlflow_cr::Resource::Absent } else { mlflow_cr::Resource::NoKind })
        }
        Err(source) => Err(read(source)),
    }
}

/// The API of the MLflow resources.
pub(crate) fn mlflows(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("mlflow.opendatahub.io", "v1", "MLflow");
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "mlflows"))
}

/// The rules of a ClusterRole, by their hash; `None` where there is none. Labels and annotations change nothing.
pub(super) async fn cluster_role(ctx: &Context, name: &str) -> Result<Option<u64>, Error> {
    let what = || format!("ClusterRole {name}");
    let found = Api::<ClusterRole>::all(ctx.client.clone()).get_opt(name).await;
    let Some(role) = found.map_err(|source| Error::Read { what: what(), source })? else { return Ok(None) };
    let rules = serde_json::to_string(&role.rules).map_err(|source| Error::Decode { what: what(), source })?;
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    Ok(Some(hasher.finish()))
}

/// The first verb on experiments that a service account may not use; `None` where it may all that an agent needs.
pub(super) async fn denied(
    ctx: &Context,
    namespace: &str,
    of: &str,
    account: &str,
) -> Result<Option<&'static str>, Error> {
    let api: Api<SubjectAccessReview> = Api::all(ctx.client.clone());
    for verb in ["get", "list", "create", "update"] {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{of}:{account}")),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{of}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("mlflow.kubeflow.org".to_owned()),
                    resource: Some("experiments".to_owned()),
                    namespace: Some(namespace.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let read = |source| Error::Read { what: format!("the rights of {of}/{account}"), source };
        let answer = api.create(&PostParams::default(), &review).await.map_err(read)?;
        if !answer.status.is_some_and(|status| status.allowed) {
            return Ok(Some(verb));
        }
    }
    Ok(None)
}

/// One key of a ConfigMap; `None` where either is absent.
pub(super) async fn config_map_key(
    ctx: &Context,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, Error> {
    let read = |source| Error::Read { what: format!("ConfigMap {namespace}/{name}"), source };
    let found = Api::<ConfigMap>::namespaced(ctx.client.clone(), namespace).get_opt(name).await.map_err(read)?;
    Ok(found.and_then(|map| map.data?.remove(key)))
}

/// The AgentTracings of a namespace, read live, for what cannot be undone.
pub(super) async fn live_policies(ctx: &Context, namespace: &str) -> Result<Vec<Policy>, Error> {
    let api: Api<AgentTracing> = Api::namespaced(ctx.client.clone(), namespace);
    let read = |source| Error::Read { what: format!("the AgentTracings of {namespace}"), source };
    Ok(api.list(&ListParams::default()).await.map_err(read)?.items.iter().map(Policy::of).collect())
}

/// The pods of a server that the operator runs, some of them.
pub(super) async fn server_pods(
    client: &Client,
    namespace: &str,
    tracing: &str,
    application: &str,
) -> Result<Vec<Pod>, Error> {
    let labels = format!("{},{}={}", names::pods_of(application, tracing), names::LABEL_MANAGED_BY, names::MANAGED_BY);
    let pods = List::of(Kind::Pod, Some(namespace)).labelled(&labels).at_most(MAX_SERVER_PODS);
    let mut pods = pods.pods(client).await?;
    // The newest says why it does not start; the others are on their way out.
    pods.sort_by(|a, b| b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp));
    Ok(pods)
}

/// A StorageClass: `None` if there is none, else whether its volumes can grow.
pub(super) async fn storage_class(ctx: &Context, name: &str) -> Result<Option<bool>, Error> {
    let read = |source| Error::Read { what: format!("StorageClass {name}"), source };
    let found = Api::<StorageClass>::all(ctx.client.clone()).get_opt(name).await.map_err(read)?;
    Ok(found.map(|class| class.allow_volume_expansion.unwrap_or(false)))
}
