//! Two replicas, how one goes, and what they share.

use std::time::{Duration, Instant};

use agent_tracing::names;
use agent_tracing::tls::rotation::AuthoritySet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::process::{Operator, holder, point_the_webhook_at, restart_the_api_server};
use super::{Site, agent, is_wired};
use crate::cluster::{DRY, STRICT, wait_for, wait_until};

#[test]
#[ignore = "needs an API server: make test"]
fn of_two_replicas_one_leads_and_both_answer() {
    let site = Site::open("operator-two");
    let second = Operator::start_beside("operator-two-second");
    assert!(site.operator().leads() && !second.leads());
    assert_eq!(holder(), "operator-two");

    // Both certificates come from one authority: the API server trusts either at once.
    let admissions = second.metric("agent_tracing_admissions_total");
    point_the_webhook_at(second.webhook);
    wait_until("the second one is asked", || {
        let answered = site.admin.create(&agent(&site.namespace.0, "probe"), DRY).unwrap();
        let asked = second.metric("agent_tracing_admissions_total") > admissions;
        assert!(is_wired(&answered), "nobody answered, or the second one knew nothing");
        asked
    });

    site.close();
    wait_until("the second one leads", || second.leads());
    assert_eq!(holder(), "operator-two-second");
    second.stop();
}

#[test]
#[ignore = "needs an API server: make test"]
fn on_sigterm_it_gives_up_the_lease_answers_a_while_longer_and_ends_well() {
    let mut site = Site::open("operator-sigterm");
    let mut operator = site.operator.take().unwrap();
    assert!(operator.leads());
    let asked = Instant::now();
    operator.terminate();
    wait_for("it is not ready", Duration::from_secs(2), || !operator.is_ready());
    wait_for("the lease is free", Duration::from_secs(5), || holder().is_empty());
    let mut answered = Duration::ZERO;
    let status = loop {
        if let Some(status) = operator.has_ended() {
            break status;
        }
        assert!(asked.elapsed() < Duration::from_secs(25), "it does not end");
        if is_wired(&site.admin.create(&agent(&site.namespace.0, "probe"), DRY).unwrap()) {
            answered = asked.elapsed();
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(status.code(), Some(0));
    // The API server goes on using its connections to a terminating pod (kubernetes#127335).
    assert!(answered > Duration::from_secs(12), "it answered for {answered:?} only");
}

#[test]
#[ignore = "needs an API server: make test"]
fn a_killed_leader_is_followed_when_its_lease_expires() {
    let mut site = Site::open("operator-killed");
    drop(site.operator.take());
    assert_eq!(holder(), "operator-killed", "a killed process releases nothing");
    let created = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    assert!(!is_wired(&created));
    let second = Operator::start("operator-killed-second");
    wait_until("the second one leads", || second.leads());
    wait_until("the workload is wired", || is_wired(&site.deployment("teller")));
    let events: Vec<Value> = site.admin.list("Event", &site.namespace.0);
    let told = events.iter().filter(|e| e["regarding"]["name"] == "teller" && e["reason"] == "Injected").count();
    assert_eq!(told, 1, "{events:#?}");
    second.stop();
}

#[test]
#[ignore = "needs an API server: make test"]
fn what_makes_the_webhook_trusted_is_put_back_when_somebody_takes_it_away() {
    let site = Site::open("operator-trust");
    let configuration = || site.admin.get("MutatingWebhookConfiguration", "", names::WEBHOOK_CONFIGURATION).unwrap();
    let secret = || site.admin.get("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_CA_SECRET);
    let (before, authority) = (configuration()["webhooks"].clone(), secret().unwrap());

    let mut emptied = configuration();
    emptied["webhooks"][0]["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    site.admin.replace(&emptied, STRICT).unwrap();
    wait_until("caBundle is back", || configuration()["webhooks"] == before);

    site.admin.delete("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_CA_SECRET);
    let uid = &authority["metadata"]["uid"];
    wait_until("the Secret is back", || secret().is_ok_and(|secret| secret["metadata"]["uid"] != *uid));
    assert_eq!(secret().unwrap()["data"], authority["data"], "a new authority would have to be changed over to");
    site.wait_until_wired();
    site.close();
}

#[test]
#[ignore = "needs an API server: make test"]
fn an_old_authority_is_rotated_while_the_api_server_goes_on_calling() {
    let mut site = Site::open("operator-rotation");
    site.stop_operator();
    let secret = || site.admin.get("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_CA_SECRET).unwrap();
    let old = AuthoritySet::generate(Timestamp::now() - SignedDuration::from_hours(24 * 250)).unwrap();
    let mut aged = secret();
    aged["data"] = json!(old.data());
    site.admin.replace(&aged, STRICT).unwrap();
    let bundle = || {
        let live = site.admin.get("MutatingWebhookConfiguration", "", names::WEBHOOK_CONFIGURATION).unwrap();
        live["webhooks"][0]["clientConfig"]["caBundle"].clone()
    };
    let operator = Operator::start("operator-rotation-aged");
    site.wait_until_wired();
    let wired = || is_wired(&site.dry_run(&agent(&site.namespace.0, "probe")));
    wait_until("both authorities are published", || {
        assert!(wired());
        let announced = secret();
        announced["data"]["since"].is_string() && bundle() == announced["data"]["tls.crt"]
    });

    // An hour later.
    let mut later = secret();
    let hours_ago = (Timestamp::now() - SignedDuration::from_hours(2)).to_string();
    later["data"]["since"] = json!(ByteString(hours_ago.into_bytes()));
    let key = later["data"]["next.key"].clone();
    site.admin.replace(&later, STRICT).unwrap();
    let expiry = || operator.metric("agent_tracing_webhook_certificate_expiry_timestamp_seconds");
    let before = expiry();
    wait_until("the next one signs", || {
        assert!(wired());
        secret()["data"]["tls.key"] == key
    });
    wait_for("the replica has a certificate of it", Duration::from_secs(90), || {
        assert!(wired());
        expiry() != before
    });
    assert!(wired() && operator.is_ready());
    operator.stop();
}

#[test]
#[ignore = "needs an API server: make test"]
fn an_api_server_that_restarts_finds_the_same_operator() {
    let mut site = Site::open("operator-api-restart");
    let stored = site.admin.create(&agent(&site.namespace.0, "teller"), STRICT).unwrap();
    wait_until("the workload is seen", || site.row("teller").is_some());
    restart_the_api_server();
    site.wait_until_wired();
    // A change that only its watches can tell.
    let mut suspended = site.tracing();
    suspended["spec"]["suspend"] = json!(true);
    site.admin.merge(&suspended, STRICT).unwrap();
    wait_until("it follows the AgentTracing again", || {
        let live = site.admin.live(&site.tracing());
        live["status"]["observedGeneration"] == live["metadata"]["generation"]
    });
    wait_until("it leads again", || site.operator().leads());
    assert_eq!(site.deployment("teller")["spec"], stored["spec"]);
    site.operator.as_mut().unwrap().forgive();
    site.close();
}
