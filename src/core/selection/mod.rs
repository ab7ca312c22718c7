//! Which AgentTracing applies to a workload, if any.

pub mod kind;

use std::collections::BTreeSet;

use crate::core::inject::view::Workload;
use crate::core::settings::Platform;
use crate::core::settings::policy::Policy;
use crate::names;

/// What selection needs to know beside the workload itself.
#[derive(Clone, Copy, Debug)]
pub struct SelectionContext<'a> {
    /// The namespace, from the request: an object's own may be absent on create.
    pub namespace: &'a str,
    /// Whether the namespace carries the injection label.
    pub injection_enabled: bool,
    /// The cluster and the install.
    pub platform: &'a Platform,
    /// Service accounts of the namespace whose token is mounted into no pod.
    pub tokenless: &'a BTreeSet<String>,
    /// The AgentTracings of that namespace, in any order.
    pub policies: &'a [Policy],
    /// Whether the template is changed anyway, so that an init container of ours is brought up to date in passing.
    pub renews: bool,
}

/// The outcome of selection.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'p> {
    /// This AgentTracing applies. Where several match it is the oldest.
    One(&'p Policy),
    /// None does.
    None(NotSelected),
}

/// Why no AgentTracing applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSelected {
    /// The namespace is not labelled.
    NamespaceNotLabelled,
    /// A system namespace or the operator's own.
    NamespaceExcluded,
    /// `agenttracing.dev/inject=false`.
    OptedOut,
    /// One of the operator's own children.
    OperatorsOwn,
    /// What the kubelet shows of a pod that it runs from a file.
    MirrorPod,
    /// A Windows pod.
    Windows,
    /// A Job of a CronJob: its template is the CronJob's.
    OfCronJob,
    /// No AgentTracing lists its kind, and it does not opt in.
    Kind,
    /// There is no AgentTracing, or none whose selector matches.
    NoMatch,
}

/// Selects the AgentTracing for a workload.
pub fn select<'p>(workload: &Workload<'_>, context: &SelectionContext<'p>) -> Selection<'p> {
    if context.platform.excludes(context.namespace) {
        return Selection::None(NotSelected::NamespaceExcluded);
    }
    if !context.injection_enabled {
        return Selection::None(NotSelected::NamespaceNotLabelled);
    }
    if workload.metadata.label(names::LABEL_MANAGED_BY) == Some(names::MANAGED_BY) {
        return Selection::None(NotSelected::OperatorsOwn);
    }
    if workload.is_mirror_pod() {
        return Selection::None(NotSelected::MirrorPod);
    }
    if workload.is_of_cron_job() {
        return Selection::None(NotSelected::OfCronJob);
    }
    let choices = [workload.metadata.label(names::LABEL_INJECT), workload.template_label(names::LABEL_INJECT)];
    if choices.contains(&Some("false")) {
        return Selection::None(NotSelected::OptedOut);
    }
    let opted_in = choices.contains(&Some("true"));
    let named = workload.annotation(names::ANNOTATION_TRACING);
    // The annotation says which AgentTracing, not whether: that is the part of kinds, selector and the opt-in label.
    let named = || context.policies.iter().filter(|p| named.is_none_or(|name| p.settings.name == name));
    let selected = named().filter(|p| opted_in || p.settings.selects(workload)).min_by_key(|p| p.settings.age());
    match selected {
        // Where one lists the kind, it is the selector that does not match.
        None if named().next().is_some() && !named().any(|p| p.settings.kinds.contains(&workload.kind)) => {
            Selection::None(NotSelected::Kind)
        }
        None => Selection::None(NotSelected::NoMatch),
        Some(_) if workload.is_windows() => Selection::None(NotSelected::Windows),
        Some(policy) => Selection::One(policy),
    }
}
