//! What the relay decides: whose request this is, what MLflow's answer means for it, and which of the held requests goes next.

pub mod aside;
pub mod bodies;
pub mod cause;
pub mod evidence;
pub mod history;
pub mod ids;
pub mod lanes;
pub mod pods;
pub mod report;
pub mod route;
pub mod sender;
pub mod traces;
