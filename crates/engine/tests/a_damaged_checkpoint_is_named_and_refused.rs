//! Every byte of a memory engine's checkpoint is covered: changing, cutting or adding one is noticed.
#![allow(clippy::unwrap_used)]

use chronolith_engine::{Durability, Engine, Error, MemoryEngine, WriteBatch};
use std::fs;

fn checkpoint_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let engine = MemoryEngine::new();
    let column = engine.column("c").unwrap();
    let mut batch = WriteBatch::new();
    for number in 0..20 {
        batch.put(column, format!("key{number}"), vec![number; 20]);
    }
    engine.write(batch, Durability::NoWal).unwrap();
    engine.checkpoint(&dir.path().join("checkpoint")).unwrap();
    let file = dir.path().join("checkpoint/state");
    (dir, file)
}

fn assert_refused(file: &std::path::Path, what: &str) {
    match MemoryEngine::restore(file.parent().unwrap()) {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, file),
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what}: not noticed"),
    }
}

#[test]
fn a_changed_byte_anywhere() {
    let (_dir, file) = checkpoint_file();
    let sound = fs::read(&file).unwrap();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, damaged).unwrap();
        assert_refused(&file, &format!("byte {at} changed"));
    }
}

#[test]
fn a_file_cut_anywhere() {
    let (_dir, file) = checkpoint_file();
    let sound = fs::read(&file).unwrap();
    for length in 0..sound.len() {
        fs::write(&file, &sound[..length]).unwrap();
        assert_refused(&file, &format!("cut to {length}"));
    }
}

#[test]
fn something_added_at_the_end() {
    let (_dir, file) = checkpoint_file();
    let mut damaged = fs::read(&file).unwrap();
    damaged.push(0);
    fs::write(&file, damaged).unwrap();
    assert_refused(&file, "one byte added");
}

#[test]
fn a_checkpoint_that_was_interrupted_does_not_exist_and_does_not_hinder() {
    let (dir, file) = checkpoint_file();
    let partial = dir.path().join("next.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("state"), b"half").unwrap();
    let engine = MemoryEngine::restore(file.parent().unwrap()).unwrap();
    engine.checkpoint(&dir.path().join("next")).unwrap();
    assert!(!partial.exists());
    MemoryEngine::restore(dir.path().join("next")).unwrap();
}
