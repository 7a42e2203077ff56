//! Programs that try to break out, or to break this process.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use microvm_ring3_linux::{
    Error, ExitStatus, Limits, Program, Run, Sandbox, SandboxOptions, system_calls,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::assembled::*;
use crate::fixture::*;

fn assert_unharmed(sandbox: &mut Sandbox) {
    assert_eq!(text(busybox(sandbox, &["echo", "x"])), "x\n");
}

pub fn addresses_at_the_edges_are_faults() {
    let mut sandbox = sandbox();
    let edges = [
        0,
        1,
        0xfff,
        (1 << 47) - 4096,
        (1 << 47) - 1,
        1 << 47,
        0xffff_8000_0000_0000,
        0xffff_8000_0000_1000,
        u64::MAX - 7,
        u64::MAX,
    ];
    for address in edges {
        let load = [&[0x48, 0xbf][..], &address.to_le_bytes()].concat();
        // mov rdi, address; then: mov rax, [rdi]; mov [rdi], rax; jmp rdi; mov rsp, rdi, push rax
        let uses: [&[u8]; 4] = [
            &[0x48, 0x8b, 0x07],
            &[0x48, 0x89, 0x07],
            &[0xff, 0xe7],
            &[0x48, 0x89, 0xfc, 0x50],
        ];
        for code in uses {
            let outcome = run_code(&mut sandbox, &[&load, code].concat());
            let ended = matches!(outcome.exit, ExitStatus::Signaled(_));
            // Where system calls have a page of their own, it can be read, and executed to call.
            assert!(
                ended || address >> 12 == (1 << 35) - 1,
                "{address:x} {code:x?} {outcome:?}"
            );
        }
    }
    assert_unharmed(&mut sandbox);
}

pub fn mappings_of_all_sizes_and_places_harm_nobody() {
    let limits = Limits {
        memory: 8 << 20,
        ..Limits::default()
    };
    let mut sandbox = sandbox_with(SandboxOptions {
        limits,
        ..SandboxOptions::default()
    });
    for shift in [12, 21, 30, 39, 46, 47, 48, 63] {
        for delta in [-4096i64, -1, 0, 1, 4096] {
            let number = (1u64 << shift).wrapping_add_signed(delta);
            // As a length, and as a fixed address: mmap(address, length, 3, flags, -1, 0)
            for (address, length, flags) in [
                (0, number, 0x4022u32),
                (number, 4096, 0x32),
                (number, number, 0x4032),
            ] {
                let mut code = vec![0x48, 0xbf];
                code.extend(address.to_le_bytes());
                code.extend([0x48, 0xbe]);
                code.extend(length.to_le_bytes());
                code.extend([0xba, 3, 0, 0, 0, 0x41, 0xba]);
                code.extend(flags.to_le_bytes());
                // r8 = -1, r9 = 0; mmap, then touch what it gave, then munmap of the same
                code.extend([0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x45, 0x31, 0xc9]);
                code.extend([0xb8, 9, 0, 0, 0, 0x0f, 0x05]);
                code.extend([0x48, 0x89, 0xc7, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff]);
                code.extend([0x73, 9, 0xc6, 0x07, 1, 0xb8, 11, 0, 0, 0, 0x0f, 0x05, 0x90]);
                code.extend([0x31, 0xc0]);
                code.extend(EXIT_WITH_RAX);
                let outcome = run_code(&mut sandbox, &code);
                assert!(outcome.peak_memory <= 8 << 20, "{outcome:?}");
                assert_ne!(outcome.limit, Some(microvm_ring3_linux::Limit::WallTime));
            }
        }
    }
    assert_unharmed(&mut sandbox);
}

pub fn program_that_takes_all_its_memory_away_gets_a_signal() {
    let mut sandbox = sandbox();
    for (address, length) in [
        (0, (1u64 << 47) - 8192),
        (4096, (1 << 47) - 12288),
        (0x40_0000, 4096),
    ] {
        // mov rdi, address; mov rsi, length; mov eax, 11; syscall
        let mut code = vec![0x48, 0xbf];
        code.extend(u64::to_le_bytes(address));
        code.extend([0x48, 0xbe]);
        code.extend(length.to_le_bytes());
        code.extend([0xb8, 11, 0, 0, 0, 0x0f, 0x05]);
        let outcome = run_code(&mut sandbox, &code);
        assert_eq!(outcome.exit, ExitStatus::Signaled(11), "{outcome:?}");
    }
    assert_unharmed(&mut sandbox);
}

pub fn forks_are_refused_and_counted() {
    let mut sandbox = sandbox();
    for _ in 0..2 {
        let program = Program::at(c("hostile")).args(["forks"]);
        let outcome = sandbox.run(program, Run::default()).unwrap();
        assert!(outcome.wanted_processes());
        let counted = &outcome.unsupported;
        let counts = ["fork", "vfork", "clone3"].map(|name| counted.get(name).copied());
        assert_eq!(counts, [Some(1000); 3], "{outcome:?}");
        // A thread, and what fork() of the library is.
        assert_eq!(counted.get("clone"), Some(&1002), "{outcome:?}");
        assert_eq!(text(outcome), "refused\n");
    }
    assert_unharmed(&mut sandbox);
}

/// A number that system calls are asked to take: small, at an edge, an address, or anything.
fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..16u64,
        2 => Just(DATA),
        2 => (0..0x10000u64).prop_map(|offset| DATA + offset),
        1 => (0..0x10000u64).prop_map(|offset| DATA + 0x10000 - 8 + offset % 16),
        1 => Just((-100i64) as u64),
        1 => Just(u64::MAX),
        1 => Just((1 << 47) - 4096),
        1 => Just(0x7fff_ffff_e000),
        1 => (0..64u32).prop_map(|shift| 1u64 << shift),
        1 => any::<u64>(),
    ]
}

/// Waiting and ending are known to work, and would end each case.
fn is_boring(number: u64) -> bool {
    matches!(number, 15 | 34 | 60 | 231)
}

pub fn system_calls_with_any_arguments_harm_nobody() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), vec![7; 10_000]).unwrap();
    let options = || SandboxOptions {
        root: Some(folder.path().to_owned()),
        limits: Limits {
            memory: 8 << 20,
            // Some of them wait for ever, as they are asked to.
            wall_time: Some(std::time::Duration::from_millis(if is_emulated() {
                3000
            } else {
                150
            })),
            output_bytes: 1 << 20,
            ..Limits::default()
        },
        ..SandboxOptions::default()
    };
    let sandbox = std::cell::RefCell::new(Sandbox::on(&machine(), options()).unwrap());
    let mut numbers: Vec<u64> = system_calls().map(|(number, _)| number).collect();
    numbers.extend([333, 400, 511, 512, 1 << 31, u64::MAX]);
    numbers.retain(|number| !is_boring(*number));
    let call = (0..numbers.len(), proptest::array::uniform6(argument()));
    let calls = proptest::collection::vec(call, 1..60);
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases: u32::try_from(rounds(5000, 250)).unwrap(),
            failure_persistence: None,
            ..Config::default()
        },
        TestRunner::deterministic().new_rng(),
    );
    let strategy = (calls, any::<bool>());
    let result = runner.run(&strategy, |(calls, reset)| {
        let mut code = Vec::new();
        // The page of data begins with a path.
        for (index, part) in [*b"/f\0\0\0\0\0\0", *b"../../f\0"].into_iter().enumerate() {
            code.extend([0x48, 0xb8]);
            code.extend(part);
            code.extend([0x48, 0xa3]);
            code.extend((DATA + 8 * index as u64).to_le_bytes());
        }
        for (number, args) in &calls {
            // mov reg, value: rdi, rsi, rdx, r10, r8, r9, rax
            let registers = [
                [0x48, 0xbf],
                [0x48, 0xbe],
                [0x48, 0xba],
                [0x49, 0xba],
                [0x49, 0xb8],
                [0x49, 0xb9],
            ];
            for (register, value) in registers.iter().zip(args) {
                code.extend(register);
                code.extend(value.to_le_bytes());
            }
            code.extend([0x48, 0xb8]);
            code.extend(numbers[*number].to_le_bytes());
            code.extend([0x0f, 0x05]);
        }
        code.extend([0x31, 0xc0]);
        code.extend(EXIT_WITH_RAX);
        let mut sandbox = sandbox.borrow_mut();
        if reset {
            sandbox.reset().unwrap();
        }
        let program = Program::of(file(&assembled(&code)));
        match sandbox.run(program, Run::default()) {
            Ok(outcome) => {
                prop_assert!(outcome.peak_memory <= 8 << 20);
                prop_assert!(outcome.stdout.len() + outcome.stderr.len() <= 1 << 20);
                Ok(())
            }
            // Files of the runs before may have taken it all.
            Err(Error::Memory { .. }) => {
                sandbox.reset().unwrap();
                Ok(())
            }
            Err(error) => Err(TestCaseError::fail(format!("{error:?}"))),
        }
    });
    result.unwrap();
    let mut after = sandbox.borrow_mut();
    after.reset().unwrap();
    assert_unharmed(&mut after);
    assert_eq!(fs::read(folder.path().join("f")).unwrap(), vec![7; 10_000]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

pub fn any_signal_frame_harms_nobody() {
    let mut sandbox = sandbox();
    // mov rsp, DATA; mov eax, 15 (rt_sigreturn); syscall; xor eax, eax; exit
    let mut code = vec![0x48, 0xbc];
    code.extend(DATA.to_le_bytes());
    code.extend([0xb8, 15, 0, 0, 0, 0x0f, 0x05]);
    let behind = CODE + code.len() as u64;
    code.extend([0x31, 0xc0]);
    code.extend(EXIT_WITH_RAX);
    let frame = |state: u64, rip: u64, change: &dyn Fn(&mut [u8])| {
        let mut data = vec![0; 0x2000];
        for (offset, word) in [
            (160, DATA + 0x1f00),
            (168, rip),
            (176, !0x4_0100),
            (224, state),
        ] {
            data[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
        // A state as after a reset, at a place of its own.
        data[0x1000..0x1002].copy_from_slice(&0x37fu16.to_le_bytes());
        data[0x1018..0x101c].copy_from_slice(&0x1f80u32.to_le_bytes());
        data[0x1200] = 3;
        change(&mut data[0x1000..]);
        assembled_with(&code, &data)
    };
    let mut run = |bytes: &[u8]| {
        let outcome = sandbox
            .run(Program::of(file(bytes)), Run::default())
            .unwrap();
        outcome.exit
    };
    let good = DATA + 0x1000;
    assert_eq!(run(&frame(good, behind, &|_| ())), ExitStatus::Exited(0));
    assert_eq!(run(&frame(0, behind, &|_| ())), ExitStatus::Exited(0));
    for (state, rip) in [
        (1, behind),
        (u64::MAX - 100, behind),
        (good, 1 << 47),
        (good, u64::MAX),
        (good, 0),
    ] {
        assert_eq!(
            run(&frame(state, rip, &|_| ())),
            ExitStatus::Signaled(11),
            "{state:x} {rip:x}"
        );
    }
    for bit in 0..64 {
        run(&frame(good, behind, &|state| {
            state[0x200 + bit / 8] ^= 1 << (bit % 8)
        }));
        run(&frame(good, behind, &|state| {
            state[0x18 + bit / 16] ^= 1 << (bit % 8)
        }));
        run(&frame(good, behind, &|state| {
            state[0x200..0x240].fill(bit as u8 * 4 + 3)
        }));
    }
    run(&frame(good, behind, &|state| state.fill(0xff)));
    assert_unharmed(&mut sandbox);
}

pub fn paths_do_not_lead_out_of_the_root() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("in/deep")).unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    fs::write(root.join("in/plain"), "plain").unwrap();
    let secret = outer.path().join("secret");
    symlink(&secret, root.join("absolute")).unwrap();
    symlink("../secret", root.join("up")).unwrap();
    symlink("../../../../../../../../secret", root.join("in/far-up")).unwrap();
    symlink("/", root.join("in/top")).unwrap();
    symlink("..", root.join("in/deep/up")).unwrap();
    symlink("/proc/self/cwd", root.join("cwd")).unwrap();
    let mut sandbox = sandbox_in(&root);
    let secret = secret.to_str().unwrap();
    for path in [
        secret,
        "/absolute",
        "/up",
        "/in/far-up",
        "/../secret",
        "/in/../../secret",
        "../secret",
        "/in/top/../secret",
        "/in/deep/up/../../../secret",
        "/cwd/Cargo.toml",
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
        "/dev/kvm",
        "/dev/../../secret",
    ] {
        let outcome = busybox(&mut sandbox, &["cat", path]);
        assert_eq!(outcome.exit, ExitStatus::Exited(1), "{path}");
        assert!(outcome.stdout.is_empty(), "{path}");
    }
    for path in [
        "/in/plain",
        "/in/top/in/plain",
        "/in/deep/up/plain",
        "/../../in/plain",
    ] {
        assert_eq!(
            text(busybox(&mut sandbox, &["cat", path])),
            "plain",
            "{path}"
        );
    }
    // A link that the program makes leads within its own tree, too.
    let script = format!("cat < {secret}; cat < /tmp/l");
    busybox(
        &mut sandbox,
        &["ln", "-s", "../../../../../secret", "/tmp/l"],
    );
    let outcome = busybox(&mut sandbox, &["ash", "-c", &script]);
    assert!(outcome.stdout.is_empty());
}

pub fn kernel_file_systems_of_the_host_are_closed() {
    let mut sandbox = sandbox_in("/".as_ref());
    for path in [
        "/proc/self/environ",
        "/proc/self/maps",
        "/proc/1/cmdline",
        "/sys/kernel/mm/ksm/run",
    ] {
        let outcome = busybox(&mut sandbox, &["cat", path]);
        assert_eq!(outcome.exit, ExitStatus::Exited(1), "{path}");
        assert!(outcome.stdout.is_empty(), "{path}");
    }
    for path in ["/proc/self/exe", "/proc/self/cwd", "/proc/self/fd/0"] {
        let outcome = busybox(&mut sandbox, &["readlink", path]);
        assert_ne!(outcome.exit, ExitStatus::Exited(0), "{path}");
    }
    assert!(text(busybox(&mut sandbox, &["head", "-n1", "/etc/os-release"])).contains('='));
}

pub fn fifos_devices_and_sockets_are_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let mut sandbox = sandbox_in(folder.path());
    for path in ["/fifo", "/socket"] {
        let outcome = busybox(&mut sandbox, &["cat", path]);
        assert_eq!(outcome.exit, ExitStatus::Exited(1), "{path}");
        assert!(!outcome.timed_out);
    }
    // Nor is one that is to be run.
    let error = sandbox.run(Program::at(&fifo), Run::default()).unwrap_err();
    assert!(matches!(error, Error::Executable { .. }), "{error}");
}

pub fn files_that_change_meanwhile_harm_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
    let mut sandbox = sandbox_in(folder.path());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let truncate = std::thread::spawn(move || {
        // The program has mapped the file and waits.
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(4096)
            .unwrap();
        std::io::Write::write_all(&mut writer, b"x").unwrap();
    });
    let run = Run {
        stdin: microvm_ring3_linux::Input::Descriptor(reader.into()),
        ..Run::default()
    };
    let outcome = sandbox.run(Program::at(c("mapped")), run).unwrap();
    truncate.join().unwrap();
    assert_eq!(outcome.exit, ExitStatus::Signaled(7), "{outcome:?}");
    assert_eq!(outcome.stdout, b"x\n");

    // Folders and files that come, go and are moved while they are listed and read.
    let stop = std::sync::atomic::AtomicBool::new(false);
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("outside"), "outside").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = |name: &str| folder.path().join(name);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = fs::rename(at("d"), at("e"));
                let _ = symlink("/", at("d"));
                let _ = fs::remove_file(at("d"));
                let _ = fs::rename(at("e"), at("d"));
                let _ = fs::write(at("d/g"), "g");
                let _ = fs::remove_file(at("d/g"));
            }
        });
        for _ in 0..rounds(1000, 30) {
            for args in [&["find", "/"][..], &["cat", "/d/g"], &["ls", "-lR", "/"]] {
                let outcome = busybox(&mut sandbox, args);
                assert!(matches!(outcome.exit, ExitStatus::Exited(_)), "{outcome:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

pub fn huge_folders_are_listed_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let count = if is_emulated() { 300 } else { 5000 };
    for index in 0..count {
        fs::write(
            folder
                .path()
                .join(format!("a-name-that-is-rather-long-{index}")),
            "",
        )
        .unwrap();
    }
    let mut sandbox = sandbox_with(SandboxOptions {
        root: Some(folder.path().to_owned()),
        limits: Limits {
            memory: 4 << 20,
            ..Limits::default()
        },
        ..SandboxOptions::default()
    });
    let script = "n=0; for f in /a-*; do n=$((n + 1)); done; echo $n";
    let output = text(busybox(&mut sandbox, &["ash", "-c", script]));
    assert_eq!(output, format!("{count}\n"));
}
