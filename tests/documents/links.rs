//! Links within the repository lead somewhere, and every page is linked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::markdown::{self, Page, outside_spans};
use super::{pages, root};

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_in_it() {
    let mut broken = Vec::new();
    let mut anchors = BTreeMap::new();
    for page in markdown::pages() {
        for (number, target) in links(&page) {
            let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(p, a)| (p, Some(a)));
            let file = match path {
                "" => page.path.clone(),
                path => normal(&Path::new(&page.path).parent().unwrap().join(path)),
            };
            if !root().join(&file).exists() {
                broken.push(format!("{}:{number}: {target}: there is no {file}", page.path));
                continue;
            }
            let Some(anchor) = anchor else { continue };
            let known = anchors.entry(file.clone()).or_insert_with(|| headings(&markdown::page(&file)));
            if !known.contains(anchor) {
                broken.push(format!("{}:{number}: {target}: {file} has no such heading", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_page_is_linked_from_another_one() {
    let mut linked = BTreeSet::new();
    for page in markdown::pages() {
        for (_, target) in links(&page) {
            let path = target.split('#').next().unwrap_or_default();
            let file = normal(&Path::new(&page.path).parent().unwrap().join(path));
            if file != page.path {
                linked.insert(file);
            }
        }
    }
    let lonely: Vec<_> = pages().into_iter().filter(|page| page != "README.md" && !linked.contains(page)).collect();
    assert!(lonely.is_empty(), "no page links to {lonely:?}");
}

fn links(page: &Page) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in &page.lines {
        let line = outside_spans(line);
        for rest in line.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if !target.contains("://") {
                found.push((*number, target.to_owned()));
            }
        }
    }
    found
}

/// Anchors as GitHub makes them.
fn headings(page: &Page) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let titles = page.lines.iter().filter(|(_, line)| line.starts_with('#'));
    let anchors = titles.map(|(_, line)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept: String = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect();
        let anchor = kept.replace(' ', "-");
        let count = seen.entry(anchor.clone()).or_default();
        *count += 1;
        if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
    });
    anchors.collect()
}

fn normal(path: &Path) -> String {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = parts.pop(),
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts.display().to_string()
}
