//! The two hosts: a thread like the VMM's, and the vhost-user back end behind a front end.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use microvm_virtio::{Device, Dispatcher, Event, QueueSet};
use microvm_vsock::{HostEnd, VhostUserHost, VsockDevice};
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::driver::Setup;

const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Whoever carries the device.
pub trait Carrier: Send {
    fn new(device: VsockDevice, folder: &Path) -> Self
    where
        Self: Sized;
    fn activate(&mut self, setup: &Setup<'_>);
    fn reset(&mut self);
    /// Why the device stopped, once it did by itself.
    fn wait_for_failure(&mut self) -> String;
    /// Drops a device that stopped.
    fn let_go(&mut self);
    fn config(&mut self) -> Vec<u8>;
}

/// A thread that does what the VMM's device thread does.
pub struct DirectHost {
    device: Option<VsockDevice>,
    running: Option<Running>,
}

struct Running {
    stop: EventFd,
    thread: JoinHandle<(VsockDevice, Option<String>)>,
}

impl Carrier for DirectHost {
    fn new(device: VsockDevice, _folder: &Path) -> Self {
        Self {
            device: Some(device),
            running: None,
        }
    }

    fn activate(&mut self, setup: &Setup<'_>) {
        let device = self.device.take().unwrap();
        let queues = setup.rings.map(|ring| {
            let mut queue = Queue::new(256).unwrap();
            queue.set_size(ring.size);
            queue
                .try_set_desc_table_address(GuestAddress(ring.desc))
                .unwrap();
            queue
                .try_set_avail_ring_address(GuestAddress(ring.avail))
                .unwrap();
            queue
                .try_set_used_ring_address(GuestAddress(ring.used))
                .unwrap();
            queue.set_event_idx(setup.event_idx);
            queue.set_ready(true);
            queue
        });
        let clone = |events: &[EventFd; 3]| events.each_ref().map(|e| e.try_clone().unwrap());
        let set = DirectQueues {
            queues,
            calls: clone(setup.calls),
        };
        let kicks = clone(setup.kicks);
        let stop = EventFd::new(EFD_NONBLOCK).unwrap();
        let stopped = stop.try_clone().unwrap();
        let memory = setup.memory.clone();
        let thread = std::thread::spawn(move || run(device, set, &kicks, &stopped, &memory));
        self.running = Some(Running { stop, thread });
    }

    fn reset(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.write(1).unwrap();
            let (mut device, failure) = running.thread.join().unwrap();
            assert_eq!(failure, None);
            Device::<GuestMemoryMmap>::reset(&mut device);
            self.device = Some(device);
        }
    }

    fn wait_for_failure(&mut self) -> String {
        let running = self.running.take().unwrap();
        let (device, failure) = running.thread.join().unwrap();
        self.device = Some(device);
        failure.unwrap()
    }

    fn let_go(&mut self) {
        self.device = None;
    }

    fn config(&mut self) -> Vec<u8> {
        self.reset();
        let mut config = vec![0xff; 12];
        Device::<GuestMemoryMmap>::read_config(self.device.as_ref().unwrap(), 0, &mut config);
        assert_eq!(config.split_off(8), [0; 4]);
        config
    }
}

impl Drop for DirectHost {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.write(1).unwrap();
            let result = running.thread.join();
            if !std::thread::panicking() {
                result.unwrap();
            }
        }
    }
}

struct DirectQueues {
    queues: [Queue; 3],
    calls: [EventFd; 3],
}

impl QueueSet for DirectQueues {
    fn count(&self) -> usize {
        3
    }
    fn queue(&mut self, index: usize) -> Option<&mut Queue> {
        self.queues.get_mut(index)
    }
    fn signal(&self, index: usize) {
        self.calls[index].write(1).unwrap();
    }
}

fn run(
    mut device: VsockDevice,
    mut queues: DirectQueues,
    kicks: &[EventFd; 3],
    stop: &EventFd,
    memory: &GuestMemoryMmap,
) -> (VsockDevice, Option<String>) {
    const SOURCE: u64 = 3;
    const STOP: u64 = 4;
    let epoll = Epoll::new().unwrap();
    let watch = |fd, id| {
        epoll
            .ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, id))
            .unwrap();
    };
    for (index, kick) in kicks.iter().enumerate() {
        watch(kick.as_raw_fd(), index as u64);
    }
    let source = Device::<GuestMemoryMmap>::event_source(&device).unwrap();
    watch(source.as_raw_fd(), SOURCE);
    watch(stop.as_raw_fd(), STOP);
    let mut dispatcher = Dispatcher::new(3);
    let mut events = [EpollEvent::default(); 8];
    loop {
        let count = match epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
            Err(error) => panic!("{error}"),
        };
        for event in &events[..count] {
            let event = match event.data() {
                STOP => return (device, None),
                SOURCE => Event::Host,
                index => {
                    let _ = kicks[index as usize].read();
                    Event::Kick(index as usize)
                }
            };
            match dispatcher.handle(event, &mut device, memory, &mut queues) {
                Ok(false) => {}
                Ok(true) => {
                    for index in dispatcher.take_pending() {
                        kicks[index].write(1).unwrap();
                    }
                }
                Err(error) => return (device, Some(error.to_string())),
            }
        }
    }
}

/// The vhost-user host, with crate vhost's front end before it.
pub struct VhostUserCarrier {
    host: VhostUserHost,
    front_end: Option<Frontend>,
    active: bool,
}

impl VhostUserCarrier {
    fn front_end(&mut self) -> &mut Frontend {
        self.front_end.as_mut().unwrap()
    }
}

impl Carrier for VhostUserCarrier {
    fn new(device: VsockDevice, folder: &Path) -> Self {
        let path = folder.join("vhost-user");
        let host = VhostUserHost::serve(device, &path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let mut front_end = Frontend::from_stream(stream, 3);
        front_end.set_owner().unwrap();
        let features = front_end.get_features().unwrap();
        assert_eq!(features & PROTOCOL_FEATURES, PROTOCOL_FEATURES);
        let offered = front_end.get_protocol_features().unwrap();
        assert!(offered.contains(VhostUserProtocolFeatures::CONFIG));
        front_end
            .set_protocol_features(
                VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK,
            )
            .unwrap();
        front_end.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        Self {
            host,
            front_end: Some(front_end),
            active: false,
        }
    }

    fn activate(&mut self, setup: &Setup<'_>) {
        let region = setup.memory.iter().next().unwrap();
        let mapped = VhostUserMemoryRegionInfo {
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            mmap_offset: 0,
            mmap_handle: region.file_offset().unwrap().file().as_raw_fd(),
        };
        let base = region.as_ptr() as u64;
        let mut features = VERSION_1 | PROTOCOL_FEATURES;
        if setup.event_idx {
            features |= EVENT_IDX;
        }
        let front_end = self.front_end();
        front_end.set_features(features).unwrap();
        front_end.set_mem_table(&[mapped]).unwrap();
        for (index, ring) in setup.rings.into_iter().enumerate() {
            front_end.set_vring_num(index, ring.size).unwrap();
            front_end
                .set_vring_addr(
                    index,
                    &VringConfigData {
                        queue_max_size: 256,
                        queue_size: ring.size,
                        flags: 0,
                        desc_table_addr: base + ring.desc,
                        used_ring_addr: base + ring.used,
                        avail_ring_addr: base + ring.avail,
                        log_addr: None,
                    },
                )
                .unwrap();
            front_end.set_vring_base(index, 0).unwrap();
            front_end
                .set_vring_call(index, &setup.calls[index])
                .unwrap();
            front_end
                .set_vring_kick(index, &setup.kicks[index])
                .unwrap();
            front_end.set_vring_enable(index, true).unwrap();
        }
        self.active = true;
    }

    fn reset(&mut self) {
        if std::mem::take(&mut self.active) {
            for index in 0..3 {
                self.front_end().set_vring_enable(index, false).unwrap();
                self.front_end().get_vring_base(index).unwrap();
            }
        }
    }

    fn wait_for_failure(&mut self) -> String {
        match self.host.wait() {
            HostEnd::Failed(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    // The host did that before it told its end.
    fn let_go(&mut self) {}

    fn config(&mut self) -> Vec<u8> {
        let zeros = [0; 8];
        let (_, config) = self
            .front_end()
            .get_config(0, 8, VhostUserConfigFlags::empty(), &zeros)
            .unwrap();
        config
    }
}

impl Drop for VhostUserCarrier {
    fn drop(&mut self) {
        self.front_end.take();
        let end = self.host.wait();
        if !std::thread::panicking() {
            assert!(!matches!(end, HostEnd::Stopped), "{end:?}");
        }
    }
}
