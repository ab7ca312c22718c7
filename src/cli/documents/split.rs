//! A text taken apart into its documents, so that a broken one spoils no other.

/// A part of a text that holds one YAML document, or JSON documents one after the other.
pub(super) struct Part<'t> {
    /// The text, with the `---` that it begins with.
    pub text: &'t str,
    /// Its first line, from 1.
    pub line: usize,
}

/// Takes a text apart at its document markers: at the beginning of a line, `---` begins a document and `...` ends one, wherever
/// they stand. YAML allows neither within a document.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let end = at + line.len();
        if is_marker(line, "---") && !only_directives(&text[start..at]) {
            parts.push(Part { text: &text[start..at], line: first });
            (start, first) = (at, index + 1);
        } else if is_marker(line, "...") {
            parts.push(Part { text: &text[start..at], line: first });
            (start, first) = (end, index + 2);
        }
        at = end;
    }
    parts.push(Part { text: &text[start..], line: first });
    parts
}

impl<'t> Part<'t> {
    /// Without the marker and the comments before the document.
    pub fn content(&self) -> &'t str {
        let mut rest = self.text;
        loop {
            let line = rest.split_inclusive('\n').next().unwrap_or_default();
            let after_marker = line.strip_prefix("---").map_or(line, str::trim_start);
            let empty = after_marker.trim().is_empty() || after_marker.trim_start().starts_with('#');
            if line.is_empty() || !empty {
                return rest.trim_start();
            }
            rest = &rest[line.len()..];
        }
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_whitespace()))
}

/// Whether a text is the head of the document that follows: `%YAML 1.1`.
fn only_directives(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).peekable();
    lines.peek().is_some() && lines.all(|line| line.starts_with('%'))
}
