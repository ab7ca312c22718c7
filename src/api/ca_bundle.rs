//! `spec.caBundle`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The certificate authorities that agents trust.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// `Auto`: in mode CR, and for an https address with `configMaps`. `Always`. `Never`. Default: `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CaBundleMode>,
    /// `InitContainer`: the operator's image merges the authorities when a pod starts. `AgentInitContainer`: the agent's own
    /// image does, with its shell, so that authorities in that image are kept. `ConfigMap`: the operator merges them into
    /// ConfigMap `agenttracing-ca`; no further container, and it follows their rotation. Default: `InitContainer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<CaBundleStrategy>,
    /// `All`: every call of the agent that goes by REQUESTS_CA_BUNDLE or NODE_EXTRA_CA_CERTS. `MLflow`: only calls of MLflow's
    /// SDK, so that the agent's other calls keep the trust of their code. Default: `All`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<CaBundleScope>,
    /// ConfigMaps of this namespace with more certificate authorities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub config_maps: Vec<ConfigMapKey>,
}

/// Whether agents get a bundle of certificate authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleMode {
    /// Where MLflow's certificate may need it.
    #[default]
    Auto,
    /// In every case.
    Always,
    /// In none.
    Never,
}

/// Who merges the certificate authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleStrategy {
    /// An init container with the operator's image.
    #[default]
    InitContainer,
    /// An init container with the agent's image.
    AgentInitContainer,
    /// The operator, into a ConfigMap.
    ConfigMap,
}

/// Which calls of an agent trust the merged certificate authorities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleScope {
    /// All that its libraries make.
    #[default]
    All,
    /// Those to MLflow.
    MLflow,
}

/// One key of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of a ConfigMap in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in that ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
