//! The agent as an ordinary process whose API listens at a Unix socket: what it does about its connections.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
/// How many connections wait until they are accepted: one more would have to wait to connect.
const BACKLOG: usize = 16;

/// A client begins with this (RFC 9113, section 3.4): the preface, and a frame of settings, which may be empty.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const FRAME_HEAD: usize = 9;
const SETTINGS: u8 = 4;

struct Agent {
    folder: TempDir,
    process: Child,
    notes: BufReader<ChildStderr>,
    /// It ends when this does.
    _channel: UnixStream,
}

impl Agent {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let channel = folder.path().join("channel");
        let listener = UnixListener::bind(&channel).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_microvm-agent"))
            .arg("--unix")
            .arg(channel)
            .arg("--api")
            .arg(folder.path().join("api"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let notes = BufReader::new(process.stderr.take().unwrap());
        // The API listens before the agent dials.
        let (channel, _) = listener.accept().unwrap();
        Self {
            folder,
            process,
            notes,
            _channel: channel,
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(self.folder.path().join("api"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Its descriptors.
    fn descriptors(&self) -> Vec<usize> {
        fs::read_dir(PathBuf::from(format!("/proc/{}/fd", self.process.id())))
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect()
    }

    fn limit_descriptors(&self, count: usize) {
        let limit = libc::rlimit {
            rlim_cur: count as libc::rlim_t,
            rlim_max: count as libc::rlim_t,
        };
        let pid = libc::pid_t::try_from(self.process.id()).unwrap();
        // SAFETY: the structure lives through the call, and no old limit is asked for.
        let result = unsafe {
            libc::prlimit(
                pid,
                libc::RLIMIT_NOFILE,
                &raw const limit,
                std::ptr::null_mut(),
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until the agent has answered as a server of HTTP/2.
fn is_served(mut stream: &UnixStream) {
    stream.write_all(PREFACE).unwrap();
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], SETTINGS);
}

#[test]
fn an_agent_without_descriptors_for_more_connections_goes_on_when_it_has_some_again() {
    let mut agent = Agent::new();
    let mut connections = vec![agent.connect().unwrap()];
    is_served(&connections[0]);
    let used = agent.descriptors();
    let limit = used.iter().max().unwrap() + 4;
    agent.limit_descriptors(limit);
    // As many as it can take, and some that wait.
    let free = limit - used.len();
    assert!(free > 0);
    for _ in 0..free + BACKLOG / 2 {
        connections.push(agent.connect().unwrap());
    }
    let mut note = String::new();
    agent.notes.read_line(&mut note).unwrap();
    assert!(note.contains("a connection has to wait"), "{note}");
    drop(connections);
    is_served(&agent.connect().unwrap());
}
