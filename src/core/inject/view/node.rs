//! Which nodes a pod is for, and the settings that belong to one operating system.

use serde::Deserialize;

use super::{Text, null_as_default};

/// A pod's operating system.
#[derive(Debug, Deserialize)]
pub struct PodOs<'a> {
    /// `linux` or `windows`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// Which nodes a pod is for, beside `nodeSelector`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity<'a> {
    /// By the labels of nodes.
    #[serde(borrow)]
    pub node_affinity: Option<NodeAffinity<'a>>,
}

/// Which nodes a pod is for; what is only preferred says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinity<'a> {
    /// What a node must have.
    #[serde(borrow, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeTerms<'a>>,
}

/// Alternatives, of which a node must meet one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTerms<'a> {
    /// The alternatives.
    #[serde(borrow, rename = "nodeSelectorTerms", deserialize_with = "null_as_default")]
    pub terms: Vec<Option<NodeTerm<'a>>>,
}

/// Requirements, of which a node must meet all.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTerm<'a> {
    /// On its labels.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub match_expressions: Vec<NodeRequirement<'a>>,
    /// On its fields.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub match_fields: Vec<NodeRequirement<'a>>,
}

/// One requirement on a node.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeRequirement<'a> {
    /// The label.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    #[serde(borrow)]
    pub operator: Text<'a>,
    /// The values that the operator compares with.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub values: Vec<Text<'a>>,
}

/// Settings of Windows in a security context.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WindowsOptions<'a> {
    /// A domain account's settings.
    #[serde(borrow)]
    pub gmsa_credential_spec: Option<Text<'a>>,
    /// Where these stand.
    #[serde(borrow)]
    pub gmsa_credential_spec_name: Option<Text<'a>>,
    /// The user.
    #[serde(borrow)]
    pub run_as_user_name: Option<Text<'a>>,
    /// Whether it is a process of the node.
    pub host_process: Option<bool>,
}

impl WindowsOptions<'_> {
    /// Whether they say something. Policies write `hostProcess: false` into every pod, also into those of Linux.
    pub(super) fn is_set(&self) -> bool {
        let texts = [&self.gmsa_credential_spec, &self.gmsa_credential_spec_name, &self.run_as_user_name];
        self.host_process == Some(true) || texts.into_iter().flatten().any(|text| !text.is_empty())
    }
}
