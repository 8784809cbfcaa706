//! Who claims which address on a segment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Claims that are remembered: all addresses of the largest scenario.
const CLAIMS_MAX: usize = 1 << 17;

/// One claim: an ARP packet says that this station has that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) address: Ipv4Addr,
    pub(super) station: [u8; 6],
    /// Whether it was an answer, and not the sender of a question.
    pub(super) is_answer: bool,
}

/// The claim that an ARP packet in a frame makes.
pub(super) fn claim(frame: &[u8]) -> Option<Claim> {
    let body = frame.get(14..)?.first_chunk::<28>()?;
    let [0, 1, 8, 0, 6, 4, 0, operation @ (1 | 2), s0, s1, s2, s3, s4, s5, a0, a1, a2, a3, ..] = *body else {
        return None;
    };
    let address = Ipv4Addr::new(a0, a1, a2, a3);
    let claim = Claim { address, station: [s0, s1, s2, s3, s4, s5], is_answer: operation == 2 };
    // A question without a sender asks whether an address is free (RFC 5227).
    (!address.is_unspecified()).then_some(claim)
}

/// The first station that claimed an address of a segment.
#[derive(Debug, Default)]
pub(super) struct Stations {
    first: BTreeMap<(usize, Ipv4Addr), [u8; 6]>,
}

impl Stations {
    /// Notes a claim; gives the station that had claimed the address before, where it is another.
    pub(super) fn note(&mut self, segment: usize, claim: Claim) -> Option<[u8; 6]> {
        if self.first.len() >= CLAIMS_MAX && !self.first.contains_key(&(segment, claim.address)) {
            return None;
        }
        let first = *self.first.entry((segment, claim.address)).or_insert(claim.station);
        (first != claim.station).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_station_of_an_address_is_a_conflict_and_the_first_is_none() {
        let claim = |last| Claim {
            address: Ipv4Addr::new(10, 0, 0, 9),
            station: [2, 0, 0, 0, 0, last],
            is_answer: true,
        };
        let mut stations = Stations::default();
        assert_eq!(stations.note(0, claim(1)), None);
        assert_eq!(stations.note(0, claim(1)), None);
        assert_eq!(stations.note(1, claim(2)), None, "another segment");
        assert_eq!(stations.note(0, claim(2)), Some([2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn questions_and_answers_claim_and_others_do_not() {
        let mut frame = vec![0; 42];
        frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        frame[28..32].copy_from_slice(&[10, 0, 0, 1]);
        assert_eq!(claim(&frame).map(|claim| claim.is_answer), Some(false));
        frame[21] = 2;
        assert_eq!(claim(&frame).map(|claim| claim.is_answer), Some(true));
        frame[28..32].fill(0);
        assert_eq!(claim(&frame), None);
        assert_eq!(claim(&frame[..41]), None);
    }
}
