//! 12 clients put, 12 get, 3 list a prefix and 3 delete, on the same keys, without pauses.
//!
//! Each answer carries a revision, so the end state is known exactly: a key is there if its last put
//! came after its last delete. Readers also check that no key ever goes back in time.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::ensure;

use super::Plan;
use super::check::{number, text, value};
use super::client::{Client, header};
use super::crowd::{Tally, crowd};
use super::report::Row;

const PUTTERS: u64 = 12;
const GETTERS: u64 = 12;
const LISTERS: u64 = 3;
const DELETERS: u64 = 3;
const KEYS_PER_PUTTER: u64 = 100;
const VALUE_BYTES: usize = 128;

/// The last thing that a client did to a key: revision, and the number put or none for a delete.
type Last = BTreeMap<String, (i64, Option<u64>)>;

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Row> {
    let name = "mixed 12 put 12 get 3 list 3 delete";
    let deadline = Instant::now() + plan.duration * 2 / 3;
    let clients = PUTTERS + GETTERS + LISTERS + DELETERS;
    let (work, changes) = crowd(plan, name, 0, clients, |index, client, tally| {
        let prefix = plan.key(format_args!("mixed/"));
        let worker = Worker { prefix, deadline, client, tally, step: index };
        work_as(index, worker)
    })
    .await?;
    let found = check_end_state(plan, changes).await?;
    Ok(Row::new(name, &work).readable(found))
}

struct Worker {
    prefix: String,
    deadline: Instant,
    client: Client,
    tally: Tally,
    step: u64,
}

async fn work_as(index: u64, worker: Worker) -> anyhow::Result<(Tally, Last)> {
    if index < PUTTERS {
        worker.put(index).await
    } else if index < PUTTERS + GETTERS {
        worker.get().await
    } else if index < PUTTERS + GETTERS + LISTERS {
        worker.list().await
    } else {
        worker.delete().await
    }
}

impl Worker {
    async fn put(mut self, putter: u64) -> anyhow::Result<(Tally, Last)> {
        let mut last = Last::new();
        let mut number = 0;
        while self.running() {
            let key = key(&self.prefix, putter, number % KEYS_PER_PUTTER);
            let value = value(&key, number, VALUE_BYTES);
            let revision = self.tally.timed(self.client.put(&key, &value)).await?;
            last.insert(key, (revision, Some(number)));
            number += 1;
        }
        Ok((self.tally, last))
    }

    async fn get(mut self) -> anyhow::Result<(Tally, Last)> {
        let mut seen = Seen::default();
        while self.running() {
            let key = self.some_key();
            let (kv, revision) = self.tally.timed(self.client.get(&key)).await?;
            seen.check(&key, kv.as_ref(), revision)?;
        }
        Ok((self.tally, Last::new()))
    }

    async fn list(mut self) -> anyhow::Result<(Tally, Last)> {
        let mut seen = Seen::default();
        while self.running() {
            let putter = self.roll() % PUTTERS;
            let prefix = format!("{}{putter:02}/", self.prefix);
            let answer = self.tally.timed(self.client.list(&prefix)).await?;
            ensure!(answer.count <= KEYS_PER_PUTTER as i64, "{prefix}: {} keys", answer.count);
            let revision = header(answer.header)?.revision;
            for kv in &answer.kvs {
                seen.check(text(&kv.key)?, Some(kv), revision)?;
            }
        }
        Ok((self.tally, Last::new()))
    }

    async fn delete(mut self) -> anyhow::Result<(Tally, Last)> {
        let mut last = Last::new();
        while self.running() {
            let key = self.some_key();
            let (deleted, revision) = self.tally.timed(self.client.delete(&key)).await?;
            if let Some(kv) = deleted {
                number(&kv)?;
                ensure!(kv.mod_revision < revision, "{key}: deleted before it was written");
                last.insert(key, (revision, None));
            }
        }
        Ok((self.tally, last))
    }

    fn running(&self) -> bool {
        Instant::now() < self.deadline
    }

    fn some_key(&mut self) -> String {
        let roll = self.roll();
        key(&self.prefix, roll % PUTTERS, roll / PUTTERS % KEYS_PER_PUTTER)
    }

    /// A fixed sequence for each client (SplitMix64), so that two runs ask for the same keys.
    fn roll(&mut self) -> u64 {
        self.step = self.step.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.step ^ (self.step >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) >> 8
    }
}

/// What one reader has seen: its later answers must not be older.
#[derive(Default)]
struct Seen {
    revision: i64,
    keys: BTreeMap<String, (i64, u64)>,
}

impl Seen {
    fn check(
        &mut self,
        key: &str,
        kv: Option<&chronolith_proto::mvccpb::KeyValue>,
        revision: i64,
    ) -> anyhow::Result<()> {
        ensure!(revision >= self.revision, "revision {revision} after {}", self.revision);
        self.revision = revision;
        let Some(kv) = kv else { return Ok(()) };
        let now = (kv.mod_revision, number(kv)?);
        ensure!(kv.mod_revision <= revision, "{key}: newer than its answer");
        let before = self.keys.insert(key.to_owned(), now).unwrap_or_default();
        ensure!(before.0 <= now.0 && before.1 <= now.1, "{key}: {now:?} after {before:?}");
        Ok(())
    }
}

async fn check_end_state(plan: &Plan, changes: Vec<Last>) -> anyhow::Result<u64> {
    let mut expected = Last::new();
    for (key, change) in changes.into_iter().flatten() {
        let latest = expected.entry(key).or_insert(change);
        *latest = (*latest).max(change);
    }
    expected.retain(|_, (_, number)| number.is_some());
    let kvs = plan.client.another().list(&plan.key(format_args!("mixed/"))).await?.kvs;
    for kv in &kvs {
        let key = text(&kv.key)?;
        let found = (kv.mod_revision, Some(number(kv)?));
        ensure!(expected.get(key) == Some(&found), "{key}: {found:?}, not what was written last");
    }
    ensure!(kvs.len() == expected.len(), "{} of {} records left", kvs.len(), expected.len());
    Ok(kvs.len() as u64)
}

fn key(prefix: &str, putter: u64, number: u64) -> String {
    format!("{prefix}{putter:02}/{number:03}")
}
