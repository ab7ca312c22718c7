//! One touch: the webhook wires the workload in the same request, and the answer shows whether it did.

use jiff::Timestamp;

use super::{RollOut, RolloutState, dropped, written};
use crate::controller::workload_key::WorkloadKey;
use crate::controller::{Context, Error, apply, observe};
use crate::core::inject::record::Record;
use crate::core::selection::SelectionContext;
use crate::core::wiring::parts::FallbackReason;
use crate::core::workloads::rollout::{is_repeated, next_touch};
use crate::core::workloads::{Assessment, InjectionState, assess};

/// What became of a touch.
pub(super) enum TouchOutcome {
    Wired,
    /// The webhook wired it, and somebody undid that in the same request.
    Undone,
    /// The workload as the answer shows it, still without the wiring.
    Unanswered(Box<Assessment>),
    /// Gone, or no longer to be wired.
    Dropped,
}

pub(super) async fn touch(
    ctx: &Context,
    this: &RollOut<'_>,
    workload: &Assessment,
    state: &mut RolloutState,
) -> Result<TouchOutcome, Error> {
    let RollOut { tracing, rollout_strategy, context, .. } = *this;
    let Ok(value) = next_touch(workload, rollout_strategy, Timestamp::now().as_second()) else {
        return Ok(TouchOutcome::Dropped);
    };
    let name = &workload.name;
    ctx.budget.wait_for_write().await;
    // The webhook's label tells that it ran: one that is there already is taken away, so that its return tells as much.
    let again = is_repeated(workload, &value);
    let answer = match apply::touch(&ctx.client, written(context, workload), &value, again).await {
        Ok(answer) => answer,
        Err(error) if is_refused_for_merge_ca(ctx, context, workload, &value, &error).await => {
            tracing::warn!(namespace = context.namespace, name, "the workload is not admitted with merge-ca");
            do_without_merge_ca(ctx, context, workload, FallbackReason::Refused, state).await?;
            return Ok(TouchOutcome::Dropped);
        }
        Err(error) => return dropped(error, workload, state).map(|()| TouchOutcome::Dropped),
    };
    // Only after the API server took it: a refused touch is no repair, and would count toward `Contested`.
    state.touches.insert(WorkloadKey::of_workload(workload), value.as_str().into());
    let tracing = tracing.metadata.name.as_deref().unwrap_or_default();
    let source = |source| observe::Error::Decode { what: written(context, workload).to_string(), source };
    let assessment = assess(workload.kind, &answer, tracing, context).map_err(source)?;
    tracing::info!(namespace = context.namespace, name, touch = value, "touched");
    Ok(match assessment {
        Some(Assessment { injection_state: InjectionState::Current, .. }) => TouchOutcome::Wired,
        // A webhook with other install options, or of another version, answered: while the operator is being replaced two are
        // at work. Nobody undid anything, and soon the right one answers. The wiring of before tells of none, unless the label
        // came back with it.
        Some(assessment)
            if is_wired_otherwise(&assessment)
                && (assessment.record != workload.record || again && assessment.was_labelled) =>
        {
            state.unanswered.insert(WorkloadKey::of_workload(&assessment));
            TouchOutcome::Dropped
        }
        Some(Assessment { injection_state: InjectionState::OutOfDate { .. }, was_labelled: true, .. })
            if again || !workload.was_labelled =>
        {
            TouchOutcome::Undone
        }
        Some(assessment) if matches!(assessment.injection_state, InjectionState::OutOfDate { .. }) => {
            state.unanswered.insert(WorkloadKey::of_workload(&assessment));
            TouchOutcome::Unanswered(Box::new(Assessment { unanswered: true, ..assessment }))
        }
        _ => TouchOutcome::Dropped,
    })
}

/// Whether a workload carries the record of a whole wiring, and another one than is wanted.
fn is_wired_otherwise(workload: &Assessment) -> bool {
    let InjectionState::OutOfDate { hash, .. } = &workload.injection_state else { return false };
    let record = workload.record.as_deref().and_then(|record| Record::parse(record).ok());
    record.is_some_and(|record| record.hash != *hash)
}

/// Notes on a workload that it does without the init container: the next pass touches it.
pub(super) async fn do_without_merge_ca(
    ctx: &Context,
    context: &SelectionContext<'_>,
    workload: &Assessment,
    why: FallbackReason,
    state: &mut RolloutState,
) -> Result<(), Error> {
    let Some(source) = &workload.merge_ca.source else { return Ok(()) };
    ctx.budget.wait_for_write().await;
    match apply::without_merge_ca(&ctx.client, written(context, workload), source, why).await {
        Ok(()) => Ok(()),
        Err(error) => dropped(error, workload, state),
    }
}

/// Whether the API server refused a touch because of the init container: without it, it would take the same.
async fn is_refused_for_merge_ca(
    ctx: &Context,
    context: &SelectionContext<'_>,
    workload: &Assessment,
    touch: &str,
    error: &apply::Error,
) -> bool {
    let source = workload.merge_ca.source.as_ref().filter(|_| workload.merge_ca.fallback.is_none());
    let Some(source) = source.filter(|_| error.refusal().is_some()) else { return false };
    ctx.budget.wait_for_write().await;
    apply::would_touch_without_merge_ca(&ctx.client, written(context, workload), touch, source).await
}
