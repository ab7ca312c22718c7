//! The objects of a standalone server: brought to what is desired, the volume first.

use super::child::{Applied, Refusals, child};
use super::{Error, observe};
use crate::api::AgentTracing;
use crate::controller::Context;
use crate::controller::observe::LiveChildren;
use crate::core::children::child::{Child, Wanted};
use crate::core::children::{Desired, claim};
use crate::core::settings::Settings;
use crate::core::status::condition::ChildObstacle;

/// Brings the child objects to what is desired. What stands in the way is returned, the worst first.
pub(in crate::controller) async fn children(
    ctx: &Context,
    tracing: &AgentTracing,
    settings: &Settings,
    desired: &Desired,
    live: &LiveChildren,
    refusals: &mut Refusals,
) -> Result<Vec<ChildObstacle>, Error> {
    let Desired { deployment, service, claim, network_policy } = desired;
    let mut obstacles = Vec::new();
    let has_volume = apply_claim(ctx, tracing, settings, claim, live, refusals, &mut obstacles).await?;
    let rest = [(service, &live.service), (network_policy, &live.network_policy)];
    // Without its volume the server would wait; and its mount of the volume is how a lost one is told from a new one.
    let server = has_volume.then_some((deployment, &live.deployment));
    for (wanted, live) in server.into_iter().chain(rest) {
        obstacles.extend(child(ctx, wanted, live.as_ref(), refusals).await?.obstacle());
    }
    Ok(obstacles)
}

/// The claim, which holds the traces: never replaced silently. Says whether the server has its volume afterwards.
async fn apply_claim(
    ctx: &Context,
    tracing: &AgentTracing,
    settings: &Settings,
    wanted: &Child,
    live: &LiveChildren,
    refusals: &mut Refusals,
    obstacles: &mut Vec<ChildObstacle>,
) -> Result<bool, Error> {
    let Some(desired) = wanted.object() else { return Ok(true) };
    let Some(found) = &live.claim else {
        if claim::was_in_use(tracing, live.deployment.as_ref(), &wanted.name) {
            obstacles.push(claim::is_lost(settings));
            return Ok(false);
        }
        let applied = child(ctx, wanted, None, refusals).await?;
        let is_there = !matches!(applied, Applied::Hindered(_));
        obstacles.extend(applied.obstacle());
        return Ok(is_there);
    };
    if found.pointer("/metadata/deletionTimestamp").is_some() {
        obstacles.push(claim::is_going(settings));
        return Ok(true);
    }
    if wanted.is_ours(found) {
        obstacles.extend(claim::refusals(settings, desired, found));
    }
    let mut possible = claim::without_refused(desired.clone(), found);
    if claim::is_resized(&possible, found) {
        let is_bound = claim::is_bound(found);
        let can_grow = match claim::storage_class(found).filter(|_| is_bound) {
            Some(class) => observe::storage_class(ctx, class).await? == Some(true),
            None => false,
        };
        if is_bound && !can_grow {
            obstacles.push(claim::cannot_grow(settings, &possible, found));
        }
        if !can_grow {
            possible = claim::with_size_of(possible, found);
        }
    }
    let possible = Child { wanted: Wanted::Object(possible), ..wanted.clone() };
    obstacles.extend(child(ctx, &possible, Some(found), refusals).await?.obstacle());
    Ok(true)
}
