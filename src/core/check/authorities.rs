//! Which certificate authorities a running pod trusts, held against what its ConfigMaps hold now.
//!
//! An init container merges once, when the pod starts: a pod from before the service CA was rotated, or from before the
//! ConfigMap was filled, refuses MLflow's certificate until it is replaced, and its agent says nothing about it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::own_bundle::OwnBundle;
use super::{Fact, Facts, State, bad, good, operator_logs, unknown};
use crate::api::CaBundleStrategy;
use crate::core::ca_bundle::log::{LogContent, NamedCertificates, read};
use crate::core::ca_bundle::{BundledCertificate, OUTPUT, SkipReason, Source, merge, system_roots};
use crate::core::inject::record::Record;
use crate::core::kubectl::Kubectl;
use crate::core::selection::kind::Kind;
use crate::names;

/// Pods of one workload whose logs are read.
const MAX_PODS: usize = 5;
/// Digits of a fingerprint that tell it from others.
const DIGITS: usize = 16;

/// What is known of certificate authorities.
#[derive(Clone, Debug)]
pub struct CaFindings {
    /// The bundles of each workload's pods.
    pub bundles: BTreeMap<String, Vec<Bundle>>,
    /// Those that the owners of workloads make themselves.
    pub own: BTreeMap<String, OwnBundle>,
    /// What the sources hold, by ConfigMap and key; `None` where there is no such key.
    pub sources: BTreeMap<(String, String), Fact<Option<String>>>,
    /// The ConfigMap that the operator merges.
    pub merged: Fact<Option<MergedMap>>,
}

/// The ConfigMap that the operator merges, as it is.
#[derive(Clone, Debug)]
pub struct MergedMap {
    /// Whether the operator made it.
    pub is_ours: bool,
    /// The bundle.
    pub pem: String,
}

/// The bundle of a running pod.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The pod.
    pub pod: String,
    /// Who merged.
    pub strategy: CaBundleStrategy,
    /// ConfigMaps and keys that go into it.
    pub sources: Vec<(String, String)>,
    /// A container that trusts it.
    pub container: String,
    /// When it was merged, or the pod made.
    pub since: Option<Timestamp>,
    /// What the init container said, where there is one.
    pub log: Fact<String>,
}

/// The bundle that we gave a pod, if it runs and has one. `merged` goes into the ConfigMap of the namespace.
pub fn bundle(pod: &Pod, merged: &[(String, String)]) -> Option<Bundle> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
    let record = pod.metadata.annotations.as_ref()?.get(names::ANNOTATION_RECORD)?;
    let ours = Record::parse(record).ok()?.pod;
    let spec = pod.spec.as_ref()?;
    let volume = |name: &str| spec.volumes.iter().flatten().find(|volume| volume.name == name);
    let (strategy, sources) = if ours.init_containers.contains_key(names::MERGE_CA) {
        let init = spec.init_containers.iter().flatten().find(|container| container.name == names::MERGE_CA)?;
        let projected = volume(names::CA_SOURCES_VOLUME)?.projected.as_ref()?;
        let maps = projected.sources.iter().flatten().filter_map(|source| source.config_map.as_ref());
        let keys = maps.flat_map(|map| map.items.iter().flatten().map(|item| (map.name.clone(), item.key.clone())));
        let strategy = match init.command {
            Some(_) => CaBundleStrategy::AgentInitContainer,
            None => CaBundleStrategy::InitContainer,
        };
        (strategy, keys.collect())
    } else if ours.volumes.contains_key(names::CA_VOLUME) {
        volume(names::CA_VOLUME)?.config_map.as_ref()?;
        (CaBundleStrategy::ConfigMap, merged.to_vec())
    } else {
        return None;
    };
    let trusts = |container: &&Container| container.volume_mounts.iter().flatten().any(|m| m.name == names::CA_VOLUME);
    let inits = status.init_container_statuses.iter().flatten().filter(|status| status.name == names::MERGE_CA);
    let ended = inits.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()).next();
    Some(Bundle {
        pod: pod.metadata.name.clone()?,
        strategy,
        sources,
        container: spec.containers.iter().find(trusts)?.name.clone(),
        since: ended.or(pod.metadata.creation_timestamp.as_ref()).map(|time| time.0),
        log: Fact::Known(String::new()),
    })
}

/// Of a workload's pods those to look at: the oldest, since what one lacks came after it.
pub fn oldest(mut bundles: Vec<Bundle>) -> Vec<Bundle> {
    bundles.sort_by(|a, b| (a.since, &a.pod).cmp(&(b.since, &b.pod)));
    bundles.truncate(MAX_PODS);
    bundles
}

/// Whether the running pods of a workload trust what they should; `None` where it is no concern of ours.
pub(super) fn assess(kind: Kind, workload: &str, facts: &Facts, now: Timestamp) -> Option<(State, String)> {
    let CaFindings { bundles, own, .. } = &facts.authorities;
    let Some(bundles) = bundles.get(workload) else {
        return own.get(workload).map(|own| own.assess(&facts.namespace));
    };
    let found: Vec<_> = bundles.iter().map(|bundle| look(bundle, kind, workload, facts, now)).collect();
    let worst = [State::Bad, State::Unknown].into_iter().find_map(|state| found.iter().find(|(is, _)| *is == state));
    Some(worst.or(found.first())?.clone())
}

fn look(bundle: &Bundle, kind: Kind, workload: &str, facts: &Facts, now: Timestamp) -> (State, String) {
    let Bundle { pod, strategy, sources, .. } = bundle;
    let namespace = &facts.namespace;
    let mut unread = None;
    // What the operator's init container carries itself it does not name.
    let mut texts = vec![if *strategy == CaBundleStrategy::InitContainer { system_roots() } else { String::new() }];
    for source in sources {
        texts.push(match facts.authorities.sources.get(source) {
            Some(Fact::Known(Some(text))) => text.clone(),
            Some(Fact::Known(None)) | None => String::new(),
            Some(Fact::Unknown(why)) => {
                unread = Some((&source.0, why));
                String::new()
            }
        });
    }
    let all: Vec<_> = texts.iter().map(|text| Source { name: "", bytes: text.as_bytes() }).collect();
    let merged = merge(&all, now);
    if merged.skipped.iter().any(|skipped| matches!(skipped.why, SkipReason::TooMuch { .. })) {
        return unknown(format!(
            "its ConfigMaps hold more than a bundle takes, so what is left out cannot be told; see what is there: {}",
            cat(bundle, namespace)
        ));
    }
    let wanted: Vec<_> = merged.certificates.iter().filter(|certificate| certificate.source > 0).collect();
    let read_trust = match read_trust(bundle, facts, now) {
        Ok(read_trust) => read_trust,
        Err((State::Unknown, _)) if wanted.is_empty() && unread.is_none() => NamedCertificates::default(),
        Err(answer) => return answer,
    };
    let missing: Vec<_> = wanted.iter().copied().filter(|certificate| !read_trust.has(certificate)).collect();
    if let Some(first) = missing.first() {
        if !read_trust.is_whole() {
            return without_log(bundle, namespace);
        }
        let (map, key) = sources.get(first.source - 1).cloned().unwrap_or_default();
        let more = match missing.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        let what = format!("{} of ConfigMap {map}/{key}{more}", describe(first));
        return bad(missing_certificates(bundle, kind, workload, &what, facts));
    }
    if let Some((map, why)) = unread {
        return unknown(format!(
            "ConfigMap {map} cannot be read ({why}); see whether you may: {}",
            may_read(map, namespace)
        ));
    }
    let has = match strategy {
        CaBundleStrategy::ConfigMap => format!("ConfigMap {}", names::CA_CONFIG_MAP),
        CaBundleStrategy::InitContainer | CaBundleStrategy::AgentInitContainer => pod.clone(),
    };
    good(match wanted.len() {
        0 => "its ConfigMaps hold no certificate beyond the public ones".to_owned(),
        all => format!("{has} has every certificate that its ConfigMaps hold now ({all})"),
    })
}

/// What a pod trusts beyond the public authorities, or why that cannot be told.
fn read_trust(bundle: &Bundle, facts: &Facts, now: Timestamp) -> Result<NamedCertificates, (State, String)> {
    let Bundle { pod, strategy, log, .. } = bundle;
    let namespace = &facts.namespace;
    if *strategy == CaBundleStrategy::ConfigMap {
        return match &facts.authorities.merged {
            Fact::Known(found) => {
                let pem = found.as_ref().map(|found| found.pem.as_bytes()).unwrap_or_default();
                Ok(merge(&[Source { name: names::CA_CONFIG_MAP, bytes: pem }], now).certificates.into_iter().collect())
            }
            Fact::Unknown(why) => Err(unknown(format!(
                "ConfigMap {} cannot be read ({why}); see whether you may: {}",
                names::CA_CONFIG_MAP,
                may_read(names::CA_CONFIG_MAP, namespace)
            ))),
        };
    }
    match log {
        Fact::Unknown(why) => Err(unknown(format!(
            "the log of init container {} of {pod} cannot be read ({why}); that takes get on pods/log: {}",
            names::MERGE_CA,
            Kubectl::new("auth can-i get pods --subresource=log").namespace(namespace)
        ))),
        Fact::Known(log) => match read(log) {
            LogContent::Holds(named) => Ok(named),
            LogContent::NotWritten => Err(bad(format!(
                "{pod} could not write its bundle, so its agent reaches no server over TLS; see why: {}",
                Kubectl::new("logs").namespace(namespace).arg(pod).arg("-c").arg(names::MERGE_CA)
            ))),
            LogContent::Nothing => Err(without_log(bundle, namespace)),
        },
    }
}

fn without_log(bundle: &Bundle, namespace: &str) -> (State, String) {
    unknown(format!(
        "the log of init container {} of {} does not tell (it is cut, or an older operator's); see what is there: {}",
        names::MERGE_CA,
        bundle.pod,
        cat(bundle, namespace)
    ))
}

/// What is missing, and how it comes to the pod. A pod that runs never gets it from an init container.
fn missing_certificates(bundle: &Bundle, kind: Kind, workload: &str, what: &str, facts: &Facts) -> String {
    let Bundle { pod, strategy, .. } = bundle;
    let namespace = &facts.namespace;
    if *strategy == CaBundleStrategy::ConfigMap {
        return match &facts.authorities.merged {
            Fact::Known(Some(MergedMap { is_ours: false, .. })) => format!(
                "ConfigMap {}, which its pods mount, is not the operator's and lacks {what}; delete it, and the operator makes its \
                 own: {}",
                names::CA_CONFIG_MAP,
                Kubectl::new("delete configmap").namespace(namespace).arg(names::CA_CONFIG_MAP)
            ),
            _ => format!(
                "ConfigMap {}, which its pods mount, lacks {what}; the operator adds it within a minute, or says why not: {}",
                names::CA_CONFIG_MAP,
                operator_logs(facts)
            ),
        };
    }
    let unreadable = match strategy {
        CaBundleStrategy::AgentInitContainer => " (if the next one lacks it too, the agent's shell cannot read it)",
        CaBundleStrategy::InitContainer | CaBundleStrategy::ConfigMap => "",
    };
    let on_it = |what: &str| Kubectl::new(what).namespace(namespace).arg(workload);
    let remedy = match kind {
        Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => {
            format!("replace its pods: {}", on_it("rollout restart"))
        }
        Kind::CronJob => format!("its next run has it; wait for that: {}", on_it("get").arg("--watch")),
        Kind::Job | Kind::Pod => format!("create it again: {}", on_it("get").yaml()),
    };
    format!("{pod} started without {what}{unreadable}; {remedy}")
}

fn describe(certificate: &BundledCertificate) -> String {
    let short: String = certificate.fingerprint.chars().take(DIGITS).collect();
    match certificate.subject.as_str() {
        "" => format!("certificate sha256 {short}"),
        subject => format!("{subject} (sha256 {short})"),
    }
}

fn may_read(map: &str, namespace: &str) -> Kubectl {
    Kubectl::new("auth can-i get").arg(&format!("configmaps/{map}")).namespace(namespace)
}

fn cat(bundle: &Bundle, namespace: &str) -> Kubectl {
    let Bundle { pod, container, .. } = bundle;
    Kubectl::new("exec").namespace(namespace).arg(pod).arg("-c").arg(container).args(["--", "cat", OUTPUT])
}

#[cfg(test)]
pub(super) mod tests;
