//! What test programs of several crates share: tests that need something of the host and must not
//! look passed without it, and what this process holds on to.

#![forbid(unsafe_code)]
// A test that cannot look has failed.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Bit of a task's flags while it ends: `PF_EXITING` of the kernel.
const PF_EXITING: u64 = 0x4;
/// Which field of `/proc/PID/stat` has the flags, counted from the one behind the name (proc(5)).
const FLAGS: usize = 6;

/// A test and its name, as [`tests!`] lists them.
pub type Test = (&'static str, fn());

/// How a test ends that [`skip`] has ended.
struct Skipped(String);

/// Ends the test that calls it, for the host lacks something: [`run`] reports it as ignored, with the
/// reason. With `MICROVM_TEST_REQUIRE_ALL=1` that is a failure.
pub fn skip(reason: impl Into<String>) -> ! {
    resume_unwind(Box::new(Skipped(reason.into())))
}

/// Lists tests by their functions' names: `tests! { module: function, other; … }`.
#[macro_export]
macro_rules! tests {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        vec![$($((
            concat!(stringify!($module), "::", stringify!($name)),
            $module::$name as fn(),
        )),*),*]
    };
}

/// Runs the tests, one after the other, as they count what the process holds.
///
/// Where the host lacks what they need, each is reported as ignored and the reason is printed:
/// never as passed. With `MICROVM_TEST_REQUIRE_ALL=1` that is a failure. What only some of them need
/// these say themselves ([`skip`]).
#[must_use]
pub fn run(tests: Vec<Test>, missing: Option<String>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Some(reason) = &missing {
        eprintln!("not run: {reason}");
        if all_required() {
            return ExitCode::FAILURE;
        }
    }
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::ignorable_test(name, move || outcome(test)).with_ignored_flag(missing.is_some())
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn all_required() -> bool {
    std::env::var_os("MICROVM_TEST_REQUIRE_ALL").is_some_and(|all| all == "1")
}

/// Runs a test. One that fails goes on unwinding, for the harness to see.
fn outcome(test: fn()) -> Result<Completion, Failed> {
    match catch_unwind(test) {
        Ok(()) => Ok(Completion::Completed),
        Err(payload) => match payload.downcast::<Skipped>() {
            Ok(skipped) if all_required() => Err(format!("not run: {}", skipped.0).into()),
            Ok(skipped) => Ok(Completion::ignored_with(skipped.0)),
            Err(failure) => resume_unwind(failure),
        },
    }
}

/// Threads by their numbers, with their names for people: two sets of the same threads are equal,
/// as a thread gives itself its name only when it runs.
#[derive(Debug, Eq)]
pub struct Threads(BTreeMap<String, String>);

impl Threads {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Without those of a harness that runs tests side by side, which begin and end as it likes: they
    /// are called as their tests are, and as the process until they say so.
    #[must_use]
    pub fn but_tests(mut self) -> Self {
        let process = fs::read_to_string("/proc/self/comm").unwrap();
        self.0
            .retain(|_, name| !name.contains("::") && name != process.trim_end());
        self
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }
}

impl PartialEq for Threads {
    fn eq(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
    }
}

/// The threads of this process. One that ends counts as gone: who joins it goes on a moment before
/// the kernel takes it off the list, and nothing tells when that is.
#[must_use]
pub fn threads() -> Threads {
    threads_in("/proc/self/task")
}

/// The same of another process.
#[must_use]
pub fn threads_of(process: u32) -> Threads {
    threads_in(&format!("/proc/{process}/task"))
}

fn threads_in(folder: &str) -> Threads {
    let alive = fs::read_dir(folder)
        .unwrap()
        .filter_map(|task| {
            let task = task.ok()?;
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let name = name_unless_ending(&stat)?;
            let id = task.file_name().to_string_lossy().into_owned();
            Some((id, name.to_owned()))
        })
        .collect();
    Threads(alive)
}

/// Descriptors, mappings and threads of this process.
#[must_use]
pub fn counts() -> [usize; 3] {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    [descriptors, maps.lines().count(), threads().count()]
}

/// Waits for counts that are at most so much higher than `before`: what the kernel does after a
/// close or a join is told by nothing.
///
/// # Panics
///
/// Where they stay higher for longer than `patience`.
pub fn assert_no_more(before: [usize; 3], most: [usize; 3], patience: Duration) {
    let start = Instant::now();
    loop {
        let after = counts();
        let good = (after.iter().zip(before).zip(most))
            .all(|((after, before), most)| *after <= before + most);
        if good {
            return;
        }
        assert!(start.elapsed() < patience, "{before:?} {after:?}");
        std::thread::yield_now();
    }
}

fn name_unless_ending(stat: &str) -> Option<&str> {
    let (_, named) = stat.split_once('(')?;
    let (name, fields) = named.rsplit_once(')')?;
    let flags: u64 = fields.split_whitespace().nth(FLAGS)?.parse().ok()?;
    (flags & PF_EXITING == 0).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_until_it_ends() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let count = || threads().names().filter(|name| *name == "counted").count();
        let thread = std::thread::Builder::new()
            .name("counted".into())
            .spawn(move || released.recv())
            .unwrap();
        // It has its name when it runs.
        while count() == 0 {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        thread.join().unwrap().unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_test_that_skips_is_ignored_with_its_reason_and_one_that_fails_still_fails() {
        let skipped = outcome(|| skip("no such device"));
        let is_right = match skipped {
            Ok(Completion::Ignored { reason }) => {
                !all_required() && reason.as_deref() == Some("no such device")
            }
            Ok(Completion::Completed) => false,
            Err(_) => all_required(),
        };
        assert!(is_right);
        assert!(matches!(outcome(|| ()), Ok(Completion::Completed)));
        assert!(catch_unwind(|| outcome(|| resume_unwind(Box::new("wrong")))).is_err());
    }

    #[test]
    fn names_may_have_any_characters() {
        let with_flags = |flags: u64| format!("7 (a) (b c) S 1 7 7 0 -1 {flags} 0 0");
        assert_eq!(name_unless_ending(&with_flags(0x40_0040)), Some("a) (b c"));
        assert_eq!(name_unless_ending(&with_flags(0x40_0044)), None);
        assert_eq!(name_unless_ending("7 (short) S"), None);
    }
}
