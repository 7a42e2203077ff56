//! What a context keeps beside its general registers.

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

/// Loads the vector register and MXCSR from RDI; later stores them at RSI.
struct Vectors {
    bytes: u64,
    load: Vec<u8>,
    store: Vec<u8>,
}

fn vectors() -> Vectors {
    // ldmxcsr [rdi + 64]; stmxcsr [rsi + 64]
    let mxcsr = |code: &mut Vec<u8>, load: bool| {
        code.extend(if load {
            [0x0f, 0xae, 0x57, 0x40]
        } else {
            [0x0f, 0xae, 0x5e, 0x40]
        });
        code.extend(SYSCALL);
    };
    let (bytes, mut load, mut store) = if std::is_x86_feature_detected!("avx") {
        // vmovdqu ymm5, [rdi]; vmovdqu [rsi], ymm5
        (
            32,
            vec![0xc5, 0xfe, 0x6f, 0x2f],
            vec![0xc5, 0xfe, 0x7f, 0x2e],
        )
    } else {
        // movdqu xmm5, [rdi]; movdqu [rsi], xmm5
        (
            16,
            vec![0xf3, 0x0f, 0x6f, 0x2f],
            vec![0xf3, 0x0f, 0x7f, 0x2e],
        )
    };
    mxcsr(&mut load, true);
    mxcsr(&mut store, false);
    Vectors { bytes, load, store }
}

const STORE: u64 = CODE + 0x100;
/// Rounds towards zero; all exceptions masked.
const MXCSR: u32 = 0x7f80;

fn vector_program(base: &std::sync::Arc<microvm_ring3::KvmPlatform>, seed: u8) -> Program {
    let vectors = vectors();
    let program = program_on(base, &vectors.load);
    program.memory.write(0x100, &vectors.store).unwrap();
    let pattern: Vec<u8> = (0..vectors.bytes).map(|n| n as u8 ^ seed).collect();
    program.memory.write(PAGE, &pattern).unwrap();
    program
        .memory
        .write(PAGE + 64, &MXCSR.to_le_bytes())
        .unwrap();
    program
}

fn load(program: &mut Program) {
    program.registers.rdi = DATA;
    program.call();
}

/// What the program stores: the vector register, and MXCSR.
fn store(program: &mut Program) -> (Vec<u8>, u32) {
    program.registers.rip = STORE;
    program.registers.rsi = DATA + 0x200;
    program.resume_to_call();
    let mut vector = vec![0; vectors().bytes as usize];
    let mut mxcsr = [0; 4];
    program.memory.read(PAGE + 0x200, &mut vector).unwrap();
    program.memory.read(PAGE + 0x240, &mut mxcsr).unwrap();
    (vector, u32::from_le_bytes(mxcsr))
}

fn expected(seed: u8) -> (Vec<u8>, u32) {
    (
        (0..vectors().bytes).map(|n| n as u8 ^ seed).collect(),
        MXCSR,
    )
}

pub fn vector_registers_and_mxcsr_survive_calls_and_faults() {
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
    let (vector, mxcsr) = store(&mut second);
    assert!(vector.iter().all(|&byte| byte == 0), "{vector:?}");
    assert_eq!(mxcsr, 0x1f80);
    drop(first);
    let mut third = vector_program(&platform, 0);
    assert_eq!(store(&mut third).1, 0x1f80);
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
    assert_eq!(store(&mut second).1, 0x1f80);
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

pub fn time_stamp_counter_never_goes_back() {
    // rdtsc; shl rdx, 32; or rax, rdx; syscall
    let code = [
        0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x0f, 0x05,
    ];
    let mut program = program(&code);
    let mut last = 0;
    for _ in 0..500 {
        program.call();
        let now = program.registers.rax;
        assert!(now > last, "{now} after {last}");
        last = now;
    }
}
