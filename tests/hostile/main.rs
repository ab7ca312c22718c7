//! Hostile input on the webhook's port: the real binary, TLS and all, and peers of every bad kind.
//!
//! The API server is a stand-in of this process. Memory is the operator's own, by the kernel's account.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../support/canary.rs"]
mod canary;
mod cases;
mod load;
#[path = "../support/stand_in.rs"]
mod stand_in;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cases::{Case, Hears};
use futures::future::join_all;
use futures::{StreamExt, stream};
use load::Site;
use tokio::sync::Semaphore;
use tokio::time::sleep;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_case_gets_its_answer_and_the_next_review_is_wired() {
    let site = Site::open().await;
    let cases = cases::all();
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    assert!(cases.len() >= 250, "{} cases", cases.len());
    // There is room for four of the largest at once; here each has its own.
    let large = Semaphore::new(1);
    let outcomes = stream::iter(&cases).map(async |case| {
        let _alone = if case.is_large() { Some(large.acquire().await.unwrap()) } else { None };
        let played = case.play(site.operator.webhook).await.err();
        let next = site.legitimate().await.err().map(|error| format!("the next review: {error}"));
        played.into_iter().chain(next).map(|error| format!("{}: {error}", case.name)).collect::<Vec<_>>()
    });
    let wrong: Vec<String> = outcomes.buffer_unordered(32).flat_map(stream::iter).collect().await;
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_of_it_comes_at_once_no_review_fails_and_memory_has_a_limit() {
    let site = Site::open().await;
    let took = site.reviews_during(site.everything(cases::all())).await;
    assert!(took.len() > 100, "only {} reviews meanwhile", took.len());
    println!("{} MiB at most", site.most());
    assert!(site.most() <= 128, "{} MiB", site.most());
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_have_32_mib_together_and_then_503_and_small_ones_have_their_own() {
    let site = Site::open().await;
    let part = |announced: usize, sent: usize, code| {
        let head = format!("POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: {announced}\r\n\r\n");
        Case::new("a part", [head.into_bytes(), vec![b' '; sent]].concat(), Hears::Codes(vec![code]))
    };
    // Each takes what it announces as soon as it is beyond what is everybody's: four of 7 MiB.
    let first = site.reviews_during(async {
        let waits =
            join_all((0..60).map(async |_| part(7 * MIB, 128 << 10, 408).play(site.operator.webhook).await.is_ok()));
        assert_eq!(waits.await.into_iter().filter(|waits| *waits).count(), 4);
    });
    first.await;
    // The most that can be there at once: four of them but for a byte, and on 200 connections all that a small one has.
    let most = site.reviews_during(async {
        let large = (0..20).map(|_| part(7 * MIB, 7 * MIB - 1, 408));
        let small = (0..200).map(|_| part(64 << 10, (64 << 10) - 1, 408));
        site.plays(large.chain(small), 220).await;
    });
    most.await;
    println!("{} MiB at most", site.most());
    assert!(site.most() <= 128, "{} MiB", site.most());
    // What is announced takes nothing: a large one finds its room.
    let silent = site.plays((0..100).map(|_| part(7 * MIB, 0, 408)), 100);
    let large = async {
        sleep(Duration::from_millis(500)).await;
        let review = cases::review().to_string();
        let review = cases::request("", format!("{review}{}", " ".repeat(6 * MIB)));
        Case::new("a large review", review, Hears::Patched).play(site.operator.webhook).await
    };
    let ((), large) = tokio::join!(silent, large);
    assert_eq!(large, Ok(()));
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_ends_the_handshake_keeps_nobody_out() {
    // Review B7: unfinished handshakes took all places.
    let site = Site::open().await;
    let mut silent = Vec::new();
    for _ in 0..512 {
        silent.push(cases::case::connected(site.operator.webhook).await.unwrap());
    }
    let started = Instant::now();
    assert_eq!(site.legitimate().await, Ok(()));
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(1), "it waited: {waited:?}");
    drop(silent);
}
