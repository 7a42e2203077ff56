//! Names of x86-64's system calls and of their errors, as Linux 6.10 has them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Lines of a number and a name, in the order of numbers.
static CALLS: &str = include_str!("system_calls.txt");
static ERRORS: &str = include_str!("errors.txt");

/// One past the largest number with a name.
pub(crate) const CALL_NUMBERS: u64 = 512;

static CALL_NAMES: LazyLock<Vec<Option<&'static str>>> = LazyLock::new(|| by_number(CALLS));
static ERROR_NAMES: LazyLock<Vec<Option<&'static str>>> = LazyLock::new(|| by_number(ERRORS));
static NUMBERS: LazyLock<BTreeMap<&'static str, u64>> = LazyLock::new(|| {
    entries(CALLS)
        .map(|(number, name)| (name, number))
        .collect()
});

fn entries(table: &'static str) -> impl Iterator<Item = (u64, &'static str)> {
    table.lines().filter_map(|line| {
        let (number, name) = line.split_once(' ')?;
        Some((number.parse().ok()?, name))
    })
}

fn by_number(table: &'static str) -> Vec<Option<&'static str>> {
    let mut names = Vec::new();
    for (number, name) in entries(table) {
        let index = usize::try_from(number).unwrap_or(0);
        if names.len() <= index {
            names.resize(index + 1, None);
        }
        if let Some(place) = names.get_mut(index) {
            *place = Some(name);
        }
    }
    names
}

fn find(names: &[Option<&'static str>], number: u64) -> Option<&'static str> {
    *names.get(usize::try_from(number).ok()?)?
}

/// The name of a system call of x86-64, as in `syscall(2)`.
#[must_use]
pub fn system_call_name(number: u64) -> Option<&'static str> {
    find(&CALL_NAMES, number)
}

/// The number of the system call of this name.
#[must_use]
pub fn system_call_number(name: &str) -> Option<u64> {
    NUMBERS.get(name).copied()
}

/// All system calls: numbers and names, in the order of numbers.
pub fn system_calls() -> impl Iterator<Item = (u64, &'static str)> {
    entries(CALLS)
}

/// The name of an error, as in `errno(3)`: `ENOENT` for 2.
#[must_use]
pub fn error_name(errno: i32) -> Option<&'static str> {
    find(&ERROR_NAMES, u64::try_from(errno).ok()?)
}

/// The number of the error of this name.
#[must_use]
pub fn error_number(name: &str) -> Option<i32> {
    let (number, _) = entries(ERRORS).find(|(_, other)| *other == name)?;
    i32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (number, name) in system_calls() {
            assert_eq!(system_call_name(number), Some(name));
            assert_eq!(system_call_number(name), Some(number));
            assert!(number < CALL_NUMBERS);
        }
        assert_eq!(system_call_name(0), Some("read"));
        assert_eq!(system_call_name(231), Some("exit_group"));
        assert_eq!(system_call_name(400), None);
        assert_eq!(system_call_name(u64::MAX), None);
        assert_eq!(system_call_number("openat2"), Some(437));
    }

    #[test]
    fn errors_have_their_names() {
        assert_eq!(error_name(2), Some("ENOENT"));
        assert_eq!(error_number("ENOSYS"), Some(38));
        assert_eq!(error_name(-1), None);
        assert_eq!(error_number("ENONSENSE"), None);
    }
}
