//! Reviews while hostile peers do what they can on the same port: how long each takes, and the memory of it all.
//! `cargo bench --bench hostile`
//!
//! The peers are those of tests/hostile, in this process: on a machine of two cores they take their share of what the
//! operator would have.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../tests/support/canary.rs"]
mod canary;
#[path = "../tests/hostile/cases/mod.rs"]
mod cases;
#[path = "../tests/hostile/load.rs"]
mod load;
#[path = "../tests/support/stand_in.rs"]
mod stand_in;

use std::time::Duration;

use load::Site;
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let site = Site::open().await;
    tell("in peace", &site.reviews_during(sleep(Duration::from_secs(10))).await);
    let cases = cases::all();
    println!("{} hostile cases, 90 headers without an end, 60 bodies of 7 MiB, at once", cases.len());
    tell("meanwhile", &site.reviews_during(site.everything(cases)).await);
    println!("memory at most         {} MiB", site.most());
    site.close().await;
}

fn tell(when: &str, took: &[Duration]) {
    let of = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let (half, most, worst) = (of(0.5), of(0.99), of(1.0));
    println!("reviews {when:<14} {} answered, median {half:?}, p99 {most:?}, slowest {worst:?}", took.len());
}
