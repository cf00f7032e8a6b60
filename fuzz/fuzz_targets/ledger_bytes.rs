//! Bytes as everything that the ledger reads: no panic, one encoding, and nothing untrue verifies.
#![no_main]

#[path = "../../crates/ledger/tests/common/truth.rs"]
mod truth;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use truth::{Truth, judge_parsers};

static TRUTH: LazyLock<Truth> = LazyLock::new(|| Truth::new(1));

fuzz_target!(|bytes: &[u8]| {
    TRUTH.judge_bundle(bytes);
    TRUTH.judge_proof(bytes);
    judge_parsers(bytes);
});
