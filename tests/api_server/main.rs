//! The CustomResourceDefinition, the golden cases and the running operator on a real API server, which has no node: pods
//! stay Pending.
//!
//! `eval "$(tests/cluster/api.sh env)"`, and `KUBECTL`, `OPERATOR_BINARY` and `CERT_MANAGER` where they are not to be found by
//! themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../node/audit.rs"]
mod audit;
#[path = "../support/authorities.rs"]
mod authorities;
mod cluster;
#[path = "../support/component.rs"]
mod component;
mod crd;
#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../laws/generated.rs"]
mod generated;
mod golden;
mod operator;
mod proxy;
mod sample;
mod schema;
#[path = "../support/mod.rs"]
mod support;
