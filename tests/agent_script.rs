//! The merge in the agent's own image, under every shell that this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_tracing::core::ca_bundle::log::{LogContent, NamedCertificates, read};
use agent_tracing::core::ca_bundle::{
    AGENT_SCRIPT, BundledCertificate, MAX_BYTES, OUTPUT, SOURCES_DIRECTORY, Source, merge,
};
use authorities::{Authority, certificates};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

#[path = "support/authorities.rs"]
mod authorities;

const SERVICE_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt";
const DEBIAN: &str = "/etc/ssl/certs/ca-certificates.crt";
const RED_HAT: &str = "/etc/pki/tls/certs/ca-bundle.crt";

#[test]
fn the_images_bundle_and_every_source_are_merged_each_on_lines_of_its_own() {
    for image in images("merged") {
        let [public, service, config, user] = ["public", "service", "config", "user"].map(Authority::new);
        image.has(DEBIAN, public.pem().trim_end());
        image.has(SERVICE_CA, service.pem().trim_end());
        image.has("/tmp/ca-sources/a.crt", &config.pem().replace('\n', "\r\n"));
        image.has("/tmp/ca-sources/b c.crt", &format!("\u{feff}{}", user.pem()));
        image.has("/tmp/ca-sources/.hidden", &Authority::new("hidden").pem());
        let log = image.merges();
        assert_eq!(image.bundle(), [public.der(), service.der(), config.der(), user.der()], "{log}");
        assert!(log.contains(&format!("{DEBIAN}: gives 1\n")), "{log}");
    }
}

#[test]
fn odd_sources_cost_no_other_its_place_and_are_named() {
    for image in images("odd") {
        let [public, one, two, three] = ["public", "one", "two", "three"].map(Authority::new);
        image.has(RED_HAT, &format!("# Red Hat\n{}\n# and so on\n", public.pem()));
        image.has("/tmp/ca-sources/1-empty.crt", "");
        image.has("/tmp/ca-sources/2-text.crt", "none\n");
        image.has("/tmp/ca-sources/3-open.crt", &format!("{}{}", one.pem().replace("-----END", ""), two.pem()));
        image.has("/tmp/ca-sources/4-key.crt", &format!("{}{}", one.key_pem(), three.pem().trim_end()));
        image.has("/tmp/ca-sources/5-joined.crt", &format!("{}{}", one.pem().trim_end(), two.pem()));
        image.has("/tmp/ca-sources/6-trusted.crt", &one.pem().replace(" CERT", " TRUSTED CERT"));
        image.has("/tmp/ca-sources/7-spoilt.crt", &one.pem().replace("MII", "M(I"));
        image.has(
            "/tmp/ca-sources/8-backslash.crt",
            &format!("\\c %s $(exit 1) `exit 1`\n# C:\\certs\\\n{}", three.pem()),
        );
        fs::write(image.path("/tmp/ca-sources/9-noise.crt"), [0xff, 0, b'\n', 0xc3, 0x28, b'-']).unwrap();
        fs::create_dir(image.path("/tmp/ca-sources/folder")).unwrap();
        std::os::unix::fs::symlink("gone", image.path("/tmp/ca-sources/link")).unwrap();
        let log = image.merges();
        let expected = [&public, &two, &three, &one, &two, &three].map(Authority::der);
        assert_eq!(image.bundle(), expected, "{log}");
        for file in ["1-empty", "2-text", "6-trusted", "7-spoilt", "9-noise"] {
            assert!(log.contains(&format!("/tmp/ca-sources/{file}.crt: holds no certificate\n")), "{file}: {log}");
        }
        assert!(
            log.contains("folder: is not a file\n") && log.contains(&format!("{SERVICE_CA}: is not there\n")),
            "{log}"
        );
        // Nothing else is in it: no key, no text.
        let text = fs::read_to_string(image.path(OUTPUT)).unwrap();
        let base64 = |line: &str| line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        let fine = |line: &str| {
            base64(line) || ["-----BEGIN", "-----END"].contains(&line.strip_suffix(" CERTIFICATE-----").unwrap())
        };
        assert!(text.lines().all(fine) && !text.contains(one.key_pem().lines().nth(1).unwrap()), "{text}");
    }
}

#[test]
fn the_first_bundle_that_holds_certificates_is_the_images() {
    for image in images("first") {
        let [debian, suse] = ["debian", "suse"].map(Authority::new);
        image.has(RED_HAT, "\n");
        image.has(DEBIAN, &debian.pem());
        image.has("/etc/ssl/ca-bundle.pem", &suse.pem());
        let log = image.merges();
        assert_eq!(image.bundle(), [debian.der()], "{log}");
    }
}

#[test]
fn an_image_without_a_bundle_gives_certifis() {
    for image in images("certifi") {
        let certifi = Authority::new("certifi");
        image.has("/site-packages/cacert.pem", &certifi.pem());
        image.has("/bin/python3", &format!("#!/bin/sh\necho {}\n", image.path("/site-packages/cacert.pem").display()));
        let log = image.merges();
        assert_eq!(image.bundle(), [certifi.der()], "{log}");
    }
}

#[test]
fn an_image_with_nothing_starts_all_the_same_and_says_what_it_lacks() {
    for image in images("nothing") {
        image.has("/bin/python3", "#!/bin/sh\necho no module named certifi >&2\nexit 1\n");
        fs::remove_dir(image.path(SOURCES_DIRECTORY)).unwrap();
        let log = image.merges();
        assert_eq!(fs::read(image.path(OUTPUT)).unwrap(), b"");
        for line in [
            "the image has no public certificate authorities".to_owned(),
            format!("{SERVICE_CA}: is not there"),
            format!("{SOURCES_DIRECTORY}: is not there"),
            "without any certificate".to_owned(),
        ] {
            assert!(log.contains(&line), "no line {line}: {log}");
        }
    }
}

#[test]
fn where_nothing_can_be_written_the_agent_starts_and_what_was_there_stays() {
    for image in images("unwritable") {
        image.has(DEBIAN, &Authority::new("public").pem());
        fs::remove_dir(image.path("/tmp/ca-bundle")).unwrap();
        let log = image.merges();
        assert!(log.contains("failed to write"), "{log}");
        assert_eq!(read(&log), LogContent::NotWritten);

        // The bundle's place is taken by a folder that is not empty.
        fs::create_dir_all(image.path(OUTPUT)).unwrap();
        fs::create_dir_all(image.path("/tmp/ca-bundle/.combined-ca.crt.new/x")).unwrap();
        let log = image.merges();
        assert!(log.contains("failed to write"), "{log}");
        assert!(image.path(OUTPUT).is_dir());
    }
}

#[test]
fn the_log_names_what_the_sources_gave_and_nothing_of_a_key_between() {
    for image in images("named") {
        let [public, service, one, two, absent] = ["public", "service", "one", "two", "absent"].map(Authority::new);
        image.has(DEBIAN, &public.pem());
        image.has(SERVICE_CA, &service.pem().replace('\n', "\r\n"));
        let in_one_line = two.pem().replace('\n', "").replace("-----", "\n-----\n");
        let in_one_line = in_one_line.replace("-----\nBEGIN CERTIFICATE\n-----", "-----BEGIN CERTIFICATE-----");
        let in_one_line = in_one_line.replace("-----\nEND CERTIFICATE\n-----", "-----END CERTIFICATE-----");
        image.has("/tmp/ca-sources/a.crt", &format!("{}{}{in_one_line}", one.pem(), one.key_pem()));
        let log = image.merges();
        let named = named(&log);
        for authority in [&service, &one, &two] {
            assert!(named.has(&certificate(authority)), "{log}");
        }
        assert!(!named.has(&certificate(&public)) && !named.has(&certificate(&absent)) && named.is_whole(), "{log}");
        assert!(one.key_pem().lines().filter(|line| !line.starts_with('-')).all(|line| !log.contains(line)), "{log}");
    }
}

#[test]
fn of_hundreds_the_log_names_some_and_says_so() {
    for image in images("hundreds") {
        image.has("/tmp/ca-sources/a.crt", &certificates(600));
        let log = image.merges();
        assert!(!named(&log).is_whole() && log.ends_with("named 500 of 600 certificates beyond the public ones\n"));
    }
}

fn certificate(authority: &Authority) -> BundledCertificate {
    let pem = authority.pem();
    merge(&[Source { name: "a", bytes: pem.as_bytes() }], Timestamp::now()).certificates.remove(0)
}

#[track_caller]
fn named(log: &str) -> NamedCertificates {
    match read(log) {
        LogContent::Holds(named) => named,
        other => panic!("{other:?}: {log}"),
    }
}

#[test]
fn many_certificates_take_seconds_at_most() {
    let many = certificates(2_000);
    assert!(many.len() < MAX_BYTES);
    for image in images("many") {
        image.has(DEBIAN, &many);
        let began = std::time::Instant::now();
        image.merges();
        println!("{}: 2,000 certificates in {:?}", image.shell.join(" "), began.elapsed());
        assert_eq!(image.bundle().len(), 2_000);
        assert!(began.elapsed().as_secs() < 30);
    }
}

/// An agent's image with a shell.
struct Image {
    shell: &'static [&'static str],
    root: PathBuf,
}

/// One for each shell of this machine; a plain `sh` is there in any case.
fn images(test: &str) -> impl Iterator<Item = Image> {
    let shells: [&[&str]; 4] = [&["/bin/sh"], &["/bin/dash"], &["/bin/bash", "--posix"], &["/bin/busybox", "sh"]];
    shells.into_iter().filter(|shell| Path::new(shell[0]).exists()).map(move |shell| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("agent-script")
            .join(test)
            .join(shell.join("").replace('/', "_"));
        let _ = fs::remove_dir_all(&root);
        let image = Image { shell, root };
        for folder in ["/tmp/ca-bundle", SOURCES_DIRECTORY, "/bin"] {
            fs::create_dir_all(image.path(folder)).unwrap();
        }
        image
    })
}

impl Image {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn has(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Runs the script as the init container does and returns what it says, with paths as the image knows them.
    fn merges(&self) -> String {
        // The machine's own python3 is not the image's; what the script may use comes from a folder of links.
        for tool in ["mv", "rm", "chmod"] {
            let link = self.path("/bin").join(tool);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(Path::new("/bin").join(tool), link).unwrap();
        }
        let output = Command::new(self.shell[0])
            .args(&self.shell[1..])
            .args(["-c", AGENT_SCRIPT, "merge-ca"])
            .arg(&self.root)
            .env_clear()
            .env("PATH", self.path("/bin"))
            .env("LANG", "C.UTF-8")
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr).replace(self.root.to_str().unwrap(), "");
        assert!(output.status.success() && output.stdout.is_empty(), "{}: {log}", self.shell[0]);
        log
    }

    fn bundle(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.path(OUTPUT)).unwrap().collect::<Result<_, _>>().unwrap()
    }
}
