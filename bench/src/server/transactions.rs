//! 10,000 transactions by 10 clients: `if version(key) = 0 then put else get`. Two clients fight over each
//! key, so exactly one of them must win, and the other must read what the winner wrote.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use chronolith_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use chronolith_proto::etcdserverpb::request_op::Request;
use chronolith_proto::etcdserverpb::response_op::Response;
use chronolith_proto::etcdserverpb::{Compare, RequestOp, TxnRequest, TxnResponse};

use super::Plan;
use super::client::{Client, header, put_request, range_request};
use super::crowd::{Tally, crowd};
use super::report::Row;

const CLIENTS: u64 = 10;
const TRANSACTIONS: u64 = 10_000;

/// What one client learnt of a key.
struct Fight {
    key: String,
    won: bool,
    value: Vec<u8>,
    revision: i64,
}

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Row> {
    let name = "transactions by 10 clients";
    let each = plan.count(TRANSACTIONS) / CLIENTS;
    let (work, fights) = crowd(plan, name, each * CLIENTS, CLIENTS, |index, client, tally| {
        // Clients 0 and 1 share keys, 2 and 3, and so on.
        let prefix = plan.key(format_args!("txn/{}/", index / 2));
        fight(prefix, index, each, client, tally)
    })
    .await?;
    let keys = check(fights.into_iter().flatten())?;
    let found = plan.client.another().list(&plan.key(format_args!("txn/"))).await?.kvs.len() as u64;
    ensure!(found == keys, "{found} of {keys} keys left");
    Ok(Row::new(name, &work).readable(found))
}

async fn fight(
    prefix: String,
    index: u64,
    count: u64,
    mut client: Client,
    mut tally: Tally,
) -> anyhow::Result<(Tally, Vec<Fight>)> {
    let mut fights = Vec::new();
    for number in 0..count {
        let key = format!("{prefix}{number:06}");
        let value = format!("client {index}");
        let answer = tally.timed(client.txn(put_if_absent(&key, &value))).await?;
        fights.push(outcome(key, value, answer)?);
    }
    Ok((tally, fights))
}

/// `if version(key) = 0 then put else get`
pub(crate) fn put_if_absent(key: &str, value: &str) -> TxnRequest {
    let absent = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    TxnRequest {
        compare: vec![absent],
        success: vec![operation(Request::RequestPut(put_request(key, value, 0)))],
        failure: vec![operation(Request::RequestRange(range_request(key, "")))],
    }
}

pub(crate) fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn outcome(key: String, mine: String, answer: TxnResponse) -> anyhow::Result<Fight> {
    let revision = header(answer.header)?.revision;
    let part = answer.responses.into_iter().next().and_then(|part| part.response);
    match (answer.succeeded, part.context("a transaction without its answer")?) {
        (true, Response::ResponsePut(_)) => {
            Ok(Fight { key, won: true, value: mine.into(), revision })
        }
        (false, Response::ResponseRange(range)) => {
            let kv = range.kvs.into_iter().next().context("lost to nobody")?;
            Ok(Fight { key, won: false, value: kv.value.to_vec(), revision: kv.mod_revision })
        }
        (succeeded, part) => bail!("{key}: succeeded is {succeeded}, the answer is {part:?}"),
    }
}

/// Exactly one winner a key, and both sides agree on it. Returns the number of keys.
fn check(fights: impl Iterator<Item = Fight>) -> anyhow::Result<u64> {
    let mut keys: BTreeMap<String, Vec<Fight>> = BTreeMap::new();
    for fight in fights {
        keys.entry(fight.key.clone()).or_default().push(fight);
    }
    for (key, sides) in &keys {
        let winners = sides.iter().filter(|side| side.won).count();
        ensure!(winners == 1, "{key}: {winners} winners");
        let agree =
            sides.iter().all(|s| (&s.value, s.revision) == (&sides[0].value, sides[0].revision));
        ensure!(agree, "{key}: the loser read something else than the winner wrote");
    }
    Ok(keys.len() as u64)
}
