//! Takes the wiring out of workloads to which it no longer applies.

use jiff::{SignedDuration, Timestamp};

use super::{RollOut, RolloutState, write};
use crate::api::RolloutPolicy;
use crate::controller::{Context, Error, events, observe};
use crate::core::selection::SelectionContext;
use crate::core::settings::policy::RolloutStrategy;
use crate::core::workloads::rollout::rolling;
use crate::core::workloads::{Assessment, InjectionState};

/// Removals of one pass, however few pods are concerned: a pass has to end.
const MAX_REMOVALS: usize = 20;
/// How long a workload whose wiring was taken out may take before the next one's turn comes.
const REMOVED_GRACE: SignedDuration = SignedDuration::from_mins(10);

/// Takes our wiring out of workloads to which it no longer applies, after everything was read again: live, not from a store.
/// They roll for it, a few at a time.
pub(super) async fn take_out(
    ctx: &Context,
    this: &RollOut<'_>,
    state: &mut RolloutState,
    now: Timestamp,
) -> Result<(), Error> {
    let RollOut { tracing, rollout_strategy, context, workloads, .. } = *this;
    state.removed.retain(|_, since| now.duration_since(*since) < REMOVED_GRACE);
    let name = tracing.metadata.name.as_deref().unwrap_or_default();
    let removed: Vec<_> = state.removed.keys().cloned().collect();
    for (kind, name) in removed {
        if observe::is_settled(&ctx.client, kind, context.namespace, &name).await? {
            state.removed.remove(&(kind, name));
        }
    }
    // Places beside those of touches.
    let places = format!("{}/out", tracing.metadata.uid.as_deref().unwrap_or_default());
    let astray: Vec<_> =
        workloads.iter().filter(|j| may_be_taken_out(j, rollout_strategy)).take(MAX_REMOVALS).collect();
    let removed = state.removed.len();
    if astray.is_empty() {
        ctx.budget.reserve(context.namespace, &places, removed, 0);
        return Ok(());
    }
    let most = rollout_strategy.max_concurrent.saturating_sub(removed + rolling(workloads, now.as_second()));
    let wanted = astray.iter().filter(|workload| workload.rollout.has_to_lose()).count().min(most);
    let mut free = ctx.budget.reserve(context.namespace, &places, removed, wanted);
    let policies = observe::live_policies(ctx, context.namespace).await?;
    let injection_enabled = observe::is_labelled(&observe::namespace_labels(ctx, context.namespace).await?);
    let context = SelectionContext { policies: &policies, injection_enabled, ..*context };
    for workload in astray {
        let rolls = workload.rollout.has_to_lose();
        if rolls && free == 0 {
            continue;
        }
        let Some(confirmed) = observe::workload(ctx, workload.kind, &workload.name, name, &context).await? else {
            continue;
        };
        let Some(patch) = confirmed.removal() else { continue };
        if write(ctx, &context, &confirmed, patch, state).await? {
            tracing::info!(namespace = context.namespace, name = confirmed.name, "wiring taken out");
            events::removed(ctx, tracing, &confirmed).await;
            if rolls {
                free -= 1;
                state.removed.insert((confirmed.kind, confirmed.name), now);
            }
        }
    }
    ctx.budget.hold(&places, state.removed.len());
    Ok(())
}

/// Whether our wiring is to be taken out of a workload now. With `Manual` the operator replaces no pods: that waits until its
/// owner does. Who opts out does it with a change of their own.
pub(super) fn may_be_taken_out(workload: &Assessment, rollout_strategy: RolloutStrategy) -> bool {
    let rests = workload.rollout.complete && workload.rollout.has_to_lose();
    let waits = rollout_strategy.policy == RolloutPolicy::Manual
        && matches!(workload.injection_state, InjectionState::ToRemove(_))
        && rests;
    workload.removal().is_some() && !waits
}
