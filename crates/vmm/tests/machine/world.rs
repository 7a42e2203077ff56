//! What this process holds on to, by the kernel's own account.

use std::collections::BTreeSet;
use std::fs;

use microvm_test_support::{Threads, threads};

/// Open descriptors and threads of this process.
#[derive(Debug, PartialEq, Eq)]
pub struct World {
    pub descriptors: BTreeSet<String>,
    pub threads: Threads,
    pub guest_memory: usize,
}

impl World {
    pub fn now() -> Self {
        let links = fs::read_dir("/proc/self/fd").unwrap();
        let descriptors = links
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                // The descriptor that lists the folder is gone already.
                let target = fs::read_link(&path).ok()?;
                Some(format!("{} → {}", path.display(), target.display()))
            })
            .filter(|line| !line.contains("/proc/"))
            .collect();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let guest_memory = maps.matches("memfd:microvm-ram").count();
        Self {
            descriptors,
            threads: threads().but_tests(),
            guest_memory,
        }
    }
}
