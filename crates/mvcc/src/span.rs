//! Which keys a request means.

use bytes::Bytes;

/// One key, or the keys from `start` (in) to `end` (out); without end, all that follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Span {
    Point(Bytes),
    Range { start: Bytes, end: Option<Bytes> },
}

impl Span {
    /// What `key` and `range_end` of a request mean.
    pub(crate) fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match &range_end[..] {
            [] => Self::Point(key.clone()),
            [0] => Self::Range { start: key.clone(), end: None },
            _ => Self::Range { start: key.clone(), end: Some(range_end.clone()) },
        }
    }

    /// Whether no key can lie in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Range { start, end: Some(end) } if end <= start)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Point(point) => point == key,
            Self::Range { start, end } => {
                start <= key && end.as_ref().is_none_or(|end| key < &end[..])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(key: &'static str, end: &'static str) -> Span {
        Span::new(&Bytes::from(key), &Bytes::from(end))
    }

    #[test]
    fn a_zero_end_means_everything_from_the_key_on() {
        assert!(span("b", "\0").contains(b"zz") && !span("b", "\0").contains(b"a"));
        assert!(span("\0", "\0").contains(b"\0"));
    }

    #[test]
    fn an_end_not_after_the_key_means_nothing() {
        assert!(span("b", "a").is_empty() && span("b", "b").is_empty());
        assert!(!span("b", "").is_empty() && !span("b", "\0").is_empty());
    }
}
