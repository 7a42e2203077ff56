//! Who is listened for, and where: pure data.
//!
//! A host has one address, so all guests of a process share the listening socket of a port; they
//! are told apart by their context IDs.

use std::collections::HashMap;

/// Ports with their guests, and what is kept for each.
#[derive(Debug)]
pub(super) struct Registry<T> {
    ports: HashMap<u32, HashMap<u32, T>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            ports: HashMap::new(),
        }
    }
}

impl<T> Registry<T> {
    /// What is kept for the guests that are listened for at a port.
    pub(super) fn at(&self, port: u32) -> impl Iterator<Item = &T> {
        self.ports.get(&port).into_iter().flat_map(HashMap::values)
    }

    /// Adds a guest at a port; false, and nothing is changed, where it is there already.
    pub(super) fn add(&mut self, port: u32, cid: u32, value: T) -> bool {
        let guests = self.ports.entry(port).or_default();
        match guests.entry(cid) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(value);
                true
            }
        }
    }

    /// Takes a guest off a port.
    pub(super) fn remove(&mut self, port: u32, cid: u32) -> Option<T> {
        let guests = self.ports.get_mut(&port)?;
        let value = guests.remove(&cid);
        if guests.is_empty() {
            self.ports.remove(&port);
        }
        value
    }

    /// What was added for a guest at a port; `None` for strangers.
    pub(super) fn get(&self, port: u32, cid: u32) -> Option<&T> {
        self.ports.get(&port)?.get(&cid)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(u32, u32),
        Remove(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = || (0u32..4, 0u32..6);
        prop_oneof![
            place().prop_map(|(port, cid)| Step::Add(port, cid)),
            place().prop_map(|(port, cid)| Step::Remove(port, cid)),
        ]
    }

    proptest! {
        /// A guest is known exactly from its adding to its removal, to its own port alone, and
        /// with what was first added; everybody else is a stranger.
        #[test]
        fn it_knows_its_guests_and_no_strangers(steps in prop::collection::vec(step(), 0..60)) {
            let mut registry = Registry::default();
            let mut model = BTreeMap::new();
            for (count, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Add(port, cid) => {
                        let is_new = !model.contains_key(&(port, cid));
                        prop_assert_eq!(registry.add(port, cid, count), is_new);
                        model.entry((port, cid)).or_insert(count);
                    }
                    Step::Remove(port, cid) => {
                        prop_assert_eq!(registry.remove(port, cid), model.remove(&(port, cid)));
                    }
                }
                for port in 0..4 {
                    let guests = model.keys().filter(|(at, _)| *at == port).count();
                    prop_assert_eq!(registry.at(port).count(), guests);
                    for cid in 0..6 {
                        prop_assert_eq!(registry.get(port, cid), model.get(&(port, cid)));
                    }
                }
            }
        }
    }
}
