//! docs/security.md names every right of the operator, each with its verbs.

use serde::Deserialize;
use serde_yaml::Value;

use super::read;

#[test]
fn every_right_of_the_operator_stands_in_the_page_and_no_other() {
    let page = read("docs/security.md");
    let begins = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some(format!("| `{} | {} |", cells.next()?, cells.next()?))
    });
    let known = ["get", "list", "watch", "create", "update", "patch", "delete", "bind"];
    let is_right = |line: &String| {
        line.split(" | ")
            .nth(1)
            .is_some_and(|cell| cell.trim_end_matches(" |").split(", ").all(|verb| known.contains(&verb)))
    };
    let mut said: Vec<_> = begins.filter(is_right).collect();
    let mut wanted: Vec<_> =
        ["config/rbac/role.yaml", "config/rbac/namespaced_role.yaml"].iter().flat_map(|path| rights(path)).collect();
    said.sort();
    wanted.sort();
    assert!(wanted.len() > 20);
    assert_eq!(said, wanted);
}

/// Each right as the page's table begins its line.
fn rights(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&read(path)) {
        let object = Value::deserialize(document).unwrap();
        for rule in object["rules"].as_sequence().into_iter().flatten() {
            let words = |field: &str| -> Vec<String> {
                let list = rule[field].as_sequence().into_iter().flatten();
                list.map(|word| word.as_str().unwrap().to_owned()).collect()
            };
            let names = words("resourceNames").iter().map(|name| format!(" `{name}`")).collect::<String>();
            for resource in words("resources") {
                found.push(format!("| `{resource}`{names} | {} |", words("verbs").join(", ")));
            }
        }
    }
    found
}
