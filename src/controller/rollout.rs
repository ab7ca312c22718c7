//! Brings workloads to the wanted wiring: by touch, so that the webhook does it in the same request and owns no field; by a
//! patch of our own only when no webhook answers. Takes strays out.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::reconcile::Memory as Pass;
use super::{Context, Error, apply, events, observe};
use crate::api::AgentTracing;
use crate::core::health::shortened;
use crate::core::rollout::{MAX_CONCURRENT, due, next_touch};
use crate::core::select::Surroundings;
use crate::core::workload::{Judged, Standing, judge};

/// How long a touch that nobody answered is held against the webhook.
const GRUDGE: SignedDuration = SignedDuration::from_mins(5);
/// How long the webhook's replicas may take to see what was just stored.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    silent_until: Option<Timestamp>,
    /// Workloads whose change the API server refused, and its words.
    refused: BTreeMap<String, String>,
}

impl Memory {
    /// Whether a touch went unanswered lately.
    pub(super) fn is_webhook_silent(&self, now: Timestamp) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }

    /// Adds what the API server said to the workloads that it concerns.
    pub(super) fn annotate(&mut self, workloads: &mut [Judged]) {
        let wants = |j: &Judged| !matches!(j.standing, Standing::Current);
        self.refused.retain(|name, _| workloads.iter().any(|j| j.name == *name && wants(j)));
        for workload in workloads {
            if let Some(said) = self.refused.get(&workload.name) {
                workload.notes.push(format!("PatchRefused: {said}").chars().take(256).collect());
            }
        }
    }
}

/// Touches what is due and takes out what is astray.
pub(super) async fn bring(
    ctx: &Context,
    tracing: &AgentTracing,
    around: &Surroundings<'_>,
    workloads: &[Judged],
    memory: &mut Pass,
    now: Timestamp,
) -> Result<(), Error> {
    take_out(ctx, tracing, around, workloads, memory).await?;
    let mut unanswered = Vec::new();
    for index in due(workloads, now.as_second()) {
        let workload = &workloads[index];
        let touched = touch(ctx, tracing, around, workload, memory, now).await?;
        match touched {
            Touched::Wired => {
                memory.rollout.silent_until = None;
                events::brought(ctx, tracing, workload, &mut memory.said).await;
            }
            Touched::Unanswered(as_it_is) => unanswered.push((workload, as_it_is)),
            Touched::Dropped => {}
        }
    }
    if unanswered.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(PATIENCE).await;
    for (before, as_it_is) in unanswered {
        let mut again = as_it_is;
        if next_touch(&again, now.as_second()).is_ok() {
            match touch(ctx, tracing, around, &again, memory, now).await? {
                Touched::Wired => {
                    memory.rollout.silent_until = None;
                    events::brought(ctx, tracing, before, &mut memory.said).await;
                    continue;
                }
                Touched::Unanswered(as_it_is) => again = as_it_is,
                Touched::Dropped => continue,
            }
        }
        memory.rollout.silent_until = now.checked_add(GRUDGE).ok();
        tracing::warn!(namespace = around.namespace, name = before.name, "the webhook does not answer");
        if let Standing::Wanting { patch, .. } = &again.standing
            // Its owner would undo it, and the two would fight for ever.
            && !again.owned
            && write(ctx, around.namespace, &again, patch, memory).await?
        {
            events::brought(ctx, tracing, before, &mut memory.said).await;
        }
    }
    Ok(())
}

enum Touched {
    Wired,
    /// The workload as the answer shows it, still without the wiring.
    Unanswered(Box<Judged>),
    /// Gone, or no longer to be wired.
    Dropped,
}

async fn touch(
    ctx: &Context,
    tracing: &AgentTracing,
    around: &Surroundings<'_>,
    workload: &Judged,
    memory: &mut Pass,
    now: Timestamp,
) -> Result<Touched, Error> {
    let Ok(value) = next_touch(workload, now.as_second()) else { return Ok(Touched::Dropped) };
    let name = &workload.name;
    let answer = match apply::touch(ctx, around.namespace, name, &value).await {
        Ok(answer) => answer,
        Err(error) => return dropped(error, name, memory).map(|()| Touched::Dropped),
    };
    let tracing = tracing.metadata.name.as_deref().unwrap_or_default();
    let source = |source| observe::Error::Decode { what: format!("Deployment {}/{name}", around.namespace), source };
    let judged = judge(&answer, tracing, around).map_err(source)?;
    tracing::info!(namespace = around.namespace, name, touch = value, "touched");
    Ok(match judged {
        Some(Judged { standing: Standing::Current, .. }) => Touched::Wired,
        Some(judged) if matches!(judged.standing, Standing::Wanting { .. }) => Touched::Unanswered(Box::new(judged)),
        _ => Touched::Dropped,
    })
}

/// Takes our wiring out of workloads to which it no longer applies, after everything was read again: live, not from a store.
async fn take_out(
    ctx: &Context,
    tracing: &AgentTracing,
    around: &Surroundings<'_>,
    workloads: &[Judged],
    memory: &mut Pass,
) -> Result<(), Error> {
    let astray: Vec<_> = workloads.iter().filter(|j| removal(j).is_some()).take(MAX_CONCURRENT).collect();
    if astray.is_empty() {
        return Ok(());
    }
    let policies = observe::live_policies(ctx, around.namespace).await?;
    let injection_enabled = observe::is_labelled(&observe::namespace_labels(ctx, around.namespace).await?);
    let around = Surroundings { policies: &policies, injection_enabled, ..*around };
    let name = tracing.metadata.name.as_deref().unwrap_or_default();
    for workload in astray {
        let Some(confirmed) = observe::workload(ctx, &workload.name, name, &around).await? else { continue };
        let Some(patch) = removal(&confirmed) else { continue };
        if write(ctx, around.namespace, &confirmed, patch, memory).await? {
            tracing::info!(namespace = around.namespace, name = confirmed.name, "wiring taken out");
            events::removed(ctx, tracing, &confirmed).await;
        }
    }
    Ok(())
}

fn removal(workload: &Judged) -> Option<&[json_patch::PatchOperation]> {
    match &workload.standing {
        Standing::Stray(patch) => Some(patch),
        Standing::Skipped { leftover, .. } if !leftover.is_empty() && !workload.owned => Some(leftover),
        _ => None,
    }
}

/// Patches a workload in the state in which it was judged. Says whether it was.
async fn write(
    ctx: &Context,
    namespace: &str,
    workload: &Judged,
    patch: &[json_patch::PatchOperation],
    memory: &mut Pass,
) -> Result<bool, Error> {
    match apply::patch(ctx, namespace, &workload.name, &workload.resource_version, patch).await {
        Ok(_) => Ok(true),
        Err(error) => dropped(error, &workload.name, memory).map(|()| false),
    }
}

/// One workload that cannot be changed must not keep the others from it.
fn dropped(error: apply::Error, name: &str, memory: &mut Pass) -> Result<(), Error> {
    if let Some(said) = error.refusal() {
        tracing::warn!(name, said, "the API server refuses a change of a workload");
        memory.rollout.refused.insert(name.to_owned(), shortened(&said));
        return Ok(());
    }
    if error.is_conflict() { Ok(()) } else { Err(error.into()) }
}
