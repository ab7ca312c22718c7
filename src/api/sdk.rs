//! `spec.sdk`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the MLflow SDK in the agents behaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sdk {
    /// Seconds that a request to MLflow may take. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300), extend("format" = "int32"))]
    pub timeout_seconds: Option<u16>,
    /// How often a failed request is repeated. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10), extend("format" = "int32"))]
    pub max_retries: Option<u8>,
    /// Share of traces that are kept, from "0.0" to "1.0". Default: "1.0".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^(0(\.[0-9]+)?|1(\.0+)?)$"))]
    pub sampling_ratio: Option<String>,
}
