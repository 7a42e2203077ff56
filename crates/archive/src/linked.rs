//! Files with several names: the first one is packed with the content, the others as links to it.

use std::collections::HashMap;

use rustix::fs::Stat;

/// Files whose other names are still awaited; beyond it content is packed again.
const MAX_LINKED: usize = 100_000;

/// The files that were packed and have names that were not met yet.
#[derive(Debug, Default)]
pub(crate) struct Linked(HashMap<(u64, u64), First>);

#[derive(Debug)]
struct First {
    name: Vec<u8>,
    /// Names that were not met yet.
    left: u64,
}

impl Linked {
    /// The name by which this file was packed before. Where there is none, this one is remembered.
    pub(crate) fn first_name(&mut self, name: &[u8], status: &Stat) -> Option<Vec<u8>> {
        if status.st_nlink < 2 {
            return None;
        }
        let key = (status.st_dev, status.st_ino);
        let Some(first) = self.0.get_mut(&key) else {
            if self.0.len() < MAX_LINKED {
                let first = First {
                    name: name.to_vec(),
                    left: status.st_nlink.saturating_sub(1),
                };
                self.0.insert(key, first);
            }
            return None;
        };
        first.left = first.left.saturating_sub(1);
        if first.left > 0 {
            return Some(first.name.clone());
        }
        self.0.remove(&key).map(|first| first.name)
    }
}
