//! Many clients, each writing keys of its own and reading every one back at once.

use std::time::Instant;

use anyhow::ensure;

use super::Plan;
use super::check::{number, only_write, value};
use super::client::Client;
use super::crowd::{Tally, crowd};
use super::report::Row;

/// Name of the row whose records the durability check reads again.
pub(crate) const NAME: &str = "large scale put+get";

const CLIENTS: u64 = 50;
const PAIRS: u64 = 1_000;
const SUSTAINED_CLIENTS: u64 = 20;
/// Keys that a sustained client overwrites in turn: enough to spread, few enough to gather versions.
const SUSTAINED_KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 64;

/// 50 clients × 1,000 pairs of put and get.
pub(crate) async fn pairs(plan: &Plan) -> anyhow::Result<Row> {
    let pairs = plan.count(PAIRS);
    let (work, _) = crowd(plan, NAME, 2 * CLIENTS * pairs, CLIENTS, |index, client, tally| {
        write_and_read(prefix(plan, index), pairs, client, tally)
    })
    .await?;
    let found = read_back(plan).await?;
    Ok(Row::new(NAME, &work).readable(found))
}

async fn write_and_read(
    prefix: String,
    pairs: u64,
    mut client: Client,
    mut tally: Tally,
) -> anyhow::Result<(Tally, ())> {
    let mut last = 0;
    for number in 0..pairs {
        let key = format!("{prefix}{number:06}");
        let value = value(&key, number, VALUE_BYTES);
        let revision = tally.timed(client.put(&key, &value)).await?;
        ensure!(revision > last, "{key}: revision {revision} after {last}");
        last = revision;
        let (kv, _) = tally.timed(client.get(&key)).await?;
        only_write(kv.as_ref(), &value, revision)?;
    }
    Ok((tally, ()))
}

/// Reads every record of every client again and returns their number.
pub(crate) async fn read_back(plan: &Plan) -> anyhow::Result<u64> {
    let mut client = plan.client.another();
    let pairs = plan.count(PAIRS);
    for index in 0..CLIENTS {
        let prefix = prefix(plan, index);
        let kvs = client.list(&prefix).await?.kvs;
        ensure!(kvs.len() as u64 == pairs, "{prefix}: {} of {pairs} records left", kvs.len());
        for (expected, kv) in (0..).zip(&kvs) {
            ensure!(number(kv)? == expected, "{prefix}: wrong record {expected}");
        }
    }
    Ok(CLIENTS * pairs)
}

fn prefix(plan: &Plan, client: u64) -> String {
    plan.key(format_args!("large/{client:03}/"))
}

/// 20 clients put and get as fast as they are answered, for the length of the run.
pub(crate) async fn sustained(plan: &Plan) -> anyhow::Result<Row> {
    let name = format!("sustained {} s", plan.duration.as_secs());
    let (work, kept) = crowd(plan, &name, 0, SUSTAINED_CLIENTS, |index, client, tally| {
        let prefix = plan.key(format_args!("sustained/{index:03}/"));
        overwrite_and_read(prefix, Instant::now() + plan.duration, client, tally)
    })
    .await?;
    Ok(Row::new(&name, &work).readable(kept.iter().sum()))
}

/// Returns the number of records that a last reading found, each with its last value.
async fn overwrite_and_read(
    prefix: String,
    deadline: Instant,
    mut client: Client,
    mut tally: Tally,
) -> anyhow::Result<(Tally, u64)> {
    let mut writes = 0;
    while Instant::now() < deadline {
        let key = format!("{prefix}{:06}", writes % SUSTAINED_KEYS);
        let written = value(&key, writes, VALUE_BYTES);
        let revision = tally.timed(client.put(&key, &written)).await?;
        let (kv, _) = tally.timed(client.get(&key)).await?;
        let expected = (revision, (writes / SUSTAINED_KEYS) as i64 + 1);
        let found = kv.as_ref().map(|kv| (kv.mod_revision, kv.version));
        ensure!(found == Some(expected), "{key}: {found:?} instead of {expected:?}");
        ensure!(kv.is_some_and(|kv| kv.value == written), "{key}: wrong value");
        writes += 1;
    }
    let kvs = client.list(&prefix).await?.kvs;
    ensure!(kvs.len() as u64 == writes.min(SUSTAINED_KEYS), "{prefix}: {} left", kvs.len());
    for kv in &kvs {
        let number = number(kv)?;
        ensure!(number + SUSTAINED_KEYS >= writes, "{prefix}: {number} was overwritten");
    }
    Ok((tally, kvs.len() as u64))
}
