//! What a context keeps beside its general registers.

use std::sync::mpsc;
use std::thread;

use microvm_ring3::{Error, Exit, SegmentBases};

use crate::fixture::*;

/// `mov rax, fs:[0]; mov rbx, gs:[0]; syscall`
const SEGMENTS: [u8; 20] = [
    0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x65, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0, 0x0f, 0x05,
];

fn bases(fs: u64, gs: u64) -> SegmentBases {
    SegmentBases { fs, gs }
}

pub fn segment_bases_are_set_and_survive_calls_and_faults() {
    let mut program = program(&SEGMENTS);
    program.memory.write(PAGE, &[7]).unwrap();
    program.memory.write(PAGE + 64, &[8]).unwrap();
    assert_eq!(program.context.segment_bases(), Ok(bases(0, 0)));
    program
        .context
        .set_segment_bases(bases(DATA, DATA + 64))
        .unwrap();
    for _ in 0..2 {
        program.call();
        assert_eq!((program.registers.rax, program.registers.rbx), (7, 8));
        program.registers.rip = NOWHERE;
        assert!(matches!(program.switch(), Exit::Fault(_)));
    }
    assert_eq!(program.context.segment_bases(), Ok(bases(DATA, DATA + 64)));
    program
        .context
        .set_segment_bases(bases(DATA + 64, DATA))
        .unwrap();
    program.call();
    assert_eq!((program.registers.rax, program.registers.rbx), (8, 7));
    let error = program.context.set_segment_bases(bases(1 << 47, 0));
    assert!(matches!(error, Err(Error::Range { .. })));
}

/// How wide the vector registers are, and how many there are.
#[derive(Clone, Copy, PartialEq)]
enum Width {
    Sse,
    Avx,
    Avx512,
}

fn width() -> Width {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        Width::Avx512
    } else if is_x86_feature_detected!("avx") {
        Width::Avx
    } else {
        Width::Sse
    }
}

/// Bytes that a register is apart from the next one, behind the image of FXSAVE.
const APART: usize = 64;
const VECTORS: usize = 512;
const MASKS: usize = VECTORS + 32 * APART;
const STATE: usize = MASKS + 8 * 8;

/// Loads or stores all of the state at RDI: x87 and MXCSR, vector registers, masks; then it calls.
fn code(load: bool) -> Vec<u8> {
    // An address of RDI and 32 bits behind it.
    let at = |register: usize, offset: usize| {
        let mut bytes = vec![0x87 | ((register & 7) as u8) << 3];
        bytes.extend((offset as u32).to_le_bytes());
        bytes
    };
    // fxrstor64 or fxsave64
    let mut code = vec![0x48, 0x0f, 0xae];
    code.extend(at(usize::from(load), 0));
    let operation = if load { 0x6f } else { 0x7f };
    match width() {
        Width::Sse => {}
        Width::Avx => {
            for register in 0..16 {
                // vmovdqu ymm
                let high = (!register as u8 >> 3 & 1) << 7;
                code.extend([0xc5, high | 0x7e, operation]);
                code.extend(at(register, VECTORS + register * APART));
            }
        }
        Width::Avx512 => {
            for register in 0..32 {
                // vmovdqu64 zmm
                let inverted = !register as u8;
                let high = (inverted >> 3 & 1) << 7 | (inverted >> 4 & 1) << 4;
                code.extend([0x62, 0x61 | high, 0xfe, 0x48, operation]);
                code.extend(at(register, VECTORS + register * APART));
            }
            for mask in 0..8 {
                // kmovq
                code.extend([0xc4, 0xe1, 0xf8, if load { 0x90 } else { 0x91 }]);
                code.extend(at(mask, MASKS + mask * 8));
            }
        }
    }
    code.extend(SYSCALL);
    code
}

const STORE_OFFSET: u64 = 0x800;
/// Rounds towards zero; all exceptions masked.
const MXCSR: u32 = 0x7f80;
/// Of a reset.
const FIRST_MXCSR: u32 = 0x1f80;
/// The same and double precision.
const CONTROL_WORD: u16 = 0x0e7f;
const FIRST_CONTROL_WORD: u16 = 0x037f;

/// All of the state, different in each byte of it that a program can choose.
fn expected(seed: u8) -> Vec<u8> {
    let mut state = vec![0; STATE];
    state[..2].copy_from_slice(&CONTROL_WORD.to_le_bytes());
    // No x87 register is empty.
    state[4] = 0xff;
    state[24..28].copy_from_slice(&MXCSR.to_le_bytes());
    let fill = |part: &mut [u8], salt: usize| {
        for (byte, number) in part.iter_mut().zip(0..) {
            *byte = (number * 7 + salt * 31) as u8 ^ seed;
        }
    };
    for register in 0..8 {
        fill(&mut state[32 + register * 16..][..10], register + 100);
    }
    let (registers, bytes) = match width() {
        Width::Sse => (16, 0),
        Width::Avx => (16, 32),
        Width::Avx512 => (32, 64),
    };
    for register in 0..registers {
        fill(&mut state[VECTORS + register * APART..][..bytes], register);
    }
    // Their lower parts are in the image.
    for register in 0..16 {
        fill(&mut state[160 + register * 16..][..16], register);
    }
    if width() == Width::Avx512 {
        fill(&mut state[MASKS..], 200);
    }
    state
}

/// What a program has that has loaded nothing.
fn first_state() -> Vec<u8> {
    let mut state = vec![0; STATE];
    state[..2].copy_from_slice(&FIRST_CONTROL_WORD.to_le_bytes());
    state[24..28].copy_from_slice(&FIRST_MXCSR.to_le_bytes());
    state
}

fn vector_program(base: &std::sync::Arc<microvm_ring3::KvmPlatform>, seed: u8) -> Program {
    let program = program_on(base, &code(true));
    assert!(code(true).len() < STORE_OFFSET as usize);
    program.memory.write(STORE_OFFSET, &code(false)).unwrap();
    program.memory.write(PAGE, &expected(seed)).unwrap();
    program
}

fn load(program: &mut Program) {
    program.registers.rdi = DATA;
    program.call();
}

/// What the program stores.
fn store(program: &mut Program) -> Vec<u8> {
    let mut state = vec![0; STATE];
    program.memory.write(PAGE, &state).unwrap();
    program.registers.rip = CODE + STORE_OFFSET;
    program.registers.rdi = DATA;
    program.resume_to_call();
    program.memory.read(PAGE, &mut state).unwrap();
    // Which bits of MXCSR there are is the processor's.
    state[28..32].fill(0);
    state
}

pub fn floating_point_and_vector_registers_survive_calls_and_faults() {
    let mut program = vector_program(&platform_with(1), 0x5a);
    load(&mut program);
    for _ in 0..2 {
        program.registers.rip = NOWHERE;
        assert!(matches!(program.switch(), Exit::Fault(_)));
        assert_eq!(store(&mut program), expected(0x5a));
    }
}

pub fn contexts_that_share_a_vcpu_keep_their_own_state() {
    let platform = platform_with(1);
    let mut programs: Vec<_> = (1..4)
        .map(|seed| vector_program(&platform, seed * 16))
        .collect();
    for (program, gs) in programs.iter_mut().zip(0..) {
        program
            .context
            .set_segment_bases(bases(DATA, 0x1000 * gs))
            .unwrap();
        load(program);
    }
    for (program, seed) in programs.iter_mut().zip(1..) {
        assert_eq!(store(program), expected(seed * 16));
    }
    for (program, gs) in programs.iter_mut().zip(0..) {
        assert_eq!(
            program.context.segment_bases(),
            Ok(bases(DATA, 0x1000 * gs))
        );
    }
    assert_eq!(platform.vcpus(), 1);
}

pub fn new_context_sees_nothing_of_the_one_before() {
    let platform = platform_with(1);
    let mut first = vector_program(&platform, 0x77);
    load(&mut first);
    let mut second = vector_program(&platform, 0);
    assert_eq!(store(&mut second), first_state());
    drop(first);
    let mut third = vector_program(&platform, 0);
    assert_eq!(store(&mut third), first_state());
}

pub fn extended_state_is_read_and_set_as_bytes() {
    let platform = platform_with(1);
    let mut first = vector_program(&platform, 0x33);
    assert_eq!(first.context.extended_state().unwrap(), []);
    load(&mut first);
    let state = first.context.extended_state().unwrap();
    assert!(state.len() >= 576);
    let mut second = vector_program(&platform, 0);
    second.context.set_extended_state(&state).unwrap();
    assert_eq!(store(&mut second), expected(0x33));
    assert_eq!(store(&mut first), expected(0x33));
    second.context.set_extended_state(&[]).unwrap();
    assert_eq!(store(&mut second), first_state());
}

pub fn malformed_extended_state_is_an_error_and_harms_nobody() {
    let platform = platform_with(1);
    let mut program = vector_program(&platform, 1);
    let error = program.context.set_extended_state(&[1, 2, 3]).unwrap_err();
    assert_eq!(error, Error::ExtendedState { length: 3 });
    load(&mut program);
    let mut state = program.context.extended_state().unwrap();
    // Reserved bits of MXCSR, and of the header.
    state[24..28].fill(0xff);
    state[512..576].fill(0xff);
    program.context.set_extended_state(&state).unwrap();
    let result = program.switch_with(microvm_ring3::SwitchOptions::default());
    assert!(
        matches!(result, Err(Error::ExtendedState { .. })),
        "{result:?}"
    );
    let mut other = vector_program(&platform, 2);
    load(&mut other);
    assert_eq!(store(&mut other), expected(2));
    program.context.set_extended_state(&[]).unwrap();
    load(&mut program);
    assert_eq!(store(&mut program), expected(1));
}

/// `rdtsc; shl rdx, 32; or rax, rdx; syscall`
const TIME: [u8; 11] = [
    0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x0f, 0x05,
];

pub fn time_stamp_counter_never_goes_back() {
    let mut program = program(&TIME);
    let mut last = 0;
    for _ in 0..500 {
        program.call();
        let now = program.registers.rax;
        assert!(now > last, "{now} after {last}");
        last = now;
    }
}

/// Whether the host's kernel keeps time by the counter. Where it does not, the counters of its own
/// processors may differ, and KVM only estimates what to add for a vCPU.
fn counters_are_one() -> bool {
    let path = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let names = std::fs::read_to_string(path).unwrap_or_default();
    names.split_whitespace().any(|name| name == "tsc")
}

pub fn time_stamp_counters_of_two_vcpus_are_one_where_the_host_s_are() {
    let platform = platform_with(2);
    let (to_second, from_first) = mpsc::channel();
    let (to_first, from_second) = mpsc::channel();
    // Each thread keeps its vCPU, and reads when it has been told what the other one has read.
    let mut second = program_on(&platform, &TIME);
    let one = counters_are_one();
    let check = move |now: u64, own: u64, other: u64| {
        assert!(now > own, "{now} after {own} of the same vCPU");
        assert!(now > other || !one, "{now} after {other} of the other one");
    };
    let thread = thread::spawn(move || {
        let mut own = 0;
        for other in from_first {
            second.call();
            check(second.registers.rax, own, other);
            own = second.registers.rax;
            to_first.send(own).unwrap();
        }
    });
    let mut first = program_on(&platform, &TIME);
    let (mut own, mut other) = (0, 0);
    for _ in 0..500 {
        first.call();
        check(first.registers.rax, own, other);
        own = first.registers.rax;
        to_second.send(own).unwrap();
        other = from_second.recv().unwrap();
    }
    drop(to_second);
    thread.join().unwrap();
    assert_eq!(platform.vcpus(), 2);
}
