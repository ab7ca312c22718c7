//! `spec.auth`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How agents authenticate to MLflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// `TokenFile`: MLFLOW_TRACKING_TOKEN_FILE names the pod's service account token, which the agent's code reads.
    /// `KubernetesPlugin`: MLflow's own plugin (3.11 and later, with the `kubernetes` package) does. `Relay`: agents
    /// talk to a relay that the operator runs, which alone has a token; they get its address and nothing else. `None`.
    /// Default: `TokenFile` in mode CR, else `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<AuthMethod>,
}

/// How agents authenticate to MLflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthMethod {
    /// The agent's code reads the file that MLFLOW_TRACKING_TOKEN_FILE names.
    TokenFile,
    /// MLFLOW_TRACKING_AUTH=kubernetes-namespaced.
    KubernetesPlugin,
    /// By the relay, which shows a token of its own.
    Relay,
    /// Not at all.
    None,
}
