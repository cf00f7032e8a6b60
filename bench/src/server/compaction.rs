//! 10,000 keys written, overwritten and compacted: the new values stay, the old revisions are gone.

use std::time::Instant;

use anyhow::ensure;
use chronolith_proto::etcdserverpb::RangeRequest;
use tonic::Code;

use super::Plan;
use super::check::{number, value};
use super::client::{Client, range_request};
use super::crowd::{Tally, crowd};
use super::report::Row;

const KEYS: u64 = 10_000;
const CLIENTS: u64 = 20;
const VALUE_BYTES: usize = 256;
/// Rounds of writing: first 0, then 1.
const ROUNDS: u64 = 2;

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Row> {
    let name = "overwrite and compact";
    let each = plan.count(KEYS) / CLIENTS;
    let prefix = plan.key(format_args!("compaction/"));
    let (mut work, _) =
        crowd(plan, name, ROUNDS * each * CLIENTS, CLIENTS, |index, client, tally| {
            write(format!("{prefix}{index:02}/"), each, client, tally)
        })
        .await?;
    let start = Instant::now();
    let found = compact_and_read(&prefix, plan.client.another()).await?;
    work.elapsed += start.elapsed();
    ensure!(found == each * CLIENTS, "{found} of {} keys left", each * CLIENTS);
    Ok(Row::new(name, &work).readable(found))
}

async fn write(
    prefix: String,
    keys: u64,
    mut client: Client,
    mut tally: Tally,
) -> anyhow::Result<(Tally, ())> {
    for round in 0..ROUNDS {
        for number in 0..keys {
            let key = format!("{prefix}{number:06}");
            tally.timed(client.put(&key, &value(&key, round, VALUE_BYTES))).await?;
        }
    }
    Ok((tally, ()))
}

async fn compact_and_read(prefix: &str, mut client: Client) -> anyhow::Result<u64> {
    let current = client.revision().await?;
    client.compact(current).await?;
    let kvs = client.list(prefix).await?.kvs;
    for kv in &kvs {
        ensure!(kv.version == ROUNDS as i64, "{:?}: version {}", kv.key, kv.version);
        ensure!(number(kv)? == ROUNDS - 1, "{:?}: the overwritten value came back", kv.key);
    }
    let below = RangeRequest { revision: current - 1, ..range_request(prefix, "") };
    let refused = client.range(below).await.err().and_then(|e| e.downcast::<tonic::Status>().ok());
    let code = refused.map(|status| status.code());
    ensure!(code == Some(Code::OutOfRange), "a compacted revision answered {code:?}");
    Ok(kvs.len() as u64)
}
