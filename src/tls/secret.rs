//! Self-managed certificates: the Secret with the authorities, and what is signed with them.
//!
//! A deleted or corrupt Secret is written again with what the replicas hold, so that nothing has to change over. Only a
//! replica that holds nothing makes a new authority. And no replica changes over to an authority that `caBundle` does not
//! hold while it has a certificate that `caBundle` vouches for: not even when somebody replaces the Secret.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use rustls::pki_types::CertificateDer;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::authority::{Authority, AuthorityError};
use super::bundle::Configuration;
use super::rotation::{AuthoritySet, RotationStep};
use super::{CERTIFICATE, Certificates, TICK};
use crate::core::kubectl::Kubectl;
use crate::names;
use crate::telemetry::{Readiness, error_chain};

/// What the Secret holds, and the version of it that a change builds on.
#[derive(Clone)]
pub struct SecretState {
    authorities: AuthoritySet,
    secret: Secret,
}

/// Why a step failed; it is taken again.
#[derive(Debug, thiserror::Error)]
enum StepError {
    /// The API server refuses the Secret.
    #[error(
        "failed to write Secret {}; may the operator? {}",
        names::WEBHOOK_CA_SECRET,
        Kubectl::new("auth can-i --list").namespace(.namespace)
    )]
    Secret {
        /// The operator's namespace.
        namespace: String,
        /// What it says.
        source: kube::Error,
    },
    /// The API server refuses the bundle.
    #[error("failed to write caBundle of MutatingWebhookConfiguration {}", names::WEBHOOK_CONFIGURATION)]
    Bundle(#[source] kube::Error),
    /// The API server says nothing.
    #[error("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    NoAnswer(#[from] Elapsed),
    /// There is no new authority.
    #[error("failed to make an authority")]
    Make(#[from] AuthorityError),
}

impl Certificates {
    /// Keeps a usable Secret, and knows what it holds.
    pub(super) async fn hold_authorities(&self, readiness: &Readiness) -> Infallible {
        let mut events = pin!(watch_object(self.secrets(), names::WEBHOOK_CA_SECRET).default_backoff());
        let mut seen: Option<Option<Secret>> = None;
        let mut wait = RETRY_INTERVAL;
        loop {
            let usable = seen.as_ref().is_none_or(|secret| self.adopt(secret.as_ref()));
            if let (Some(secret), false) = (&seen, usable)
                && let Err(error) = self.heal(secret.as_ref()).await
            {
                let error = error_chain(&error);
                tracing::warn!(error, "trying again");
                self.fail_without_any(readiness, error);
            }
            let pause = if usable { TICK } else { wait };
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(secret)) => (seen, wait) = (Some(secret), RETRY_INTERVAL),
                    Some(Err(error)) => {
                        let error = error_chain(&error);
                        tracing::warn!(error, "watch of Secret {} failed; trying again", names::WEBHOOK_CA_SECRET);
                        self.fail_without_any(readiness, error);
                    }
                    None => pending().await,
                },
                // Time alone makes a Secret unusable too.
                () = self.clock.wait(pause) => if !usable { wait = (wait * 2).min(MAX_RETRY_INTERVAL) },
            }
        }
    }

    fn fail_without_any(&self, readiness: &Readiness, error: String) {
        if self.state.borrow().is_none() {
            readiness.fail(CERTIFICATE, error);
        }
    }

    /// Takes over what the Secret holds; `false`: there is nothing of use.
    fn adopt(&self, secret: Option<&Secret>) -> bool {
        let Some(secret) = secret else { return false };
        match AuthoritySet::parse(secret.data.as_ref().unwrap_or(&Default::default()), self.clock.now()) {
            Ok(authorities) => {
                let version = |secret: &Secret| secret.metadata.resource_version.clone();
                let is_new = self.state.borrow().as_ref().is_none_or(|state| version(&state.secret) != version(secret));
                if is_new {
                    self.state.send_replace(Some(SecretState { authorities, secret: secret.clone() }));
                }
                true
            }
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(error, "Secret {} is unusable; replacing it", names::WEBHOOK_CA_SECRET);
                false
            }
        }
    }

    async fn heal(&self, unusable: Option<&Secret>) -> Result<(), StepError> {
        let state = self.state.borrow().clone().map(|state| state.authorities);
        let data = unusable.and_then(|secret| secret.data.clone()).unwrap_or_default();
        let authorities = AuthoritySet::instead_of(&data, state.as_ref(), self.clock.now())?;
        self.write(unusable, &authorities).await
    }

    /// Writes the Secret. Success also means that someone else wrote first: the watch tells what there is now.
    async fn write(&self, old: Option<&Secret>, authorities: &AuthoritySet) -> Result<(), StepError> {
        // With the version that was seen: of two replicas that write at once only one wins.
        let seen = old.map(|old| old.metadata.clone()).unwrap_or_default();
        let ours = [(names::LABEL_MANAGED_BY, names::MANAGED_BY), (names::LABEL_PART_OF, names::PART_OF)];
        let mut labels = seen.labels.clone().unwrap_or_default();
        labels.extend(ours.map(|(label, value)| (label.to_owned(), value.to_owned())));
        let name = Some(names::WEBHOOK_CA_SECRET.to_owned());
        let metadata = ObjectMeta { name, labels: Some(labels), managed_fields: None, ..seen };
        // The type of an existing Secret is immutable.
        let kind = old.map_or_else(|| Some("kubernetes.io/tls".to_owned()), |old| old.type_.clone());
        let secret = Secret { metadata, data: Some(authorities.data()), type_: kind, ..Secret::default() };
        let parameters = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let secrets = self.secrets();
        let written = async {
            match old {
                None => secrets.create(&parameters, &secret).await,
                Some(_) => secrets.replace(names::WEBHOOK_CA_SECRET, &parameters, &secret).await,
            }
        };
        match timeout(CALL_TIMEOUT, written).await? {
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(source) => Err(StepError::Secret { namespace: self.namespace.clone(), source }),
            Ok(_) => Ok(()),
        }
    }

    /// One step of a rotation after the other, and `caBundle`.
    pub(super) async fn rotate(&self) -> Infallible {
        let (mut state, mut configuration) = (self.state.subscribe(), self.configuration.subscribe());
        loop {
            let ours = state.borrow_and_update().clone();
            let seen = configuration.borrow_and_update().clone();
            let pause = match ours {
                Some(ours) => self.next_step(&ours, &seen).await,
                None => TICK,
            };
            if pause < TICK {
                // If another controller reverts the write, do not write more often than this.
                self.clock.wait(pause).await;
                continue;
            }
            tokio::select! {
                _ = state.changed() => {}
                _ = configuration.changed() => {}
                () = self.clock.wait(pause) => {}
            }
        }
    }

    /// Takes one step, and says how long to wait at least.
    async fn next_step(&self, state: &SecretState, configuration: &Configuration) -> Duration {
        let signer = self.leaf.borrow().as_ref().map(|leaf| leaf.signer.clone());
        let done = match state.authorities.step(&configuration.bundles(), signer.as_ref(), self.clock.now()) {
            Ok(RotationStep::Rest) => return TICK,
            Ok(RotationStep::Publish) => self.publish(configuration, &state.authorities.bundle()).await,
            Ok(RotationStep::Write(next, why)) => {
                tracing::info!(why, "changing Secret {}", names::WEBHOOK_CA_SECRET);
                self.write(Some(&state.secret), &next).await
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            tracing::warn!(error = error_chain(&error), "trying again");
        }
        RETRY_INTERVAL
    }

    async fn publish(&self, configuration: &Configuration, bundle: &str) -> Result<(), StepError> {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let parameters = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Json::<()>(configuration.patch(bundle));
        let patched = configurations.patch(names::WEBHOOK_CONFIGURATION, &parameters, &patch);
        timeout(CALL_TIMEOUT, patched).await?.map_err(StepError::Bundle)?;
        tracing::info!("published the webhook's authority in caBundle");
        Ok(())
    }

    /// Serves a certificate that is fresh and that the API server believes.
    pub(super) async fn sign_in_time(&self, readiness: &Readiness) -> Infallible {
        let (mut state, mut configuration) = (self.state.subscribe(), self.configuration.subscribe());
        let mut published = Published::default();
        loop {
            let ours = state.borrow_and_update().clone();
            let seen = configuration.borrow_and_update().clone();
            let mut pause = TICK;
            if let Some(ours) = ours {
                let (signer, now) = (ours.authorities.signer(), self.clock.now());
                published.look(signer.certificate(), &seen, now);
                if self.is_due(signer, &seen, &published, now) {
                    self.sign(signer, now, readiness);
                } else if !self.is_signed_by(signer) {
                    pause = PUBLISH_SETTLE_TIME;
                }
            }
            tokio::select! {
                _ = state.changed() => {}
                _ = configuration.changed() => {}
                () = self.clock.wait(pause) => {}
            }
        }
    }

    fn is_signed_by(&self, signer: &Authority) -> bool {
        self.leaf.borrow().as_ref().is_some_and(|leaf| leaf.signer == *signer.certificate())
    }

    fn is_due(&self, signer: &Authority, seen: &Configuration, published: &Published, now: Timestamp) -> bool {
        let leaf = self.leaf.borrow();
        let Some(leaf) = leaf.as_ref() else { return true };
        if leaf.serving.validity().check(now).is_err() {
            return true;
        }
        match leaf.signer == *signer.certificate() {
            true => now >= leaf.renew_at,
            false => published.is_settled(now) || !seen.publishes(&leaf.signer),
        }
    }

    fn sign(&self, signer: &Authority, now: Timestamp, readiness: &Readiness) {
        match signer.sign(&self.hosts, now) {
            Ok(leaf) => {
                let not_after = leaf.serving.validity().until;
                tracing::info!(hosts = self.hosts.join(" "), %not_after, "signed a certificate");
                self.serve(leaf.serving.clone());
                self.leaf.send_replace(Some(leaf));
                readiness.pass(CERTIFICATE);
            }
            Err(error) => readiness.fail(CERTIFICATE, error_chain(&error)),
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Since when `caBundle` holds an authority.
#[derive(Default)]
struct Published(Option<(CertificateDer<'static>, Timestamp)>);

impl Published {
    fn look(&mut self, authority: &CertificateDer<'static>, seen: &Configuration, now: Timestamp) {
        let since =
            self.0.take().filter(|(of, since)| of == authority && *since <= now).map_or(now, |(_, since)| since);
        self.0 = seen.publishes(authority).then(|| (authority.clone(), since));
    }

    fn is_settled(&self, now: Timestamp) -> bool {
        self.0.as_ref().is_some_and(|(_, since)| now >= *since + PUBLISH_SETTLE_TIME)
    }
}

/// No call may hang for ever: kube has no read timeout of its own and repeats up to 15 times.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// API servers follow the configuration by a watch of their own, within seconds.
const PUBLISH_SETTLE_TIME: Duration = Duration::from_secs(30);
