//! Values that prove what they are: each names its key and a number, and has a stated size.

use anyhow::{Context, ensure};
use chronolith_proto::mvccpb::KeyValue;

/// The value of write `number` to `key`, filled up to `size_bytes`.
pub(crate) fn value(key: &str, number: u64, size_bytes: usize) -> String {
    let mut value = format!("{key}#{number}#");
    while value.len() < size_bytes {
        let missing = size_bytes - value.len();
        value.push_str(&FILLING[..missing.min(FILLING.len())]);
    }
    value
}

const FILLING: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// The number in a record's value.
///
/// # Errors
/// When the value is not one that [`value`] made for the record's key.
pub(crate) fn number(kv: &KeyValue) -> anyhow::Result<u64> {
    let key = text(&kv.key)?;
    let found = text(&kv.value)?;
    let rest = found.strip_prefix(key).and_then(|rest| rest.strip_prefix('#'));
    let rest = rest.with_context(|| format!("{key}: holds the value of another key"))?;
    let (number, _) = rest.split_once('#').with_context(|| format!("{key}: value cut short"))?;
    let number = number.parse().with_context(|| format!("{key}: value without a number"))?;
    ensure!(found == value(key, number, found.len()), "{key}: value damaged");
    Ok(number)
}

/// Checks a record that only one write has made.
pub(crate) fn only_write(kv: Option<&KeyValue>, value: &str, revision: i64) -> anyhow::Result<()> {
    let kv = kv.context("an acknowledged record is missing")?;
    ensure!(kv.value == value.as_bytes(), "{:?}: wrong value", kv.key);
    ensure!(
        (kv.create_revision, kv.mod_revision, kv.version) == (revision, revision, 1),
        "{:?}: written once at {revision}, but created {}, changed {}, version {}",
        kv.key,
        kv.create_revision,
        kv.mod_revision,
        kv.version
    );
    Ok(())
}

pub(crate) fn text(bytes: &[u8]) -> anyhow::Result<&str> {
    std::str::from_utf8(bytes).context("not the text that was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_value_tells_its_number_and_has_its_size() {
        let made = value("k", 42, 256);
        assert_eq!(made.len(), 256);
        assert_eq!(number(&record("k", &made)).unwrap(), 42);
    }

    #[test]
    fn a_damaged_or_swapped_value_is_refused() {
        let made = value("k", 42, 64);
        assert!(number(&record("other", &made)).is_err());
        assert!(number(&record("k", &made.replace('c', "d"))).is_err());
        assert!(number(&record("k", "k#4")).is_err());
    }

    #[test]
    fn a_record_of_a_single_write_carries_its_revision_three_times() {
        let kv = KeyValue { create_revision: 7, mod_revision: 7, version: 1, ..record("k", "v") };
        assert!(only_write(Some(&kv), "v", 7).is_ok());
        assert!(only_write(Some(&kv), "w", 7).is_err());
        assert!(only_write(Some(&kv), "v", 8).is_err());
        assert!(only_write(None, "v", 7).is_err());
    }
}
