use std::sync::LazyLock;

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::api::{CaBundleScope, ConfigMapKey, ContainerNames};
use crate::core::ca_bundle::log;
use crate::core::check::tests::{facts, now};
use crate::core::inject::inject;
use crate::core::inject::view::Workload;
use crate::core::settings::Platform;
use crate::core::settings::policy::CaChoice;
use crate::core::wiring::parts::AUTHORITIES;
use crate::core::wiring::parts::authorities::part;
use crate::core::wiring::{Entry, Group, TRACKING_URI, Wiring};

const TELLER: &str = "deployment/teller";
const SERVICE: (&str, &str) = ("openshift-service-ca.crt", "service-ca.crt");
const CORPORATE: (&str, &str) = ("corporate-cas", "ca.crt");

/// The bundle holds what the sources do.
pub fn sound() -> CaFindings {
    with(CaBundleStrategy::InitContainer, log_of(&[&BEFORE]), &[&BEFORE])
}

/// The service's authority was rotated since the pod started.
pub fn missing_certificates() -> CaFindings {
    with(CaBundleStrategy::InitContainer, log_of(&[&BEFORE]), &[&BEFORE, &AFTER])
}

static BEFORE: LazyLock<String> = LazyLock::new(|| certificate("signer@1", 2099));
static AFTER: LazyLock<String> = LazyLock::new(|| certificate("signer@2", 2099));
static EXPIRED: LazyLock<String> = LazyLock::new(|| certificate("signer@0", 2020));

fn certificate(name: &str, until: i32) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = date_time_ymd(until, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

fn bundled(pem: &str) -> Vec<BundledCertificate> {
    merge(&[Source { name: "a", bytes: pem.as_bytes() }], now()).certificates
}

/// What the operator's init container says that merged these.
fn log_of(pems: &[&str]) -> Fact<String> {
    let all = bundled(&pems.concat());
    Fact::Known(log::lines(all.iter()).iter().map(|line| format!("merge-ca: {line}\n")).collect())
}

fn with(strategy: CaBundleStrategy, log: Fact<String>, service: &[&str]) -> CaFindings {
    let source = |(name, key): (&str, &str)| (name.to_owned(), key.to_owned());
    let bundle = Bundle {
        pod: "teller-0".into(),
        strategy,
        sources: vec![source(SERVICE), source(CORPORATE)],
        container: "agent".into(),
        since: None,
        log,
    };
    CaFindings {
        bundles: BTreeMap::from([(TELLER.to_owned(), vec![bundle])]),
        own: BTreeMap::new(),
        sources: BTreeMap::from([
            (source(SERVICE), Fact::Known(Some(service.concat()))),
            (source(CORPORATE), Fact::Known(None)),
        ]),
        merged: Fact::Known(None),
    }
}

fn mounted(pem: &str, is_ours: bool, service: &[&str]) -> CaFindings {
    let merged = Fact::Known(Some(MergedMap { is_ours, pem: pem.to_owned() }));
    CaFindings { merged, ..with(CaBundleStrategy::ConfigMap, Fact::Known(String::new()), service) }
}

fn assessment(authorities: CaFindings) -> (State, String) {
    judged_as(Kind::Deployment, authorities)
}

fn judged_as(kind: Kind, authorities: CaFindings) -> (State, String) {
    assess(kind, TELLER, &Facts { authorities, ..facts() }, now()).unwrap()
}

#[track_caller]
fn assert_says((state, said): (State, String), expected: State, parts: &[&str]) {
    assert_eq!(state, expected, "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part}: {said}");
    }
}

#[test]
fn a_bundle_with_all_that_its_sources_hold_is_good() {
    assert_says(assessment(sound()), State::Good, &["teller-0 has every certificate that its ConfigMaps hold now (1)"]);
    let none = with(CaBundleStrategy::InitContainer, log_of(&[]), &[]);
    assert_says(assessment(none), State::Good, &["no certificate beyond the public ones"]);
    let removed = with(CaBundleStrategy::InitContainer, log_of(&[&BEFORE, &AFTER]), &[&AFTER]);
    assert_says(assessment(removed), State::Good, &[]);
}

#[test]
fn one_that_came_after_the_pod_is_named_with_its_config_map_and_what_to_type() {
    let fingerprint = &bundled(&AFTER)[0].fingerprint[..16];
    let (state, said) = assessment(missing_certificates());
    assert_eq!(state, State::Bad);
    assert_eq!(
        said,
        format!(
            "teller-0 started without signer@2 (sha256 {fingerprint}) of ConfigMap openshift-service-ca.crt/service-ca.crt; \
             replace its pods: kubectl rollout restart -n bank-agents deployment/teller"
        )
    );
    let several = with(CaBundleStrategy::InitContainer, log_of(&[]), &[&BEFORE, &AFTER]);
    assert_says(assessment(several), State::Bad, &["signer@1", "and 1 more;"]);
}

#[test]
fn what_no_merge_would_keep_is_not_missing() {
    let broken = BEFORE.replace("-----END", "");
    let odd = with(CaBundleStrategy::InitContainer, log_of(&[&BEFORE]), &[&BEFORE, &EXPIRED, &broken, "none"]);
    assert_says(assessment(odd), State::Good, &[]);
    let public = with(CaBundleStrategy::InitContainer, log_of(&[&BEFORE]), &[&BEFORE, &system_roots()]);
    assert_says(assessment(public), State::Good, &[]);
}

#[test]
fn a_kind_that_does_not_roll_gets_it_with_its_next_pod() {
    assert_says(judged_as(Kind::CronJob, missing_certificates()), State::Bad, &["its next run has it"]);
    assert_says(
        judged_as(Kind::Job, missing_certificates()),
        State::Bad,
        &["create it again: kubectl get -n bank-agents"],
    );
}

#[test]
fn of_several_pods_the_worst_is_told() {
    let mut authorities = sound();
    let mut older = missing_certificates().bundles[TELLER][0].clone();
    (older.pod, older.log) = ("teller-1".into(), log_of(&[]));
    authorities.bundles.get_mut(TELLER).unwrap().push(older);
    assert_says(assessment(authorities), State::Bad, &["teller-1 started without signer@1"]);
}

#[test]
fn a_bundle_that_was_not_written_is_bad_whatever_the_sources_hold() {
    let failed = Fact::Known("merge-ca: failed to write /x: no space; agents find no new bundle there\n".to_owned());
    let broken = with(CaBundleStrategy::InitContainer, failed, &[]);
    assert_says(assessment(broken), State::Bad, &["kubectl logs -n bank-agents teller-0 -c merge-ca"]);
}

#[test]
fn what_cannot_be_told_is_not_called_missing() {
    let look = "kubectl exec -n bank-agents teller-0 -c agent -- cat /tmp/ca-bundle/combined-ca.crt";
    for strategy in [CaBundleStrategy::InitContainer, CaBundleStrategy::AgentInitContainer] {
        let older = "merge-ca: wrote /tmp/ca-bundle/combined-ca.crt: certificates: 142 (142 of system roots)\n";
        let older = with(strategy, Fact::Known(older.to_owned()), &[&BEFORE]);
        assert_says(assessment(older), State::Unknown, &["an older operator's", look]);
        let cut = with(strategy, Fact::Known("merge-ca: named 0 of 501 certificates\n".to_owned()), &[&BEFORE]);
        assert_says(assessment(cut), State::Unknown, &[look]);
        let forbidden = with(strategy, Fact::Unknown("you may not".into()), &[&BEFORE]);
        let command = "get on pods/log: kubectl auth can-i get pods --subresource=log -n bank-agents";
        assert_says(assessment(forbidden), State::Unknown, &["you may not", command]);
        let needless = with(strategy, Fact::Unknown("you may not".into()), &[]);
        assert_says(assessment(needless), State::Good, &[]);
    }
    let mut closed = sound();
    *closed.sources.values_mut().next().unwrap() = Fact::Unknown("you may not".into());
    let command = "kubectl auth can-i get configmaps/corporate-cas -n bank-agents";
    assert_says(assessment(closed), State::Unknown, &["you may not", command]);
    let many = (0..11_000).map(|_| "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n").collect::<String>();
    let more = with(CaBundleStrategy::InitContainer, log_of(&[]), &[&many, &AFTER]);
    assert_says(assessment(more), State::Unknown, &["more than a bundle takes", look]);
}

#[test]
fn the_agents_shell_tells_by_how_certificates_end() {
    let ending = |pem: &str| {
        let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        format!("merge-ca: holds ending {}\nmerge-ca: named 1 of 1 certificates\n", lines[lines.len() - 2..].concat())
    };
    let log = || Fact::Known(ending(&BEFORE));
    assert_says(assessment(with(CaBundleStrategy::AgentInitContainer, log(), &[&BEFORE])), State::Good, &[]);
    let missing_certificates = with(CaBundleStrategy::AgentInitContainer, log(), &[&BEFORE, &AFTER]);
    assert_says(
        assessment(missing_certificates),
        State::Bad,
        &["signer@2", "the agent's shell cannot read it", "rollout restart"],
    );
    // It carries no public authorities that are known here.
    let root = certificates(&system_roots())[0].clone();
    let public = with(CaBundleStrategy::AgentInitContainer, log(), &[&BEFORE, &root]);
    assert_says(assessment(public), State::Bad, &["started without"]);
}

fn certificates(pem: &str) -> Vec<String> {
    pem.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect()
}

#[test]
fn a_mounted_config_map_is_held_against_its_sources_itself() {
    let roots = system_roots();
    assert_says(
        assessment(mounted(&format!("{roots}{}", *BEFORE), true, &[&BEFORE])),
        State::Good,
        &["ConfigMap agenttracing-ca has every"],
    );
    let late = mounted(&BEFORE, true, &[&BEFORE, &AFTER]);
    let parts = ["agenttracing-ca, which its pods mount, lacks signer@2", "kubectl logs -n agent-tracing-system"];
    assert_says(assessment(late), State::Bad, &parts);
    let foreign = mounted(&BEFORE, false, &[&AFTER]);
    assert_says(assessment(foreign), State::Bad, &["kubectl delete configmap -n bank-agents agenttracing-ca"]);
    let absent = CaFindings { merged: Fact::Known(None), ..mounted("", true, &[&AFTER]) };
    assert_says(assessment(absent), State::Bad, &["signer@2"]);
    let closed = CaFindings { merged: Fact::Unknown("you may not".into()), ..mounted("", true, &[&AFTER]) };
    assert_says(assessment(closed), State::Unknown, &["kubectl auth can-i get configmaps/agenttracing-ca"]);
}

/// A pod as the API server shows it, of a workload that was wired in this way.
fn pod(strategy: &str, phase: &str) -> Pod {
    let choice = CaBundleStrategy::deserialize(&json!(strategy)).unwrap();
    let mut object = json!({
        "metadata": {"name": "teller-0", "creationTimestamp": "2026-11-21T10:00:00Z"},
        "spec": {"containers": [{"name": "side", "image": "i"}, {"name": "agent", "image": "i"}]},
    });
    let entry = |name: &str| Entry { name: name.into(), value: "x".into(), group: Group::Part(&AUTHORITIES), why: "" };
    let wiring = Wiring {
        tracing: "tracing".into(),
        experiment: "teller".into(),
        env: [TRACKING_URI, "REQUESTS_CA_BUNDLE"].map(entry).to_vec(),
        token: None,
        renews: false,
        parts: vec![part(&CaChoice {
            scope: CaBundleScope::All,
            strategy: choice,
            config_maps: vec![ConfigMapKey { name: CORPORATE.0.into(), key: CORPORATE.1.into() }],
        })],
    };
    let names = ContainerNames { include: vec!["agent".into()], exclude: Vec::new() };
    let text = object.to_string();
    let workload = Workload::parse(Kind::Pod, &text).unwrap();
    let patch = inject(&workload, &wiring, &names, &Platform::default()).unwrap().patch;
    json_patch::patch(&mut object, &patch).unwrap();
    let state = json!({"terminated": {"exitCode": 0, "finishedAt": "2026-11-21T11:00:00Z"}});
    let init =
        json!({"name": "merge-ca", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state});
    object["status"] = json!({"phase": phase, "initContainerStatuses": [init]});
    serde_json::from_value::<Pod>(object).unwrap()
}

#[test]
fn a_pod_says_itself_who_merged_what() {
    let merged = [("all".to_owned(), "of them".to_owned())];
    let both = [SERVICE, CORPORATE].map(|(name, key)| (name.to_owned(), key.to_owned()));
    for (strategy, expected) in [
        ("InitContainer", CaBundleStrategy::InitContainer),
        ("AgentInitContainer", CaBundleStrategy::AgentInitContainer),
    ] {
        let found = bundle(&pod(strategy, "Running"), &merged).unwrap();
        assert_eq!((found.strategy, found.container.as_str()), (expected, "agent"));
        assert!(both.iter().all(|source| found.sources.contains(source)), "{:?}", found.sources);
        assert_eq!(found.since, Some("2026-11-21T11:00:00Z".parse().unwrap()), "when it merged last");
        assert!(bundle(&pod(strategy, "Pending"), &merged).is_none());
    }
    let found = bundle(&pod("ConfigMap", "Running"), &merged).unwrap();
    assert_eq!((found.strategy, found.sources), (CaBundleStrategy::ConfigMap, merged.to_vec()));
    let mut foreign = pod("InitContainer", "Running");
    foreign.metadata.annotations = None;
    assert!(bundle(&foreign, &merged).is_none(), "a merge-ca of the user's own");
}

#[test]
fn the_oldest_pods_are_looked_at() {
    let at = |hour: i64| {
        let since = Some(now() - jiff::SignedDuration::from_hours(hour));
        Bundle { since, pod: format!("teller-{hour}"), ..sound().bundles[TELLER][0].clone() }
    };
    let pods: Vec<_> = oldest((1..=9).map(at).collect()).into_iter().map(|bundle| bundle.pod).collect();
    assert_eq!(pods, ["teller-9", "teller-8", "teller-7", "teller-6", "teller-5"]);
}
