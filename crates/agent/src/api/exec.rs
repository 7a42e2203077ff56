//! `POST /v1/exec`: starts a program; its streams and its end are this request's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use hyper::body::{Body, Incoming};
use hyper::http::HeaderValue;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::Api;
use super::accounts::Identity;
use super::answer::{self, Answer, Refusal};
use super::output::{Output, ProcessOutput};
use super::process::{Child, Process};
use super::spawn::{Program, REPORT_BYTES, Step, Streams, failed_step};
use super::specification::{self, Specification};
use super::stdin::Input;
use super::terminal::{self, Terminal};
use super::watched::watch;
use crate::shell::{self, ARGUMENT_LIMIT};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOME: &str = "/root";

/// Both sides of a process's streams.
struct Wiring {
    /// None where there is nothing to read.
    input: Option<Input>,
    outputs: Vec<Output>,
    /// The child's side, closed here once it has been made.
    child: Vec<OwnedFd>,
    terminal: Option<OwnedFd>,
}

pub(crate) async fn start(mut body: Incoming, api: Rc<Api>) -> Result<Answer, Refusal> {
    let (specification, first) = specification::read(&mut body).await?;
    let (program, script) = program(&specification)?;
    let wiring = match specification.terminal {
        Some(size) => on_terminal(terminal::open(size)?)?,
        None => on_pipes(first.is_empty() && body.is_end_stream())?,
    };
    if let Some((uid, gid)) = program.owner() {
        // So that it may open its streams anew, as `/dev/stdout`. The empty device is everybody's.
        let everybodys = usize::from(wiring.input.is_none());
        for stream in wiring.child.iter().skip(everybodys) {
            fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(io::Error::from)?;
        }
    }
    let streams = match wiring.child.as_slice() {
        [stdin, stdout, stderr] => Streams::Pipes([stdin, stdout, stderr].map(AsRawFd::as_raw_fd)),
        [terminal] => Streams::Terminal(terminal.as_raw_fd()),
        _ => return Err(Refusal::failed("EIO", "a process has three streams")),
    };

    let (report, child_report) =
        pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(io::Error::from)?;
    let group = api.groups.borrow_mut().take();
    let made = api.children.make(|| {
        let folder = group.as_ref().map(|group| group.folder.as_fd());
        program.spawn(streams, child_report.as_raw_fd(), folder)
    });
    let (pid, exit) = match made {
        Ok(made) => made,
        Err(error) => {
            if let Some(group) = group {
                api.give_back(group);
            }
            return Err(error.into());
        }
    };
    // From here on it is ended with this request, however that ends.
    let child = Child {
        pid,
        group,
        terminal: wiring.terminal,
        detached: specification.detached,
        script,
    };
    let process = Process::new(&api, child);
    drop((wiring.child, child_report));
    if let Some((step, error)) = failed_step(&read_report(report).await?) {
        return Err(not_started(step, &error, &specification));
    }

    if let Some(input) = wiring.input {
        let fill = tokio::task::spawn_local(input.fill(first, body));
        *process.input.borrow_mut() = Some(fill.abort_handle());
    }
    let (id, pid) = (process.id, process.pid.as_raw());
    let output = ProcessOutput::new(process, exit, wiring.outputs);
    let mut answer = answer::stream(output);
    let headers = answer.headers_mut();
    headers.insert("process", HeaderValue::from(id));
    headers.insert("pid", HeaderValue::from(pid));
    Ok(answer)
}

/// The program, and what has to stay open until it has been started.
fn program(wanted: &Specification) -> Result<(Program, Option<OwnedFd>), Refusal> {
    let identity = Identity::of(wanted.user.as_deref(), wanted.group.as_deref())?;
    let home = identity
        .as_ref()
        .and_then(|identity| identity.home.as_deref());
    let mut environment = wanted.env.clone();
    for (name, value) in [("PATH", PATH), ("HOME", home.unwrap_or(HOME))] {
        environment
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    let path = environment.get("PATH").cloned().unwrap_or_default();
    let mut argv = wanted.argv.clone();
    let mut script = None;
    if let Some(line) = &wanted.script {
        let mut line = line.clone();
        if line.len() >= ARGUMENT_LIMIT {
            let whole = std::ffi::CString::new(line).map_err(holds_nul)?;
            let (file, short) = shell::script_of(&whole)?;
            line = short.to_string_lossy().into_owned();
            script = Some(file);
        }
        argv.extend(["-c".to_owned(), line]);
    }
    if argv.first().is_none_or(String::is_empty) {
        return Err(Refusal::bad_request("there is no program to run"));
    }
    let program = Program::new(&argv, environment.into_iter(), &path, &wanted.cwd, identity)
        .map_err(holds_nul)?;
    Ok((program, script))
}

fn holds_nul(_: std::ffi::NulError) -> Refusal {
    Refusal::bad_request("a text holds a NUL byte")
}

/// Three pipes; where there is nothing to read the first is the empty device, which takes fewer system calls.
fn on_pipes(nothing_to_read: bool) -> io::Result<Wiring> {
    let nothing = nothing_to_read.then(|| File::open("/dev/null"));
    let (input, child_stdin) = match nothing {
        Some(Ok(nothing)) => (None, nothing.into()),
        // A guest may have taken the device away.
        Some(Err(_)) | None => {
            let (child_stdin, stdin) = pipe2(OFlag::O_CLOEXEC)?;
            (Some(Input::new(nonblocking(stdin)?, false)?), child_stdin)
        }
    };
    let (stdout, child_stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, child_stderr) = pipe2(OFlag::O_CLOEXEC)?;
    Ok(Wiring {
        input,
        outputs: vec![
            Output::new(1, nonblocking(stdout)?, false)?,
            Output::new(2, nonblocking(stderr)?, false)?,
        ],
        child: vec![child_stdin, child_stdout, child_stderr],
        terminal: None,
    })
}

/// Whether an end blocks is a property of that end alone, so the child's do.
fn nonblocking(own: OwnedFd) -> io::Result<OwnedFd> {
    fcntl(&own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(own)
}

fn on_terminal(terminal: Terminal) -> io::Result<Wiring> {
    let Terminal { master, slave } = terminal;
    Ok(Wiring {
        input: Some(Input::new(master.try_clone()?, true)?),
        outputs: vec![Output::new(1, master.try_clone()?, true)?],
        child: vec![slave],
        terminal: Some(master),
    })
}

/// What the child says of its start; empty when the program has begun.
async fn read_report(report: OwnedFd) -> io::Result<Vec<u8>> {
    let report = watch(report)?;
    let mut bytes = [0; REPORT_BYTES];
    loop {
        let mut ready = report.readable().await?;
        // A report is written at once, so it is read at once.
        if let Ok(count) =
            ready.try_io(|report| Ok(nix::unistd::read(report.get_ref(), &mut bytes)?))
        {
            return Ok(bytes.get(..count?).unwrap_or_default().to_vec());
        }
    }
}

fn not_started(step: Step, error: &io::Error, wanted: &Specification) -> Refusal {
    let reason = Refusal::from(io::Error::from_raw_os_error(
        error.raw_os_error().unwrap_or(0),
    ));
    match step {
        Step::Folder => Refusal::failed("cwd", format!("{}: {reason}", wanted.cwd)),
        Step::Identity => Refusal::failed("identity", format!("cannot become the user: {reason}")),
        Step::Terminal => {
            Refusal::failed("terminal", format!("cannot take the terminal: {reason}"))
        }
    }
}
