//! The audit trail end to end: a node as a process, `ctl audit`, and a kill in the middle of writes.

#![allow(clippy::unwrap_used, reason = "a failure in a test is what the test is for")]

mod support;

use chronolith_audit::{Event, Query, own};
use chronolith_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};
use support::{Node, PATIENCE, Program};

const MEMORY: Program = Program::Chronolith { engine: "memory" };

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: "v".into(), ..PutRequest::default() }
}

fn ctl(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.args(["ctl", "--endpoints", &node.endpoint(), "audit"]).args(args);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn events(dir: &Path) -> Vec<Event> {
    let (mut events, mut query) = (Vec::new(), Query::default());
    loop {
        let page = chronolith_audit::query(dir, &query).unwrap();
        events.extend(page.events.iter().map(|line| serde_json::from_str::<Event>(line).unwrap()));
        if !page.more {
            return events;
        }
        query.after_sequence = page.last_sequence;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_is_queried_pinned_and_verified_from_the_command_line() {
    let mut node = Node::start_with(MEMORY, &["--audit", "on"]);
    let mut kv = KvClient::new(node.channel());
    for key in ["app/a", "app/b", "sys/c"] {
        kv.put(put(key)).await.unwrap();
    }
    kv.put(put("")).await.unwrap_err();

    let shown = text(&ctl(&node, &["query", "--prefix", "app/", "--from", "1h ago"]));
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(
        shown.contains("Put  by 127.0.0.1:") && shown.contains("app/b  ok  revision 3"),
        "{shown}"
    );
    let failed = text(&ctl(&node, &["query", "--failed", "-w", "json"]));
    let event: Event = serde_json::from_str(failed.trim()).unwrap();
    assert_eq!((&*event.call, &*event.code), ("Put", "InvalidArgument"));
    let limited = text(&ctl(&node, &["query", "--call", "Put", "--limit", "3"]));
    assert_eq!(limited.lines().count(), 3, "{limited}");

    let pin = node.directory.path().join("pin");
    let pin = pin.to_str().unwrap();
    assert!(ctl(&node, &["checkpoint", "--pin", pin]).status.success());
    kv.put(put("app/d")).await.unwrap();
    let again = ctl(&node, &["checkpoint", "--pin", pin]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() && said.contains("continues the pinned one"), "{said}");

    let dir = node.directory.path().join("data/audit");
    let key = dir.join("log.vkey");
    let arguments =
        ["verify", dir.to_str().unwrap(), "--trust", key.to_str().unwrap(), "--pin", pin];
    let live = ctl(&node, &arguments);
    assert_eq!(live.status.code(), Some(0), "{live:?}");
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    assert_eq!(events(&dir).last().unwrap().call, own::STOP);
    assert!(text(&ctl(&node, &arguments)).starts_with("proven: events 1 to "));
    let lines = dir.join("00000000000000000001.jsonl");
    let whole = fs::read_to_string(&lines).unwrap();
    fs::write(&lines, whole.replace("app/b", "app/x")).unwrap();
    let found = ctl(&node, &arguments);
    let said = String::from_utf8_lossy(&found.stderr).into_owned();
    assert_eq!(found.status.code(), Some(1), "{said}");
    assert!(said.contains("tampered:") && said.contains("line 5, event 5"), "{said}");
    let nothing = ctl(&node, &["verify", "/nowhere", "--trust", key.to_str().unwrap()]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_event_of_an_answer_that_was_given_when_failing_closed() {
    let closed = ["--audit", "on", "--audit-fail-mode", "closed", "--audit-rotate-bytes", "40000"];
    let mut node = Node::start_with(MEMORY, &closed);
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let mut kv = KvClient::new(node.channel());
            writers.spawn(async move {
                let mut done = Vec::new();
                for number in 0.. {
                    let key = format!("{round}/{writer}/{number}");
                    if kv.put(put(&key)).await.is_err() {
                        break;
                    }
                    done.push(key);
                }
                done
            });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.kill();
        let before = acknowledged.len();
        while let Some(done) = writers.join_next().await {
            acknowledged.extend(done.unwrap());
        }
        assert!(acknowledged.len() > before, "nothing was written in round {round}");
        node.restart();
    }
    // The node answers, so that the log is open again and repaired.
    tokio::time::timeout(PATIENCE, KvClient::new(node.channel()).put(put("end")))
        .await
        .unwrap()
        .unwrap();
    let dir = node.directory.path().join("data/audit");
    let events = events(&dir);
    let told: BTreeSet<String> = events
        .iter()
        .filter(|event| event.call == "Put" && event.revision.is_some())
        .map(|event| event.key.clone())
        .collect();
    let lost: Vec<_> = acknowledged.difference(&told).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    node.signal(Signal::TERM);
    assert!(node.wait().success());
    let key = fs::read_to_string(dir.join("log.vkey")).unwrap();
    let key = chronolith_ledger::VerifierKey::parse(key.trim_end()).unwrap();
    let report = chronolith_audit::verify_directory(&dir, &key, None).unwrap();
    assert_eq!((report.finding, report.unsigned), (None, 0));
}
