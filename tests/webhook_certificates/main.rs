//! The webhook's certificates, from an empty cluster to an HTTPS call that trusts nothing but `caBundle`. The API server
//! is a stand-in that keeps one Secret and one MutatingWebhookConfiguration and counts what is written.
//!
//! What takes a year is walked through: one clock for the replicas and for the client that calls them.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod bundle;
mod cluster;
mod jumps;
mod kills;
mod mounted;
mod replica;
mod secret;
mod sharing;
mod walk;
mod year;
