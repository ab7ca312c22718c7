//! The objects of a standalone server: brought to what is desired, where they are the operator's.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Resource;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::Status;
use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use crate::api::{AgentTracing, DeletionPolicy, Reason};
use crate::controller::observe::{self, LiveChildren};
use crate::controller::{Context, is_namespace_terminating};
use crate::core::children::Desired;
use crate::core::children::drift::{has_drifted, refused_changes, without_refused};
use crate::core::settings::Settings;
use crate::core::status::condition::ChildObstacle;
use crate::core::status::quote::shorten;
use crate::names;

/// What the API server refused: by kind, what was asked of what, and the obstacle that this is.
pub(in crate::controller) type Refusals = BTreeMap<&'static str, (u64, ChildObstacle)>;

/// Brings the child objects to what is desired. What stands in the way is returned, the worst first.
pub(in crate::controller) async fn children(
    ctx: &Context,
    tracing: &AgentTracing,
    settings: &Settings,
    desired: Desired,
    live: &LiveChildren,
    refusals: &mut Refusals,
) -> Result<Vec<ChildObstacle>, Error> {
    let Desired { deployment, service, claim, network_policy } = desired;
    let mut children = Children { ctx, settings, refusals, obstacles: Vec::new() };

    let has_volume = match claim {
        Some(claim) => children.claim(tracing, &claim, live).await?,
        None => true,
    };
    // Without its volume the server would wait; and its mount of the volume is how a lost one is told from a new one.
    if has_volume {
        children.bring::<Deployment>(encode(&deployment)?, live.deployment.as_ref()).await?;
    }
    children.bring::<Service>(encode(&service)?, live.service.as_ref()).await?;
    match network_policy {
        Some(policy) => children.bring::<NetworkPolicy>(encode(&policy)?, live.network_policy.as_ref()).await?,
        None => children.delete::<NetworkPolicy>(live.network_policy.as_ref()).await?,
    }
    Ok(children.obstacles)
}

fn encode<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|source| Error::Encode { what: K::kind(&()).into_owned(), source })
}

struct Children<'a> {
    ctx: &'a Context,
    settings: &'a Settings,
    refusals: &'a mut Refusals,
    obstacles: Vec<ChildObstacle>,
}

impl Children<'_> {
    /// The claim, which holds the traces: never replaced silently. Says whether there is one afterwards.
    async fn claim(
        &mut self,
        tracing: &AgentTracing,
        desired: &PersistentVolumeClaim,
        live: &LiveChildren,
    ) -> Result<bool, Error> {
        let desired = encode(desired)?;
        let Settings { namespace, name: tracing_name, .. } = self.settings;
        let name = self.settings.object_name();
        let Some(claim) = &live.claim else {
            if was_in_use(tracing, live, &name) {
                self.obstacle(Reason::StorageNotBound, format!(
                    "PersistentVolumeClaim {name} is gone and with it the traces; restore it, or start with an empty one by deleting \
                     this AgentTracing and creating it again: kubectl delete agenttracing -n {namespace} {tracing_name}"
                ));
                return Ok(false);
            }
            self.bring::<PersistentVolumeClaim>(desired, None).await?;
            return Ok(self.obstacles.is_empty());
        };
        if claim.pointer("/metadata/deletionTimestamp").is_some() {
            self.obstacle(Reason::StorageNotBound, format!(
                "PersistentVolumeClaim {name} is being deleted and its traces go as soon as MLflow's pod stops; copy them now: \
                 kubectl cp -n {namespace} $(kubectl get pods -n {namespace} -l {}={tracing_name} -o name | head -n 1 | cut -d/ -f2):/mlflow ./mlflow",
                names::LABEL_INSTANCE
            ));
            return Ok(true);
        }
        if is_ours(claim, self.settings) {
            let refused = refused_changes(&desired, claim);
            self.obstacles.extend(refused.iter().map(|r| ChildObstacle {
                reason: Reason::StorageNotBound,
                message: format!("{r}; change it with: kubectl edit agenttracing -n {namespace} {tracing_name}"),
            }));
        }
        let mut desired = without_refused(desired, claim);
        self.hold_size(&mut desired, claim).await?;
        self.bring::<PersistentVolumeClaim>(desired, Some(claim)).await?;
        Ok(true)
    }

    /// Leaves the size as it is where it cannot grow: the API server would refuse it each time.
    async fn hold_size(&mut self, desired: &mut Value, claim: &Value) -> Result<(), Error> {
        const SIZE: &str = "/spec/resources/requests/storage";
        let (Some(wanted), Some(found)) = (desired.pointer_mut(SIZE), claim.pointer(SIZE)) else { return Ok(()) };
        if !has_drifted(&json!({"requests": {"storage": &*wanted}}), &json!({"requests": {"storage": found}})) {
            return Ok(());
        }
        let asked = std::mem::replace(wanted, found.clone());
        if claim.pointer("/status/phase").and_then(Value::as_str) != Some("Bound") {
            return Ok(());
        }
        let class = claim.pointer("/spec/storageClassName").and_then(Value::as_str).unwrap_or_default();
        if !class.is_empty() && observe::storage_class(self.ctx, class).await? == Some(true) {
            *wanted = asked;
            return Ok(());
        }
        let Settings { namespace, name, standalone, .. } = self.settings;
        let (asked, found) = (asked.as_str().unwrap_or_default().to_owned(), found.as_str().unwrap_or_default());
        let owned = claim.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|o| !o.is_empty());
        let object = self.settings.object_name();
        let owners = format!("kubectl get pvc -n {namespace} {object} -o jsonpath='{{.metadata.ownerReferences}}'");
        // The size only grows: the way back is a new AgentTracing that adopts the volume, which goes with an owner that it has.
        let back = match standalone.deletion_policy {
            DeletionPolicy::Retain if owned => format!(
                "or go back to {found} by a new AgentTracing, which adopts the volume, but do not delete this one before the volume \
                 has no owner any more: wait until this prints nothing: {owners}"
            ),
            DeletionPolicy::Retain => format!(
                "or go back to {found} by a new AgentTracing, which adopts the volume: kubectl delete agenttracing -n {namespace} {name}"
            ),
            DeletionPolicy::Delete => format!(
                "or go back to {found}: set deletionPolicy to Retain, wait until '{owners}' prints nothing, and only then delete this \
                 AgentTracing and create it with {found}, which adopts the volume; begin with: kubectl edit agenttracing -n \
                 {namespace} {name}"
            ),
        };
        self.obstacle(Reason::StorageNotBound, format!(
            "The volume cannot grow from {found} to {asked}: StorageClass \"{class}\" does not allow it; allow it with 'kubectl patch \
             storageclass {class} -p '{{\"allowVolumeExpansion\":true}}'' if its driver can, {back}"
        ));
        Ok(())
    }

    /// One object: applied if it is absent, or ours and different.
    async fn bring<K: Resource<DynamicType = ()>>(
        &mut self,
        desired: Value,
        live: Option<&Value>,
    ) -> Result<(), Error> {
        let kind = K::kind(&()).into_owned();
        let Settings { namespace, .. } = self.settings;
        let name = self.settings.object_name();
        if let Some(live) = live {
            if !is_ours(live, self.settings) {
                let plural = K::plural(&());
                self.obstacle(Reason::NameConflict, format!(
                    "{kind} {name} exists and is not the operator's, so it is left alone; delete or rename it, or choose another name for \
                     this AgentTracing: kubectl get {plural} -n {namespace} {name} -o yaml"
                ));
                return Ok(());
            }
            // What is being deleted comes back after it is gone.
            if live.pointer("/metadata/deletionTimestamp").is_some() || !has_drifted(&desired, live) {
                return Ok(());
            }
        }
        let mut hasher = DefaultHasher::new();
        (desired.to_string(), live.and_then(|l| l.pointer("/metadata/resourceVersion")).map(Value::to_string))
            .hash(&mut hasher);
        let asked = hasher.finish();
        let key = plural_key(&kind);
        if let Some((refused, obstacle)) = self.refusals.get(key).filter(|(refused, _)| *refused == asked) {
            tracing::trace!(kind, refused, "refused before");
            self.obstacles.push(obstacle.clone());
            return Ok(());
        }
        let what = || format!("{kind} {namespace}/{name}");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.ctx.client.clone(), namespace, &ApiResource::erase::<K>(&()));
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        match api.patch(&name, &params, &Patch::Apply(&desired)).await {
            Ok(_) => {
                tracing::info!(kind, namespace, name, "applied");
                self.refusals.remove(key);
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                let obstacle = self.refused(&kind, &name, &status);
                let said = shorten(&status.message);
                match is_namespace_terminating(&status.message) {
                    true => tracing::debug!(kind, namespace, name, said, "refused: the namespace is going"),
                    false => tracing::warn!(kind, namespace, name, said, "refused"),
                }
                // A quota may become free at any time; what is invalid stays so until either side changes.
                if status.code != 403 {
                    self.refusals.insert(key, (asked, obstacle.clone()));
                }
                self.obstacles.push(obstacle);
                Ok(())
            }
            Err(source) => Err(Error::Write { what: what(), source }),
        }
    }

    fn refused(&self, kind: &str, name: &str, status: &Status) -> ChildObstacle {
        let Settings { namespace, name: tracing, .. } = self.settings;
        let said = shorten(&status.message);
        let edit = format!("kubectl edit agenttracing -n {namespace} {tracing}");
        if status.code == 403 {
            let next = match said.contains("quota") {
                true => format!("make room or lower the demand: kubectl describe resourcequota -n {namespace}"),
                false => format!("see what forbids it: kubectl describe agenttracing -n {namespace} {tracing}"),
            };
            return ChildObstacle {
                reason: Reason::CreateForbidden,
                message: format!("The API server forbids {kind} {name} ({said}); {next}"),
            };
        }
        let reason = if kind == "PersistentVolumeClaim" { Reason::StorageNotBound } else { Reason::InvalidSpec };
        ChildObstacle {
            reason,
            message: format!("The API server refuses {kind} {name} ({said}); change the field concerned: {edit}"),
        }
    }

    /// Deletes one of ours, and exactly the one that was seen.
    async fn delete<K: Resource<DynamicType = ()>>(&mut self, live: Option<&Value>) -> Result<(), Error> {
        let Some(live) = live.filter(|l| is_ours(l, self.settings)) else { return Ok(()) };
        if live.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(());
        }
        let Settings { namespace, .. } = self.settings;
        let name = self.settings.object_name();
        let uid = live.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.ctx.client.clone(), namespace, &ApiResource::erase::<K>(&()));
        match api.delete(&name, &params).await {
            Ok(_) => tracing::info!(kind = %K::kind(&()), namespace, name, "deleted"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => return Err(Error::Write { what: format!("{} {namespace}/{name}", K::kind(&())), source }),
        }
        Ok(())
    }

    fn obstacle(&mut self, reason: Reason, message: String) {
        self.obstacles.push(ChildObstacle { reason, message });
    }
}

fn plural_key(kind: &str) -> &'static str {
    match kind {
        "Deployment" => "deployments",
        "Service" => "services",
        "NetworkPolicy" => "networkpolicies",
        _ => "persistentvolumeclaims",
    }
}

/// Ours by owner reference, or by the labels of an AgentTracing of this name: a retained claim is adopted again.
pub(in crate::controller) fn is_ours(live: &Value, settings: &Settings) -> bool {
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owned = owners.into_iter().flatten().any(|o| o.get("uid").and_then(Value::as_str) == Some(&*settings.uid));
    let label = |name: &str| live.pointer("/metadata/labels").and_then(|l| l.get(name)).and_then(Value::as_str);
    owned
        || (label(names::LABEL_MANAGED_BY) == Some(names::MANAGED_BY)
            && label(names::LABEL_INSTANCE) == Some(&*settings.name))
}

/// Whether an absent claim has been there: MLflow answered once, and its Deployment (if that is there) mounts the claim.
fn was_in_use(tracing: &AgentTracing, live: &LiveChildren, name: &str) -> bool {
    let mounted = |deployment: &Value| {
        let volumes = deployment.pointer("/spec/template/spec/volumes").and_then(Value::as_array);
        let claims =
            volumes.into_iter().flatten().filter_map(|v| v.pointer("/persistentVolumeClaim/claimName")?.as_str());
        claims.into_iter().any(|claim| claim == name)
    };
    let answered = tracing.status.as_ref().is_some_and(|s| s.mlflow.is_some());
    answered && live.deployment.as_ref().is_none_or(mounted)
}
