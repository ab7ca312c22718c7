//! An init container of a part, and what of it follows the pod that it is in.

use serde_json::{Map, Value, json};

use crate::core::inject::record::short_hash;
use crate::core::inject::view::{Amounts, Container, ContainerResources, PodSpec, Workload};
use crate::core::settings::Platform;

/// An init container. Resources and security context follow the pod unless they are among `more`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitContainer {
    /// Its name, one of its part's kind.
    pub name: &'static str,
    /// Whose image it runs.
    pub image: Image,
    /// Its entry point; only with it its image is part of what is compared.
    pub command: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its mounts.
    pub mounts: Vec<Value>,
    /// Its other fields: `restartPolicy: Always` makes it a native side container.
    pub more: Map<String, Value>,
}

/// Whose image an init container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// The operator's own, pulled with the pull Secrets of the install.
    Operator,
    /// That of the agent that it serves, as which it also runs.
    Agent,
    /// Another one, which every node can pull.
    Given(String),
}

/// What a pod and one of its agents say that its init containers have to follow.
pub struct PodContext<'a> {
    /// The pod.
    pub pod: &'a PodSpec<'a>,
    /// The container that is wired; of several, the one that people mean when they name none, or the first.
    pub agent: &'a Container<'a>,
    /// The cluster and the install.
    pub platform: &'a Platform,
}

impl InitContainer {
    /// As it stands in a pod.
    pub fn render(&self, context: &PodContext<'_>) -> Value {
        let Self { name, image, command, args, mounts, more } = self;
        let named = match image {
            Image::Operator => context.platform.merge_ca.image.as_str(),
            Image::Agent => &*context.agent.image,
            Image::Given(image) => image,
        };
        let mut container = json!({"name": name, "image": named, "imagePullPolicy": "IfNotPresent"});
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        if !args.is_empty() {
            container["args"] = json!(args);
        }
        for (field, value) in more {
            container[field] = value.clone();
        }
        let follows = [("securityContext", security_context(image, context)), ("resources", resources(context.agent))];
        for (field, value) in follows.into_iter().filter(|(field, _)| !more.contains_key(*field)) {
            if let Some(value) = value {
                container[field] = value;
            }
        }
        container["volumeMounts"] = json!(mounts);
        container
    }

    /// The Secrets that its image is pulled with.
    pub fn pull_secrets<'p>(&self, platform: &'p Platform) -> &'p [String] {
        match self.image {
            Image::Operator => &platform.merge_ca.pull_secrets,
            Image::Agent | Image::Given(_) => &[],
        }
    }
}

impl Image {
    /// Where it comes from, as one short word.
    pub fn source(&self, workload: &Workload<'_>, platform: &Platform) -> String {
        match self {
            Self::Operator => platform.merge_ca.source(),
            // Which of them has no shell is not known.
            Self::Agent => short_hash(workload.pod.containers.iter().map(|container| &*container.image)),
            Self::Given(image) => short_hash(std::iter::once(image.as_str())),
        }
    }

    /// Its name, for people to read.
    pub fn describe(&self, workload: &Workload<'_>, platform: &Platform) -> String {
        match self {
            Self::Operator => platform.merge_ca.image.clone(),
            Self::Agent => {
                workload.pod.containers.iter().map(|container| &*container.image).collect::<Vec<_>>().join(" or ")
            }
            Self::Given(image) => image.clone(),
        }
    }
}

/// The agent's image runs as its agent does, or a security policy might refuse it; others as Pod Security `restricted` has it.
fn security_context(image: &Image, context: &PodContext<'_>) -> Option<Value> {
    let PodContext { pod, agent, platform } = *context;
    if *image == Image::Agent {
        return agent.security_context.clone();
    }
    let mut restricted = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
    });
    // On OpenShift the SCC gives the uid, and one without listed profiles refuses any.
    if !platform.openshift {
        restricted["seccompProfile"] = json!({"type": "RuntimeDefault"});
        if pod.security_context.as_ref().is_some_and(|c| c.run_as_user == Some(0)) {
            restricted["runAsUser"] = json!(NON_ROOT);
        }
    }
    Some(restricted)
}

/// What the agent asks for, and nothing where it asks for nothing: so the pod asks for no more than without us, keeps its QoS
/// class, and whatever quota or LimitRange lets the agent in lets its init container in.
pub(in crate::core) fn resources(agent: &Container<'_>) -> Option<Value> {
    let ContainerResources { limits, requests } = agent.resources.as_ref()?;
    let amounts = [("limits", limits), ("requests", requests)].map(|(field, amounts)| {
        let amounts = amounts.as_ref().filter(|amounts| **amounts != Amounts::default())?;
        Some((field.to_owned(), serde_json::to_value(amounts).ok()?))
    });
    let amounts: Map<_, _> = amounts.into_iter().flatten().collect();
    (!amounts.is_empty()).then_some(Value::Object(amounts))
}

/// The uid of the operator's image.
const NON_ROOT: i64 = 65532;
