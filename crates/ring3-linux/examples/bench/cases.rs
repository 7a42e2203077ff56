//! The figures, one function each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microvm_kvm::{Kvm, MemoryRegion, VirtualCpuRunner, reaper};
use microvm_ring3::{
    Exit, HostTraits, KvmOptions, KvmPlatform, Platform, Protection, Registers, Restore,
    SwitchOptions, open_device,
};
use microvm_ring3_linux::{ExitStatus, Machine, Program, Run, Sandbox, SandboxOptions};

use crate::{Figure, Reference, Time, programs};

pub const BARE_EXIT: &str = "bare exit of a vCPU (KVM_RUN)";
pub const SPAWN: &str = "posix_spawn and wait of busybox true";
const CODE: u64 = 0x40_0000;
const PAGE: u64 = 4096;
/// How old files are that are taken for unchanged.
const SETTLED: Duration = Duration::from_secs(3);
/// Operations that are timed together, where one is too short for the clock.
const BATCH: u32 = 100;
/// A loop of a shell: nothing but computing, for a good part of a second.
const WORK: &str = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";

pub fn host() -> HostTraits {
    platform().host_traits()
}

type Measure<'case> = Box<dyn Fn() -> Time + 'case>;

/// All figures, or the references and those whose names have one of these words.
pub fn all(rounds: usize, words: &[String]) -> Vec<Figure> {
    let folder = std::env::temp_dir().join(format!("microvm-bench-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    // The self-test is over before anything is measured.
    host();
    let (ending, writing) = (programs::ending(&folder), programs::writing(&folder));
    // The lab has this machine's files by a protocol that makes starting programs slow.
    let busybox = folder.join("busybox");
    std::fs::copy(installed_busybox(), &busybox).unwrap();
    // A program that was changed just now is read anew for each run.
    std::thread::sleep(SETTLED);
    let busybox = &busybox;
    let cases: Vec<(&'static str, Reference, Measure<'_>)> = vec![
        (
            BARE_EXIT,
            Reference::None,
            Box::new(move || bare_exit(rounds)),
        ),
        (
            "system call, full restore",
            Reference::Exit,
            Box::new(move || system_call(rounds, Restore::Full)),
        ),
        (
            "system call, partial restore",
            Reference::Exit,
            Box::new(move || system_call(rounds, Restore::Partial)),
        ),
        (
            "page fault, map, retry",
            Reference::Exit,
            Box::new(move || fault(rounds, Known::Kvm)),
        ),
        (
            "the same, of memory that KVM has yet to look up",
            Reference::Exit,
            Box::new(move || fault(rounds, Known::Host)),
        ),
        (
            "the same, of memory that the host has yet to find",
            Reference::Exit,
            Box::new(move || fault(rounds, Known::Nobody)),
        ),
        (
            SPAWN,
            Reference::None,
            Box::new(move || spawn(rounds, busybox)),
        ),
        (
            "reset of 64 written pages, and a call",
            Reference::Spawn,
            Box::new(|| reset(rounds, &writing, &[])),
        ),
        (
            "reset, and busybox true",
            Reference::Spawn,
            Box::new(move || reset(rounds, busybox, &["true"])),
        ),
        (
            "new sandbox in a live machine, and a call",
            Reference::Spawn,
            Box::new(|| new_sandbox(rounds, &ending)),
        ),
        (
            "new machine to the first instruction",
            Reference::Spawn,
            Box::new(move || cold(rounds)),
        ),
        (
            "caller's time at close of a machine",
            Reference::Spawn,
            Box::new(move || close(rounds)),
        ),
    ];
    let is_wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut figures: Vec<Figure> = cases
        .iter()
        .filter(|(name, reference, _)| *reference == Reference::None || is_wanted(name))
        .map(|(name, reference, measure)| Figure {
            name,
            reference: *reference,
            time: measure(),
            against: None,
        })
        .collect();
    let name = "computing: 100,000 turns of a shell's loop";
    if is_wanted(name) {
        let (inside, outside) = work(busybox);
        figures.push(Figure {
            name,
            reference: Reference::Native,
            time: inside,
            against: Some(outside),
        });
    }
    std::fs::remove_dir_all(&folder).unwrap();
    figures
}

fn platform() -> KvmPlatform {
    KvmPlatform::new(open_device(None).unwrap(), KvmOptions::default()).unwrap()
}

/// Debian's static one, of the cache or installed.
fn installed_busybox() -> PathBuf {
    let given = std::env::var_os("MICROVM_BENCH_BUSYBOX").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new("/bin/busybox").to_owned())
}

/// Times one call of `work` many times, after a first one.
fn timed(rounds: usize, mut work: impl FnMut()) -> Time {
    work();
    time_of((0..rounds).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_nanos() as f64
    }))
}

fn time_of(times: impl Iterator<Item = f64>) -> Time {
    let mut times: Vec<f64> = times.collect();
    times.sort_unstable_by(f64::total_cmp);
    Time {
        median: times[times.len() / 2],
        fastest: times[0],
    }
}

fn batch(rounds: usize, mut work: impl FnMut()) -> Time {
    let Time { median, fastest } = timed(rounds, || (0..BATCH).for_each(|_| work()));
    let each = f64::from(BATCH);
    Time {
        median: median / each,
        fastest: fastest / each,
    }
}

fn bare_exit(rounds: usize) -> Time {
    let machine = Kvm::open().unwrap().create_vm().unwrap();
    let region = Arc::new(MemoryRegion::anonymous(0x1000).unwrap());
    // 1: out 0x10, al; jmp 1b, in real mode
    region.write(0, &[0xe6, 0x10, 0xeb, 0xfc]).unwrap();
    machine
        .set_guest_memory_region(0, 0, 0x1000, region)
        .unwrap();
    let vcpu = machine.create_vcpu(0).unwrap();
    vcpu.modify_sregs(|sregs| {
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
    })
    .unwrap();
    vcpu.modify_regs(|regs| regs.rip = 0x1000).unwrap();
    let mut runner: VirtualCpuRunner = vcpu.into_runner().unwrap();
    batch(rounds, || runner.run_raw().unwrap())
}

fn system_call(rounds: usize, restore: Restore) -> Time {
    let platform = platform();
    let memory = platform.new_memory(PAGE).unwrap();
    // 1: syscall; jmp 1b
    memory.write(0, &[0x0f, 0x05, 0xeb, 0xfc]).unwrap();
    let space = platform.address_space().unwrap();
    space
        .map(CODE, &memory, 0, PAGE, Protection::READ_EXECUTE, false)
        .unwrap();
    let mut context = platform.new_context();
    let mut registers = Registers {
        rip: CODE,
        ..Registers::default()
    };
    let options = SwitchOptions {
        restore,
        ..SwitchOptions::default()
    };
    batch(rounds, || {
        let exit = context.switch(&space, &mut registers, options);
        assert_eq!(exit, Ok(Exit::SystemCall));
    })
}

/// Who knows a page before a program touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// A program had it before, as after a reset.
    Kvm,
    /// Only this process had it.
    Host,
    /// It has yet to be allocated.
    Nobody,
}

/// Each turn is one exit: a page is mapped, and the program goes on to touch the next one.
fn fault(rounds: usize, known: Known) -> Time {
    const DATA: u64 = 0x1000_0000;
    /// Where the program touches all pages first.
    const BEFORE: u64 = 0x10_0000_0000;
    let platform = platform();
    let pages = (rounds as u64 + 1) * u64::from(BATCH);
    let memory = platform.new_memory((pages + 1) * PAGE).unwrap();
    // 1: mov [rdi], al; add rdi, 4096; jmp 1b
    memory
        .write(
            0,
            &[0x88, 0x07, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0xeb, 0xf5],
        )
        .unwrap();
    for page in (1..=pages).filter(|_| known != Known::Nobody) {
        memory.write(page * PAGE, &[1]).unwrap();
    }
    let space = platform.address_space().unwrap();
    space
        .map(CODE, &memory, 0, PAGE, Protection::READ_EXECUTE, false)
        .unwrap();
    let mut context = platform.new_context();
    let mut registers = Registers {
        rip: CODE,
        rdi: BEFORE,
        ..Registers::default()
    };
    let options = SwitchOptions::default();
    if known == Known::Kvm {
        let rights = Protection::READ_WRITE;
        space
            .map(BEFORE, &memory, PAGE, pages * PAGE, rights, false)
            .unwrap();
        let exit = context.switch(&space, &mut registers, options);
        assert!(
            matches!(exit, Ok(Exit::Fault(fault)) if fault.address == Some(BEFORE + pages * PAGE))
        );
    }
    registers.rdi = DATA;
    let mut next = 0;
    let mut step = || {
        let Ok(Exit::Fault(fault)) = context.switch(&space, &mut registers, options) else {
            panic!("no fault");
        };
        assert_eq!(fault.address, Some(DATA + next * PAGE));
        let (address, offset) = (DATA + next * PAGE, (next + 1) * PAGE);
        space
            .map(
                address,
                &memory,
                offset,
                PAGE,
                Protection::READ_WRITE,
                false,
            )
            .unwrap();
        next += 1;
    };
    batch(rounds, &mut step)
}

fn spawn(rounds: usize, busybox: &Path) -> Time {
    timed(rounds, || {
        assert!(
            Command::new(busybox)
                .arg("true")
                .status()
                .unwrap()
                .success()
        );
    })
}

fn run(sandbox: &mut Sandbox, program: &Path, args: &[&str]) {
    let program = Program::at(program).args(args.iter().copied());
    let outcome = sandbox.run(program, Run::default()).unwrap();
    assert_eq!(outcome.exit, ExitStatus::Exited(0));
}

fn reset(rounds: usize, program: &Path, args: &[&str]) -> Time {
    let machine = Machine::new(Arc::new(platform()));
    let mut sandbox = Sandbox::on(&machine, SandboxOptions::default()).unwrap();
    run(&mut sandbox, program, args);
    timed(rounds, || {
        sandbox.reset().unwrap();
        run(&mut sandbox, program, args);
    })
}

fn new_sandbox(rounds: usize, program: &Path) -> Time {
    let machine = Machine::new(Arc::new(platform()));
    // What all sandboxes of a machine share is there.
    let mut first = Sandbox::on(&machine, SandboxOptions::default()).unwrap();
    run(&mut first, program, &[]);
    timed(rounds, || {
        let mut sandbox = Sandbox::on(&machine, SandboxOptions::default()).unwrap();
        run(&mut sandbox, program, &[]);
    })
}

fn cold(rounds: usize) -> Time {
    let mut kept = Vec::new();
    let value = timed(rounds.min(20), || {
        let platform = platform();
        let memory = platform.new_memory(PAGE).unwrap();
        memory.write(0, &[0x0f, 0x05]).unwrap();
        let space = platform.address_space().unwrap();
        space
            .map(CODE, &memory, 0, PAGE, Protection::READ_EXECUTE, false)
            .unwrap();
        let mut context = platform.new_context();
        let mut registers = Registers {
            rip: CODE,
            ..Registers::default()
        };
        let exit = context.switch(&space, &mut registers, SwitchOptions::default());
        assert_eq!(exit, Ok(Exit::SystemCall));
        // Its end is another figure.
        kept.push((platform, memory, space, context));
    });
    drop(kept);
    reaper::wait_idle();
    value
}

fn close(rounds: usize) -> Time {
    time_of((0..rounds.min(20)).map(|_| {
        let platform = platform();
        let memory = platform.new_memory(PAGE).unwrap();
        memory.write(0, &[0x0f, 0x05]).unwrap();
        drop(memory);
        let start = Instant::now();
        drop(platform);
        let time = start.elapsed().as_nanos() as f64;
        reaper::wait_idle();
        time
    }))
}

/// The same program inside and outside, by turns.
fn work(busybox: &Path) -> (Time, Time) {
    let machine = Machine::new(Arc::new(platform()));
    let mut sandbox = Sandbox::on(&machine, SandboxOptions::default()).unwrap();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        run(&mut sandbox, busybox, &["sh", "-c", WORK]);
        inside.push(start.elapsed().as_nanos() as f64);
        let start = Instant::now();
        let status = Command::new(busybox).args(["sh", "-c", WORK]).status();
        assert!(status.unwrap().success());
        outside.push(start.elapsed().as_nanos() as f64);
    }
    (time_of(inside.into_iter()), time_of(outside.into_iter()))
}
