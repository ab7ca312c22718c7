//! The operator and the peers that it has at the same time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio::time::sleep;

use crate::canary::assert_kept;
use crate::cases::{self, Case, Hears, Say};
use crate::stand_in::{ApiServer, Operator};

/// A running operator that wires.
pub struct Site {
    pub operator: Operator,
    _api: ApiServer,
}

impl Site {
    pub async fn open() -> Self {
        // Every test of this process wants it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = ApiServer::start(cases::tracing()).await;
        let site = Self { operator: Operator::start(&api), _api: api };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if site.legitimate().await.is_ok() {
                return site;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("it wires nothing within 20 s:\n{}", site.operator.log());
    }

    /// A review on a connection of its own.
    pub async fn legitimate(&self) -> Result<(), String> {
        let review = cases::request("", cases::review().to_string());
        Case::new("a review", review, Hears::Patched).play(self.operator.webhook).await
    }

    /// Plays cases beside each other; what they hear is not looked at.
    pub async fn plays(&self, cases: impl IntoIterator<Item = Case>, at_once: usize) {
        let played = stream::iter(cases).map(async |case| drop(case.play(self.operator.webhook).await));
        played.buffer_unordered(at_once).collect::<()>().await;
    }

    /// Reviews on kept connections, as an API server has them, while `hostile` goes on: how long each took, the shortest first.
    pub async fn reviews_during(&self, hostile: impl Future<Output = ()>) -> Vec<Duration> {
        let (ended, webhook) = (Arc::new(AtomicBool::new(false)), self.operator.webhook);
        // On threads of their own: what the hostile ones cost in this process is not the operator's delay.
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let ended = ended.clone();
                std::thread::spawn(move || asks_until(webhook, &ended))
            })
            .collect();
        hostile.await;
        ended.store(true, Ordering::Relaxed);
        let mut took: Vec<_> = askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect();
        took.sort();
        took
    }

    /// All that a peer may do, at once: these cases, 64 beside each other; headers of 60 KB that never end; bodies of 7 MiB.
    pub async fn everything(&self, cases: Vec<Case>) {
        let dribbled = |_| {
            let head = format!("POST /mutate HTTP/1.1\r\nx: {}", "a".repeat(60_000)).into_bytes();
            let more = (0..20).flat_map(|_| [Say::Pause(Duration::from_millis(400)), Say::Bytes(b"a".to_vec())]);
            Case::new("a header without an end", head, Hears::End).and(more)
        };
        let large = |_| {
            let mut review = cases::review().to_string();
            review.push_str(&" ".repeat((7 << 20) - review.len()));
            Case::new("a body of 7 MiB", cases::request("", review), Hears::Patched)
        };
        let cases = self.plays(cases, 64);
        let headers = self.plays((0..90).map(dribbled), 90);
        let bodies = self.plays((0..60).map(large), 20);
        tokio::join!(cases, headers, bodies);
    }

    /// The most that it ever held, in MiB.
    pub fn most(&self) -> u64 {
        self.operator.memory("VmHWM").ceil() as u64
    }

    /// It has not ended, not panicked, not told a secret.
    pub async fn close(mut self) {
        assert!(!self.operator.has_ended());
        let log = self.operator.log();
        assert!(!log.contains("\"panicked\""), "it panicked:\n{log}");
        let metrics =
            reqwest::get(format!("http://{}/metrics", self.operator.http)).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("agent_tracing_admissions_total{result=\"refused\""), "{metrics}");
        assert_kept("the log", &log);
        assert_kept("the metrics", &metrics);
    }
}

/// One connection, one review after the other; each is wired.
fn asks_until(webhook: SocketAddr, ended: &AtomicBool) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap();
    let review = cases::review().to_string();
    let mut took = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let started = Instant::now();
        let answer = runtime.block_on(async {
            client.post(format!("https://{webhook}/mutate")).body(review.clone()).send().await?.text().await
        });
        took.push(started.elapsed());
        let answer = answer.unwrap_or_else(|error| panic!("a review got no answer: {error:?}"));
        let patch = cases::patch(&answer).unwrap_or_else(|error| panic!("a review was refused: {error}"));
        assert!(patch.is_some(), "a review was not wired: {answer}");
        std::thread::sleep(Duration::from_millis(5));
    }
    took
}
