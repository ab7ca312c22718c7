//! Where the operator connects to, recorded by the kernel in the network namespaces of its pods.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

use crate::operator;

/// What the pods that run at its beginning connect to from then on.
pub struct Egress {
    /// One process of each pod.
    pods: Vec<u32>,
}

/// The first packet of each TCP connection, and every datagram.
const RULES: &str = "
table inet agent-tracing-egress {
    set ipv4 { typeof ip daddr . meta l4proto . th dport; flags dynamic; size 4096; }
    set ipv6 { typeof ip6 daddr . meta l4proto . th dport; flags dynamic; size 4096; }
    chain out {
        type filter hook output priority 0; policy accept;
        meta l4proto tcp tcp flags & (syn | ack) != syn accept
        meta l4proto { tcp, udp } meta nfproto ipv4 add @ipv4 { ip daddr . meta l4proto . th dport }
        meta l4proto { tcp, udp } meta nfproto ipv6 add @ipv6 { ip6 daddr . meta l4proto . th dport }
    }
}";

impl Egress {
    pub fn record() -> Self {
        let pods: Vec<u32> =
            operator::pods().iter().flat_map(|pod| operator::processes(pod).into_iter().take(1)).collect();
        assert_eq!(pods.len(), 2, "both replicas are recorded");
        for pod in &pods {
            let recording = nft(*pod, &[RULES]);
            assert!(recording.status.success(), "{recording:?}");
        }
        Self { pods }
    }

    /// Every destination so far, as `10.96.0.1 tcp 443`.
    pub fn destinations(&self) -> BTreeSet<String> {
        let sets = self.pods.iter().flat_map(|pod| ["ipv4", "ipv6"].map(|set| (*pod, set)));
        sets.flat_map(|(pod, set)| {
            let listed = nft(pod, &["-j", "list", "set", "inet", "agent-tracing-egress", set]);
            assert!(listed.status.success(), "the pods are those of the beginning: {listed:?}");
            let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
            let elements = listed["nftables"][1]["set"]["elem"].as_array().cloned().unwrap_or_default();
            elements.iter().map(destination).collect::<Vec<_>>()
        })
        .collect()
    }
}

fn destination(element: &Value) -> String {
    let element = element.pointer("/elem/val").unwrap_or(element);
    let parts = element["concat"].as_array().unwrap_or_else(|| panic!("no address, protocol and port: {element}"));
    parts.iter().map(|part| part.as_str().map_or(part.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
}

/// Runs nft in the network namespace of a process.
fn nft(process: u32, args: &[&str]) -> Output {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{process}/ns/net")).arg("nft").args(args);
    command.output().unwrap()
}
