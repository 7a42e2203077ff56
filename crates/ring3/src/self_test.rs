//! Finds out how this host behaves, by doing what programs will do.
//!
//! Neither the name of a kernel module nor a flag of the processor tells it. A host whose results
//! are wrong is refused.

use std::time::Duration;

use microvm_kvm::{Kvm, PAGE_SIZE};

use crate::address_space::AddressSpace;
use crate::context::{Context, SwitchOptions};
use crate::error::Error;
use crate::global::Global;
use crate::interrupts::Interrupts;
use crate::layout::{PAGE_FAULT_VECTOR, STUB_PAGE, SYSCALL_STUB, kernel_address};
use crate::machine::Machine;
use crate::platform::{KvmPlatform, Platform};
use crate::pool::Taken;
use crate::registers::{Exit, Registers, Restore};
use crate::space::Protection;
use crate::traits::{HostTraits, OutCompletion, SyscallEntry};

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x60_0000;
/// Far from the others: its own tables at every level.
const ELSEWHERE: u64 = 0x7000_0000_0000;

/// `mov rax, [rbx]; syscall; 1: jmp 1b`
const READ: [u8; 7] = [0x48, 0x8b, 0x03, 0x0f, 0x05, 0xeb, 0xfe];

/// Far more than any step takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tests the host.
pub fn run(kvm: &Kvm, global: Global) -> Result<HostTraits, Error> {
    let mut traits = HostTraits {
        syscall_entry: SyscallEntry::Ring0,
        out_completion: OutCompletion::AtNextRun,
        sees_page_table_edits: false,
        // True for the machine of the test, which finds out whether it is.
        recycles_page_tables: true,
    };
    if !Test::new(kvm, global, traits)?.system_call_works()? {
        traits.syscall_entry = SyscallEntry::Ring3;
        if !Test::new(kvm, global, traits)?.system_call_works()? {
            return Err(Error::unsupported("a system call leads nowhere"));
        }
    }
    let mut test = Test::new(kvm, global, traits)?;
    if !test.system_call_works()? {
        return Err(Error::unsupported("a system call works only sometimes"));
    }
    traits.out_completion = test.out_completion()?;
    traits.sees_page_table_edits = test.page_tables()?;
    traits.recycles_page_tables = test.recycling()?;
    Ok(traits)
}

/// A machine with one context; the two pages of its memory hold 1 and 2.
struct Test {
    platform: KvmPlatform,
    context: Context,
    space: AddressSpace,
    memory: std::sync::Arc<crate::Memory>,
}

impl Test {
    fn new(kvm: &Kvm, global: Global, traits: HostTraits) -> Result<Self, Error> {
        let platform = KvmPlatform::of(Machine::new(kvm, global, traits, 1)?);
        let memory = platform.new_memory(3 * PAGE_SIZE)?;
        memory.write(0, &[1])?;
        memory.write(PAGE_SIZE, &[2])?;
        memory.write(2 * PAGE_SIZE, &READ)?;
        let space = platform.address_space()?;
        let test = Self {
            context: platform.new_context(),
            platform,
            space,
            memory,
        };
        test.map_code()?;
        Ok(test)
    }

    fn map_code(&self) -> Result<(), Error> {
        let code = 2 * PAGE_SIZE;
        self.space.map(
            CODE,
            &self.memory,
            code,
            PAGE_SIZE,
            Protection::READ_EXECUTE,
            false,
        )
    }

    fn map(&self, address: u64, page: u64) -> Result<(), Error> {
        let offset = page * PAGE_SIZE;
        self.space.map(
            address,
            &self.memory,
            offset,
            PAGE_SIZE,
            Protection::READ,
            false,
        )
    }

    /// Has the program read at `address`.
    fn read(&mut self, address: u64, restore: Restore) -> Result<(Exit, Registers), Error> {
        let mut registers = Registers {
            rip: CODE,
            rbx: address,
            // Something that has to come back.
            r12: 0x1234_5678_9abc_def0,
            ..Registers::default()
        };
        let options = SwitchOptions {
            restore,
            timeout: Some(PATIENCE),
        };
        let exit = self.context.switch(&self.space, &mut registers, options)?;
        Ok((exit, registers))
    }

    /// What the program reads at `address`.
    fn value(&mut self, address: u64) -> Result<u64, Error> {
        for restore in [Restore::Full, Restore::Partial] {
            let (exit, registers) = self.read(address, restore)?;
            let right = exit == Exit::SystemCall
                && registers.rip == CODE + 5
                && registers.rcx == CODE + 5
                && registers.rbx == address
                && registers.r12 == 0x1234_5678_9abc_def0;
            if !right {
                let reason = format!("a program that reads ends with {exit:?}, {registers:x?}");
                return Err(Error::unsupported(reason));
            }
            if restore == Restore::Partial {
                return Ok(registers.rax);
            }
        }
        Ok(0)
    }

    /// Whether a system call arrives; false where SYSCALL stays in ring 3, and the entry point is
    /// closed to that.
    fn system_call_works(&mut self) -> Result<bool, Error> {
        self.map(DATA, 0)?;
        let (exit, registers) = self.read(DATA, Restore::Full)?;
        if exit == Exit::SystemCall {
            return Ok(self.value(DATA)? == 1);
        }
        let entry = kernel_address(STUB_PAGE) + SYSCALL_STUB;
        match exit {
            Exit::Fault(fault) if fault.vector == PAGE_FAULT_VECTOR && registers.rip == entry => {
                Ok(false)
            }
            exit => Err(Error::unsupported(format!(
                "a system call ends with {exit:?} at {:#x}",
                registers.rip
            ))),
        }
    }

    /// Where RIP is when a stub has left the guest.
    fn out_completion(&mut self) -> Result<OutCompletion, Error> {
        let machine = self.platform.machine();
        let Taken::Vcpu(mut vcpu) = machine.take_vcpu(None, &Interrupts::default())? else {
            return Err(Error::unsupported("a vCPU that nobody uses is not there"));
        };
        let offset = vcpu.rip_in_stub();
        machine.pool.put(vcpu);
        match offset {
            0 => Ok(OutCompletion::AtNextRun),
            2 => Ok(OutCompletion::BeforeExit),
            _ => Err(Error::unsupported("a port access ends at no place known")),
        }
    }

    /// Whether bare changes of page tables are seen; an error where the right way is not.
    fn page_tables(&mut self) -> Result<bool, Error> {
        self.space.edit_only(DATA, &self.memory, PAGE_SIZE)?;
        let seen = self.value(DATA)? == 2;
        for page in [1, 0, 1, 0] {
            self.map(DATA, page)?;
            if self.value(DATA)? != page + 1 {
                return Err(Error::unsupported("a changed mapping is not seen"));
            }
        }
        self.space.unmap(DATA, PAGE_SIZE)?;
        match self.read(DATA, Restore::Full)? {
            (Exit::Fault(fault), registers)
                if fault.address == Some(DATA) && registers.rip == CODE =>
            {
                Ok(seen)
            }
            (exit, _) => Err(Error::unsupported(format!(
                "a read of what was unmapped ends with {exit:?}"
            ))),
        }
    }

    /// Whether pages of old tables, used as tables of another level, show what they should.
    fn recycling(&mut self) -> Result<bool, Error> {
        let places = [DATA, ELSEWHERE, DATA + ELSEWHERE];
        for round in 0..6u64 {
            for (place, index) in places.into_iter().zip(0..) {
                self.map(place, (round + index) % 2)?;
                match self.value(place) {
                    Ok(value) if value == (round + index) % 2 + 1 => {}
                    // A stale table leads to wrong memory, or nowhere.
                    Ok(_) | Err(Error::Unsupported { .. } | Error::Stopped { .. }) => {
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.space = self.platform.address_space()?;
            self.platform.machine().tables.zap_now()?;
            self.map_code()?;
        }
        Ok(true)
    }
}
