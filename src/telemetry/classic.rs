//! The text format of before OpenMetrics, which every tool reads.

use std::collections::HashSet;

/// OpenMetrics text as the older format has it: a counter is described under the name that its samples have, and there are
/// no units and no end mark.
pub(super) fn text(open_metrics: &str) -> String {
    let described =
        |line: &'_ str| line.strip_prefix("# TYPE ").and_then(|line| line.strip_suffix(" counter")).map(str::to_owned);
    let counters: HashSet<String> = open_metrics.lines().filter_map(described).collect();
    let mut text = String::with_capacity(open_metrics.len() + counters.len() * 2 * "_total".len());
    for line in open_metrics.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let of_a_counter = ["# HELP ", "# TYPE "].into_iter().find_map(|keyword| {
            let (name, rest) = line.strip_prefix(keyword)?.split_once(' ')?;
            counters.contains(name).then_some((keyword, name, rest))
        });
        match of_a_counter {
            Some((keyword, name, rest)) => text.extend([keyword, name, "_total ", rest]),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_between_the_formats_is_changed() {
        let open_metrics = "# HELP a_repairs Repairs of a_waits.\n# TYPE a_repairs counter\na_repairs_total{of=\"x\"} 3\n\
            # HELP a_waits_seconds Waits.\n# TYPE a_waits_seconds gauge\n# UNIT a_waits_seconds seconds\na_waits_seconds 0.5\n# EOF\n";
        let classic = "# HELP a_repairs_total Repairs of a_waits.\n# TYPE a_repairs_total counter\na_repairs_total{of=\"x\"} 3\n\
            # HELP a_waits_seconds Waits.\n# TYPE a_waits_seconds gauge\na_waits_seconds 0.5\n";
        assert_eq!(text(open_metrics), classic);
    }
}
