//! Which worker owns which flow. Asked on a miss only, where there are several workers: a packet whose flow another
//! worker owns is handed to it, so that a flow's packets stay in order and its state has one writer.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

/// Independent locks, so that workers seldom wait for each other; a power of two.
const SHARDS: usize = 64;

/// The keys of all workers' flows by their hash, each with its owner. Keys whose 64-bit hashes collide share an entry:
/// the packet then meets the wrong worker, which treats it as its own.
#[derive(Debug)]
pub struct Directory {
    shards: Vec<Mutex<HashMap<u64, u16, BuildHasherDefault<Same>>>>,
}

impl Directory {
    /// An empty directory.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// The owner of a key.
    pub fn owner(&self, hash: u64) -> Option<u16> {
        self.shard(hash, |shard| shard.get(&hash).copied())?
    }

    /// Makes a worker the owner of a key.
    ///
    /// # Errors
    /// The owner, where another one has it.
    pub fn claim(&self, hash: u64, worker: u16) -> Result<(), u16> {
        self.shard(hash, |shard| match *shard.entry(hash).or_insert(worker) {
            owner if owner == worker => Ok(()),
            owner => Err(owner),
        })
        .unwrap_or(Ok(()))
    }

    /// Forgets a key of a worker; of another worker's nothing.
    pub fn release(&self, hash: u64, worker: u16) {
        self.shard(hash, |shard| {
            if shard.get(&hash) == Some(&worker) {
                shard.remove(&hash);
            }
        });
    }

    /// How many keys have an owner.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether no key has an owner.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the directory takes. The standard library does not tell how many places its tables have, only for how
    /// many entries they have room: seven eighths of them. A place is an entry and a byte.
    pub fn memory(&self) -> usize {
        let places = |capacity: usize| (capacity * 8 / 7).next_power_of_two();
        let shard = |shard: &Mutex<HashMap<u64, u16, BuildHasherDefault<Same>>>| {
            let capacity = shard.lock().unwrap_or_else(PoisonError::into_inner).capacity();
            if capacity == 0 { 0 } else { places(capacity) * (size_of::<(u64, u16)>() + 1) }
        };
        size_of_val(&*self.shards) + self.shards.iter().map(shard).sum::<usize>()
    }

    fn shard<R>(
        &self,
        hash: u64,
        then: impl FnOnce(&mut HashMap<u64, u16, BuildHasherDefault<Same>>) -> R,
    ) -> Option<R> {
        let shard = self.shards.get(hash as usize % SHARDS)?;
        Some(then(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

/// Keys are hashes already. The shard takes the low bits, the map's own buckets want others: rotate.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_owner_until_it_is_released() {
        let directory = Directory::new();
        assert_eq!(directory.owner(7), None);
        assert_eq!(directory.claim(7, 1), Ok(()));
        assert_eq!(directory.claim(7, 1), Ok(()));
        assert_eq!(directory.claim(7, 2), Err(1));
        assert_eq!(directory.owner(7), Some(1));
        assert_eq!(directory.len(), 1);
        directory.release(7, 2);
        assert_eq!(directory.owner(7), Some(1), "only its owner releases it");
        directory.release(7, 1);
        assert!(directory.is_empty());
        assert_eq!(directory.claim(7, 2), Ok(()));
    }
}
