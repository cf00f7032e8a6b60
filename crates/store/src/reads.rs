//! Reads: soon answered ones where they are asked for, and the others on threads of their own.
//!
//! ```text
//! range ─▶ some keys ─ end ─────────────────────────────────▶ then(answer)      on the caller's thread
//!              └ more: a place, a thread ─▶ all keys ─▶ end ─▶ then(answer)      on that thread
//! ```
//! Invariants: whoever drives other requests too is not held up for longer than [`SHORT`] takes; at most
//! [`LARGE_READS_MAX`] threads read at once, the next read waits for a place; an answer is never larger
//! than its limit, and nothing larger is held on the way to it; who has gone away is not read for.

use crate::{error::StoreError, store::Store};
use chronolith_mvcc::{Begun, Listing, Pause, RangeResult, Reader, validate};
use chronolith_proto::etcdserverpb::{
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, request_op::Request,
};
use std::{sync::Arc, thread};
use tokio::sync::oneshot;

/// Threads that read at once. Each may hold an answer of the largest size, and takes its time from the
/// writers'; a few, so that a list of some thousand keys does not wait for one of millions.
pub(crate) const LARGE_READS_MAX: usize = 4;

/// What is read on the caller's thread: half a millisecond's work in memory. A thread costs a tenth of it.
const SHORT: Pause = Pause { after_keys: 1_000, after_bytes: 1 << 20 };

/// How often a thread looks whether anybody still waits for it: every few milliseconds.
const STRETCH: Pause = Pause { after_keys: 10_000, after_bytes: 64 << 20 };

impl Store {
    /// Answers a range request.
    ///
    /// # Errors
    /// [`StoreError::Request`] for what the client must change; one of them is an answer larger than
    /// [`Limits::max_response_bytes`](crate::Limits::max_response_bytes).
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.range_then(request, |response| response).await
    }

    /// The same, and does with the answer what is to be done where it was made: for a large one that is
    /// a thread of its own, where encoding it holds nobody up.
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub async fn range_then<T: Send + 'static>(
        &self,
        request: RangeRequest,
        then: impl FnOnce(RangeResponse) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        validate::range(&request)?;
        let _admitted = self.admit_read()?;
        if !request.serializable {
            self.inner.proposer.confirm_read().await?;
        }
        let max_bytes = self.inner.limits.max_response_bytes;
        match self.inner.reader.begin_range(&request, SHORT, max_bytes)? {
            Begun::Answered(result) => Ok(then(self.range_response(result))),
            Begun::Paused(listing) => {
                let store = self.clone();
                let finish = move |gone: &dyn Fn() -> bool| {
                    let result = finish(listing, gone)?;
                    Ok(then(store.range_response(result)))
                };
                self.apart(finish).await
            }
        }
    }

    fn range_response(&self, result: RangeResult) -> RangeResponse {
        RangeResponse { header: self.header_at(result.revision), ..result.into_response() }
    }

    /// Answers a transaction that only reads. Single keys are soon read.
    pub(crate) async fn read_only_txn<T: Send + 'static>(
        &self,
        request: TxnRequest,
        then: impl FnOnce(TxnResponse) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let _admitted = self.admit_read()?;
        if !is_serializable(&request) {
            self.inner.proposer.confirm_read().await?;
        }
        let is_short = Reader::txn_names_its_keys(&request);
        let store = self.clone();
        let read = move |_: &dyn Fn() -> bool| {
            let max_bytes = store.inner.limits.max_response_bytes;
            let result = store.inner.reader.txn(&request, max_bytes)?;
            let header = store.header_at(result.revision);
            Ok(then(TxnResponse { header, ..result.response }))
        };
        if is_short { read(&|| false) } else { self.apart(read).await }
    }

    /// Reads on a thread of its own, when there is a place. `read` is told how to find out that nobody
    /// waits any more.
    async fn apart<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Fn() -> bool) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(&self.inner.large_reads).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (reply, answer) = oneshot::channel();
        let work = move || {
            let _place = place;
            let done = read(&|| reply.is_closed());
            // Nobody listens to a request that was cancelled.
            let _ = reply.send(done);
        };
        let thread = thread::Builder::new().name("range".to_owned());
        thread.spawn(work).map_err(|error| StoreError::Storage(error.to_string()))?;
        let panicked = |_| StoreError::Storage("a reading thread panicked: see the log".to_owned());
        answer.await.map_err(panicked)?
    }
}

/// The rest of a range.
fn finish(mut listing: Box<Listing>, gone: &dyn Fn() -> bool) -> Result<RangeResult, StoreError> {
    loop {
        match listing.advance(&STRETCH)? {
            Begun::Answered(result) => return Ok(result),
            Begun::Paused(_) if gone() => return Err(StoreError::Stopped),
            Begun::Paused(rest) => listing = rest,
        }
    }
}

/// Whether all ranges of a transaction that only reads are content with this member's own state.
fn is_serializable(request: &TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.all(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => range.serializable,
        _ => false,
    })
}
