//! What is changed, and what must be said of it.

use crate::victim::{Victim, checkpoints, files, flip, log_key, version};
use std::{fs, path::Path};

const BOTH: &[&str] = &["memory", "rocksdb"];
const MEMORY: &[&str] = &["memory"];
const ROCKSDB: &[&str] = &["rocksdb"];

pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) engines: &'static [&'static str],
    /// Whether somebody kept a checkpoint.
    pub(crate) pin: bool,
    pub(crate) exit: i32,
    /// A part of what is said.
    pub(crate) named: &'static str,
    pub(crate) revision: Option<u64>,
    /// Whether the audit trail is verified, and not the history.
    pub(crate) trail: bool,
    pub(crate) change: fn(&Victim, &Path),
}

/// A row whose first bad revision is named.
const fn at(revision: u64, row: Row) -> Row {
    Row { revision: Some(revision), ..row }
}

const fn row(what: &'static str, named: &'static str, change: fn(&Victim, &Path)) -> Row {
    Row { what, engines: BOTH, pin: false, exit: 1, named, revision: None, trail: false, change }
}

const fn only(engines: &'static [&'static str], row: Row) -> Row {
    Row { engines, ..row }
}

const fn of_the_trail(row: Row) -> Row {
    Row { trail: true, engines: MEMORY, ..row }
}

/// Changes the lines of the audit trail's first file.
fn lines(dir: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let mut found = files(&dir.join("audit"));
    found.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let text = fs::read_to_string(&found[0]).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(&found[0], lines.join("\n") + "\n").unwrap();
}

const fn pinned(row: Row) -> Row {
    Row { pin: true, ..row }
}

pub(crate) const ROWS: &[Row] = &[
    only(
        MEMORY,
        row("a byte of the newest engine checkpoint", "checkpoints/", |_, dir| {
            flip(&checkpoints(dir).pop().unwrap().join("state"), |length| length / 2);
        }),
    ),
    only(
        MEMORY,
        row("a byte of the engine checkpoint before it", "checkpoints/", |_, dir| {
            flip(&checkpoints(dir)[0].join("state"), |length| length / 2);
        }),
    ),
    only(
        ROCKSDB,
        row("a byte of an SST file", ".sst", |_, dir| {
            let mut tables = files(&dir.join("engine"));
            tables.retain(|path| path.extension().is_some_and(|end| end == "sst"));
            tables.sort_by_key(|path| fs::metadata(path).unwrap().len());
            flip(&tables.pop().unwrap(), |_| 40);
        }),
    ),
    at(
        123,
        row("a value, with right checksums", "record", |victim, dir| {
            victim.alter(dir, |engine, batch| {
                let (key, value) = version(engine, 123);
                let mut forged = value.to_vec();
                *forged.last_mut().unwrap() = b'!';
                batch.put(engine.column("versions").unwrap(), key, forged);
            });
        }),
    ),
    at(
        77,
        row("who or when in the revision log, with right checksums", "record", |victim, dir| {
            victim.alter(dir, |engine, batch| {
                let log = engine.column("log").unwrap();
                let mut entry = engine.get(log, &log_key(77)).unwrap().unwrap().to_vec();
                entry[9] ^= 1;
                batch.put(log, log_key(77), entry);
            });
        }),
    ),
    at(
        200,
        row("a revision dropped from the revision log", "one is missing", |victim, dir| {
            victim.alter(dir, |engine, batch| {
                batch.delete(engine.column("log").unwrap(), log_key(200));
                batch.delete(engine.column("versions").unwrap(), version(engine, 200).0);
            });
        }),
    ),
    at(
        201,
        row("a stored version dropped", "it is gone", |victim, dir| {
            victim.alter(dir, |engine, batch| {
                batch.delete(engine.column("versions").unwrap(), version(engine, 201).0);
            });
        }),
    ),
    at(
        150,
        row("two revisions exchanged", "it is gone", |victim, dir| {
            victim.alter(dir, |engine, batch| {
                let log = engine.column("log").unwrap();
                let read = |revision| engine.get(log, &log_key(revision)).unwrap().unwrap();
                let (a, b) = (read(150), read(251));
                batch.put(log, log_key(150), b);
                batch.put(log, log_key(251), a);
            });
        }),
    ),
    row("a stored version that no revision made", "more than the revisions made", |victim, dir| {
        victim.alter(dir, |engine, batch| {
            let (key, value) = version(engine, 300);
            let mut other = key.to_vec();
            other[4] = b'z';
            batch.put(engine.column("versions").unwrap(), other, value);
        });
    }),
    row("a byte of a Raft log segment", "/log: ", |_, dir| {
        flip(&files(&dir.join("log"))[0], |_| 40);
    }),
    row("the end of the Raft log and of the revisions with it", "the log", |_, dir| {
        let segment = files(&dir.join("log"))
            .into_iter()
            .rfind(|path| path.extension().is_some_and(|end| end == "log"));
        let path = segment.unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let written = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let cut = (written / 4096).saturating_sub(20) * 4096;
        bytes[cut..].fill(0);
        fs::write(path, bytes).unwrap();
    }),
    at(
        352,
        row("a leaf in the tiles", "tiles", |_, dir| {
            flip(&dir.join("ledger/tlog/L0"), |_| 350 * 32);
        }),
    ),
    row("a node in the tiles", "tile", |_, dir| {
        flip(&dir.join("ledger/tlog/L1"), |_| 3);
    }),
    row("an entry beside the leaves", "entry", |_, dir| {
        flip(&dir.join("ledger/tlog/entries"), |_| 100 * 70 + 12);
    }),
    row("the size or root of the newest signed checkpoint", "signature", |_, dir| {
        let path = dir.join("ledger/tlog/checkpoint");
        let second_line = fs::read_to_string(&path).unwrap().find('\n').unwrap() + 1;
        flip(&path, |_| second_line);
    }),
    row("a kept checkpoint of the middle", "signature", |_, dir| {
        let path = dir.join("ledger/tlog/checkpoints");
        let second_line = fs::read_to_string(&path).unwrap().find('\n').unwrap() + 1;
        flip(&path, |_| second_line);
    }),
    row("a byte of the node's identity", "IDENTITY", |_, dir| {
        flip(&dir.join("IDENTITY"), |_| 30);
    }),
    Row {
        exit: 2,
        ..row(
            "the tiles, checkpoints and key removed",
            "nothing in this database has been signed",
            |_, dir| {
                fs::remove_dir_all(dir.join("ledger")).unwrap();
            },
        )
    },
    at(151, pinned(row("an old directory brought back", "rolled back", Victim::bring_back))),
    pinned(row(
        "an old directory brought back, and another history gone on with",
        "forked",
        Victim::fork,
    )),
    of_the_trail(row("a line of the audit trail edited", "the line was changed", |_, dir| {
        lines(dir, |lines| lines[20] = lines[20].replace("\"Put\"", "\"Get\""));
    })),
    of_the_trail(row("an event of the audit trail dropped", "the event is missing", |_, dir| {
        lines(dir, |lines| drop(lines.remove(20)));
    })),
    of_the_trail(row(
        "two events of the audit trail exchanged",
        "stands at another place",
        |_, dir| {
            lines(dir, |lines| lines.swap(20, 30));
        },
    )),
    of_the_trail(row("the checkpoint of the audit trail", "checkpoint", |_, dir| {
        let path = dir.join("audit/checkpoint");
        let second_line = fs::read_to_string(&path).unwrap().find('\n').unwrap() + 1;
        flip(&path, |_| second_line);
    })),
];
