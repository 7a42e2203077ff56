//! Random bytes in random pieces, both ways at once, over every layout of descriptors.
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

use proptest::prelude::*;
use support::{DirectHost, Guest, Layout, VhostUserCarrier};

#[derive(Clone, Debug)]
struct Plan {
    layout: Layout,
    event_idx: bool,
    from_host: bool,
    /// What the guest sends, in pieces.
    pieces: Vec<Vec<u8>>,
    /// How much the host's program reads and writes at a time.
    chunks: Vec<usize>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let layout = prop_oneof![
        Just(Layout::One),
        Just(Layout::Two),
        Just(Layout::Many),
        Just(Layout::Indirect)
    ];
    let piece = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 1..300),
        2 => prop::collection::vec(any::<u8>(), 3900..4200),
        1 => prop::collection::vec(any::<u8>(), 60_000..70_000),
    ];
    (
        layout,
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(piece, 1..12),
        prop::collection::vec(1usize..9000, 1..8),
    )
        .prop_map(|(layout, event_idx, from_host, pieces, chunks)| Plan {
            layout,
            event_idx,
            from_host,
            pieces,
            chunks,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_a_thread_of_the_vmm_what_goes_out_comes_back(plan in plans()) {
        run(Guest::with_event_idx::<DirectHost>(plan.event_idx), &plan);
    }

    #[test]
    fn behind_vhost_user_what_goes_out_comes_back(plan in plans()) {
        run(Guest::with_event_idx::<VhostUserCarrier>(plan.event_idx), &plan);
    }
}

fn run(mut guest: Guest, plan: &Plan) {
    guest.driver.layout = plan.layout;
    let (socket, mut stream) = if plan.from_host {
        guest.pair_from_host()
    } else {
        guest.pair_from_guest()
    };
    let chunks = plan.chunks.clone();
    let echo = std::thread::spawn(move || {
        for chunk in chunks.into_iter().cycle() {
            let mut bytes = vec![0; chunk];
            match stream.read(&mut bytes).unwrap() {
                0 => return,
                count => stream.write_all(&bytes[..count]).unwrap(),
            }
        }
    });
    let mut expected = Vec::new();
    for piece in &plan.pieces {
        // No more than the echo, and the buffers on the way, can hold without being read.
        guest.send(socket, piece);
        expected.extend(piece);
    }
    guest.shut_down(socket, 2);
    let got = guest.receive_to_end(socket);
    echo.join().unwrap();
    assert!(got == expected, "{} of {}", got.len(), expected.len());
}
