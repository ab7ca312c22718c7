//! Commands in the pages exist: sub-commands, flags, kinds, make targets, chart values, files.

use std::collections::BTreeSet;

use agent_tracing::cli::Cli;
use clap::CommandFactory;
use serde_yaml::Value;

use super::markdown::{self, Page, spans};
use super::{read, root};

const PROGRAM: &str = "agent-tracing-operator";

#[test]
fn every_command_in_the_pages_exists() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in markdown::pages() {
        for (place, line) in commands(&page) {
            count += 1;
            if let Err(why) = check(&line) {
                wrong.push(format!("{place}: {line}: {why}"));
            }
        }
    }
    assert!(count > 80, "only {count} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_of_install_options_names_every_chart_value_and_no_other() {
    let values = values();
    let page = markdown::page("docs/reference/install.md");
    let mut named = BTreeSet::new();
    for (number, line) in page.lines.iter().filter(|(_, line)| line.starts_with("| `")) {
        let mut last = String::new();
        for span in spans(line.split(" | ").next().unwrap_or_default()) {
            // `a.b`, `.c` is short for `a.c`.
            let path = match span.strip_prefix('.') {
                Some(rest) => format!("{}.{rest}", last.rsplit_once('.').map_or("", |(parent, _)| parent)),
                None => span.to_owned(),
            };
            assert!(value(&values, &path).is_some(), "docs/reference/install.md:{number}: there is no value {path}");
            named.insert(path.split('.').next().unwrap_or_default().to_owned());
            last = path;
        }
    }
    let all: BTreeSet<_> = values.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect();
    assert_eq!(named, all, "docs/reference/install.md lacks some, or names others");
}

#[test]
fn every_flag_that_the_pages_name_alone_is_one_of_the_program() {
    let mut known = BTreeSet::new();
    for command in Cli::command().get_subcommands() {
        known.extend(command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))));
    }
    known.extend(FLAGS.iter().map(|flag| (*flag).to_owned()));
    for page in markdown::pages() {
        for (number, line) in &page.lines {
            for flag in spans(line).into_iter().filter(|span| span.starts_with("--")) {
                let name = flag.split([' ', '=']).next().unwrap_or_default();
                assert!(known.contains(name), "{}:{number}: nothing has the flag {flag}", page.path);
            }
        }
    }
}

/// Labels and annotations with our prefix are promises: each one that a page names is one of the code.
#[test]
fn every_label_and_annotation_in_the_pages_exists() {
    let code = read("src/names.rs");
    for path in super::pages() {
        for found in read(&path).split("agenttracing.dev/").skip(1) {
            let name: String = found.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            // `label-` is how kubectl takes one away.
            let name = name.trim_end_matches('-');
            let known = name.is_empty() || name == "v1alpha1" || code.contains(&format!("\"agenttracing.dev/{name}\""));
            assert!(known, "{path}: there is no agenttracing.dev/{name}");
        }
    }
}

/// The commands of a page, each with its place: lines of code blocks, and code spans.
fn commands(page: &Page) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for block in page.blocks.iter().filter(|block| ["", "sh"].contains(&block.language.as_str())) {
        let joined = block.text.replace("\\\n", " ");
        for line in joined.lines() {
            for part in line.split(" | ").flat_map(|part| part.split("&&")) {
                if is_command(part.trim()) {
                    found.push((block.place.clone(), part.trim().to_owned()));
                }
            }
        }
    }
    for (number, line) in &page.lines {
        for span in spans(line).into_iter().filter(|span| is_command(span) && span.contains(' ')) {
            let first = span.split(" | ").next().unwrap_or_default();
            found.push((format!("{}:{number}", page.path), first.replace("\\|", "|")));
        }
    }
    found
}

fn is_command(text: &str) -> bool {
    ["kubectl", "helm", "make", PROGRAM].contains(&text.split(' ').next().unwrap_or_default())
}

fn check(line: &str) -> Result<(), String> {
    let words = words(line);
    let arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    match (words[0].as_str(), arguments.as_slice()) {
        (PROGRAM, _) | ("kubectl", ["agenttracing", ..]) => {
            let own = if words[0] == PROGRAM { &arguments[..] } else { &arguments[1..] };
            match Cli::command().try_get_matches_from([PROGRAM].into_iter().chain(own.iter().copied())) {
                Err(error) if error.use_stderr() => Err(error.to_string()),
                _ => Ok(()),
            }
        }
        ("make", _) => arguments.iter().try_for_each(|word| make(word)),
        ("helm", _) => helm(&arguments),
        _ => kubectl(&arguments),
    }
}

fn make(word: &str) -> Result<(), String> {
    let makefile = read("Makefile");
    let known = match word.split_once('=') {
        Some((variable, _)) => makefile.contains(&format!("$({variable})")) || variable == "KUBECONFIG",
        None => makefile.contains(&format!(".PHONY: {word}\n")),
    };
    if known { Ok(()) } else { Err(format!("the Makefile does not know {word}")) }
}

fn helm(arguments: &[&str]) -> Result<(), String> {
    let verb = arguments.first().copied().unwrap_or_default();
    if !["install", "upgrade", "rollback", "uninstall", "show", "get"].contains(&verb) {
        return Err(format!("helm has no {verb}"));
    }
    for (index, word) in arguments.iter().enumerate() {
        if word.starts_with("charts/") && !root().join(word).exists() {
            return Err(format!("there is no {word}"));
        }
        if *word == "--set" {
            let setting = arguments.get(index + 1).copied().unwrap_or_default();
            let path = setting.split(['=', '[']).next().unwrap_or_default().replace("\\.", "/");
            value(&values(), &path).ok_or(format!("the chart has no value {path}"))?;
        } else {
            known_flag(word)?;
        }
    }
    Ok(())
}

const VERBS: [&str; 20] = [
    "annotate",
    "api-resources",
    "apply",
    "auth",
    "create",
    "delete",
    "describe",
    "diff",
    "drain",
    "edit",
    "explain",
    "get",
    "label",
    "logs",
    "patch",
    "port-forward",
    "rollout",
    "scale",
    "set",
    "wait",
];

/// Kinds as kubectl takes them.
const KINDS: [&str; 37] = [
    "agenttracing",
    "agenttracings",
    "clusterrole",
    "clusterrolebinding",
    "configmap",
    "crd",
    "cronjobs",
    "daemonsets",
    "deploy",
    "deployment",
    "deployments",
    "endpointslices",
    "event",
    "events",
    "job",
    "jobs",
    "lease",
    "mlflow",
    "mlflows.mlflow.opendatahub.io",
    "mutatingwebhookconfiguration",
    "mutatingwebhookconfigurations",
    "namespace",
    "namespaces",
    "networkpolicies",
    "node",
    "pod",
    "pods",
    "pvc",
    "rolebinding",
    "secret",
    "service",
    "serviceaccounts",
    "statefulsets",
    "storageclass",
    "experiments.mlflow.kubeflow.org",
    "serviceaccount",
    "mlflows",
];

/// Flags of kubectl and helm.
const FLAGS: [&str; 33] = [
    "--all-namespaces",
    "--as",
    "--cascade",
    "--create-namespace",
    "--delete-emptydir-data",
    "--dry-run",
    "--for",
    "--force-conflicts",
    "--from-file",
    "--ignore-not-found",
    "--namespace",
    "--no-hooks",
    "--overwrite",
    "--previous",
    "--recursive",
    "--replicas",
    "--reuse-values",
    "--server-side",
    "--set",
    "--show-labels",
    "--tail",
    "--timeout",
    "--type",
    "--version",
    "--watch",
    "--sort-by",
    "--ignore-daemonsets",
    "--since",
    "--verb",
    "--field-selector",
    "--admission-control-config-file",
    "--service-account-extend-token-expiration",
    "--allowed-hosts",
];

fn kubectl(arguments: &[&str]) -> Result<(), String> {
    let verb = arguments.first().copied().unwrap_or_default();
    if !VERBS.contains(&verb) {
        return Err(format!("kubectl has no {verb}"));
    }
    let mut free = Vec::new();
    let mut rest = arguments[1..].iter();
    while let Some(word) = rest.next() {
        match *word {
            "-f" | "-k" => {
                let path = rest.next().copied().unwrap_or_default();
                if path.contains('/') && !root().join(path).exists() {
                    return Err(format!("there is no {path}"));
                }
            }
            "-n" | "-l" | "-o" | "-c" | "-p" | "--type" | "--timeout" | "--verb" => _ = rest.next(),
            "-A" | "-w" => {}
            flag if flag.starts_with('-') => known_flag(flag)?,
            other => free.push(other),
        }
    }
    // What stands between the verb and the kind.
    let skipped = match verb {
        "rollout" | "set" => 1,
        "auth" => 2,
        "port-forward" | "logs" | "drain" | "api-resources" | "apply" | "diff" => return of_slash(&free),
        _ => 0,
    };
    let Some(kinds) = free.get(skipped) else { return Ok(()) };
    let kinds = kinds.split('.').next().filter(|_| verb == "explain").unwrap_or(kinds);
    kinds.split('/').next().unwrap_or_default().split(',').try_for_each(known_kind)
}

fn of_slash(words: &[&str]) -> Result<(), String> {
    words.iter().filter_map(|word| word.split_once('/')).try_for_each(|(kind, _)| known_kind(kind))
}

fn known_kind(kind: &str) -> Result<(), String> {
    if KINDS.contains(&kind) { Ok(()) } else { Err(format!("{kind} is no kind that is known here")) }
}

fn known_flag(word: &str) -> Result<(), String> {
    let name = word.split('=').next().unwrap_or_default();
    if !name.starts_with("--") || FLAGS.contains(&name) {
        Ok(())
    } else {
        Err(format!("{name} is no flag that is known here"))
    }
}

fn values() -> Value {
    serde_yaml::from_str(&read("charts/agent-tracing-operator/values.yaml")).unwrap()
}

fn value<'v>(values: &'v Value, path: &str) -> Option<&'v Value> {
    let mut at = values;
    for key in path.split('.') {
        // What is empty by default takes any key.
        if at.as_mapping().is_some_and(|map| map.is_empty()) {
            return Some(at);
        }
        at = at.get(key)?;
    }
    Some(at)
}

/// The words of a line as a shell would see them; a comment ends it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => (quote, any) = (Some(c), true),
            ('#', None) if word.is_empty() && !any => break,
            (' ', None) => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (c, _) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}
