//! Writes the headers of an entry: a plain one, and an extended one ahead of it for what does not fit there.

use crate::decoder::{Entry, Kind};
use crate::header::{Header, SHORT_NAME, padding};
use crate::numbers::format_time;
use crate::pax::write_record;
use crate::sparse::write_map;

const OCTAL_ID: u64 = 0o7_777_777;
const OCTAL_SIZE: u64 = 0o77_777_777_777;

/// Appends all that comes ahead of a file's data, the list of its parts included.
pub(crate) fn write_entry(to: &mut Vec<u8>, entry: &Entry) {
    let mut records = Vec::new();
    let mut map = Vec::new();
    let mut name = entry.name.clone();
    let mut size = entry.size;
    if let Some(segments) = &entry.segments {
        map = write_map(segments, entry.size);
        size = segments.iter().fold(map.len() as u64, |sum, segment| {
            sum.saturating_add(segment.length)
        });
        let mut record = |key, value: &[u8]| write_record(&mut records, key, value);
        record("GNU.sparse.major", b"1");
        record("GNU.sparse.minor", b"0");
        record("GNU.sparse.name", &entry.name);
        record("GNU.sparse.realsize", entry.size.to_string().as_bytes());
        // Where the form is not known it must not look like the file itself.
        name = [b"GNUSparseFile.0/", entry.name.as_slice()].concat();
    }
    let mut record = |key, value: &[u8]| write_record(&mut records, key, value);
    if name.len() > SHORT_NAME {
        record("path", &name);
    }
    if entry.link.len() > SHORT_NAME {
        record("linkpath", &entry.link);
    }
    if size > OCTAL_SIZE {
        record("size", size.to_string().as_bytes());
    }
    let (uid, gid) = (u64::from(entry.uid), u64::from(entry.gid));
    if uid > OCTAL_ID {
        record("uid", uid.to_string().as_bytes());
    }
    if gid > OCTAL_ID {
        record("gid", gid.to_string().as_bytes());
    }
    let time = entry.modified;
    if time.nanoseconds != 0 || time.seconds < 0 || time.seconds.unsigned_abs() > OCTAL_SIZE {
        record("mtime", format_time(time).as_bytes());
    }
    if !records.is_empty() {
        let header = Header {
            name: b"././@PaxHeader".to_vec(),
            kind: b'x',
            mode: 0o644,
            size: records.len() as u64,
            ..Header::default()
        };
        to.extend_from_slice(&header.encode());
        to.extend_from_slice(&records);
        to.resize(to.len() + padding(records.len() as u64), 0);
    }
    let header = Header {
        name,
        kind: match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::SymbolicLink => b'2',
            Kind::CharacterDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Folder => b'5',
            Kind::Fifo => b'6',
        },
        mode: entry.mode,
        uid,
        gid,
        size,
        seconds: time.seconds,
        link: entry.link.clone(),
        major: entry.device.0,
        minor: entry.device.1,
    };
    to.extend_from_slice(&header.encode());
    to.extend_from_slice(&map);
}
