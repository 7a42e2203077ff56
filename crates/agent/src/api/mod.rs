//! The agent API: processes, files and ports for the host, over HTTP/2 with prior knowledge.
//!
//! A thread of its own with one tokio runtime, so everything below may share without locks. The host dials vsock port
//! 1025; nobody else may. Each request is one stream: its end, however it comes, ends what it has started. What is slow to
//! read holds back what is read from pipes, so a host that does not read costs a bounded number of bytes here.
//! `docs/agent-api.md` is the contract.

mod accounts;
mod answer;
mod archive;
mod content;
mod copy_file;
mod exec;
mod files;
mod lasting;
mod listen;
mod output;
mod ports;
mod process;
mod query;
mod route;
mod spawn;
mod specification;
mod stdin;
mod terminal;
mod tunnel;
mod watch;
mod watched;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::cgroup::{CommandGroup, CommandGroups};
use crate::children::Children;
use crate::console::note;
use listen::{Listener, Socket};
use ports::Listeners;
use process::Processes;

/// The guest's port.
const PORT: u32 = 1025;
/// Streams that a connection may have at once; the host's client queues the rest.
const STREAMS: u32 = 1024;
/// Bytes that may be on their way to a request that does not take them. The connection has room for all streams, so that
/// one that is stuck never holds up another.
const STREAM_WINDOW: u32 = 128 * 1024;
/// What is read at once for a body: with its own head, and that of the HTTP/2 frame, no more than a packet of the vsock
/// takes (64 KiB on Linux), which would be followed by one of a few bytes.
const PIECE_BYTES: usize = 64 * 1024 - 32;
/// Bytes of a response that wait for the host.
const SEND_BUFFER: usize = 128 * 1024;
const HEADER_BYTES: u32 = 64 * 1024;
/// A stack for calls that may block: they are shallow.
const BLOCKING_STACK: usize = 256 * 1024;
const BLOCKING_THREADS: usize = 16;

/// Where the API is served.
#[derive(Debug)]
pub(crate) enum Address {
    /// Port 1025 of this guest, for the host alone.
    Vsock,
    /// A Unix socket, for an agent that is run by hand.
    Unix(PathBuf),
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Api {
    children: Arc<Children>,
    groups: RefCell<CommandGroups>,
    /// A group was given back.
    untidy: Notify,
    processes: Processes,
    listeners: Listeners,
}

/// Starts to serve. When it returns, the host can connect; where that cannot be had, it is noted and the guest does
/// without.
pub(crate) fn start(address: Address, children: Arc<Children>, groups: CommandGroups) {
    let started = Listener::bind(&address).and_then(|listener| {
        thread::Builder::new()
            .name("agent-api".to_owned())
            .spawn(move || {
                if let Err(error) = run(listener, children, groups) {
                    note(format_args!("the agent API has ended: {error}"));
                }
            })
    });
    if let Err(error) = started {
        note(format_args!("no agent API: {error}"));
    }
}

fn run(listener: Listener, children: Arc<Children>, groups: CommandGroups) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(BLOCKING_STACK)
        .build()?;
    let api = Rc::new(Api {
        children,
        groups: RefCell::new(groups),
        untidy: Notify::new(),
        processes: Processes::default(),
        listeners: Listeners::default(),
    });
    LocalSet::new().block_on(&runtime, async move {
        let listener = listener.listen()?;
        tokio::task::spawn_local(keep_tidy(Rc::clone(&api)));
        loop {
            let socket = listener.accept().await?;
            tokio::task::spawn_local(serve(socket, Rc::clone(&api)));
        }
    })
}

/// Does what no command has to wait for, once the answers are on their way.
async fn keep_tidy(api: Rc<Api>) {
    loop {
        api.groups.borrow_mut().tidy();
        api.untidy.notified().await;
    }
}

impl Api {
    /// Takes the control group of a process back that has ended, or was not made.
    fn give_back(&self, group: CommandGroup) {
        self.groups.borrow_mut().give_back(group);
        self.untidy.notify_one();
    }
}

async fn serve(socket: Socket, api: Rc<Api>) {
    let service = service_fn(move |request| route::answer(request, Rc::clone(&api)));
    // A connection that ends in the middle is told by what it leaves behind: its processes are ended.
    let _ = http2::Builder::new(OnThisThread)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(STREAMS))
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_BYTES)
        // The host may give up as many requests as it likes.
        .max_pending_accept_reset_streams(usize::MAX)
        .max_local_error_reset_streams(None)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

/// Runs hyper's own tasks.
#[derive(Debug, Clone, Copy)]
struct OnThisThread;

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
