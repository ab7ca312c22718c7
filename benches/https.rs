//! The running binary, measured from outside: CPU time of one HTTPS admission over keep-alive, resident memory at rest,
//! time from process start to the first correct answer. `cargo bench --bench https`
//!
//! The binary is `OPERATOR_BINARY`, else the one that Cargo built, logging to a pipe as in a pod. Its API server is a stand-in in this process, over
//! plain HTTP on loopback. CPU time is the kernel's account of the binary's own threads (`/proc/<pid>/task/*/schedstat`):
//! TLS, HTTP, decision, log line and metrics, system calls included, this client excluded.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod reviews;
#[path = "../tests/support/stand_in.rs"]
mod stand_in;

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header;
use stand_in::{ApiServer, Operator};

const STARTS: usize = 10;
const REQUESTS: u32 = 20_000;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let api = ApiServer::start(reviews::tracing()).await;

    let mut starts: Vec<_> = Vec::new();
    for _ in 0..STARTS {
        let operator = Operator::start(&api);
        starts.push(first_answer(&operator).await);
    }
    starts.sort();
    println!("start to first correct answer   median {:?}, slowest {:?}", starts[STARTS / 2], starts[STARTS - 1]);

    let operator = Operator::start(&api);
    first_answer(&operator).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("resident memory at rest         {:.1} MiB ({})", operator.memory("VmRSS"), operator.memory_by_kind());

    for (kilobytes, update) in reviews::SIZES {
        let review = Bytes::from(reviews::review(kilobytes, update));
        let requests = if kilobytes > 100 { REQUESTS / 10 } else { REQUESTS };
        let client = client();
        asks(&operator, &client, &review, requests / 10).await;
        let (before, started) = (operator.cpu(), Instant::now());
        asks(&operator, &client, &review, requests).await;
        let (cpu, wall) = (operator.cpu() - before, started.elapsed());
        println!(
            "{kilobytes:>3} KB review, keep-alive        {:?} CPU each ({:?} until answered)",
            cpu / requests,
            wall / requests
        );
    }
    let review = Bytes::from(reviews::review(14, false));
    let (before, handshakes) = (operator.cpu(), 500);
    for _ in 0..handshakes {
        asks(&operator, &client(), &review, 1).await;
    }
    println!(" 14 KB review, new connection    {:?} CPU each", (operator.cpu() - before) / handshakes);
    println!("resident memory afterwards      {:.1} MiB ({})", operator.memory("VmRSS"), operator.memory_by_kind());
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap()
}

async fn first_answer(operator: &Operator) -> Duration {
    let (client, review) = (client(), Bytes::from(reviews::review(3, false)));
    loop {
        if answers(operator, &client, &review).await {
            return operator.started.elapsed();
        }
        assert!(operator.started.elapsed() < Duration::from_secs(30), "no answer with a patch within 30 s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn asks(operator: &Operator, client: &reqwest::Client, review: &Bytes, requests: u32) {
    for _ in 0..requests {
        assert!(answers(operator, client, review).await, "an answer without a patch");
    }
}

async fn answers(operator: &Operator, client: &reqwest::Client, review: &Bytes) -> bool {
    let answer = client
        .post(format!("https://{}/mutate", operator.webhook))
        .header(header::CONTENT_TYPE, "application/json")
        .body(review.clone());
    let Ok(answer) = answer.send().await else { return false };
    answer.text().await.is_ok_and(|text| text.contains("JSONPatch"))
}
