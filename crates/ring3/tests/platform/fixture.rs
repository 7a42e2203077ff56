//! A program of a few bytes in an address space of its own.

use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use microvm_ring3::{
    AddressSpace, Context, Error, Exit, Fault, KvmOptions, KvmPlatform, Memory, Platform as _,
    Protection, Registers, SwitchOptions, open_device,
};

/// Where the program's code is.
pub const CODE: u64 = 0x40_0000;
/// Where its page of data is.
pub const DATA: u64 = 0x60_0000;
/// Where nothing is mapped.
pub const NOWHERE: u64 = 0x1234_5000;
pub const PAGE: u64 = 4096;

/// `syscall`
pub const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `1: jmp 1b`
pub const ENDLESS: [u8; 2] = [0xeb, 0xfe];
/// `1: lock inc qword ptr [rdi]; jmp 1b`
pub const COUNT: [u8; 6] = [0xf0, 0x48, 0xff, 0x07, 0xeb, 0xfa];
/// `mov rax, [rdi]; syscall`
pub const READ: [u8; 5] = [0x48, 0x8b, 0x07, 0x0f, 0x05];
/// `mov [rdi], rax; syscall`
pub const WRITE: [u8; 5] = [0x48, 0x89, 0x07, 0x0f, 0x05];

/// Far more than any of it takes, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A machine with this many vCPUs.
pub fn platform_with(vcpus: u64) -> Arc<KvmPlatform> {
    let options = KvmOptions { vcpus: Some(vcpus) };
    Arc::new(KvmPlatform::new(open_device(None).unwrap(), options).unwrap())
}

/// One address space with a page of code (executable) and one of data, and a context.
pub struct Program {
    pub platform: Arc<KvmPlatform>,
    pub space: Arc<AddressSpace>,
    pub context: Context,
    /// Four pages: code, data, and two more.
    pub memory: Arc<Memory>,
    pub registers: Registers,
}

/// A program on a machine that many tests share, for it takes some time to make one.
pub fn program(code: &[u8]) -> Program {
    static SHARED: LazyLock<Arc<KvmPlatform>> = LazyLock::new(|| platform_with(2));
    program_on(&SHARED, code)
}

pub fn program_on(platform: &Arc<KvmPlatform>, code: &[u8]) -> Program {
    let memory = platform.new_memory(4 * PAGE).unwrap();
    memory.write(0, code).unwrap();
    let space = platform.address_space().unwrap();
    space
        .map(CODE, &memory, 0, PAGE, Protection::READ_EXECUTE, false)
        .unwrap();
    space
        .map(DATA, &memory, PAGE, PAGE, Protection::READ_WRITE, false)
        .unwrap();
    Program {
        context: platform.new_context(),
        platform: Arc::clone(platform),
        space: Arc::new(space),
        memory,
        registers: Registers {
            rip: CODE,
            rsp: DATA + PAGE,
            rdi: DATA,
            ..Registers::default()
        },
    }
}

impl Program {
    pub fn switch_with(&mut self, options: SwitchOptions) -> Result<Exit, Error> {
        self.context
            .switch(&self.space, &mut self.registers, options)
    }

    /// Runs until the program wants something.
    pub fn switch(&mut self) -> Exit {
        let options = SwitchOptions {
            timeout: Some(PATIENCE),
            ..SwitchOptions::default()
        };
        self.switch_with(options).unwrap()
    }

    /// Runs from the start of the code to a system call.
    pub fn call(&mut self) {
        self.registers.rip = CODE;
        self.resume_to_call();
    }

    /// Runs to a system call.
    pub fn resume_to_call(&mut self) {
        let exit = self.switch();
        assert_eq!(exit, Exit::SystemCall, "{:x?}", self.registers);
    }

    /// Runs from the start of the code to an exception.
    pub fn fault(&mut self) -> Fault {
        self.registers.rip = CODE;
        match self.switch() {
            Exit::Fault(fault) => fault,
            exit => panic!("{exit:?} {:x?}", self.registers),
        }
    }

    pub fn write_code(&self, code: &[u8]) {
        self.memory.write(0, code).unwrap();
    }

    /// What the program reads at an address. The code is [`READ`].
    pub fn read(&mut self, address: u64) -> u64 {
        self.registers.rdi = address;
        self.call();
        self.registers.rax
    }
}

/// A word of memory.
pub fn word(memory: &Memory, offset: u64) -> u64 {
    let mut word = [0; 8];
    memory.read(offset, &mut word).unwrap();
    u64::from_le_bytes(word)
}

/// Waits until a program that runs on another thread has counted so far in a word of its memory.
/// Only looking tells it: an event would make the program leave the guest.
pub fn wait_for_count(memory: &Memory, offset: u64, least: u64) {
    let start = Instant::now();
    while word(memory, offset) < least {
        assert!(start.elapsed() < PATIENCE);
        thread::yield_now();
    }
}
