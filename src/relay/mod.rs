//! The relay: a small server between the agents of one AgentTracing and its MLflow. An agent that uses it needs one address and nothing
//! else; what MLflow does not take at the moment is kept on a volume and sent again, so that nothing that was answered with 200 is lost.

mod deliver;
mod door;
mod experiments;
mod forward;
mod gate;
mod order;
mod otlp;
mod pass;
mod request;
mod run;
mod sdk;
mod spool;
mod tally;
mod target;

pub use run::run;

#[cfg(test)]
mod tests;
