//! What `check` looks at of wired workloads: their pods, and which certificate authorities these trust.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams};
use serde_json::Value;

use super::{api_error, fact};
use crate::api::{AgentTracing, CaBundleStrategy, WorkloadState};
use crate::core::check::authorities::{Bundle, CaFindings, MergedMap, bundle, oldest};
use crate::core::check::own_bundle::own_bundle;
use crate::core::check::token::tokenless;
use crate::core::check::{Fact, PodFacts};
use crate::core::selection::kind::Kind;
use crate::core::settings;
use crate::core::wiring::parts::ca_sources;
use crate::names;

/// Most pods of one workload.
const MAX_PODS: u32 = 500;
/// Most of a log: several times what `merge-ca` says.
const MAX_LOG_BYTES: i64 = 1 << 20;

/// The pods of those workloads of which status says that they are wired, or of one of them.
pub(super) async fn look(
    client: &Client,
    namespace: &str,
    tracings: &[AgentTracing],
    only: Option<&str>,
) -> (Fact<BTreeMap<String, PodFacts>>, CaFindings) {
    let rows = tracings.iter().filter_map(|tracing| tracing.status.as_ref()).flat_map(|status| &status.workloads);
    let choices: Vec<_> = tracings.iter().filter_map(|tracing| settings::read(tracing).0.ca).collect();
    let shared = ca_sources(choices.iter());
    let mut counted = Fact::Known(BTreeMap::new());
    let (mut bundles, mut own) = (BTreeMap::new(), BTreeMap::new());
    for row in rows.filter(|row| row.state == WorkloadState::Injected) {
        let name = format!("{}/{}", row.kind.to_ascii_lowercase(), row.name);
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
        let Some(kind) = kind.filter(|_| only.is_none_or(|only| only == name)) else { continue };
        match pods_of(client, namespace, kind, &row.name).await {
            Ok((all, current)) => {
                if let (true, Fact::Known(counted)) = (kind.rolls(), &mut counted) {
                    let named = |pod: &Pod| Some((pod.metadata.name.clone()?, tokenless(pod)?));
                    let tokenless = current.iter().find_map(named);
                    counted.insert(name.clone(), PodFacts { running: all, current: current.len(), tokenless });
                }
                let found = oldest(current.iter().filter_map(|pod| bundle(pod, &shared)).collect());
                if let Some(found) = current.iter().find_map(own_bundle) {
                    own.insert(name, found);
                } else if !found.is_empty() {
                    bundles.insert(name, found);
                }
            }
            Err(error) => counted = Fact::Unknown(api_error(&error)),
        }
    }
    for bundle in bundles.values_mut().flatten().filter(|bundle| bundle.strategy != CaBundleStrategy::ConfigMap) {
        bundle.log = log_of_merge_ca(client, namespace, &bundle.pod).await;
    }
    for own in own.values_mut() {
        own.log = log_of_merge_ca(client, namespace, &own.pod).await;
    }
    let authorities = CaFindings { own, ..authorities(client, namespace, bundles).await };
    (counted, authorities)
}

async fn log_of_merge_ca(client: &Client, namespace: &str, pod: &str) -> Fact<String> {
    let container = Some(names::MERGE_CA.to_owned());
    let asked = LogParams { container, limit_bytes: Some(MAX_LOG_BYTES), ..LogParams::default() };
    fact(Api::<Pod>::namespaced(client.clone(), namespace).logs(pod, &asked).await, |log| log)
}

async fn authorities(client: &Client, namespace: &str, bundles: BTreeMap<String, Vec<Bundle>>) -> CaFindings {
    let wanted: BTreeSet<_> = bundles.values().flatten().flat_map(|bundle| bundle.sources.iter().cloned()).collect();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let mut read: BTreeMap<String, Fact<Option<ConfigMap>>> = BTreeMap::new();
    for name in wanted.iter().map(|(name, _)| name.as_str()).chain([names::CA_CONFIG_MAP]) {
        if !bundles.is_empty() && !read.contains_key(name) {
            read.insert(name.to_owned(), fact(maps.get_opt(name).await, |map| map));
        }
    }
    let of = |name: &str| read.get(name).cloned().unwrap_or(Fact::Known(None));
    let value = |(name, key): &(String, String)| match of(name) {
        Fact::Known(map) => Fact::Known(map.and_then(|map| map.data?.remove(key))),
        Fact::Unknown(why) => Fact::Unknown(why),
    };
    let merged = match of(names::CA_CONFIG_MAP) {
        Fact::Known(map) => Fact::Known(map.map(|map| MergedMap {
            is_ours:
                map.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_MANAGED_BY)).map(String::as_str)
                    == Some(names::MANAGED_BY),
            pem: map.data.and_then(|mut data| data.remove(names::CA_FILE)).unwrap_or_default(),
        })),
        Fact::Unknown(why) => Fact::Unknown(why),
    };
    let sources = wanted.iter().map(|source| (source.clone(), value(source))).collect();
    CaFindings { bundles, own: BTreeMap::new(), sources, merged }
}

/// How many pods a workload has, and those of them that carry its template's record.
async fn pods_of(client: &Client, namespace: &str, kind: Kind, name: &str) -> Result<(usize, Vec<Pod>), kube::Error> {
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(kind.group(), kind.version(), kind.as_str()),
        kind.plural(),
    );
    let object = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource).get(name).await?;
    let Some(selector) = selector(kind, &object.data) else { return Ok((0, Vec::new())) };
    let template = kind.template().iter().try_fold(&object.data, |inner, field| inner.get(*field));
    let record = template.and_then(|template| template.pointer("/metadata/annotations")?.get(names::ANNOTATION_RECORD));
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut pods = pods.list(&ListParams::default().labels(&selector).limit(MAX_PODS)).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    let all = pods.len();
    pods.retain(|pod| {
        let carried = pod.metadata.annotations.as_ref().and_then(|all| all.get(names::ANNOTATION_RECORD));
        carried.map(String::as_str) == record.and_then(Value::as_str)
    });
    Ok((all, pods))
}

/// The labels of a workload's pods; a CronJob has those of its Jobs that are at work.
fn selector(kind: Kind, object: &Value) -> Option<String> {
    if kind == Kind::CronJob {
        let active = object.pointer("/status/active").and_then(Value::as_array)?;
        let jobs: Vec<_> = active.iter().filter_map(|job| job.get("name")?.as_str()).collect();
        return (!jobs.is_empty()).then(|| format!("{} in ({})", names::LABEL_JOB_NAME, jobs.join(",")));
    }
    let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object).into_iter().flatten();
    let labels: Vec<_> = labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    Some(labels.join(","))
}
