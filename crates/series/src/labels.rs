//! Labels: what a series is called by people. Sorted, unique names, with stated limits.

use std::fmt;

use crate::error::Error;

/// Labels of one series. More than this is a program putting data into names.
pub const MAX_LABELS: usize = 64;
/// Bytes of one label name.
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of one label value.
pub const MAX_VALUE_BYTES: usize = 1024;

/// The sorted name-value pairs that name a series.
///
/// ```
/// use chronolith_series::Labels;
/// let labels = Labels::new([("job", "node"), ("__name__", "cpu_seconds_total")])?;
/// assert_eq!(labels.get("job"), Some("node"));
/// assert_eq!(labels.to_string(), r#"{__name__="cpu_seconds_total",job="node"}"#);
/// # Ok::<(), chronolith_series::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// Sorts and checks the pairs.
    ///
    /// # Errors
    /// [`Error::Labels`] if there are none or too many, if a name is empty or given twice, or if a
    /// name or a value is too long.
    pub fn new<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Labels, Error> {
        let mut pairs: Vec<(String, String)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        pairs.sort();
        check(&pairs)?;
        Ok(Labels(pairs))
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// All pairs in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

fn check(pairs: &[(String, String)]) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Labels(why));
    if pairs.is_empty() {
        return refuse("none given".into());
    }
    if pairs.len() > MAX_LABELS {
        return refuse(format!("{} labels, at most {MAX_LABELS}", pairs.len()));
    }
    if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
        return refuse(format!("{:?} is given twice", twice[0].0));
    }
    for (name, value) in pairs {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return refuse(format!("name of {} bytes, 1 to {MAX_NAME_BYTES}", name.len()));
        }
        if value.len() > MAX_VALUE_BYTES {
            return refuse(format!("value of {} bytes, at most {MAX_VALUE_BYTES}", value.len()));
        }
    }
    Ok(())
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
        write!(f, "{{{}}}", pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept() {
        let many: Vec<(String, String)> = (0..65).map(|i| (format!("l{i}"), "v".into())).collect();
        assert!(matches!(Labels::new(many), Err(Error::Labels(why)) if why.contains("65")));
        assert!(Labels::new([("a", "1"), ("a", "2")]).is_err());
        assert!(Labels::new([("", "1")]).is_err());
        assert!(Labels::new([("a", "x".repeat(MAX_VALUE_BYTES + 1))]).is_err());
        assert!(Labels::new(Vec::<(String, String)>::new()).is_err());
        assert!(Labels::new([("a", "x".repeat(MAX_VALUE_BYTES))]).is_ok());
    }
}
