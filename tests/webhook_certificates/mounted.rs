//! Certificates that cert-manager or OpenShift makes, in a folder as the kubelet keeps it: links to links, of which one is
//! swapped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_tracing::core::ca_bundle::pem_block;
use agent_tracing::tls::CertificateSource;
use agent_tracing::tls::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::cluster::{CONFIGURATION, Cluster};
use crate::replica::{HOST, Replica};
use crate::walk::{DAY, MINUTE, Walked, call, settled, start};

#[tokio::test]
async fn a_pod_starts_without_its_certificate_says_what_to_type_and_is_ready_when_it_comes() {
    for (source, command) in [
        (CertificateSource::CertManager, "kubectl describe -n operators certificate agent-tracing-webhook"),
        (CertificateSource::ServiceCa, "kubectl describe -n operators service agent-tracing-webhook"),
    ] {
        let scene = Scene::begin(source, "absent").await;
        scene.after(MINUTE).await;
        let report = scene.replica.readiness.report().1;
        assert!(report.contains("failed to read tls.crt") && report.contains("No such file"), "{report}");
        assert!(report.contains("Secret agent-tracing-webhook-tls") && report.contains(command), "{report}");

        let maker = Maker::new("one");
        scene.mounts(&maker.pair(HOST, 90));
        scene.after(MINUTE).await;
        let report = scene.replica.readiness.report().1;
        assert!(report.contains("[+] certificate") && report.contains("is not ours yet"), "{report}");
        assert!(report.contains("kubectl get mutatingwebhookconfiguration agent-tracing-webhook"), "{report}");
        scene.publishes(&maker);
        scene.after(MINUTE).await;
        assert!(scene.replica.is_ready_now(), "{}", scene.replica.readiness.report().1);
        assert_eq!(scene.replica.expires(), (start() + 90 * DAY).as_second());
        assert_eq!(scene.cluster.writes(), [] as [&str; 0], "no Secret and no caBundle are ours");
        assert!(scene.cluster.get("secrets").is_none());
    }
}

#[tokio::test]
async fn a_swapped_link_is_served_from_the_next_handshake_on() {
    let scene = Scene::begin(CertificateSource::CertManager, "swapped").await;
    let maker = Maker::new("one");
    scene.publishes(&maker);
    let pairs = [maker.pair(HOST, 90), maker.pair(HOST, 91), maker.pair(HOST, 92)];
    for (days, pair) in (90..).zip(&pairs) {
        scene.mounts(pair);
        scene.after(MINUTE / 4).await;
        assert_eq!(scene.shown().await.unwrap(), pair.leaf);
        assert_eq!(scene.replica.expires(), (start() + days * DAY).as_second());
        assert!(scene.replica.is_ready_now());
    }
    // Also in place, as a test or a volume without links may do it.
    fs::write(scene.folder.join("..data/tls.key"), &pairs[0].key).unwrap();
    fs::write(scene.folder.join("..data/tls.crt"), &pairs[0].chain).unwrap();
    scene.after(MINUTE / 4).await;
    assert_eq!(scene.shown().await.unwrap(), pairs[0].leaf);
}

#[tokio::test]
async fn whatever_cannot_be_served_leaves_the_one_before_in_place() {
    let scene = Scene::begin(CertificateSource::CertManager, "broken").await;
    let maker = Maker::new("one");
    scene.publishes(&maker);
    let good = maker.pair(HOST, 90);
    scene.mounts(&good);
    scene.after(MINUTE).await;
    let other = maker.pair(HOST, 90);
    let broken = [
        Pair { chain: "garbage".to_owned(), ..other.clone() },
        Pair { chain: String::new(), ..other.clone() },
        Pair { key: "garbage".to_owned(), ..other.clone() },
        Pair { key: good.key.clone(), ..other.clone() },
        maker.pair("other.svc", 90),
        maker.pair(HOST, -1),
    ];
    for pair in broken {
        scene.mounts(&pair);
        scene.after(MINUTE).await;
        assert_eq!(scene.shown().await.unwrap(), good.leaf);
        assert!(scene.replica.is_ready_now(), "{}", scene.replica.readiness.report().1);
        assert_eq!(scene.replica.expires(), (start() + 90 * DAY).as_second());
    }
    fs::remove_file(scene.folder.join("..data")).unwrap();
    scene.after(MINUTE).await;
    assert!(scene.replica.is_ready_now());
    scene.mounts(&other);
    scene.after(MINUTE).await;
    assert_eq!(scene.shown().await.unwrap(), other.leaf);
}

#[tokio::test]
async fn a_certificate_that_nobody_renews_is_told_when_it_is_over() {
    let scene = Scene::begin(CertificateSource::ServiceCa, "expired").await;
    let maker = Maker::new("one");
    scene.publishes(&maker);
    scene.mounts(&maker.pair(HOST, 2));
    scene.after(MINUTE).await;
    assert!(scene.replica.is_ready_now());
    scene.after(3 * DAY).await;
    let report = scene.replica.readiness.report().1;
    assert!(report.contains("expired at 2026-03-03") && report.contains("kubectl describe"), "{report}");
    scene.mounts(&maker.pair(HOST, 90));
    scene.after(MINUTE).await;
    assert!(scene.replica.is_ready_now());
}

#[tokio::test]
async fn what_stands_between_a_certificate_and_the_bundle_is_served_with_it() {
    let scene = Scene::begin(CertificateSource::CertManager, "chain").await;
    let root = Maker::new("root");
    let between = root.below("between");
    let pair = between.pair(HOST, 90);
    scene.publishes(&root);
    scene.mounts(&pair);
    scene.after(MINUTE).await;
    assert!(!scene.replica.is_ready_now());
    scene.mounts(&Pair { chain: format!("{}{}", pair.chain, pem_block(&between.certificate)), ..pair.clone() });
    scene.after(MINUTE).await;
    assert!(scene.replica.is_ready_now(), "{}", scene.replica.readiness.report().1);
    assert_eq!(scene.shown().await.unwrap(), pair.leaf);
}

#[tokio::test]
async fn a_bundle_that_no_longer_vouches_for_the_certificate_ends_readiness() {
    let scene = Scene::begin(CertificateSource::CertManager, "vouch").await;
    let (one, two) = (Maker::new("same"), Maker::new("same"));
    scene.publishes(&one);
    scene.mounts(&one.pair(HOST, 90));
    scene.after(MINUTE).await;
    assert!(scene.replica.is_ready_now());
    scene.publishes(&two);
    scene.after(MINUTE).await;
    assert!(!scene.replica.is_ready_now());
}

/// One replica that is told to lead, its folder and who calls it.
struct Scene {
    cluster: Cluster,
    clock: Arc<Walked>,
    folder: PathBuf,
    replica: Replica,
}

impl Scene {
    async fn begin(source: CertificateSource, name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("certificates-{name}-{source:?}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let (cluster, clock) = (Cluster::new(), Walked::at(start()));
        let mut replica = Replica::with(&cluster, clock.clone(), source, &folder).await;
        replica.lead();
        Self { cluster, clock, folder, replica }
    }

    /// As the kubelet does it: a new folder, a link to it that takes the place of the old one, links to the files.
    fn mounts(&self, pair: &Pair) {
        let mut versions = (1..).map(|number| format!("..2026_03_01_{number}"));
        let version = versions.find(|version| !self.folder.join(version).exists()).unwrap();
        fs::create_dir(self.folder.join(&version)).unwrap();
        fs::write(self.folder.join(&version).join("tls.crt"), &pair.chain).unwrap();
        fs::write(self.folder.join(&version).join("tls.key"), &pair.key).unwrap();
        symlink(&version, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
        for file in ["tls.crt", "tls.key"] {
            let _ = symlink(format!("..data/{file}"), self.folder.join(file));
        }
    }

    /// As cert-manager's cainjector does it.
    fn publishes(&self, maker: &Maker) {
        let mut configuration = self.cluster.get(CONFIGURATION).unwrap();
        let bundle = ByteString(pem_block(&maker.certificate).into_bytes());
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(bundle);
        self.cluster.set(CONFIGURATION, Some(configuration));
    }

    async fn after(&self, time: Duration) {
        settled().await;
        self.clock.set(self.clock.now() + time);
        settled().await;
    }

    async fn shown(&self) -> Result<CertificateDer<'static>, String> {
        call(self.replica.address, &self.cluster.bundle(), &self.clock).await
    }
}

/// Who makes certificates.
struct Maker {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a Secret of type kubernetes.io/tls holds.
#[derive(Clone)]
struct Pair {
    chain: String,
    key: String,
    leaf: CertificateDer<'static>,
}

impl Maker {
    fn new(name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn below(&self, name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    /// A certificate for `host` that ends so many days after [`start`].
    fn pair(&self, host: &str, days: i64) -> Pair {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        // rcgen does not export the type of these.
        let time =
            |at: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_second().unsigned_abs());
        params.not_before = time(start() - 10 * DAY);
        params.not_after = time(start() + SignedDuration::from_hours(24 * days));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Pair { chain: pem_block(&leaf), key: key.serialize_pem(), leaf }
    }
}
