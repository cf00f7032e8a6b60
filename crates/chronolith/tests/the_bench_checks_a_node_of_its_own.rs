//! `chronolith bench server --spawn` runs the scenarios against a node that it starts, kills and starts
//! again; every engine of this build passes them all.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

fn bench(engine: &str) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.args(["bench", "server", "--spawn", "--engine", engine]);
    let output = command.args(["--quick", "--secs", "2", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn nothing_is_lost_and_every_answer_is_right() {
    for engine in support::ENGINES {
        let report = bench(engine);
        let rows = report["rows"].as_array().unwrap();
        assert!(rows.len() > 15, "{report}");
        for row in rows {
            assert!(row["failure"].is_null(), "{engine}: {row}");
            assert!(row["acknowledged"].as_u64().unwrap() > 0, "{engine}: {row}");
        }
        let large = &rows[0];
        assert_eq!(large["readable"], 5_000);
        assert_eq!(large["durable"], large["readable"]);
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let endpoint = format!("http://127.0.0.1:{}", support::free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    let output = command.args(["bench", "server", "--endpoint", &endpoint]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&endpoint), "{output:?}");
}
