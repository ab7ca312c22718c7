//! The webhook's authorities as one Secret holds them, and the next step of their rotation. Pure: what the Secret holds, what
//! `caBundle` publishes and the time go in, one step comes out.
//!
//! One authority for all replicas: with one each, `caBundle` would fit only the replica that wrote it last. A rotation goes
//! through these states of the Secret, each of them a place to go on from, whoever leads by then:
//!
//! | state | `tls.crt` | keys | left when |
//! |---|---|---|---|
//! | at rest | A | A | two thirds of A's life are over |
//! | announced | A, B | A, B | `caBundle` has held both for [`OVERLAP`] |
//! | promoted | B, A | B | [`PREVIOUS_LIFETIME`] has passed: every replica serves what B signed |
//!
//! All certificates stand in `tls.crt`, the one that signs first, and `caBundle` is that list: an older operator, which knows
//! `tls.crt` and `tls.key` and nothing else, signs with the right one and publishes all of them when it leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::authority::{Authority, AuthorityError};
use super::serving::Validity;
use crate::core::ca_bundle::pem_block;

/// What a Secret holds.
pub type Data = BTreeMap<String, ByteString>;

/// The authorities that the replicas share.
#[derive(Clone, Debug)]
pub struct AuthoritySet {
    signer: Arc<Authority>,
    next: Option<Arc<Authority>>,
    previous: Vec<CertificateDer<'static>>,
    /// When the present state of a rotation was complete.
    since: Option<Timestamp>,
}

/// What the leader does next.
#[derive(Debug)]
pub enum RotationStep {
    /// The Secret is to hold this.
    Write(AuthoritySet, &'static str),
    /// `caBundle` is to hold [`AuthoritySet::bundle`].
    Publish,
    /// Nothing: time has to pass, or something has to change.
    Rest,
}

impl AuthoritySet {
    /// A new authority, and nothing else.
    pub fn generate(now: Timestamp) -> Result<Self, AuthorityError> {
        Ok(Self::of(Arc::new(Authority::generate(now)?)))
    }

    fn of(signer: Arc<Authority>) -> Self {
        Self { signer, next: None, previous: Vec::new(), since: None }
    }

    /// Reads the Secret's data. What is broken in any part of it is refused, so that whoever holds the whole puts it right.
    pub fn parse(data: &Data, now: Timestamp) -> Result<Self, AuthorityError> {
        let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text(data, TLS_CRT)?.as_bytes()).collect();
        let list = list.map_err(|_| AuthorityError::Certificate(TLS_CRT))?;
        let (first, others) = list.split_first().ok_or(AuthorityError::Certificate(TLS_CRT))?;
        let signer = Authority::read(first, text(data, TLS_KEY)?, (TLS_CRT, TLS_KEY))?;
        signer.validity().check(now)?;
        if others.iter().any(|other| Validity::of(other).is_none()) {
            return Err(AuthorityError::Certificate(TLS_CRT));
        }
        let mut previous = others.to_vec();
        let next = match data.contains_key(NEXT_KEY) {
            true => {
                let key = text(data, NEXT_KEY)?;
                let of_key = |other: &CertificateDer<'static>| Authority::read(other, key, (TLS_CRT, NEXT_KEY));
                // `tls.crt` lists the signing certificate first, then the announced one.
                let next = previous.first().ok_or(AuthorityError::Mismatch(TLS_CRT, NEXT_KEY)).and_then(of_key)?;
                previous.remove(0);
                Some(Arc::new(next))
            }
            false => None,
        };
        let since = match data.contains_key(SINCE) {
            true => Some(text(data, SINCE)?.parse().map_err(|_| AuthorityError::Time(SINCE))?),
            false => None,
        };
        Ok(Self { signer: Arc::new(signer), next, previous, since })
    }

    /// What to put in place of a Secret that is missing or cannot be used: what this replica holds of it, so that nothing
    /// changes over; or else what can be saved of it; or else a new authority.
    pub fn instead_of(data: &Data, current: Option<&Self>, now: Timestamp) -> Result<Self, AuthorityError> {
        let is_valid = |authority: &Arc<Authority>| authority.validity().check(now).is_ok();
        if let Some(current) = current.filter(|current| is_valid(&current.signer)) {
            return Ok(current.clone());
        }
        // A clock that jumped: the next one may be of use where the present one is none.
        let first = |key: &'static str| {
            let certificates = CertificateDer::pem_slice_iter(text(data, TLS_CRT).ok()?.as_bytes()).flatten();
            certificates.filter_map(|c| Authority::read(&c, text(data, key).ok()?, (TLS_CRT, key)).ok()).next()
        };
        let saved = [TLS_KEY, NEXT_KEY].into_iter().filter_map(first).map(Arc::new);
        let next = current.and_then(|current| current.next.clone());
        next.into_iter().chain(saved).find(is_valid).map_or_else(|| Self::generate(now), |found| Ok(Self::of(found)))
    }

    /// The Secret's data.
    pub fn data(&self) -> Data {
        let Self { signer, next, previous: _, since } = self;
        let more = [
            (TLS_CRT, Some(self.bundle())),
            (TLS_KEY, Some(signer.key_pem())),
            (NEXT_KEY, next.as_ref().map(|next| next.key_pem())),
            (SINCE, since.map(|since| since.to_string())),
        ];
        more.into_iter().filter_map(|(key, text)| Some((key.to_owned(), ByteString(text?.into_bytes())))).collect()
    }

    /// The authority that signs.
    pub fn signer(&self) -> &Authority {
        &self.signer
    }

    /// Every certificate that is to be trusted, as `caBundle` wants it.
    pub fn bundle(&self) -> String {
        self.certificates().map(|certificate| pem_block(certificate)).collect()
    }

    fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let next = self.next.iter().map(|next| next.certificate());
        [self.signer.certificate()].into_iter().chain(next).chain(&self.previous)
    }

    /// The next step, where `published` are the bundles of all webhooks and `serving` is what signed the certificate that
    /// this replica serves.
    pub fn step(
        &self,
        published: &[Vec<u8>],
        serving: Option<&CertificateDer<'static>>,
        now: Timestamp,
    ) -> Result<RotationStep, AuthorityError> {
        let write = |authorities, why| Ok(RotationStep::Write(authorities, why));
        // Somebody replaced the Secret, by an older copy perhaps: what the replicas serve must not become untrusted.
        if let Some(foreign) = serving.filter(|s| !self.certificates().any(|c| c == *s) && is_valid(s, now)) {
            let previous = [foreign].into_iter().chain(&self.previous).take(MAX_PREVIOUS).cloned().collect();
            return write(Self { previous, since: None, ..self.clone() }, "the replicas serve another authority");
        }
        if self.next.as_ref().is_some_and(|next| next.validity().check(now).is_err()) {
            return write(Self { next: None, since: None, ..self.clone() }, "the next authority is not valid");
        }
        if self.signer.validity().until < now + OVERLAP * 2 {
            return write(self.promote(now)?, "the authority is about to expire");
        }
        if self.next.is_none() && now >= self.signer.rotate_at() {
            let next = Some(Arc::new(Authority::generate(now)?));
            return write(Self { next, since: None, ..self.clone() }, "two thirds of the authority's life are over");
        }
        if published.is_empty() {
            return Ok(RotationStep::Rest);
        }
        if !published.iter().all(|bundle| self.is(bundle)) {
            return match (&self.next, self.since) {
                // The overlap counts from the last time that somebody took the next authority away.
                (Some(_), Some(_)) => write(Self { since: None, ..self.clone() }, "caBundle lost the next authority"),
                _ => Ok(RotationStep::Publish),
            };
        }
        if self.next.is_none() && self.previous.is_empty() {
            return Ok(RotationStep::Rest);
        }
        let Some(since) = self.since.filter(|since| *since <= now) else {
            return write(Self { since: Some(now), ..self.clone() }, "caBundle holds all of them");
        };
        match &self.next {
            Some(_) if now < since + OVERLAP => Ok(RotationStep::Rest),
            Some(_) => write(self.promote(now)?, "everybody knows the next authority"),
            None if now < since + PREVIOUS_LIFETIME
                || serving.is_some_and(|serving| self.previous.contains(serving)) =>
            {
                Ok(RotationStep::Rest)
            }
            None => write(Self::of(self.signer.clone()), "nobody serves the previous authority"),
        }
    }

    fn promote(&self, now: Timestamp) -> Result<Self, AuthorityError> {
        let signer = match &self.next {
            Some(next) => next.clone(),
            None => Arc::new(Authority::generate(now)?),
        };
        let previous = [self.signer.certificate()].into_iter().chain(&self.previous).filter(|c| is_valid(c, now));
        Ok(Self { signer, next: None, previous: previous.take(MAX_PREVIOUS).cloned().collect(), since: Some(now) })
    }

    /// Whether a bundle holds these certificates and no other. Not byte by byte: an older operator that leads writes the same
    /// ones in another order, and nothing is gained by writing them again.
    fn is(&self, bundle: &[u8]) -> bool {
        let theirs: Result<BTreeSet<_>, _> =
            CertificateDer::pem_slice_iter(bundle).map(|c| c.map(|c| c.to_vec())).collect();
        theirs.is_ok_and(|theirs| theirs == self.certificates().map(|c| c.to_vec()).collect())
    }
}

fn is_valid(certificate: &CertificateDer<'_>, now: Timestamp) -> bool {
    Validity::of(certificate).is_some_and(|validity| validity.check(now).is_ok())
}

fn text<'a>(data: &'a Data, key: &'static str) -> Result<&'a str, AuthorityError> {
    data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).ok_or(AuthorityError::Missing(key))
}

/// How long both authorities are published before the next one signs: all API servers and replicas have seen it by then.
pub const OVERLAP: Duration = Duration::from_secs(60 * 60);
/// How long the previous authority stays published: a replica that did not see the Secret for longer knows no AgentTracing
/// either.
pub const PREVIOUS_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Somebody who replaces the Secret again and again does not make `caBundle` grow.
const MAX_PREVIOUS: usize = 3;
const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const NEXT_KEY: &str = "next.key";
const SINCE: &str = "since";

#[cfg(test)]
mod tests;
