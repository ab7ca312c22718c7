//! Where the serving certificate comes from, and that the API server trusts it.
//!
//! - **Self-managed**: the authority lives in one Secret that every replica tries to create; whoever comes second reads it.
//!   Each replica signs its own certificate with it, in memory. Only the leader rotates the authority and writes `caBundle`,
//!   step by step as [`rotation`] says. Nothing is mounted: a Secret volume that does not exist yet keeps a
//!   pod from starting.
//! - **cert-manager** and **OpenShift's service CA**: somebody else writes the certificate, which is mounted, and `caBundle`.
//!
//! A replica is ready when a client that trusts nothing but the published `caBundle` believes its certificate.

pub mod authority;
mod bundle;
mod callers;
pub mod clock;
mod mounted;
pub mod rotation;
mod secret;
pub mod serving;

use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use self::authority::Leaf;
use self::bundle::Configuration;
use self::clock::Clock;
use self::secret::SecretState;
use self::serving::Serving;
use crate::core::kubectl::Kubectl;
use crate::names;
use crate::telemetry::{Metrics, Readiness, error_chain};

/// Readiness checks that [`Certificates::keep`] passes.
pub const CHECKS: [&str; 3] = [CERTIFICATE, CA_BUNDLE, CALLERS];

/// Who makes the serving certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum CertificateSource {
    /// The operator: nothing else is needed.
    SelfManaged,
    /// cert-manager, which also writes caBundle.
    CertManager,
    /// OpenShift's service CA, which also writes caBundle.
    #[value(name = "ServiceCA")]
    ServiceCa,
}

/// What [`Certificates`] are for and made of.
pub struct CertificateOptions {
    /// Namespace of the operator.
    pub namespace: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Further names or addresses of a self-managed certificate.
    pub more_hosts: Vec<String>,
    /// Who makes the certificate.
    pub source: CertificateSource,
    /// Where it is mounted, unless it is self-managed.
    pub folder: PathBuf,
    /// File with the authority whose certificates callers have to show; `None`: anybody may call.
    pub client_ca: Option<PathBuf>,
    /// The time by which everything is judged.
    pub clock: Arc<dyn Clock>,
}

/// The certificates of one replica.
pub struct Certificates {
    client: Client,
    namespace: String,
    hosts: Vec<String>,
    source: CertificateSource,
    folder: PathBuf,
    client_ca: Option<PathBuf>,
    callers: watch::Sender<Option<Arc<dyn ClientCertVerifier>>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    state: watch::Sender<Option<SecretState>>,
    leaf: watch::Sender<Option<Leaf>>,
    configuration: watch::Sender<Configuration>,
    serving: watch::Sender<Option<Serving>>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
}

impl Certificates {
    /// Certificates for the webhook's Service.
    pub fn new(client: Client, options: CertificateOptions, metrics: Arc<Metrics>) -> Self {
        let CertificateOptions { namespace, cluster_domain, more_hosts, source, folder, client_ca, clock } = options;
        let service = format!("{}.{namespace}.svc", names::WEBHOOK_SERVICE);
        let hosts = [vec![service.clone(), format!("{service}.{cluster_domain}")], more_hosts].concat();
        Self {
            client,
            namespace,
            hosts,
            source,
            folder,
            client_ca,
            callers: watch::Sender::new(None),
            clock,
            metrics,
            state: watch::Sender::new(None),
            leaf: watch::Sender::new(None),
            configuration: watch::Sender::new(Configuration::Unknown),
            serving: watch::Sender::new(None),
            tls: watch::Sender::new(None),
        }
    }

    /// What to serve with: changes in time before a certificate expires.
    pub fn serving(&self) -> watch::Receiver<Option<Arc<ServerConfig>>> {
        self.tls.subscribe()
    }

    /// What every replica does, for ever: serve a fresh certificate, know what is published.
    pub async fn keep(&self, readiness: &Readiness) -> Infallible {
        let certificate = async {
            match self.source {
                CertificateSource::SelfManaged => {
                    futures::join!(self.hold_authorities(readiness), self.sign_in_time(readiness)).0
                }
                CertificateSource::CertManager | CertificateSource::ServiceCa => self.poll_folder(readiness).await,
            }
        };
        futures::join!(
            certificate,
            self.follow_configuration(),
            self.compare(readiness),
            self.follow_callers(readiness)
        )
        .0
    }

    /// What only the leader does, for ever: rotate the authority and publish it, where it is ours.
    pub async fn lead(&self) -> Infallible {
        match self.source {
            CertificateSource::SelfManaged => self.rotate().await,
            CertificateSource::CertManager | CertificateSource::ServiceCa => pending().await,
        }
    }

    fn serve(&self, serving: Serving) {
        self.metrics.certificate_expires(serving.validity().until.as_second());
        self.serving.send_replace(Some(serving));
        self.offer();
    }

    /// What new connections get; nothing while it is not known who may call.
    fn offer(&self) {
        let Some(serving) = self.serving.borrow().clone() else { return };
        let offered = match (&self.client_ca, self.callers.borrow().clone()) {
            (None, _) => Ok(serving.config().clone()),
            (Some(_), Some(callers)) => serving.config_for(callers),
            (Some(_), None) => return,
        };
        match offered {
            Ok(config) => drop(self.tls.send_replace(Some(config))),
            Err(error) => tracing::warn!(%error, "the client CA cannot be used"),
        }
    }

    async fn follow_configuration(&self) -> Infallible {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let mut seen = pin!(watch_object(configurations, names::WEBHOOK_CONFIGURATION).default_backoff());
        loop {
            match seen.next().await {
                Some(Ok(configuration)) => {
                    self.configuration.send_replace(Configuration::of(configuration));
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        error = error_chain(&error),
                        "watch of the webhook configuration failed; trying again"
                    );
                }
                None => pending().await,
            }
        }
    }

    async fn compare(&self, readiness: &Readiness) -> Infallible {
        let (mut serving, mut configuration) = (self.serving.subscribe(), self.configuration.subscribe());
        loop {
            let ours = serving.borrow_and_update().clone();
            let seen = configuration.borrow_and_update().clone();
            match self.untrusted(ours.as_ref(), &seen) {
                None => readiness.pass(CA_BUNDLE),
                Some(why) => readiness.fail(CA_BUNDLE, why),
            }
            tokio::select! {
                _ = serving.changed() => {}
                _ = configuration.changed() => {}
                () = self.clock.wait(TICK) => {}
            }
        }
    }

    /// Why the API server does not trust us yet.
    fn untrusted(&self, serving: Option<&Serving>, configuration: &Configuration) -> Option<String> {
        let name = names::WEBHOOK_CONFIGURATION;
        let Some(serving) = serving else { return Some("there is no certificate yet".to_owned()) };
        let trusts = |bundle: &Vec<u8>| {
            // The name by which the API server calls.
            self.hosts.first().is_some_and(|host| serving.is_trusted(bundle, host, self.clock.now()))
        };
        let annotations = Kubectl::new("get mutatingwebhookconfiguration").arg(name).jsonpath(".metadata.annotations");
        match configuration {
            Configuration::Unknown => Some(format!("MutatingWebhookConfiguration {name} has not been read yet")),
            Configuration::Absent => Some(format!(
                "there is no MutatingWebhookConfiguration {name}; apply the operator's manifests again (config/webhook)"
            )),
            Configuration::Present(_) if configuration.bundles().iter().all(trusts) => None,
            Configuration::Present(_) => Some(format!(
                "caBundle of MutatingWebhookConfiguration {name} is not ours yet; {}",
                match self.source {
                    CertificateSource::SelfManaged => "the leader writes it".to_owned(),
                    CertificateSource::CertManager =>
                        format!("cert-manager's cainjector writes it; look: {annotations}"),
                    CertificateSource::ServiceCa => format!("OpenShift's service CA writes it; look: {annotations}"),
                }
            )),
        }
    }
}

const CERTIFICATE: &str = "certificate";
const CA_BUNDLE: &str = "ca-bundle";
const CALLERS: &str = "client-ca";
/// How often the wall clock is looked at.
const TICK: Duration = Duration::from_secs(60);
