//! The MutatingWebhookConfiguration, as far as `caBundle` goes.

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

/// The MutatingWebhookConfiguration as last seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Configuration {
    /// Not read yet.
    Unknown,
    /// There is none.
    Absent,
    /// Its webhooks.
    Present(Vec<Hook>),
}

/// One webhook of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    name: String,
    bundle: Vec<u8>,
}

impl Configuration {
    /// What was read.
    pub fn of(configuration: Option<MutatingWebhookConfiguration>) -> Self {
        let Some(configuration) = configuration else { return Self::Absent };
        let hook = |webhook: MutatingWebhook| Hook {
            name: webhook.name,
            bundle: webhook.client_config.ca_bundle.unwrap_or_default().0,
        };
        Self::Present(configuration.webhooks.unwrap_or_default().into_iter().map(hook).collect())
    }

    /// `caBundle` of each webhook.
    pub fn bundles(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Unknown | Self::Absent => Vec::new(),
            Self::Present(hooks) => hooks.iter().map(|hook| hook.bundle.clone()).collect(),
        }
    }

    /// Whether every webhook publishes this authority.
    pub fn publishes(&self, authority: &CertificateDer<'_>) -> bool {
        let bundles = self.bundles();
        let holds = |bundle: &Vec<u8>| CertificateDer::pem_slice_iter(bundle).any(|c| c.is_ok_and(|c| c == *authority));
        !bundles.is_empty() && bundles.iter().all(holds)
    }

    /// Sets `caBundle` where it differs. By position, each guarded by the name that was seen there.
    pub fn patch(&self, bundle: &str) -> JsonPatch {
        let Self::Present(hooks) = self else { return JsonPatch(Vec::new()) };
        let differs = |(_, hook): &(usize, &Hook)| hook.bundle != bundle.as_bytes();
        let operations = |(index, hook): (usize, &Hook)| {
            let index = index.to_string();
            let at = |rest: &[&str]| {
                PointerBuf::from_tokens(["webhooks", &index].iter().chain(rest).map(|token| Token::new(*token)))
            };
            let value = json!(ByteString(bundle.as_bytes().to_vec()));
            [
                PatchOperation::Test(TestOperation { path: at(&["name"]), value: json!(hook.name) }),
                PatchOperation::Add(AddOperation { path: at(&["clientConfig", "caBundle"]), value }),
            ]
        };
        JsonPatch(hooks.iter().enumerate().filter(differs).flat_map(operations).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_with_another_bundle_are_patched_and_only_if_they_still_stand_there() {
        let hook = |(name, bundle): (&str, &str)| Hook { name: name.into(), bundle: bundle.into() };
        let hooks = [("first.dev", "mine"), ("second.dev", ""), ("third.dev", "foreign")].map(hook);
        let patch = serde_json::to_value(Configuration::Present(hooks.into()).patch("mine")).unwrap();
        let expected = json!([
            {"op": "test", "path": "/webhooks/1/name", "value": "second.dev"},
            {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "bWluZQ=="},
            {"op": "test", "path": "/webhooks/2/name", "value": "third.dev"},
            {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "bWluZQ=="},
        ]);
        assert_eq!(patch, expected);
    }
}
