//! Ports of the guest for the host: connections to what listens here, and listeners whose connections go to the host.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::http::HeaderValue;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;

use super::Api;
use super::answer::{self, Answer, Refusal};
use super::listen::{Patience, Socket};
use super::query::Query;
use super::tunnel;
use crate::console::note;

/// Every user of the guest may connect, as to a TCP port.
const FOR_ALL: u32 = 0o666;

/// Where to connect or listen, by its parameters.
#[derive(Debug)]
enum Place {
    Port(u16),
    Path(PathBuf),
}

impl Place {
    fn of(query: &Query) -> Result<Self, Refusal> {
        match (query.number("port")?, query.bytes("path")) {
            (Some(port), None) => Ok(Self::Port(port)),
            (None, Some(path)) => Ok(Self::Path(
                Path::new(std::ffi::OsStr::from_bytes(path)).into(),
            )),
            _ => Err(Refusal::bad_request("either port or path is needed")),
        }
    }
}

/// The listeners of the API, by numbers of its own.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    made: Cell<u64>,
    open: RefCell<HashMap<u64, Rc<PortListener>>>,
}

/// A socket of the guest that listens for the host.
#[derive(Debug)]
struct PortListener {
    socket: ListeningSocket,
    /// A Unix socket's, until nobody is to connect any more.
    file: RefCell<Option<SocketFile>>,
    closed: Notify,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Removes a socket's file, unless another one has its name by now.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// `POST /v1/connect`: connects within the guest; the bodies are the connection's bytes.
pub(crate) async fn connect(query: &Query, body: Incoming) -> Result<Answer, Refusal> {
    let socket = match Place::of(query)? {
        Place::Port(port) => dial(port).await?,
        Place::Path(path) => UnixStream::connect(path).await?,
    };
    Ok(tunnel::answer(socket, body))
}

/// `POST /v1/listen`: listens until the request ends.
pub(crate) async fn listen(query: &Query, api: Rc<Api>) -> Result<Answer, Refusal> {
    let listener = PortListener::bind(Place::of(query)?).await?;
    let port = listener.port()?;
    let id = api.listeners.add(listener);
    let mut answer = answer::stream(Listening { id, api });
    let headers = answer.headers_mut();
    headers.insert("listener", HeaderValue::from(id));
    if let Some(port) = port {
        headers.insert("port", HeaderValue::from(port));
    }
    Ok(answer)
}

/// `POST /v1/listeners/ID/accept`: waits for a connection; the bodies are its bytes.
pub(crate) async fn accept(id: &str, api: &Api, body: Incoming) -> Result<Answer, Refusal> {
    let closed = || Refusal::not_found("this listener is closed");
    let listener = id
        .parse()
        .ok()
        .and_then(|id| api.listeners.open.borrow().get(&id).map(Rc::clone))
        .ok_or_else(closed)?;
    let socket = listener.accept().await.ok_or_else(closed)?;
    Ok(tunnel::answer(socket, body))
}

/// The guest's own addresses: most programs listen at the first, some at the second alone.
async fn dial(port: u16) -> io::Result<Socket> {
    let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut refusal = None;
    for address in local {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return of_tcp(stream),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
}

fn of_tcp(stream: TcpStream) -> io::Result<Socket> {
    // Both ends of the way have buffers of their own; nothing here waits for more.
    stream.set_nodelay(true)?;
    tunnel::socket(stream.into_std()?)
}

impl Listeners {
    fn add(&self, listener: PortListener) -> u64 {
        let id = self.made.get().saturating_add(1);
        self.made.set(id);
        self.open.borrow_mut().insert(id, Rc::new(listener));
        id
    }

    fn remove(&self, id: u64) {
        if let Some(listener) = self.open.borrow_mut().remove(&id) {
            listener.close();
        }
    }
}

impl PortListener {
    async fn bind(place: Place) -> io::Result<Self> {
        let (socket, file) = match place {
            Place::Port(port) => {
                let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
                let listener = TcpListener::bind(address).await?;
                (ListeningSocket::Tcp(listener), None)
            }
            Place::Path(path) => {
                let listener = UnixListener::bind(&path)?;
                let file = SocketFile::new(path)?;
                fs::set_permissions(&file.path, fs::Permissions::from_mode(FOR_ALL))?;
                (ListeningSocket::Unix(listener), Some(file))
            }
        };
        Ok(Self {
            socket,
            file: RefCell::new(file),
            closed: Notify::new(),
        })
    }

    /// The port, which the kernel may have chosen.
    fn port(&self) -> io::Result<Option<u16>> {
        match &self.socket {
            ListeningSocket::Tcp(listener) => Ok(Some(listener.local_addr()?.port())),
            ListeningSocket::Unix(_) => Ok(None),
        }
    }

    /// The next connection; `None` when it is closed first.
    async fn accept(&self) -> Option<Socket> {
        let mut closed = pin!(self.closed.notified());
        let mut accepted = pin!(self.socket.accept());
        poll_fn(|context| match closed.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => accepted.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// Ends the wait of those who accept, and with it the listening.
    fn close(&self) {
        self.file.borrow_mut().take();
        self.closed.notify_waiters();
    }
}

impl ListeningSocket {
    async fn accept(&self) -> Socket {
        let mut patience = Patience::default();
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| of_tcp(stream)),
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Ok(stream)),
            };
            match accepted {
                Ok(Ok(socket)) => return socket,
                // Whoever made that connection sees it closed.
                Ok(Err(error)) => note(format_args!("a connection was lost: {error}")),
                Err(error) => patience.after(&error).await,
            }
        }
    }
}

impl SocketFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let status = fs::symlink_metadata(path)?;
    Ok((status.dev(), status.ino()))
}

/// The body of a listener's request: it says nothing, and lasts as long as the host wants to listen.
struct Listening {
    id: u64,
    api: Rc<Api>,
}

impl Body for Listening {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        // Whoever polls it drops it when the request is reset.
        Poll::Pending
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.api.listeners.remove(self.id);
    }
}
