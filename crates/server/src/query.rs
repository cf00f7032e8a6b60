//! Query strings.

use http::Uri;

/// The pairs of a query string, in their order.
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Self {
        Query(uri.query().unwrap_or_default())
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs().any(|(key, _)| key == name)
    }

    pub(crate) fn has_value(&self, name: &str, value: &str) -> bool {
        self.pairs().any(|pair| pair == (name, value))
    }

    /// The first value of a name, as it stands there.
    pub(crate) fn value(&self, name: &str) -> Option<&'a str> {
        self.pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first value of a name, decoded; none where it is not well encoded.
    pub(crate) fn bytes(&self, name: &str) -> Option<Option<Vec<u8>>> {
        match self.value(name) {
            None => Some(None),
            Some(text) => decode(text).map(Some),
        }
    }

    /// Refuses names that mean nothing here: a misspelt one would ask for something else.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.pairs().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                Err(format!("there is no parameter {name:?} here: {}", known.join(", ")))
            }
        }
    }
}

/// `%XX` is a byte and `+` a space, as in forms.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' => b' ',
            plain => plain,
        });
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_by_name_and_value() {
        let uri = Uri::from_static("/readyz?verbose&exclude=a&exclude=b");
        let query = Query::of(&uri);
        assert!(query.has("verbose"));
        assert!(query.has_value("exclude", "a") && query.has_value("exclude", "b"));
        assert!(!query.has("a"));
        assert_eq!(query.value("exclude"), Some("a"));
        assert!(query.only(&["verbose", "exclude"]).is_ok());
        assert!(query.only(&["verbose"]).unwrap_err().contains("\"exclude\""));
        assert!(Query::of(&Uri::from_static("/")).only(&[]).is_ok());
    }

    #[test]
    fn bytes_are_percent_encoded_as_in_forms() {
        let uri = Uri::from_static("/?key=a%2Fb+%00%ff&bad=%g1&cut=%a");
        let query = Query::of(&uri);
        assert_eq!(query.bytes("key"), Some(Some(b"a/b \0\xff".to_vec())));
        assert_eq!(query.bytes("nothing"), Some(None));
        assert_eq!((query.bytes("bad"), query.bytes("cut")), (None, None));
    }
}
