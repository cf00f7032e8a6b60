//! The history and the audit trail for whoever has no gRPC: the same answers as JSON, over HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failing test may panic")]

mod common;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chronolith_ledger::{Bundle, Policy, SignedNote, VerifierKey};
use common::*;
use serde_json::{Value, json};
use std::future::poll_fn;
use tokio::net::TcpStream;

const JSON: &str = "Content-Type: application/json";
const ROOT: &str = "/api/v1/history/";

async fn read(node: &Node, path: &str) -> Value {
    let answer = node.fetch("GET", &format!("{ROOT}{path}"), &[], b"").await;
    assert_eq!(answer.code, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    answer.json()
}

async fn write(node: &Node, path: &str, request: &Value) -> HttpAnswer {
    node.fetch("POST", &format!("{ROOT}{path}"), &[JSON], request.to_string().as_bytes()).await
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Revision 2 puts a/x=1, 3 puts a/y=2, 4 puts a/x=3.
async fn node() -> Node {
    let node = Node::start().await;
    for (key, value) in [("a/x", "1"), ("a/y", "2"), ("a/x", "3")] {
        node.server.store().put(put(key, value)).await.unwrap();
    }
    node
}

async fn policy(node: &Node) -> Policy {
    let answer = read(node, "checkpoint").await;
    let key = VerifierKey::parse(answer["verifier_key"].as_str().unwrap()).unwrap();
    Policy::log_only(key).unwrap()
}

fn note(value: &Value) -> SignedNote {
    SignedNote::parse(value.as_str().unwrap().as_bytes()).unwrap()
}

#[tokio::test]
async fn reading_is_a_query() {
    let node = node().await;
    let policy = policy(&node).await;
    let checkpoint = read(&node, "checkpoint").await;
    assert_eq!(policy.open(&note(&checkpoint["note"])).unwrap().revision(), 4);

    let consistency = read(&node, "consistency?from_size=1").await;
    assert_eq!(consistency["to_size"], "3");
    assert_eq!(consistency["hashes"].as_array().unwrap().len(), 2);

    let versions = read(&node, "versions?key=a%2Fx&limit=1").await;
    assert_eq!(versions["versions"][0]["revision"], "4");
    assert_eq!(bytes(&versions["versions"][0]["value"]), b"3");
    assert_eq!(versions["versions"][0]["state"], "VALUE");
    assert_eq!(versions["more"], true);

    let got = read(&node, "get?key=a/x&revision=3&pinned_size=1").await;
    assert_eq!((&got["revision"], bytes(&got["kv"]["value"])), (&json!("3"), b"1".to_vec()));
    assert!(!got["consistency"].as_array().unwrap().is_empty());
    let bundle = Bundle::decode(&bytes(&got["bundle"])).unwrap();
    assert_eq!(bundle.verify(&policy).unwrap(), policy.open(&note(&got["note"])).unwrap());
    let bare = read(&node, "get?key=a/x&without_proof=true").await;
    assert_eq!((bare.get("bundle"), bytes(&bare["kv"]["value"])), (None, b"3".to_vec()));
    let now = read(&node, "get?key=a/x&time_ms=99999999999999").await;
    assert_eq!(now["revision"], "4");

    let diff = read(&node, "diff?prefix=a/&from=2&to=4&limit=1").await;
    assert_eq!((&diff["from_revision"], &diff["more"]), (&json!("2"), &json!(true)));
    assert_eq!(bytes(&diff["differences"][0]["before"]["value"]), b"1");
    let rest = read(&node, "diff?prefix=a/&from=2&after_key=a/x").await;
    assert_eq!(bytes(&rest["differences"][0]["key"]), b"a/y");

    let of_key = read(&node, "proof?key=a/x").await;
    let bundle = Bundle::decode(&bytes(&of_key["bundle"])).unwrap();
    bundle.verify_history(&policy, b"a/x").unwrap();
    assert_eq!(bundle.revisions.len(), 2);
    let of_one = read(&node, "proof?revision=3").await;
    let file = of_one["proof_file"].as_str().unwrap();
    chronolith_ledger::ProofFile::parse(file.as_bytes()).unwrap().verify(&policy).unwrap();
    let of_range = read(&node, "proof?from=2&to=4").await;
    assert_eq!(Bundle::decode(&bytes(&of_range["bundle"])).unwrap().revisions.len(), 3);
}

#[tokio::test]
async fn writing_is_a_post_with_a_json_body() {
    let node = node().await;
    let policy = policy(&node).await;
    let request = json!({ "key": base64("k\0\u{ff}"), "value": base64("v"), "pinned_size": "3" });
    let answer = write(&node, "put", &request).await;
    assert_eq!(answer.code, 200);
    let answer = answer.json();
    assert_eq!(answer["put"]["header"]["revision"], "5");
    let bundle = Bundle::decode(&bytes(&answer["bundle"])).unwrap();
    bundle.verify(&policy).unwrap();
    assert_eq!(bundle.revisions[0].ops[0].value(), Some(&b"v"[..]));
    assert!(!answer["consistency"].as_array().unwrap().is_empty());

    let request = json!({ "prefix": base64("a/"), "to": { "revision": "2" }, "dry_run": true });
    let planned = write(&node, "restore", &request).await.json();
    assert_eq!((&planned["puts"], &planned["deletes"]), (&json!("1"), &json!("1")));
    assert_eq!(planned.get("new_revision"), None);
    let request = json!({ "prefix": base64("a/"), "to": { "revision": 2 } });
    let done = write(&node, "restore", &request).await.json();
    assert_eq!((&done["new_revision"], &done["new_revisions"]), (&json!("6"), &json!(["6"])));
}

#[tokio::test]
async fn erasing_is_a_post_and_reading_says_so() {
    let node = node().await;
    let request = json!({
        "key": base64("a/x"),
        "revisions": { "from": 2, "to": "2" },
        "reason": "asked for by its owner",
    });
    let answer = write(&node, "erase", &request).await;
    assert_eq!((answer.code, &answer.json()["revisions"]), (200, &json!(["2"])));
    let versions = read(&node, "versions?key=a/x").await;
    let states: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|version| &version["state"]).collect();
    assert_eq!(states, ["VALUE", "ERASED"]);
    let got = read(&node, "get?key=a/x&revision=3").await;
    assert_eq!(got["erased"], true);
    let bundle = Bundle::decode(&bytes(&got["bundle"])).unwrap();
    bundle.verify(&policy(&node).await).unwrap();
}

#[tokio::test]
async fn the_audit_trail_is_json_too() {
    let node =
        Node::start_with(|config| config.audit = Some(chronolith_server::AuditConfig::default()))
            .await;
    for key in ["a/x", "b/y", "a/z"] {
        let request = json!({ "key": base64(key), "value": base64("v") });
        assert_eq!(write(&node, "put", &request).await.code, 200);
    }
    let page = |query: &str| {
        let path = format!("/api/v1/audit/{query}");
        let node = &node;
        async move { node.fetch("GET", &path, &[], b"").await }
    };
    let answer = page("query?call=VerifiedPut&key_prefix=a%2F&limit=1").await.json();
    let event = |answer: &Value| -> Value {
        serde_json::from_str(answer["events"][0].as_str().unwrap()).unwrap()
    };
    assert_eq!((&event(&answer)["key"], &answer["more"]), (&json!("a/x"), &json!(true)));
    let after = answer["last_sequence"].as_str().unwrap();
    let rest = page(&format!("query?call=VerifiedPut&key_prefix=a/&after_sequence={after}")).await;
    assert_eq!(event(&rest.json())["key"], "a/z");

    let answer = page("checkpoint").await.json();
    let key = VerifierKey::parse(answer["verifier_key"].as_str().unwrap()).unwrap();
    Policy::log_only(key).unwrap().open(&note(&answer["note"])).unwrap();
    assert_eq!(page("query?usr=x").await.code, 400);
    assert_eq!(page("nothing").await.code, 404);

    let without = Node::start().await;
    let answer = without.fetch("GET", "/api/v1/audit/query", &[], b"").await;
    let text = String::from_utf8(answer.body).unwrap();
    assert!(answer.code == 400 && text.contains("--audit on"), "{text}");
}

#[tokio::test]
async fn the_same_over_http_2() {
    let node = node().await;
    let socket = TcpStream::connect(node.server.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut ask = async |method: &str, path: &str, body: Bytes| {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", node.server.address()))
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        let (answer, mut stream) = client.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            stream.send_data(body, true).unwrap();
        }
        let (head, mut body) = answer.await.unwrap().into_parts();
        let mut all = Vec::new();
        while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            all.extend_from_slice(&chunk);
        }
        (head.status.as_u16(), all)
    };
    let (code, body) = ask("GET", "/api/v1/history/versions?key=a/x", Bytes::new()).await;
    let versions: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, versions["versions"].as_array().unwrap().len()), (200, 2));
    let request = json!({ "key": base64("k"), "value": base64("v") }).to_string();
    let (code, body) = ask("POST", "/api/v1/history/put", request.into()).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &answer["put"]["header"]["revision"]), (200, &json!("5")));
    let (code, body) = ask("GET", "/tlog/main/tile/0/000.p/3", Bytes::new()).await;
    assert_eq!((code, body.len()), (200, 96));
    let (code, body) = ask("GET", "/health", Bytes::new()).await;
    assert_eq!((code, &body[..]), (200, &br#"{"health":"true","reason":""}"#[..]));
}

#[tokio::test]
async fn what_is_asked_in_another_form_is_refused_with_the_reason() {
    let node = node().await;
    for (path, code, why) in [
        ("get", 400, "key is not provided"),
        ("get?kee=x", 400, "no parameter \\\"kee\\\""),
        ("get?key=%zz", 400, "percent-encoded"),
        ("get?key=a&revision=x", 400, "revision=x"),
        ("get?key=a&revision=2&time_ms=3", 400, "not both"),
        ("get?key=a&revision=99", 400, "future revision"),
        ("versions?key=a&limit=-4", 400, "-4 entries"),
        ("diff?prefix=a", 400, "since when"),
        ("proof", 400, "give key, or revision"),
        ("proof?key=a&revision=2", 400, "give key, or revision"),
        ("proof?from=2&to=900", 400, "newest is 4"),
        ("consistency?from_size=9", 400, "the log has 3 leaves"),
        ("nothing", 404, "there is no /api/v1/history/nothing"),
        ("", 404, "there is no /api/v1/history/"),
    ] {
        let answer = node.fetch("GET", &format!("{ROOT}{path}"), &[], b"").await;
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.code, code, "{path}: {body}");
        assert!(body.contains(why), "{path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"], body["message"]);
    }
    for (path, body, why) in [
        ("put", "", "no JSON"),
        ("put", "[1]", "no JSON object"),
        ("put", r#"{"key":"%"}"#, "key is not base64"),
        ("put", r#"{"key":"aw==","vlaue":""}"#, "no field"),
        ("restore", r#"{"prefix":"aw=="}"#, "to go back to"),
        ("restore", r#"{"to":{"revision":2,"time_ms":2}}"#, "not both"),
        ("erase", r#"{"key":"aw=="}"#, "say why"),
        ("erase", r#"{"key":"aw==","reason":"r","revisions":{"from":9,"to":3}}"#, "no range"),
    ] {
        let answer = node.fetch("POST", &format!("{ROOT}{path}"), &[JSON], body.as_bytes()).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(answer.code == 400 && text.contains(why), "{path} {body}: {} {text}", answer.code);
    }
    assert_eq!(node.server.store().header().revision, 4, "nothing was written");
}

#[tokio::test]
async fn only_the_right_method_and_type_are_taken() {
    let node = node().await;
    let answer = node.fetch("POST", &format!("{ROOT}get?key=a"), &[JSON], b"{}").await;
    assert!(answer.code == 405 && answer.head.contains("allow: get"), "{}", answer.head);
    let answer = node.fetch("GET", &format!("{ROOT}put"), &[], b"").await;
    assert!(answer.code == 405 && answer.head.contains("allow: post"), "{}", answer.head);
    let put = json!({ "key": base64("k"), "value": base64("v") }).to_string();
    for kind in ["Content-Type: text/plain", "X-Nothing: 1"] {
        let answer = node.fetch("POST", &format!("{ROOT}put"), &[kind], put.as_bytes()).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert!(answer.code == 400 && text.contains("application/json"), "{text}");
    }
    assert_eq!(node.server.store().header().revision, 4, "nothing was written");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_held() {
    let node = Node::start_with(|config| config.limits.request_bytes_max = 10_000).await;
    let request = json!({ "key": base64("k"), "value": base64(vec![b'v'; 2_000_000]) });
    let answer = write(&node, "put", &request).await;
    let text = String::from_utf8(answer.body).unwrap();
    assert!(answer.code == 429 && text.contains("the body is larger than"), "{text}");
    let request = json!({ "key": base64("k"), "value": base64(vec![b'v'; 20_000]) });
    let answer = write(&node, "put", &request).await;
    let text = String::from_utf8(answer.body).unwrap();
    assert!(answer.code == 400 && text.contains("request is too large"), "{text}");
}
