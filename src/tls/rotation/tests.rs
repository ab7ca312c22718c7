use super::*;

#[test]
fn a_rotation_announces_publishes_waits_promotes_and_forgets() {
    let (mut secret, mut bundle, mut at) = (AuthoritySet::generate(start()).unwrap(), vec![], start());
    let old = secret.signer().certificate().clone();
    let mut story = Vec::new();
    while at < start() + 300 * DAY {
        match secret.step(&[bundle.clone()], Some(&secret.signer().certificate().clone()), at).unwrap() {
            RotationStep::Rest => at += Duration::from_secs(600),
            RotationStep::Publish => {
                bundle = secret.bundle().into_bytes();
                story.push((hours(at), format!("publish {}", secret.certificates().count())));
            }
            RotationStep::Write(next, why) => {
                // What an older operator would make of it: it knows these two keys.
                let data = next.data();
                let first = CertificateDer::from_pem_slice(&data["tls.crt"].0).unwrap();
                let key = std::str::from_utf8(&data["tls.key"].0).unwrap();
                assert!(Authority::read(&first, key, (TLS_CRT, TLS_KEY)).is_ok());
                assert_eq!(String::from_utf8(data["tls.crt"].0.clone()).unwrap(), next.bundle());
                secret = AuthoritySet::parse(&data, at).unwrap();
                assert_eq!(secret.data(), data);
                story.push((hours(at), why.to_owned()));
            }
        }
    }
    let due = 243 * 24 + 7;
    let expected = [
        (0, "publish 1"),
        (due, "two thirds of the authority's life are over"),
        (due, "publish 2"),
        (due, "caBundle holds all of them"),
        (due + 1, "everybody knows the next authority"),
        (due + 25, "nobody serves the previous authority"),
        (due + 25, "publish 1"),
    ];
    assert_eq!(story, expected.map(|(hour, what)| (hour, what.to_owned())));
    assert_ne!(*secret.signer().certificate(), old);
}

#[test]
fn the_next_authority_does_not_sign_before_the_bundle_held_it_for_an_hour_without_a_break() {
    let at = start() + 250 * DAY;
    let announced = announced(at);
    let published = [announced.bundle().into_bytes()];
    let marked = written(announced.step(&published, None, at));
    let almost = at + OVERLAP - Duration::from_secs(1);
    assert!(matches!(marked.step(&published, None, almost), Ok(RotationStep::Rest)));
    // Somebody takes it away, and it counts anew.
    let without = [AuthoritySet::generate(at).unwrap().bundle().into_bytes()];
    let lost = written(marked.step(&without, None, almost));
    assert_eq!(lost.since, None);
    assert!(matches!(lost.step(&without, None, almost), Ok(RotationStep::Publish)));
    let again = written(lost.step(&published, None, almost));
    assert!(matches!(again.step(&published, None, at + OVERLAP), Ok(RotationStep::Rest)));
    let promote = written(again.step(&published, None, almost + OVERLAP));
    assert_eq!(promote.signer().certificate(), announced.next.unwrap().certificate());
    // The same certificates in another order need no write.
    assert!(matches!(promote.step(&published, None, almost + OVERLAP), Ok(RotationStep::Rest)));
}

#[test]
fn the_previous_authority_stays_for_as_long_as_the_leader_itself_serves_it() {
    let at = start() + 250 * DAY;
    let old = announced(at);
    let promote = old.promote(at).unwrap();
    let published = [promote.bundle().into_bytes()];
    let step = |serving: &Authority| promote.step(&published, Some(serving.certificate()), at + PREVIOUS_LIFETIME * 2);
    assert!(matches!(step(old.signer()), Ok(RotationStep::Rest)));
    assert_eq!(written(step(promote.signer())).previous, []);
}

#[test]
fn without_a_configuration_nothing_is_promoted() {
    let at = start() + 250 * DAY;
    let marked = AuthoritySet { since: Some(at), ..announced(at) };
    assert!(matches!(marked.step(&[], None, at + OVERLAP * 9), Ok(RotationStep::Rest)));
}

#[test]
fn one_webhook_without_the_next_authority_holds_everything_up() {
    let at = start() + 250 * DAY;
    let marked = AuthoritySet { since: Some(at), ..announced(at) };
    let bundles = [marked.bundle().into_bytes(), AuthoritySet::of(marked.signer.clone()).bundle().into_bytes()];
    assert_eq!(written(marked.step(&bundles, None, at + OVERLAP * 9)).since, None);
}

#[test]
fn a_clock_that_goes_back_starts_the_wait_anew_and_does_not_skip_it() {
    let at = start() + 250 * DAY;
    let marked = AuthoritySet { since: Some(at + 3 * DAY), ..announced(at) };
    let published = [marked.bundle().into_bytes()];
    assert_eq!(written(marked.step(&published, None, at)).since, Some(at));
}

#[test]
fn an_authority_that_replicas_serve_stays_trusted_when_the_secret_is_replaced() {
    let (served, other) = (AuthoritySet::generate(start()).unwrap(), AuthoritySet::generate(start()).unwrap());
    let serving = served.signer().certificate();
    let both = written(other.step(&[served.bundle().into_bytes()], Some(serving), start()));
    assert_eq!(both.signer().certificate(), other.signer().certificate());
    assert!(both.is(format!("{}{}", served.bundle(), other.bundle()).as_bytes()));
    // Not for ever, and not when it is of no use.
    let late = start() + 400 * DAY;
    let other = AuthoritySet::generate(late).unwrap();
    assert!(matches!(other.step(&[other.bundle().into_bytes()], Some(serving), late), Ok(RotationStep::Rest)));
}

#[test]
fn an_authority_at_its_very_end_is_replaced_at_once_and_stays_published() {
    let at = start() + 365 * DAY - OVERLAP;
    let old = AuthoritySet::generate(start()).unwrap();
    let new = written(old.step(&[old.bundle().into_bytes()], None, at));
    assert_ne!(new.signer().certificate(), old.signer().certificate());
    assert_eq!(new.previous, [old.signer().certificate().clone()]);
    assert!(matches!(new.step(&[old.bundle().into_bytes()], None, at), Ok(RotationStep::Publish)));
}

#[test]
fn the_secret_of_an_older_install_is_taken_as_it_is_and_published_as_it_is() {
    let old = AuthoritySet::generate(start()).unwrap();
    let data = Data::from_iter(old.data().into_iter().filter(|(key, _)| [TLS_CRT, TLS_KEY].contains(&&**key)));
    let read = AuthoritySet::parse(&data, start()).unwrap();
    assert_eq!(read.data(), data);
    assert!(matches!(read.step(&[data["tls.crt"].0.clone()], None, start()), Ok(RotationStep::Rest)));
}

#[test]
fn a_secret_that_cannot_work_says_why() {
    let good = announced(start() + 250 * DAY).data();
    let parse = |data: Data| AuthoritySet::parse(&data, start() + 250 * DAY).unwrap_err().to_string();
    let with = |key: &str, value: &[u8]| {
        let mut data = good.clone();
        data.insert(key.to_owned(), ByteString(value.to_vec()));
        data
    };
    assert_eq!(parse(Data::new()), "key tls.crt is missing or no text");
    assert_eq!(parse(with("tls.crt", b"garbage")), "key tls.crt holds no certificate");
    assert!(parse(with("tls.key", b"garbage")).starts_with("key tls.key holds no private key"));
    assert!(parse(with("next.key", b"garbage")).starts_with("key next.key holds no private key"));
    let other = AuthoritySet::generate(start()).unwrap().data()["tls.key"].0.clone();
    assert_eq!(parse(with("tls.key", &other)), "key tls.crt and key tls.key do not belong together");
    assert_eq!(parse(with("next.key", &other)), "key tls.crt and key next.key do not belong together");
    assert_eq!(parse(with("since", b"yesterday")), "key since holds no time");
    let at = |at| AuthoritySet::parse(&good, at).unwrap_err().to_string();
    assert!(at(start() + 400 * DAY).starts_with("the certificate expired at 2027-03-01"));
    assert!(at(start() - DAY).starts_with("the certificate is not valid before 2026-03-01"));
}

#[test]
fn in_place_of_an_unusable_secret_stands_what_is_held_or_can_be_saved_or_a_new_authority() {
    let at = start() + 250 * DAY;
    let whole = announced(at);
    let none = Data::new();
    assert_eq!(AuthoritySet::instead_of(&none, Some(&whole), at).unwrap().data(), whole.data());
    // The signing one has expired, the next one has not.
    let late = start() + 370 * DAY;
    let next = whole.next.as_ref().unwrap().certificate();
    for (data, current) in [(&none, Some(&whole)), (&whole.data(), None)] {
        assert_eq!(AuthoritySet::instead_of(data, current, late).unwrap().signer().certificate(), next);
    }
    let mut spoilt = whole.data();
    spoilt.insert("next.key".to_owned(), ByteString(b"garbage".to_vec()));
    let saved = AuthoritySet::instead_of(&spoilt, None, at).unwrap();
    assert_eq!(saved.signer().certificate(), whole.signer().certificate());
    assert!(AuthoritySet::instead_of(&none, None, at).unwrap().signer().validity().check(at).is_ok());
}

fn announced(at: Timestamp) -> AuthoritySet {
    written(AuthoritySet::generate(start()).unwrap().step(&[], None, at))
}

fn written(step: Result<RotationStep, AuthorityError>) -> AuthoritySet {
    match step.unwrap() {
        RotationStep::Write(authorities, _) => authorities,
        other => panic!("{other:?}"),
    }
}

fn hours(at: Timestamp) -> i64 {
    at.duration_since(start()).as_hours()
}

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
