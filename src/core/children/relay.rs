//! The objects of the relay, all named `<AgentTracing>-relay`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::child::{Child, Owners};
use super::network::{namespace_peer, without_empty_lists};
use super::relay_pods::{self, PORTS, Port};
use super::{of_tracing, owner};
use crate::core::settings::{Platform, RelaySettings, Settings};
use crate::names;

/// The child objects of the relay of one AgentTracing.
#[derive(Clone, Debug)]
pub struct DesiredRelay {
    /// Its pods.
    pub stateful_set: Child,
    /// Its address.
    pub service: Child,
    /// Who it is.
    pub account: Child,
    /// Who may connect.
    pub network_policy: Child,
    /// How many of its pods may be evicted at a time.
    pub disruption_budget: Child,
}

impl DesiredRelay {
    /// All of them; the pods last, since they need the others.
    pub fn all(&self) -> [&Child; 5] {
        let Self { stateful_set, service, account, network_policy, disruption_budget } = self;
        [service, account, network_policy, disruption_budget, stateful_set]
    }
}

/// The objects of a relay of these settings on this platform.
pub fn desired_relay(settings: &Settings, relay: &RelaySettings, platform: &Platform) -> DesiredRelay {
    DesiredRelay {
        stateful_set: Child {
            immutable: &IMMUTABLE,
            ..child(settings, relay_pods::stateful_set(settings, relay, platform))
        },
        service: child(settings, service(settings)),
        account: child(settings, account(settings)),
        network_policy: child(settings, network_policy(settings, relay, platform)),
        disruption_budget: match relay.replicas {
            // A budget of one pod would keep its node from being drained.
            0 | 1 => unwanted::<PodDisruptionBudget>(settings),
            _ => child(settings, disruption_budget(settings)),
        },
    }
}

/// The objects of a relay that nothing uses any more. Its claims are not among them: they may hold traces, which the next relay of
/// this name sends.
pub fn unwanted_relay(settings: &Settings) -> DesiredRelay {
    DesiredRelay {
        stateful_set: unwanted::<k8s_openapi::api::apps::v1::StatefulSet>(settings),
        service: unwanted::<Service>(settings),
        account: unwanted::<ServiceAccount>(settings),
        network_policy: unwanted::<NetworkPolicy>(settings),
        disruption_budget: unwanted::<PodDisruptionBudget>(settings),
    }
}

fn child<K: kube::Resource<DynamicType = ()> + Serialize>(settings: &Settings, object: K) -> Child {
    Child::new(object, &Owners::Controller(owner(settings)), of_tracing(settings))
}

fn unwanted<K: kube::Resource<DynamicType = ()>>(settings: &Settings) -> Child {
    Child::unwanted::<K>(&settings.namespace, &names::relay_object(&settings.name), of_tracing(settings))
}

fn service(settings: &Settings) -> Service {
    let port = |Port { name, number }: Port| ServicePort {
        name: Some(name.to_owned()),
        // Part of the list's merge key: left out, an apply of another port adds it to the list.
        protocol: Some("TCP".to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(settings),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector_labels(settings)),
            ports: Some(PORTS.map(port).to_vec()),
            // The requests of one trace come over several connections, and a replica knows the order of its own alone.
            session_affinity: Some("ClientIP".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn account(settings: &Settings) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(settings),
        // The pod asks for its token itself.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Agents of this namespace and the user's peers; the operator's namespace sees what is known of traces. The kubelet's probes
/// need no rule.
fn network_policy(settings: &Settings, relay: &RelaySettings, platform: &Platform) -> NetworkPolicy {
    let of_namespace = NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..Default::default() };
    let agents = std::iter::once(of_namespace).chain(relay.from.iter().cloned().map(without_empty_lists));
    // The number: not every network plugin knows the names of ports.
    let port = |Port { number, .. }: Port| NetworkPolicyPort {
        protocol: Some("TCP".to_owned()),
        port: Some(IntOrString::Int(number)),
        end_port: None,
    };
    let [agents_port, otlp_port, own_port] = PORTS.map(port);
    let rule = |from: Vec<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>| NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(ports),
    };
    NetworkPolicy {
        metadata: metadata(settings),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector_labels(settings)),
                match_expressions: None,
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(agents.collect(), vec![agents_port, otlp_port]),
                rule(vec![namespace_peer(&platform.operator_namespace)], vec![own_port]),
            ]),
            egress: None,
        }),
    }
}

fn disruption_budget(settings: &Settings) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(settings),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(selector_labels(settings)), match_expressions: None }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

pub(super) fn metadata(settings: &Settings) -> ObjectMeta {
    ObjectMeta {
        name: Some(names::relay_object(&settings.name)),
        namespace: Some(settings.namespace.clone()),
        labels: Some(labels(settings)),
        ..ObjectMeta::default()
    }
}

pub(super) fn labels(settings: &Settings) -> BTreeMap<String, String> {
    let more = [
        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
        (names::LABEL_COMPONENT, names::RELAY),
        (names::LABEL_PART_OF, names::PART_OF),
    ];
    let more = more.map(|(key, value)| (key.to_owned(), value.to_owned()));
    selector_labels(settings).into_iter().chain(more).collect()
}

/// What finds the relay's pods. A StatefulSet's selector is immutable, so this may never change between versions.
pub(super) fn selector_labels(settings: &Settings) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::LABEL_NAME.to_owned(), names::RELAY_APPLICATION.to_owned()),
        (names::LABEL_INSTANCE.to_owned(), settings.name.clone()),
    ])
}

/// What the API server lets nobody change of a StatefulSet: it is replaced where one differs, and its claims stay.
const IMMUTABLE: [&str; 5] = [
    "/spec/selector",
    "/spec/serviceName",
    "/spec/podManagementPolicy",
    "/spec/volumeClaimTemplates/0/spec/resources",
    "/spec/volumeClaimTemplates/0/spec/storageClassName",
];
