//! The agent as an ordinary process that dials a Unix socket: the whole command channel without a guest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation
)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const FRAME_LIMIT: usize = 16 * 1024 * 1024;

/// The host's side: what listens, and the agent that dials it.
struct Host {
    folder: TempDir,
    listener: Option<UnixListener>,
    agent: Child,
}

#[derive(Debug, PartialEq, Eq)]
struct Reply {
    stdout: String,
    stderr: String,
    exit_code: u8,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.sock_1024");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = Command::new(env!("CARGO_BIN_EXE_microvm-agent"))
            .arg("--unix")
            .arg(path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            folder,
            listener: Some(listener),
            agent,
        }
    }

    /// Waits for the agent to dial.
    fn accept(&self) -> UnixStream {
        let listener = self.listener.as_ref().unwrap();
        assert!(
            is_readable(listener.as_raw_fd()),
            "The agent should have dialed"
        );
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A FIFO lets a test wait for a command without polling: reading it blocks until the command has written.
    fn fifo(&self) -> PathBuf {
        let path = self.folder.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        path
    }

    /// Waits for the agent's end and returns what it has noted.
    fn notes_at_end(&mut self) -> String {
        assert!(self.agent.wait().unwrap().success());
        let mut notes = String::new();
        self.agent
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut notes)
            .unwrap();
        notes
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A test that has failed may leave it running.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn is_readable(fd: i32) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry is given and counted.
    unsafe { libc::poll(&raw mut poll, 1, PATIENCE.as_millis() as i32) == 1 }
}

fn pidfd_of(pid: &str) -> OwnedFd {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.trim().parse::<i32>().unwrap(), 0) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us alone.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn has_died(process: &OwnedFd) -> bool {
    is_readable(process.as_raw_fd())
}

fn send(stream: &mut UnixStream, command: impl AsRef<[u8]>) {
    let command = command.as_ref();
    stream
        .write_all(&u32::try_from(command.len()).unwrap().to_be_bytes())
        .unwrap();
    stream.write_all(command).unwrap();
}

fn read_part(stream: &mut UnixStream) -> String {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut content = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut content).unwrap();
    String::from_utf8(content).unwrap()
}

fn receive(stream: &mut UnixStream) -> Reply {
    let (stdout, stderr) = (read_part(stream), read_part(stream));
    let mut exit_code = [0];
    stream.read_exact(&mut exit_code).unwrap();
    Reply {
        stdout,
        stderr,
        exit_code: exit_code[0],
    }
}

fn exec(stream: &mut UnixStream, command: impl AsRef<[u8]>) -> Reply {
    send(stream, command);
    receive(stream)
}

fn reply(stdout: &str, stderr: &str, exit_code: u8) -> Reply {
    Reply {
        stdout: stdout.into(),
        stderr: stderr.into(),
        exit_code,
    }
}

#[test]
fn the_probe_has_an_empty_answer() {
    let host = Host::new();
    let mut stream = host.accept();
    assert_eq!(exec(&mut stream, ":"), reply("", "", 0));
}

#[test]
fn outputs_and_exit_code_come_back_apart() {
    let host = Host::new();
    let mut stream = host.accept();
    assert_eq!(
        exec(&mut stream, "echo out; echo err >&2; exit 7"),
        reply("out\n", "err\n", 7)
    );
    assert_eq!(exec(&mut stream, ""), reply("", "", 0));
    assert_eq!(exec(&mut stream, "exit 255"), reply("", "", 255));
    assert_eq!(
        exec(&mut stream, "exec 2>/dev/null; /nowhere/at-all"),
        reply("", "", 127)
    );
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    let host = Host::new();
    let mut stream = host.accept();
    assert_eq!(exec(&mut stream, "kill -9 $$").exit_code, 137);
    assert_eq!(exec(&mut stream, "kill -TERM $$").exit_code, 143);
    // Real-time signals have numbers that some libraries cannot read.
    assert_eq!(exec(&mut stream, "kill -40 $$").exit_code, 168);
    assert_eq!(exec(&mut stream, ":").exit_code, 0);
}

#[test]
fn a_command_gets_its_own_session_an_empty_input_and_default_signals() {
    let host = Host::new();
    let mut stream = host.accept();
    let answer = exec(&mut stream, "cat; echo /proc/self/fd/*");
    // 3 is the folder that the shell itself reads to expand the star.
    assert_eq!(answer.stdout.replace("/proc/self/fd/", ""), "0 1 2 3\n");
    let status = exec(&mut stream, "exec cat /proc/self/status /proc/self/stat").stdout;
    for field in ["SigBlk", "SigIgn"] {
        assert!(
            status.contains(&format!("{field}:\t0000000000000000")),
            "{status}"
        );
    }
    let stat = status.lines().last().unwrap();
    let pid = stat.split(' ').next().unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(
        (fields[2], fields[3]),
        (pid, pid),
        "process group and session"
    );
}

#[test]
fn commands_get_the_documented_environment() {
    let host = Host::new();
    let mut stream = host.accept();
    let environment = exec(&mut stream, "exec env").stdout;
    let mut lines: Vec<_> = environment
        .lines()
        .filter(|line| !line.starts_with("PWD="))
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "HOME=/root",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        ]
    );
}

#[test]
fn the_next_command_may_be_sent_before_the_answer() {
    let host = Host::new();
    let mut stream = host.accept();
    for command in ["echo one", "echo two", ":"] {
        send(&mut stream, command);
    }
    assert_eq!(receive(&mut stream), reply("one\n", "", 0));
    assert_eq!(receive(&mut stream), reply("two\n", "", 0));
    assert_eq!(receive(&mut stream), reply("", "", 0));
}

#[test]
fn output_of_many_full_pipes_arrives_whole() {
    let host = Host::new();
    let mut stream = host.accept();
    let lines = |count| {
        (1..=count)
            .map(|number| format!("{number}\n"))
            .collect::<String>()
    };
    let answer = exec(&mut stream, "seq 1 300000; seq 1 200000 >&2");
    assert!(answer.stdout == lines(300_000));
    assert!(answer.stderr == lines(200_000));
}

#[test]
fn an_output_over_the_limit_is_cut_and_the_command_runs_to_its_end() {
    let host = Host::new();
    let mut stream = host.accept();
    let over = FRAME_LIMIT + 100_000;
    let answer = exec(
        &mut stream,
        format!("head -c {over} /dev/zero; echo end >&2; exit 3"),
    );
    assert_eq!(answer.stdout.len(), FRAME_LIMIT);
    assert_eq!(
        answer.stderr,
        "end\nmicrovm-agent: standard output was cut after 16777216 bytes\n"
    );
    assert_eq!(answer.exit_code, 3);

    let answer = exec(&mut stream, format!("head -c {FRAME_LIMIT} /dev/zero >&2"));
    assert!(answer.stderr.len() <= FRAME_LIMIT);
    assert!(
        answer
            .stderr
            .ends_with("\nmicrovm-agent: standard error was cut after 16776960 bytes\n")
    );

    let answer = exec(&mut stream, format!("head -c {FRAME_LIMIT} /dev/zero"));
    assert_eq!(
        (answer.stdout.len(), answer.stderr.as_str()),
        (FRAME_LIMIT, "")
    );
}

#[test]
fn a_command_line_longer_than_an_argument_can_be_runs_too() {
    let host = Host::new();
    let mut stream = host.accept();
    for length in [128 * 1024 - 10, 128 * 1024 - 1, 128 * 1024, 1024 * 1024] {
        let (head, tail) = ("cat <<'END' | wc -c\n", "\nEND\nexit 5");
        let text = "x".repeat(length - head.len() - tail.len());
        let answer = exec(&mut stream, format!("{head}{text}{tail}"));
        assert_eq!(
            answer,
            reply(&format!("{}\n", text.len() + 1), "", 5),
            "{length}"
        );
    }
}

#[test]
fn a_command_with_a_nul_byte_is_refused() {
    let host = Host::new();
    let mut stream = host.accept();
    for command in [&b"echo a\0b"[..], b"\0unknown"] {
        let answer = exec(&mut stream, command);
        assert_eq!((answer.stdout.as_str(), answer.exit_code), ("", 126));
        assert!(answer.stderr.contains("NUL"), "{answer:?}");
    }
}

#[test]
fn a_command_over_the_limit_closes_the_connection_and_the_agent_dials_again() {
    let host = Host::new();
    let mut stream = host.accept();
    stream
        .write_all(&u32::try_from(FRAME_LIMIT + 1).unwrap().to_be_bytes())
        .unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(
        exec(&mut host.accept(), "echo again"),
        reply("again\n", "", 0)
    );
}

#[test]
fn a_background_process_that_keeps_the_outputs_does_not_keep_the_answer() {
    let host = Host::new();
    let mut stream = host.accept();
    let answer = exec(&mut stream, "echo first; sleep 1000 & echo $!");
    let (first, pid) = answer.stdout.split_once('\n').unwrap();
    assert_eq!(first, "first");
    let process = pidfd_of(pid);
    assert_eq!(
        exec(&mut stream, format!("kill -9 {pid}")).exit_code,
        0,
        "It should have lived on"
    );
    assert!(has_died(&process));
}

#[test]
fn a_background_process_that_never_stops_writing_does_not_keep_the_answer() {
    let host = Host::new();
    let mut stream = host.accept();
    assert_eq!(exec(&mut stream, "yes & exit 4").exit_code, 4);
    assert_eq!(exec(&mut stream, ":"), reply("", "", 0));
}

#[test]
fn when_the_host_closes_the_command_and_its_children_die_and_the_agent_dials_again() {
    let host = Host::new();
    let fifo = host.fifo();
    let mut stream = host.accept();
    send(
        &mut stream,
        format!("sleep 1000 & echo $! $$ >{}; wait", fifo.display()),
    );
    let pids = fs::read_to_string(fifo).unwrap();
    let processes: Vec<_> = pids.split_whitespace().map(pidfd_of).collect();
    assert_eq!(processes.len(), 2);

    drop(stream);

    assert!(processes.iter().all(has_died));
    assert_eq!(
        exec(&mut host.accept(), "echo alive"),
        reply("alive\n", "", 0)
    );
}

#[test]
fn a_command_dies_too_when_the_host_closes_as_soon_as_it_is_sent() {
    let host = Host::new();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = host.accept();
        send(&mut stream, "exec sleep 1000");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        streams.push(stream);
    }
    let mut stream = host.accept();
    let agent = host.agent.id();
    let children = exec(
        &mut stream,
        format!("cat /proc/{agent}/task/{agent}/children"),
    )
    .stdout;
    let mut sleeping = children.split_whitespace().filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.contains("State:\tS"))
    });
    assert_eq!(sleeping.next(), None, "{children}");
}

#[test]
fn a_host_that_closes_at_once_is_dialed_ever_less_often() {
    let host = Host::new();
    drop(host.accept());
    let start = Instant::now();
    for _ in 0..3 {
        drop(host.accept());
    }
    assert!(start.elapsed() >= Duration::from_millis(50 + 100 + 200 - 10));
    assert_eq!(exec(&mut host.accept(), ":"), reply("", "", 0));
}

#[test]
fn orphans_are_reaped() {
    let host = Host::new();
    let fifo = host.fifo();
    let mut stream = host.accept();
    // The shell leaves its child to the agent; the child lives until the FIFO was opened.
    let answer = exec(
        &mut stream,
        format!("{{ read line <{}; }} 2>/dev/null & echo $!", fifo.display()),
    );
    let pid = answer.stdout.trim();
    let orphan = pidfd_of(pid);
    drop(File::create(fifo).unwrap());
    assert!(has_died(&orphan));
    // The signal was there before the probe, and the agent's loop looks at signals first.
    assert_eq!(exec(&mut stream, ":"), reply("", "", 0));
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

#[test]
fn a_host_that_is_gone_for_good_ends_the_agent() {
    let mut host = Host::new();
    let mut stream = host.accept();
    assert_eq!(exec(&mut stream, ":"), reply("", "", 0));
    host.listener = None;
    drop(stream);
    let notes = host.notes_at_end();
    assert!(
        notes.contains("powering off: nobody listens on the host"),
        "{notes}"
    );
}

#[test]
fn power_off_is_answered_before_everything_ends() {
    let mut host = Host::new();
    let fifo = host.fifo();
    let mut stream = host.accept();
    let script = format!(
        "(trap 'echo terminated >{0}; exit' TERM; echo ready >{0}; while :; do sleep 1000 & wait; done) \
         >/dev/null 2>&1 &",
        fifo.display()
    );
    assert_eq!(exec(&mut stream, script).exit_code, 0);
    assert_eq!(fs::read_to_string(&fifo).unwrap(), "ready\n");

    assert_eq!(exec(&mut stream, b"\0poweroff"), reply("", "", 0));
    assert_eq!(
        stream.read(&mut [0]).unwrap(),
        0,
        "The agent should say that nothing more comes"
    );
    drop(stream);

    assert_eq!(fs::read_to_string(&fifo).unwrap(), "terminated\n");
    host.notes_at_end();
}

#[test]
fn a_host_that_keeps_the_channel_open_cannot_hold_up_the_power_off() {
    let mut host = Host::new();
    let mut stream = host.accept();
    assert_eq!(exec(&mut stream, b"\0poweroff"), reply("", "", 0));
    host.notes_at_end();
}

#[test]
fn processes_that_ignore_sigterm_are_killed() {
    let mut host = Host::new();
    let mut stream = host.accept();
    let answer = exec(
        &mut stream,
        "trap '' TERM; sleep 1000 >/dev/null 2>&1 & echo $!",
    );
    let stubborn = pidfd_of(&answer.stdout);
    exec(&mut stream, b"\0poweroff");
    drop(stream);
    assert!(has_died(&stubborn));
    host.notes_at_end();
}

#[test]
fn wrong_usage_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_microvm-agent"))
        .arg("--help")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--unix PATH"));
}
