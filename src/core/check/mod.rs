//! `check`: every link from the kind's definition to the last trace, in the order in which one needs the other. The first that is
//! broken is the cause; what lies behind it is not looked at, since it would only repeat it.

pub mod authorities;
pub mod own_bundle;
pub mod token;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use self::authorities::CaFindings;
use crate::api::{AgentTracing, ConditionType, Reason, WorkloadState, WorkloadStatus};
use crate::core::ca_bundle::{Source, merge};
use crate::core::selection::kind::Kind;
use crate::names;

/// What was found, or why it could not be looked at.
#[derive(Clone, Debug)]
pub enum Fact<T> {
    /// It was looked at.
    Known(T),
    /// Whoever asks may not, or the API server had trouble.
    Unknown(String),
}

/// Everything that is looked at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The namespace.
    pub namespace: String,
    /// Only this workload, as `deployment/teller`.
    pub workload: Option<String>,
    /// Whether the kind is served.
    pub definition: Fact<bool>,
    /// Namespace and ready pods of the operator, where its Deployment was found.
    pub operator: Fact<Option<OperatorFacts>>,
    /// Until when somebody leads, where anybody does.
    pub leader: Fact<Option<Timestamp>>,
    /// What the API server knows of the webhook.
    pub webhook: Fact<Option<WebhookFacts>>,
    /// Labels of the namespace; `None` where there is none.
    pub labels: Fact<Option<BTreeMap<String, String>>>,
    /// The AgentTracings of the namespace.
    pub tracings: Fact<Vec<AgentTracing>>,
    /// What a workload that nobody stores got from the webhook; `None` where it was to get nothing.
    pub probe: Fact<Option<bool>>,
    /// Pods of the workloads that status says are wired: how many run, and how many of them with the current wiring.
    pub pods: Fact<BTreeMap<String, PodFacts>>,
    /// Which certificate authorities they trust, and which they should.
    pub authorities: CaFindings,
}

/// The operator's Deployment.
#[derive(Clone, Debug)]
pub struct OperatorFacts {
    /// Its namespace.
    pub namespace: String,
    /// Pods that are ready.
    pub ready: i32,
}

/// The webhook's configuration.
#[derive(Clone, Debug)]
pub struct WebhookFacts {
    /// `caBundle` of each entry, PEM.
    pub bundles: Vec<Vec<u8>>,
}

/// The pods of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Those that run.
    pub running: usize,
    /// Those of them that carry the template's record.
    pub current: usize,
    /// One of these whose container has no token although its wiring needs one: pod and container.
    pub tokenless: Option<(String, String)>,
}

/// Whether a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Good,
    /// It does not: the cause.
    Bad,
    /// It could not be looked at, or it is too early to tell.
    Unknown,
    /// Something before it is broken.
    Skipped,
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is about.
    pub link: String,
    /// Whether it holds.
    pub state: State,
    /// What was found; where it is broken it ends with the command to type.
    pub said: String,
}

/// Walks the chain.
pub fn check(facts: &Facts, now: Timestamp) -> Vec<Link> {
    let mut chain = Chain::default();
    let namespace = &facts.namespace;
    chain.fact("definition", &facts.definition, "list agenttracings.agenttracing.dev -A", |served| match served {
        true => good("AgentTracings are served"),
        false => bad("the cluster does not know AgentTracings; install the operator: kubectl apply -k config/default"),
    });
    chain.fact("namespace", &facts.labels, &format!("get namespace/{namespace}"), |labels| match labels {
        Some(_) => good(format!("{namespace} exists")),
        None => bad(format!("there is no namespace {namespace}; see which there are: kubectl get namespaces")),
    });
    let list = format!("list agenttracings.agenttracing.dev -n {namespace}");
    chain.fact("AgentTracing", &facts.tracings, &list, |tracings| match tracings.as_slice() {
        [] => bad(format!(
            "there is none in {namespace}; create one: kubectl apply -n {namespace} -f config/samples/standalone.yaml"
        )),
        all => good(all.iter().map(name_of).collect::<Vec<_>>().join(", ")),
    });
    chain.fact("operator", &facts.operator, "list deployments -A", |operator| match operator {
        None => bad("it is not installed, although its kind is: kubectl apply -k config/default"),
        Some(OperatorFacts { namespace, ready: 0 }) => bad(format!(
            "none of its pods is ready; see why: kubectl describe pods -n {namespace} -l {}={}",
            names::LABEL_NAME,
            names::MANAGED_BY
        )),
        Some(OperatorFacts { namespace, ready }) => good(format!("{ready} ready in {namespace}")),
    });
    let lease = format!("get leases/{} -n {}", names::LEASE, operator_namespace(facts));
    chain.fact("leader", &facts.leader, &lease, |until| match until {
        Some(until) if *until >= now => good("a replica leads"),
        _ => bad(format!(
            "no replica leads, so nothing is reconciled; read their log: kubectl logs -n {} -l {}={}",
            operator_namespace(facts),
            names::LABEL_NAME,
            names::MANAGED_BY
        )),
    });
    let configuration = format!("get mutatingwebhookconfigurations/{}", names::WEBHOOK_CONFIGURATION);
    chain.fact("webhook", &facts.webhook, &configuration, |webhook| registered(webhook.as_ref(), now));
    chain.fact("namespace label", &facts.labels, &format!("get namespace/{namespace}"), |labels| {
        let enabled = labels.as_ref().and_then(|labels| labels.get(names::LABEL_INJECTION));
        let command =
            format!("kubectl label namespace {namespace} {}={} --overwrite", names::LABEL_INJECTION, names::ENABLED);
        match enabled.map(String::as_str) {
            Some(names::ENABLED) => good(format!("{} is {}", names::LABEL_INJECTION, names::ENABLED)),
            Some(other) => {
                bad(format!("{} is \"{other}\", which means nothing; set it: {command}", names::LABEL_INJECTION))
            }
            None => bad(format!("{namespace} is not labelled, so nothing in it is injected; label it: {command}")),
        }
    });
    chain.fact("webhook answers", &facts.probe, &format!("create deployments -n {namespace}"), |probe| match probe {
        None => unknown(format!(
            "cannot be told yet: nothing would be injected now; see what is missing: kubectl describe agenttracing -n {namespace}"
        )),
        Some(true) => good("a workload that was not stored came back wired"),
        Some(false) => bad(format!(
            "the API server does not reach it; see its Service and what stands between: kubectl get endpointslices -n {} -l \
             kubernetes.io/service-name={}",
            operator_namespace(facts),
            names::WEBHOOK_SERVICE
        )),
    });
    if let Fact::Known(tracings) = &facts.tracings {
        for tracing in tracings {
            of_tracing(&mut chain, tracing, facts, tracings.len() > 1, now);
        }
    }
    chain.links
}

/// Exit code: 0 all is well, 1 something is broken, 2 something could not be looked at.
pub fn exit_code(links: &[Link]) -> u8 {
    let any = |state| links.iter().any(|link| link.state == state);
    if any(State::Bad) { 1 } else { 2 * u8::from(any(State::Unknown)) }
}

fn registered(webhook: Option<&WebhookFacts>, now: Timestamp) -> (State, String) {
    let look = format!("kubectl get mutatingwebhookconfiguration {} -o yaml", names::WEBHOOK_CONFIGURATION);
    let Some(WebhookFacts { bundles }) = webhook else {
        return bad(
            "it is not registered, so nothing is injected on creation; install it again: kubectl apply -k config/default",
        );
    };
    let sound = |bundle: &Vec<u8>| {
        let merged = merge(&[Source { name: "caBundle", bytes: bundle }], now);
        merged.counts.iter().map(|(_, kept)| kept).sum::<usize>() > 0
    };
    if bundles.iter().any(Vec::is_empty) {
        bad(format!("its caBundle is empty: the leader writes it within seconds, unless it may not; look: {look}"))
    } else if !bundles.iter().all(sound) {
        bad(format!(
            "its caBundle holds no certificate that is valid now: the leader, cert-manager or OpenShift, whichever makes the \
             certificate, may not or cannot write it; look: {look}"
        ))
    } else {
        good("registered, with an authority that is valid")
    }
}

fn of_tracing(chain: &mut Chain, tracing: &AgentTracing, facts: &Facts, of_several: bool, now: Timestamp) {
    let name = name_of(tracing);
    let title = |link: &str| if of_several { format!("{name}: {link}") } else { link.to_owned() };
    // One AgentTracing that is broken says nothing about the next.
    chain.broken = chain.links.iter().any(|link| link.state == State::Bad && !link.link.contains(": "));
    let namespace = &facts.namespace;
    let status = tracing.status.clone().unwrap_or_default();
    let seen = status.observed_generation.is_some() && status.observed_generation == tracing.metadata.generation;
    chain.add(
        &title("spec"),
        match seen {
            true => good(format!("generation {} was reconciled", status.observed_generation.unwrap_or_default())),
            false => bad(format!(
                "the newest change of {name} was not reconciled; read the operator's log: kubectl logs -n {} -l {}={}",
                operator_namespace(facts),
                names::LABEL_NAME,
                names::MANAGED_BY
            )),
        },
    );
    let condition = |kind: ConditionType| status.conditions.iter().find(|c| c.type_ == kind.as_str());
    let stops = [Reason::Suspended, Reason::InvalidSpec, Reason::Conflict].map(Reason::as_str);
    if let Some(ready) = condition(ConditionType::Ready).filter(|c| stops.contains(&c.reason.as_str())) {
        chain.add(&title("spec allows it"), bad(format!("{}: {}", ready.reason, ready.message)));
    }
    for kind in [
        ConditionType::MLflowReady,
        ConditionType::WorkspaceReady,
        ConditionType::RBACReady,
        ConditionType::InjectionReady,
        ConditionType::ExperimentsReady,
    ] {
        if let Some(condition) = condition(kind) {
            chain.add(&title(kind.as_str()), verdict(&condition.status, &condition.reason, &condition.message));
        }
    }
    let mut rows: Vec<_> = status.workloads.iter().collect();
    if let Some(only) = &facts.workload {
        rows.retain(|row| resource(row) == *only);
        if rows.is_empty() && !of_several {
            let said = format!(
                "{only} is none that {name} selects, or it is not there; compare injection.kinds and injection.selector: kubectl get \
                 -n {namespace} {only} -o yaml"
            );
            chain.add(only, bad(said));
        }
    }
    let first = chain.links.len();
    for row in rows {
        // The others are as they are whatever this one lacks.
        let broken = chain.broken;
        chain.add(&title(&resource(row)), of_workload(row, facts));
        if let Some(assessment) = of_bundle(row, facts, now) {
            chain.add(&title(&format!("CA bundle of {}", resource(row))), assessment);
        }
        chain.broken = broken;
    }
    chain.broken |= chain.links[first..].iter().any(|link| link.state == State::Bad);
    if let (Some(only), false) = (&facts.workload, chain.broken) {
        let row = status.workloads.iter().find(|row| resource(row) == *only && row.state == WorkloadState::Injected);
        if let Some(row) = row {
            chain.add(&title("traces"), traces_of(row, facts));
        }
    } else if let Some(flowing) = condition(ConditionType::TracesFlowing) {
        let early = [Reason::NoTracesYet, Reason::NoTracesFrom].map(Reason::as_str).contains(&flowing.reason.as_str());
        let found = match early {
            true => unknown(format!("{}: {}", flowing.reason, flowing.message)),
            false => verdict(&flowing.status, &flowing.reason, &flowing.message),
        };
        chain.add(&title("traces"), found);
    }
}

/// What the user chose so is no fault.
fn is_fine(row: &WorkloadStatus) -> bool {
    let chosen = [Reason::OptedOut, Reason::OwnTrackingURI, Reason::Windows].map(Reason::as_str);
    row.state == WorkloadState::Injected || row.reason.as_deref().is_some_and(|reason| chosen.contains(&reason))
}

fn of_workload(row: &WorkloadStatus, facts: &Facts) -> (State, String) {
    let why = [Some(row.state.as_str()), row.reason.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    if !is_fine(row) {
        return bad(format!("{why}: {}", row.message.as_deref().unwrap_or_default()));
    }
    if row.state != WorkloadState::Injected {
        return good(format!("{why}, as its owner chose"));
    }
    let experiment = row.experiment.as_deref().unwrap_or("one that cannot be seen");
    let last = row.last_trace_time.as_deref().map_or_else(|| "none seen".to_owned(), |time| format!("from {time}"));
    let told = format!("wired, experiment {experiment}, last trace {last}");
    match &facts.pods {
        Fact::Known(all) => match all.get(&resource(row)) {
            Some(PodFacts { running, current, .. }) if current < running => bad(format!(
                "{} of its {running} pods are from before the wiring; replace them: kubectl rollout restart -n {} {}",
                running - current,
                facts.namespace,
                resource(row)
            )),
            Some(PodFacts { tokenless: Some((pod, container)), .. }) => bad(format!(
                "container {container} of {pod} has no service account token, so that MLflow refuses its traces; a policy has taken it \
                 from the pod (automountServiceAccountToken), or its volume: kubectl get pod -n {} {pod} -o yaml",
                facts.namespace
            )),
            // Whether its traces arrive is not known, whatever the others' do.
            _ if row.last_trace_time.is_none() => unknown(format!(
                "{told}; send it a request, then look again: kubectl get agenttracing -n {}",
                facts.namespace
            )),
            _ => good(told),
        },
        Fact::Unknown(why) => unknown(format!(
            "{told}; its pods cannot be looked at ({why}); see whether you may: kubectl auth can-i list pods -n {}",
            facts.namespace
        )),
    }
}

/// Whether traces of one workload arrive. What is said of all of them says nothing about this one.
fn traces_of(row: &WorkloadStatus, facts: &Facts) -> (State, String) {
    let (namespace, resource) = (&facts.namespace, resource(row));
    let log = match row.kind == Kind::CronJob.as_str() {
        true => format!("kubectl get jobs -n {namespace}"),
        false => format!("kubectl logs -n {namespace} {resource}"),
    };
    let broken = [Reason::TracesWithoutSpans, Reason::TracesStopped].map(Reason::as_str);
    let note = row.notes.iter().find(|note| broken.iter().any(|reason| note.starts_with(&format!("{reason}: "))));
    let experiment = row.experiment.as_deref().unwrap_or("that cannot be seen");
    match (note, &row.last_trace_time) {
        (Some(note), _) => bad(format!("{note}; read its log: {log}")),
        (None, Some(time)) => good(format!("experiment {experiment} got a trace with its spans at {time}")),
        (None, None) => unknown(format!(
            "none was seen in experiment {experiment} since its current wiring; send it a request, then read its log: {log}"
        )),
    }
}

/// `None` where it has no bundle, or no pod that runs.
fn of_bundle(row: &WorkloadStatus, facts: &Facts, now: Timestamp) -> Option<(State, String)> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == row.kind)?;
    authorities::assess(kind, &resource(row), facts, now)
}

fn resource(row: &WorkloadStatus) -> String {
    format!("{}/{}", row.kind.to_ascii_lowercase(), row.name)
}

fn name_of(tracing: &AgentTracing) -> String {
    tracing.metadata.name.clone().unwrap_or_default()
}

fn operator_namespace(facts: &Facts) -> &str {
    match &facts.operator {
        Fact::Known(Some(operator)) => &operator.namespace,
        _ => names::OPERATOR_NAMESPACE,
    }
}

fn verdict(status: &str, reason: &str, message: &str) -> (State, String) {
    let state = match status {
        "True" => State::Good,
        "False" => State::Bad,
        _ => State::Unknown,
    };
    (state, format!("{reason}: {message}"))
}

fn good(said: impl Into<String>) -> (State, String) {
    (State::Good, said.into())
}

fn bad(said: impl Into<String>) -> (State, String) {
    (State::Bad, said.into())
}

fn unknown(said: impl Into<String>) -> (State, String) {
    (State::Unknown, said.into())
}

#[derive(Default)]
struct Chain {
    links: Vec<Link>,
    broken: bool,
}

impl Chain {
    /// `right` is what it takes to look, as `kubectl auth can-i` has it.
    fn fact<T>(&mut self, link: &str, fact: &Fact<T>, right: &str, assess: impl FnOnce(&T) -> (State, String)) {
        match fact {
            _ if self.broken => self.add(link, good("")),
            Fact::Known(known) => self.add(link, assess(known)),
            Fact::Unknown(why) => self.add(
                link,
                unknown(format!("it cannot be looked at ({why}); see whether you may: kubectl auth can-i {right}")),
            ),
        }
    }

    fn add(&mut self, link: &str, (state, said): (State, String)) {
        let (state, said) = match self.broken {
            true => (State::Skipped, String::new()),
            false => (state, said),
        };
        self.broken |= state == State::Bad;
        self.links.push(Link { link: link.to_owned(), state, said });
    }
}

#[cfg(test)]
mod tests;
