//! What is worth knowing about a vCPU with which KVM or the CPU cannot go on.

use std::fmt::Write;

use microvm_kvm::VirtualCpu;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;

/// Code bytes that are shown: as many as the longest instruction has.
const CODE: usize = 15;

/// One line: `what`, RIP, code bytes and registers.
///
/// `code` are the bytes at RIP where KVM told them; otherwise they are read from guest memory.
pub(super) fn describe(
    what: &str,
    vcpu: &VirtualCpu,
    memory: &GuestMemory,
    code: Option<Vec<u8>>,
) -> String {
    let mut text = format!("{what} on vCPU {}", vcpu.id());
    let (Ok(regs), Ok(sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) else {
        text.push_str("; registers cannot be read");
        return text;
    };
    let code = code.or_else(|| read_code(vcpu, memory, regs.rip.wrapping_add(sregs.cs.base)));
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "; rip={:#x} code=[{}]",
        regs.rip,
        hex(code.as_deref())
    );
    for (name, value) in [
        ("rflags", regs.rflags),
        ("rsp", regs.rsp),
        ("rbp", regs.rbp),
        ("rax", regs.rax),
        ("rbx", regs.rbx),
        ("rcx", regs.rcx),
        ("rdx", regs.rdx),
        ("rsi", regs.rsi),
        ("rdi", regs.rdi),
        ("r8", regs.r8),
        ("r9", regs.r9),
        ("r10", regs.r10),
        ("r11", regs.r11),
        ("r12", regs.r12),
        ("r13", regs.r13),
        ("r14", regs.r14),
        ("r15", regs.r15),
        ("cr0", sregs.cr0),
        ("cr2", sregs.cr2),
        ("cr3", sregs.cr3),
        ("cr4", sregs.cr4),
        ("efer", sregs.efer),
        ("cs", sregs.cs.selector.into()),
    ] {
        let _ = write!(text, " {name}={value:#x}");
    }
    text
}

fn hex(code: Option<&[u8]>) -> String {
    code.map_or_else(
        || "not mapped".to_owned(),
        |bytes| {
            let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            pairs.join(" ")
        },
    )
}

fn read_code(vcpu: &VirtualCpu, memory: &GuestMemory, linear: u64) -> Option<Vec<u8>> {
    let translation = vcpu.fd().translate_gva(linear).ok()?;
    if translation.valid == 0 {
        return None;
    }
    let mut code = vec![0; CODE];
    let at = GuestAddress(translation.physical_address);
    // Fewer at the end of memory. A page boundary is not followed.
    let count = memory.read(&mut code, at).ok()?;
    code.truncate(count);
    Some(code)
}
