//! What becomes of the operator when the API server, its memory or its definitions go away, and when the operator itself stands
//! still.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Herd, change_spec, is_soak, seeds};
use crate::cluster::{CRD, STRICT, define, wait_for, wait_until};
use crate::operator::process::{Operator, holder, point_the_webhook_at, restart_the_api_server};
use crate::operator::{Site, agent, variable};
use crate::proxy::{Fault, Moment, Proxy, Random};

/// Somewhere in the work that the operator has just been given.
fn soon(random: &mut Random) {
    std::thread::sleep(Duration::from_millis(random.below(1500)));
}

#[test]
#[ignore = "needs an API server: make test"]
fn an_api_server_that_restarts_amid_the_work_gets_the_rest_of_it() {
    for seed in seeds(10) {
        let mut site = Site::open(&format!("operator-amid-{seed}"));
        let mut random = Random(seed);
        let mut herd = Herd::of(&site, "teller");
        drop(site.operator.take());
        herd.create(&site);
        site.start_operator();
        soon(&mut random);
        restart_the_api_server();
        herd.assert_wired_once(&site, "a restart amid the first wiring");
        change_spec(&site, 7);
        soon(&mut random);
        restart_the_api_server();
        herd.assert_wired_once(&site, "a restart amid a change");
        site.operator.as_mut().unwrap().forgive();
        drop(site.operator.take());
    }
}

/// What a watch has seen last is unknown to an API server that has started since and an etcd that was compacted.
#[test]
#[ignore = "needs an API server: make test"]
fn what_a_compacted_etcd_has_forgotten_is_read_anew() {
    let mut site = Site::open("operator-compacted");
    let proxy = Proxy::start(1);
    let mut herd = Herd::of(&site, "teller");
    drop(site.operator.take());
    herd.create(&site);
    site.operator = Some(Operator::start_through(&site.namespace.0, &proxy, Fault::None));
    herd.assert_wired_once(&site, "the start");

    proxy.begin(Fault::NoWatches, 0);
    wait_until("no watch is left", || proxy.seen().cut > 10);
    change_spec(&site, 7);
    compact();
    restart_the_api_server();
    proxy.heal();
    herd.assert_wired_once(&site, "a compaction");
    wait_until("the API server said that it has forgotten", || proxy.seen().expired > 0);
    // The webhook knows it too.
    site.wait_until_wired();
    let live = site.dry_run(&agent(&site.namespace.0, "probe"));
    assert_eq!(variable(&live, "MLFLOW_HTTP_REQUEST_TIMEOUT"), Some("7"));
    site.operator.as_mut().unwrap().forgive();
    site.close();
}

/// Through etcd's JSON gateway, at the newest revision.
fn compact() {
    let kubeconfig = std::env::var("KUBECONFIG").unwrap();
    let ports = std::fs::read_to_string(Path::new(&kubeconfig).with_file_name("ports")).unwrap();
    let etcd = ports.split_whitespace().nth(1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |path: &str, body: Value| -> Value {
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = request.post(format!("http://127.0.0.1:{etcd}/v3/kv/{path}")).json(&body);
        runtime.block_on(async { request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap() })
    };
    let revision = ask("range", json!({"key": "AA==", "limit": 1}))["header"]["revision"].clone();
    ask("compaction", json!({"revision": revision, "physical": true}));
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_leader_that_stood_still_finds_another_one_and_changes_nothing() {
    for seed in seeds(6) {
        let mut site = Site::open(&format!("operator-frozen-{seed}"));
        let (ours, theirs) = (Proxy::start(seed), Proxy::start(seed + 1));
        let mut random = Random(seed);
        let mut herd = Herd::of(&site, "teller");
        herd.create(&site);
        drop(site.operator.take());
        let first_name = site.namespace.0.clone();
        let second_name = format!("{first_name}-second");
        let mut first = Operator::start_through(&first_name, &ours, Fault::None);
        first.wait_until_ready();
        wait_until("the first one leads", || first.leads());
        herd.assert_wired(&site, "the start of the first");
        // Whoever does not answer probes gets no calls: all of them come to the second one.
        let mut second = Operator::start_through(&second_name, &theirs, Fault::None);
        second.wait_until_ready();
        site.wait_until_wired();

        // Amid the first one's changes of workloads.
        let moment = if random.below(2) == 0 { Moment::Heard } else { Moment::Unheard };
        let at = 1 + usize::try_from(random.below(4)).unwrap();
        ours.begin(Fault::Signal { signal: "-STOP", at, moment }, first.pid());
        change_spec(&site, 7);
        wait_until("it stands still", || ours.seen().signalled);
        let since = Instant::now();
        wait_until("the second one leads", || holder() == second_name);
        herd.assert_wired_once(&site, "the first one's standstill");
        change_spec(&site, 8);
        herd.assert_wired_once(&site, "a change that the first one did not see");
        let still = Duration::from_secs(if is_soak() { 60 } else { 20 });
        wait_for("it has stood still for long", still * 2, || since.elapsed() > still);

        ours.heal();
        let before = ours.seen().writes.len();
        first.signal("-CONT");
        wait_until("it knows that it does not lead", || !first.leads());
        std::thread::sleep(Duration::from_secs(5));
        let written = ours.seen().writes[before..].to_vec();
        assert!(written.is_empty(), "seed {seed}, write {at} ({moment:?}): {written:#?}");
        assert_eq!(holder(), second_name);
        herd.assert_wired(&site, "its return");
        // It is as good a leader as before.
        second.stop();
        wait_until("the first one leads again", || first.leads());
        change_spec(&site, 9);
        first.wait_until_ready();
        point_the_webhook_at(first.webhook);
        herd.assert_wired_once(&site, "the first one's second time");
    }
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_definition_that_is_deleted_and_comes_back_costs_no_wiring() {
    let site = Site::open("operator-definition");
    let mut herd = Herd::of(&site, "teller");
    herd.create(&site);
    herd.assert_wired(&site, "the start");
    let is_gone = || site.admin.get("CustomResourceDefinition", "", CRD).is_err();
    site.admin.delete("CustomResourceDefinition", "", CRD);
    wait_until("the definition is gone", is_gone);
    // Longer than a deletion is waited for.
    std::thread::sleep(Duration::from_secs(10));
    define(&site.admin);
    let served = || site.admin.create(&site.tracing(), STRICT);
    wait_until("the AgentTracing is there again", || served().is_ok());
    site.mlflow_comes_up(&site.tracing(), &site.url());
    herd.assert_wired(&site, "the definition's return");
    site.wait_until_wired();
    change_spec(&site, 7);
    herd.assert_wired_once(&site, "a change after that");
    site.close();
}
