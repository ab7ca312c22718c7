//! What only the leader knows: how the AgentTracings are, as of their last pass.
//!
//! A replica that does not lead says nothing of it, not even zero: whoever adds up the replicas would count twice, and what
//! is left of an earlier leadership would stand there for ever.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::api::{ConditionType, WorkloadState};

/// Most AgentTracings whose last trace is told: the one metric that names objects.
pub(super) const MAX_NAMED: usize = 200;

/// Every AgentTracing that a leader has passed over.
#[derive(Debug, Default)]
pub(super) struct TracingCollector(Mutex<Option<BTreeMap<Name, Seen>>>);

/// Namespace and name.
type Name = (String, String);

#[derive(Debug, Default)]
struct Seen {
    conditions: Vec<(ConditionType, &'static str)>,
    states: BTreeMap<WorkloadState, usize>,
    last_trace: Option<i64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConditionLabels {
    condition: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

impl TracingCollector {
    /// A new leader knows nothing yet, and who leads no longer knows nothing any more.
    pub fn leads(&self, leads: bool) {
        *self.locked() = leads.then(BTreeMap::new);
    }

    pub fn observe(
        &self,
        name: Name,
        conditions: &[Condition],
        states: BTreeMap<WorkloadState, usize>,
        last_trace: Option<i64>,
    ) {
        let known = |condition: &Condition| {
            let of = ConditionType::ALL.into_iter().find(|kind| kind.as_str() == condition.type_)?;
            let status = STATUSES.into_iter().find(|status| *status == condition.status)?;
            Some((of, status))
        };
        let conditions = conditions.iter().filter_map(known).collect();
        if let Some(all) = &mut *self.locked() {
            all.insert(name, Seen { conditions, states, last_trace });
        }
    }

    pub fn gone(&self, name: &Name) {
        if let Some(all) = &mut *self.locked() {
            all.remove(name);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Option<BTreeMap<Name, Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for TracingCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let all = self.locked();
        let Some(all) = &*all else { return Ok(()) };

        let mut gauges = encoder.encode_descriptor(
            "agenttracings",
            "AgentTracings by condition and its status",
            None,
            MetricType::Gauge,
        )?;
        for condition in ConditionType::ALL {
            for status in STATUSES {
                let of = all.values().filter(|seen| seen.conditions.contains(&(condition, status))).count();
                let labels = ConditionLabels { condition: condition.as_str(), status };
                ConstGauge::new(of as i64).encode(gauges.encode_family(&labels)?)?;
            }
        }

        let mut gauges = encoder.encode_descriptor(
            "workloads",
            "Workloads by the state that status shows",
            None,
            MetricType::Gauge,
        )?;
        for state in WorkloadState::ALL {
            let of: usize = all.values().filter_map(|seen| seen.states.get(&state)).sum();
            ConstGauge::new(of as i64).encode(gauges.encode_family(&StateLabels { state: state.as_str() })?)?;
        }

        let last = all.iter().filter_map(|(name, seen)| Some((name, seen.last_trace?)));
        let omitted = last.clone().count().saturating_sub(MAX_NAMED);
        let omitted = ConstGauge::new(omitted as i64);
        let gauge = encoder.encode_descriptor(
            "last_trace_omitted",
            "AgentTracings whose last trace is not told, since only the first 200 by namespace and name are",
            None,
            MetricType::Gauge,
        )?;
        omitted.encode(gauge)?;
        let mut gauges = encoder.encode_descriptor(
            "last_trace_timestamp",
            "When the newest trace of an AgentTracing's workloads began, in Unix time",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for ((namespace, name), at) in last.take(MAX_NAMED) {
            // Plain `namespace` would become the operator's own wherever Prometheus writes where a target is.
            let labels = [("tracing_namespace", namespace.as_str()), ("tracing", name.as_str())];
            ConstGauge::new(at).encode(gauges.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
