//! `run`: the options of the operator.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::core::settings::MergeCa;
use crate::names;
use crate::tls::CertificateSource;

/// Flags of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Namespace of the operator: its lease, its certificate authority, the webhook's Service.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::OPERATOR_NAMESPACE)]
    pub namespace: String,
    /// Name of this replica in the lease; unique among the replicas. Default: host name and process id.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Address of the webhook (HTTPS). `[::]` is every address of both families.
    #[arg(long, default_value = "[::]:9443")]
    pub webhook_addr: SocketAddr,
    /// Address of /livez, /readyz and /metrics (HTTP).
    #[arg(long, default_value = "[::]:8080")]
    pub http_addr: SocketAddr,
    /// DNS domain of the cluster.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// What to log: error, warn, info, debug, trace, or by target, as in `info,kube=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// A further DNS name or IP address of a self-managed certificate, where the webhook is not called through its Service.
    /// Repeatable.
    #[arg(long)]
    pub webhook_host: Vec<String>,
    /// Who makes the webhook's certificate and writes caBundle.
    #[arg(long, env = "CERTIFICATE_SOURCE", value_enum, default_value_t = CertificateSource::SelfManaged)]
    pub certificate_source: CertificateSource,
    /// Folder with tls.crt and tls.key, where it is not the operator that makes the certificate.
    #[arg(long, default_value = names::WEBHOOK_TLS_FOLDER)]
    pub certificate_dir: PathBuf,
    /// File with certificate authorities, one of which must have signed the certificate of whoever calls the webhook: the one
    /// that the API servers show. Without it anybody who reaches the port gets an answer.
    #[arg(long, env = "WEBHOOK_CLIENT_CA", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub webhook_client_ca: Option<String>,
    /// Hosts of MLflow servers that the operator may ask, besides its own servers and the one that the MLflow resource names.
    /// They are shown no token. Each as host or host:port. Others are wired and not observed.
    #[arg(long, env = "TRUSTED_MLFLOW_HOSTS", value_delimiter = ',')]
    pub trusted_mlflow_hosts: Vec<String>,
    /// Hosts that the operator may ask and that it shows the token of ServiceAccount agent-tracing-observer, besides the server
    /// that the MLflow resource names. Each as host:port, or host for every port.
    #[arg(long, env = "MLFLOW_TOKEN_HOSTS", value_delimiter = ',')]
    pub mlflow_token_hosts: Vec<String>,
    /// Namespaces whose AgentTracings may create the MLflow resource (mlflow.cr.create).
    #[arg(long, env = "CREATE_MLFLOW_NAMESPACES", value_delimiter = ',')]
    pub create_mlflow_namespaces: Vec<String>,
    /// Namespaces in which nothing is ever wired, whatever their labels say, besides the cluster's own and the operator's.
    #[arg(long, env = "EXCLUDED_NAMESPACES", value_delimiter = ',')]
    pub excluded_namespaces: Vec<String>,
    /// Beginnings of the images that a standalone MLflow may run, for example ghcr.io/mlflow/mlflow. Empty: any.
    #[arg(long, env = "ALLOWED_MLFLOW_IMAGES", value_delimiter = ',')]
    pub allowed_mlflow_images: Vec<String>,
    /// The ClusterRole that agents are bound to in mode CR.
    #[arg(long, env = "INTEGRATION_CLUSTER_ROLE", default_value = names::INTEGRATION_ROLE)]
    pub integration_cluster_role: String,
    /// Most workloads of the whole cluster that are unavailable at a time because of the operator.
    #[arg(long, env = "MAX_CONCURRENT_ROLLOUTS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_concurrent_rollouts: u16,
    /// File, or folder of files, with certificate authorities that the operator trusts besides the public ones. Repeatable.
    #[arg(long, default_values = CA_FILES)]
    pub ca_file: Vec<PathBuf>,
    /// Image of the init container that merges certificate authorities: the operator's own.
    #[arg(long, env = "MERGE_CA_IMAGE", value_parser = image, default_value_t = MergeCa::default().image)]
    pub merge_ca_image: String,
    /// Pull Secrets for that image, by their names in the agents' namespaces.
    #[arg(long, env = "MERGE_CA_PULL_SECRETS", value_delimiter = ',')]
    pub merge_ca_pull_secrets: Vec<String>,
}

/// OpenShift's service CA as it stands beside the token, and what the install mounts.
const CA_FILES: [&str; 2] = [names::SERVICE_CA, "/etc/agent-tracing/ca"];

/// What stands in agents' templates is checked here: with an image that is none, the API server would refuse every one.
fn image(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(
            "write the name of an image, for example ghcr.io/agenttracing/agent-tracing-operator:v0.1.0".to_owned()
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_spoil_every_template_ends_the_operator_at_its_start() {
        assert!(image("r.example.com/a@sha256:0").is_ok());
        assert!(image("").is_err() && image("a b").is_err() && image("a\n").is_err());
    }
}
