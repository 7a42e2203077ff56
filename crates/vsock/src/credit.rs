//! Flow control (virtio 1.2, section 5.10.6.3): free-running 32-bit counters that wrap.

/// What the guest lets the device send on one connection.
#[derive(Debug, Default)]
pub(crate) struct PeerCredit {
    /// Size of the guest's buffer, in bytes, as it said last.
    buf_alloc: u32,
    /// Bytes that the guest's program has taken, as the guest said last.
    fwd_cnt: u32,
    /// Bytes that the device has sent.
    sent: u32,
}

impl PeerCredit {
    /// Takes over what a packet from the guest says.
    pub(crate) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.buf_alloc = buf_alloc;
        self.fwd_cnt = fwd_cnt;
    }

    /// Bytes that may be sent now. A buffer that shrank below what is in flight, or a counter
    /// that claims more than was sent, gives none: such a guest stalls only itself.
    pub(crate) fn available(&self) -> u32 {
        self.buf_alloc
            .saturating_sub(self.sent.wrapping_sub(self.fwd_cnt))
    }

    /// Counts bytes that were sent.
    pub(crate) fn spend(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }
}

/// What the device lets the guest send on one connection.
#[derive(Debug)]
pub(crate) struct OwnCredit {
    /// Size of the device's buffer, in bytes.
    buf_alloc: u32,
    /// Bytes that the guest has sent.
    received: u32,
    /// Bytes that went on to the host's program.
    forwarded: u32,
    /// Value of `forwarded` that the guest knows.
    announced: u32,
}

impl OwnCredit {
    /// A fresh connection with a buffer of `buf_alloc` bytes.
    pub(crate) fn new(buf_alloc: u32) -> Self {
        Self {
            buf_alloc,
            received: 0,
            forwarded: 0,
            announced: 0,
        }
    }

    /// Size of the buffer, in bytes.
    pub(crate) fn buf_alloc(&self) -> u32 {
        self.buf_alloc
    }

    /// Bytes that were passed on, for a header.
    pub(crate) fn forwarded(&self) -> u32 {
        self.forwarded
    }

    /// Counts bytes that arrived; `false` where the guest had no credit for them.
    #[must_use]
    pub(crate) fn receive(&mut self, bytes: u32) -> bool {
        // Both counters are the device's own, so the difference is what is buffered.
        let buffered = self.received.wrapping_sub(self.forwarded);
        if bytes > self.buf_alloc.saturating_sub(buffered) {
            return false;
        }
        self.received = self.received.wrapping_add(bytes);
        true
    }

    /// Counts bytes that went on to the host's program.
    pub(crate) fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// A header with the present counters reached the guest.
    pub(crate) fn announce(&mut self) {
        self.announced = self.forwarded;
    }

    /// Whether the guest should hear of the space that came free. Half the buffer: late enough to
    /// be rare, early enough that a guest that sends steadily never runs dry.
    pub(crate) fn update_due(&self) -> bool {
        self.forwarded.wrapping_sub(self.announced) >= self.buf_alloc / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credit_survives_the_wrap_of_its_counters() {
        let mut credit = PeerCredit::default();
        credit.spend(u32::MAX - 9);
        credit.update(100, u32::MAX - 9);
        assert_eq!(credit.available(), 100);
        credit.spend(60);
        assert_eq!(credit.available(), 40);
        credit.update(100, 50);
        assert_eq!(credit.available(), 100);
    }

    #[test]
    fn a_shrunken_buffer_gives_no_credit_until_it_is_drained() {
        let mut credit = PeerCredit::default();
        credit.update(100, 0);
        credit.spend(80);
        credit.update(50, 0);
        assert_eq!(credit.available(), 0);
        credit.update(50, 60);
        assert_eq!(credit.available(), 30);
    }

    #[test]
    fn a_counter_ahead_of_what_was_sent_gives_no_credit() {
        let mut credit = PeerCredit::default();
        credit.update(1 << 16, 1);
        assert_eq!(credit.available(), 0);
    }

    #[test]
    fn a_guest_that_overruns_the_buffer_is_noticed() {
        let mut credit = OwnCredit::new(10);
        assert!(credit.receive(10));
        assert!(!credit.receive(1));
        credit.forward(4);
        assert!(credit.update_due() == (4 >= 5));
        assert!(credit.receive(4));
        assert!(!credit.receive(u32::MAX));
    }

    proptest! {
        #[test]
        fn a_guest_that_obeys_is_never_refused(steps in proptest::collection::vec((1u32..5000, any::<bool>()), 1..400)) {
            // The guest's own view, by the specification's formula, against the device's.
            let mut own = OwnCredit::new(4096);
            let (mut sent, mut known, mut buffered) = (0u32, 0u32, 0u32);
            for (amount, drain) in steps {
                let credit = 4096 - sent.wrapping_sub(known);
                let bytes = amount.min(credit);
                prop_assert!(own.receive(bytes));
                sent = sent.wrapping_add(bytes);
                buffered += bytes;
                if drain {
                    own.forward(buffered);
                    buffered = 0;
                    if own.update_due() {
                        known = own.forwarded();
                        own.announce();
                    }
                    // Whoever drains fully never leaves the guest without credit.
                    prop_assert!(sent.wrapping_sub(known) < 4096);
                }
            }
        }
    }
}
