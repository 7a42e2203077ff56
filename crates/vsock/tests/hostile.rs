//! Guests, clients and front ends that do not play by the rules.
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

use support::{DirectHost, GUEST_CID, Guest, Header, Socket, op};

type NewGuest<'a> = &'a dyn Fn() -> Guest;

in_both_hosts!(
    a_packet_from_another_cid_is_dropped,
    a_packet_to_another_cid_is_reset,
    a_packet_that_is_not_of_a_stream_is_reset,
    an_unknown_operation_is_reset,
    a_packet_without_a_connection_is_reset,
    a_reset_without_a_connection_is_not_answered,
    a_packet_longer_than_its_buffer_ends_its_connection,
    data_beyond_the_credit_ends_its_connection,
    data_after_the_end_ends_its_connection,
    a_second_request_on_the_same_ports_ends_both,
    a_response_that_nobody_waits_for_ends_the_connection,
    a_response_to_a_client_that_left_is_reset,
    broken_buffers_are_dropped_and_given_back,
    receive_buffers_without_room_are_given_back_empty,
    credit_that_shrinks_below_what_is_in_flight_stops_the_flow,
    credit_of_the_whole_range_is_believed_and_costs_nothing,
    a_forged_count_of_taken_bytes_stalls_only_its_connection,
    a_storm_of_resets_and_requests_leaves_the_device_working,
    connections_above_the_limit_get_no_answer,
    a_listener_whose_backlog_is_full_is_not_reported_as_absent,
    a_ring_that_claims_too_much_stops_the_device,
);

fn a_packet_from_another_cid_is_dropped(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, _stream) = guest.pair_from_guest();
    for cid in [0, 1, 2, 3, GUEST_CID | 1 << 32, u64::MAX] {
        let mut header = Header::to_host(socket.guest, socket.host, op::RST);
        header.src_cid = cid;
        guest.driver.send(header, &[]);
        header.op = op::REQUEST;
        guest.driver.send(header, &[]);
    }
    still_works(&mut guest);
    assert_eq!(guest.strays, []);
    assert!(!guest.sockets[&socket].reset);
}

fn a_packet_to_another_cid_is_reset(new: NewGuest<'_>) {
    let mut guest = new();
    let _listener = guest.host_listens(50);
    for cid in [0, 1, 3, GUEST_CID, 2 | 1 << 32] {
        let mut header = Header::to_host(40, 50, op::REQUEST);
        header.dst_cid = cid;
        guest.driver.send(header, &[]);
        let (answer, _) = guest.driver.receive();
        assert_eq!((answer.op, answer.src_cid), (op::RST, cid));
        assert_eq!((answer.src_port, answer.dst_port), (50, 40));
    }
    still_works(&mut guest);
}

fn a_packet_that_is_not_of_a_stream_is_reset(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    for kind in [0, 2, 3, u16::MAX] {
        let mut header = Header::to_host(90, 91, op::REQUEST);
        header.kind = kind;
        guest.driver.send(header, &[]);
        let (answer, _) = guest.driver.receive();
        assert_eq!((answer.op, answer.kind), (op::RST, kind));
    }
    let mut header = Header::to_host(socket.guest, socket.host, op::RW);
    header.kind = 2;
    guest.driver.send(header, &[]);
    let (answer, _) = guest.driver.receive();
    assert_eq!(answer.op, op::RST);
    assert_eq!(support::read_all(&mut stream), b"");
}

fn an_unknown_operation_is_reset(new: NewGuest<'_>) {
    let mut guest = new();
    for code in [0, 8, 9, 255, u16::MAX] {
        let (socket, mut stream) = guest.pair_from_guest();
        guest.send_control(socket, code, 0);
        guest.wait_for_reset(socket);
        assert_eq!(support::read_all(&mut stream), b"");
        guest.driver.send(Header::to_host(70, 71, code), &[]);
        guest.pump();
        assert_eq!(guest.strays.pop().unwrap().op, op::RST);
    }
}

fn a_packet_without_a_connection_is_reset(new: NewGuest<'_>) {
    let mut guest = new();
    for code in [
        op::RESPONSE,
        op::SHUTDOWN,
        op::RW,
        op::CREDIT_UPDATE,
        op::CREDIT_REQUEST,
    ] {
        guest.driver.send(Header::to_host(70, 71, code), &[]);
        guest.pump();
        let answer = guest.strays.pop().unwrap();
        assert_eq!(
            (answer.op, answer.src_port, answer.dst_port),
            (op::RST, 71, 70)
        );
    }
}

fn a_reset_without_a_connection_is_not_answered(new: NewGuest<'_>) {
    let mut guest = new();
    for port in 0..500 {
        guest.driver.send(Header::to_host(port, port, op::RST), &[]);
    }
    still_works(&mut guest);
    assert_eq!(guest.strays, []);
}

fn a_packet_longer_than_its_buffer_ends_its_connection(new: NewGuest<'_>) {
    let mut guest = new();
    for len in [4, 1000, 1 << 20, u32::MAX] {
        let (socket, mut stream) = guest.pair_from_guest();
        let mut header = Header::to_host(socket.guest, socket.host, op::RW);
        header.len = len;
        guest.driver.send(header, b"abc");
        guest.wait_for_reset(socket);
        assert_eq!(support::read_all(&mut stream), b"");
    }
}

fn data_beyond_the_credit_ends_its_connection(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    let mut sent = 0;
    // Nobody reads, and the guest does not look at its credit.
    while !guest.sockets[&socket].reset {
        assert!(sent < 16 << 20, "the device buffers without end");
        guest.send_packet(socket, &[7; 50_000]);
        guest.driver.wait_for_tx();
        guest.pump_what_is_there();
        sent += 50_000;
    }
    let got = support::read_all(&mut stream);
    assert!(got.len() <= sent && got.iter().all(|byte| *byte == 7));
    still_works(&mut guest);
}

fn data_after_the_end_ends_its_connection(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.send(socket, b"all");
    guest.shut_down(socket, 2);
    guest.send_packet(socket, b" and more");
    guest.wait_for_reset(socket);
    assert_eq!(support::read_all(&mut stream), b"all");
}

fn a_second_request_on_the_same_ports_ends_both(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.send_control(socket, op::REQUEST, 0);
    guest.wait_for_reset(socket);
    assert_eq!(support::read_all(&mut stream), b"");
}

fn a_response_that_nobody_waits_for_ends_the_connection(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.send_control(socket, op::RESPONSE, 0);
    guest.wait_for_reset(socket);
    assert_eq!(support::read_all(&mut stream), b"");
}

fn a_response_to_a_client_that_left_is_reset(new: NewGuest<'_>) {
    let mut guest = new();
    guest.driver.refill = true;
    let stream = guest.host_dials(1234);
    let (request, _) = guest.driver.receive();
    assert_eq!((request.op, request.dst_port), (op::REQUEST, 1234));
    drop(stream);
    let (reset, _) = guest.driver.receive();
    assert_eq!((reset.op, reset.dst_port), (op::RST, 1234));
    let late = Header::to_host(1234, request.src_port, op::RESPONSE);
    guest.driver.send(late, &[]);
    guest.pump();
    assert_eq!(guest.strays.pop().unwrap().op, op::RST);
    still_works(&mut guest);
}

fn broken_buffers_are_dropped_and_given_back(new: NewGuest<'_>) {
    let mut guest = new();
    // Whatever a chain makes of it: nobody is there to be answered.
    let mut whole = Header::to_host(1, 2, op::REQUEST);
    whole.src_cid = 7;
    let whole = whole.bytes();
    let inside = 0x30_0000;
    guest.driver.write(inside, &whole);
    let end = guest.driver.memory_len();
    let broken = [
        // Too short for a header, empty, of the wrong direction.
        (inside, 43, 0, 0),
        (inside, 0, 0, 0),
        (inside, 44, support::WRITE, 0),
        // Outside of memory, across its end, wrapping around.
        (end, 44, 0, 0),
        (end - 40, 44, 0, 0),
        (u64::MAX - 10, 44, 0, 0),
        (inside, u32::MAX, 0, 0),
        // A next that is no descriptor, and one that is itself.
        (inside, 20, support::NEXT, 9999),
        (inside, 20, support::NEXT, support::SELF),
        // Tables: empty, of a broken length, outside, too long, and inside one another.
        (inside, 0, support::INDIRECT, 0),
        (inside, 24, support::INDIRECT, 0),
        (end, 32, support::INDIRECT, 0),
        (inside, 0xffff_fff0, support::INDIRECT, 0),
        (0x31_0000, 16, support::INDIRECT, 0),
    ];
    guest
        .driver
        .write_descriptor_at(0x31_0000, (0x31_0000, 16, support::INDIRECT, 0));
    for _ in 0..20 {
        for (address, len, flags, next) in broken {
            guest.driver.send_raw(address, len, flags, next);
        }
    }
    guest.driver.wait_for_tx();
    still_works(&mut guest);
    assert_eq!(guest.strays, []);
}

fn receive_buffers_without_room_are_given_back_empty(new: NewGuest<'_>) {
    let mut guest = new();
    guest.driver.refill = false;
    guest.driver.restart();
    let end = guest.driver.memory_len();
    for (address, len, flags) in [
        (0x30_0000, 43, support::WRITE),
        (0x30_0000, 4096, 0),
        (end - 10, 100, support::WRITE),
        (0x30_0000, 0, support::WRITE),
    ] {
        guest.driver.give_raw_rx_buffer(address, len, flags);
    }
    guest.driver.give_rx_buffers_behind_raw_ones();
    let listener = guest.host_listens(66);
    let socket = guest.start_connecting(66);
    assert_eq!(guest.driver.skip_empty_buffers(), 4);
    guest.pump();
    assert!(guest.sockets[&socket].connected);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"through").unwrap();
    assert_eq!(guest.receive(socket, 7), b"through");
}

fn credit_that_shrinks_below_what_is_in_flight_stops_the_flow(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.sockets.get_mut(&socket).unwrap().paused = true;
    stream.write_all(&[1; 30_000]).unwrap();
    assert_eq!(guest.receive(socket, 30_000).len(), 30_000);
    // 30,000 bytes are in flight when the buffer shrinks to 10,000.
    guest.sockets.get_mut(&socket).unwrap().buf_alloc = 10_000;
    guest.send_control(socket, op::CREDIT_UPDATE, 0);
    guest.driver.wait_for_tx();
    stream.write_all(&[2; 30_000]).unwrap();
    while guest.sockets[&socket].credit_requests == 0 {
        guest.pump();
    }
    still_works(&mut guest);
    assert_eq!(guest.sockets[&socket].inbox.len(), 0);
    guest.resume(socket);
    assert_eq!(guest.receive(socket, 30_000), [2; 30_000]);
}

fn credit_of_the_whole_range_is_believed_and_costs_nothing(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    guest.sockets.get_mut(&socket).unwrap().buf_alloc = u32::MAX;
    guest.send_control(socket, op::CREDIT_UPDATE, 0);
    guest.driver.wait_for_tx();
    let writer = std::thread::spawn(move || {
        stream.write_all(&vec![3; 2 << 20]).unwrap();
        stream
    });
    assert_eq!(guest.receive(socket, 2 << 20).len(), 2 << 20);
    let mut stream = writer.join().unwrap();
    guest.send(socket, b"back");
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).unwrap();
}

fn a_forged_count_of_taken_bytes_stalls_only_its_connection(new: NewGuest<'_>) {
    let mut guest = new();
    let (socket, mut stream) = guest.pair_from_guest();
    let mut header = Header::to_host(socket.guest, socket.host, op::CREDIT_UPDATE);
    header.fwd_cnt = 1 << 31;
    guest.driver.send(header, &[]);
    guest.driver.wait_for_tx();
    stream.write_all(b"never").unwrap();
    still_works(&mut guest);
}

fn a_storm_of_resets_and_requests_leaves_the_device_working(new: NewGuest<'_>) {
    let mut guest = new();
    let listener = guest.host_listens(80);
    listener.set_nonblocking(true).unwrap();
    // Receive buffers run out, so answers pile up to their bound.
    guest.driver.refill = false;
    for port in 0..20_000 {
        guest
            .driver
            .send(Header::to_host(port, 80, op::REQUEST), &[]);
        guest.driver.send(Header::to_host(port, 80, op::RST), &[]);
        guest
            .driver
            .send(Header::to_host(port, 81, op::REQUEST), &[]);
        while listener.accept().is_ok() {}
    }
    guest.driver.wait_for_tx();
    guest.driver.refill = true;
    guest.driver.give_rx_buffers();
    guest.pump_what_is_there();
    still_works(&mut guest);
    assert!(guest.strays.len() < 5000, "{}", guest.strays.len());
}

fn connections_above_the_limit_get_no_answer(new: NewGuest<'_>) {
    let mut guest = new();
    let listener = guest.host_listens(80);
    let mut streams = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..1024 {
        sockets.push(guest.connect(80).unwrap());
        streams.push(listener.accept().unwrap().0);
    }
    // Neither acceptance nor refusal, which would mean that nobody is there.
    let unanswered = guest.start_connecting(80);
    assert_unanswered(&mut guest, unanswered, sockets[1]);
    listener.set_nonblocking(true).unwrap();
    listener.accept().unwrap_err();
    // A client of the host is one too many as well.
    let mut client = guest.host_connects();
    assert_eq!(support::read_all(&mut client), b"");
    // One that ends makes room for another.
    guest.shut_down(sockets[0], 3);
    guest.wait_for_reset(sockets[0]);
    guest.connect(80).unwrap();
}

fn a_ring_that_claims_too_much_stops_the_device(new: NewGuest<'_>) {
    let mut guest = new();
    let mut client = guest.host_connects();
    guest.driver.tx.forge_avail_idx(1000);
    guest.driver.kick(1);
    let reason = guest.driver.carrier.wait_for_failure();
    assert!(reason.contains("queue 1"), "{reason}");
    guest.driver.carrier.let_go();
    // An end, or a reset where it was not even accepted yet.
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    assert_eq!(bytes, b"");
}

fn a_listener_whose_backlog_is_full_is_not_reported_as_absent(new: NewGuest<'_>) {
    let mut guest = new();
    let listener = guest.host_listens(80);
    // One more than this may wait.
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = guest.connect(80).unwrap();
    let unanswered = guest.start_connecting(80);
    assert_unanswered(&mut guest, unanswered, waiting);
    listener.accept().unwrap();
    guest.connect(80).unwrap();
}

/// Asserts that a request got no answer, by one that comes after it on another connection.
fn assert_unanswered(guest: &mut Guest, request: Socket, other: Socket) {
    guest.send_control(other, op::CREDIT_REQUEST, 0);
    guest.pump();
    let state = &guest.sockets[&request];
    assert!(!state.connected && !state.reset);
}

/// Whether a connection can still be made and used.
fn still_works(guest: &mut Guest) {
    let (socket, mut stream) = guest.pair_from_guest();
    guest.send(socket, b"still");
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).unwrap();
    stream.write_all(b"works").unwrap();
    assert_eq!(guest.receive(socket, 5), b"works");
    guest.shut_down(socket, 3);
    guest.wait_for_reset(socket);
}

#[test]
fn a_client_that_never_ends_its_line_is_let_go() {
    let guest = Guest::new::<DirectHost>();
    let mut silent = guest.host_connects();
    let mut slow = guest.host_connects();
    slow.write_all(b"CONNECT 10").unwrap();
    assert_eq!(support::read_all(&mut slow), b"");
    assert_eq!(support::read_all(&mut silent), b"");
}

#[test]
fn clients_that_break_the_convention_are_let_go_at_once() {
    let guest = Guest::new::<DirectHost>();
    for line in [
        "GET / HTTP/1.1\r\n\r\n",
        "CONNECT x\n",
        "CONNECT 4294967296\n",
    ] {
        let mut client = guest.host_connects();
        client.write_all(line.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        // What it had sent beyond its line makes the end look like a reset.
        let _ = client.read_to_end(&mut bytes);
        assert_eq!(bytes, b"");
    }
    let mut endless = guest.host_connects();
    let sent = std::iter::repeat_n(b'C', 1 << 20).collect::<Vec<_>>();
    endless.write_all(&sent).unwrap_err();
}

#[test]
fn a_guest_that_never_confirms_the_end_is_reset() {
    let mut guest = Guest::new::<DirectHost>();
    let (socket, stream) = guest.pair_from_guest();
    drop(stream);
    loop {
        // Past the guest's stack, which would confirm.
        let (header, _) = guest.driver.receive();
        if header.op == op::RST {
            assert_eq!(header.dst_port, socket.guest);
            break;
        }
        assert_eq!(header.op, op::SHUTDOWN);
    }
    // Before its time is over, the guest may use the ports again.
    let listener = guest.host_listens(4000);
    let again = Socket {
        guest: 7,
        host: 4000,
    };
    for _ in 0..2 {
        guest
            .driver
            .send(Header::to_host(again.guest, again.host, op::REQUEST), &[]);
        let (answer, _) = guest.driver.receive();
        assert_eq!(answer.op, op::RESPONSE);
        drop(listener.accept().unwrap());
        while guest.driver.receive().0.flags != 3 {}
    }
}
