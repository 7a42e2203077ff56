//! System calls as lines of text, in the manner of strace.

use std::fmt::Write;

use crate::calls::int;
use crate::memory::ProgramMemory;
use crate::names::{error_name, system_call_name};
use crate::outcome::Limit;
use crate::process::Ending;

/// Most bytes of a buffer that are shown.
const SHOWN: usize = 32;
/// Most bytes of a path that are shown.
const SHOWN_PATH: usize = 256;

/// How the arguments of a call are written, a letter for each: `d` a number, `u` one without a
/// sign, `x` an address or bits, `s` a path, `b` bytes that the next argument counts, `B` bytes that
/// the result counts, `f` a folder's descriptor, `o` flags of `open`, `m` permissions, `p` protection,
/// `M` flags of `mmap`, `S` a signal.
const FORMATS: [(u64, &str); 79] = [
    (0, "dBu"),
    (1, "dbu"),
    (2, "som"),
    (3, "d"),
    (4, "sx"),
    (5, "dx"),
    (6, "sx"),
    (7, "xud"),
    (8, "ddu"),
    (9, "xupMdx"),
    (10, "xup"),
    (11, "xu"),
    (12, "x"),
    (13, "Sxxu"),
    (14, "uxxu"),
    (15, ""),
    (16, "dxx"),
    (17, "dBuu"),
    (18, "dbuu"),
    (19, "dxu"),
    (20, "dxu"),
    (21, "su"),
    (22, "x"),
    (23, "dxxxx"),
    (24, ""),
    (25, "xuuxx"),
    (28, "xuu"),
    (32, "d"),
    (33, "dd"),
    (35, "xx"),
    (39, ""),
    (56, "xxxxx"),
    (57, ""),
    (58, ""),
    (59, "sxx"),
    (60, "d"),
    (62, "dS"),
    (63, "x"),
    (72, "dux"),
    (76, "su"),
    (77, "du"),
    (79, "xu"),
    (80, "s"),
    (82, "ss"),
    (83, "sm"),
    (84, "s"),
    (87, "s"),
    (88, "ss"),
    (89, "sBu"),
    (90, "sm"),
    (95, "m"),
    (96, "xx"),
    (102, ""),
    (104, ""),
    (107, ""),
    (108, ""),
    (131, "xx"),
    (158, "xx"),
    (186, ""),
    (200, "dS"),
    (201, "x"),
    (202, "xuuxxu"),
    (217, "dxu"),
    (218, "x"),
    (228, "ux"),
    (230, "uuxx"),
    (231, "d"),
    (234, "ddS"),
    (257, "fsom"),
    (258, "fsm"),
    (262, "fsxx"),
    (263, "fsx"),
    (264, "fsfs"),
    (267, "fsBu"),
    (269, "fsu"),
    (293, "xo"),
    (302, "duxx"),
    (318, "xux"),
    (332, "fsxxx"),
];

const OPEN_FLAGS: [(u64, &str); 12] = [
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (0o40000, "O_DIRECT"),
    (0o100_000, "O_LARGEFILE"),
    (0o200_000, "O_DIRECTORY"),
    (0o400_000, "O_NOFOLLOW"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
];
const PROTECTION: [(u64, &str); 3] = [(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];
const MAP_FLAGS: [(u64, &str); 8] = [
    (0x1, "MAP_SHARED"),
    (0x2, "MAP_PRIVATE"),
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x2_0000, "MAP_STACK"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];
const SIGNALS: [&str; 32] = [
    "0",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal, as in `signal(7)`; `None` for real-time ones and what is none.
#[must_use]
pub fn signal_name(signal: i32) -> Option<&'static str> {
    let index = usize::try_from(signal).ok().filter(|index| *index > 0)?;
    SIGNALS.get(index).copied()
}

/// A call and what it returned.
pub fn line(
    memory: &mut ProgramMemory,
    number: u64,
    args: [u64; 6],
    result: Option<i64>,
) -> String {
    let mut line = match system_call_name(number) {
        Some(name) => format!("{name}("),
        None => format!("syscall_{number:#x}("),
    };
    let format = FORMATS.iter().find(|(other, _)| *other == number);
    let format = format.map_or("xxxxxx", |(_, format)| format);
    for (index, (letter, value)) in format.chars().zip(args).enumerate() {
        if index > 0 {
            line.push_str(", ");
        }
        let counted = match letter {
            'B' => result.and_then(|result| u64::try_from(result).ok()),
            _ => args.get(index + 1).copied(),
        };
        argument(&mut line, memory, letter, value, counted);
    }
    line.push_str(") = ");
    match result {
        None => line.push('?'),
        Some(result) => match i32::try_from(result.wrapping_neg()) {
            Ok(errno @ 1..4096) => {
                let name = error_name(errno).unwrap_or("E?");
                let _ = write!(line, "-1 {name}");
            }
            // Calls that return addresses.
            _ if matches!(number, 9 | 12 | 25) => {
                let _ = write!(line, "{result:#x}");
            }
            _ => {
                let _ = write!(line, "{result}");
            }
        },
    }
    line
}

// Writing to a string never fails.
fn argument(
    line: &mut String,
    memory: &mut ProgramMemory,
    letter: char,
    value: u64,
    counted: Option<u64>,
) {
    let low = int(value);
    match letter {
        'd' => {
            let _ = write!(line, "{}", low.cast_signed());
        }
        'u' => {
            let _ = write!(line, "{value}");
        }
        'f' if low.cast_signed() == -100 => line.push_str("AT_FDCWD"),
        'f' => {
            let _ = write!(line, "{}", low.cast_signed());
        }
        'm' => {
            let _ = write!(line, "{low:#o}");
        }
        's' => {
            let mut path = Vec::new();
            if memory.read_string(value, &mut path).is_ok() {
                quote(
                    line,
                    path.get(..SHOWN_PATH.min(path.len())).unwrap_or_default(),
                );
                line.push_str(if path.len() > SHOWN_PATH { "..." } else { "" });
            } else {
                pointer(line, value);
            }
        }
        'b' | 'B' => {
            let length = usize::try_from(counted.unwrap_or(0)).unwrap_or(usize::MAX);
            let mut bytes = [0; SHOWN];
            let shown = bytes.get_mut(..length.min(SHOWN)).unwrap_or_default();
            if counted.is_some() && memory.read(value, shown).is_ok() {
                quote(line, shown);
                line.push_str(if length > SHOWN { "..." } else { "" });
            } else {
                pointer(line, value);
            }
        }
        'o' => {
            let mode = match low & 3 {
                0 => "O_RDONLY",
                1 => "O_WRONLY",
                2 => "O_RDWR",
                _ => "O_ACCMODE",
            };
            flags(line, u64::from(low & !3), &OPEN_FLAGS, Some(mode));
        }
        'p' if value == 0 => line.push_str("PROT_NONE"),
        'p' => flags(line, value, &PROTECTION, None),
        'M' => flags(line, value, &MAP_FLAGS, None),
        'S' => match signal_name(low.cast_signed()) {
            Some(name) => line.push_str(name),
            None => {
                let _ = write!(line, "{low}");
            }
        },
        _ => pointer(line, value),
    }
}

fn pointer(line: &mut String, value: u64) {
    if value == 0 {
        line.push_str("NULL");
    } else {
        let _ = write!(line, "{value:#x}");
    }
}

fn flags(line: &mut String, value: u64, names: &[(u64, &str)], first: Option<&str>) {
    let mut rest = value;
    let mut separator = "";
    if let Some(first) = first {
        line.push_str(first);
        separator = "|";
    }
    for (bits, name) in names {
        if rest & bits == *bits {
            rest &= !bits;
            line.push_str(separator);
            line.push_str(name);
            separator = "|";
        }
    }
    if rest != 0 || separator.is_empty() {
        let _ = write!(line, "{separator}{rest:#x}");
    }
}

/// Bytes as a string of C, all of it printable.
fn quote(line: &mut String, bytes: &[u8]) {
    line.push('"');
    for byte in bytes {
        match byte {
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            b' '..=b'~' => line.push(char::from(*byte)),
            _ => {
                let _ = write!(line, "\\{byte:03o}");
            }
        }
    }
    line.push('"');
}

/// How a program ended, unless it was by its own call.
pub fn ending(ending: &Ending) -> Option<String> {
    Some(match ending {
        Ending::Exited(_) | Ending::Failed(_) => return None,
        Ending::Signaled(signal) => match signal_name(*signal) {
            Some(name) => format!("+++ killed by {name} +++"),
            None => format!("+++ killed by signal {signal} +++"),
        },
        Ending::Interrupted => "+++ interrupted +++".to_owned(),
        Ending::Limit(limit) => {
            let limit = match limit {
                Limit::Memory => "memory",
                Limit::CpuTime => "processor time",
                Limit::WallTime => "time",
                Limit::Output => "output",
            };
            format!("+++ killed: limit of {limit} +++")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_so_that_a_line_stays_one() {
        let mut line = String::new();
        quote(&mut line, b"a\"\\\n\x1b\xff~");
        assert_eq!(line, r#""a\"\\\n\033\377~""#);
    }

    #[test]
    fn flags_have_their_names() {
        let mut line = String::new();
        flags(
            &mut line,
            0o2_000_100 | 1 << 40,
            &OPEN_FLAGS,
            Some("O_WRONLY"),
        );
        flags(&mut line, 0, &MAP_FLAGS, None);
        assert_eq!(line, "O_WRONLY|O_CREAT|O_CLOEXEC|0x100000000000x0");
    }

    #[test]
    fn formats_are_in_order_and_of_calls_that_exist() {
        assert!(FORMATS.is_sorted_by(|(one, _), (other, _)| one < other));
        assert!(
            FORMATS
                .iter()
                .all(|(number, _)| system_call_name(*number).is_some())
        );
    }
}
