//! True bundles, bent as the fuzzer chooses: whatever verifies must be true.
#![no_main]

#[path = "../../crates/ledger/tests/common/truth.rs"]
mod truth;

use chronolith_ledger::Bundle;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use truth::{Choices, Given, Truth, bend_bundle, bend_bytes};

static TRUTH: LazyLock<Truth> = LazyLock::new(|| Truth::new(1));
static BUNDLES: LazyLock<Vec<Bundle>> = LazyLock::new(|| {
    let forged = Truth::new(2);
    vec![
        TRUTH.range(2, 9, 8),
        TRUTH.range(30, 41, 40),
        TRUTH.history(3, 40),
        TRUTH.history(5, 32),
        forged.range(2, 9, 8),
        forged.history(3, 40),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    let mut choose = Given(bytes);
    let mut bundle = BUNDLES[choose.below(4)].clone();
    while !choose.0.is_empty() {
        let other = &BUNDLES[choose.below(BUNDLES.len())];
        bend_bundle(&mut bundle, other, &mut choose);
    }
    let mut encoded = bundle.encode();
    TRUTH.judge_bundle(&encoded);
    bend_bytes(&mut encoded, bytes, &mut Given(bytes));
    TRUTH.judge_bundle(&encoded);
});
