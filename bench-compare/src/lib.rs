//! Side by side with other engines and indexes, in one run on one machine. The only place that links
//! foreign engines; not a default member, so that ordinary builds never compile them. Each comparison
//! is a binary of its own under `src/bin`.
