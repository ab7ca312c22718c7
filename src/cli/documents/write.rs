//! Documents as YAML.

use anyhow::Context;
use serde_json::Value;

/// A document as YAML that means the same in YAML 1.1, which kubectl reads, and in 1.2, which our writer writes: a text
/// such as `yes`, `1_000` or `12:30` is quoted, or it would arrive as something else.
pub fn to_yaml(document: &Value) -> anyhow::Result<String> {
    let mut document = document.clone();
    let mut marks = Marks { marker: unused_marker(&document), quoted: Vec::new() };
    marks.mark_all(&mut document);
    let yaml = serde_yaml::to_string(&document)?;
    let mut parts = yaml.split(&marks.marker);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // The number behind a marker and the slash that ends it are ours.
        let (number, rest) = part.split_once('/').context("a marker lost its end")?;
        let text = marks.quoted.get(number.parse::<usize>()?).context("a marker lost its text")?;
        out.push_str(&serde_json::to_string(text)?);
        out.push_str(rest);
    }
    Ok(out)
}

/// Texts to be quoted, each with a marker in its place until the writer is through.
struct Marks {
    marker: String,
    quoted: Vec<String>,
}

/// A marker that no text of the document holds. A user's text that looked like one was once exchanged for another text.
fn unused_marker(document: &Value) -> String {
    let text = document.to_string();
    let mut number = 0_usize;
    loop {
        let marker = format!("quoted-{number}/");
        if !text.contains(&marker) {
            return marker;
        }
        number += 1;
    }
}

impl Marks {
    fn mark_all(&mut self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (mut key, mut value) in std::mem::take(map) {
                    self.mark(&mut key);
                    self.mark_all(&mut value);
                    map.insert(key, value);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|v| self.mark_all(v)),
            Value::String(text) => self.mark(text),
            _ => {}
        }
    }

    fn mark(&mut self, text: &mut String) {
        if is_ambiguous(text) {
            let marker = format!("{}{}/", self.marker, self.quoted.len());
            self.quoted.push(std::mem::replace(text, marker));
        }
    }
}

fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "=", "<<"];
    let number_like = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:_ ".contains(c));
    number_like || WORDS.contains(&text.to_ascii_lowercase().as_str())
}
