//! Why a condition is as it is, or a workload is not wired: every reason once, with what it means and what to do. The reference
//! of conditions in the documentation is written from here.

use super::{ConditionType, WorkloadState};

/// Declares [`Reason`]: spelling, the status of the condition, the conditions that have it, meaning and remedy. A reason without
/// one of them does not compile.
macro_rules! reasons {
    ($($name:ident: $status:ident [$($condition:ident),*] $meaning:literal $remedy:literal;)+) => {
        /// Reasons of conditions and of skipped workloads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $(#[doc = $meaning] $name),+ }

        impl Reason {
            /// All of them, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name as it stands in status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// The reason of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }

            /// The status of a condition with it: `True`, `False` or `Unknown`.
            pub fn status(self) -> &'static str {
                match self { $(Self::$name => stringify!($status)),+ }
            }

            /// The conditions that have it, besides `Ready`, which repeats the worst of the others. None: only workloads do.
            pub fn conditions(self) -> &'static [ConditionType] {
                match self { $(Self::$name => &[$(ConditionType::$condition),*]),+ }
            }

            /// What is the case, as a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }

            /// What to do about it, as a sentence.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy),+ }
            }
        }
    };
}

reasons! {
    TracesReceived: True [Ready, TracesFlowing]
        "A trace with its spans arrived in an experiment of the workloads since their current wiring."
        "Nothing to do; the message says where to look at the traces.";
    WaitingForTraces: True [Ready]
        "Every workload is wired, and no trace was seen yet."
        "Send an agent a request. If nothing arrives, look at condition `TracesFlowing`.";
    Suspended: False [Ready]
        "`spec.suspend` is set: nothing is injected, repaired or reconciled, and what exists is kept."
        "Set `spec.suspend` to `false` to go on.";
    Conflict: False [Ready]
        "Every workload that matches belongs to an older AgentTracing of the namespace."
        "Delete one of the two AgentTracings, or give them different `injection.selector`s.";
    ReconcileFailed: False [Ready]
        "The operator cannot finish its work on this AgentTracing and tries again; the message says at what it fails."
        "Read the log of the operator; the message has the command.";
    InvalidSpec: False [Ready, MLflowReady, RelayReady]
        "The spec cannot be carried out. The message names the field, its value and what to write instead."
        "Change the field: `kubectl edit agenttracing -n bank-agents tracing`.";
    Available: True [MLflowReady, RelayReady]
        "MLflow answers at the address that agents get; of the relay, that a pod of it is ready."
        "Nothing to do.";
    Progressing: False [MLflowReady, WorkspaceReady, RBACReady, RelayReady]
        "It is on its way: MLflow or the relay starts, MLflow was not asked yet, or the service accounts are being bound. `WorkspaceReady` is `Unknown` until MLflow has answered."
        "Wait; the message has a command to watch it.";
    PodsNotReady: False [MLflowReady, RelayReady]
        "The pod of MLflow, or that of the relay, does not become ready: its image, a crash, memory, or no node for it."
        "The message quotes the container's own reason. Read the log or the events with the command that it names.";
    StorageNotBound: False [MLflowReady, RelayReady]
        "The volume of MLflow or of the relay is not bound, is lost, or cannot become what the spec says."
        "Make a StorageClass the default, name one in `mlflow.standalone.storage.storageClassName` or `relay.storage.storageClassName`, or set size and class back; the message says which.";
    NameConflict: False [MLflowReady, RBACReady, RelayReady, InjectionReady]
        "An object with the name that the operator needs exists and is not the operator's. It is left alone."
        "Delete or rename that object, or give the AgentTracing another name.";
    CreateForbidden: False [MLflowReady, RelayReady, InjectionReady]
        "The API server refuses an object or a pod: a quota, a LimitRange, an admission policy or a missing right."
        "The message quotes the API server. Raise the quota or allow the object.";
    SpoolFull: False [RelayReady]
        "The relay takes traces, and its spool is 80 % full or more. Once it is full, agents get 503 and have to keep their traces themselves."
        "Have MLflow take what waits; the message says why it does not. A larger `relay.storage.size` counts for a relay that is made anew.";
    RelayRefused: False [RelayReady]
        "The relay takes traces and keeps them, since MLflow refuses the relay itself; the message names the cause."
        "In mode CR compare RoleBinding `agenttracing-mlflow` and its ClusterRole; elsewhere give the relay's service account its right at MLflow.";
    MLflowCRDMissing: False [MLflowReady]
        "The cluster does not know the kind `MLflow` (`mlflow.opendatahub.io`): the MLflow operator is not installed."
        "Install the MLflow operator, or use mode Standalone or External.";
    MLflowNotFound: False [MLflowReady]
        "There is no MLflow resource of the name in `mlflow.cr.name`."
        "Create one, or let the operator do it with `mlflow.cr.create`.";
    MLflowNotReady: False [MLflowReady]
        "The MLflow resource says that its server is not available; the message has its own reason and words."
        "Look at it with `kubectl get mlflow mlflow -o yaml`, and at the log of the MLflow operator.";
    MigrationFailed: False [MLflowReady]
        "The MLflow operator could not migrate the database of the MLflow resource. It does not try again by itself."
        "Read what it says with `kubectl get mlflow mlflow -o yaml`; its annotation `mlflow.opendatahub.io/force-migrate` starts the migration again.";
    Unreachable: False [MLflowReady]
        "MLflow cannot be reached: its name is not known, the connection is refused or broken, it does not answer in time, or it answers with an error of its own."
        "Look at its pods, its Service and the NetworkPolicies between it and the operator.";
    TLSUntrusted: False [MLflowReady]
        "The operator does not trust the certificate of MLflow."
        "Put the certificate authority into ConfigMap `agent-tracing-extra-cas`, key `ca.crt`, of the operator's namespace.";
    HostHeaderRejected: False [MLflowReady]
        "MLflow refuses the host name of its address (403), as it does with every name that it was not told."
        "In mode Standalone add the name to `mlflow.standalone.allowedHosts`; elsewhere to `--allowed-hosts` of the server.";
    Unauthorized: False [MLflowReady]
        "MLflow, or a proxy or service mesh in front of it, refuses the operator: it wants credentials, or others than it was shown."
        "List the host in the install option `mlflowTokenHosts` if it takes service account tokens, or let the operator pass.";
    LoginPage: False [MLflowReady]
        "A login page answers in place of MLflow."
        "Use an address that does not go through the login proxy, for example the address of the Service in the cluster.";
    WrongPath: False [MLflowReady]
        "Something else than MLflow's REST API answers at the address."
        "Correct the path of the address; `kubectl describe agenttracing` shows where it was asked.";
    VersionTooOld: False [MLflowReady]
        "MLflow is older than 3.0, which cannot store these traces."
        "Upgrade MLflow to 3.0 or newer; 3.10.1 and newer are tested.";
    StorageFull: False [MLflowReady]
        "MLflow answers, and its storage is full: every trace is lost."
        "Raise `mlflow.standalone.storage.size`, or delete old traces, or make room in the database that it uses.";
    WritesRefused: False [MLflowReady]
        "MLflow answers and refuses to write, for example because its database is read-only: every trace is lost."
        "Read the log of MLflow; the message has the command.";
    TemplateInvalid: False [MLflowReady]
        "The API server refuses the MLflow resource that `mlflow.cr.template` describes."
        "Correct the field that the message names.";
    NotObservable: Unknown [MLflowReady, ExperimentsReady, TracesFlowing]
        "The operator may not ask this MLflow, or a workload takes its experiment from elsewhere (`valueFrom`). Agents are wired all the same."
        "List the host in the install option `trustedMlflowHosts`, or in `mlflowTokenHosts` where it wants a token.";
    Visible: True [WorkspaceReady]
        "MLflow shows the namespace as a workspace."
        "Nothing to do.";
    NamespaceLabelMissing: False [WorkspaceReady]
        "`workspaceLabelSelector` of the MLflow resource does not match the labels of the namespace."
        "Label the namespace as the message says.";
    SystemNamespace: False [WorkspaceReady]
        "MLflow shows no system namespace (`kube-*`, `openshift`, `openshift-*`, `redhat-ods-*`) as a workspace."
        "Move the agents to a namespace of their own.";
    WorkspacesDisabled: False [WorkspaceReady]
        "This MLflow has no workspaces, which mode CR needs."
        "Use mode External for it, or switch workspaces on in MLflow.";
    Bound: True [RBACReady]
        "Every service account of the workloads may write to MLflow: the RoleBinding is there, and a SubjectAccessReview says yes."
        "Nothing to do.";
    ClusterRoleMissing: False [RBACReady]
        "The ClusterRole that agents are bound to does not exist. The MLflow operator brings it."
        "Install or upgrade the MLflow operator, or name another role in the install option `integrationClusterRole`.";
    BindForbidden: False [RBACReady]
        "The API server refuses RoleBinding `agenttracing-mlflow`."
        "The message quotes the API server. The operator needs the verb `bind` on that one ClusterRole.";
    AccessDenied: False [RBACReady]
        "A service account is bound and still may not write, or the operator gets no token for MLflow."
        "Compare the rules of the ClusterRole with the right that the message names.";
    LimitReached: False [RBACReady, ExperimentsReady]
        "The workloads use more than 1,000 service accounts, or need the ids of more than 1,000 experiments. The rest is not wired."
        "Let workloads share accounts or spread them over namespaces; set `experiment.pin` to `false` or use one literal `experiment.name`.";
    Ensured: True [ExperimentsReady]
        "The experiments of the workloads exist in MLflow."
        "Nothing to do.";
    Creating: False [ExperimentsReady]
        "An experiment is created as soon as MLflow answers."
        "Wait, and look at condition `MLflowReady`.";
    ExperimentDeleted: False [ExperimentsReady]
        "An experiment of that name was deleted in MLflow, which loses every trace that is sent to it."
        "Set `experiment.restoreDeleted` to `true`, or choose another `experiment.name`.";
    Forbidden: False [ExperimentsReady]
        "MLflow refuses to create the experiment."
        "Look at conditions `RBACReady` and `MLflowReady`; the message quotes MLflow's error code.";
    NameInvalid: False [ExperimentsReady]
        "MLflow refuses the name of the experiment."
        "Choose another `experiment.name`.";
    Enabled: True [InjectionReady]
        "The namespace is labelled and workloads match, or an older AgentTracing has them, or Jobs and Pods come and go and none runs at the moment."
        "Nothing to do.";
    NamespaceNotLabelled: False [InjectionReady]
        "The namespace has no label `agenttracing.dev/injection=enabled`, so nothing in it is injected."
        "`kubectl label namespace bank-agents agenttracing.dev/injection=enabled`.";
    NamespaceExcluded: False [InjectionReady]
        "The namespace is a system namespace, the operator's own, or in the install option `excludedNamespaces`. Its label has no effect."
        "Move the agents to another namespace, or ask the administrator.";
    WebhookUnavailable: False [InjectionReady]
        "The API server did not call the webhook, so the operator patched the workloads itself. They are wired, with one rollout more."
        "`agent-tracing-operator check -n bank-agents` says whether the configuration, its certificate or the network is at fault.";
    NothingMatches: False [InjectionReady]
        "The namespace is labelled, and no workload matches `injection.kinds` and `injection.selector`."
        "Create a workload, or compare the two fields with the kinds and the labels of the pod templates.";
    AllCurrent: True [WorkloadsReady]
        "Every workload that matches carries the wanted wiring, and its pods run with it."
        "Nothing to do.";
    WaitingForMLflow: False [WorkloadsReady]
        "Something that the wiring needs is not there yet: MLflow has not answered, a service account is not bound, an experiment has no id; or MLflow does not answer now, and running agents are not restarted meanwhile."
        "Look at conditions `MLflowReady`, `RBACReady` and `ExperimentsReady`.";
    RolloutInProgress: False [WorkloadsReady]
        "Pods are being replaced by wired ones, a few workloads at a time."
        "Wait; the message has a command to watch it.";
    RolloutHalted: False [WorkloadsReady]
        "A workload does not come back with its wiring, so no other one is changed; or Jobs wait for the image of init container `merge-ca`."
        "Look at the pods of the workload that the message names. The rollout goes on when they run, or when the spec changes.";
    Contested: False [WorkloadsReady]
        "Somebody took the wiring out three times within ten minutes. The workload is left alone until the spec changes."
        "The row of the workload names who wrote last. Let that tool keep what it did not write, or opt out with label `agenttracing.dev/inject=false`.";
    Outdated: False [WorkloadsReady]
        "Workloads do not have the wanted wiring and are not changed now: a paused Deployment, strategy `OnDelete`, `injection.rollout.policy: Manual`, or a wiring of a newer operator."
        "Resume or restart the workload, delete its pods, or upgrade the operator; the row of the workload has the command.";
    Skipped: False [WorkloadsReady]
        "Some workloads cannot be wired; the row of each says why."
        "See the reasons of workloads below.";
    NoTracesYet: False [TracesFlowing]
        "No trace was seen since the current wiring. It does not lower `Ready`."
        "Send the agents a request.";
    NoTracesFrom: False [TracesFlowing]
        "Workloads that are available for 10 minutes, or Jobs that ended, left no trace; or their experiment was deleted. It does not lower `Ready`."
        "Check that the agent is in use, that its code calls `autolog()`, and that it copies the token in mode CR. With the package `mlflow-tracing` set `experiment.pin` to `true`.";
    TracesStopped: False [TracesFlowing]
        "Traces came regularly and have stopped."
        "If the agent is at work, read its log; look at condition `MLflowReady`.";
    TracesHeld: False [TracesFlowing]
        "Traces wait in the relay, since MLflow does not take them. The message says since when, how many, of whom and why. Nothing is lost as long as the relay has room."
        "Do what the message says; the relay sends what waits when MLflow takes it.";
    TracesWithoutSpans: False [TracesFlowing]
        "Traces arrive, and MLflow refuses the upload of their spans."
        "Read the log of the agent. The server needs `serveArtifacts: true`, and the agent's account the verb `update` on experiments.";
    OTLPPathMissing: False [TracesFlowing]
        "A container sends OTLP to a path that this MLflow does not have (MLflow 3.12 and newer has none under `/mlflow`)."
        "Set the variable to the value in the message.";
    MergeCAImage: False []
        "The image of init container `merge-ca` could not be pulled or started for a minute (half a minute in Jobs). The workload takes its certificate authorities from ConfigMap `agenttracing-ca` instead, and the rest of the rollout waits."
        "Make the image available or set the install option `mergeCa`, then remove the annotation that the row names.";
    MergeCARefused: False []
        "A policy of the cluster does not admit init container `merge-ca`. The workload takes its certificate authorities from ConfigMap `agenttracing-ca` instead."
        "Allow the image, or set the install option `mergeCa`; `status.mergeCa.message` quotes the policy.";
    OptedOut: False []
        "Label `agenttracing.dev/inject=false` is on the workload or its pod template."
        "Remove the label to wire the workload.";
    OwnTrackingURI: False []
        "Every container sets `MLFLOW_TRACKING_URI` itself, which is kept."
        "Remove the variable from the workload to wire it.";
    CreatedUnwired: False []
        "A Job or Pod was created before it could be wired. Neither is ever changed."
        "Create it again.";
    NoContainers: False []
        "No container is left to wire after `injection.containers`, the annotation `agenttracing.dev/containers` and the known side containers."
        "Name a container in one of the two.";
    AnnotationsTooLong: False []
        "The annotations of the pod template leave no room for the record of what is injected (262,144 bytes in all)."
        "Move the longest annotation into a ConfigMap.";
    NoServiceAccountToken: False []
        "The container has no service account token, without which this MLflow refuses it."
        "Set `automountServiceAccountToken: true`, on the pod template or on the ServiceAccount.";
    Windows: False []
        "Windows pods are not wired."
        "Nothing to do.";
    RecordUnreadable: False []
        "The record of what was injected (annotation `agenttracing.dev/injected`) cannot be read, so nothing is touched."
        "Remove the injected variables and the annotation by hand.";
}

impl Reason {
    /// Whether nothing is wrong with a workload that has it: its owner wants it so, or it cannot be otherwise, or another
    /// AgentTracing has it.
    pub fn is_no_fault(self) -> bool {
        matches!(self, Self::OptedOut | Self::OwnTrackingURI | Self::Windows | Self::Conflict)
    }

    /// Whether a workload in `status.workloads` can have it.
    pub fn is_of_workloads(self) -> bool {
        self.conditions().is_empty() || matches!(self, Self::Conflict | Self::WaitingForMLflow)
    }
}

impl ConditionType {
    /// What it says when it is `True`, as a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "Everything below holds. Otherwise it repeats the worst of the others.",
            Self::MLflowReady => "MLflow runs and answers at the address that agents get.",
            Self::WorkspaceReady => "Only in mode CR: MLflow shows the namespace as a workspace.",
            Self::RBACReady => "Only in mode CR: the service accounts of the workloads may write to MLflow.",
            Self::RelayReady => "Only with a relay: it takes traces, has room for more, and MLflow does not refuse it.",
            Self::ExperimentsReady => "The experiments of the workloads exist in MLflow.",
            Self::InjectionReady => "The namespace is labelled, workloads match, and the webhook answers.",
            Self::WorkloadsReady => "Every workload that matches carries the wanted wiring and runs with it.",
            Self::TracesFlowing => {
                "Traces with their spans arrive. `NoTracesYet`, `NoTracesFrom` and `NotObservable` do not lower `Ready`."
            }
        }
    }
}

impl WorkloadState {
    /// What is the case with the workload, as a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Skipped => "It cannot be wired, or its owner does not want it; the reason says why.",
            Self::Halted => {
                "Its pods do not come back with the wiring (crash loop, image, quota, no node, deadline). No other workload is \
                 changed until they do or the spec changes."
            }
            Self::Contested => {
                "Somebody undid three repairs within ten minutes; the message names the last field manager. It is left alone until \
                 the spec changes."
            }
            Self::Outdated => {
                "Its wiring is not the wanted one and is not changed now: a paused Deployment, strategy `OnDelete`, or \
                 `injection.rollout.policy: Manual` (with it also what is to be taken out)."
            }
            Self::Pending => "It is wired as soon as MLflow has answered, its account is bound, or its turn comes.",
            Self::RollingOut => "Its pods are being replaced by wired ones.",
            Self::Injected => "Wired, current and running.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_a_sentence_that_fits_into_a_cell_of_a_table() {
        let reasons = Reason::ALL.iter().flat_map(|reason| [reason.meaning(), reason.remedy()]);
        let types = ConditionType::ALL.map(ConditionType::meaning);
        let states = WorkloadState::ALL.map(WorkloadState::meaning);
        for text in reasons.chain(types).chain(states) {
            assert!(text.ends_with('.') && text.len() > 9 && !text.contains(['|', '\n']), "{text:?}");
        }
    }

    #[test]
    fn every_reason_is_found_by_its_name_and_has_a_known_status() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
            assert!(["True", "False", "Unknown"].contains(&reason.status()), "{reason:?}");
        }
    }
}
