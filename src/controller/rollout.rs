//! Brings workloads to the wanted wiring: by touch, so that the webhook does it in the same request and owns no field; by a
//! patch of our own only when no webhook answers. Takes strays out.

mod removal;
mod state;
mod touch;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::workload_key::WorkloadKey;
use super::{Context, Error, apply, events, observe};
use crate::api::AgentTracing;
use crate::core::selection::SelectionContext;
use crate::core::settings::policy::RolloutStrategy;
use crate::core::status::quote::shorten;
use crate::core::wiring::parts::FallbackReason;
use crate::core::workloads::rollout::{due, holds_place, rolling};
use crate::core::workloads::{Assessment, InjectionState};
use removal::{may_be_taken_out, take_out};
pub(super) use state::RolloutState;
use touch::{TouchOutcome, do_without_merge_ca, touch};

/// How long a touch that nobody answered is held against the webhook.
const WEBHOOK_BACKOFF: SignedDuration = SignedDuration::from_mins(5);
/// How long workloads are changed in one pass.
const MAX_TURN: Duration = Duration::from_secs(20);
/// How often a patch of our own is made anew because somebody wrote in between.
const MAX_TRIES: usize = 3;
/// How long the webhook's replicas may take to see what was just stored.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

fn written<'a>(context: &SelectionContext<'a>, workload: &'a Assessment) -> apply::Written<'a> {
    apply::Written { kind: workload.kind, namespace: context.namespace, name: &workload.name }
}

/// Who brings which workloads.
pub(super) struct RollOut<'a> {
    pub tracing: &'a AgentTracing,
    pub rollout_strategy: RolloutStrategy,
    pub context: &'a SelectionContext<'a>,
    pub workloads: &'a [Assessment],
    /// Those that are to do without the init container, by name, and why.
    pub failing: &'a BTreeMap<String, FallbackReason>,
    /// Whether anything may be wired now; what is to be taken out is taken out anyway.
    pub may_wire: bool,
    /// Whether MLflow answers now: agents look for it once, when they start.
    pub mlflow_answers: bool,
}

/// Whether something is still to be changed, or was and is not yet well: places come free without an event.
pub(super) fn is_underway(this: &RollOut<'_>, state: &RolloutState, now: i64) -> bool {
    let RollOut { rollout_strategy, workloads, may_wire, mlflow_answers, .. } = *this;
    !state.removed.is_empty()
        || workloads.iter().any(|workload| may_be_taken_out(workload, rollout_strategy))
        || (may_wire && mlflow_answers && !due(workloads, rollout_strategy, workloads.len(), true, now).is_empty())
}

/// Touches what is due and takes out what is astray.
pub(super) async fn roll_out(
    ctx: &Context,
    this: &RollOut<'_>,
    state: &mut RolloutState,
    event_log: &mut events::EventLog,
    now: Timestamp,
) -> Result<(), Error> {
    let RollOut { tracing, rollout_strategy: _, context, workloads, failing, may_wire, mlflow_answers: _ } = *this;
    take_out(ctx, this, state, now).await?;
    if !may_wire {
        return Ok(());
    }
    for workload in workloads {
        let Some(why) = failing.get(&workload.resource()) else { continue };
        let name = workload.resource();
        tracing::warn!(namespace = context.namespace, name, ?why, "a ConfigMap takes the place of merge-ca");
        do_without_merge_ca(ctx, context, workload, *why, state).await?;
    }
    let began = Instant::now();
    let mut unanswered = Vec::new();
    for index in reserve(ctx, this, state, now.as_second()) {
        // A webhook that hangs costs seconds at each; the rest has its turn in the next pass.
        if began.elapsed() > MAX_TURN {
            break;
        }
        let workload = &workloads[index];
        let as_it_is = touch_once(ctx, this, (workload, workload), state, event_log).await?;
        unanswered.extend(as_it_is.map(|as_it_is| (workload, as_it_is)));
    }
    if unanswered.is_empty() {
        return Ok(());
    }
    // Known to be silent it need not be waited for again.
    let silent = state.is_webhook_silent(now);
    if !silent {
        tokio::time::sleep(ANSWER_TIMEOUT).await;
    }
    for (before, mut as_it_is) in unanswered {
        if !silent && began.elapsed() < MAX_TURN {
            match touch_once(ctx, this, (before, &as_it_is), state, event_log).await? {
                Some(again) => as_it_is = again,
                None => continue,
            }
        }
        state.silent_until = now.checked_add(WEBHOOK_BACKOFF).ok();
        ctx.options.metrics.unanswered();
        tracing::warn!(namespace = context.namespace, name = before.resource(), "the webhook does not answer");
        // Its owner would undo it, and the two would fight for ever.
        if !as_it_is.owned && wire(ctx, this, *as_it_is, state).await? {
            events::workload_changed(ctx, tracing, before, event_log).await;
        }
    }
    Ok(())
}

/// Touches a workload, given as the pass found it and as it is now, and says what became of it. Where nobody answered it comes
/// back as the answer shows it.
async fn touch_once(
    ctx: &Context,
    this: &RollOut<'_>,
    (before, as_it_is): (&Assessment, &Assessment),
    state: &mut RolloutState,
    event_log: &mut events::EventLog,
) -> Result<Option<Box<Assessment>>, Error> {
    let outcome = touch(ctx, this, as_it_is, state).await?;
    if matches!(outcome, TouchOutcome::Wired | TouchOutcome::Undone) {
        state.silent_until = None;
        state.unanswered.remove(&WorkloadKey::of_workload(before));
    }
    match outcome {
        TouchOutcome::Wired => events::workload_changed(ctx, this.tracing, before, event_log).await,
        TouchOutcome::Undone => {
            let (namespace, name) = (this.context.namespace, before.resource());
            tracing::warn!(namespace, name, "somebody takes the wiring out in the same request");
        }
        TouchOutcome::Unanswered(as_it_is) => return Ok(Some(as_it_is)),
        TouchOutcome::Dropped => {}
    }
    Ok(None)
}

/// Chooses what may be rolled now, and takes the places for it before anybody else can.
fn reserve(ctx: &Context, this: &RollOut<'_>, state: &RolloutState, now: i64) -> Vec<usize> {
    let RollOut { tracing, rollout_strategy, context, workloads, mlflow_answers, .. } = *this;
    let uid = tracing.metadata.uid.as_deref().unwrap_or_default();
    let rolling = rolling(workloads, now);
    let wanted = rollout_strategy.max_concurrent.saturating_sub(rolling + state.removed.len());
    let costs = |due: &[usize]| due.iter().filter(|index| workloads[**index].rollout.replaces_pods()).count();
    let held = workloads.iter().filter(|workload| holds_place(workload, now)).count();
    let all = due(workloads, rollout_strategy, wanted, mlflow_answers, now);
    let needed = costs(&all);
    let free = ctx.budget.reserve(context.namespace, uid, held, needed);
    if free == needed {
        return all;
    }
    // What needs no place is due whatever is free.
    let some = due(workloads, rollout_strategy, free, mlflow_answers, now);
    ctx.budget.hold(uid, held + costs(&some));
    some
}

/// Wires a workload by a patch of our own. Its controller may write its status in between, so it is tried again.
async fn wire(
    ctx: &Context,
    this: &RollOut<'_>,
    workload: Assessment,
    state: &mut RolloutState,
) -> Result<bool, Error> {
    let name = this.tracing.metadata.name.as_deref().unwrap_or_default();
    let mut current = workload;
    for _ in 0..MAX_TRIES {
        let InjectionState::OutOfDate { patch, .. } = &current.injection_state else { return Ok(false) };
        if write(ctx, this.context, &current, patch, state).await? {
            state.unanswered.remove(&WorkloadKey::of_workload(&current));
            return Ok(true);
        }
        match observe::workload(ctx, current.kind, &current.name, name, this.context).await? {
            Some(again) => current = again,
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Patches a workload in the state in which it was judged. Says whether it was.
async fn write(
    ctx: &Context,
    context: &SelectionContext<'_>,
    workload: &Assessment,
    patch: &[json_patch::PatchOperation],
    state: &mut RolloutState,
) -> Result<bool, Error> {
    ctx.budget.wait_for_write().await;
    match apply::patch(&ctx.client, written(context, workload), &workload.resource_version, patch).await {
        Ok(_) => Ok(true),
        Err(error) => dropped(error, workload, state).map(|()| false),
    }
}

/// One workload that cannot be changed must not keep the others from it.
fn dropped(error: apply::Error, workload: &Assessment, state: &mut RolloutState) -> Result<(), Error> {
    if let Some(refusal) = error.refusal() {
        tracing::warn!(workload = workload.resource(), refusal, "the API server refuses a change of a workload");
        state.refused.insert(WorkloadKey::of_workload(workload), shorten(&refusal));
        return Ok(());
    }
    if error.is_conflict() { Ok(()) } else { Err(error.into()) }
}
