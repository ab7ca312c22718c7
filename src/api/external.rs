//! `spec.mlflow.external`: a server that someone else runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A server that someone else runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Its address, as agents get it: `http://` or `https://`, no user name or password.
    #[serde(rename = "trackingURI")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$"))]
    pub tracking_uri: String,
    /// The workspace that traces go to, where the server has workspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub workspace: Option<String>,
}
