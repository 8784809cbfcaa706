//! One seed, and everything random that derives from it.
//!
//! The derivation is SipHash-2-4 with the seed as its key, over a label. Who knows what one label gave (a
//! component knows its own seed) learns nothing about the others short of trying all 2^64 seeds.

use evenkeel_engine::wire::HashKey;
use siphasher::sip::SipHasher24;

/// The second half of the key, so that another program with the same seed derives something else.
const DOMAIN: u64 = u64::from_be_bytes(*b"evenkeel");

fn derive(seed: u64, label: &[u8]) -> u64 {
    SipHasher24::new_with_keys(seed, DOMAIN).hash(label)
}

/// The key of the flow hash.
pub(crate) fn hash_key(seed: u64) -> HashKey {
    HashKey([derive(seed, b"hash key 0"), derive(seed, b"hash key 1")])
}

/// The seed that components draw from.
pub(crate) fn guest_seed(seed: u64) -> u64 {
    derive(seed, b"guests")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scenario's output depends on these values: a change of them breaks every recorded run.
    #[test]
    fn a_seed_gives_the_same_keys_for_ever() {
        let HashKey(key) = hash_key(1);
        assert_eq!(key, [7_920_460_104_814_753_267, 9_647_685_853_161_728_141]);
        assert_eq!(guest_seed(1), 675_956_992_163_514_512);
    }

    #[test]
    fn different_seeds_and_labels_give_different_keys() {
        let HashKey([first, second]) = hash_key(1);
        let HashKey([other, _]) = hash_key(2);
        assert_ne!(first, second);
        assert_ne!(first, other);
        assert_ne!(first, guest_seed(1));
    }
}
