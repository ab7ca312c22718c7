//! As much of Markdown as the pages use.

/// A fenced block of code.
pub struct Block {
    /// Page and line, for messages.
    pub place: String,
    /// The word after the fence.
    pub language: String,
    /// The line before the fence that is not empty.
    pub before: String,
    /// What is between the fences.
    pub text: String,
}

/// A page, taken apart.
pub struct Page {
    /// Path from the root of the repository.
    pub path: String,
    /// Fenced blocks.
    pub blocks: Vec<Block>,
    /// Lines outside fenced blocks, with their numbers.
    pub lines: Vec<(usize, String)>,
}

pub fn pages() -> Vec<Page> {
    super::pages().iter().map(|path| page(path)).collect()
}

pub fn page(path: &str) -> Page {
    let text = super::read(path);
    let (mut blocks, mut lines) = (Vec::new(), Vec::<(usize, String)>::new());
    let mut open: Option<Block> = None;
    let mut indent = 0;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                indent = line.len() - line.trim_start().len();
                let before = lines.iter().rev().map(|(_, line)| line.trim()).find(|line| !line.is_empty());
                open = Some(Block {
                    place: format!("{path}:{number}"),
                    language: language.trim().to_owned(),
                    before: before.unwrap_or_default().to_owned(),
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line.get(indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => lines.push((number, line.to_owned())),
        }
    }
    assert!(open.is_none(), "{path}: a fence without an end");
    Page { path: path.to_owned(), blocks, lines }
}

/// The code spans of a line.
pub fn spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).filter(|span| !span.is_empty()).collect()
}

/// A line without its code spans.
pub fn outside_spans(line: &str) -> String {
    line.split('`').step_by(2).collect()
}
