//! Extended headers: records `LENGTH KEY=VALUE\n`, for what a plain header has no room for.

use crate::Error;
use crate::numbers::{Time, parse_decimal, parse_time};

/// What was told ahead of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extended {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) modified: Option<Time>,
    pub(crate) sparse_major: Option<u64>,
    pub(crate) sparse_minor: Option<u64>,
    pub(crate) sparse_name: Option<Vec<u8>>,
    pub(crate) sparse_size: Option<u64>,
}

const WRONG: Error = Error::Malformed("an extended header is wrong");

impl Extended {
    /// Takes all records in; keys that are not known here say nothing of what is copied.
    pub(crate) fn read(&mut self, text: &[u8]) -> Result<(), Error> {
        let mut rest = text;
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or(WRONG)?;
            let length = usize::try_from(parse_decimal(rest.get(..space).ok_or(WRONG)?)?)
                .map_err(|_| WRONG)?;
            let record = rest.get(space + 1..length).ok_or(WRONG)?;
            let record = record.strip_suffix(b"\n").ok_or(WRONG)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(WRONG)?;
            self.take(
                record.get(..equals).unwrap_or_default(),
                record.get(equals + 1..).unwrap_or_default(),
            )?;
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(parse_decimal(value)?),
            b"uid" => self.uid = Some(parse_decimal(value)?),
            b"gid" => self.gid = Some(parse_decimal(value)?),
            b"mtime" => self.modified = Some(parse_time(value)?),
            b"GNU.sparse.major" => self.sparse_major = Some(parse_decimal(value)?),
            b"GNU.sparse.minor" => self.sparse_minor = Some(parse_decimal(value)?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => self.sparse_size = Some(parse_decimal(value)?),
            // Older forms, whose content would come out wrong.
            b"GNU.sparse.map" | b"GNU.sparse.offset" | b"GNU.sparse.size" => {
                return Err(Error::Malformed("a sparse file in a form other than 1.0"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Adds a record.
pub(crate) fn write_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    // Space, equals sign, newline.
    let content = key.len() + value.len() + 3;
    let mut length = content + 1;
    // Its own digits count.
    while content + digits(length) != length {
        length = content + digits(length);
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        let mut records = Vec::new();
        write_record(&mut records, "path", &[b'x'; 90]);
        assert!(records.starts_with(b"99 path="), "{records:?}");
        assert_eq!(records.len(), 99);
        records.clear();
        write_record(&mut records, "path", &[b'x'; 91]);
        assert!(records.starts_with(b"101 path="), "{records:?}");
        assert_eq!(records.len(), 101);
    }

    #[test]
    fn what_is_no_record_is_malformed() {
        for text in [
            "x",
            "5 a=b",
            "8 a=b\n",
            "0 a=b\n",
            "6 a=bx",
            "99 path=b\n",
            "12 size=-1x\n",
            "3 \n",
        ] {
            let mut extended = Extended::default();
            assert!(extended.read(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn records_of_any_bytes_come_back(name in any::<Vec<u8>>(), size in 0..u64::MAX / 2) {
            let mut records = Vec::new();
            write_record(&mut records, "path", &name);
            write_record(&mut records, "comment", &name);
            write_record(&mut records, "size", size.to_string().as_bytes());
            let mut extended = Extended::default();
            extended.read(&records).unwrap();
            prop_assert_eq!(extended, Extended { name: Some(name), size: Some(size), ..Extended::default() });
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let _ = Extended::default().read(&bytes);
        }
    }
}
