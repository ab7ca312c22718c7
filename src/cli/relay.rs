//! `relay`: the options of the relay.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::names;

/// Flags of `relay`.
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArgs {
    /// Namespace of the AgentTracing.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of the AgentTracing whose MLflow gets the traces.
    #[arg(long)]
    pub tracing: String,
    /// Address for agents (HTTP). `[::]` is every address of both families. Repeatable.
    #[arg(long, default_values = ["[::]:5500", "[::]:4318"])]
    pub addr: Vec<SocketAddr>,
    /// Address of /livez, /readyz, /metrics and /evidence (HTTP).
    #[arg(long, default_value = "[::]:8080")]
    pub http_addr: SocketAddr,
    /// Folder for what is held until MLflow takes it. Without it memory has to do, and what is held is lost when the process ends.
    #[arg(long)]
    pub spool: Option<PathBuf>,
    /// Bytes of requests that are held at most.
    #[arg(long, default_value_t = 16 << 20)]
    pub spool_size: u64,
    /// File with the token that MLflow is shown, where the AgentTracing has it show one. Read at each use.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// File, or folder of files, with certificate authorities that are trusted besides the public ones. Repeatable.
    #[arg(long, default_value = names::SERVICE_CA)]
    pub ca_file: Vec<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or by target, as in `info,kube=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}
