//! The hash that the forwarder uses wherever instances must agree or outsiders must not predict.

use siphasher::sip::SipHasher13;

/// SipHash-1-3 of `words`, each as eight bytes, little end first.
#[must_use]
pub fn keyed_hash(key: [u64; 2], words: &[u64]) -> u64 {
    let [first, second] = key;
    let mut hasher = SipHasher13::new_with_keys(first, second);
    for word in words {
        core::hash::Hasher::write(&mut hasher, &word.to_le_bytes());
    }
    core::hash::Hasher::finish(&hasher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_hashed_as_their_bytes() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(keyed_hash([3, 4], &[1, 0x102]), SipHasher13::new_with_keys(3, 4).hash(&bytes));
    }
}
