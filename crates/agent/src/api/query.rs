//! Parameters of a request: `name=value` pairs, percent-encoded.

use super::answer::Refusal;

/// The parameters of one request.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Takes the part of an address after its `?` apart.
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                match (decode(name).map(String::from_utf8), decode(value)) {
                    (Some(Ok(name)), Some(value)) => Ok((name, value)),
                    _ => Err(Refusal::bad_request(format!(
                        "{pair} is not percent-encoded"
                    ))),
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The bytes of a parameter.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.0.iter().find(|(own, _)| own == name)?;
        Some(value)
    }

    /// A parameter that has to be there.
    pub(crate) fn needed(&self, name: &str) -> Result<&[u8], Refusal> {
        self.bytes(name)
            .ok_or_else(|| Refusal::bad_request(format!("{name} is missing")))
    }

    /// A parameter as text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.bytes(name)
            .and_then(|value| str::from_utf8(value).ok())
    }

    /// A whole number, `None` where it is left out.
    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Refusal> {
        if self.bytes(name).is_none() {
            return Ok(None);
        }
        match self.text(name).map(str::parse) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => Err(Refusal::bad_request(format!("{name} is not such a number"))),
        }
    }

    /// A whole number that has to be there.
    pub(crate) fn needed_number<N: std::str::FromStr>(&self, name: &str) -> Result<N, Refusal> {
        self.number(name)?
            .ok_or_else(|| Refusal::bad_request(format!("{name} is missing")))
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_first_chunk::<2>()?;
            let digits = str::from_utf8(digits).ok().filter(|digits| {
                // `from_str_radix` alone would take a sign.
                digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            })?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_any_bytes() {
        let query = Query::parse("path=%2Ftmp%2Fa%26b%3D%ff&signal=15&empty=").unwrap();
        assert_eq!(query.bytes("path"), Some(&b"/tmp/a&b=\xff"[..]));
        assert_eq!(query.text("path"), None);
        assert_eq!(query.number("signal").unwrap(), Some(15));
        assert_eq!(query.bytes("empty"), Some(&b""[..]));
        assert_eq!(query.bytes("absent"), None);
        assert!(query.needed("absent").is_err());
        assert!(query.number::<u8>("path").is_err());
    }

    #[test]
    fn what_is_not_encoded_is_refused() {
        for query in ["a=%", "a=%4", "a=%+1", "a=%zz", "%ff=1"] {
            assert!(Query::parse(query).is_err(), "{query}");
        }
        assert!(Query::parse("").is_ok());
    }
}
