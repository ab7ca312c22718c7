//! One replica: certificates, and an HTTPS server that uses them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_tracing::http_server::{Drain, Limits, serve};
use agent_tracing::telemetry::{Metrics, Readiness};
use agent_tracing::tls::clock::{Clock, WallClock};
use agent_tracing::tls::{CHECKS, CertificateOptions, CertificateSource, Certificates};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, soon};

pub const HOST: &str = "agent-tracing-webhook.operators.svc";

pub struct Replica {
    pub address: SocketAddr,
    pub readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    certificates: Arc<Certificates>,
    tasks: Vec<JoinHandle<()>>,
    _open: watch::Sender<Drain>,
}

#[derive(PartialEq)]
pub enum Leads {
    Yes,
    No,
}

impl Replica {
    /// By the wall clock.
    pub async fn start(cluster: &Cluster, leads: Leads) -> Self {
        let mut replica = Self::with(cluster, Arc::new(WallClock), CertificateSource::SelfManaged, Path::new("")).await;
        if leads == Leads::Yes {
            replica.lead();
        }
        replica
    }

    pub async fn with(cluster: &Cluster, clock: Arc<dyn Clock>, source: CertificateSource, folder: &Path) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let readiness = Arc::new(Readiness::new(CHECKS));
        let metrics = Arc::new(Metrics::default());
        let options = CertificateOptions {
            namespace: "operators".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            more_hosts: Vec::new(),
            source,
            folder: PathBuf::from(folder),
            client_ca: None,
            clock,
        };
        let certificates = Arc::new(Certificates::new(cluster.client(), options, metrics.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(Drain::Open);
        let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
        let server = serve(listener, Some(certificates.serving()), router, Limits::default(), open.subscribe());
        let (keeper, checks) = (certificates.clone(), readiness.clone());
        let keep = async move { match keeper.keep(&checks).await {} };
        let tasks = vec![tokio::spawn(server), tokio::spawn(keep)];
        Self { address, readiness, metrics, certificates, tasks, _open: open }
    }

    pub fn lead(&mut self) {
        let certificates = self.certificates.clone();
        self.tasks.push(tokio::spawn(async move { match certificates.lead().await {} }));
    }

    pub fn is_ready_now(&self) -> bool {
        self.readiness.report().0
    }

    pub async fn is_ready(&self) {
        soon(|| self.readiness.report().0, || self.readiness.report().1).await;
    }

    pub async fn lacks(&self, reason: &str) {
        soon(|| self.readiness.report().1.contains(reason), || self.readiness.report().1).await;
    }

    /// When the certificate expires, as the metric says.
    pub fn expires(&self) -> i64 {
        let name = "agent_tracing_webhook_certificate_expiry_timestamp_seconds ";
        self.metrics.text().lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    }

    pub async fn answers_whoever_trusts(&self, bundle: &[u8]) -> Result<(), String> {
        let answer = self.client(bundle).get(self.url()).send().await.map_err(|error| format!("{error:?}"))?;
        assert_eq!(answer.text().await.unwrap(), "hello");
        Ok(())
    }

    pub fn client(&self, bundle: &[u8]) -> reqwest::Client {
        let roots = reqwest::Certificate::from_pem_bundle(bundle).unwrap();
        reqwest::Client::builder().tls_certs_only(roots).resolve(HOST, self.address).no_proxy().build().unwrap()
    }

    pub fn url(&self) -> String {
        format!("https://{HOST}:{}/", self.address.port())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
