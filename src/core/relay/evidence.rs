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
