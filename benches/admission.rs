//! One admission without the network: decode, decide, patch, answer. `cargo bench --bench admission`
//!
//! No log line is written here; `benches/https.rs` measures the running binary with everything.

mod reviews;

use std::sync::Arc;

use agent_tracing::webhook::Webhook;
use agent_tracing::webhook::policy_cache::PolicyCache;
use divan::Bencher;
use divan::counter::BytesCount;

fn main() {
    divan::main();
}

#[divan::bench(args = reviews::SIZES)]
fn wire(bencher: Bencher, (kilobytes, update): (usize, bool)) {
    measure(bencher, reviews::review(kilobytes, update), "bank");
}

/// A namespace that is not labelled: the least that any review costs.
#[divan::bench(args = reviews::SIZES)]
fn leave(bencher: Bencher, (kilobytes, update): (usize, bool)) {
    measure(bencher, reviews::review(kilobytes, update), "elsewhere");
}

fn measure(bencher: Bencher, review: Vec<u8>, labelled: &'static str) {
    let cache = PolicyCache::default();
    let tracing = serde_json::from_value(reviews::tracing()).into_iter().collect();
    cache.fill(tracing, [labelled]);
    let webhook = Webhook::new(Arc::new(cache), Arc::default(), agent_tracing::core::settings::Platform::default());
    let patched = webhook.answer(&review).is_ok_and(|a| String::from_utf8_lossy(&a).contains("JSONPatch"));
    assert_eq!(patched, labelled == "bank", "the benchmark does not measure what it says");
    bencher.counter(BytesCount::of_slice(&review)).bench(|| webhook.answer(divan::black_box(&review)).is_ok());
}
