//! How much of an object is read and wired: bounds for what no API server would store, but anybody who reaches the port can
//! send.

use crate::core::inject::view::Workload;

/// A bound that an object exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Limit {
    #[error("the review has more than {MAX_VALUES} values")]
    Values,
    #[error("the workload has more than {MAX_CONTAINERS} containers")]
    Containers,
    #[error("the workload's annotations have more than {MAX_ANNOTATIONS} bytes")]
    Annotations,
}

/// Whether a body can be read. Memory goes by the number of values: `{},` is 3 bytes of a body and 300 of a container.
pub(super) fn body(body: &[u8]) -> Result<(), Limit> {
    // Each value has a byte at least.
    if body.len() <= MAX_VALUES {
        return Ok(());
    }
    let opens = |byte: &&u8| matches!(**byte, b'{' | b'[' | b',');
    // Strings may be full of them, so that few prove something and many do not.
    if body.iter().filter(opens).count() <= MAX_VALUES || values(body) <= MAX_VALUES {
        return Ok(());
    }
    Err(Limit::Values)
}

/// Values of a JSON text, at least.
fn values(body: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

/// Whether a workload can be wired: what we add must not be what makes the API server refuse it.
pub(super) fn workload(workload: &Workload<'_>) -> Result<(), Limit> {
    let pod = &workload.pod;
    if pod.containers.len() + pod.init_containers.as_ref().map_or(0, Vec::len) > MAX_CONTAINERS {
        return Err(Limit::Containers);
    }
    let of = [Some(&workload.metadata), workload.template_metadata()];
    let annotations = of.into_iter().flatten().filter_map(|metadata| metadata.annotations.as_ref());
    let bytes: usize = annotations.flat_map(|a| &a.known).map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_ANNOTATIONS { Err(Limit::Annotations) } else { Ok(()) }
}

/// Five times what an UPDATE of 450 KB has. Beyond a megabyte a workload may have more; the controller wires it then.
const MAX_VALUES: usize = 100_000;
/// The record of what we added takes up to 250 bytes for each, and an object's annotations may have 256 KiB.
const MAX_CONTAINERS: usize = 500;
/// The API server refuses more on one object; a workload has two, its own and its template's.
const MAX_ANNOTATIONS: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_string_is_no_value() {
        assert_eq!(values(br#"{"a": [1, 2, {}], "b": null}"#), 6);
        assert_eq!(values(br#"{"a": "[1, 2, {\", \\"}"#), 1);
        assert_eq!(values(br#"[\"["#), 1);
        let text = format!("[\"{}\"]", ",".repeat(2 * MAX_VALUES));
        assert_eq!(body(text.as_bytes()), Ok(()));
        let full = |values| format!("[{}0]", "0,".repeat(values - 1));
        assert_eq!(body(full(MAX_VALUES).as_bytes()), Ok(()));
        assert_eq!(body(full(MAX_VALUES + 1).as_bytes()), Err(Limit::Values));
    }
}
