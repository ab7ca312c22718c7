//! Whether the cluster admits the init container `merge-ca`: asked by dry runs, before a pod has to exist.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::key::Key;
use super::{Context, Error, apply, observe};
use crate::api::{AgentTracingStatus, CaBundleStrategy, RefusedMergeCa};
use crate::core::canary::{self, Answer, Templates, verdict};
use crate::core::decide::Fallback;
use crate::core::kind::Kind;
use crate::core::settings::Settings;
use crate::core::workload::{Judged, Standing};

/// How long a refusal, or a question without an answer, stands until it is asked again.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// The same for a workload whose pods do not come.
const AGAIN_FOR_PODS: SignedDuration = SignedDuration::from_secs(60);
/// Workloads without pods that are asked for in one pass.
const MOST_WITHOUT_PODS: usize = 3;

/// What was asked already.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// From where the init container is that was admitted.
    admitted: Option<String>,
    asked: Option<Timestamp>,
    /// Workloads whose pods did not come.
    examined: BTreeMap<Key, Examined>,
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

/// The init container that the cluster does not admit in this namespace, asked before the first workload is wired there with it.
/// One that has been admitted is not asked for again, and one that was refused is every ten minutes.
pub(super) async fn refused_merge_ca(
    ctx: &Context,
    settings: &Settings,
    labelled: bool,
    workloads: &[Judged],
    old: &AgentTracingStatus,
    memory: &mut Memory,
    now: Timestamp,
) -> Result<Option<RefusedMergeCa>, Error> {
    let Some(choice) = settings.policy.ca.as_ref().filter(|ca| ca.strategy == CaBundleStrategy::InitContainer) else {
        return Ok(None);
    };
    // Where nothing is wired nothing is asked.
    if ctx.platform.excludes(&settings.namespace)
        || !(labelled || workloads.iter().any(|j| j.merge_ca.source.is_some()))
    {
        return Ok(None);
    }
    let merge_ca = &ctx.platform.merge_ca;
    let source = merge_ca.source();
    let known = old.merge_ca.as_ref().filter(|refused| refused.refused_source == source);
    let runs_with_it = |j: &Judged| j.merge_ca.present && j.standing == Standing::Current && j.rollout.available > 0;
    if known.is_none() && workloads.iter().any(runs_with_it) {
        memory.admitted = Some(source);
        return Ok(None);
    }
    let is_fresh = memory.asked.is_some_and(|at| now.duration_since(at) < AGAIN);
    if is_fresh || memory.admitted.as_ref() == Some(&source) {
        return Ok(known.cloned());
    }
    let template = first_template(ctx, &settings.namespace, workloads).await?;
    let Some(templates) = canary::to_be_wired(template, choice, &ctx.platform) else { return Ok(known.cloned()) };
    memory.asked = Some(now);
    let answers = [
        ask(ctx, Kind::Deployment, &settings.namespace, &templates).await,
        ask(ctx, Kind::Pod, &settings.namespace, &templates).await,
    ];
    let refused = answers.iter().find_map(|answer| match answer {
        Answer::Refused(said) => Some(said.clone()),
        Answer::Admitted | Answer::Unclear => None,
    });
    if let Some(message) = refused {
        tracing::warn!(
            namespace = settings.namespace,
            message,
            "the cluster does not admit merge-ca; a ConfigMap takes its place"
        );
        return Ok(Some(RefusedMergeCa { refused_source: source, message }));
    }
    if answers.iter().all(|answer| *answer == Answer::Admitted) {
        memory.admitted = Some(source);
        return Ok(None);
    }
    Ok(known.cloned())
}

/// Workloads that are to do without the init container, and why: it does not start, or the workload has no pods of its wiring and
/// would have them without it.
pub(super) async fn failing(
    ctx: &Context,
    namespace: &str,
    workloads: &[Judged],
    troubles: observe::Troubles,
    memory: &mut Memory,
    now: Timestamp,
) -> Result<BTreeMap<String, Fallback>, Error> {
    let observe::Troubles { not_started, without_pods } = troubles;
    let keys: BTreeSet<_> = workloads.iter().map(Key::of_workload).collect();
    memory.examined.retain(|key, _| keys.contains(key));
    let is_due = |workload: &&Judged| {
        let again = |at: Timestamp| workload.kind != Kind::CronJob && now.duration_since(at) >= AGAIN_FOR_PODS;
        let last = memory.examined.get(&Key::of_workload(workload));
        last.is_none_or(|last| last.record != workload.record || again(last.at))
    };
    let without: Vec<_> = workloads.iter().filter(|workload| without_pods.contains(&workload.resource())).collect();
    let due: Vec<_> = without.iter().copied().filter(is_due).take(MOST_WITHOUT_PODS).collect();
    for workload in due {
        let template = observe::template(ctx, workload.kind, namespace, &workload.name).await?;
        let answer = match template.and_then(canary::wired) {
            Some(templates) => ask(ctx, Kind::Pod, namespace, &templates).await,
            None => Answer::Unclear,
        };
        if let Answer::Refused(said) = &answer {
            tracing::warn!(namespace, name = workload.resource(), said, "its pods are not admitted with merge-ca");
        }
        let examined =
            Examined { record: workload.record.clone(), at: now, refused: matches!(answer, Answer::Refused(_)) };
        memory.examined.insert(Key::of_workload(workload), examined);
    }
    let is_refused = |workload: &&Judged| {
        let last = memory.examined.get(&Key::of_workload(workload));
        last.is_some_and(|last| last.refused && last.record == workload.record)
    };
    let refused = without.into_iter().filter(is_refused).map(|workload| (workload.resource(), Fallback::Refused));
    let failing = not_started.into_iter().map(|name| (name, Fallback::NotStarted)).chain(refused).collect();
    Ok(failing)
}

/// The template of a workload that is about to be wired, as the best example of what policies are used to here.
async fn first_template(ctx: &Context, namespace: &str, workloads: &[Judged]) -> Result<Option<Value>, Error> {
    let to_wire =
        |j: &&Judged| matches!(j.standing, Standing::Wanting { .. } | Standing::Waiting(_)) && j.kind != Kind::Pod;
    let Some(first) = workloads.iter().find(|j| to_wire(j) && !j.wired) else { return Ok(None) };
    Ok(observe::template(ctx, first.kind, namespace, &first.name).await?)
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
    verdict(&without, &with, &ctx.platform.merge_ca.image)
}
