//! The operator as a process of this machine, with the rights of its service account and no other.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use agent_tracing::names;
use serde_json::{Value, json};

use super::mlflow::mlflow;
use crate::audit::Audit;
use crate::cluster::{Cluster, kubectl, operator_binary, wait_until};
use crate::proxy::{Fault, Proxy};
use crate::support::canary::assert_kept;

/// A running operator. What it was refused is found out when it ends, however it ends.
pub struct Operator {
    identity: String,
    child: Child,
    http: u16,
    pub webhook: u16,
    log: PathBuf,
    audit: Audit,
    /// By which it is known to the API server.
    token: String,
}

impl Operator {
    /// Starts it and waits until the API server calls it and it says that it is ready.
    pub fn start(identity: &str) -> Self {
        Self::start_with(identity, &[])
    }

    /// Starts it with more arguments.
    pub fn start_with(identity: &str, more: &[&str]) -> Self {
        let mut operator = Self::spawn(identity, None, more);
        point_the_webhook_at(operator.webhook);
        operator.wait_until_ready();
        operator
    }

    /// Starts one that reaches the API server through a proxy, and is called by it. It need not live long enough to be ready.
    pub fn start_through(identity: &str, proxy: &Proxy, fault: Fault) -> Self {
        Self::start_through_with(identity, proxy, fault, &[])
    }

    /// The same with more arguments.
    pub fn start_through_with(identity: &str, proxy: &Proxy, fault: Fault, more: &[&str]) -> Self {
        let operator = Self::spawn(identity, Some(&proxy.url()), more);
        proxy.begin(fault, operator.child.id());
        point_the_webhook_at(operator.webhook);
        operator
    }

    /// A further replica, which the API server does not call.
    pub fn start_beside(identity: &str) -> Self {
        let mut operator = Self::spawn(identity, None, &[]);
        operator.wait_until_ready();
        operator
    }

    fn spawn(identity: &str, server: Option<&str>, more: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let log = folder.join(format!("operator-{identity}.log"));
        let [webhook, http] = free_ports();
        let config = kubeconfig_of(&own_account(), &folder.join(format!("operator-{identity}.kubeconfig")), server);
        let token = token_in(&config);
        let child = mlflow()
            .finding_services(&operator_binary())
            .args([
                "run",
                "--namespace",
                names::OPERATOR_NAMESPACE,
                "--identity",
                identity,
                "--webhook-host",
                "127.0.0.1",
            ])
            .args(["--webhook-addr", &format!("127.0.0.1:{webhook}"), "--http-addr", &format!("127.0.0.1:{http}")])
            .args(["--log-level", "info,agent_tracing=debug", "--trusted-mlflow-hosts", "127.0.0.1"])
            .args(more)
            .env_clear()
            .env("KUBECONFIG", config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { identity: identity.to_owned(), child, http, webhook, log, audit: Audit::from_now(), token }
    }

    pub fn wait_until_ready(&mut self) {
        wait_until("the operator is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the operator ended with {status}:\n{}", self.last_words());
            }
            self.is_ready()
        });
    }

    pub fn is_ready(&self) -> bool {
        self.ask("/readyz").is_some_and(|(code, _)| code == 200)
    }

    pub fn leads(&self) -> bool {
        self.metric("agent_tracing_leader ") == 1.0
    }

    /// The sum of the series whose line begins so.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.scrape("text/plain");
        let lines = text.lines().filter(|line| line.starts_with(series));
        let values: Vec<f64> = lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty() || series.contains('{') || series.contains("_total"), "no {series} in\n{text}");
        values.iter().sum()
    }

    /// Its metrics in a format.
    pub fn scrape(&self, accept: &str) -> String {
        let (_, answer) = self.request("/metrics", &format!("accept: {accept}\r\n")).expect("metrics");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    fn ask(&self, path: &str) -> Option<(u16, String)> {
        self.request(path, "")
    }

    fn request(&self, path: &str, header: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        Some((code, answer))
    }

    pub fn writes(&self) -> Vec<crate::audit::Request> {
        self.audit.writes()
    }

    /// Forgets what it was refused: an API server that has just started knows no roles yet.
    pub fn forgive(&mut self) {
        self.audit.restart();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Neither what it says in its log and its metrics nor what it has written for people tells a secret.
    fn assert_secrets_are_kept(&self) {
        let log = std::fs::read_to_string(&self.log).unwrap();
        assert_kept("the log", &log);
        assert!(!log.contains(&self.token), "the log has the operator's token: {}", self.log.display());
        if let Some((_, metrics)) = self.ask("/metrics") {
            assert_kept("the metrics", &metrics);
        }
        if let Some((_, checks)) = self.ask("/readyz") {
            assert_kept("the readiness", &checks);
        }
        let admin = Cluster::admin();
        for event in admin.list("Event", "") {
            assert_kept("an event", &event.to_string());
        }
        for tracing in admin.list("AgentTracing", "") {
            assert_kept("a status", &tracing["status"].to_string());
        }
    }

    /// Ends it as a deployment does, but for the wait in which callers go away.
    pub fn stop(mut self) {
        self.assert_secrets_are_kept();
        self.terminate();
        wait_until("the lease is handed over", || holder() != self.identity);
        self.terminate();
        let end = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match self.has_ended() {
                Some(status) => break status,
                None => assert!(Instant::now() < end, "a second SIGTERM does not end it"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(status.code(), Some(0), "{}", self.last_words());
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // While it can still be asked.
        if !std::thread::panicking() {
            self.assert_secrets_are_kept();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the operator, {}:\n{}", self.log.display(), self.last_words());
        } else {
            let log = std::fs::read_to_string(&self.log).unwrap();
            assert!(!log.contains("\"panicked\""), "it panicked: {}", self.log.display());
            self.audit.assert_nothing_was_forbidden();
        }
    }
}

/// Who holds the lease; nobody is "".
pub fn holder() -> String {
    let lease = Cluster::admin().get("Lease", names::OPERATOR_NAMESPACE, names::LEASE);
    lease
        .map_or_else(|_| String::new(), |lease| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

/// The shipped configuration, calling a port of this machine in place of the Service. `caBundle` is the operator's.
pub fn point_the_webhook_at(port: u16) {
    let admin = Cluster::admin();
    // Whoever writes caBundle may come in between.
    wait_until("the webhook's address is written", || {
        let mut live = admin.get("MutatingWebhookConfiguration", "", names::WEBHOOK_CONFIGURATION).unwrap();
        for webhook in live["webhooks"].as_array_mut().unwrap() {
            let client = webhook["clientConfig"].as_object_mut().unwrap();
            client.remove("service");
            client.insert("url".to_owned(), json!(format!("https://127.0.0.1:{port}{}", names::WEBHOOK_PATH)));
        }
        match admin.replace(&live, "") {
            Err(refusal) if refusal.code == 409 => false,
            answer => answer.map(|_| true).unwrap(),
        }
    });
}

/// The same data, address and certificate.
pub fn restart_the_api_server() {
    let restarted = Command::new("tests/cluster/api.sh")
        .arg("restart-apiserver")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(restarted.status.success(), "{}", String::from_utf8_lossy(&restarted.stderr));
}

/// A kubeconfig of the operator's service account.
pub fn kubeconfig(file: &Path) -> PathBuf {
    kubeconfig_of(&own_account(), file, None)
}

fn own_account() -> (String, String) {
    (names::OPERATOR_NAMESPACE.to_owned(), names::SERVICE_ACCOUNT.to_owned())
}

/// The same of another account, by namespace and name, and for an API server that is reached at another address.
pub fn kubeconfig_of((namespace, name): &(String, String), file: &Path, server: Option<&str>) -> PathBuf {
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}});
    let token = Cluster::admin().post(&account, &request).unwrap()["status"]["token"].clone();
    let text = kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"], "").unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let user = config["users"][0]["name"].clone();
    config["users"] = json!([{"name": user, "user": {"token": token}}]);
    if let Some(server) = server {
        config["clusters"][0]["cluster"] = json!({"server": server});
    }
    std::fs::write(file, config.to_string()).unwrap();
    file.to_owned()
}

fn token_in(kubeconfig: &Path) -> String {
    let config: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

fn free_ports<const N: usize>() -> [u16; N] {
    // Held together, so that no two are the same.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.each_ref().map(|listener| listener.local_addr().unwrap().port())
}
