//! Everything that decides: plain functions over plain data. No client, no clock, no environment, no async.
//!
//! [`decide`](decide::decide) answers the one question that webhook, controller and command line ask: what should this
//! workload's template look like, and which JSON patch brings it there?

pub mod ca_bundle;
pub mod check;
pub mod children;
pub mod clip;
pub mod decide;
pub mod inject;
pub mod kubectl;
pub mod relay;
pub mod selection;
pub mod settings;
pub mod status;
pub mod url;
pub mod wiring;
pub mod workloads;
