//! `chronolith verify` as a script sees it: 0 proven, 1 tampered, 2 cannot be verified.
#![allow(clippy::unwrap_used)]

use chronolith_store::embedded::Store;
use std::{fs, path::Path, process::Command};

fn verify(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chronolith"))
        .arg("verify")
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn of_a_directory_a_proof_file_and_a_bundle() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    for number in 0..300 {
        store.put(format!("key/{}", number % 3), number.to_string()).unwrap();
    }
    let (proof, bundle) = (store.prove_revision(9).unwrap(), store.prove("key/1").unwrap());
    store.close().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (proof_path, bundle_path, pin) = (path("9.tlog-proof"), path("key.bundle"), path("pin"));
    fs::write(&proof_path, proof.to_string()).unwrap();
    fs::write(&bundle_path, bundle.encode()).unwrap();
    fs::write(&pin, bundle.checkpoint.to_string()).unwrap();
    let (main, key) = (path("main"), path("main/log.vkey"));

    let (code, text) = verify(&[&main, "--trust", &key, "--pin", &pin]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("300 revisions hashed again"), "{text}");
    assert_eq!(verify(&[home.path().to_str().unwrap()]).0, 0);
    assert_eq!(verify(&[&main, "--key", "key/2"]).0, 0);
    assert_eq!(verify(&[&main, "--revisions", "5-20"]).0, 0);
    assert_eq!(verify(&[&proof_path, "--trust", &key]).0, 0);
    assert_eq!(verify(&[&bundle_path, "--trust", &key, "--key", "key/1", "--pin", &pin]).0, 0);
    let (code, text) = verify(&[&bundle_path, "--trust", &key, "--key", "key/2"]);
    assert!(code == 2 && text.contains("no version of \"key/2\""), "of another key: {text}");

    assert_eq!(verify(&[&proof_path]).0, 2, "no key that is trusted");
    assert_eq!(verify(&[&path("nothing")]).0, 2);
    assert_eq!(verify(&[&pin, "--trust", &key]).0, 2, "not a proof");

    flip(Path::new(&proof_path), 100);
    assert_eq!(verify(&[&proof_path, "--trust", &key]).0, 1);
    let length = fs::metadata(&bundle_path).unwrap().len();
    flip(Path::new(&bundle_path), usize::try_from(length).unwrap() - 1);
    assert_eq!(verify(&[&bundle_path, "--trust", &key]).0, 1);
    flip(Path::new(&path("main/tlog/L0")), 64 * 32);
    let (code, text) = verify(&[&main]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("first bad revision: 66"), "{text}");
}

#[test]
fn of_a_directory_in_which_nothing_is_signed() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    store.put("key", "value").unwrap();
    store.close().unwrap();
    let main = home.path().join("main");
    let (code, text) = verify(&[main.to_str().unwrap()]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("signed"), "{text}");
}
