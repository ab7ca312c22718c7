//! The running binary, measured from outside: CPU time of one HTTPS admission over keep-alive, resident memory at rest,
//! time from process start to the first correct answer. `cargo bench --bench https`
//!
//! `FLOOR_BINARY` names the program that a request of 14 KB is compared with, turn by turn: machines differ by a factor of two
//! from one day to the next, and a machine from one minute to the next, so that only the ratio of neighbouring rounds counts.
//! `cargo bench --bench https -- floor` measures that and the memory at rest alone.
//!
//! The binary is `OPERATOR_BINARY`, else the one that Cargo built, logging to a pipe as in a pod. Its API server is a stand-in in this process, over
//! plain HTTP on loopback. CPU time is the kernel's account of the binary's own threads (`/proc/<pid>/task/*/schedstat`):
//! TLS, HTTP, decision, log line and metrics, system calls included, this client excluded.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod floor;
mod reviews;
#[path = "../tests/support/stand_in.rs"]
mod stand_in;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header;
use floor::Floor;
use stand_in::{ApiServer, Operator};

const STARTS: usize = 10;
const REQUESTS: u32 = 20_000;
const ROUNDS: usize = 25;
const REQUESTS_OF_A_ROUND: u32 = 1_000;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let api = ApiServer::start(reviews::tracing()).await;

    let all = !std::env::args().any(|argument| argument == "floor");
    if all {
        starts(&api).await;
    }
    let operator = Operator::start(&api);
    first_answer(&operator).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("resident memory at rest         {:.1} MiB ({})", operator.memory("VmRSS"), operator.memory_by_kind());
    if all {
        reviews_of_each_size(&operator).await;
        new_connections(&operator).await;
    }
    if let Some(floor) = Floor::start() {
        compare(&operator, &floor).await;
    }
    println!("resident memory afterwards      {:.1} MiB ({})", operator.memory("VmRSS"), operator.memory_by_kind());
}

async fn starts(api: &ApiServer) {
    let mut starts: Vec<_> = Vec::new();
    for _ in 0..STARTS {
        let operator = Operator::start(api);
        starts.push(first_answer(&operator).await);
    }
    starts.sort();
    println!("start to first correct answer   median {:?}, slowest {:?}", starts[STARTS / 2], starts[STARTS - 1]);
}

async fn reviews_of_each_size(operator: &Operator) {
    for (kilobytes, update) in reviews::SIZES {
        let review = Bytes::from(reviews::review(kilobytes, update));
        let requests = if kilobytes > 100 { REQUESTS / 10 } else { REQUESTS };
        let client = client();
        asks(operator.webhook, &client, &review, requests / 10).await;
        let (before, started) = (operator.cpu(), Instant::now());
        asks(operator.webhook, &client, &review, requests).await;
        let (cpu, wall) = (operator.cpu().since(&before), started.elapsed());
        println!(
            "{kilobytes:>3} KB review, keep-alive        {:?} CPU each ({:?} until answered)",
            cpu / requests,
            wall / requests
        );
    }
}

async fn new_connections(operator: &Operator) {
    let review = Bytes::from(reviews::review(14, false));
    let (before, handshakes) = (operator.cpu(), 500);
    for _ in 0..handshakes {
        asks(operator.webhook, &client(), &review, 1).await;
    }
    println!(" 14 KB review, new connection    {:?} CPU each", operator.cpu().since(&before) / handshakes);
}

/// Rounds of the operator and of the floor in turn.
async fn compare(operator: &Operator, floor: &Floor) {
    let review = &Bytes::from(reviews::review(14, false));
    let (of_operator, of_floor) = (client(), client());
    while !answers(floor.address, &of_floor, review).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    asks(operator.webhook, &of_operator, review, REQUESTS_OF_A_ROUND).await;
    asks(floor.address, &of_floor, review, REQUESTS_OF_A_ROUND).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let before = (operator.cpu(), floor.cpu());
        asks(operator.webhook, &of_operator, review, REQUESTS_OF_A_ROUND).await;
        asks(floor.address, &of_floor, review, REQUESTS_OF_A_ROUND).await;
        let ours = operator.cpu().since(&before.0) / REQUESTS_OF_A_ROUND;
        let least = floor.cpu().since(&before.1) / REQUESTS_OF_A_ROUND;
        let ratio = ours.div_duration_f64(least);
        println!(" 14 KB review, against the floor {ours:?} CPU each, floor {least:?}, ratio {ratio:.2}");
        rounds.push((ours, least, ratio));
    }
    println!(
        " 14 KB review, medians           {:?} CPU each, floor {:?}, ratio {:.2}",
        median(rounds.iter().map(|round| round.0)),
        median(rounds.iter().map(|round| round.1)),
        median(rounds.iter().map(|round| round.2)),
    );
}

fn median<T: PartialOrd>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<_> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values.swap_remove(values.len() / 2)
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy().build().unwrap()
}

async fn first_answer(operator: &Operator) -> Duration {
    let (client, review) = (client(), Bytes::from(reviews::review(3, false)));
    loop {
        if answers(operator.webhook, &client, &review).await {
            return operator.started.elapsed();
        }
        assert!(operator.started.elapsed() < Duration::from_secs(30), "no answer with a patch within 30 s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn asks(server: SocketAddr, client: &reqwest::Client, review: &Bytes, requests: u32) {
    for _ in 0..requests {
        assert!(answers(server, client, review).await, "an answer without a patch");
    }
}

async fn answers(server: SocketAddr, client: &reqwest::Client, review: &Bytes) -> bool {
    let answer = client
        .post(format!("https://{server}/mutate"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(review.clone());
    let Ok(answer) = answer.send().await else { return false };
    answer.text().await.is_ok_and(|text| text.contains("JSONPatch"))
}
