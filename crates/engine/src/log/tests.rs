use super::*;

/// The payloads in the log of `dir`, and where it ends.
fn replayed(dir: &Path) -> Result<(Vec<Vec<u8>>, u64)> {
    let mut found = Vec::new();
    let end = replay_from(dir, 7, &mut |_, payload| {
        found.push(payload.to_vec());
        Ok(())
    })?;
    Ok((found, end.expect("there is a log").size_bytes))
}

fn log_of(dir: &Path, payloads: &[&[u8]]) -> Log {
    let mut log = Log::create(dir, 7).unwrap();
    for payload in payloads {
        log.append(&[payload]).unwrap();
    }
    log
}

fn change(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = path(dir, 7);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

/// Sizes on both sides of what is copied into the mapping, of its end, and of what is written in parts.
#[test]
fn records_of_any_size_come_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::create(dir.path(), 7).unwrap();
    let window = usize::try_from(window::WINDOW_BYTES).unwrap();
    let sizes = [1, 100, MAPPED_BYTES - RECORD_HEADER_BYTES, MAPPED_BYTES, 50_000, 3, window, 5];
    let payloads: Vec<Vec<u8>> =
        (0..2_000).map(|number| vec![number as u8; sizes[number % sizes.len()]]).collect();
    for payload in &payloads[..100] {
        let size = log.append(&[payload]).unwrap();
        assert_eq!(size, (RECORD_HEADER_BYTES + payload.len()) as u64);
    }
    assert_eq!(replayed(dir.path()).unwrap(), (payloads[..100].to_vec(), log.size_bytes()));
    log.seal().unwrap();
    let mut log = Log::resume(path(dir.path(), 7), 7, log.size_bytes()).unwrap();
    for payload in &payloads[100..] {
        log.append(&[payload]).unwrap();
    }
    assert_eq!(replayed(dir.path()).unwrap(), (payloads, log.size_bytes()));
}

#[test]
fn a_record_of_two_parts_is_their_bytes_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::create(dir.path(), 7).unwrap();
    let parts = [vec![1; 100], vec![2; 50_000], vec![3; 5]];
    for part in &parts {
        log.append(&[b"head", part]).unwrap();
    }
    let expected = parts.map(|part| [b"head", &part[..]].concat());
    assert_eq!(replayed(dir.path()).unwrap().0, expected);
}

#[test]
fn a_sealed_log_ends_with_its_last_byte_and_a_running_one_with_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of(dir.path(), &[b"one", b"two"]);
    let length = || std::fs::metadata(path(dir.path(), 7)).unwrap().len();
    if log.window.is_some() {
        assert_eq!(length(), window::WINDOW_BYTES);
    }
    log.seal().unwrap();
    assert_eq!(length(), log.size_bytes());
    assert_eq!(replayed(dir.path()).unwrap().0, [b"one", b"two"]);
}

#[test]
fn any_damage_to_a_sealed_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of(dir.path(), &[b"one", &[0; 600], b"three"]);
    log.seal().unwrap();
    let seal = usize::try_from(log.size_bytes()).unwrap() - RECORD_HEADER_BYTES;
    for at in 0..seal {
        change(dir.path(), |bytes| bytes[at] ^= 0x10);
        assert!(replayed(dir.path()).is_err(), "byte {at}");
        change(dir.path(), |bytes| bytes[at] ^= 0x10);
    }
    replayed(dir.path()).unwrap();
    change(dir.path(), |bytes| bytes[16..seal].fill(0));
    assert!(replayed(dir.path()).is_err(), "what is durable cannot be missing");
}

/// Half-copied in whatever order: each half of each record's bytes missing, nothing behind it.
#[test]
fn a_last_record_that_is_there_in_part_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), &[b"one", b"and two"]);
    let (start, end) = (16 + RECORD_HEADER_BYTES + 3, usize::try_from(log.size_bytes()).unwrap());
    for at in start..end {
        for missing in [start..at + 1, at..end] {
            let mut sound = Vec::new();
            change(dir.path(), |bytes| {
                sound = bytes.clone();
                bytes[missing].fill(0);
            });
            assert_eq!(replayed(dir.path()).unwrap(), (vec![b"one".to_vec()], start as u64));
            std::fs::write(path(dir.path(), 7), sound).unwrap();
        }
    }
}

/// What a machine that stops may leave of records that were never synced.
#[test]
fn a_block_that_was_not_written_ends_an_unsynced_log() {
    let payloads: Vec<Vec<u8>> = (1..=200u8).map(|number| vec![number; 100]).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let dir = tempfile::tempdir().unwrap();
    let _log = log_of(dir.path(), &payloads);
    change(dir.path(), |bytes| bytes[4096..8192].fill(0));
    let (found, end) = replayed(dir.path()).unwrap();
    assert_eq!(found.len(), (4096 - 16) / (100 + RECORD_HEADER_BYTES));
    assert_eq!(found, payloads[..found.len()]);
    assert!(end <= 4096);
}

#[test]
fn a_block_that_is_missing_from_what_was_synced_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log_of(dir.path(), &[&[1; 5_000], &[2; 5_000]]);
    log.file().sync().unwrap();
    log.append(&[b"later"]).unwrap();
    change(dir.path(), |bytes| bytes[4096..8192].fill(0));
    assert!(replayed(dir.path()).is_err());
}

#[test]
fn a_changed_byte_is_damage_where_records_follow() {
    let dir = tempfile::tempdir().unwrap();
    let _log = log_of(dir.path(), &[&[1; 3_000], &[2; 3_000], &[3; 3_000]]);
    for at in [16, 20, 28, 40, 3_000, 3_040, 5_000] {
        change(dir.path(), |bytes| bytes[at] ^= 1);
        assert!(replayed(dir.path()).is_err(), "byte {at}");
        change(dir.path(), |bytes| bytes[at] ^= 1);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]

    /// Whatever a log's bytes become, it is read or refused, and what is read is a beginning of what
    /// was written.
    #[test]
    fn any_changes_to_a_log_are_read_as_its_beginning_or_refused(
        sizes in proptest::collection::vec(1usize..200, 1..10),
        changes in proptest::collection::vec((16usize..1_500, proptest::num::u8::ANY), 0..8),
        length in 0usize..2_500,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let payloads: Vec<Vec<u8>> =
            (1..).zip(&sizes).map(|(number, size)| vec![number; *size]).collect();
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        drop(log_of(dir.path(), &payloads));
        change(dir.path(), |bytes| {
            bytes.resize(length, 0);
            for (at, byte) in changes.iter().filter(|(at, _)| *at < length) {
                bytes[*at] = *byte;
            }
        });
        if let Ok((found, _)) = replayed(dir.path()) {
            assert_eq!(found[..], payloads[..found.len()]);
        }
    }

    /// A machine stops: of what was appended since the last sync, any blocks may be missing. Whatever
    /// was synced is there, and what is there is a beginning of what was appended. And no change to what
    /// was synced goes unnoticed once a later record is there to tell.
    #[test]
    fn what_was_synced_is_there_and_a_change_to_it_is_noticed(
        sizes in proptest::collection::vec(1usize..6_000, 2..40),
        synced in 0usize..40,
        missing in proptest::collection::vec(proptest::bool::ANY, 64),
        damaged in 16usize..100_000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let payloads: Vec<Vec<u8>> =
            (1..).zip(&sizes).map(|(number, size)| vec![number; *size]).collect();
        let mut log = Log::create(dir.path(), 7).unwrap();
        let synced = synced % sizes.len();
        for (number, payload) in payloads.iter().enumerate() {
            if number == synced {
                log.file().sync().unwrap();
            }
            log.append(&[payload]).unwrap();
        }
        let durable = usize::try_from(log.file().durable()).unwrap();
        change(dir.path(), |bytes| {
            for (block, _) in missing.iter().enumerate().filter(|(_, missing)| **missing) {
                let (from, to) = (block * 4096, (block + 1) * 4096);
                let (from, to) = (from.max(durable).min(bytes.len()), to.min(bytes.len()));
                if from < to {
                    bytes[from..to].fill(0);
                }
            }
        });
        let (found, _) = replayed(dir.path()).unwrap();
        assert!(found.len() >= synced, "{} of {synced} synced records", found.len());
        assert_eq!(found[..], payloads[..found.len()]);
        if found.len() > synced && damaged < durable {
            change(dir.path(), |bytes| bytes[damaged] ^= 4);
            assert!(replayed(dir.path()).is_err(), "byte {damaged} of {durable} durable ones");
        }
    }
}
