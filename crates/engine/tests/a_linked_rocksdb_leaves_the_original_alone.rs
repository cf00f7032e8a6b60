//! A copy of a RocksDB database that shares its table files: it can be written to, and the original stays as
//! it is, byte for byte.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used)]

use chronolith_engine::{Durability, Engine, Profile, RocksEngine, WriteBatch};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn filled(dir: &Path) {
    let engine = RocksEngine::open(dir, &Profile::dev()).unwrap();
    let column = engine.column("c").unwrap();
    for number in 0..500 {
        let mut batch = WriteBatch::new();
        batch.put(column, format!("{number:04}"), format!("value {number}"));
        engine.write(batch, Durability::Buffered).unwrap();
        if number == 300 {
            engine.flush().unwrap();
        }
    }
    engine.close().unwrap();
}

/// Every file below `dir` with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push((path.clone(), fs::read(path).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn tables_and_log_are_read_and_writes_stay_in_the_copy() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(dir.path());
    let before = files(dir.path());
    let engine = RocksEngine::open_linked(dir.path(), scratch.path(), &Profile::dev()).unwrap();
    assert_eq!(engine.read_everything().unwrap(), 500);
    let column = engine.column("c").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(column, "new", "value");
    engine.write(batch, Durability::Sync).unwrap();
    engine.compact_range(column, chronolith_engine::KeyRange::all()).unwrap();
    assert_eq!(engine.read_everything().unwrap(), 501);
    engine.close().unwrap();
    drop(engine);
    assert_eq!(files(dir.path()), before);
}

/// Every record, by looking each key up: through index and filter, as a reader does.
fn content(engine: &RocksEngine) -> Vec<Option<bytes::Bytes>> {
    let column = engine.column("c").unwrap();
    (0..500).map(|number| engine.get(column, format!("{number:04}").as_bytes()).unwrap()).collect()
}

#[test]
fn a_changed_byte_of_a_table_file_is_refused_or_harmless_and_the_original_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let is_table = |path: &Path| path.extension().is_some_and(|end| end == "sst");
    let (path, whole) = files(dir.path()).into_iter().find(|(path, _)| is_table(path)).unwrap();
    let name = dir.path().canonicalize().unwrap();
    let open = |scratch: &Path| RocksEngine::open_linked(dir.path(), scratch, &Profile::dev());
    let scratch = tempfile::tempdir().unwrap();
    let truth = content(&open(scratch.path()).unwrap());
    let mut harmless = 0;
    let places: Vec<_> = (0..whole.len()).step_by(whole.len() / 20).collect();
    for at in &places {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let opened = open(scratch.path());
        match opened.and_then(|engine| engine.read_everything().map(|_| engine)) {
            Err(error) => {
                let error = error.about(scratch.path(), &dir.path().canonicalize().unwrap());
                // RocksDB blames the manifest for some of what it finds while it opens a table.
                assert!(error.to_string().contains(&*name.to_string_lossy()), "byte {at}: {error}");
            }
            // RocksDB does without a filter whose checksum differs: it only spares reads.
            Ok(engine) => {
                assert_eq!(content(&engine), truth, "byte {at}");
                harmless += 1;
            }
        }
    }
    assert!(harmless < places.len() / 4, "{harmless} of {}", places.len());
}
