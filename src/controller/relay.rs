//! The relay of an AgentTracing: brought about while something uses it, and taken away when nothing does any more.

use std::collections::BTreeSet;

use futures::FutureExt;
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::Value;

use super::apply::{Applied, Refusals};
use super::{Context, Error, apply, observe};
use crate::api::{AgentTracing, AgentTracingStatus, ConditionType, MlflowMode, RelayStatus};
use crate::core::children::child::{Child, TracingOwner};
use crate::core::children::namespace::{relay_role, relay_role_binding};
use crate::core::children::{desired_relay, unwanted_relay};
use crate::core::settings::policy::Policy;
use crate::core::settings::{RelaySettings, Settings};
use crate::core::status::condition::{ChildObstacle, ConditionUpdate};
use crate::core::status::relay::{RelayObservation, may_be_in_use, relay_ready, relay_stays};
use crate::core::workloads::Assessment;
use crate::names;

/// What a pass found of the relay.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// Condition `RelayReady`.
    pub verdict: Option<ConditionUpdate>,
    /// The relay that was ready once.
    pub status: Option<RelayStatus>,
}

/// The AgentTracings of a namespace, each with its policy.
#[derive(Clone, Copy)]
pub(super) struct Neighbours<'a> {
    pub tracings: &'a [AgentTracing],
    pub policies: &'a [Policy],
}

/// Brings the relay about as far as it is wanted, and sees how it is.
pub(super) async fn relay(
    ctx: &Context,
    settings: &Settings,
    neighbours: Neighbours<'_>,
    workloads: &[Assessment],
    old: &AgentTracingStatus,
    refusals: &mut Refusals,
    now: Timestamp,
) -> Result<Relay, Error> {
    match &settings.relay {
        Some(relay) => run(ctx, settings, relay, neighbours, old, refusals, now).await, // IO
        None if !is_known(old) => Ok(Relay::default()),
        None if may_be_in_use(workloads) => {
            Ok(Relay { verdict: Some(relay_stays(settings)), status: old.relay.clone() })
        }
        None => remove(ctx, settings, neighbours, refusals).await, // IO
    }
}

/// The accounts of the relays that show a token to the shared MLflow.
pub(super) fn accounts(neighbours: Neighbours<'_>) -> BTreeSet<String> {
    let shows_token = |policy: &&Policy| {
        let settings = &policy.settings;
        settings.server.mode() == MlflowMode::Cr && settings.needs_token() && has_relay(policy)
    };
    let policies = neighbours.policies.iter().filter(shows_token);
    policies.map(|policy| names::relay_object(&policy.settings.name)).collect()
}

async fn run(
    ctx: &Context,
    settings: &Settings,
    relay: &RelaySettings,
    neighbours: Neighbours<'_>,
    old: &AgentTracingStatus,
    refusals: &mut Refusals,
    now: Timestamp,
) -> Result<Relay, Error> {
    let wanted = desired_relay(settings, relay, &ctx.platform); // pure
    let shared = shared(settings, users(neighbours, None)); // pure
    let all: Vec<&Child> = shared.iter().chain(wanted.all()).collect();
    let (obstacles, pods_owner) = bring_about(ctx, &all, refusals).await?; // IO
    let number = |pointer: &str| pods_owner.as_ref().and_then(|set| set.pointer(pointer)).and_then(Value::as_i64);
    let ready = number("/status/readyReplicas").unwrap_or(0);
    let pods = match ready > 0 || !obstacles.is_empty() {
        true => Vec::new(),
        false => observe::server_pods(ctx, settings, names::RELAY_APPLICATION).await?, // IO
    };
    let observed = RelayObservation {
        obstacles: &obstacles,
        ready,
        wanted: i64::from(relay.replicas),
        pods: &pods,
        mlflow_answered: old.mlflow.is_some(),
    };
    let url = format!("http://{}:{}", names::relay_host(&settings.name, &settings.namespace), names::RELAY_PORT);
    Ok(Relay {
        verdict: Some(relay_ready(settings, &observed, now)), // pure
        // Once good it stays: a relay that is away for a moment changes no wiring.
        status: old.relay.clone().or_else(|| (ready > 0).then_some(RelayStatus { url })),
    })
}

/// Its claims stay: they may hold traces.
async fn remove(
    ctx: &Context,
    settings: &Settings,
    neighbours: Neighbours<'_>,
    refusals: &mut Refusals,
) -> Result<Relay, Error> {
    let unwanted = unwanted_relay(settings); // pure
    let shared = shared(settings, users(neighbours, Some(&settings.name))); // pure
    let all: Vec<&Child> = unwanted.all().into_iter().chain(&shared).collect();
    bring_about(ctx, &all, refusals).await?; // IO
    Ok(Relay::default())
}

/// Brings children to what is wanted, in their order. What stands in the way, and the last one as it is.
async fn bring_about(
    ctx: &Context,
    children: &[&Child],
    refusals: &mut Refusals,
) -> Result<(Vec<ChildObstacle>, Option<Value>), Error> {
    let live = try_join_all(children.iter().map(|child| observe::child(ctx, child).boxed())).await?;
    let (mut obstacles, mut last) = (Vec::new(), None);
    for (child, found) in children.iter().zip(live) {
        last = match apply::child(ctx, child, found.as_ref(), refusals).await? {
            Applied::Unchanged => found,
            Applied::Written(written) => Some(written),
            Applied::Deleted => None,
            Applied::Hindered(obstacle) => {
                obstacles.push(obstacle);
                None
            }
        };
    }
    Ok((obstacles, last))
}

/// Whether an earlier pass brought a relay about.
fn is_known(old: &AgentTracingStatus) -> bool {
    let is_condition = |name: &str| name == ConditionType::RelayReady.as_str();
    old.relay.is_some() || old.conditions.iter().any(|condition| is_condition(&condition.type_))
}

fn has_relay(policy: &Policy) -> bool {
    policy.settings.relay.is_some() || policy.facts.relay
}

/// What the relays of a namespace share.
fn shared(settings: &Settings, users: BTreeSet<TracingOwner>) -> [Child; 2] {
    [relay_role(&settings.namespace, users.clone()), relay_role_binding(&settings.namespace, users)]
}

/// The AgentTracings that have a relay, which own what relays share.
fn users(neighbours: Neighbours<'_>, without: Option<&str>) -> BTreeSet<TracingOwner> {
    let Neighbours { tracings, policies } = neighbours;
    let stays = |tracing: &AgentTracing| tracing.metadata.deletion_timestamp.is_none();
    let with_relay = tracings.iter().zip(policies).filter(|(tracing, policy)| stays(tracing) && has_relay(policy));
    with_relay
        .map(|(_, policy)| TracingOwner { name: policy.settings.name.clone(), uid: policy.settings.uid.clone() })
        .filter(|owner| Some(owner.name.as_str()) != without)
        .collect()
}
