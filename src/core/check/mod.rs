//! `check`: every link from the kind's definition to the last trace, in the order in which one needs the other. The first that is
//! broken is the cause; what lies behind it is not looked at, since it would only repeat it.

pub mod authorities;
pub mod own_bundle;
pub mod token;
mod tracing;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use self::authorities::CaFindings;
use crate::api::{AgentTracing, Reason};
use crate::core::ca_bundle::{Source, merge};
use crate::core::kubectl::Kubectl;
use crate::core::settings::Platform;
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
    pub message: String,
}

/// Walks the chain.
pub fn check(facts: &Facts, now: Timestamp) -> Vec<Link> {
    let mut chain = Chain::default();
    objects_exist(&mut chain, facts);
    operator_runs(&mut chain, facts, now);
    namespace_is_injected(&mut chain, facts);
    if let Fact::Known(tracings) = &facts.tracings {
        for tracing in tracings {
            tracing::of_tracing(&mut chain, tracing, facts, tracings.len() > 1, now);
        }
    }
    chain.links
}

/// The kind, the namespace, an AgentTracing.
fn objects_exist(chain: &mut Chain, facts: &Facts) {
    let namespace = &facts.namespace;
    chain.fact("definition", &facts.definition, "list agenttracings.agenttracing.dev -A", |served| match served {
        true => good("AgentTracings are served"),
        false => bad(format!("the cluster does not know AgentTracings; install the operator: {}", install())),
    });
    chain.fact("namespace", &facts.labels, &format!("get namespace/{namespace}"), |labels| match labels {
        Some(_) => good(format!("{namespace} exists")),
        None => {
            bad(format!("there is no namespace {namespace}; see which there are: {}", Kubectl::new("get namespaces")))
        }
    });
    let list = format!("list agenttracings.agenttracing.dev -n {namespace}");
    chain.fact("AgentTracing", &facts.tracings, &list, |tracings| match tracings.as_slice() {
        [] => bad(format!(
            "there is none in {namespace}; create one: {}",
            Kubectl::new("apply").namespace(namespace).args(["-f", "config/samples/standalone.yaml"])
        )),
        all => good(all.iter().map(name_of).collect::<Vec<_>>().join(", ")),
    });
}

/// The operator, its leader, its webhook.
fn operator_runs(chain: &mut Chain, facts: &Facts, now: Timestamp) {
    chain.fact("operator", &facts.operator, "list deployments -A", |operator| match operator {
        None => bad(format!("it is not installed, although its kind is: {}", install())),
        Some(OperatorFacts { namespace, ready: 0 }) => bad(format!(
            "none of its pods is ready; see why: {}",
            Kubectl::new("describe pods").namespace(namespace).selector(&names::operator_selector())
        )),
        Some(OperatorFacts { namespace, ready }) => good(format!("{ready} ready in {namespace}")),
    });
    let lease = format!("get leases/{} -n {}", names::LEASE, operator_namespace(facts));
    chain.fact("leader", &facts.leader, &lease, |until| match until {
        Some(until) if *until >= now => good("a replica leads"),
        _ => bad(format!("no replica leads, so nothing is reconciled; read their log: {}", operator_logs(facts))),
    });
    let configuration = format!("get mutatingwebhookconfigurations/{}", names::WEBHOOK_CONFIGURATION);
    chain.fact("webhook", &facts.webhook, &configuration, |webhook| registered(webhook.as_ref(), now));
}

/// The namespace's label, and whether a workload would be wired.
fn namespace_is_injected(chain: &mut Chain, facts: &Facts) {
    let namespace = &facts.namespace;
    chain.fact("namespace label", &facts.labels, &format!("get namespace/{namespace}"), |labels| {
        let enabled = labels.as_ref().and_then(|labels| labels.get(names::LABEL_INJECTION));
        if let Some(never) = never_wired(facts) {
            return bad(never);
        }
        let label = format!("{}={}", names::LABEL_INJECTION, names::ENABLED);
        let command = Kubectl::new("label namespace").arg(namespace).arg(&label).arg("--overwrite");
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
            "cannot be told yet: nothing would be injected now; see what is missing: {}",
            Kubectl::new("describe agenttracing").namespace(namespace)
        )),
        Some(true) => good("a workload that was not stored came back wired"),
        Some(false) => bad(format!(
            "the API server does not reach it; see its Service and what stands between: {}",
            Kubectl::new("get endpointslices")
                .namespace(operator_namespace(facts))
                .selector(&format!("kubernetes.io/service-name={}", names::WEBHOOK_SERVICE))
        )),
    });
}

/// Why nothing in the namespace is wired, whatever its labels say. What an administrator excludes stands in the status alone.
fn never_wired(facts: &Facts) -> Option<String> {
    let Facts { namespace, tracings, .. } = facts;
    let platform = Platform { operator_namespace: operator_namespace(facts).to_owned(), ..Platform::default() };
    if platform.excludes(namespace) {
        let create = Kubectl::new("create namespace").arg("agents");
        return Some(format!(
            "{namespace} is one of the cluster's own namespaces, in which nothing is ever wired; run agents in another one: {create}"
        ));
    }
    let Fact::Known(tracings) = tracings else { return None };
    let conditions =
        tracings.iter().filter_map(|tracing| tracing.status.as_ref()).flat_map(|status| &status.conditions);
    let excluded = conditions.into_iter().find(|condition| condition.reason == Reason::NamespaceExcluded.as_str());
    excluded.map(|condition| condition.message.clone())
}

/// Exit code: 0 all is well, 1 something is broken, 2 something could not be looked at.
pub fn exit_code(links: &[Link]) -> u8 {
    let any = |state| links.iter().any(|link| link.state == state);
    if any(State::Bad) { 1 } else { 2 * u8::from(any(State::Unknown)) }
}

fn registered(webhook: Option<&WebhookFacts>, now: Timestamp) -> (State, String) {
    let look = Kubectl::new("get mutatingwebhookconfiguration").arg(names::WEBHOOK_CONFIGURATION).yaml();
    let Some(WebhookFacts { bundles }) = webhook else {
        return bad(format!(
            "it is not registered, so nothing is injected on creation; install it again: {}",
            install()
        ));
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

fn name_of(tracing: &AgentTracing) -> String {
    tracing.metadata.name.clone().unwrap_or_default()
}

fn operator_namespace(facts: &Facts) -> &str {
    match &facts.operator {
        Fact::Known(Some(operator)) => &operator.namespace,
        _ => names::OPERATOR_NAMESPACE,
    }
}

/// The commands that install the operator, either of them.
fn install() -> String {
    format!(
        "helm upgrade --install {0} charts/{0} -n {1} --create-namespace, or: {2}",
        names::MANAGED_BY,
        names::OPERATOR_NAMESPACE,
        Kubectl::new("apply -k config/default")
    )
}

/// The command that shows the operator's log.
fn operator_logs(facts: &Facts) -> Kubectl {
    // With a selector kubectl shows the last ten lines alone.
    Kubectl::new("logs").namespace(operator_namespace(facts)).selector(&names::operator_selector()).arg("--tail=-1")
}

fn good(message: impl Into<String>) -> (State, String) {
    (State::Good, message.into())
}

fn bad(message: impl Into<String>) -> (State, String) {
    (State::Bad, message.into())
}

fn unknown(message: impl Into<String>) -> (State, String) {
    (State::Unknown, message.into())
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
                unknown(format!(
                    "it cannot be looked at ({why}); see whether you may: {}",
                    Kubectl::new("auth can-i").args(right.split_whitespace())
                )),
            ),
        }
    }

    fn add(&mut self, link: &str, (state, message): (State, String)) {
        let (state, message) = match self.broken {
            true => (State::Skipped, String::new()),
            false => (state, message),
        };
        self.broken |= state == State::Bad;
        self.links.push(Link { link: link.to_owned(), state, message });
    }
}

#[cfg(test)]
mod tests;
