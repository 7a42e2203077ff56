//! What the self-test found out about a host.

/// Where SYSCALL leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyscallEntry {
    /// To ring 0, as the processor's manual has it.
    Ring0,
    /// To the entry point, but still in ring 3: hosts whose KVM has no ring 0 to offer.
    Ring3,
}

/// When the `out` of a stub counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutCompletion {
    /// Before the exit: RIP is behind the instruction.
    BeforeExit,
    /// At the next run: RIP is still at the instruction.
    AtNextRun,
}

/// What the self-test found out about a host. The platform works the same on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTraits {
    /// Where SYSCALL leads.
    pub syscall_entry: SyscallEntry,
    /// When the `out` of a stub counts as done.
    pub out_completion: OutCompletion,
    /// Whether a store to a live page table is seen without further ado. Where it is not, KVM
    /// shadows page tables.
    pub sees_page_table_edits: bool,
    /// Whether pages of old page tables can be used for new ones.
    pub recycles_page_tables: bool,
}
