//! Devices with more queues than two.

use std::sync::Arc;

use super::fake_peer::{Answer, GET_QUEUE_NUM, GET_VRING_BASE, SET_VRING_ENABLE, serve};
use super::{Bench, LONG, but, ready_queues};
use crate::memory::{PageSize, Ram};
use crate::virtio::transport::{Activation, DeviceHost};

const QUEUES: u64 = 64;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;

fn bench() -> Bench {
    let ram = Ram::new(1 << 20, PageSize::Base).unwrap();
    Bench::with_queues(Arc::clone(ram.memory()), QUEUES as usize)
}

#[test]
fn every_queue_that_the_driver_made_ready_is_handed_over_and_taken_back() {
    for ready in [1, 5, QUEUES] {
        let bench = bench();
        let count = || Answer::Bytes(QUEUES.to_le_bytes().to_vec());
        let (peer, requests, thread) = serve(but(GET_QUEUE_NUM, count));
        let mut host = bench.connect(peer, LONG).unwrap();
        let mut queues = ready_queues(QUEUES);
        for queue in &mut queues[ready as usize..] {
            queue.ready = false;
        }
        host.activate(&Activation {
            features: 1 << 32,
            queues: &queues,
        })
        .unwrap();
        host.reset();
        drop(host);
        thread.join().unwrap();

        let requests: Vec<_> = requests.iter().collect();
        let told = |code: u32| -> Vec<u64> {
            let of_kind = requests.iter().filter(|request| request.code == code);
            of_kind.map(|request| request.number()).collect()
        };
        let all: Vec<u64> = (0..ready).collect();
        assert_eq!(told(SET_VRING_KICK), all);
        assert_eq!(told(SET_VRING_CALL), all);
        assert_eq!(told(GET_VRING_BASE), all);
        let on = (0..ready).map(|index| index | 1 << 32);
        assert_eq!(
            told(SET_VRING_ENABLE),
            on.chain(0..ready).collect::<Vec<_>>()
        );
        let descriptors = requests
            .iter()
            .filter(|request| request.code == SET_VRING_KICK && request.descriptor.is_some());
        assert_eq!(descriptors.count() as u64, ready);
    }
}

#[test]
fn a_back_end_with_fewer_queues_is_refused() {
    let bench = bench();
    let count = || Answer::Bytes((QUEUES - 1).to_le_bytes().to_vec());
    let (peer, _requests, thread) = serve(but(GET_QUEUE_NUM, count));
    let refused = bench.connect(peer, LONG).err().unwrap().to_string();
    assert!(
        refused.contains("63") && refused.contains("64"),
        "{refused}"
    );
    thread.join().unwrap();
}
