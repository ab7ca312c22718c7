//! The product on a real cluster: real pods, a real MLflow, real agents. What is asserted here is what a user was promised.
//!
//! `tests/cluster/node.sh up`, load the images, then
//! `tests/cluster/node.sh exec cargo test --offline --test node -- --ignored --test-threads=1`; `make test` does all of it.
//! Each test makes a namespace of its own, enforcing Pod Security `restricted`, and removes it. `SOAK=1` looks longer.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod audit;
#[path = "../support/authorities.rs"]
mod authorities;
mod availability;
#[path = "../support/canary.rs"]
mod canary;
mod cases;
mod check;
mod egress;
mod evidence;
mod frameworks;
mod install;
mod kinds;
mod life;
mod mistakes;
mod mlflow;
mod newcomers;
mod operator;
mod pace;
mod policies;
mod relay;
mod shared;
mod shared_limits;
mod trust;
mod twenty;
mod uninstall;
mod volume;
mod world;
