//! Whole clusters on a simulated disk and network, thousands of histories.
//!
//! `CHRONOLITH_SEEDS` sets how many (a number), or which one (`=17`).

mod simulator;

use simulator::cluster::{Bug, Counts, Plan, run};
use std::{panic::catch_unwind, thread};

/// Which seeds are to be run.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let Ok(setting) = std::env::var("CHRONOLITH_SEEDS") else { return 0..default };
    if let Some(one) = setting.strip_prefix('=') {
        let one: u64 = one.parse().expect("CHRONOLITH_SEEDS: a seed after =");
        return one..one + 1;
    }
    0..setting.parse().expect("CHRONOLITH_SEEDS: a number of seeds, or =SEED")
}

fn outcome(seed: u64, plan: &Plan) -> Result<Counts, String> {
    match catch_unwind(|| run(seed, plan)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map_or("", String::as_str);
            Err(format!("panic: {text}"))
        }
    }
}

fn all(test: &str, default: u64, plan: &Plan) -> Counts {
    let seeds = seeds(default);
    let half = seeds.start + (seeds.end - seeds.start) / 2;
    let part = |range: std::ops::Range<u64>| {
        let mut counts = Counts::default();
        for seed in range {
            match outcome(seed, plan) {
                Ok(seen) => counts.add(seen),
                Err(finding) => panic!(
                    "seed {seed}: {finding}\n  again: CHRONOLITH_SEEDS=={seed} cargo test -p \
                     chronolith-raft --test every_history_keeps_what_was_acknowledged {test}"
                ),
            }
        }
        counts
    };
    let counts = thread::scope(|scope| {
        let first = scope.spawn(|| part(seeds.start..half));
        let mut counts = part(half..seeds.end);
        counts.add(first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        counts
    });
    println!("{test}: {seeds:?} {counts:?}");
    counts
}

#[test]
fn of_one_member() {
    let counts = all("of_one_member", 2000, &Plan { members: 1, steps: 500, bug: Bug::None });
    assert!(counts.acknowledged > 0 && counts.torn > 0 && counts.reads > 0, "{counts:?}");
}

#[test]
fn of_three_members() {
    let counts = all("of_three_members", 1500, &Plan { members: 3, steps: 1500, bug: Bug::None });
    assert!(counts.acknowledged > 0 && counts.reads > 0, "{counts:?}");
}

#[test]
fn of_five_members() {
    let counts = all("of_five_members", 500, &Plan { members: 5, steps: 2500, bug: Bug::None });
    assert!(counts.acknowledged > 0 && counts.reads > 0, "{counts:?}");
}

/// How many of some histories go wrong with a mistake built in.
fn found(bug: Bug, members: u64, histories: u64) -> usize {
    let plan = Plan { members, steps: 800 * members, bug };
    let found = (0..histories).filter(|seed| outcome(*seed, &plan).is_err()).count();
    println!("{bug:?} with {members} members: {found} of {histories}");
    found
}

#[test]
fn a_disk_that_acknowledges_before_it_syncs_is_found() {
    assert!(found(Bug::AcknowledgeBeforeSync, 1, 50) > 25);
    assert!(found(Bug::AcknowledgeBeforeSync, 3, 50) > 10);
}

#[test]
fn an_applied_index_that_is_not_kept_with_the_data_is_found() {
    assert!(found(Bug::ForgetApplied, 1, 50) > 25);
}

#[test]
fn a_vote_that_is_forgotten_is_found() {
    assert!(found(Bug::ForgetVote, 3, 400) > 0);
}

#[test]
fn a_leader_that_answers_reads_alone_is_found() {
    assert!(found(Bug::ReadWithoutRound, 3, 200) > 0);
}
