//! What the way to the API server, or the API server's way to the webhook, does to the operator.

use std::net::TcpListener;

use agent_tracing::names;

use super::{Herd, change_spec, label_namespace, seeds};
use crate::cluster::wait_until;
use crate::operator::process::{Operator, point_the_webhook_at};
use crate::operator::{Site, agent, is_wired};
use crate::proxy::{Fault, Proxy, Seen};

/// Existing workloads are wired, changed and given back while the fault goes on.
fn endure(name: &str, fault: Fault, seed: u64) -> Seen {
    let mut site = Site::open(&format!("operator-{name}-{seed}"));
    let proxy = Proxy::start(seed);
    let mut herd = Herd::of(&site, "teller");
    drop(site.operator.take());
    herd.create(&site);
    site.operator = Some(Operator::start_through(&site.namespace.0, &proxy, fault));
    herd.assert_wired_once(&site, &format!("the start with {fault:?}"));
    change_spec(&site, 7);
    herd.assert_wired_once(&site, &format!("a changed spec with {fault:?}"));
    label_namespace(&site, false);
    herd.assert_given_back_once(&site, &format!("the label's end with {fault:?}"));
    let seen = proxy.seen();
    proxy.heal();
    label_namespace(&site, true);
    herd.assert_wired_once(&site, &format!("the label's return after {fault:?}"));
    let operator = site.operator.as_mut().unwrap();
    assert!(operator.has_ended().is_none(), "nobody had to start it again");
    operator.wait_until_ready();
    wait_until("it leads", || site.operator().leads());
    drop(site.operator.take());
    println!("seed {seed}, {fault:?}: {} refused, {} watches cut", seen.refused, seen.cut);
    seen
}

#[test]
#[ignore = "needs an API server: make test"]
fn every_second_write_meets_a_conflict() {
    for seed in seeds(10) {
        assert!(endure("conflicts", Fault::Conflicts, seed).refused > 5);
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn every_third_request_is_one_too_many() {
    for seed in seeds(10) {
        assert!(endure("too-many", Fault::TooManyRequests, seed).refused > 10);
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn no_watch_lives_for_a_second() {
    for seed in seeds(10) {
        assert!(endure("watches", Fault::ShortWatches, seed).cut > 50);
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_webhook_that_is_nowhere_is_not_needed_and_its_return_rolls_nothing() {
    let site = Site::open("operator-nowhere");
    let mut herd = Herd::of(&site, "teller");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    point_the_webhook_at(closed);
    wait_until("nobody is asked any more", || {
        let probe = site.dry_run(&agent(&site.namespace.0, "probe"));
        !is_wired(&probe)
    });
    herd.create(&site);
    herd.assert_wired_once(&site, "workloads without a webhook");
    change_spec(&site, 7);
    herd.assert_wired_once(&site, "a changed spec without a webhook");
    let condition = || site.condition("InjectionReady").map(|c| c["reason"].clone());
    wait_until("it is told", || condition().is_some_and(|reason| reason == "WebhookUnavailable"));

    point_the_webhook_at(site.operator().webhook);
    site.wait_until_wired();
    herd.assert_wired(&site, "the webhook's return");
    change_spec(&site, 8);
    herd.assert_wired_once(&site, "a changed spec with the webhook");
    let live = &herd.live(&site)[0];
    assert!(live["metadata"]["annotations"][names::ANNOTATION_TOUCH].is_string(), "{live:#}");
    site.close();
}
