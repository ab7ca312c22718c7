//! Whether the cluster admits the init container `merge-ca`: asked by dry runs, before a pod has to exist.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::workload_key::WorkloadKey;
use super::{Context, Error, apply, observe};
use crate::api::{AgentTracingStatus, CaBundleStrategy, RefusedMergeCa};
use crate::core::inject::canary::{self, Answer, Templates, compare_dry_runs};
use crate::core::selection::kind::Kind;
use crate::core::settings::Settings;
use crate::core::settings::policy::CaChoice;
use crate::core::wiring::parts::FallbackReason;
use crate::core::wiring::parts::authorities;
use crate::core::workloads::{Assessment, InjectionState};

/// How long a refusal, or a question without an answer, stands until it is asked again.
const RECHECK: SignedDuration = SignedDuration::from_mins(10);
/// The same for a workload whose pods do not come.
const RECHECK_PODS: SignedDuration = SignedDuration::from_secs(60);
/// Workloads without pods that are asked for in one pass.
const MAX_WITHOUT_PODS: usize = 3;

/// What was asked already.
#[derive(Debug, Default)]
pub(super) struct CanaryState {
    namespace: Option<DryRun>,
    /// Workloads whose pods did not come.
    examined: BTreeMap<WorkloadKey, Examined>,
}

/// What was asked for the namespace.
#[derive(Debug)]
struct DryRun {
    /// From where the init container is.
    source: String,
    at: Timestamp,
    /// Of the template of a workload; otherwise only of a stand-in.
    of_workload: bool,
    refused: Option<RefusedMergeCa>,
    /// Workloads that had been refused with it by then.
    refusals: usize,
}

/// What was asked for a workload whose pods did not come.
#[derive(Debug)]
struct Examined {
    /// Of its wiring then.
    record: Option<String>,
    at: Timestamp,
    /// Its pods are refused because of the init container. Kept, since not every pass may write to the workload.
    refused: bool,
}

/// The init container that the cluster does not admit in this namespace, asked before the first workload is wired there with it,
/// again every ten minutes, since policies come and go, and at once when a workload was refused with it.
pub(super) async fn refused_merge_ca(
    ctx: &Context,
    settings: &Settings,
    labelled: bool,
    workloads: &[Assessment],
    old: &AgentTracingStatus,
    state: &mut CanaryState,
    now: Timestamp,
) -> Result<Option<RefusedMergeCa>, Error> {
    let Some(choice) = settings.ca.as_ref().filter(|ca| ca.strategy == CaBundleStrategy::InitContainer) else {
        return Ok(None);
    };
    // Where nothing is wired nothing is asked.
    if ctx.platform.excludes(&settings.namespace)
        || !(labelled || workloads.iter().any(|j| j.merge_ca.source.is_some()))
    {
        return Ok(None);
    }
    let source = ctx.platform.merge_ca.source();
    let example = example(workloads);
    let refusals = workloads.iter().filter(|j| j.merge_ca.fallback == Some(FallbackReason::Refused)).count();
    let last = state.namespace.as_ref().filter(|dry_run| dry_run.source == source);
    let holds = |dry_run: &&DryRun| {
        now.duration_since(dry_run.at) < RECHECK
            && dry_run.refusals >= refusals
            && (dry_run.of_workload || example.is_none())
    };
    if let Some(last) = last.filter(holds) {
        return Ok(last.refused.clone());
    }
    let known = old.merge_ca.as_ref().filter(|refused| refused.refused_source == source);
    let known = last.map_or_else(|| known.cloned(), |last| last.refused.clone());
    let dry_run = |of_workload: bool, refused: &Option<RefusedMergeCa>| {
        Some(DryRun { source: source.clone(), at: now, of_workload, refused: refused.clone(), refusals })
    };
    let runs_with_it =
        |j: &Assessment| j.merge_ca.present && j.injection_state == InjectionState::Current && j.rollout.available > 0;
    if last.is_none() && known.is_none() && workloads.iter().any(runs_with_it) {
        state.namespace = dry_run(true, &None);
        return Ok(None);
    }
    let Some(DryRunAnswers { answers, of_workload }) = try_template(ctx, settings, choice, example).await? else {
        return Ok(known);
    };
    let refused = answers.iter().find_map(|answer| match answer {
        Answer::Refused(message) => Some(message),
        // A policy that refuses the stand-in for its image would refuse the init container too: until there is a workload that
        // tells, none gets it.
        Answer::RefusedAnyway(message) if !of_workload => Some(message),
        Answer::RefusedAnyway(_) | Answer::Admitted | Answer::Unclear => None,
    });
    let refused = match refused {
        // What is said of it may differ a little each time.
        Some(message) if known.is_none() => {
            tracing::warn!(
                namespace = settings.namespace,
                refusal = message,
                "the cluster does not admit merge-ca; a ConfigMap takes its place"
            );
            Some(RefusedMergeCa { refused_source: source.clone(), message: message.clone() })
        }
        None if answers.iter().all(|answer| *answer == Answer::Admitted) => None,
        _ => known,
    };
    if !answers.contains(&Answer::Unclear) {
        state.namespace = dry_run(of_workload, &refused);
    }
    Ok(refused)
}

/// What the API server says to the init container.
struct DryRunAnswers {
    /// In a Deployment, and in a Pod.
    answers: [Answer; 2],
    /// Of the template of a workload; otherwise only of a stand-in.
    of_workload: bool,
}

/// Tries the template of a workload, or of a stand-in; nothing where the init container has no place in it.
async fn try_template(
    ctx: &Context,
    settings: &Settings,
    choice: &CaChoice,
    example: Option<&Assessment>,
) -> Result<Option<DryRunAnswers>, Error> {
    let namespace = &settings.namespace;
    let template = match example {
        Some(example) => observe::object(ctx, example.kind, namespace, &example.name).await?,
        None => None,
    };
    let template = example.zip(template).and_then(|(example, object)| canary::bare_template(example.kind, object));
    let of_workload = template.is_some();
    let template = template.unwrap_or_else(|| canary::stand_in(&ctx.platform));
    let Some(templates) = canary::to_be_wired(template, &authorities::part(choice), &ctx.platform) else {
        return Ok(None);
    };
    let answers =
        [ask(ctx, Kind::Deployment, namespace, &templates).await, ask(ctx, Kind::Pod, namespace, &templates).await];
    Ok(Some(DryRunAnswers { answers, of_workload }))
}

/// The workload whose template is tried, as the best example of what policies are used to here: one that is about to be wired,
/// else one that is.
fn example(workloads: &[Assessment]) -> Option<&Assessment> {
    let first = |test: &dyn Fn(&Assessment) -> bool| workloads.iter().find(|j| j.kind.template_is_mutable() && test(j));
    let to_wire = |j: &Assessment| {
        matches!(j.injection_state, InjectionState::OutOfDate { .. } | InjectionState::Blocked(_)) && !j.wired
    };
    first(&to_wire).or_else(|| first(&|j| j.wired))
}

/// Workloads that are to do without the init container, and why: it does not start, or the workload has no pods of its wiring and
/// would have them without it.
pub(super) async fn failing(
    ctx: &Context,
    namespace: &str,
    workloads: &[Assessment],
    troubles: &observe::Troubles,
    state: &mut CanaryState,
    now: Timestamp,
) -> Result<BTreeMap<String, FallbackReason>, Error> {
    let observe::Troubles { not_started, without_pods } = troubles;
    let keys: BTreeSet<_> = workloads.iter().map(WorkloadKey::of_workload).collect();
    state.examined.retain(|key, _| keys.contains(key));
    let is_due = |workload: &&Assessment| {
        // Whether a CronJob's Jobs get no pods is not known: each look is a question.
        let pause = if workload.kind == Kind::CronJob { RECHECK } else { RECHECK_PODS };
        let again = |at: Timestamp| now.duration_since(at) >= pause;
        let last = state.examined.get(&WorkloadKey::of_workload(workload));
        last.is_none_or(|last| last.record != workload.record || again(last.at))
    };
    let without: Vec<_> = workloads.iter().filter(|workload| without_pods.contains(&workload.resource())).collect();
    let due: Vec<_> = without.iter().copied().filter(is_due).take(MAX_WITHOUT_PODS).collect();
    for workload in due {
        let object = observe::object(ctx, workload.kind, namespace, &workload.name).await?;
        let template = object.and_then(|object| canary::template(workload.kind, object));
        let answer = match template.and_then(canary::wired) {
            Some(templates) => ask(ctx, Kind::Pod, namespace, &templates).await,
            None => Answer::Unclear,
        };
        if let Answer::Refused(message) = &answer {
            tracing::warn!(
                namespace,
                name = workload.resource(),
                refusal = message,
                "its pods are not admitted with merge-ca"
            );
        }
        let examined =
            Examined { record: workload.record.clone(), at: now, refused: matches!(answer, Answer::Refused(_)) };
        state.examined.insert(WorkloadKey::of_workload(workload), examined);
    }
    let is_refused = |workload: &&Assessment| {
        let last = state.examined.get(&WorkloadKey::of_workload(workload));
        last.is_some_and(|last| last.refused && last.record == workload.record)
    };
    let refused = without.into_iter().filter(is_refused).map(|workload| (workload.resource(), FallbackReason::Refused));
    let failing = not_started.iter().map(|name| (name.clone(), FallbackReason::NotStarted)).chain(refused).collect();
    Ok(failing)
}

async fn ask(ctx: &Context, kind: Kind, namespace: &str, templates: &Templates) -> Answer {
    let object = |template| match kind {
        Kind::Pod => canary::pod(template),
        _ => canary::deployment(template),
    };
    let with = apply::would_create(ctx, kind, namespace, &object(&templates.with)).await;
    if with == Answer::Admitted {
        return with;
    }
    let without = apply::would_create(ctx, kind, namespace, &object(&templates.without)).await;
    compare_dry_runs(&without, &with, &ctx.platform.merge_ca.image)
}
