//! The MLflow server of an AgentTracing, in each of the three modes: brought about, found, asked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::Value;

use super::observe::LiveChildren;
use super::probing::{Answer, Located, Lookup};
use super::{Context, Error, apply, observe, reference};
use crate::api::{AgentTracing, ConditionType, MlflowStatus, Reason};
use crate::core::children::{Desired, desired, leads_to_server};
use crate::core::kubectl::Kubectl;
use crate::core::settings::{self, CrSettings, Facts, Settings, StandaloneSettings};
use crate::core::status::condition::{ChildObstacle, ConditionUpdate};
use crate::core::status::health::{self, Probe, StorageClass, mlflow_ready};
use crate::core::status::is_true;
use crate::core::status::mlflow_cr::{self, Resource};
use crate::core::status::writes;
use crate::core::url;
use crate::mlflow::{self, MlflowClient};
use crate::names;

/// What a pass found of the server.
pub(super) struct Server {
    /// Condition `MLflowReady`.
    pub verdict: ConditionUpdate,
    /// The MLflow that answered.
    pub answered: Option<MlflowStatus>,
    /// Its client, without credentials. Where it needs a token, one that may be shown it.
    pub client: Option<MlflowClient>,
    /// Condition `WorkspaceReady`.
    pub workspace: Option<ConditionUpdate>,
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
    match &settings.server {
        settings::Server::Standalone(of) => standalone(ctx, tracing, settings, of, refusals, now).await,
        settings::Server::Cr(cr) => shared_server(ctx, tracing, settings, cr, labels).await,
        settings::Server::External(_) => external(ctx, tracing, settings).await,
    }
}

async fn standalone(
    ctx: &Context,
    tracing: &AgentTracing,
    settings: &Settings,
    standalone: &StandaloneSettings,
    refusals: &mut apply::Refusals,
    now: Timestamp,
) -> Result<Server, Error> {
    let wanted = desired(settings, standalone, &ctx.platform); // pure
    let live = observe::children(ctx, &wanted).await?; // IO
    let obstacles = apply::children(ctx, tracing, settings, &wanted, &live, refusals).await?; // IO
    let uri = settings.tracking_uri();
    let (probe, client) = match may_be_asked(&live, &wanted, settings) {
        false => (Probe::NotAsked, None),
        true => {
            let answer = ctx.servers.answer(&ctx.http()?, &uri, Lookup::At, &reference(tracing)).await; // memory, IO
            probed(answer, "Service", last_answer(tracing).filter(|mlflow| mlflow.url == uri))
        }
    };
    let verdict = assess_standalone(ctx, settings, &live, &obstacles, &probe, now).await?; // IO, then pure
    Ok(Server::of(verdict, probe, client))
}

/// The address may be told, discovered or documented; the one that answers is used.
async fn shared_server(
    ctx: &Context,
    tracing: &AgentTracing,
    settings: &Settings,
    cr: &CrSettings,
    labels: &BTreeMap<String, String>,
) -> Result<Server, Error> {
    let in_use = tracing.status.as_ref().and_then(|status| status.mlflow.as_ref()).map(|mlflow| mlflow.url.as_str());
    let mut resource = observe::mlflow_resource(ctx, &cr.name).await?; // IO
    if let (Resource::Absent, Some(spec)) = (&resource, &cr.create) {
        resource = match ctx.options.create_namespaces.contains(&settings.namespace) {
            true => apply::mlflow_resource(ctx, settings, &cr.name, spec).await?, // IO
            false => Resource::CreateForbidden(mlflow_cr::allow_creation(
                &settings.namespace,
                &ctx.platform.operator_namespace,
            )),
        };
    }
    if let Some(url) = cr.url.as_deref().filter(|url| !ctx.may_ask(url)) {
        return Ok(Server::unlisted(ctx, url, true));
    }
    let candidates = mlflow_cr::sticky_candidates(mlflow_cr::candidates(cr, &resource), in_use); // pure
    let (mut probe, mut address, mut client) = (Probe::NotAsked, String::new(), None);
    let (this, before) = (reference(tracing), last_answer(tracing));
    for candidate in candidates {
        let answer = ctx.servers.answer(&ctx.http()?, &candidate.origin, Lookup::Below, &this).await; // memory, IO
        match probed(answer, candidate.source, before.filter(|mlflow| is_below(&mlflow.url, &candidate.origin))) {
            (answered @ Probe::Answered(_), found) => {
                (probe, client) = (answered, found);
                break;
            }
            // The likeliest one says why.
            (failed @ Probe::Failed { .. }, _) if probe == Probe::NotAsked => {
                (probe, address) = (failed, candidate.origin);
            }
            // Agents are not sent to another one before this one has had its time.
            (Probe::NotAsked, _) => {
                probe = before.cloned().map_or(probe, Probe::Answered);
                break;
            }
            (Probe::Failed { .. }, _) => {}
        }
    }
    let verdict = mlflow_cr::shared_ready(cr, &resource, &probe, &address); // pure
    let mut server = Server::of(verdict, probe, client);
    let workspaces = server.answered.as_ref().map(|m| m.workspaces);
    server.workspace = Some(mlflow_cr::workspace_ready(&settings.namespace, labels, &resource, workspaces)); // pure
    // What the MLflow resource names was chosen by whoever runs the cluster; the spec's address by whoever may edit it.
    Ok(match &cr.url {
        Some(url) => server.without_token_unless_listed(ctx, settings, url),
        None => server,
    })
}

async fn external(ctx: &Context, tracing: &AgentTracing, settings: &Settings) -> Result<Server, Error> {
    let uri = settings.tracking_uri();
    if !ctx.may_ask(&uri) {
        return Ok(Server::unlisted(ctx, &uri, settings.workspace_at(&Facts::of(tracing)).is_some()));
    }
    let answer = ctx.servers.answer(&ctx.http()?, &uri, Lookup::Below, &reference(tracing)).await; // memory, IO
    let (probe, client) = match probed(answer, "Spec", last_answer(tracing).filter(|mlflow| mlflow.url == uri)) {
        // Agents get what the user wrote, and would find nothing there.
        (Probe::Answered(found), _) if found.url != uri => {
            let what = format!("its API is at {}: write that into mlflow.external.trackingURI", found.url);
            (Probe::Failed { reason: Reason::WrongPath, what }, None)
        }
        probed => probed,
    };
    let look = Kubectl::new("get agenttracing").namespace(&settings.namespace).arg(&settings.name).yaml();
    let verdict = mlflow_cr::probe_condition(&probe, &uri, &look); // pure
    Ok(Server::of(verdict, probe, client).without_token_unless_listed(ctx, settings, &uri))
}

impl Server {
    fn of(verdict: ConditionUpdate, probe: Probe, client: Option<MlflowClient>) -> Self {
        let answered = match probe {
            Probe::Answered(answered) => Some(answered),
            Probe::NotAsked | Probe::Failed { .. } => None,
        };
        let client = client.filter(|_| answered.is_some());
        Self { verdict, answered, client, workspace: None }
    }

    /// A server that answered and wants a token is asked nothing more unless its host is listed for that: being allowed to ask
    /// there shows it none.
    pub(super) fn without_token_unless_listed(self, ctx: &Context, settings: &Settings, url: &str) -> Self {
        if !settings.needs_token() || ctx.options.token_hosts.contains(url) || self.client.is_none() {
            return self;
        }
        let message = format!(
            "Agents send their traces to {url}, which answers; what it holds is for those with a token, and the operator may not \
             show it one: have an administrator list {} in --mlflow-token-hosts: {}",
            url::authority(url).unwrap_or_default(),
            look_at_options(ctx)
        );
        let answered = self.answered.map(|answered| MlflowStatus { source: UNOBSERVED.to_owned(), ..answered });
        Self { verdict: ConditionUpdate::unknown(Reason::NotObservable, message), answered, client: None, ..self }
    }

    /// For tests: one that answered at this address.
    #[cfg(test)]
    pub(super) fn that_answered(url: &str, client: MlflowClient) -> Self {
        let (version, source) = ("3.10.1".to_owned(), "Spec".to_owned());
        let answered = MlflowStatus { url: url.to_owned(), version, workspaces: false, source };
        Self::of(ConditionUpdate::good(Reason::Available, "it answers"), Probe::Answered(answered), Some(client))
    }

    /// A host that no administrator listed: agents are sent there, the operator is not.
    fn unlisted(ctx: &Context, uri: &str, workspaces: bool) -> Self {
        let host = url::authority(uri).unwrap_or_default();
        let message = format!(
            "Agents send their traces to {uri}, where the operator may not look: have an administrator list {host} in \
             --trusted-mlflow-hosts, or in --mlflow-token-hosts where it has to be shown a token: {}",
            look_at_options(ctx)
        );
        let answered =
            MlflowStatus { url: uri.to_owned(), version: String::new(), workspaces, source: UNOBSERVED.to_owned() };
        Self {
            verdict: ConditionUpdate::unknown(Reason::NotObservable, message),
            answered: Some(answered),
            client: None,
            workspace: None,
        }
    }
}

/// As the status says it of an MLflow that the operator does not look into.
const UNOBSERVED: &str = "Unobserved";

fn look_at_options(ctx: &Context) -> Kubectl {
    Kubectl::new("get deployment").namespace(&ctx.platform.operator_namespace).arg(names::MANAGED_BY).yaml()
}

/// What the stored status says of the server, while it says that it answers. One that does not write does.
fn last_answer(tracing: &AgentTracing) -> Option<&MlflowStatus> {
    let status = tracing.status.as_ref()?;
    let answers = is_true(Some(status), ConditionType::MLflowReady) || writes::of_status(status).is_some();
    status.mlflow.as_ref().filter(|_| answers)
}

/// Whether an address is an origin, or below it.
fn is_below(url: &str, origin: &str) -> bool {
    url.strip_prefix(origin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What an answer says, and the client that got it. Where this process has none yet, as a new leader, or has just failed to get
/// its first, `before` counts: else a server that is slow to answer would be told as not ready in between.
fn probed(answer: Option<Answer>, source: &str, before: Option<&MlflowStatus>) -> (Probe, Option<MlflowClient>) {
    let is_none = answer.as_ref().is_none_or(Answer::is_first_failure);
    if let Some(before) = before.filter(|_| is_none) {
        return (Probe::Answered(before.clone()), None);
    }
    match answer.map(|answer| answer.found) {
        None => (Probe::NotAsked, None),
        Some(Ok(Located { client, server: mlflow::ServerInfo { version, workspaces } })) => {
            let url = client.tracking_uri().to_owned();
            let answered = MlflowStatus { url, version, workspaces, source: source.to_owned() };
            (Probe::Answered(answered), Some(client))
        }
        Some(Err((reason, what))) => (Probe::Failed { reason, what }, None),
    }
}

/// Whether the name of the server leads to pods of ours. Anybody in the namespace may have made objects of that name, and a
/// Service that leads elsewhere would have the operator ask there, from its own place in the network.
fn may_be_asked(live: &LiveChildren, wanted: &Desired, settings: &Settings) -> bool {
    let deployment = live.deployment.as_ref().filter(|live| wanted.deployment.is_ours(live));
    let service = live.service.as_ref().filter(|live| wanted.service.is_ours(live));
    let (Some(deployment), Some(service)) = (deployment, service) else { return false };
    let available = deployment.pointer("/status/availableReplicas").and_then(Value::as_i64);
    available.unwrap_or(0) > 0 && leads_to_server(settings, service)
}

/// Reads what explains a server that does not answer, and only then.
async fn assess_standalone(
    ctx: &Context,
    settings: &Settings,
    live: &LiveChildren,
    obstacles: &[ChildObstacle],
    probe: &Probe,
    now: Timestamp,
) -> Result<ConditionUpdate, Error> {
    let typed = |value: &Option<Value>| value.clone().and_then(|v| serde_json::from_value::<Deployment>(v).ok());
    let deployment = typed(&live.deployment);
    let claim: Option<PersistentVolumeClaim> = live.claim.clone().and_then(|v| serde_json::from_value(v).ok());
    let well = matches!(probe, Probe::Answered(_)) || !obstacles.is_empty();
    let pods = match well {
        true => Vec::new(),
        false => observe::server_pods(&ctx.client, &settings.namespace, &settings.name, names::MLFLOW).await?,
    };
    let class = match claim.as_ref().and_then(unbound_class).filter(|_| !well) {
        None => StorageClass::NotAsked,
        Some(class) => match observe::storage_class(ctx, class).await? {
            None => StorageClass::Absent,
            Some(_) => StorageClass::Present,
        },
    };
    let server = health::ServerObservation {
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
