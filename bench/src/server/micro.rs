//! The latency of each kind of operation, mostly one at a time.

use anyhow::{Context, ensure};
use chronolith_proto::etcdserverpb::request_op::Request;
use chronolith_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, TxnRequest,
};

use super::Plan;
use super::check::{number, value};
use super::client::{Client, prefix_end, put_request, range_request};
use super::crowd::{Tally, crowd};
use super::report::Row;
use super::transactions::{operation, put_if_absent};
use super::watch;

const OPERATIONS: u64 = 1_000;
/// A put of a mebibyte costs a thousand small ones; this many keep its row as short as the others.
const LARGE_OPERATIONS: u64 = 50;
const PARALLEL_CLIENTS: u64 = 50;
const CROWD_CLIENTS: u64 = 100;
const SMALL_BYTES: usize = 16;
const HUNDRED_BYTES: usize = 100;
const MEBIBYTE: usize = 1 << 20;
/// Puts in one transaction of the batch row; etcd's default limit is 128.
const BATCH: u64 = 100;
const LEASE_TTL_SECONDS: i64 = 60;

#[derive(Clone, Copy)]
enum Kind {
    Put(usize),
    Get,
    Delete,
    RangeOfHundred,
    Transaction,
    Watch,
    Lease,
    Mixed,
    Batch,
    Thirds,
}

/// Row name, what it does, clients, operations over all clients.
const ROWS: [(&str, Kind, u64, u64); 14] = [
    ("put", Kind::Put(SMALL_BYTES), 1, OPERATIONS),
    ("get", Kind::Get, 1, OPERATIONS),
    ("range of 100", Kind::RangeOfHundred, 1, OPERATIONS),
    ("delete", Kind::Delete, 1, OPERATIONS),
    ("transaction", Kind::Transaction, 1, OPERATIONS),
    ("put, 50 clients", Kind::Put(SMALL_BYTES), PARALLEL_CLIENTS, 10 * OPERATIONS),
    ("get, 50 clients", Kind::Get, PARALLEL_CLIENTS, 10 * OPERATIONS),
    ("watch: put to event", Kind::Watch, 1, OPERATIONS),
    ("lease grant+put+revoke", Kind::Lease, 1, OPERATIONS / 2),
    ("put 100 B", Kind::Put(HUNDRED_BYTES), 1, OPERATIONS),
    ("put 1 MiB", Kind::Put(MEBIBYTE), 1, LARGE_OPERATIONS),
    ("50 put 30 get 10 list 10 delete", Kind::Mixed, 10, 5 * OPERATIONS),
    ("batch of 100 puts", Kind::Batch, 1, OPERATIONS / 10),
    ("put, get, delete, 100 clients", Kind::Thirds, CROWD_CLIENTS, 10 * OPERATIONS),
];

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (row, (name, kind, clients, operations)) in ROWS.into_iter().enumerate() {
        let each = plan.count(operations / clients);
        let (work, _) = crowd(plan, name, each * clients, clients, |index, client, tally| {
            let prefix = plan.key(format_args!("micro/{row}/{index:03}/"));
            repeat(kind, Worker { prefix, client, tally }, each)
        })
        .await
        .with_context(|| name)?;
        rows.push(Row::new(name, &work));
    }
    Ok(rows)
}

struct Worker {
    prefix: String,
    client: Client,
    tally: Tally,
}

async fn repeat(kind: Kind, mut worker: Worker, count: u64) -> anyhow::Result<(Tally, ())> {
    match kind {
        Kind::Get | Kind::Delete => worker.prepare(count).await?,
        Kind::RangeOfHundred => worker.prepare(100).await?,
        Kind::Watch => {
            worker.watch(count).await?;
            return Ok((worker.tally, ()));
        }
        _ => {}
    }
    for number in 0..count {
        worker.once(kind, number).await?;
    }
    Ok((worker.tally, ()))
}

impl Worker {
    async fn once(&mut self, kind: Kind, number: u64) -> anyhow::Result<()> {
        match kind {
            Kind::Put(size_bytes) => self.put(number, size_bytes).await,
            Kind::Get => self.get(number, number).await,
            Kind::Delete => self.delete(number).await,
            Kind::RangeOfHundred => self.range(100).await,
            Kind::Transaction => self.transaction(number).await,
            Kind::Lease => self.lease(number).await,
            Kind::Mixed => self.mixed(number).await,
            Kind::Batch => self.batch(number).await,
            Kind::Thirds => self.thirds(number).await,
            // Its events overlap with its puts, so it has a loop of its own.
            Kind::Watch => Ok(()),
        }
    }

    fn key(&self, number: u64) -> String {
        format!("{}{number:06}", self.prefix)
    }

    /// Writes keys that the measured operations will meet; not counted.
    async fn prepare(&mut self, keys: u64) -> anyhow::Result<()> {
        for number in 0..keys {
            let key = self.key(number);
            self.client.put(&key, &value(&key, number, SMALL_BYTES)).await?;
        }
        Ok(())
    }

    async fn put(&mut self, number: u64, size_bytes: usize) -> anyhow::Result<()> {
        let key = self.key(number);
        let value = value(&key, number, size_bytes);
        self.tally.timed(self.client.put(&key, &value)).await?;
        Ok(())
    }

    /// Gets a key that holds the write with the number.
    async fn get(&mut self, key: u64, expected: u64) -> anyhow::Result<()> {
        let key = self.key(key);
        let (kv, _) = self.tally.timed(self.client.get(&key)).await?;
        ensure!(number(&kv.context("missing")?)? == expected, "{key}: an old value");
        Ok(())
    }

    async fn delete(&mut self, number: u64) -> anyhow::Result<()> {
        let key = self.key(number);
        let (kv, _) = self.tally.timed(self.client.delete(&key)).await?;
        ensure!(kv.is_some(), "{key}: was there, but was not deleted");
        Ok(())
    }

    async fn range(&mut self, expected: usize) -> anyhow::Result<()> {
        let request = range_request(&self.prefix, &prefix_end(&self.prefix));
        let request = RangeRequest { limit: expected as i64, ..request };
        let answer = self.tally.timed(self.client.range(request)).await?;
        ensure!(answer.kvs.len() == expected, "{} of {expected} records", answer.kvs.len());
        Ok(())
    }

    async fn transaction(&mut self, number: u64) -> anyhow::Result<()> {
        let key = self.key(number);
        let answer = self.tally.timed(self.client.txn(put_if_absent(&key, "value"))).await?;
        ensure!(answer.succeeded, "{key}: a fresh key was taken");
        Ok(())
    }

    async fn lease(&mut self, number: u64) -> anyhow::Result<()> {
        let key = self.key(number);
        let start = std::time::Instant::now();
        let mut leases = self.client.lease();
        let granted =
            leases.lease_grant(LeaseGrantRequest { ttl: LEASE_TTL_SECONDS, id: 0 }).await?;
        let id = granted.into_inner().id;
        self.client.put_leased(&key, "value", id).await?;
        leases.lease_revoke(LeaseRevokeRequest { id }).await?;
        self.tally.record(start.elapsed());
        ensure!(self.client.get(&key).await?.0.is_none(), "{key}: outlived its lease");
        Ok(())
    }

    /// Of ten operations five put, three get, one lists and one deletes.
    async fn mixed(&mut self, number: u64) -> anyhow::Result<()> {
        let (round, part) = (number / 10, number % 10);
        match part {
            0..=4 => self.put(round * 10 + part, SMALL_BYTES).await,
            5..=7 => self.get(round * 10 + part - 5, round * 10 + part - 5).await,
            8 => self.range(1).await,
            _ => self.delete(round * 10).await,
        }
    }

    async fn batch(&mut self, number: u64) -> anyhow::Result<()> {
        let keys: Vec<_> = (0..BATCH).map(|i| self.key(number * BATCH + i)).collect();
        let put = |key: &String| operation(Request::RequestPut(put_request(key, "value", 0)));
        let request = TxnRequest { success: keys.iter().map(put).collect(), ..Default::default() };
        let answer = self.tally.timed(self.client.txn(request)).await?;
        ensure!(answer.succeeded && answer.responses.len() as u64 == BATCH, "batch cut short");
        Ok(())
    }

    /// A third each: put a key, get it, delete it.
    async fn thirds(&mut self, number: u64) -> anyhow::Result<()> {
        match number % 3 {
            0 => self.put(number, SMALL_BYTES).await,
            1 => self.get(number - 1, number - 1).await,
            _ => self.delete(number - 2).await,
        }
    }

    /// From sending a put to hearing of it.
    async fn watch(&mut self, count: u64) -> anyhow::Result<()> {
        let end = prefix_end(&self.prefix);
        let (_requests, mut stream) = watch::open(&self.client, &self.prefix, &end).await?;
        for number in 0..count {
            let key = self.key(number);
            let start = std::time::Instant::now();
            let revision = self.client.put(&key, "value").await?;
            let answer = watch::next(&mut stream).await?;
            self.tally.record(start.elapsed());
            let heard: Vec<_> = answer.events.iter().filter_map(|e| e.kv.as_ref()).collect();
            ensure!(heard.len() == 1 && heard[0].mod_revision == revision, "{key}: wrong event");
        }
        Ok(())
    }
}
