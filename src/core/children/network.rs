//! The server's Service and NetworkPolicy.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Owners};
use super::{metadata, of_tracing, selector_labels};
use crate::core::settings::{Platform, Settings, StandaloneSettings};
use crate::names;

/// Name of the server's port.
pub const PORT_NAME: &str = "http";

/// The Service.
pub fn service(settings: &Settings, standalone: &StandaloneSettings) -> Service {
    Service {
        metadata: metadata(settings),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector_labels(settings)),
            ports: Some(vec![ServicePort {
                name: Some(PORT_NAME.to_owned()),
                // Part of the list's merge key: left out, an apply of another port adds it to the list.
                protocol: Some("TCP".to_owned()),
                port: i32::from(standalone.port),
                target_port: Some(IntOrString::String(PORT_NAME.to_owned())),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        status: None,
    }
}

/// The NetworkPolicy, deleted where none is wanted: this namespace (the agents), the operator's (it looks for traces) and the
/// user's peers. The kubelet's probes need no rule.
pub fn network_policy(
    settings: &Settings,
    standalone: &StandaloneSettings,
    platform: &Platform,
    owners: &Owners,
) -> Child {
    let Some(from) = &standalone.network_policy else {
        return Child::unwanted::<NetworkPolicy>(&settings.namespace, &settings.object_name(), of_tracing(settings));
    };
    let selector = |labels| LabelSelector { match_labels: Some(labels), match_expressions: None };
    let mut peers = vec![
        NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..Default::default() },
        namespace_peer(&platform.operator_namespace),
    ];
    peers.extend(from.iter().cloned().map(without_empty_lists));
    let policy = NetworkPolicy {
        metadata: metadata(settings),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(selector_labels(settings))),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(peers),
                ports: Some(vec![NetworkPolicyPort {
                    protocol: Some("TCP".to_owned()),
                    // The number: not every network plugin knows the names of ports.
                    port: Some(IntOrString::Int(i32::from(standalone.port))),
                    end_port: None,
                }]),
            }]),
            egress: None,
        }),
    };
    Child::new(policy, owners, of_tracing(settings))
}

/// Every pod of a namespace.
pub(super) fn namespace_peer(namespace: &str) -> NetworkPolicyPeer {
    let labels = BTreeMap::from([(names::LABEL_NAMESPACE_NAME.to_owned(), namespace.to_owned())]);
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    NetworkPolicyPeer { namespace_selector: Some(selector), ..Default::default() }
}

/// Empty lists and maps that a user wrote, left out: the API server drops them, and each apply would count as a change.
/// An empty selector stays: it selects everything.
pub(super) fn without_empty_lists(mut peer: NetworkPolicyPeer) -> NetworkPolicyPeer {
    for selector in [&mut peer.pod_selector, &mut peer.namespace_selector].into_iter().flatten() {
        selector.match_labels.take_if(|labels| labels.is_empty());
        selector.match_expressions.take_if(|expressions| expressions.is_empty());
    }
    if let Some(block) = &mut peer.ip_block {
        block.except.take_if(|except| except.is_empty());
    }
    peer
}
