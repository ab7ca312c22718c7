//! The kinds of workloads: where each keeps its pod template, and whether it gets a second chance.

use crate::api::WorkloadKind;

/// A kind of workload that the operator wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A Deployment.
    Deployment,
    /// A StatefulSet.
    StatefulSet,
    /// A DaemonSet.
    DaemonSet,
    /// A CronJob, whose Jobs take over its template.
    CronJob,
    /// A Job.
    Job,
    /// A Pod, which is its own template.
    Pod,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::CronJob, Self::Job, Self::Pod];

    /// The kind of an object; `None` for one that is not wired. Other groups have kinds of the same name.
    pub fn of(group: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name && kind.group() == group)
    }

    /// The name as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::CronJob => "CronJob",
            Self::Job => "Job",
            Self::Pod => "Pod",
        }
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps",
            Self::CronJob | Self::Job => "batch",
            Self::Pod => "",
        }
    }

    /// The version of the API, the same for all of them.
    pub fn version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::CronJob | Self::Job | Self::Pod => "v1",
        }
    }

    /// Group and version, as they stand in an object.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        }
    }

    /// The resource, as it stands in URLs and RBAC.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::CronJob => "cronjobs",
            Self::Job => "jobs",
            Self::Pod => "pods",
        }
    }

    /// Where the pod template stands: its `metadata` and its `spec` are below.
    pub fn template(self) -> &'static [&'static str] {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::Job => &["spec", "template"],
            Self::CronJob => &["spec", "jobTemplate", "spec", "template"],
            Self::Pod => &[],
        }
    }

    /// Whether a changed template makes a controller replace running pods.
    pub fn rolls(self) -> bool {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => true,
            Self::CronJob | Self::Job | Self::Pod => false,
        }
    }

    /// Whether its template can be changed after creation, so that wiring may wait until it is known to work.
    pub fn template_is_mutable(self) -> bool {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::CronJob => true,
            Self::Job | Self::Pod => false,
        }
    }
}

impl From<WorkloadKind> for Kind {
    fn from(kind: WorkloadKind) -> Self {
        match kind {
            WorkloadKind::Deployment => Self::Deployment,
            WorkloadKind::StatefulSet => Self::StatefulSet,
            WorkloadKind::DaemonSet => Self::DaemonSet,
            WorkloadKind::CronJob => Self::CronJob,
            WorkloadKind::Job => Self::Job,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_another_group_is_not_the_kind_of_the_same_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.group(), kind.as_str()), Some(kind));
            assert_eq!(Kind::of("batch.volcano.sh", kind.as_str()), None);
        }
        assert_eq!(Kind::of("apps", "ReplicaSet"), None);
    }

    #[test]
    fn what_rolls_has_a_second_chance() {
        assert!(Kind::ALL.iter().all(|kind| !kind.rolls() || kind.template_is_mutable()));
    }
}
