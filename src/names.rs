//! Every label, annotation, field manager, port, object name and event reason, spelled once.
//!
//! A name that leaves the process is a promise: labels and annotations stay on users' objects for years. Nothing outside
//! this file may spell one.

/// API group of [`crate::api::AgentTracing`].
pub const GROUP: &str = "agenttracing.dev";

/// Namespace label that allows injection; its value must be [`ENABLED`].
pub const LABEL_INJECTION: &str = "agenttracing.dev/injection";
/// The only value of [`LABEL_INJECTION`] that enables injection.
pub const ENABLED: &str = "enabled";
/// Opt-in (`true`) or opt-out (`false`) label on a workload or its pod template.
pub const LABEL_INJECT: &str = "agenttracing.dev/inject";
/// Label selector of what opts in by itself: of Pods and templates alone no namespace's label tells.
pub const INJECT_SELECTOR: &str = "agenttracing.dev/inject=true";
/// Label on the metadata of a wired workload: the name of its AgentTracing.
pub const LABEL_WIRED: &str = "agenttracing.dev/wired";
/// Prefix of all our annotations and labels.
pub const PREFIX: &str = "agenttracing.dev/";

/// Pod-template annotation that holds the record of what we added.
pub const ANNOTATION_RECORD: &str = "agenttracing.dev/injected";
/// Workload annotation whose change makes the webhook inject in the same request.
pub const ANNOTATION_TOUCH: &str = "agenttracing.dev/touch";
/// Workload annotation: the init container's image, as [`crate::core::settings::MergeCa::source`] names it, that could not be
/// pulled or started here.
pub const ANNOTATION_MERGE_CA_FAILED: &str = "agenttracing.dev/merge-ca-failed";
/// On a workload: from where the init container was that the cluster does not admit in it.
pub const ANNOTATION_MERGE_CA_REFUSED: &str = "agenttracing.dev/merge-ca-refused";
/// Name of what is created dry, to learn whether the cluster admits the init container; it is never stored.
pub const CANARY: &str = "agenttracing-canary";
/// Workload or template annotation: which AgentTracing applies.
pub const ANNOTATION_TRACING: &str = "agenttracing.dev/tracing";
/// Workload or template annotation: comma-separated names of the containers to wire.
pub const ANNOTATION_CONTAINERS: &str = "agenttracing.dev/containers";
/// Workload or template annotation: the experiment's name.
pub const ANNOTATION_EXPERIMENT: &str = "agenttracing.dev/experiment";
/// Annotation on our child objects: short hash of what was applied, so that a field we no longer want is noticed.
pub const ANNOTATION_APPLIED: &str = "agenttracing.dev/applied";

/// The cluster autoscaler's template annotation: local volumes in spite of which a pod may be evicted.
pub const ANNOTATION_EVICTABLE_VOLUMES: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// The cluster autoscaler's template annotation: whether a pod may be evicted at all.
pub const ANNOTATION_SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// kubectl's template annotation: the container that people mean when they name none.
pub const ANNOTATION_DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The kubelet's annotation on a Pod that only shows one that it runs from a file of its node.
pub const ANNOTATION_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotations of others that decisions need.
pub const FOREIGN_ANNOTATIONS: [&str; 4] =
    [ANNOTATION_EVICTABLE_VOLUMES, ANNOTATION_SAFE_TO_EVICT, ANNOTATION_DEFAULT_CONTAINER, ANNOTATION_MIRROR];

/// Field manager of the controller's writes.
pub const FIELD_MANAGER: &str = "agent-tracing-operator";
/// `app.kubernetes.io/managed-by` of our children, and the reporting controller of our events.
pub const MANAGED_BY: &str = "agent-tracing-operator";
/// `app.kubernetes.io/part-of` of our children.
pub const PART_OF: &str = "agent-tracing";
/// `app.kubernetes.io/name` and `component` of a standalone server's objects.
pub const MLFLOW: &str = "mlflow";

/// The relay: its command, its container and `app.kubernetes.io/component` of its objects.
pub const RELAY: &str = "relay";
/// `app.kubernetes.io/name` of the relay's objects.
pub const RELAY_APPLICATION: &str = "agent-tracing-relay";
/// Port of the relay for agents.
pub const RELAY_PORT: u16 = 5500;
/// Port of the relay for agents that speak OTLP.
pub const RELAY_OTLP_PORT: u16 = 4318;
/// Port of the relay for probes, metrics and what it knows of traces.
pub const RELAY_OWN_PORT: u16 = 8080;
/// Role and RoleBinding by which the relays of a namespace read their AgentTracing. One name for all namespaces, so that the
/// operator needs no right on any other.
pub const RELAY_ROLE: &str = "agenttracing-relay";

/// Standard label: application name.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Standard label: instance, for our children the AgentTracing's name.
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
/// Standard label: managing tool.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Standard label: component.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Standard label: larger whole.
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Standard label: version of the application.
pub const LABEL_VERSION: &str = "app.kubernetes.io/version";
/// Label of what Knative makes for a revision: the service that it is of.
pub const LABEL_KNATIVE_SERVICE: &str = "serving.knative.dev/service";
/// Labels with the hash that ends the name of a pod's ReplicaSet: a Deployment's, an Argo Rollout's.
pub const POD_TEMPLATE_HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];
/// Label of a Job's pods with its name.
pub const LABEL_JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Label that every namespace carries with its own name.
pub const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Namespace of a default install.
pub const OPERATOR_NAMESPACE: &str = "agent-tracing-system";
/// Lease of the leading replica.
pub const LEASE: &str = "agent-tracing-operator";
/// The operator's service account.
pub const SERVICE_ACCOUNT: &str = "agent-tracing-operator";
/// The account by which the operator is known to MLflow. It has no right of its own: MLflow sees its token.
pub const OBSERVER: &str = "agent-tracing-observer";
/// Service in front of the webhook.
pub const WEBHOOK_SERVICE: &str = "agent-tracing-webhook";
/// The MutatingWebhookConfiguration.
pub const WEBHOOK_CONFIGURATION: &str = "agent-tracing-webhook";
/// Secret with the certificate authority that the replicas share.
pub const WEBHOOK_CA_SECRET: &str = "agent-tracing-webhook-ca";
/// Secret with a serving certificate that somebody else makes: cert-manager or OpenShift.
pub const WEBHOOK_TLS_SECRET: &str = "agent-tracing-webhook-tls";
/// Where it is mounted.
pub const WEBHOOK_TLS_FOLDER: &str = "/etc/agent-tracing/tls";
/// cert-manager's Certificate for it.
pub const WEBHOOK_CERTIFICATE: &str = "agent-tracing-webhook";
/// HTTP path of the mutating webhook.
pub const WEBHOOK_PATH: &str = "/mutate";

/// An API group that only OpenShift serves.
pub const OPENSHIFT_GROUP: &str = "security.openshift.io";
/// The RoleBinding of a namespace in mode CR.
pub const ROLE_BINDING: &str = "agenttracing-mlflow";
/// The ClusterRole of the MLflow operator that it binds, unless the install says otherwise.
pub const INTEGRATION_ROLE: &str = "mlflow-operator-mlflow-integration";
/// The ConfigMap of the operator's namespace with more authorities that the operator trusts, key `ca.crt`.
pub const EXTRA_CAS: &str = "agent-tracing-extra-cas";
/// The ConfigMap with the merged certificate authorities of a namespace.
pub const CA_CONFIG_MAP: &str = "agenttracing-ca";
/// Where a pod finds its service account token.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// OpenShift's service CA, as it stands beside the token.
pub const SERVICE_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt";
/// The init container that merges certificate authorities.
pub const MERGE_CA: &str = "merge-ca";
/// The volume with the merged certificate authorities.
pub const CA_VOLUME: &str = "ca-bundle";
/// Where it is mounted.
pub const CA_FOLDER: &str = "/tmp/ca-bundle";
/// The file in it.
pub const CA_FILE: &str = "combined-ca.crt";
/// The volume with the sources that are merged.
pub const CA_SOURCES_VOLUME: &str = "ca-sources";
/// Where the init container finds them.
pub const CA_SOURCES_FOLDER: &str = "/tmp/ca-sources";

/// Label selector of the operator's own objects.
pub fn operator_selector() -> String {
    format!("{LABEL_NAME}={MANAGED_BY}")
}

/// Name of all objects of a standalone server: `<AgentTracing>-mlflow`.
pub fn mlflow_object(agent_tracing: &str) -> String {
    format!("{agent_tracing}-mlflow")
}

/// Address of a standalone server inside the cluster.
pub fn mlflow_uri(agent_tracing: &str, namespace: &str, port: u16) -> String {
    format!("http://{}.{namespace}.svc:{port}", mlflow_object(agent_tracing))
}

/// Label selector of the pods of a server that the operator runs for an AgentTracing, by the application's name.
pub fn pods_of(application: &str, agent_tracing: &str) -> String {
    format!("{LABEL_NAME}={application},{LABEL_INSTANCE}={agent_tracing}")
}

/// Name of the relay's objects: `<AgentTracing>-relay`.
pub fn relay_object(agent_tracing: &str) -> String {
    format!("{agent_tracing}-relay")
}

/// Host of the relay inside the cluster.
pub fn relay_host(agent_tracing: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc", relay_object(agent_tracing))
}

/// Reasons of the events we publish.
pub mod event {
    /// A workload got its wiring.
    pub const INJECTED: &str = "Injected";
    /// A workload that matches was left alone.
    pub const INJECTION_SKIPPED: &str = "InjectionSkipped";
    /// Stripped or changed wiring was brought back.
    pub const REPAIRED: &str = "Repaired";
    /// Wiring was taken out.
    pub const REMOVED: &str = "Removed";
    /// A workload did not come back, so no other one is changed.
    pub const ROLLOUT_HALTED: &str = "RolloutHalted";
    /// MLflow answered.
    pub const MLFLOW_READY: &str = "MLflowReady";
    /// The first trace with its spans arrived.
    pub const TRACES_RECEIVED: &str = "TracesReceived";
}
