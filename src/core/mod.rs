//! Everything that decides: plain functions over plain data. No client, no clock, no environment, no async.
//!
//! [`decide`](decide::decide) answers the one question that webhook, controller and command line ask: what should this
//! workload's template look like, and which JSON patch brings it there?

pub mod ca_bundle;
pub mod canary;
pub mod certificate;
pub mod check;
pub mod decide;
pub mod desired;
pub mod drift;
pub mod evidence;
pub mod explain;
pub mod health;
pub mod hosts;
pub mod inject;
pub mod kind;
pub mod otlp;
pub mod policy;
pub mod quantity;
pub mod record;
pub mod rhythm;
pub mod rollout;
pub mod select;
pub mod settings;
pub mod shared;
pub mod status;
pub mod trouble;
pub mod view;
pub mod wiring;
pub mod workload;
pub mod writes;
