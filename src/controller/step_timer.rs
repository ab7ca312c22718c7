//! Where a pass is and how long its steps take, for metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::telemetry::Metrics;
use crate::telemetry::metrics::ReconcileStep;

/// The steps of one pass. They outlive it, so that one which ran out of time or panicked says where.
pub(super) struct StepTimer<'a> {
    metrics: &'a Metrics,
    began: Instant,
    now: Mutex<Option<(ReconcileStep, Instant)>>,
}

impl<'a> StepTimer<'a> {
    pub fn begin(metrics: &'a Metrics) -> Self {
        Self { metrics, began: Instant::now(), now: Mutex::default() }
    }

    /// The next step begins, and with that the one before has ended.
    pub fn next(&self, step: ReconcileStep) {
        let before = self.now().replace((step, Instant::now()));
        self.ended(before);
    }

    /// The pass ended, with this kind of error.
    pub fn end(&self, error: Option<&'static str>) {
        let last = self.now().take();
        self.ended(last);
        let failed_in = error.and(last).map(|(step, _)| step);
        self.metrics.reconcile(error.unwrap_or("ok"), failed_in, self.began.elapsed());
    }

    fn ended(&self, step: Option<(ReconcileStep, Instant)>) {
        if let Some((step, began)) = step {
            self.metrics.step(step, began.elapsed());
        }
    }

    fn now(&self) -> MutexGuard<'_, Option<(ReconcileStep, Instant)>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pass_is_counted_where_it_failed_and_a_good_one_nowhere() {
        let metrics = Metrics::default();
        let good = StepTimer::begin(&metrics);
        good.next(ReconcileStep::Server);
        good.next(ReconcileStep::Status);
        good.end(None);
        let failed = StepTimer::begin(&metrics);
        failed.next(ReconcileStep::Server);
        failed.next(ReconcileStep::Rights);
        failed.end(Some("observe"));
        let text = metrics.text();
        for (line, times) in [
            (r#"agent_tracing_reconciles_total{outcome="ok"} 1"#, 1),
            (r#"agent_tracing_reconciles_total{outcome="observe"} 1"#, 1),
            (r#"agent_tracing_reconcile_errors_total{step="rights"} 1"#, 1),
            (r#"agent_tracing_reconcile_errors_total{step="server"} 0"#, 1),
            (r#"agent_tracing_reconcile_step_duration_seconds_count{step="server"} 2"#, 1),
            (r#"agent_tracing_reconcile_step_duration_seconds_count{step="status"} 1"#, 1),
            (r#"agent_tracing_reconcile_step_duration_seconds_count{step="workloads"}"#, 0),
            ("agent_tracing_reconcile_duration_seconds_count 2", 1),
        ] {
            assert_eq!(text.lines().filter(|l| l.starts_with(line)).count(), times, "{line} in\n{text}");
        }
    }
}
