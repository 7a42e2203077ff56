//! The host's end: Unix sockets by the hybrid convention.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, connect, listen, recv, send, socket_with,
};

use crate::VsockError;

/// Longest address of a Unix socket, without its final NUL.
const MAX_ADDRESS: usize = 107;
/// Longest suffix that a port makes: `_4294967295`.
const MAX_SUFFIX: usize = 11;
/// Longest line that a client may send, its newline included. `CONNECT 4294967295\r\n` takes 20.
const MAX_LINE: usize = 32;
/// Clients that may wait to be accepted; the system's own limit applies too.
const BACKLOG: i32 = 1024;

/// The listening socket of one device. Its file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct HostSocket {
    listener: OwnedFd,
    path: PathBuf,
}

impl HostSocket {
    /// Listens at `path`, which only the owner may connect to.
    pub(crate) fn listen(path: &Path) -> Result<Self, VsockError> {
        let limit = MAX_ADDRESS - MAX_SUFFIX;
        let length = path.as_os_str().len();
        if length > limit {
            return Err(VsockError::PathTooLong {
                path: path.to_owned(),
                length,
                limit,
            });
        }
        let listener = private_listener(path).map_err(|source| VsockError::Listen {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Takes the next waiting client; `WouldBlock` where there is none.
    pub(crate) fn accept(&self) -> io::Result<OwnedFd> {
        Ok(accept_with(
            &self.listener,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        )?)
    }

    /// Connects to whoever listens for the guest's connections to `port`. It never waits: a
    /// listener whose backlog is full gives `AGAIN`.
    pub(crate) fn connect(&self, port: u32) -> Result<OwnedFd, Errno> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let address = SocketAddrUnix::new(Path::new(&path))?;
        let socket = stream_socket()?;
        connect(&socket, &address)?;
        Ok(socket)
    }
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        // It may be gone already, with the folder that it was in.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens at `path` with mode 0600 from its first moment on. Neither the descriptor nor those that
/// it accepts block; the file stays when it is closed.
///
/// # Errors
///
/// With the kernel's refusal; `InvalidInput` for a path that no file can have.
pub fn private_listener(path: &Path) -> io::Result<OwnedFd> {
    if path.as_os_str().is_empty() || path.as_os_str().as_bytes().contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let address = SocketAddrUnix::new(path)?;
    let socket = stream_socket()?;
    // `bind` gives the file the mode that the unbound socket has, so there is no moment at which
    // others could connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// What a client's first line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FirstLine {
    /// The line is not whole yet.
    Incomplete,
    /// A connection to this guest port.
    Connect(u32),
    /// The client is gone, or does not keep to the convention.
    Invalid,
}

/// Reads a client's first line, and not one byte of what follows it: that belongs to the guest.
#[derive(Debug, Default)]
pub(crate) struct FirstLineReader {
    line: Vec<u8>,
}

impl FirstLineReader {
    /// Reads what is there.
    pub(crate) fn read(&mut self, socket: BorrowedFd<'_>) -> FirstLine {
        let mut piece = [0; MAX_LINE];
        loop {
            let room = MAX_LINE.saturating_sub(self.line.len());
            let Some(target) = piece.get_mut(..room).filter(|target| !target.is_empty()) else {
                return FirstLine::Invalid;
            };
            // A look first, then exactly the bytes that belong to the line. A look shows no more
            // than one write of the client, so the line may come in several rounds.
            let seen = match recv(socket, &mut *target, RecvFlags::PEEK) {
                Ok((0, _)) => return FirstLine::Invalid,
                Ok((seen, _)) => seen,
                Err(error) if would_block(&error.into()) => return FirstLine::Incomplete,
                Err(_) => return FirstLine::Invalid,
            };
            let end = target.iter().take(seen).position(|byte| *byte == b'\n');
            let wanted = end.map_or(seen, |end| end + 1);
            let Some(target) = target.get_mut(..wanted) else {
                return FirstLine::Invalid;
            };
            match recv(socket, &mut *target, RecvFlags::empty()) {
                Ok((taken, _)) if taken == wanted => self.line.extend_from_slice(target),
                _ => return FirstLine::Invalid,
            }
            if end.is_some() {
                return parse_connect(&self.line).map_or(FirstLine::Invalid, FirstLine::Connect);
            }
        }
    }
}

/// Tells a client that the guest accepted. A fresh socket has room for it.
pub(crate) fn write_accepted(socket: BorrowedFd<'_>, host_port: u32) -> io::Result<()> {
    let line = format!("OK {host_port}\n");
    let sent = send(
        socket,
        line.as_bytes(),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?;
    if sent == line.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Whether an error only says that there is nothing to do now.
pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn parse_connect(line: &[u8]) -> Option<u32> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let digits = line.strip_prefix(b"CONNECT ")?;
    // `parse` alone would take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn first_line_of(bytes: &[u8]) -> (FirstLine, UnixStream, UnixStream) {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        client.write_all(bytes).unwrap();
        (
            FirstLineReader::default().read(server.as_fd()),
            client,
            server,
        )
    }

    #[test]
    fn a_whole_line_names_the_port_and_leaves_what_follows() {
        let (line, client, mut server) = first_line_of(b"CONNECT 1024\nhello");
        assert_eq!(line, FirstLine::Connect(1024));
        drop(client);
        let mut rest = String::new();
        server.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "hello");
    }

    #[test]
    fn a_line_in_pieces_is_waited_for() {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut reader = FirstLineReader::default();
        for piece in ["CON", "NECT 42949", "67295\r"] {
            client.write_all(piece.as_bytes()).unwrap();
            assert_eq!(reader.read(server.as_fd()), FirstLine::Incomplete);
        }
        client.write_all(b"\nrest").unwrap();
        assert_eq!(
            reader.read(server.as_fd()),
            FirstLine::Connect(4_294_967_295)
        );
    }

    #[test]
    fn a_client_that_leaves_early_is_refused() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        assert_eq!(
            FirstLineReader::default().read(server.as_fd()),
            FirstLine::Invalid
        );
    }

    #[test]
    fn lines_that_break_the_convention_are_refused() {
        for line in [
            "connect 1\n",
            "CONNECT\n",
            "CONNECT \n",
            "CONNECT +1\n",
            "CONNECT -1\n",
            "CONNECT 4294967296\n",
            "CONNECT 1 2\n",
            "GET / HTTP/1.1\r\n",
            "\n",
        ] {
            assert_eq!(
                first_line_of(line.as_bytes()).0,
                FirstLine::Invalid,
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_once_it_is_too_long() {
        assert_eq!(first_line_of(&[b'C'; 31]).0, FirstLine::Incomplete);
        assert_eq!(first_line_of(&[b'C'; 32]).0, FirstLine::Invalid);
    }
}
