//! What can go wrong while a helper is started.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a helper process was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A string that holds a NUL byte cannot be handed to a program.
    #[error("The {what} holds a NUL byte")]
    NulByte {
        /// Which of the strings it was.
        what: &'static str,
    },
    /// A target number below 0, or one that was given twice.
    #[error("Descriptor number {0} is negative or was given twice")]
    TargetDescriptor(i32),
    /// No pipe, null device or descriptor could be had for the child.
    #[error("Cannot get a {what} for the new process")]
    Resource {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The thread that starts all helpers could not be started itself.
    #[error("Cannot start the thread that starts helper processes")]
    Thread(#[source] io::Error),
    /// The kernel refused a new process.
    #[error("Cannot create a process for {}", program.display())]
    Clone {
        /// The program that was to run in it.
        program: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step between the creation of the process and its program failed.
    #[error("Cannot {step} for {}", program.display())]
    SetUp {
        /// The program that was to run.
        program: PathBuf,
        /// What failed.
        step: SetUpStep,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program could not be executed.
    #[error("Cannot execute {}", program.display())]
    Execute {
        /// The program as it was asked for.
        program: PathBuf,
        /// The kernel's answer: `NotFound`, `PermissionDenied`, ...
        source: io::Error,
    },
}

/// A step of the child's between its creation and its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUpStep {
    /// `prctl(PR_SET_PDEATHSIG)`.
    TieToParent,
    /// `setpgid`.
    ProcessGroup,
    /// `dup2` of a passed descriptor.
    PassDescriptor,
    /// `close_range` of all others.
    CloseDescriptors,
    /// `chdir`.
    CurrentFolder,
    /// `sigprocmask`.
    SignalMask,
}

impl fmt::Display for SetUpStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TieToParent => "tie the new process to its parent",
            Self::ProcessGroup => "make a process group",
            Self::PassDescriptor => "pass a descriptor",
            Self::CloseDescriptors => "close the other descriptors",
            Self::CurrentFolder => "change into the working folder",
            Self::SignalMask => "clear the signal mask",
        })
    }
}
