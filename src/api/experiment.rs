//! `spec.experiment`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The MLflow experiment that traces are logged to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Experiment {
    /// Name of the experiment; `{workload}`, `{namespace}` and `{tracing}` are replaced by the names of the workload, its
    /// namespace and this AgentTracing. Default: `{workload}`.
    #[serde(default = "workload_template")]
    #[schemars(length(min = 1, max = 250), regex(pattern = r"^([^{}]|\{workload\}|\{namespace\}|\{tracing\})+$"))]
    pub name: String,
    /// Restore a deleted experiment of that name. Otherwise it is reported. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restore_deleted: bool,
    /// Also inject MLFLOW_TRACING_DESTINATION, the experiment's numeric id: the agent looks nothing up, and its own
    /// `set_experiment()` no longer counts. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin: bool,
}

impl Default for Experiment {
    fn default() -> Self {
        Self { name: workload_template(), restore_deleted: false, pin: false }
    }
}

fn workload_template() -> String {
    "{workload}".to_owned()
}
