//! The init container's command as a pod runs it: the real binary, real files, and clients that trust nothing but its bundle.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use agent_tracing::core::ca_bundle::log::{LogContent, read};
use agent_tracing::core::ca_bundle::{Source, merge, system_roots};
use authorities::{Authority, certificates};

#[path = "support/authorities.rs"]
mod authorities;

#[test]
fn with_no_source_at_all_the_public_roots_are_the_bundle() {
    let pod = Pod::new("none");
    let log = pod.merge(&["--source", "/nowhere/service-ca.crt"]);
    assert!(log.contains("/nowhere/service-ca.crt: is not there"), "{log}");
    assert!(pod.bundle().len() > 100);
    openssl_loads(&pod.output());
}

#[test]
fn the_bundle_may_be_read_by_every_user_and_no_other_file_stays_beside_it() {
    let pod = Pod::new("mode");
    fs::write(pod.output().with_file_name(".combined-ca.crt.new"), "what a killed run has left").unwrap();
    pod.merge(&[]);
    assert_eq!(fs::metadata(pod.output()).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(pod.output().parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_is_broken_expired_or_empty_is_named_and_the_rest_is_merged() {
    let pod = Pod::new("broken");
    let (service, cluster) = (Authority::new("service"), Authority::new("cluster"));
    let old = Authority::until("old", 2021);
    let broken = cluster.pem().replace("-----END CERTIFICATE-----\n", "");
    // `cat a b` of files without a final newline, among them.
    pod.source("1-joined.crt", format!("{}{}", old.pem().trim_end(), service.pem().trim_end()).as_bytes());
    pod.source("2-broken.crt", format!("{broken}{}", cluster.pem()).as_bytes());
    pod.source("3-odh-ca-bundle.crt", b"");
    pod.source("4-noise.crt", &[0xff, 0xfe, 0, b'-', 0x80]);
    pod.source("5-key.crt", cluster.key_pem().as_bytes());
    pod.source("6-again.crt", service.pem().as_bytes());
    let log = pod.merge(&["--no-system-roots"]);
    assert_eq!(pod.bundle(), [service.der(), cluster.der()]);
    for line in [
        "1-joined.crt: block 1 (old) expired on 2021-01-01",
        "2-broken.crt: block 1 is broken: it has no end",
        "3-odh-ca-bundle.crt: is empty",
        "4-noise.crt: holds no PEM block",
        "5-key.crt: block 1 is a private key, which does not belong where agents can read it",
        "6-again.crt: 1 certificate was there already",
    ] {
        assert!(log.lines().any(|l| l.starts_with("merge-ca: ") && l.ends_with(line)), "no line {line}: {log}");
    }
    assert!(
        log.contains("certificates: 2 (1 of ") && !log.contains(cluster.key_pem().lines().nth(1).unwrap()),
        "{log}"
    );
    openssl_loads(&pod.output());
}

#[test]
fn the_log_names_what_is_no_public_root_once_the_bundle_is_written() {
    let pod = Pod::new("named");
    let (one, absent) = (Authority::new("one"), Authority::new("absent"));
    pod.source("1.crt", format!("{}{}", system_roots(), one.pem()).as_bytes());
    let certificate = |authority: &Authority| {
        let pem = authority.pem();
        merge(&[Source { name: "a", bytes: pem.as_bytes() }], jiff::Timestamp::now()).certificates.remove(0)
    };
    let log = pod.merge(&[]);
    let LogContent::Holds(named) = read(&log) else { panic!("{log}") };
    assert!(named.has(&certificate(&one)) && !named.has(&certificate(&absent)) && named.is_whole(), "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("merge-ca: holds ")).count(), 1, "{log}");

    fs::remove_file(pod.output()).unwrap();
    fs::create_dir(pod.output()).unwrap();
    assert_eq!(read(&pod.merge(&[])), LogContent::NotWritten);
}

#[test]
fn the_links_of_a_mounted_config_map_are_followed_once() {
    let pod = Pod::new("links");
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let hidden = pod.sources().join("..2026_08_01");
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("service-ca.crt"), one.pem()).unwrap();
    fs::write(hidden.join("ca-bundle.crt"), two.pem()).unwrap();
    symlink("..2026_08_01", pod.sources().join("..data")).unwrap();
    for key in ["service-ca.crt", "ca-bundle.crt", "gone.crt"] {
        symlink(format!("..data/{key}"), pod.sources().join(key)).unwrap();
    }
    fs::write(pod.sources().join(".swp"), "an editor's").unwrap();
    symlink("/dev/zero", pod.sources().join("endless.crt")).unwrap();
    fs::create_dir(pod.sources().join("folder")).unwrap();
    let log = pod.merge(&["--no-system-roots"]);
    assert_eq!(pod.bundle(), [two.der(), one.der()], "sorted by name");
    for line in ["gone.crt: is not there", "endless.crt: failed to read: neither", "folder: is left out"] {
        assert!(log.contains(line), "no line {line}: {log}");
    }
    assert!(!log.contains("already") && !log.contains("/."), "{log}");
}

#[test]
fn whatever_byte_of_a_certificate_is_spoilt_openssl_loads_the_bundle() {
    let pod = Pod::new("spoilt");
    let roots = system_roots();
    let roots: Vec<_> = CertificateDer::pem_slice_iter(roots.as_bytes()).map(Result::unwrap).collect();
    let mut random = 1_u64;
    let mut pick = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut spoilt = String::new();
    for root in roots.iter().cycle().take(1_500) {
        let mut der = root.to_vec();
        // Most of what is decoded when a file is loaded stands in front.
        let at = pick(der.len().min(300));
        der[at] = [0, 1, 3, 12, 0x1e, 0x30, 0x31, 0x80, 0xff, pick(256) as u8][pick(10)];
        spoilt += &format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    }
    pod.source("spoilt.crt", spoilt.as_bytes());
    pod.merge(&[]);
    assert!(pod.bundle().len() > roots.len() + 100, "a changed text or key is no reason to leave one out");
    openssl_loads(&pod.output());
}

#[test]
fn two_thousand_certificates_are_merged_in_no_time() {
    let pod = Pod::new("many");
    let many = certificates(2_000);
    pod.source("many.crt", many.as_bytes());
    let began = Instant::now();
    pod.merge(&[]);
    let took = began.elapsed();
    println!("2,000 certificates of {} bytes and the roots in {took:?}", many.len());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(pod.bundle().len() > 2_100);
    openssl_loads(&pod.output());
}

#[test]
fn a_source_beyond_all_measure_costs_neither_the_roots_nor_the_start() {
    let pod = Pod::new("huge");
    pod.source("1.crt", &vec![b'-'; 6 << 20]);
    pod.source("2.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".repeat(30_000).as_bytes());
    let log = pod.merge(&[]);
    assert!(pod.bundle().len() > 100);
    assert!(log.contains("1.crt: is too long") && log.contains("more\n") && log.lines().count() < 250, "{log}");
}

#[test]
fn where_nothing_can_be_written_it_says_so_and_the_agent_starts() {
    let pod = Pod::new("unwritable");
    // As root no permission holds: a folder that is none, one that is not there, one that the kernel keeps, and a target
    // that is a folder.
    let folder = pod.root.join("folder/in/the/way");
    fs::create_dir_all(&folder).unwrap();
    let file = pod.root.join("file");
    fs::write(&file, "").unwrap();
    for output in [file.join("ca.crt"), pod.root.join("absent/ca.crt"), "/proc/ca.crt".into(), folder, "/".into()] {
        let output = output.to_str().unwrap();
        let log = succeeds(pod.command().args(["--output", output]));
        assert!(log.contains(&format!("failed to write {output}: ")), "{output}: {log}");
    }
}

#[test]
fn a_source_that_cannot_be_read_is_named() {
    let pod = Pod::new("unreadable");
    // Reading the first page of its own memory is an I/O error for everybody, root too.
    let log = pod.merge(&["--source", "/proc/self/mem"]);
    assert!(log.contains("/proc/self/mem: failed to read: "), "{log}");
    assert!(pod.bundle().len() > 100);
}

#[test]
fn a_bundle_is_replaced_and_with_nothing_to_trust_it_is_empty_and_told() {
    let pod = Pod::new("replaced");
    pod.merge(&[]);
    let log = pod.merge(&["--no-system-roots"]);
    assert_eq!(fs::read(pod.output()).unwrap(), b"");
    assert!(log.contains("without any certificate"), "{log}");
}

#[test]
fn an_argument_of_a_newer_operator_stops_no_agent() {
    let pod = Pod::new("newer");
    let log = pod.merge(&["--from-the-future", "7"]);
    assert!(log.contains("argument --from-the-future and all after it"), "{log}");
    assert!(pod.bundle().len() > 100);
}

#[test]
fn a_client_that_trusts_only_the_bundle_reaches_servers_of_both_authorities_and_of_no_other() {
    let pod = Pod::new("tls");
    let (public, service, stranger) = (Authority::new("public"), Authority::new("service"), Authority::new("stranger"));
    // The joint that breaks OpenSSL: no newline between the two.
    pod.source("ca-bundle.crt", format!("{}{}", public.pem().trim_end(), service.pem().trim_end()).as_bytes());
    pod.merge(&[]);
    let mut roots = RootCertStore::empty();
    pod.bundle().into_iter().for_each(|certificate| roots.add(certificate).unwrap());
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    assert_eq!(answer(&client, &service).unwrap(), "traces");
    assert_eq!(answer(&client, &public).unwrap(), "traces");
    let refused = answer(&client, &stranger).unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
}

/// What a server with a certificate of `authority` answers on loopback.
fn answer(client: &Arc<ClientConfig>, authority: &Authority) -> std::io::Result<String> {
    let (chain, key) = authority.signs("mlflow.redhat-ods-applications.svc");
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], PrivateKeyDer::from(key))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let socket = listener.accept().unwrap().0;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(server)).unwrap(), socket);
        // A client that does not trust it hangs up.
        let _ = stream.write_all(b"traces");
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    let name = ServerName::try_from("mlflow.redhat-ods-applications.svc").unwrap();
    let connection = ClientConnection::new(client.clone(), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    drop(stream);
    serving.join().unwrap();
    read.map(|_| text)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The library of Python and Node: it reads all of a file or nothing. `openssl crl2pkcs7` reads it the same way.
fn openssl_loads(bundle: &Path) {
    let Output { status, stderr, .. } = Command::new("openssl")
        .args(["crl2pkcs7", "-nocrl", "-out", "/dev/null", "-certfile"])
        .arg(bundle)
        .output()
        .unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

/// The folders that an agent's init container sees.
struct Pod {
    root: PathBuf,
}

impl Pod {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("merge-ca").join(name);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("ca-bundle")).unwrap();
        fs::create_dir_all(root.join("ca-sources")).unwrap();
        Self { root }
    }

    fn sources(&self) -> PathBuf {
        self.root.join("ca-sources")
    }

    fn source(&self, name: &str, bytes: &[u8]) {
        fs::write(self.sources().join(name), bytes).unwrap();
    }

    fn output(&self) -> PathBuf {
        self.root.join("ca-bundle/combined-ca.crt")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-tracing-operator"));
        command.args(["merge-ca", "--source"]).arg(self.sources()).env_clear();
        command
    }

    /// Runs the command and returns what it said.
    fn merge(&self, arguments: &[&str]) -> String {
        succeeds(self.command().arg("--output").arg(self.output()).args(arguments))
    }

    fn bundle(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.output()).unwrap().collect::<Result<_, _>>().unwrap()
    }
}

/// Whatever happens, the exit code is 0.
fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let log = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stdout.is_empty(), "{status}: {log}");
    log
}
