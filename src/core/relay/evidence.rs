//! What the relay knows about traces, for the operator to read: `GET /evidence`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// All that is known since the relay's volume is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// By workload, as `deployment/teller`.
    pub workloads: BTreeMap<String, WorkloadEvidence>,
    /// What holds up everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldEvidence>,
    /// The spool.
    pub spool: SpoolEvidence,
}

impl Evidence {
    /// With that of another replica of the same relay: each knows of what it took itself.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        let Self { workloads, held, spool } = other;
        for (sender, evidence) in workloads {
            let known = self.workloads.entry(sender).or_default();
            *known = std::mem::take(known).with(evidence);
        }
        self.held = match (self.held, held) {
            (Some(one), Some(other)) => Some(if other.since < one.since { other } else { one }),
            (one, other) => one.or(other),
        };
        // A replica whose spool is full refuses what comes to it, however empty those of the others are.
        if spool.percent() > self.spool.percent() || self.spool.limit == 0 {
            self.spool = spool;
        }
        self
    }
}

impl WorkloadEvidence {
    fn with(self, other: Self) -> Self {
        Self {
            accepted: self.accepted.saturating_add(other.accepted),
            forwarded: self.forwarded.saturating_add(other.forwarded),
            held: self.held.saturating_add(other.held),
            last_forwarded: self.last_forwarded.max(other.last_forwarded),
            cause: self.cause.or(other.cause),
        }
    }
}

impl SpoolEvidence {
    /// How full it is, in percent.
    pub fn percent(&self) -> u8 {
        let percent = self.bytes.saturating_mul(100).checked_div(self.limit).unwrap_or(0);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

/// Of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEvidence {
    /// Requests that were answered with 200, since the relay started.
    pub accepted: u64,
    /// Requests that MLflow has taken, since the relay started.
    pub forwarded: u64,
    /// Requests that wait.
    pub held: u64,
    /// When MLflow took the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_forwarded: Option<Timestamp>,
    /// What holds it up, if it is not what holds up everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// What holds up everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldEvidence {
    /// Why.
    pub cause: String,
    /// Since when.
    pub since: Timestamp,
}

/// How full the spool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolEvidence {
    /// Bytes of the requests in it.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub limit: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evidence(replica: serde_json::Value) -> Evidence {
        serde_json::from_value(replica).unwrap()
    }

    #[test]
    fn the_figures_of_several_replicas_are_added_and_the_fullest_spool_counts() {
        let one = evidence(json!({
            "workloads": {"deployment/teller": {"accepted": 9, "forwarded": 4, "held": 5, "lastForwarded": "2026-11-29T20:00:00Z"}},
            "held": {"cause": "Timeout", "since": "2026-11-29T20:01:00Z"},
            "spool": {"bytes": 850, "limit": 1000},
        }));
        let other = evidence(json!({
            "workloads": {
                "deployment/teller": {"accepted": 2, "forwarded": 2, "held": 0, "lastForwarded": "2026-11-29T20:05:00Z"},
                "job/import": {"accepted": 1, "forwarded": 0, "held": 1, "cause": "ExperimentMissing"},
            },
            "held": {"cause": "Unreachable", "since": "2026-11-29T20:00:30Z"},
            "spool": {"bytes": 10, "limit": 1000},
        }));
        for sum in [one.clone().with(other.clone()), other.with(one)] {
            let teller = &sum.workloads["deployment/teller"];
            assert_eq!((teller.accepted, teller.forwarded, teller.held), (11, 6, 5));
            assert_eq!(teller.last_forwarded, "2026-11-29T20:05:00Z".parse().ok());
            assert_eq!(sum.workloads["job/import"].cause.as_deref(), Some("ExperimentMissing"));
            assert_eq!(sum.held.map(|held| held.cause).as_deref(), Some("Unreachable"), "the longest");
            assert_eq!(sum.spool.percent(), 85);
        }
        assert_eq!(SpoolEvidence::default().percent(), 0, "a limit that is not known");
    }
}
