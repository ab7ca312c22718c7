//! A clock that is walked, and the API server's calls on the way: each with a connection of its own, by a client that reads
//! the same clock and trusts `caBundle` and nothing else. Two API servers call: one knows `caBundle` as it is, one as it was
//! a step ago.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_tracing::tls::CertificateSource;
use agent_tracing::tls::clock::Clock;
use agent_tracing::tls::rotation::AuthoritySet;
use futures::FutureExt;
use futures::future::{BoxFuture, join, join_all};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::cluster::{Cluster, secret_of};
use crate::replica::{HOST, Replica};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(60 * 60);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than an API server takes to see a change.
const STEP: Duration = Duration::from_secs(15);

pub fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

#[derive(Debug)]
pub struct Walked(watch::Sender<Timestamp>);

impl Walked {
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(now)))
    }

    pub fn set(&self, now: Timestamp) {
        self.0.send_replace(now);
    }
}

impl Clock for Walked {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn wait(&self, time: Duration) -> BoxFuture<'static, ()> {
        let mut clock = self.0.subscribe();
        let began = *clock.borrow();
        // A timer goes on when the wall clock is set back.
        async move {
            let _ = clock.wait_for(|now| *now >= began + time || *now < began).await;
        }
        .boxed()
    }
}

impl TimeProvider for Walked {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now().as_second().unsigned_abs())))
    }
}

/// Replicas, the first of which leads, and who calls them.
pub struct World {
    pub cluster: Cluster,
    pub clock: Arc<Walked>,
    pub replicas: Vec<Replica>,
    /// Calls that were refused, and when.
    pub refused: Vec<String>,
    pub calls: usize,
    /// Replicas that were ready once: from then on each call has to succeed.
    called: BTreeSet<SocketAddr>,
    /// `caBundle` a step ago.
    before: Vec<u8>,
    /// What somebody overwrote `caBundle` with: nobody is to be believed by it.
    pub vandalised: Option<Vec<u8>>,
    changes: usize,
    changed_at: Timestamp,
}

impl World {
    /// Two replicas at `now`, with an authority that was made at [`start`].
    pub async fn aged(now: Timestamp) -> Self {
        let cluster = Cluster::new();
        cluster.set("secrets", Some(secret_of(&AuthoritySet::generate(start()).unwrap())));
        Self::begin(cluster, now).await
    }

    /// Two replicas and whatever the cluster has.
    pub async fn begin(cluster: Cluster, now: Timestamp) -> Self {
        let mut world = Self {
            cluster,
            clock: Walked::at(now),
            replicas: Vec::new(),
            refused: Vec::new(),
            calls: 0,
            called: BTreeSet::new(),
            before: Vec::new(),
            vandalised: None,
            changes: 0,
            changed_at: now,
        };
        for _ in 0..2 {
            world.add_replica().await;
        }
        world.replicas[0].lead();
        world.are_ready().await;
        world.refused.clear();
        world
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn add_replica(&mut self) {
        let replica =
            Replica::with(&self.cluster, self.clock.clone(), CertificateSource::SelfManaged, Path::new("")).await;
        self.replicas.push(replica);
    }

    /// The leader is gone without a word, the other one leads, and a new one comes.
    pub async fn kill_leader(&mut self) {
        self.replicas.remove(0);
        self.replicas[0].lead();
        self.add_replica().await;
    }

    /// Walks for minutes until every replica is ready.
    pub async fn are_ready(&mut self) {
        for _ in 0..20 {
            self.step(STEP).await;
            if self.replicas.iter().all(Replica::is_ready_now) {
                self.step(STEP).await;
                return;
            }
        }
        panic!("{}{}", self.replicas[0].readiness.report().1, self.replicas[1].readiness.report().1);
    }

    /// Walks, slowly where something changes.
    pub async fn walk(&mut self, time: Duration) {
        let end = self.clock.now() + time;
        while self.clock.now() < end {
            let quiet = self.clock.now().duration_since(self.changed_at).unsigned_abs();
            let step = match () {
                () if quiet < 2 * MINUTE => STEP,
                () if quiet < 2 * HOUR => 15 * MINUTE,
                () => 6 * HOUR,
            };
            self.step(step).await;
        }
    }

    pub async fn step(&mut self, time: Duration) {
        self.before = self.cluster.bundle();
        self.clock.set(self.clock.now() + time);
        // The calls come while the replicas are at work.
        let (calls, ()) = join(self.call_all(), settled()).await;
        self.calls += calls.len();
        let now = self.now();
        self.refused.extend(calls.into_iter().filter_map(Result::err).map(|error| format!("{now}: {error}")));
        settled().await;
        let ready = self.replicas.iter().filter(|replica| replica.is_ready_now());
        self.called.extend(ready.map(|replica| replica.address));
        if self.changes != self.cluster.changes() {
            (self.changes, self.changed_at) = (self.cluster.changes(), self.clock.now());
        }
    }

    async fn call_all(&self) -> Vec<Result<(), String>> {
        let now = self.cluster.bundle();
        let mut bundles = vec![&now];
        bundles.extend((self.before != now).then_some(&self.before));
        bundles.retain(|bundle| self.vandalised.as_ref() != Some(*bundle));
        let called = self.replicas.iter().filter(|replica| self.called.contains(&replica.address));
        let calls =
            called.flat_map(|replica| bundles.iter().map(move |bundle| call(replica.address, bundle, &self.clock)));
        join_all(calls).await.into_iter().map(|answer| answer.map(|_| ())).collect()
    }

    /// Certificates in the Secret.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let secret = self.cluster.get("secrets").unwrap();
        let text: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["tls.crt"].clone()).unwrap();
        certificates(&text.0)
    }
}

/// The certificates of a PEM bundle, in order.
pub fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).flatten().collect()
}

/// One HTTPS call over a new connection, and the certificate that was shown.
pub async fn call(address: SocketAddr, bundle: &[u8], clock: &Arc<Walked>) -> Result<CertificateDer<'static>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(bundle));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, clock.clone()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let host = ServerName::try_from(HOST).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(host, stream).await;
    let mut stream = stream.map_err(|error| error.to_string())?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    assert!(answer.ends_with(b"hello"));
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone())
}

/// Every task has done what the time asks of it: there is one thread, and the stand-in answers in it.
pub async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
