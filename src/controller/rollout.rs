//! Brings workloads to the wanted wiring: by touch, so that the webhook does it in the same request and owns no field; by a
//! patch of our own only when no webhook answers. Takes strays out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::workload_key::WorkloadKey;
use super::{Context, Error, apply, events, observe};
use crate::api::{AgentTracing, RolloutPolicy};
use crate::core::decide::Fallback;
use crate::core::inject::record::Record;
use crate::core::selection::SelectionContext;
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::RolloutStrategy;
use crate::core::status::quote::shorten;
use crate::core::workloads::rollout::{due, holds_place, is_repeated, next_touch, note_overdue, rolling};
use crate::core::workloads::{Assessment, InjectionState, assess};

/// Removals of one pass, however few pods are concerned: a pass has to end.
const MAX_REMOVALS: usize = 20;
/// How long a touch that nobody answered is held against the webhook.
const WEBHOOK_BACKOFF: SignedDuration = SignedDuration::from_mins(5);
/// How long workloads are changed in one pass.
const MAX_TURN: Duration = Duration::from_secs(20);
/// How often a patch of our own is made anew because somebody wrote in between.
const MAX_TRIES: usize = 3;
/// How long the webhook's replicas may take to see what was just stored.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a workload whose wiring was taken out may take before the next one's turn comes.
const REMOVED_GRACE: SignedDuration = SignedDuration::from_mins(10);

/// What is remembered between passes.
#[derive(Debug, Default)]
pub(super) struct RolloutState {
    silent_until: Option<Timestamp>,
    /// Workloads whose last touch brought nothing: no repair of theirs was undone.
    unanswered: BTreeSet<WorkloadKey>,
    /// Our last touch of each workload: whoever strips a whole object strips the annotation with it.
    touches: BTreeMap<WorkloadKey, Box<str>>,
    /// Since when a workload is well, with which touch, where it does not tell that itself.
    well: BTreeMap<WorkloadKey, (Option<String>, Timestamp)>,
    /// Workloads that roll since we took their wiring out, and since when.
    removed: BTreeMap<(Kind, String), Timestamp>,
    /// Workloads whose change the API server refused, and its words.
    refused: BTreeMap<WorkloadKey, String>,
}

impl RolloutState {
    /// Whether a touch went unanswered lately.
    pub(super) fn is_webhook_silent(&self, now: Timestamp) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }

    /// Adds what the API server said to the workloads that it concerns.
    pub(super) fn annotate(&mut self, workloads: &mut [Assessment], now: Timestamp) {
        let all: BTreeMap<WorkloadKey, &InjectionState> =
            workloads.iter().map(|j| (WorkloadKey::of_workload(j), &j.injection_state)).collect();
        self.refused
            .retain(|key, _| all.get(key).is_some_and(|injection_state| **injection_state != InjectionState::Current));
        self.well.retain(|key, _| all.contains_key(key));
        self.unanswered
            .retain(|key| all.get(key).is_some_and(|injection_state| **injection_state != InjectionState::Current));
        // What the user took out and put in again starts over.
        let counts = |injection_state: &InjectionState| {
            matches!(injection_state, InjectionState::Current | InjectionState::OutOfDate { .. })
        };
        self.touches.retain(|key, _| all.get(key).is_some_and(|injection_state| counts(injection_state)));
        for workload in workloads {
            let key = WorkloadKey::of_workload(workload);
            let touched = self.touches.get(&key);
            if workload.touch.is_none() {
                workload.touch = touched.map(|touch| touch.to_string());
            }
            // Only of what an earlier process touched nothing better is known than what the workload shows.
            if touched.is_some() {
                workload.unanswered = self.unanswered.contains(&key);
            }
            self.note_well(key, workload, now);
            if let Some(said) = self.refused.get(&key) {
                workload.notes.push(format!("PatchRefused: {said}").chars().take(256).collect());
            }
        }
    }

    /// Notes since when a workload is well that does not tell.
    fn note_well(&mut self, key: WorkloadKey, workload: &mut Assessment, now: Timestamp) {
        let Assessment { kind, rollout, touch, .. } = &mut *workload;
        if !tells(*kind) && rollout.replaces_pods() {
            let is_well = rollout.complete && rollout.available >= rollout.wanted;
            let before = self.well.get(&key).filter(|(of, _)| of == touch).map(|(_, since)| *since);
            if is_well {
                let since = before.unwrap_or(now);
                rollout.available_since = Some(since);
                self.well.insert(key, (touch.clone(), since));
            }
            note_overdue(workload, before.is_some(), now.as_second());
        }
    }
}

fn written<'a>(context: &SelectionContext<'a>, workload: &'a Assessment) -> apply::Written<'a> {
    apply::Written { kind: workload.kind, namespace: context.namespace, name: &workload.name }
}

/// Only a Deployment says since when it is available.
fn tells(kind: Kind) -> bool {
    kind == Kind::Deployment
}

/// Who brings which workloads.
pub(super) struct RollOut<'a> {
    pub tracing: &'a AgentTracing,
    pub rollout_strategy: RolloutStrategy,
    pub context: &'a SelectionContext<'a>,
    pub workloads: &'a [Assessment],
    /// Those that are to do without the init container, by name, and why.
    pub failing: &'a BTreeMap<String, Fallback>,
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
    memory: &mut RolloutState,
    event_log: &mut events::EventLog,
    now: Timestamp,
) -> Result<(), Error> {
    let RollOut { tracing, rollout_strategy: _, context, workloads, failing, may_wire, mlflow_answers: _ } = *this;
    take_out(ctx, this, memory, now).await?;
    if !may_wire {
        return Ok(());
    }
    for workload in workloads {
        let Some(why) = failing.get(&workload.resource()) else { continue };
        let name = workload.resource();
        tracing::warn!(namespace = context.namespace, name, ?why, "a ConfigMap takes the place of merge-ca");
        do_without_merge_ca(ctx, context, workload, *why, memory).await?;
    }
    let began = tokio::time::Instant::now();
    let mut unanswered = Vec::new();
    for index in reserve(ctx, this, memory, now.as_second()) {
        // A webhook that hangs costs seconds at each; the rest has its turn in the next pass.
        if began.elapsed() > MAX_TURN {
            break;
        }
        let workload = &workloads[index];
        match touch(ctx, this, workload, memory).await? {
            TouchOutcome::Wired => answered(ctx, tracing, workload, memory, event_log).await,
            TouchOutcome::Unanswered(as_it_is) => unanswered.push((workload, as_it_is)),
            TouchOutcome::Undone => undone(this, workload, memory),
            TouchOutcome::Dropped => {}
        }
    }
    if unanswered.is_empty() {
        return Ok(());
    }
    // Known to be silent it need not be waited for again.
    let silent = memory.is_webhook_silent(now);
    if !silent {
        tokio::time::sleep(ANSWER_TIMEOUT).await;
    }
    for (before, as_it_is) in unanswered {
        let mut again = as_it_is;
        if !silent && began.elapsed() < MAX_TURN {
            match touch(ctx, this, &again, memory).await? {
                TouchOutcome::Wired => {
                    answered(ctx, tracing, before, memory, event_log).await;
                    continue;
                }
                TouchOutcome::Unanswered(as_it_is) => again = as_it_is,
                TouchOutcome::Undone => {
                    undone(this, before, memory);
                    continue;
                }
                TouchOutcome::Dropped => continue,
            }
        }
        memory.silent_until = now.checked_add(WEBHOOK_BACKOFF).ok();
        ctx.options.metrics.unanswered();
        tracing::warn!(namespace = context.namespace, name = before.resource(), "the webhook does not answer");
        // Its owner would undo it, and the two would fight for ever.
        if !again.owned && wire(ctx, this, *again, memory).await? {
            events::workload_changed(ctx, tracing, before, event_log).await;
        }
    }
    Ok(())
}

/// Notes on a workload that it does without the init container: the next pass touches it.
async fn do_without_merge_ca(
    ctx: &Context,
    context: &SelectionContext<'_>,
    workload: &Assessment,
    why: Fallback,
    memory: &mut RolloutState,
) -> Result<(), Error> {
    let Some(source) = &workload.merge_ca.source else { return Ok(()) };
    ctx.budget.wait_for_write().await;
    match apply::without_merge_ca(&ctx.client, written(context, workload), source, why).await {
        Ok(()) => Ok(()),
        Err(error) => dropped(error, workload, memory),
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

/// Chooses what may be rolled now, and takes the places for it before anybody else can.
fn reserve(ctx: &Context, this: &RollOut<'_>, memory: &RolloutState, now: i64) -> Vec<usize> {
    let RollOut { tracing, rollout_strategy, context, workloads, mlflow_answers, .. } = *this;
    let uid = tracing.metadata.uid.as_deref().unwrap_or_default();
    let rolling = rolling(workloads, now);
    let wanted = rollout_strategy.max_concurrent.saturating_sub(rolling + memory.removed.len());
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

async fn answered(
    ctx: &Context,
    tracing: &AgentTracing,
    workload: &Assessment,
    memory: &mut RolloutState,
    event_log: &mut events::EventLog,
) {
    memory.silent_until = None;
    memory.unanswered.remove(&WorkloadKey::of_workload(workload));
    events::workload_changed(ctx, tracing, workload, event_log).await;
}

/// Wires a workload by a patch of our own. Its controller may write its status in between, so it is tried again.
async fn wire(
    ctx: &Context,
    this: &RollOut<'_>,
    workload: Assessment,
    memory: &mut RolloutState,
) -> Result<bool, Error> {
    let name = this.tracing.metadata.name.as_deref().unwrap_or_default();
    let mut current = workload;
    for _ in 0..MAX_TRIES {
        let InjectionState::OutOfDate { patch, .. } = &current.injection_state else { return Ok(false) };
        if write(ctx, this.context, &current, patch, memory).await? {
            memory.unanswered.remove(&WorkloadKey::of_workload(&current));
            return Ok(true);
        }
        match observe::workload(ctx, current.kind, &current.name, name, this.context).await? {
            Some(again) => current = again,
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// The webhook answers, and whoever comes after it takes its wiring out: a repair that was undone, and no fault of the webhook.
fn undone(this: &RollOut<'_>, workload: &Assessment, memory: &mut RolloutState) {
    memory.silent_until = None;
    memory.unanswered.remove(&WorkloadKey::of_workload(workload));
    let name = workload.resource();
    tracing::warn!(namespace = this.context.namespace, name, "somebody takes the wiring out in the same request");
}

enum TouchOutcome {
    Wired,
    /// The webhook wired it, and somebody undid that in the same request.
    Undone,
    /// The workload as the answer shows it, still without the wiring.
    Unanswered(Box<Assessment>),
    /// Gone, or no longer to be wired.
    Dropped,
}

async fn touch(
    ctx: &Context,
    this: &RollOut<'_>,
    workload: &Assessment,
    memory: &mut RolloutState,
) -> Result<TouchOutcome, Error> {
    let RollOut { tracing, rollout_strategy, context, .. } = *this;
    let Ok(value) = next_touch(workload, rollout_strategy, Timestamp::now().as_second()) else {
        return Ok(TouchOutcome::Dropped);
    };
    let name = &workload.name;
    ctx.budget.wait_for_write().await;
    // One that was refused or met a conflict was none: counted, it would look like a repair that somebody undid.
    // The webhook's label tells that it ran: one that is there already is taken away, so that its return tells as much.
    let again = is_repeated(workload, &value);
    let answer = match apply::touch(&ctx.client, written(context, workload), &value, again).await {
        Ok(answer) => answer,
        Err(error) if is_refused_for_merge_ca(ctx, context, workload, &value, &error).await => {
            tracing::warn!(namespace = context.namespace, name, "the workload is not admitted with merge-ca");
            do_without_merge_ca(ctx, context, workload, Fallback::Refused, memory).await?;
            return Ok(TouchOutcome::Dropped);
        }
        Err(error) => return dropped(error, workload, memory).map(|()| TouchOutcome::Dropped),
    };
    memory.touches.insert(WorkloadKey::of_workload(workload), value.as_str().into());
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
            memory.unanswered.insert(WorkloadKey::of_workload(&assessment));
            TouchOutcome::Dropped
        }
        Some(Assessment { injection_state: InjectionState::OutOfDate { .. }, was_labelled: true, .. })
            if again || !workload.was_labelled =>
        {
            TouchOutcome::Undone
        }
        Some(assessment) if matches!(assessment.injection_state, InjectionState::OutOfDate { .. }) => {
            memory.unanswered.insert(WorkloadKey::of_workload(&assessment));
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

/// Takes our wiring out of workloads to which it no longer applies, after everything was read again: live, not from a store.
/// They roll for it, a few at a time.
async fn take_out(ctx: &Context, this: &RollOut<'_>, memory: &mut RolloutState, now: Timestamp) -> Result<(), Error> {
    let RollOut { tracing, rollout_strategy, context, workloads, .. } = *this;
    memory.removed.retain(|_, since| now.duration_since(*since) < REMOVED_GRACE);
    let name = tracing.metadata.name.as_deref().unwrap_or_default();
    let removed: Vec<_> = memory.removed.keys().cloned().collect();
    for (kind, name) in removed {
        if observe::is_settled(&ctx.client, kind, context.namespace, &name).await? {
            memory.removed.remove(&(kind, name));
        }
    }
    // Places beside those of touches.
    let places = format!("{}/out", tracing.metadata.uid.as_deref().unwrap_or_default());
    let astray: Vec<_> =
        workloads.iter().filter(|j| may_be_taken_out(j, rollout_strategy)).take(MAX_REMOVALS).collect();
    let removed = memory.removed.len();
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
        if write(ctx, &context, &confirmed, patch, memory).await? {
            tracing::info!(namespace = context.namespace, name = confirmed.name, "wiring taken out");
            events::removed(ctx, tracing, &confirmed).await;
            if rolls {
                free -= 1;
                memory.removed.insert((confirmed.kind, confirmed.name), now);
            }
        }
    }
    ctx.budget.hold(&places, memory.removed.len());
    Ok(())
}

/// Whether our wiring is to be taken out of a workload now. With `Manual` the operator replaces no pods: that waits until its
/// owner does. Who opts out does it with a change of their own.
fn may_be_taken_out(workload: &Assessment, rollout_strategy: RolloutStrategy) -> bool {
    let rests = workload.rollout.complete && workload.rollout.has_to_lose();
    let waits = rollout_strategy.policy == RolloutPolicy::Manual
        && matches!(workload.injection_state, InjectionState::ToRemove(_))
        && rests;
    workload.removal().is_some() && !waits
}

/// Patches a workload in the state in which it was judged. Says whether it was.
async fn write(
    ctx: &Context,
    context: &SelectionContext<'_>,
    workload: &Assessment,
    patch: &[json_patch::PatchOperation],
    memory: &mut RolloutState,
) -> Result<bool, Error> {
    ctx.budget.wait_for_write().await;
    match apply::patch(&ctx.client, written(context, workload), &workload.resource_version, patch).await {
        Ok(_) => Ok(true),
        Err(error) => dropped(error, workload, memory).map(|()| false),
    }
}

/// One workload that cannot be changed must not keep the others from it.
fn dropped(error: apply::Error, workload: &Assessment, memory: &mut RolloutState) -> Result<(), Error> {
    if let Some(said) = error.refusal() {
        tracing::warn!(workload = workload.resource(), said, "the API server refuses a change of a workload");
        memory.refused.insert(WorkloadKey::of_workload(workload), shorten(&said));
        return Ok(());
    }
    if error.is_conflict() { Ok(()) } else { Err(error.into()) }
}
