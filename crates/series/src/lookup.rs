//! Batched lookups: several at a time, in stages, so that their cache misses overlap.
//!
//! ```text
//!   lane 0..15:  lock the body, guess the place │ load the time there │ right? then the value beside it
//! ```
//!
//! A lock is a barrier to the processor: nothing after it starts early. So all locks come first, and the
//! loads of all lanes follow without one between them. A wrong guess, late data or a packed block takes
//! the ordinary way.

use parking_lot::RwLockReadGuard;

use crate::block::RawBlock;
use crate::point::Key;
use crate::series::Body;
use crate::table::Table;

/// Lookups in flight: about as many misses as a core can have outstanding.
pub(crate) const LANES: usize = 16;

type Guards<'t> = [Option<RwLockReadGuard<'t, Body>>; LANES];

pub(crate) fn get_lanes(table: &Table, keys: &[Key], out: &mut Vec<Option<f64>>) {
    debug_assert!(keys.len() <= LANES);
    let mut bodies: Guards<'_> = [const { None }; LANES];
    for (lane, key) in keys.iter().enumerate() {
        // Never waits: who waits for one lock while holding another can be part of a deadlock.
        bodies[lane] = table.get(key.series).and_then(|series| series.body.try_read());
    }
    let mut guessed: [Option<(&RawBlock, usize)>; LANES] = [None; LANES];
    for (lane, key) in keys.iter().enumerate() {
        let body = bodies[lane].as_ref().filter(|body| body.late.is_empty());
        guessed[lane] = body.and_then(|body| body.blocks.guess_raw(key.time));
    }
    let mut times = [i64::MIN; LANES];
    let mut values = [0.0; LANES];
    for ((time, value), guess) in times.iter_mut().zip(&mut values).zip(&guessed) {
        if let Some((block, at)) = guess {
            (*time, *value) = (block.time(*at), block.value(*at));
        }
    }
    let start = out.len();
    for (lane, key) in keys.iter().enumerate() {
        let guessed_right =
            times[lane] == key.time && guessed[lane].is_some_and(|(block, at)| at < block.len());
        out.push(if guessed_right {
            Some(values[lane])
        } else {
            bodies[lane].as_ref().and_then(|body| body.get(key.time))
        });
    }
    let refused = bodies.each_ref().map(Option::is_none);
    drop(bodies);
    for (lane, key) in keys.iter().enumerate().filter(|(lane, _)| refused[*lane]) {
        out[start + lane] = table.get(key.series).and_then(|series| series.get(key.time));
    }
}
