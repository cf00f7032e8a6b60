//! A panic inside a request ends that request, nothing else.
//!
//! What panics here is request code: decoding, validation, encoding. The state machine is on its own
//! thread, where a panic poisons the store instead.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// Runs `work`; a panic in it becomes the text it panicked with.
pub(crate) async fn contain<F: Future>(work: F) -> Result<F::Output, String> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // Nothing that was being worked on is used after a panic: the future is never polled again.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(text_of(&*panic))),
        }
    })
    .await
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_its_text_and_a_result_stays_one() {
        assert_eq!(contain(async { 7 }).await, Ok(7));
        let broken: Result<(), _> = contain(async { panic!("no {}", "luck") }).await;
        assert_eq!(broken, Err("no luck".to_owned()));
    }
}
