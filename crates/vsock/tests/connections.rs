//! What programs of both sides see, with the device in either host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use support::{Guest, Layout, op};

type NewGuest<'a> = &'a dyn Fn() -> Guest;

in_both_hosts!(
    the_guest_reaches_a_listener_of_the_host,
    the_host_reaches_a_listener_of_the_guest,
    a_guest_port_where_nobody_listens_ends_the_clients_stream,
    a_host_port_where_nobody_listens_is_refused_at_once,
    bytes_sent_right_behind_the_first_line_arrive,
    every_layout_of_descriptors_carries_the_same_bytes,
    megabytes_flow_both_ways_at_once,
    the_end_of_the_hosts_bytes_leaves_the_other_way_open,
    the_end_of_the_guests_bytes_leaves_the_other_way_open,
    a_closing_guest_has_its_last_bytes_delivered_first,
    a_closing_host_has_its_last_bytes_delivered_first,
    a_guest_that_stops_receiving_gives_the_host_a_broken_pipe,
    a_host_that_stops_reading_gives_the_guest_a_shutdown,
    two_hundred_connections_at_once_keep_their_bytes_apart,
    a_slow_reader_on_the_host_stalls_only_itself,
    a_slow_reader_in_the_guest_stalls_only_itself,
    without_receive_buffers_nothing_is_lost,
    a_reset_of_the_driver_ends_connections_and_keeps_the_listener,
    a_client_that_came_before_the_driver_is_served_after_it,
    the_socket_is_private_and_goes_with_the_device,
    the_configuration_holds_the_cid,
);

fn the_guest_reaches_a_listener_of_the_host(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.send(socket, b"ping");
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
    stream.write_all(b"pong").unwrap();
    assert_eq!(guest.receive(socket, 4), b"pong");
}

fn the_host_reaches_a_listener_of_the_guest(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_host();
    stream.write_all(b"ping").unwrap();
    assert_eq!(guest.receive(socket, 4), b"ping");
    guest.send(socket, b"pong");
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"pong");
}

fn a_guest_port_where_nobody_listens_ends_the_clients_stream(new: NewGuest<'_>) {
    let mut guest = new();
    let mut stream = guest.host_dials(77);
    guest.pump();
    assert_eq!(support::read_all(&mut stream), b"");
}

fn a_host_port_where_nobody_listens_is_refused_at_once(new: NewGuest<'_>) {
    let mut guest = new();
    guest.connect(4321).unwrap_err();
    // A socket file whose listener is gone refuses in the same way.
    drop(guest.host_listens(4322));
    guest.connect(4322).unwrap_err();
}

fn bytes_sent_right_behind_the_first_line_arrive(new: NewGuest<'_>) {
    let mut guest = new();
    guest.listening.insert(9);
    let mut stream = guest.host_connects();
    stream.write_all(b"CONNECT 9\nearly").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let socket = guest.accept();
    assert_eq!(guest.receive_to_end(socket), b"early");
    guest.send(socket, b"late");
    guest.shut_down(socket, 3);
    guest.wait_for_reset(socket);
    let expected = format!("OK {}\nlate", socket.host);
    assert_eq!(support::read_all(&mut stream), expected.as_bytes());
}

fn every_layout_of_descriptors_carries_the_same_bytes(new: NewGuest<'_>) {
    let mut guest = new();
    for layout in [Layout::One, Layout::Two, Layout::Many, Layout::Indirect] {
        guest.driver.layout = layout;
        let (socket, mut stream) = guest.pair_from_guest();
        for count in [1, 15, 17, 999, 5000, 65_536] {
            let bytes = pattern(count, 7);
            guest.send(socket, &bytes);
            let mut got = vec![0; count];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, bytes, "{layout:?} with {count} bytes");
        }
    }
}

fn megabytes_flow_both_ways_at_once(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, stream) = guest.pair_from_guest();
    let bytes = pattern(3 << 20, 1);
    let echo = std::thread::spawn(move || echo(stream));
    let mut sent = 0;
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        if sent < bytes.len() {
            let count = guest.send_some(socket, &bytes[sent..]);
            sent += count;
            if count > 0 {
                guest.pump_what_is_there();
                continue;
            }
        }
        guest.pump();
        let there = guest.sockets[&socket].inbox.len();
        got.extend(guest.receive(socket, there));
    }
    assert!(got == bytes);
    guest.shut_down(socket, 2);
    echo.join().unwrap();
}

fn the_end_of_the_hosts_bytes_leaves_the_other_way_open(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.receive_to_end(socket), b"question");
    assert_eq!(guest.sockets[&socket].peer_shutdown, 2);
    guest.send(socket, b"answer");
    guest.shut_down(socket, 3);
    assert_eq!(support::read_all(&mut stream), b"answer");
    guest.wait_for_reset(socket);
}

fn the_end_of_the_guests_bytes_leaves_the_other_way_open(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.send(socket, b"question");
    guest.shut_down(socket, 2);
    assert_eq!(support::read_all(&mut stream), b"question");
    stream.write_all(b"answer").unwrap();
    assert_eq!(guest.receive(socket, 6), b"answer");
    drop(stream);
    guest.wait_for_reset(socket);
}

fn a_closing_guest_has_its_last_bytes_delivered_first(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    let bytes = fill_until_stalled(&mut guest, socket, &stream);
    guest.shut_down(socket, 3);
    // The guest loses patience, as Linux does after eight seconds.
    guest.send_control(socket, op::RST, 0);
    guest.driver.wait_for_tx();
    assert!(support::read_all(&mut stream) == bytes);
    // The ports are free for a new connection meanwhile.
    let (other, _stream) = guest.pair_from_guest();
    assert_ne!(other, socket);
}

fn a_closing_host_has_its_last_bytes_delivered_first(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.sockets.get_mut(&socket).unwrap().paused = true;
    let bytes = pattern(150_000, 3);
    stream.write_all(&bytes).unwrap();
    drop(stream);
    // No more credit than the guest's buffer: the rest waits on the host.
    let first = guest.receive(socket, 64 * 1024);
    guest.resume(socket);
    let rest = guest.receive_to_end(socket);
    assert!([first, rest].concat() == bytes);
    guest.wait_for_reset(socket);
}

fn a_guest_that_stops_receiving_gives_the_host_a_broken_pipe(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.shut_down(socket, 1);
    guest.send(socket, b"still sending");
    let mut bytes = [0; 13];
    stream.read_exact(&mut bytes).unwrap();
    let error = stream.write_all(b"unwanted").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

fn a_host_that_stops_reading_gives_the_guest_a_shutdown(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    stream.shutdown(Shutdown::Read).unwrap();
    guest.send(socket, b"into the void");
    while guest.sockets[&socket].peer_shutdown == 0 {
        guest.pump();
    }
    assert_eq!(guest.sockets[&socket].peer_shutdown, 1);
    stream.write_all(b"still talking").unwrap();
    assert_eq!(guest.receive(socket, 13), b"still talking");
}

fn two_hundred_connections_at_once_keep_their_bytes_apart(new: NewGuest<'_>) {
    let mut guest = new();
    guest.listening.insert(1000);
    let mut pairs = Vec::new();
    let mut streams: Vec<UnixStream> = (0..100).map(|_| guest.host_dials(1000)).collect();
    for _ in 0..100 {
        let socket = guest.accept();
        guest.send(socket, &socket.host.to_le_bytes());
        pairs.push(socket);
    }
    for stream in &mut streams {
        let line = support::read_line(stream);
        let port: u32 = line.trim_end()[3..].parse().unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, port.to_le_bytes());
        stream.write_all(&bytes).unwrap();
    }
    let listener = guest.host_listens(600);
    for _ in 0..100 {
        let socket = guest.connect(600).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&socket.host.to_le_bytes()).unwrap();
        streams.push(stream);
        pairs.push(socket);
    }
    assert_eq!(pairs.len(), 200);
    for socket in pairs {
        assert_eq!(guest.receive(socket, 4), socket.host.to_le_bytes());
    }
}

fn a_slow_reader_on_the_host_stalls_only_itself(new: NewGuest<'_>) {
    let mut guest = new();
    let (slow, mut slow_stream) = guest.pair_from_guest();
    let (quick, quick_stream) = guest.pair_from_guest();
    let sent = fill_until_stalled(&mut guest, slow, &slow_stream);
    let echo = std::thread::spawn(move || echo(quick_stream));
    let bytes = pattern(300_000, 9);
    for chunk in bytes.chunks(30_000) {
        guest.send(quick, chunk);
        assert!(guest.receive(quick, chunk.len()) == chunk);
    }
    guest.shut_down(quick, 3);
    echo.join().unwrap();
    // The slow one goes on where it was, and its credit comes back.
    let reader = std::thread::spawn(move || support::read_all(&mut slow_stream));
    guest.send(slow, b"and on");
    guest.shut_down(slow, 3);
    guest.wait_for_reset(slow);
    assert!(reader.join().unwrap() == [&sent[..], b"and on"].concat());
}

fn a_slow_reader_in_the_guest_stalls_only_itself(new: NewGuest<'_>) {
    let mut guest = new();
    let (slow, mut slow_stream) = guest.pair_from_guest();
    let (quick, quick_stream) = guest.pair_from_guest();
    guest.sockets.get_mut(&slow).unwrap().paused = true;
    let bytes = pattern(200_000, 5);
    slow_stream.write_all(&bytes).unwrap();
    let echo = std::thread::spawn(move || echo(quick_stream));
    for round in 0..20 {
        let chunk = pattern(10_000, round);
        guest.send(quick, &chunk);
        assert!(guest.receive(quick, chunk.len()) == chunk);
    }
    guest.shut_down(quick, 3);
    echo.join().unwrap();
    // Its buffer was used to the last byte, credit was asked for, but not over and over.
    let state = &guest.sockets[&slow];
    assert_eq!(state.inbox.len(), 64 * 1024);
    assert_eq!(state.credit_requests, 1);
    guest.resume(slow);
    assert!(guest.receive(slow, bytes.len()) == bytes);
}

fn without_receive_buffers_nothing_is_lost(new: NewGuest<'_>) {
    let mut guest = new();
    guest.listening.insert(1000);
    guest.driver.refill = false;
    // All 64 buffers go to the first connections, what comes then has to wait.
    let streams: Vec<UnixStream> = (0..100).map(|_| guest.host_dials(1000)).collect();
    let mut sockets = Vec::new();
    while sockets.len() < 100 {
        sockets.push(guest.accept());
        guest.driver.give_some_rx_buffers(1);
    }
    guest.driver.refill = true;
    guest.driver.give_rx_buffers();
    for mut stream in &streams {
        assert!(support::read_line(stream).starts_with("OK "));
        stream.write_all(b"x").unwrap();
    }
    for socket in sockets {
        assert_eq!(guest.receive(socket, 1), b"x");
    }
}

fn a_reset_of_the_driver_ends_connections_and_keeps_the_listener(new: NewGuest<'_>) {
    let mut guest = new();
    let (_, mut idle) = guest.pair_from_guest();
    let (busy, mut stalled) = guest.pair_from_guest();
    let sent = fill_until_stalled(&mut guest, busy, &stalled);
    guest.driver.restart();
    guest.sockets.clear();
    let (socket, mut stream) = guest.pair_from_host();
    stream.write_all(b"after").unwrap();
    assert_eq!(guest.receive(socket, 5), b"after");
    assert_eq!(support::read_all(&mut idle), b"");
    // What the old driver had handed over is delivered all the same.
    assert!(support::read_all(&mut stalled) == sent);
}

fn a_client_that_came_before_the_driver_is_served_after_it(new: NewGuest<'_>) {
    let mut guest = new();
    guest.driver.refill = false;
    guest.driver.restart();
    let stream = guest.host_dials(1000);
    guest.driver.refill = true;
    guest.driver.restart();
    guest.listening.insert(1000);
    let socket = guest.accept();
    assert_eq!(support::read_line(&stream), format!("OK {}\n", socket.host));
}

fn the_socket_is_private_and_goes_with_the_device(new: NewGuest<'_>) {
    let guest = new();
    let path = guest.socket_path();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let Guest { driver, .. } = guest;
    drop(driver);
    assert!(!path.exists());
}

fn the_configuration_holds_the_cid(new: NewGuest<'_>) {
    let mut guest = new();
    assert_eq!(guest.driver.carrier.config(), 42u64.to_le_bytes());
}

/// Sends until the device takes no more: the socket is full, and so is the device's buffer.
/// `stream` is not read meanwhile. Returns what was sent.
fn fill_until_stalled(guest: &mut Guest, socket: support::Socket, _stream: &UnixStream) -> Vec<u8> {
    let mut sent = Vec::new();
    loop {
        let chunk = pattern(10_000, sent.len() as u32);
        let count = guest.send_some(socket, &chunk);
        sent.extend(&chunk[..count]);
        guest.driver.wait_for_tx();
        guest.pump_what_is_there();
        if count == 0 {
            // A last question: what came meanwhile is told with the answer.
            guest.send_control(socket, op::CREDIT_REQUEST, 0);
            guest.pump();
            if guest.credit(socket) == 0 {
                return sent;
            }
        }
    }
}

fn echo(mut stream: UnixStream) {
    let mut reader = stream.try_clone().unwrap();
    let (send, receive) = std::sync::mpsc::channel::<Vec<u8>>();
    let writer = std::thread::spawn(move || {
        for bytes in receive {
            stream.write_all(&bytes).unwrap();
        }
    });
    let mut buffer = vec![0; 70_000];
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => break,
            count => send.send(buffer[..count].to_vec()).unwrap(),
        }
    }
    drop(send);
    writer.join().unwrap();
}

fn pattern(count: usize, seed: u32) -> Vec<u8> {
    (0..count as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8)
        .collect()
}
