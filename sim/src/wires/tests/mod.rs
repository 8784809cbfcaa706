//! What cables and switches do, against formulas and tables.

mod chance;
mod queues;
mod switches;

use evenkeel_engine::Instant;

use super::*;
use crate::packet::Packet;

/// A frame of this many bytes that carries nothing known.
fn frame_of(bytes: usize) -> Packet {
    let mut packet = Packet::copied_into(Packet::default(), &vec![0; bytes - 14]);
    frame::put_header(
        &mut packet,
        &frame::header_bytes(frame::MacAddress([2; 6]), frame::MacAddress([4; 6]), 0x88b5),
    );
    packet
}

/// A frame with a datagram whose type of service or traffic class is this.
fn datagram(is_v4: bool, traffic: u8) -> Packet {
    let mut bytes = Vec::new();
    if is_v4 {
        let builder = etherparse::PacketBuilder::ethernet2([4; 6], [2; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2);
        builder.write(&mut bytes, &[7; 30]).unwrap();
        bytes[15] = traffic;
        let check = etherparse::Ipv4Header::from_slice(&bytes[14..]).unwrap().0.calc_header_checksum();
        bytes[24..26].copy_from_slice(&check.to_be_bytes());
    } else {
        let builder =
            etherparse::PacketBuilder::ethernet2([4; 6], [2; 6]).ipv6([1; 16], [2; 16], 64).udp(1, 2);
        builder.write(&mut bytes, &[7; 30]).unwrap();
        bytes[14] = 0x60 | traffic >> 4;
        bytes[15] = traffic << 4;
    }
    Packet::copied_into(Packet::default(), &bytes)
}

fn at(nanoseconds: u64) -> Instant {
    Instant::from_nanos(nanoseconds)
}

/// When a frame that is sent at `now` arrives, in nanoseconds.
fn arrival(wire: &mut Wire, bytes: usize, now: u64) -> Result<u64, WireDrop> {
    match wire.pass(&mut frame_of(bytes), at(now)) {
        Passage::Arrives { at, .. } => Ok(at.as_nanos()),
        Passage::Ended(reason) => Err(reason),
    }
}

/// Every frame that went in arrived or ended.
fn assert_conserved(wire: &Wire, sent: u64) {
    let counts = wire.counts();
    assert_eq!(counts.passed + counts.dropped(), sent, "{counts:?}");
}
