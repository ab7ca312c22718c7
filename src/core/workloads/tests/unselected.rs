//! review A1: every reason for which a workload is not selected, with our wiring in it, for every kind.

use super::*;
use crate::core::decide::{Decision, decide};
use crate::core::selection::NotSelected;

/// An opted-in workload of a kind. Nothing but our wiring is in the maps that we write to.
fn plain(kind: Kind) -> Value {
    let pod = json!({"containers": [{"name": "agent", "image": "i"}]});
    let spec = match kind {
        Kind::Pod => pod,
        Kind::CronJob => json!({"jobTemplate": {"spec": {"template": {"spec": pod}}}}),
        _ => json!({"template": {"spec": pod}}),
    };
    json!({"metadata": {"name": "teller", "uid": "u-1", "resourceVersion": "7", "labels": {"app": "teller"}}, "spec": spec})
}

fn listing(kinds: &[Kind]) -> Policy {
    with(policy(true), |settings| settings.kinds = kinds.to_vec())
}

struct Cause {
    why: NotSelected,
    labelled: bool,
    excluded: bool,
    kinds: Vec<Kind>,
    selector: Value,
    change: fn(&mut Value, Kind),
}

impl Cause {
    fn of(why: NotSelected) -> Self {
        let kinds = Kind::ALL.to_vec();
        Self { why, labelled: true, excluded: false, kinds, selector: json!({}), change: |_, _| {} }
    }
}

fn label(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["labels"][key] = json!(value);
}

fn on_windows(object: &mut Value, kind: Kind) {
    let pod = kind.template().iter().fold(object, |inner, field| &mut inner[*field]);
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
}

fn causes() -> Vec<Cause> {
    use NotSelected as N;
    vec![
        Cause { labelled: false, ..Cause::of(N::NamespaceNotLabelled) },
        Cause { excluded: true, ..Cause::of(N::NamespaceExcluded) },
        Cause { change: |o, _| label(o, names::LABEL_INJECT, "false"), ..Cause::of(N::OptedOut) },
        // Wired by its label, whose value is turned round.
        Cause { kinds: vec![], change: |o, _| label(o, names::LABEL_INJECT, "false"), ..Cause::of(N::OptedOut) },
        Cause { change: |o, _| label(o, names::LABEL_MANAGED_BY, names::MANAGED_BY), ..Cause::of(N::OperatorsOwn) },
        Cause { change: on_windows, ..Cause::of(N::Windows) },
        Cause {
            kinds: vec![],
            change: |o, kind| {
                on_windows(o, kind);
                label(o, names::LABEL_INJECT, "true");
            },
            ..Cause::of(N::Windows)
        },
        Cause {
            change: |o, _| {
                o["metadata"]["ownerReferences"] =
                    json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly"}])
            },
            ..Cause::of(N::OfCronJob)
        },
        // case B35
        Cause {
            change: |o, _| o["metadata"]["annotations"][names::ANNOTATION_MIRROR] = json!("5f3a"),
            ..Cause::of(N::MirrorPod)
        },
        Cause { kinds: vec![], ..Cause::of(N::Kind) },
        Cause { selector: json!({"matchLabels": {"tier": "other"}}), ..Cause::of(N::NoMatch) },
    ]
}

fn surroundings<'a>(
    cause: &Cause,
    platform: &'a Platform,
    policies: &'a [Policy],
    none: &'a BTreeSet<String>,
) -> SelectionContext<'a> {
    SelectionContext {
        namespace: "bank-agents",
        injection_enabled: cause.labelled,
        platform,
        tokenless: none,
        policies,
        renews: false,
    }
}

#[test]
fn whatever_the_cause_is_what_carries_our_wiring_is_given_back_to_the_last_byte() {
    let none = BTreeSet::new();
    for cause in causes() {
        let meets = |kind: &Kind| match cause.why {
            NotSelected::OfCronJob => *kind == Kind::Job,
            NotSelected::MirrorPod => *kind == Kind::Pod,
            _ => true,
        };
        for kind in Kind::ALL.into_iter().filter(meets) {
            let original = plain(kind);
            let before = [listing(&Kind::ALL)];
            let usual = Platform::default();
            let at_first = surroundings(&Cause::of(NotSelected::NoMatch), &usual, &before, &none);
            let text = original.to_string();
            let Decision::Wire { injection, .. } = decide(&Workload::parse(kind, &text).unwrap(), &at_first) else {
                panic!("{kind:?} is not wired")
            };
            let mut wired = original.clone();
            json_patch::patch(&mut wired, &injection.patch).unwrap();

            let selector = serde_json::from_value(cause.selector.clone()).unwrap();
            let after = [with(listing(&cause.kinds), |settings| settings.selector = selector)];
            let excluded = if cause.excluded { vec!["bank-agents".to_owned()] } else { Vec::new() };
            let platform = Platform { excluded_namespaces: excluded.into_iter().collect(), ..Platform::default() };
            let context = surroundings(&cause, &platform, &after, &none);
            let (mut given_back, mut expected) = (wired.clone(), original.clone());
            (cause.change)(&mut given_back, kind);
            (cause.change)(&mut expected, kind);
            let text = given_back.to_string();
            let why = select(&Workload::parse(kind, &text).unwrap(), &context);
            assert!(
                matches!(why, Selection::None(why) if why == cause.why),
                "{kind:?}: {why:?} instead of {:?}",
                cause.why
            );
            let assessment = assess(kind, &text, "tracing", &context).unwrap();
            let removal = assessment.as_ref().and_then(Assessment::removal);
            let what = format!("{kind:?}, {:?}: {assessment:?}", cause.why);
            if kind.template_is_mutable() {
                json_patch::patch(&mut given_back, removal.expect(&what)).unwrap();
                assert_eq!(given_back, expected, "{what}");
            } else {
                // The template of a Job and of a Pod is fixed: they end with the wiring that they began with.
                assert_eq!(removal, None, "{what}");
            }
            // The same once the AgentTracing is gone as well.
            let gone = SelectionContext { policies: &[], ..context };
            let orphan = orphan(kind, &text, &gone).unwrap().expect("an orphan");
            let mut given_back = serde_json::from_str(&text).unwrap();
            json_patch::patch(&mut given_back, &orphan.patch).unwrap();
            assert_eq!(given_back, expected, "orphan {kind:?}, {:?}", cause.why);
        }
    }
}

#[test]
fn what_another_agent_tracing_selects_is_taken_over_and_not_given_back() {
    let none = BTreeSet::new();
    let platform = Platform::default();
    let cause = Cause::of(NotSelected::Kind);
    for kind in Kind::ALL.into_iter().filter(|kind| kind.template_is_mutable()) {
        let text = plain(kind).to_string();
        let before = [listing(&Kind::ALL)];
        let context = surroundings(&cause, &platform, &before, &none);
        let Decision::Wire { injection, .. } = decide(&Workload::parse(kind, &text).unwrap(), &context) else {
            panic!("{kind:?} is not wired")
        };
        let mut wired = plain(kind);
        json_patch::patch(&mut wired, &injection.patch).unwrap();
        let heir = with(listing(&[kind]), |settings| settings.name = "heir".into());
        let after = [listing(&[]), heir];
        let context = surroundings(&cause, &platform, &after, &none);
        assert_eq!(assess(kind, &wired.to_string(), "tracing", &context).unwrap(), None, "{kind:?}");
        let taken_over = assess(kind, &wired.to_string(), "heir", &context).unwrap().unwrap();
        assert!(matches!(taken_over.injection_state, InjectionState::OutOfDate { .. }), "{kind:?}");
    }
}

#[test]
fn a_kind_that_one_of_two_lists_is_a_matter_of_the_selector() {
    let none = BTreeSet::new();
    let platform = Platform::default();
    let selector: crate::api::LabelSelector =
        serde_json::from_value(json!({"matchLabels": {"tier": "other"}})).unwrap();
    let lists = with(listing(&[Kind::Deployment]), |settings| settings.selector = selector);
    let lists_not = with(listing(&[]), |settings| settings.name = "other".into());
    let policies = [lists, lists_not];
    let context = surroundings(&Cause::of(NotSelected::NoMatch), &platform, &policies, &none);
    let text = plain(Kind::Deployment).to_string();
    let why = select(&Workload::parse(Kind::Deployment, &text).unwrap(), &context);
    assert!(matches!(why, Selection::None(NotSelected::NoMatch)), "{why:?}");
}
