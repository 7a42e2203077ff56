//! Who may have a say in system calls, and who may watch them.

use std::time::Instant;

use crate::names::{CALL_NUMBERS, system_call_name, system_call_number};

/// A set of system call numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSet {
    words: [u64; (CALL_NUMBERS / 64) as usize],
    /// Numbers that no call has.
    unknown: bool,
}

impl CallSet {
    /// No call.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every call, those without a name too.
    #[must_use]
    pub fn all() -> Self {
        Self {
            words: [u64::MAX; (CALL_NUMBERS / 64) as usize],
            unknown: true,
        }
    }

    /// The calls of these names; the first name that no call has, as an error.
    ///
    /// # Errors
    ///
    /// That name.
    pub fn of_names<'name>(names: impl IntoIterator<Item = &'name str>) -> Result<Self, String> {
        let mut set = Self::none();
        for name in names {
            set.insert(system_call_number(name).ok_or_else(|| name.to_owned())?);
        }
        Ok(set)
    }

    /// Adds a call. All numbers from 512 on are added together.
    pub fn insert(&mut self, number: u64) {
        match self.word(number) {
            Some(index) => {
                if let Some(word) = self.words.get_mut(index) {
                    *word |= 1 << (number % 64);
                }
            }
            None => self.unknown = true,
        }
    }

    /// Whether a call is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        match self.word(number) {
            Some(index) => self
                .words
                .get(index)
                .is_some_and(|word| word >> (number % 64) & 1 == 1),
            None => self.unknown,
        }
    }

    fn word(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number / 64).ok()?;
        (index < self.words.len()).then_some(index)
    }
}

/// A system call that a program makes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SystemCall<'call> {
    /// Its number.
    pub number: u64,
    /// Its six arguments, as the program passed them.
    pub args: [u64; 6],
    /// The bytes of the path that it names, where it names one that can be read. Of two, the first:
    /// what is renamed or linked, or what a symbolic link is to lead to.
    pub path: Option<&'call [u8]>,
    /// The other path of a call that has two: the name that is made.
    pub second_path: Option<&'call [u8]>,
    /// When the run is over by its wall time. What a policy decides later decides nothing: the
    /// program does not go on.
    pub until: Option<Instant>,
}

impl SystemCall<'_> {
    /// Its name; `None` for a number that Linux does not know.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        system_call_name(self.number)
    }
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is answered as if nobody had asked.
    Allow,
    /// It fails with this error, a number from 1 to 4095 (others count as `EPERM`).
    Deny(i32),
    /// It does nothing and returns this.
    Answer(i64),
}

/// Decides about system calls before they are answered.
pub trait Policy: Send {
    /// The calls that it is asked about; asked for once, when the program starts. All others never
    /// reach it, and cost nothing.
    fn wanted(&self) -> CallSet;

    /// Decides about one.
    ///
    /// The call's memory is still the program's: a path in it is read again when the call is
    /// answered, by the one thread that there is, so that it is the same.
    fn decide(&mut self, call: &SystemCall<'_>) -> Decision;
}

/// A system call that was answered.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Observed<'call> {
    /// The call.
    pub call: SystemCall<'call>,
    /// What it returned, an error as its negative number; `None` where it does not return.
    pub result: Option<i64>,
    /// All of it as one line of text, without an end of line, in the manner of strace:
    /// `openat(AT_FDCWD, "/f", O_RDONLY) = 3`. Signals that end the program are lines too, with
    /// the number of no call (`u64::MAX`).
    pub line: &'call str,
}

/// Watches system calls after they were answered.
pub trait Observer: Send {
    /// Is told of one.
    fn observe(&mut self, call: &Observed<'_>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_has_what_was_put_in() {
        let mut set = CallSet::of_names(["read", "openat"]).unwrap();
        assert!(set.contains(0) && set.contains(257));
        assert!(!set.contains(1) && !set.contains(u64::MAX));
        set.insert(u64::MAX);
        assert!(set.contains(1 << 40));
        assert_eq!(CallSet::of_names(["read", "nope"]), Err("nope".to_owned()));
        assert!(CallSet::all().contains(511) && CallSet::all().contains(512));
    }
}
