//! Programs that are built once, and sandboxes that run them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use microvm_ring3::{KvmOptions, KvmPlatform, Platform, open_device};
use microvm_ring3_linux::{
    ExitStatus, Limits, Machine, Outcome, Program, Run, Sandbox, SandboxOptions,
};

/// The static busybox that the set-up has unpacked, or else the machine's own.
pub fn busybox_path() -> PathBuf {
    std::env::var_os("MICROVM_TEST_BUSYBOX").map_or_else(|| "/bin/busybox".into(), PathBuf::from)
}

/// Far more than any of it takes, on a busy or emulated machine too.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Whether this is the emulated machine, which takes a hundred times as long.
pub fn is_emulated() -> bool {
    std::env::var_os("MICROVM_LAB").is_some()
}

/// As often as there is time for.
pub fn rounds(many: usize, few: usize) -> usize {
    if std::env::var_os("MICROVM_SOAK").is_some() {
        many
    } else if is_emulated() {
        few.div_ceil(10)
    } else {
        few
    }
}

/// A machine that many tests share, for it takes some time to make one.
pub fn machine() -> Arc<Machine> {
    static SHARED: LazyLock<Arc<Machine>> = LazyLock::new(new_machine);
    Arc::clone(&SHARED)
}

pub fn new_machine() -> Arc<Machine> {
    let options = KvmOptions { vcpus: Some(2) };
    let platform: Arc<dyn Platform> =
        Arc::new(KvmPlatform::new(open_device(None).unwrap(), options).unwrap());
    Machine::new(platform)
}

/// A sandbox whose runs end in time, whatever happens.
pub fn sandbox_with(options: SandboxOptions) -> Sandbox {
    let limits = Limits {
        wall_time: Some(options.limits.wall_time.unwrap_or(PATIENCE)),
        ..options.limits
    };
    Sandbox::on(&machine(), SandboxOptions { limits, ..options }).unwrap()
}

pub fn sandbox() -> Sandbox {
    sandbox_with(SandboxOptions::default())
}

/// A sandbox that sees a folder of the host.
pub fn sandbox_in(root: &Path) -> Sandbox {
    sandbox_with(SandboxOptions {
        root: Some(root.to_owned()),
        ..SandboxOptions::default()
    })
}

/// Runs busybox.
pub fn busybox(sandbox: &mut Sandbox, args: &[&str]) -> Outcome {
    let program = Program::at(busybox_path()).args(args);
    sandbox.run(program, Run::default()).unwrap()
}

/// What a program wrote, if it ended well.
#[track_caller]
pub fn text(outcome: Outcome) -> String {
    let stderr = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert_eq!(
        outcome.exit,
        ExitStatus::Exited(0),
        "{stderr} {:?} {:?} {:?}",
        outcome.crash,
        outcome.limit,
        outcome.unsupported
    );
    String::from_utf8(outcome.stdout).unwrap()
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/sources")
}

/// Builds something once for each version of its source and command.
fn built(name: &str, inputs: &[PathBuf], command: impl Fn(&Path) -> Command) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    for input in inputs {
        std::fs::read(input).unwrap().hash(&mut hasher);
    }
    format!("{:?}", command(Path::new(""))).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{name}-{:016x}", hasher.finish()));
    if !path.exists() {
        let new = folder.join(format!("{name}-{}.new", std::process::id()));
        let output = command(&new).output().unwrap();
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::rename(new, &path).unwrap();
    }
    path
}

/// A program of C, at a fixed address or not.
pub fn c_program(name: &str, options: &[&str]) -> PathBuf {
    let source = sources().join(format!("{name}.c"));
    built(name, std::slice::from_ref(&source), |output| {
        let mut command = Command::new("gcc");
        command.args(["-O2", "-w", "-o"]).arg(output).arg(&source);
        command.args(options).arg("-lm");
        command
    })
}

/// A program of C as most of them are built here.
pub fn c(name: &str) -> PathBuf {
    c_program(name, &["-static"])
}

/// A program of Rust with glibc in it.
pub fn rust_program(name: &str) -> PathBuf {
    let source = sources().join(format!("{name}.rs"));
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    built(name, std::slice::from_ref(&source), |output| {
        let mut command = Command::new(&rustc);
        command.args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-o",
        ]);
        command.arg(output).arg(&source);
        command
    })
}

/// The Lua interpreter, with a main function of our own.
pub fn lua() -> PathBuf {
    let source = sources().join("lua-main.c");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lua-5.4");
    let library = folder.join("lib/liblua5.4.a");
    if !library.exists() {
        let target = "x86_64-unknown-linux-gnu";
        lua_src::Build::new()
            .target(target)
            .host(target)
            .opt_level("2")
            .debug(false)
            .out_dir(&folder)
            .build(lua_src::Lua54);
    }
    built("lua", std::slice::from_ref(&source), |output| {
        let mut command = Command::new("gcc");
        command
            .args(["-O2", "-w", "-static", "-I"])
            .arg(folder.join("include"));
        command
            .arg("-o")
            .arg(output)
            .arg(&source)
            .arg(&library)
            .arg("-lm");
        command
    })
}
