//! What the relay decides: whose request this is, what MLflow's answer means for it, and which of the held requests goes next.

pub mod cause;
pub mod evidence;
pub mod lanes;
pub mod route;
pub mod sender;
