//! What the webhook knows: AgentTracings of all namespaces, which namespaces are labelled and which service accounts mount no
//! token, kept by three watches; and whether the cluster is OpenShift.
//!
//! A request never waits for the API server. A store that cannot be refreshed keeps what it has: old knowledge wires
//! agents, none does not.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::AgentTracing;
use crate::core::settings::policy::Policy;
use crate::lean::{self, Lean, LeanAccount};
use crate::names;
use crate::telemetry::{Readiness, error_chain};

/// Readiness checks that [`PolicyCache::keep`] passes.
pub const CHECKS: [&str; 4] = [TRACINGS, NAMESPACES, SERVICE_ACCOUNTS, PLATFORM];

/// AgentTracings by namespace, the labelled namespaces, and service accounts without a token.
#[derive(Debug, Default)]
pub struct PolicyCache {
    tracings: CachedIndex<PolicyIndex>,
    namespaces: CachedIndex<NamespaceIndex>,
    accounts: CachedIndex<TokenlessIndex>,
    openshift: OnceLock<bool>,
}

/// What is known of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct NamespacePolicies<'a> {
    /// Whether it carries the injection label.
    pub injection_enabled: bool,
    /// Its AgentTracings in any order.
    pub policies: &'a [Policy],
    /// Its service accounts whose token is mounted into no pod.
    pub tokenless: &'a BTreeSet<String>,
}

impl PolicyCache {
    /// Whether all watches have been through once. Before that, what is not here may well exist.
    pub fn is_filled(&self) -> bool {
        let lists = self.tracings.is_filled() && self.namespaces.is_filled() && self.accounts.is_filled();
        lists && self.openshift.get().is_some()
    }

    /// Asks about a namespace.
    pub fn with_namespace<R>(&self, namespace: &str, question: impl FnOnce(NamespacePolicies<'_>) -> R) -> R {
        let none = BTreeSet::new();
        let injection_enabled = self.namespaces.read(|labelled| labelled.0.contains(namespace));
        self.accounts.read(|accounts| {
            let tokenless = accounts.0.get(namespace).unwrap_or(&none);
            self.tracings.read(|tracings| {
                let policies = tracings.0.get(namespace).map_or(&[][..], Vec::as_slice);
                question(NamespacePolicies { injection_enabled, policies, tokenless })
            })
        })
    }

    /// Whether the cluster is OpenShift: its SCCs give uid and seccomp profile.
    pub fn is_openshift(&self) -> bool {
        self.openshift.get().copied().unwrap_or(false)
    }

    /// Follows the kinds for ever.
    pub async fn keep(&self, client: &Client, readiness: &Readiness) -> Infallible {
        let all = lean::config();
        let labelled = all.clone().labels(&format!("{}={}", names::LABEL_INJECTION, names::ENABLED));
        let tracings = Api::<DeserializeGuard<AgentTracing>>::all(client.clone());
        let namespaces = Api::<Lean<Namespace>>::all(client.clone());
        let accounts = Api::<LeanAccount>::all(client.clone());
        let (tracings, ..) = futures::join!(
            self.tracings.follow(tracings, lean::config_of_tracings(), TRACINGS, readiness),
            self.namespaces.follow(namespaces, labelled, NAMESPACES, readiness),
            self.accounts.follow(accounts, all, SERVICE_ACCOUNTS, readiness),
            self.discover(client, readiness),
        );
        tracings
    }

    async fn discover(&self, client: &Client, readiness: &Readiness) {
        loop {
            match client.list_api_groups().await {
                Ok(groups) => {
                    let _ = self.openshift.set(groups.groups.iter().any(|g| g.name == names::OPENSHIFT_GROUP));
                    readiness.pass(PLATFORM);
                    return;
                }
                Err(error) => {
                    readiness.fail(PLATFORM, error_chain(&error));
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            }
        }
    }

    /// Fills both stores at once, as the first lists of the watches do.
    pub fn fill<'n>(&self, tracings: Vec<AgentTracing>, labelled: impl IntoIterator<Item = &'n str>) {
        let objects = tracings.into_iter().map(|t| DeserializeGuard(Ok(t)));
        let events = std::iter::once(Event::Init).chain(objects.map(Event::InitApply));
        events.chain([Event::InitDone]).for_each(|event| self.tracings.take(event));

        let namespace = |name: &&str| ObjectMeta { name: Some((*name).to_owned()), ..ObjectMeta::default() }.into();
        let names: Vec<_> = labelled.into_iter().collect();
        let events = std::iter::once(Event::Init).chain(names.iter().map(namespace).map(Event::InitApply));
        events.chain([Event::InitDone]).for_each(|event| self.namespaces.take(event));
        [Event::Init, Event::InitDone].into_iter().for_each(|event| self.accounts.take(event));
        let _ = self.openshift.set(false);
    }
}

/// Something that objects are put into and taken out of.
trait Index: Default {
    type Object;
    fn put(&mut self, object: Self::Object);
    fn remove(&mut self, object: &Self::Object);
}

/// An index, the one that a list in progress builds, and whether a list has ever been complete.
#[derive(Debug, Default)]
struct CachedIndex<I> {
    live: RwLock<I>,
    /// `None` outside a list. What is deleted while we are cut off disappears with the swap at the list's end.
    building: RwLock<Option<I>>,
    filled: AtomicBool,
}

impl<I: Index> CachedIndex<I> {
    fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    fn read<R>(&self, question: impl FnOnce(&I) -> R) -> R {
        question(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, event: Event<I::Object>) {
        let mut building = self.building.write().unwrap_or_else(PoisonError::into_inner);
        let live = || self.live.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => *building = Some(I::default()),
            Event::InitApply(object) => building.get_or_insert_default().put(object),
            Event::InitDone => {
                *live() = building.take().unwrap_or_default();
                self.filled.store(true, Ordering::Release);
            }
            Event::Apply(object) => live().put(object),
            Event::Delete(object) => live().remove(&object),
        }
    }

    async fn follow(
        &self,
        api: Api<I::Object>,
        config: watcher::Config,
        check: &'static str,
        readiness: &Readiness,
    ) -> Infallible
    where
        I::Object: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut events = pin!(watch_objects(api, config).default_backoff());
        loop {
            match events.next().await {
                Some(Ok(event)) => {
                    self.take(event);
                    if self.is_filled() {
                        readiness.pass(check);
                    }
                }
                Some(Err(error)) => {
                    let error = error_chain(&error);
                    tracing::warn!(check, error, "watch failed; trying again");
                    if !self.is_filled() {
                        readiness.fail(check, error);
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

#[derive(Debug, Default)]
struct PolicyIndex(HashMap<String, Vec<Policy>>);

impl Index for PolicyIndex {
    type Object = DeserializeGuard<AgentTracing>;

    fn put(&mut self, object: Self::Object) {
        // One object that this version cannot read must not stop the watch of all others.
        self.remove(&object);
        match &object.0 {
            Ok(tracing) => {
                let policy = Policy::of(tracing);
                self.0.entry(policy.settings.namespace.clone()).or_default().push(policy);
            }
            Err(invalid) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                tracing::warn!(namespace, name, error = invalid.error, "this AgentTracing cannot be read; ignored");
            }
        }
    }

    fn remove(&mut self, object: &Self::Object) {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if let Some(policies) = self.0.get_mut(&namespace) {
            policies.retain(|policy| policy.settings.name != name);
            if policies.is_empty() {
                self.0.remove(&namespace);
            }
        }
    }
}

#[derive(Debug, Default)]
struct NamespaceIndex(HashSet<String>);

impl Index for NamespaceIndex {
    type Object = Lean<Namespace>;

    fn put(&mut self, namespace: Self::Object) {
        self.0.insert(namespace.name_any());
    }

    fn remove(&mut self, namespace: &Self::Object) {
        self.0.remove(&namespace.name_any());
    }
}

/// Of all service accounts only those are kept that mount no token: they are few.
#[derive(Debug, Default)]
struct TokenlessIndex(HashMap<String, BTreeSet<String>>);

impl Index for TokenlessIndex {
    type Object = LeanAccount;

    fn put(&mut self, account: Self::Object) {
        if account.automount_token == Some(false) {
            let of_namespace = self.0.entry(account.namespace().unwrap_or_default()).or_default();
            of_namespace.insert(account.name_any());
        } else {
            self.remove(&account);
        }
    }

    fn remove(&mut self, account: &Self::Object) {
        let namespace = account.namespace().unwrap_or_default();
        if let Some(accounts) = self.0.get_mut(&namespace) {
            accounts.remove(&account.name_any());
            if accounts.is_empty() {
                self.0.remove(&namespace);
            }
        }
    }
}

const TRACINGS: &str = "agenttracings";
const NAMESPACES: &str = "namespaces";
const SERVICE_ACCOUNTS: &str = "serviceaccounts";
const PLATFORM: &str = "platform";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_filled_only_when_everything_was_read_once() {
        let cache = PolicyCache::default();
        cache.tracings.take(Event::Init);
        cache.tracings.take(Event::InitDone);
        cache.namespaces.take(Event::Init);
        assert!(!cache.is_filled());
        cache.namespaces.take(Event::InitDone);
        cache.accounts.take(Event::Init);
        cache.accounts.take(Event::InitDone);
        assert!(!cache.is_filled());
        cache.openshift.set(false).unwrap();
        assert!(cache.is_filled());
    }

    #[test]
    fn a_list_in_progress_hides_nothing_and_at_its_end_what_is_gone_is_gone() {
        let cache = PolicyCache::default();
        cache.fill(vec![tracing("bank", "old"), tracing("bank", "kept")], ["bank"]);

        cache.tracings.take(Event::Init);
        cache.tracings.take(Event::InitApply(DeserializeGuard(Ok(tracing("bank", "kept")))));
        assert_eq!(tracings_of(&cache, "bank"), ["old", "kept"]);

        cache.tracings.take(Event::InitDone);
        assert_eq!(tracings_of(&cache, "bank"), ["kept"]);
    }

    #[test]
    fn a_changed_tracing_replaces_itself_and_a_deleted_one_goes() {
        let cache = PolicyCache::default();
        cache.fill(vec![tracing("bank", "first")], ["bank"]);
        cache.tracings.take(Event::Apply(DeserializeGuard(Ok(tracing("bank", "first")))));
        cache.tracings.take(Event::Apply(DeserializeGuard(Ok(tracing("bank", "second")))));
        assert_eq!(tracings_of(&cache, "bank"), ["first", "second"]);
        cache.tracings.take(Event::Delete(DeserializeGuard(Ok(tracing("bank", "first")))));
        assert_eq!(tracings_of(&cache, "bank"), ["second"]);
        assert!(tracings_of(&cache, "shop").is_empty());
    }

    #[test]
    fn one_unreadable_tracing_does_not_stop_the_others() {
        let cache = PolicyCache::default();
        let list = r#"[{"metadata":{"namespace":"bank","name":"odd"},"spec":{"mlflow":{"mode":"Unheard"}}},
            {"metadata":{"namespace":"bank","name":"good"},"spec":{"mlflow":{"mode":"Standalone"}}}]"#;
        let objects: Vec<DeserializeGuard<AgentTracing>> =
            serde_yaml::from_str(list).map_err(|e| e.to_string()).unwrap();
        cache.tracings.take(Event::Init);
        objects.into_iter().for_each(|object| cache.tracings.take(Event::InitApply(object)));
        cache.tracings.take(Event::InitDone);
        assert_eq!(tracings_of(&cache, "bank"), ["good"]);
    }

    #[test]
    fn a_namespace_that_loses_its_label_is_forgotten() {
        let cache = PolicyCache::default();
        cache.fill(Vec::new(), ["bank", "shop"]);
        let bank = ObjectMeta { name: Some("bank".into()), ..ObjectMeta::default() };
        cache.namespaces.take(Event::Delete(bank.into()));
        assert!(!cache.with_namespace("bank", |known| known.injection_enabled));
        assert!(cache.with_namespace("shop", |known| known.injection_enabled));
    }

    #[test]
    fn a_service_account_that_mounts_no_token_is_remembered_until_it_does() {
        let cache = PolicyCache::default();
        cache.fill(Vec::new(), ["bank"]);
        let (namespace, name) = (Some("bank".into()), Some("teller".into()));
        let mut account = LeanAccount::from(ObjectMeta { namespace, name, ..ObjectMeta::default() });
        account.automount_token = Some(false);
        cache.accounts.take(Event::Apply(account.clone()));
        assert!(cache.with_namespace("bank", |known| known.tokenless.contains("teller")));
        account.automount_token = None;
        cache.accounts.take(Event::Apply(account));
        assert!(cache.with_namespace("bank", |known| known.tokenless.is_empty()));
    }

    fn tracings_of(cache: &PolicyCache, namespace: &str) -> Vec<String> {
        cache.with_namespace(namespace, |known| known.policies.iter().map(|p| p.settings.name.clone()).collect())
    }

    fn tracing(namespace: &str, name: &str) -> AgentTracing {
        serde_yaml::from_str(&format!(
            "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{namespace: {namespace}, \
             name: {name}}}, spec: {{mlflow: {{mode: Standalone}}}}}}"
        ))
        .unwrap()
    }
}
