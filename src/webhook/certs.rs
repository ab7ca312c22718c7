//! Where the serving certificate comes from, and that the API server trusts it.
//!
//! The authority lives in one Secret that every replica tries to create; whoever comes second reads it. Each replica signs
//! its own certificate with it, in memory. Only the leader writes `caBundle`, and only where it differs. Nothing here is
//! mounted: a Secret volume that does not exist yet keeps a pod from starting.
//!
//! A deleted or corrupt Secret is written again with the authority that the replicas hold, so that nothing has to change
//! over. Only a replica that holds none makes a new one.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use rustls::ServerConfig;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::authority::Authority;
use super::memory::chain;
use crate::names;
use crate::telemetry::{Metrics, Readiness};

/// Readiness checks that [`Certificates::keep`] passes.
pub const CHECKS: [&str; 2] = [CERTIFICATE, CA_BUNDLE];

/// The certificates of one replica.
pub struct Certificates {
    client: Client,
    namespace: String,
    hosts: Vec<String>,
    metrics: Arc<Metrics>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    configuration: watch::Sender<Configuration>,
    serving: watch::Sender<Option<Arc<ServerConfig>>>,
}

/// The MutatingWebhookConfiguration as last seen.
#[derive(Clone, Debug, PartialEq)]
enum Configuration {
    Unknown,
    Absent,
    Present(Vec<Hook>),
}

/// One webhook of the configuration.
#[derive(Clone, Debug, PartialEq)]
struct Hook {
    name: String,
    bundle: Vec<u8>,
}

impl Certificates {
    /// Certificates for the webhook's Service in `namespace`, and for `more_hosts`.
    pub fn new(
        client: Client,
        namespace: &str,
        cluster_domain: &str,
        more_hosts: &[String],
        metrics: Arc<Metrics>,
    ) -> Self {
        let service = format!("{}.{namespace}.svc", names::WEBHOOK_SERVICE);
        let hosts = [vec![service.clone(), format!("{service}.{cluster_domain}")], more_hosts.to_vec()].concat();
        Self {
            client,
            namespace: namespace.to_owned(),
            hosts,
            metrics,
            authority: watch::Sender::new(None),
            configuration: watch::Sender::new(Configuration::Unknown),
            serving: watch::Sender::new(None),
        }
    }

    /// What to serve with: changes when the authority does, and in time before the certificate expires.
    pub fn serving(&self) -> watch::Receiver<Option<Arc<ServerConfig>>> {
        self.serving.subscribe()
    }

    /// What every replica does, for ever: hold the authority, serve a fresh certificate, know what is published.
    pub async fn keep(&self, readiness: &Readiness) -> Infallible {
        futures::join!(
            self.hold_authority(readiness),
            self.sign_in_time(readiness),
            self.follow_configuration(),
            self.compare(readiness)
        )
        .0
    }

    /// What only the leader does, for ever: `caBundle` of every webhook is our authority.
    pub async fn publish(&self) -> Infallible {
        let (mut authority, mut configuration) = (self.authority.subscribe(), self.configuration.subscribe());
        loop {
            let ours = authority.borrow_and_update().clone();
            let seen = configuration.borrow_and_update().clone();
            let patch = ours.and_then(|ours| bundle_patch(&seen, ours.bundle()));
            if let Some(patch) = patch {
                self.patch_configuration(patch).await;
                // Whoever overwrites it all the time is not answered more often than this.
                sleep(BREATH).await;
                continue;
            }
            tokio::select! {
                _ = authority.changed() => {}
                _ = configuration.changed() => {}
            }
        }
    }

    async fn patch_configuration(&self, patch: JsonPatch) {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let parameters = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Json::<()>(patch);
        let patched = configurations.patch(names::WEBHOOK_CONFIGURATION, &parameters, &patch);
        match timeout(CALL, patched).await {
            Ok(Ok(now)) => {
                tracing::info!("published the webhook's authority in caBundle");
                self.configuration.send_replace(Configuration::of(Some(now)));
            }
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "failed to write caBundle; trying again"),
            Err(_) => tracing::warn!("failed to write caBundle: no answer; trying again"),
        }
    }

    async fn hold_authority(&self, readiness: &Readiness) -> Infallible {
        let mut seen = pin!(watch_object(self.secrets(), names::WEBHOOK_CA_SECRET).default_backoff());
        // What has to be written: `Some(None)` a new Secret, `Some(Some(_))` in place of an unusable one.
        let mut heal: Option<Option<Secret>> = None;
        let mut wait = BREATH;
        loop {
            let retry = async {
                match &heal {
                    Some(_) => sleep(wait).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                event = seen.next() => match event {
                    Some(Ok(secret)) => {
                        heal = self.adopt(secret);
                        wait = BREATH;
                    }
                    Some(Err(error)) => {
                        let error = chain(&error);
                        tracing::warn!(error, "watch of Secret {} failed; trying again", names::WEBHOOK_CA_SECRET);
                        if self.authority.borrow().is_none() {
                            readiness.fail(CERTIFICATE, error);
                        }
                        continue;
                    }
                    None => pending().await,
                },
                () = retry => wait = (wait * 2).min(LONGEST_WAIT),
            }
            if let Some(old) = &heal {
                match self.write(old.as_ref()).await {
                    Ok(Some(secret)) => heal = self.adopt(Some(secret)),
                    // Someone else was first: the watch tells what there is now.
                    Ok(None) => heal = None,
                    Err(error) => {
                        let error = format!("Secret {} cannot be written: {error}", names::WEBHOOK_CA_SECRET);
                        tracing::warn!(error, "trying again");
                        if self.authority.borrow().is_none() {
                            readiness.fail(CERTIFICATE, error);
                        }
                    }
                }
            }
        }
    }

    /// Takes over what the Secret holds; where it holds nothing of use, says what has to be replaced.
    fn adopt(&self, secret: Option<Secret>) -> Option<Option<Secret>> {
        let Some(secret) = secret else { return Some(None) };
        match Authority::parse(secret.data.as_ref().unwrap_or(&Default::default()), Timestamp::now()) {
            Ok(read) => {
                let is_new = self.authority.borrow().as_ref().is_none_or(|held| held.bundle() != read.bundle());
                if is_new {
                    tracing::info!("took the webhook's authority from Secret {}", names::WEBHOOK_CA_SECRET);
                    self.authority.send_replace(Some(Arc::new(read)));
                }
                None
            }
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(error, "Secret {} is unusable; replacing it", names::WEBHOOK_CA_SECRET);
                Some(Some(secret))
            }
        }
    }

    /// Writes the authority that we hold, or a new one. `None`: someone else wrote first.
    async fn write(&self, old: Option<&Secret>) -> Result<Option<Secret>, String> {
        let held = self.authority.borrow().clone();
        let data = match held {
            // One that is about to expire is not worth keeping.
            Some(held) if Authority::parse(&held.data(), Timestamp::now()).is_ok() => held.data(),
            _ => Authority::generate(Timestamp::now()).map_err(|e| chain(&e))?.data(),
        };
        let metadata = ObjectMeta {
            name: Some(names::WEBHOOK_CA_SECRET.to_owned()),
            labels: Some(
                [(names::LABEL_MANAGED_BY, names::MANAGED_BY), (names::LABEL_PART_OF, names::PART_OF)]
                    .map(|(label, value)| (label.to_owned(), value.to_owned()))
                    .into(),
            ),
            // Two replicas that heal at once must not both win: the second one's version is outdated.
            resource_version: old.and_then(|old| old.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        };
        // The type of an existing Secret is immutable.
        let kind = old.map_or_else(|| Some("kubernetes.io/tls".to_owned()), |old| old.type_.clone());
        let secret = Secret { metadata, data: Some(data), type_: kind, ..Secret::default() };
        let parameters = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let secrets = self.secrets();
        let written = async {
            match old {
                None => secrets.create(&parameters, &secret).await,
                Some(_) => secrets.replace(names::WEBHOOK_CA_SECRET, &parameters, &secret).await,
            }
        };
        match timeout(CALL, written).await {
            Ok(Ok(secret)) => Ok(Some(secret)),
            Ok(Err(kube::Error::Api(status))) if [404, 409].contains(&status.code) => Ok(None),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    async fn sign_in_time(&self, readiness: &Readiness) -> Infallible {
        let mut authority = self.authority.subscribe();
        let mut renew_at = None;
        loop {
            let ours = authority.borrow_and_update().clone();
            // The wall clock, looked at every hour: a timer does not count the time that a machine sleeps.
            let due = renew_at.is_none_or(|at| Timestamp::now() >= at);
            if let (Some(ours), true) = (ours, due) {
                match ours.sign(&self.hosts, Timestamp::now()) {
                    Ok(leaf) => {
                        tracing::info!(hosts = self.hosts.join(" "), not_after = %leaf.not_after, "signed a certificate");
                        self.metrics.certificate_expires(leaf.not_after.as_second());
                        self.serving.send_replace(Some(leaf.config));
                        renew_at = Some(leaf.renew_at);
                        readiness.pass(CERTIFICATE);
                    }
                    Err(error) => readiness.fail(CERTIFICATE, chain(&error)),
                }
            }
            tokio::select! {
                _ = authority.changed() => renew_at = None,
                () = sleep(HOUR) => {}
            }
        }
    }

    async fn follow_configuration(&self) -> Infallible {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let mut seen = pin!(watch_object(configurations, names::WEBHOOK_CONFIGURATION).default_backoff());
        loop {
            match seen.next().await {
                Some(Ok(configuration)) => {
                    self.configuration.send_replace(Configuration::of(configuration));
                }
                Some(Err(error)) => {
                    tracing::warn!(error = chain(&error), "watch of the webhook configuration failed; trying again");
                }
                None => pending().await,
            }
        }
    }

    async fn compare(&self, readiness: &Readiness) -> Infallible {
        let (mut authority, mut configuration) = (self.authority.subscribe(), self.configuration.subscribe());
        loop {
            let ours = authority.borrow_and_update().clone();
            let seen = configuration.borrow_and_update().clone();
            match untrusted(ours.as_deref(), &seen) {
                None => readiness.pass(CA_BUNDLE),
                Some(why) => readiness.fail(CA_BUNDLE, why),
            }
            tokio::select! {
                _ = authority.changed() => {}
                _ = configuration.changed() => {}
            }
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

impl Configuration {
    fn of(configuration: Option<MutatingWebhookConfiguration>) -> Self {
        let Some(configuration) = configuration else { return Self::Absent };
        let hook = |webhook: k8s_openapi::api::admissionregistration::v1::MutatingWebhook| Hook {
            name: webhook.name,
            bundle: webhook.client_config.ca_bundle.unwrap_or_default().0,
        };
        Self::Present(configuration.webhooks.unwrap_or_default().into_iter().map(hook).collect())
    }
}

/// Why the API server does not trust us yet.
fn untrusted(authority: Option<&Authority>, configuration: &Configuration) -> Option<String> {
    let name = names::WEBHOOK_CONFIGURATION;
    let Some(authority) = authority else { return Some("there is no authority yet".to_owned()) };
    match configuration {
        Configuration::Unknown => Some(format!("MutatingWebhookConfiguration {name} has not been read yet")),
        Configuration::Absent => Some(format!(
            "there is no MutatingWebhookConfiguration {name}; apply the operator's manifests again (config/webhook)"
        )),
        Configuration::Present(hooks) if hooks.iter().all(|hook| authority.is_in(&hook.bundle)) => None,
        Configuration::Present(_) => {
            Some(format!("caBundle of MutatingWebhookConfiguration {name} is not ours yet; the leader writes it"))
        }
    }
}

/// Sets `caBundle` where it differs. By position, each guarded by the name that was seen there.
fn bundle_patch(configuration: &Configuration, bundle: &[u8]) -> Option<JsonPatch> {
    let Configuration::Present(hooks) = configuration else { return None };
    let differs = |(_, hook): &(usize, &Hook)| hook.bundle != bundle;
    let operations = |(index, hook): (usize, &Hook)| {
        let index = index.to_string();
        let at = |rest: &[&str]| {
            PointerBuf::from_tokens(["webhooks", &index].iter().chain(rest).map(|token| Token::new(*token)))
        };
        let value = json!(ByteString(bundle.to_vec()));
        [
            PatchOperation::Test(TestOperation { path: at(&["name"]), value: json!(hook.name) }),
            PatchOperation::Add(AddOperation { path: at(&["clientConfig", "caBundle"]), value }),
        ]
    };
    let patch: Vec<_> = hooks.iter().enumerate().filter(differs).flat_map(operations).collect();
    (!patch.is_empty()).then_some(JsonPatch(patch))
}

const CERTIFICATE: &str = "certificate";
const CA_BUNDLE: &str = "ca-bundle";
/// No call may hang for ever: kube has no read timeout of its own and repeats up to 15 times.
const CALL: Duration = Duration::from_secs(10);
const BREATH: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_with_another_bundle_are_patched_and_only_if_they_still_stand_there() {
        let seen = present([("first.dev", "mine"), ("second.dev", ""), ("third.dev", "foreign")]);
        let patch = serde_json::to_value(bundle_patch(&seen, b"mine")).unwrap();
        let expected = json!([
            {"op": "test", "path": "/webhooks/1/name", "value": "second.dev"},
            {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "bWluZQ=="},
            {"op": "test", "path": "/webhooks/2/name", "value": "third.dev"},
            {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "bWluZQ=="},
        ]);
        assert_eq!(patch, expected);
    }

    #[test]
    fn nothing_is_patched_at_rest_or_where_there_is_no_configuration() {
        assert_eq!(bundle_patch(&present([("only.dev", "mine")]), b"mine"), None);
        assert_eq!(bundle_patch(&Configuration::Absent, b"mine"), None);
        assert_eq!(bundle_patch(&Configuration::Unknown, b"mine"), None);
    }

    #[test]
    fn a_replica_is_trusted_when_every_webhook_publishes_its_authority() {
        let ours = Authority::generate(Timestamp::now()).unwrap();
        let pem = std::str::from_utf8(ours.bundle()).unwrap();
        let why = |seen| untrusted(Some(&ours), &seen);
        assert_eq!(why(present([("a.dev", pem), ("b.dev", &format!("{pem}{pem}"))])), None);
        assert!(why(present([("a.dev", pem), ("b.dev", "")])).unwrap().contains("not ours yet"));
        assert!(why(Configuration::Absent).unwrap().contains("apply the operator's manifests again"));
        assert!(why(Configuration::Unknown).unwrap().contains("not been read"));
        assert!(untrusted(None, &Configuration::Absent).unwrap().contains("no authority"));
    }

    fn present<const N: usize>(hooks: [(&str, &str); N]) -> Configuration {
        let hook = |(name, bundle): (&str, &str)| Hook { name: name.into(), bundle: bundle.into() };
        Configuration::Present(hooks.map(hook).into())
    }
}
