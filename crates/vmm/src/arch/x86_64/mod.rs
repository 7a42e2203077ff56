//! x86-64: the guest's address map and the state in which its CPUs start.

pub mod layout;
