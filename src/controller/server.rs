//! The MLflow server of an AgentTracing, in each of the three modes: brought about, found, asked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::Value;

use super::observe::Live;
use super::{Context, Error, apply, observe};
use crate::api::{AgentTracing, MlflowMode, MlflowStatus, Reason};
use crate::core::desired::desired;
use crate::core::health::{self, Obstacle, Probe, StorageClass, Verdict, mlflow_ready};
use crate::core::settings::Settings;
use crate::core::shared::{self, Resource};
use crate::mlflow::{self, Mlflow};

/// What a pass found of the server.
pub(super) struct Server {
    /// Condition `MLflowReady`.
    pub verdict: Verdict,
    /// The MLflow that answered.
    pub answered: Option<MlflowStatus>,
    /// Its client, without credentials.
    pub client: Option<Mlflow>,
    /// Condition `WorkspaceReady`.
    pub workspace: Option<Verdict>,
}

/// Brings the server about as far as it is ours, and asks it who it is.
pub(super) async fn server(
    ctx: &Context,
    tracing: &AgentTracing,
    settings: &Settings,
    labels: &BTreeMap<String, String>,
    refusals: &mut apply::Refusals,
    now: Timestamp,
) -> Result<Server, Error> {
    match settings.mode {
        MlflowMode::Standalone => standalone(ctx, tracing, settings, refusals, now).await,
        MlflowMode::Cr => shared_server(ctx, settings, labels).await,
        MlflowMode::External => external(ctx, settings).await,
    }
}

async fn standalone(
    ctx: &Context,
    tracing: &AgentTracing,
    settings: &Settings,
    refusals: &mut apply::Refusals,
    now: Timestamp,
) -> Result<Server, Error> {
    let live = observe::children(ctx, settings).await?; // IO
    let wanted = desired(settings, &ctx.platform); // pure
    let obstacles = apply::children(ctx, tracing, settings, wanted, &live, refusals).await?; // IO
    let client = Mlflow::new(&ctx.http()?, &settings.tracking_uri());
    let probe = match is_available(&live) {
        false => Probe::NotAsked,
        true => probed(client.server().await, &settings.tracking_uri(), "Service"), // IO
    };
    let verdict = judge_standalone(ctx, settings, &live, &obstacles, &probe, now).await?; // IO, then pure
    Ok(Server::of(verdict, probe, Some(client)))
}

/// The address may be told, discovered or documented; the one that answers is used.
async fn shared_server(ctx: &Context, settings: &Settings, labels: &BTreeMap<String, String>) -> Result<Server, Error> {
    let cr = &settings.cr;
    let mut resource = observe::mlflow_resource(ctx, &cr.name).await?; // IO
    if let (Resource::Absent, Some(spec)) = (&resource, &cr.create) {
        resource = match ctx.options.create_namespaces.contains(&settings.namespace) {
            true => apply::mlflow_resource(ctx, &cr.name, spec).await?, // IO
            false => Resource::CreateForbidden(format!(
                "an administrator has to name namespace {0} in --create-mlflow-namespaces; look with: kubectl get deployment -n {1} \
                 -o yaml",
                settings.namespace, ctx.platform.operator_namespace
            )),
        };
    }
    let listed = |url: &str| shared::host(url).is_some_and(|host| ctx.options.trusted_hosts.contains(&host));
    if let Some(url) = cr.url.as_deref().filter(|url| !listed(url)) {
        return Ok(Server::unlisted(url, true));
    }
    let candidates = shared::candidates(cr, &resource); // pure
    let (mut probe, mut asked, mut client) = (Probe::NotAsked, String::new(), None);
    for candidate in candidates {
        let found = Mlflow::locate(&ctx.http()?, &candidate.origin).await; // IO
        match found {
            Ok((found, server)) => {
                probe = probed(Ok(server), found.tracking_uri(), candidate.source);
                client = Some(found);
                break;
            }
            // The likeliest one says why.
            Err(error) if probe == Probe::NotAsked => {
                probe = probed(Err(error), &candidate.origin, candidate.source);
                asked = candidate.origin;
            }
            Err(_) => {}
        }
    }
    let verdict = shared::shared_ready(cr, &resource, &probe, &asked); // pure
    let mut server = Server::of(verdict, probe, client);
    let workspaces = server.answered.as_ref().map(|m| m.workspaces);
    server.workspace = Some(shared::workspace_ready(&settings.namespace, labels, &resource, workspaces)); // pure
    Ok(server)
}

async fn external(ctx: &Context, settings: &Settings) -> Result<Server, Error> {
    let uri = settings.tracking_uri();
    if !shared::host(&uri).is_some_and(|host| ctx.options.trusted_hosts.contains(&host)) {
        return Ok(Server::unlisted(&uri, settings.policy.workspace.is_some()));
    }
    let found = Mlflow::locate(&ctx.http()?, &uri).await; // IO
    let (client, probe) = match found {
        // Agents get what the user wrote, and would find nothing there.
        Ok((client, _)) if client.tracking_uri() != uri => {
            let what = format!("its API is at {}: write that into mlflow.external.trackingURI", client.tracking_uri());
            (None, Probe::Failed { reason: Reason::WrongPath, what })
        }
        Ok((client, server)) => (Some(client), probed(Ok(server), &uri, "Spec")),
        Err(error) => (None, probed(Err(error), &uri, "Spec")),
    };
    let look = format!("kubectl get agenttracing -n {} {} -o yaml", settings.namespace, settings.name);
    let verdict = shared::asked(&probe, &uri, &look); // pure
    Ok(Server::of(verdict, probe, client))
}

impl Server {
    fn of(verdict: Verdict, probe: Probe, client: Option<Mlflow>) -> Self {
        let answered = match probe {
            Probe::Answered(answered) => Some(answered),
            Probe::NotAsked | Probe::Failed { .. } => None,
        };
        let client = client.filter(|_| answered.is_some());
        Self { verdict, answered, client, workspace: None }
    }

    /// A host that no administrator listed: agents are sent there, the operator is not.
    fn unlisted(uri: &str, workspaces: bool) -> Self {
        let host = shared::host(uri).unwrap_or_default();
        let message = format!(
            "Agents send their traces to {uri}, where the operator may not look: have an administrator list {host} in \
             --trusted-mlflow-hosts: kubectl get deployment -n {} {} -o yaml",
            crate::names::OPERATOR_NAMESPACE,
            crate::names::MANAGED_BY
        );
        let answered =
            MlflowStatus { url: uri.to_owned(), version: String::new(), workspaces, source: "Unobserved".to_owned() };
        Self {
            verdict: Verdict::unknown(Reason::NotObservable, message),
            answered: Some(answered),
            client: None,
            workspace: None,
        }
    }
}

fn probed(found: Result<mlflow::Server, mlflow::Error>, uri: &str, source: &str) -> Probe {
    match found {
        Ok(mlflow::Server { version, workspaces }) => {
            Probe::Answered(MlflowStatus { url: uri.to_owned(), version, workspaces, source: source.to_owned() })
        }
        Err(error) => Probe::Failed { reason: reason(&error), what: error.to_string() },
    }
}

fn reason(error: &mlflow::Error) -> Reason {
    use mlflow::Error as E;
    match error {
        E::Client(_) | E::Dns(_) | E::Refused(_) | E::Timeout | E::Connection(_) | E::Server { .. } => {
            Reason::Unreachable
        }
        E::StorageFull { .. } => Reason::StorageFull,
        E::Tls(_) => Reason::TLSUntrusted,
        E::HostHeader => Reason::HostHeaderRejected,
        E::Unauthorized | E::Forbidden(_) | E::Mesh => Reason::Unauthorized,
        E::LoginPage => Reason::LoginPage,
        E::NotFound(_) | E::NoWorkspace | E::Garbage | E::Rejected { .. } => Reason::WrongPath,
        E::TooOld(_) => Reason::VersionTooOld,
    }
}

fn is_available(live: &Live) -> bool {
    let available =
        live.deployment.as_ref().and_then(|d| d.pointer("/status/availableReplicas")).and_then(Value::as_i64);
    available.unwrap_or(0) > 0
}

/// Reads what explains a server that does not answer, and only then.
async fn judge_standalone(
    ctx: &Context,
    settings: &Settings,
    live: &Live,
    obstacles: &[Obstacle],
    probe: &Probe,
    now: Timestamp,
) -> Result<Verdict, Error> {
    let typed = |value: &Option<Value>| value.clone().and_then(|v| serde_json::from_value::<Deployment>(v).ok());
    let deployment = typed(&live.deployment);
    let claim: Option<PersistentVolumeClaim> = live.claim.clone().and_then(|v| serde_json::from_value(v).ok());
    let well = matches!(probe, Probe::Answered(_)) || !obstacles.is_empty();
    let pods = if well { Vec::new() } else { observe::server_pods(ctx, settings).await? };
    let class = match claim.as_ref().and_then(unbound_class).filter(|_| !well) {
        None => StorageClass::NotAsked,
        Some(class) => match observe::storage_class(ctx, class).await? {
            None => StorageClass::Absent,
            Some(_) => StorageClass::Present,
        },
    };
    let server = health::Server {
        namespace: &settings.namespace,
        tracing: &settings.name,
        name: &settings.object_name(),
        url: &settings.tracking_uri(),
        obstacles,
        deployment: deployment.as_ref(),
        claim: claim.as_ref(),
        class,
        pods: &pods,
        probe,
    };
    Ok(mlflow_ready(&server, now))
}

fn unbound_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let class = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    class.filter(|class| !class.is_empty() && phase != Some("Bound"))
}
