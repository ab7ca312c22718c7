//! Why the pods of a server that the operator runs do not become ready: the reason stands in the pod's scheduling condition or in a
//! container's state.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::condition::ConditionUpdate;
use super::quote::shorten;
use crate::api::Reason;
use crate::core::kubectl::Kubectl;
use crate::names;

/// A server that the operator runs for an AgentTracing.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunServer<'a> {
    pub what: What,
    pub namespace: &'a str,
    pub tracing: &'a str,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Mlflow,
    Relay,
}

impl What {
    /// Inside a sentence.
    fn name(self) -> &'static str {
        match self {
            Self::Mlflow => "MLflow",
            Self::Relay => "the relay",
        }
    }

    /// At its beginning.
    fn title(self) -> &'static str {
        match self {
            Self::Mlflow => "MLflow",
            Self::Relay => "The relay",
        }
    }

    fn memory(self) -> &'static str {
        match self {
            Self::Mlflow => "mlflow.standalone.resources.limits.memory",
            Self::Relay => "relay.resources.limits.memory",
        }
    }
}

impl RunServer<'_> {
    /// What keeps one of its pods from being ready.
    pub fn failure(&self, pod: &Pod, now: Timestamp) -> Option<ConditionUpdate> {
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let status = pod.status.as_ref()?;
        let describe = Kubectl::new("describe pod").namespace(self.namespace).arg(pod_name);
        let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        if let Some(condition) = scheduled {
            let why = shorten(condition.message.as_deref().unwrap_or("no reason given"));
            let reason =
                if why.contains("PersistentVolumeClaim") { Reason::StorageNotBound } else { Reason::PodsNotReady };
            let title = self.what.title();
            let message = format!("{title}'s pod finds no node ({why}); look with: {describe}");
            return Some(ConditionUpdate::bad(reason, message));
        }
        let init = status.init_container_statuses.iter().flatten();
        let main = status.container_statuses.iter().flatten();
        let mut containers = init.map(|container| (container, true)).chain(main.map(|container| (container, false)));
        let of_container = |(container, is_init): (&ContainerStatus, bool)| {
            let what = self.container_failure(pod_name, container, is_init, now)?;
            Some(ConditionUpdate::bad(Reason::PodsNotReady, what))
        };
        containers.find_map(of_container)
    }

    /// Why a container does not run as it should.
    fn container_failure(
        &self,
        pod: &str,
        container: &ContainerStatus,
        is_init: bool,
        now: Timestamp,
    ) -> Option<String> {
        let Self { what, namespace, .. } = *self;
        let of = what.name();
        let ContainerStatus { name, image, state, ready, restart_count, .. } = container;
        let state = state.as_ref()?;
        let logs = || Kubectl::new("logs").namespace(namespace).arg(pod).arg("-c").arg(name);
        let termination = self.termination(container);
        if let Some(waiting) = &state.waiting {
            let why = waiting.reason.as_deref().unwrap_or("Waiting");
            let message = shorten(waiting.message.as_deref().unwrap_or_default());
            match why {
                "ContainerCreating" | "PodInitializing" => {}
                "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                    let remedy = self.image_remedy();
                    return Some(format!("The image {image} cannot be pulled ({why}: {message}); {remedy}"));
                }
                "CrashLoopBackOff" => {
                    let last = termination.unwrap_or_else(|| "no exit code known".to_owned());
                    let logs = logs().arg("--previous");
                    return Some(format!("Container {name} of {of} ends again and again ({last}); read why: {logs}"));
                }
                _ => {
                    return Some(format!(
                        "Container {name} of {of} does not start ({why}: {message}); look with: {}",
                        Kubectl::new("describe pod").namespace(namespace).arg(pod)
                    ));
                }
            }
        }
        if let Some(last) = termination.filter(|_| !ready && *restart_count > 0) {
            let logs = logs().arg("--previous");
            return Some(format!("Container {name} of {of} ended ({last}) and starts again; read why: {logs}"));
        }
        let started = state.running.as_ref().and_then(|r| r.started_at.as_ref()).map(|t| t.0);
        // The start and not the seconds since: a message that changes at every look is a write at every look.
        let started = started.filter(|s| now.as_second() - s.as_second() > HANGING_SECONDS)?;
        let logs = logs();
        (is_init || !ready).then(|| {
            format!("Container {name} of {of} runs since {started} and is not ready; read what it does: {logs}")
        })
    }

    fn image_remedy(&self) -> String {
        let Self { what, namespace, tracing } = *self;
        match what {
            What::Mlflow => format!(
                "set mlflow.standalone.image or its imagePullSecrets: {}",
                Kubectl::new("edit agenttracing").namespace(namespace).arg(tracing)
            ),
            What::Relay => format!(
                "it is the operator's own: make it available to the nodes, or have an administrator set the install's mergeCa: {}",
                Kubectl::new("get deployment").arg("-A").selector(&names::operator_selector()).yaml()
            ),
        }
    }

    /// How a container ended last, as far as the kubelet says.
    fn termination(&self, container: &ContainerStatus) -> Option<String> {
        let now = container.state.as_ref().and_then(|s| s.terminated.as_ref()).filter(|t| t.exit_code != 0);
        let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        let end = now.or(last)?;
        let reason = end.reason.as_deref().unwrap_or("Error");
        let hint = if reason == "OOMKilled" { format!(", raise {}", self.what.memory()) } else { String::new() };
        let said = end.message.as_deref().map(|m| format!(": {}", shorten(m))).unwrap_or_default();
        Some(format!("{reason}, exit code {}{hint}{said}", end.exit_code))
    }
}

/// Seconds that an init container or a container may take before it counts as stuck.
const HANGING_SECONDS: i64 = 90;
