//! Texts that a schema bounds.

/// A text of at most so many characters; one that is cut ends with `…`.
pub fn clip(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
