//! Checkpoints and keys against an implementation of signed notes by others.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chronolith_ledger::*;
use common::*;
use signed_note::{Note, Signer as _, StandardSigner, StandardVerifier, VerifierList};

#[test]
fn others_accept_our_checkpoint_and_keys() {
    let note = signed(7, Hash::of_leaf(b"root"));
    let verifier = StandardVerifier::new(&log_key().verifier().to_string()).unwrap();
    let theirs = Note::from_bytes(note.to_string().as_bytes()).unwrap();
    let (known, unknown) = theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((known.len(), unknown.len()), (1, 2));
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text().as_bytes()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, 7));
    assert_eq!(checkpoint.hash().0, Hash::of_leaf(b"root").0);
}

#[test]
fn we_accept_a_note_that_others_signed() {
    let signer = StandardSigner::new(&log_key().to_secret_text()).unwrap();
    let mut theirs = Note::new(b"a text\n", &[]).unwrap();
    theirs.add_sigs(&[&signer]).unwrap();
    assert_eq!(signer.key_id(), u32::from_be_bytes(log_key().sign("", 0).key_id));
    let note = SignedNote::parse(&theirs.to_bytes()).unwrap();
    assert_eq!(note.signers(&[log_key().verifier()]).unwrap().len(), 1);
}

#[test]
fn keys_read_back() {
    for key in [log_key(), witness_key(2)] {
        assert_eq!(&VerifierKey::parse(&key.verifier().to_string()).unwrap(), key.verifier());
        assert_eq!(SigningKey::parse(&key.to_secret_text()).unwrap().verifier(), key.verifier());
        assert!(!format!("{key:?}").contains(&key.to_secret_text()));
    }
    assert!(SigningKey::from_seed("a b", KeyKind::Log, &[0; 32]).is_err());
    assert!(VerifierKey::parse("name+00000000+AQ==").is_err());
}

#[test]
fn unknown_signatures_are_ignored_and_missing_ones_are_missed() {
    let note = signed(7, Hash::of_leaf(b"root"));
    assert!(Policy::log_only(log_key().verifier().clone()).unwrap().open(&note).is_ok());
    let other = SigningKey::from_seed("example.org/other", KeyKind::Log, &[5; 32]).unwrap();
    let error = Policy::log_only(other.verifier().clone()).unwrap().open(&note).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Unverifiable);
    let three = [2, 3, 4].map(|number| witness_key(number).verifier().clone()).to_vec();
    let quorum = |quorum| {
        Policy::with_cosigners(log_key().verifier().clone(), three.clone(), quorum).unwrap()
    };
    assert!(quorum(2).open(&note).is_ok());
    assert!(quorum(3).open(&note).is_err());
}

#[test]
fn a_key_that_signs_twice_counts_for_nothing() {
    let note = signed(7, Hash::of_leaf(b"root"));
    let again = witness_key(2).sign(note.text(), 1_800_000_000);
    assert!(policy().open(&note.with_signature(again).unwrap()).is_err());
}

#[test]
fn a_checkpoint_of_another_log_is_refused() {
    let checkpoint =
        Checkpoint { origin: "example.org/other".into(), size: 0, root: Hash::of_empty_tree() };
    let note = checkpoint.sign(&log_key()).unwrap();
    let policy = Policy::log_only(log_key().verifier().clone()).unwrap();
    assert_eq!(policy.open(&note).unwrap_err().verdict(), Verdict::Tampered);
    assert!(policy.for_origin("example.org/other").open(&note).is_ok());
}
