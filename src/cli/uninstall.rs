//! `uninstall`: everything of the operator leaves a cluster, in the order in which nothing breaks. First nobody injects any
//! more, then the wiring goes, a few workloads at a time, and only then, and only where it is asked for, what the wiring points at.
//!
//! Each step looks at what is there, so that an attempt that was cut off is simply made again.

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::{Api, Client, CustomResourceExt, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::api::AgentTracing;
use crate::cli::uninject::{self, UninjectAllArgs};
use crate::controller;
use crate::core::kubectl::Kubectl;
use crate::names;

/// The columns that show what holds an object.
const FINALIZERS: &str = "NAMESPACE:.metadata.namespace,NAME:.metadata.name,FINALIZERS:.metadata.finalizers";

/// What is taken out of a cluster.
#[derive(Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    cluster: UninjectAllArgs,
    /// Delete the CustomResourceDefinition too, and with it every AgentTracing and its MLflow server. Default: they stay.
    #[arg(long)]
    delete_tracings: bool,
}

/// Takes everything out; exit code 1 names the workloads that the API server would not change, and the rest stays then.
pub async fn uninstall(args: UninstallArgs) -> anyhow::Result<ExitCode> {
    let UninstallArgs { cluster: args, delete_tracings: with_tracings } = args;
    let client = Client::try_default().await.context("no cluster: set KUBECONFIG, or run this in a pod")?;
    let home = &args.operator_namespace;

    announce(&client, with_tracings).await?;
    delete(&Api::<MutatingWebhookConfiguration>::all(client.clone()), names::WEBHOOK_CONFIGURATION).await?;
    println!("nothing is injected any more");
    stop_operator(&client, home).await?;
    println!("the operator has ended");
    let failures = uninject::remove_all_wiring(&client, args.max_concurrent).await?;
    if failures > 0 {
        eprintln!(
            "the AgentTracings stay, since {failures} workloads still point at what they describe; see above why the API server \
             refuses, then do the same again"
        );
        return Ok(ExitCode::from(1));
    }
    if with_tracings {
        delete_tracings(&client).await?;
        delete_definition(&client).await?;
        println!("all AgentTracings are gone, and with them their MLflow servers and RoleBindings");
        list_what_stays(&client).await?;
    }
    for namespace in release_authorities(&client).await? {
        println!(
            "kept: ConfigMap {namespace}/{0}, from which pods that run take certificate authorities; once they have ended: {1}",
            names::CA_CONFIG_MAP,
            Kubectl::new("delete configmap").namespace(&namespace).arg(names::CA_CONFIG_MAP)
        );
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), home);
    for secret in [names::WEBHOOK_CA_SECRET, names::WEBHOOK_TLS_SECRET] {
        delete(&secrets, secret).await?;
    }
    delete(&Api::<Lease>::namespaced(client.clone(), home), names::LEASE).await?;
    Ok(ExitCode::SUCCESS)
}

/// Says what will be gone and what stays, before anything is.
async fn announce(client: &Client, with_tracings: bool) -> anyhow::Result<()> {
    let tracings = tracings(client).await?;
    let named = tracings.iter().map(|t| format!("{}/{}", t.namespace().unwrap_or_default(), t.name_any()));
    println!("{}", announcement(&named.collect::<Vec<_>>(), with_tracings));
    Ok(())
}

fn announcement(tracings: &[String], with_tracings: bool) -> String {
    let definition = AgentTracing::crd().name_any();
    let all = match tracings {
        [] => "none".to_owned(),
        few if few.len() <= MAX_NAMED => few.join(", "),
        many => format!("{}, … {} in all", many[..MAX_NAMED].join(", "), many.len()),
    };
    let first = "this will delete the webhook's configuration, end the operator and take the wiring out of every agent";
    if with_tracings {
        return format!(
            "{first}, and then delete CustomResourceDefinition {definition} and every AgentTracing ({all}) with its MLflow server \
             and RoleBinding; volumes stay unless their deletionPolicy is Delete"
        );
    }
    format!(
        "{first}; CustomResourceDefinition {definition} and every AgentTracing ({all}) stay with their MLflow servers and traces, and an \
         operator that is installed again takes them up; to delete them too: agent-tracing-operator uninstall --delete-tracings"
    )
}

/// A running operator would wire everything again.
async fn stop_operator(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match deployments.patch(names::MANAGED_BY, &PatchParams::default(), &none).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error).context("failed to scale the operator to 0 replicas"),
    }
    let end = Instant::now() + DELETE_TIMEOUT;
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("{}={}", names::LABEL_NAME, names::MANAGED_BY));
    loop {
        // Those on their way out as well: they still serve, and heal what somebody deletes.
        let replicas = pods.list_metadata(&ours).await.context("failed to list the operator's pods")?.items.len();
        // One that was killed keeps its lease until it expires.
        let holder = uninject::leader(client, namespace).await?;
        if replicas == 0 && holder.is_none() {
            return Ok(());
        }
        if Instant::now() > end {
            let look =
                Kubectl::new("get").namespace(namespace).arg(&format!("deployment/{}", names::MANAGED_BY)).yaml();
            bail!(
                "the operator does not end ({replicas} pods, led by {holder:?}); whoever brings it back, such as Argo CD or \
                 Flux, must stop doing so first: {}",
                look.arg("--show-managed-fields")
            );
        }
        sleep(POLL).await;
    }
}

/// Before their kind: with the kind gone, Kubernetes may no longer find out whose the MLflow servers are, and leave them.
async fn delete_tracings(client: &Client) -> anyhow::Result<()> {
    let servers = Api::<Deployment>::all(client.clone());
    let end = Instant::now() + DELETE_TIMEOUT;
    loop {
        let left = tracings(client).await?;
        for tracing in left.iter().filter(|tracing| tracing.metadata.deletion_timestamp.is_none()) {
            let namespace = tracing.namespace().unwrap_or_default();
            delete(&Api::<AgentTracing>::namespaced(client.clone(), &namespace), &tracing.name_any()).await?;
        }
        let servers = servers.list_metadata(&ours()).await.context("failed to list MLflow servers")?.items;
        if left.is_empty() && servers.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            let named = left.iter().map(|t| t.metadata.clone()).chain(servers.iter().map(|s| s.metadata.clone()));
            let named: Vec<_> =
                named.map(|m| format!("{}/{}", m.namespace.unwrap_or_default(), m.name.unwrap_or_default())).collect();
            bail!(
                "still being deleted: {}; what holds them stands in their finalizers: {} -o custom-columns={FINALIZERS}",
                named.join(", "),
                Kubectl::new("get agenttracings,deployments -A")
            );
        }
        sleep(POLL).await;
    }
}

/// All AgentTracings; none where an earlier attempt has deleted their kind.
async fn tracings(client: &Client) -> anyhow::Result<Vec<PartialObjectMeta<AgentTracing>>> {
    match Api::<AgentTracing>::all(client.clone()).list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // Of a kind that is not there the API server says so in plain text, without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).context("failed to list AgentTracings"),
    }
}

/// Deletes the merged certificate authorities of all namespaces but of those in which pods still run with them.
async fn release_authorities(client: &Client) -> anyhow::Result<Vec<String>> {
    let end = Instant::now() + POD_TERMINATION_TIMEOUT;
    loop {
        let used = controller::release_authorities(client, |_| true).await?;
        if used.is_empty() || Instant::now() > end {
            return Ok(used);
        }
        sleep(POLL).await;
    }
}

async fn delete_definition(client: &Client) -> anyhow::Result<()> {
    let definition = AgentTracing::crd().name_any();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    delete(&definitions, &definition).await?;
    gone(&definitions, &definition).await
}

/// What is absent already needs no deletion.
async fn delete<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to delete {} {name}", K::kind(&()))),
    }
}

async fn gone<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let end = Instant::now() + DELETE_TIMEOUT;
    let read = || async {
        api.get_metadata_opt(name).await.with_context(|| format!("failed to read {} {name}", K::kind(&())))
    };
    while read().await?.is_some() {
        if Instant::now() > end {
            bail!(
                "{0} {name} is still being deleted; look at its conditions: {1}",
                K::kind(&()),
                Kubectl::new("get").arg(&K::kind(&())).arg(name).yaml()
            );
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// What holds somebody's data stays, and is named.
async fn list_what_stays(client: &Client) -> anyhow::Result<()> {
    let claims = Api::<PersistentVolumeClaim>::all(client.clone()).list_metadata(&ours()).await;
    let claims = claims.context("failed to list PersistentVolumeClaims")?;
    // What has an owner is on its way out with it.
    for claim in claims.iter().filter(|claim| claim.owner_references().is_empty()) {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        println!(
            "kept with its traces: PersistentVolumeClaim {namespace}/{name}; an AgentTracing of the same name takes it over \
             again; to delete it: {}",
            Kubectl::new("delete pvc").namespace(&namespace).arg(&name)
        );
    }
    // Nothing to tell where there is no such kind.
    if let Ok(servers) = controller::mlflows(client).list_metadata(&ours()).await {
        for server in servers {
            let name = server.name_any();
            println!(
                "kept: MLflow {name}, which an AgentTracing asked for; to delete it: {}",
                Kubectl::new("delete mlflow").arg(&name)
            );
        }
    }
    Ok(())
}

/// What the operator made.
fn ours() -> ListParams {
    ListParams::default().labels(&format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY))
}

/// So many AgentTracings are named before something happens to them.
const MAX_NAMED: usize = 20;
const POLL: Duration = Duration::from_secs(1);
/// How long the pods that were replaced may take to end.
const POD_TERMINATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Above the time that a terminating operator goes on serving, and that a definition takes with 1,000 objects.
const DELETE_TIMEOUT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue, section 6: an uninstall says before it deletes what it will delete.
    #[test]
    fn the_announcement_names_what_goes_and_what_stays() {
        let tracings = ["bank-agents/tracing".to_owned(), "shop/traces".to_owned()];
        let kept = announcement(&tracings, false);
        assert!(
            kept.contains("(bank-agents/tracing, shop/traces) stay") && kept.ends_with("uninstall --delete-tracings")
        );
        assert!(!kept.contains("delete CustomResourceDefinition"), "{kept}");
        let deleted = announcement(&tracings, true);
        assert!(deleted.contains("delete CustomResourceDefinition agenttracings.agenttracing.dev"), "{deleted}");
        assert!(
            deleted.contains("(bank-agents/tracing, shop/traces)") && deleted.contains("volumes stay"),
            "{deleted}"
        );
        assert!(announcement(&[], true).contains("(none)"));
    }
}
