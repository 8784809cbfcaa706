//! Captures in every form that can be read: what is in them comes out, what is wrong with them is told at its place, and
//! nothing that a file can hold brings the reader down.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel_sim::capture::{
    BLOCK_BYTES_MAX, CaptureError, Format, Heading, Link, PACKET_BYTES_MAX, Problem, Reader, Seen, Way,
    Writer,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

/// A packet as it is written down here: interface, time, length on the wire, bytes.
type Packet = (u32, u64, u32, Vec<u8>);

/// Everything that a reader gives, and how it ends.
fn read_all(bytes: &[u8]) -> (Vec<Packet>, Vec<String>, Option<CaptureError>) {
    read_from(bytes)
}

fn read_from(input: impl Read) -> (Vec<Packet>, Vec<String>, Option<CaptureError>) {
    let mut reader = match Reader::new(input) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Vec::new(), Some(error)),
    };
    let mut packets = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                assert_eq!(record.number, packets.len() as u64 + 1);
                packets.push((record.interface, record.at_ns, record.original_bytes, record.bytes.to_vec()));
            }
            Ok(None) => break,
            Err(error) => {
                assert!(reader.next().unwrap().is_none(), "an error is the end");
                return (packets, reader.warnings().to_vec(), Some(error));
            }
        }
    }
    assert_eq!(reader.packets(), packets.len() as u64);
    (packets, reader.warnings().to_vec(), None)
}

fn whole(bytes: &[u8]) -> Vec<Packet> {
    let (packets, warnings, error) = read_all(bytes);
    assert!(warnings.is_empty() && error.is_none(), "{warnings:?} {error:?}");
    packets
}

/// Writes numbers in one byte order.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn half(self, value: u16) -> [u8; 2] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn number(self, value: u32) -> [u8; 4] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn pcap(self, magic: u32, link: u32, packets: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let mut file = self.number(magic).to_vec();
        file.extend(self.half(2));
        file.extend(self.half(4));
        file.extend([0; 8]);
        file.extend(self.number(65_535));
        file.extend(self.number(link));
        for (seconds, fraction, original, bytes) in packets {
            for field in [*seconds, *fraction, u32::try_from(bytes.len()).unwrap(), *original] {
                file.extend(self.number(field));
            }
            file.extend_from_slice(bytes);
        }
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padding = body.len().next_multiple_of(4) - body.len();
        let length = self.number(u32::try_from(12 + body.len() + padding).unwrap());
        [&self.number(kind)[..], &length, body, &vec![0; padding], &length].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = [self.half(1), self.half(0)].concat();
        self.block(0x0a0d_0d0a, &[&self.number(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
    }

    fn interface(self, link: u16, snapshot: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [&self.half(link)[..], &[0, 0], &self.number(snapshot)].concat();
        for (kind, value) in options {
            body.extend(self.half(*kind));
            body.extend(self.half(u16::try_from(value.len()).unwrap()));
            body.extend_from_slice(value);
            body.extend(vec![0; value.len().next_multiple_of(4) - value.len()]);
        }
        self.block(1, &body)
    }

    fn enhanced(self, interface: u32, time: u64, claimed: u32, bytes: &[u8]) -> Vec<u8> {
        let time = [u32::try_from(time >> 32).unwrap(), u32::try_from(time & 0xffff_ffff).unwrap()];
        let fields = [interface, time[0], time[1], claimed, claimed].map(|field| self.number(field)).concat();
        self.block(6, &[&fields, bytes].concat())
    }

    fn simple(self, original: u32, bytes: &[u8]) -> Vec<u8> {
        self.block(3, &[&self.number(original)[..], bytes].concat())
    }

    fn old(self, interface: u16, time: u32, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        let fields = [0, time, length, length].map(|field| self.number(field)).concat();
        self.block(2, &[&self.half(interface)[..], &[0, 0], &fields, bytes].concat())
    }
}

const ORDERS: [Order; 2] = [Order(false), Order(true)];
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

#[test]
fn pcap_is_read_in_both_orders_and_both_units() {
    for order in ORDERS {
        for (magic, unit) in [(MICROSECONDS, 1_000), (NANOSECONDS, 1)] {
            let packets: [(u32, u32, u32, &[u8]); 3] =
                [(1, 2, 4, b"abcd"), (u32::MAX, 999_999, 9, b"a"), (0, 0, 0, b"")];
            // What a capture says of check sequences is in the upper half.
            let file = order.pcap(magic, 0x4400_0000 | 101, &packets);
            let expected = vec![
                (0, 1_000_000_000 + 2 * unit, 4, b"abcd".to_vec()),
                (0, u64::from(u32::MAX) * 1_000_000_000 + 999_999 * unit, 9, b"a".to_vec()),
                (0, 0, 0, Vec::new()),
            ];
            assert_eq!(whole(&file), expected);
            let reader = Reader::new(&file[..]).unwrap();
            assert_eq!((reader.format(), reader.is_packed()), (Format::Pcap, false));
        }
    }
}

/// Two sections of different byte orders with every kind of packet block, and blocks that nobody knows.
fn sections() -> Vec<u8> {
    let mut file = Vec::new();
    for (order, next) in [(Order(false), 5), (Order(true), 50)] {
        let offset = if order.0 { 10i64.to_be_bytes() } else { 10i64.to_le_bytes() };
        file.extend(order.section());
        file.extend(order.interface(1, 0, &[(2, b"eth0")]));
        file.extend(order.block(0x0bad, &[7; 41]));
        file.extend(order.interface(101, 0, &[(9, &[9]), (14, &offset), (0, b"")]));
        file.extend(order.enhanced(1, 500, 3, b"abc"));
        file.extend(order.simple(2, b"de"));
        file.extend(order.old(0, next, b"fghij"));
        // Statistics of an interface.
        file.extend(order.block(5, &[0; 12]));
    }
    file
}

#[test]
fn pcapng_is_read_in_both_orders_with_every_kind_of_packet() {
    let expected = |next: u64| {
        vec![
            (1, 10_000_000_500, 3, b"abc".to_vec()),
            // Without a time of its own, that of the one before.
            (0, 10_000_000_500, 2, b"de".to_vec()),
            (0, next * 1_000, 5, b"fghij".to_vec()),
        ]
    };
    assert_eq!(whole(&sections()), [expected(5), expected(50)].concat());
    let file = sections();
    let mut reader = Reader::new(&file[..]).unwrap();
    assert_eq!(reader.format(), Format::Pcapng);
    while reader.next().unwrap().is_some() {
        assert_eq!((reader.interface_name(0), reader.interface_name(1)), (Some("eth0"), None));
    }
}

#[test]
fn a_simple_packet_is_as_long_as_the_snapshot() {
    let order = Order(false);
    let file = [order.section(), order.interface(1, 3, &[]), order.simple(9, b"abc")].concat();
    let packets = whole(&file);
    assert_eq!(packets, [(0, 0, 9, b"abc".to_vec())]);
}

#[test]
fn an_unknown_link_is_told_once_and_its_packets_say_so() {
    let order = Order(true);
    let parts = [order.section(), order.interface(105, 0, &[]), order.enhanced(0, 1, 2, b"ab")];
    let file = parts.concat();
    let mut reader = Reader::new(&file[..]).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().link, Link::Unknown(105));
    assert!(reader.next().unwrap().is_none());
    let warning = "interface 0 has link type 105, which cannot be replayed; its packets are skipped";
    assert_eq!(reader.warnings(), [warning]);
    let error = Reader::new(&Order(false).pcap(MICROSECONDS, 105, &[])[..]).unwrap_err();
    assert!(
        error.to_string().starts_with("byte 0: link type 105 cannot be replayed; these can: "),
        "{error}"
    );
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn packed_files_are_read_in_pieces_too() {
    let file = sections();
    let (start, end) = file.split_at(100);
    for packed in [packed(&file), [packed(start), packed(end)].concat()] {
        assert_eq!(whole(&packed), whole(&file));
        let reader = Reader::new(&packed[..]).unwrap();
        assert!(reader.is_packed());
    }
}

/// Gives one byte at a time, as a pipe may.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
        self.0 = rest;
        room[0] = *first;
        Ok(1)
    }
}

#[test]
fn an_input_that_gives_little_at_a_time_is_read() {
    let file = sections();
    for file in [file.clone(), packed(&file)] {
        let (packets, warnings, error) = read_from(Drops(&file));
        assert!(warnings.is_empty() && error.is_none());
        assert_eq!(packets, whole(&file));
    }
}

#[test]
fn a_file_that_ends_early_gives_what_is_whole_and_says_so() {
    let pcap = Order(false).pcap(MICROSECONDS, 1, &[(1, 0, 3, b"abc"), (2, 0, 4, b"defg")]);
    let pcapng = sections();
    for file in [&pcap, &pcapng] {
        let all = whole(file);
        let mut most = 0;
        for length in 0..file.len() {
            let (packets, warnings, error) = read_all(&file[..length]);
            assert_eq!(packets, all[..packets.len()]);
            assert!(packets.len() >= most, "{length}");
            most = packets.len();
            if let Some(error) = error {
                assert!(packets.is_empty(), "{length}: {error}");
                let is_early =
                    matches!(error.problem, Problem::Empty | Problem::HeaderCut | Problem::NoCapture { .. });
                assert!(is_early, "{length}: {error}");
            } else if let Some(warning) = warnings.first() {
                let place = "is not whole: the file ends there";
                assert!(warning.contains(place) && warning.contains(&format!("The {} packets", most)));
            } else {
                let read = whole(&file[..length]);
                assert_eq!(read, packets, "{length} is between two packets");
            }
        }
    }
    let (packets, warnings, _) = read_all(&pcap[..pcap.len() - 1]);
    assert_eq!(packets.len(), 1);
    let warning = "packet 2 at byte 43 is not whole: the file ends there. The 1 packets before it are used";
    assert_eq!(warnings, [warning]);
}

#[test]
fn a_packed_file_that_ends_early_gives_what_is_whole() {
    let bytes: Vec<u8> = (0..40_000u32).map(|at| u8::try_from(at * at % 251).unwrap()).collect();
    let chunks: Vec<_> = bytes.chunks(400).map(|chunk| (1, 0, 400, chunk)).collect();
    let file = packed(&Order(false).pcap(MICROSECONDS, 1, &chunks));
    let (packets, warnings, error) = read_all(&file[..file.len() / 2]);
    assert!(error.is_none(), "{error:?}");
    assert!(packets.len() > 5 && packets.len() < 100, "{}", packets.len());
    assert!(warnings[0].contains("of the unpacked file is not whole"), "{warnings:?}");
    let mut damaged = file;
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 1;
    let (packets, _, error) = read_all(&damaged);
    let error = error.expect("what is not unpacked as it was packed is an error");
    assert!(matches!(error.problem, Problem::Input(_)) && error.is_packed, "{error}");
    assert_eq!(packets.len(), 100);
}

fn problem(bytes: &[u8]) -> (String, usize) {
    let (packets, _, error) = read_all(bytes);
    (error.expect("an error").to_string(), packets.len())
}

#[test]
fn what_is_no_capture_is_refused_with_what_to_do() {
    assert_eq!(
        problem(b"").0,
        "byte 0: the file is empty; a capture begins with a header of at least 24 bytes"
    );
    assert!(problem(&packed(b"")).0.starts_with("byte 0 of the unpacked file: the file is empty"));
    let (text, _) = problem(b"\x7fELF, say");
    assert!(text.starts_with("byte 0: the file begins with 7f 45 4c 46, which is no capture; "), "{text}");
    assert!(text.contains("editcap"), "{text}");
    assert!(problem(b"abc").0.contains("61 62 63, which is no capture"));
    let mut file = Order(false).pcap(MICROSECONDS, 1, &[]);
    assert!(problem(&file[..23]).0.contains("the file ends within its header"), "{}", problem(&file[..23]).0);
    file[4] = 3;
    assert!(problem(&file).0.contains("version 3.4 of the format is not known"), "{}", problem(&file).0);
}

#[test]
fn a_packet_that_claims_too_much_is_told_with_its_place() {
    for order in ORDERS {
        let mut file = order.pcap(MICROSECONDS, 1, &[(1, 0, 3, b"abc"), (2, 0, 4, b"defg")]);
        file[51..55].copy_from_slice(&order.number(PACKET_BYTES_MAX + 1));
        let expected = "byte 43, packet 2: a packet of 262145 bytes is claimed; 262144 is the most; \
                        `head --bytes=43` keeps the 1 packets before it";
        assert_eq!(problem(&file), (expected.to_owned(), 1));
        file[51..55].copy_from_slice(&[0xff; 4]);
        assert!(problem(&file).0.contains("a packet of 4294967295 bytes is claimed"));
    }
}

#[test]
fn a_block_that_claims_what_cannot_be_is_told_with_its_place() {
    let order = Order(false);
    let start = [order.section(), order.interface(1, 0, &[])].concat();
    let at = start.len();
    for claimed in [0, 4, 8, 11, 13, BLOCK_BYTES_MAX + 4, u32::MAX] {
        let block = [order.number(6), order.number(claimed), [0; 4], [0; 4]].concat();
        let (text, _) = problem(&[&start[..], &block].concat());
        let expected = format!("byte {at}, packet 1: a block of {claimed} bytes is claimed");
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.ends_with("the file is damaged, take another copy"), "{text}");
    }
    let wrong = |block: Vec<u8>| problem(&[&start[..], &block].concat()).0;
    let mut block = order.enhanced(0, 1, 2, b"ab");
    let last = block.len() - 4;
    block[last] += 4;
    assert!(wrong(block).contains("a block of 36 bytes says 40 at its end"));
    let text = wrong(order.enhanced(0, 1, 5, b"ab"));
    assert!(text.contains("a packet of 5 bytes is claimed in a block that has room for 4"), "{text}");
    let text = wrong(order.enhanced(0, 1, PACKET_BYTES_MAX + 1, b"ab"));
    assert!(text.contains("a packet of 262145 bytes is claimed; 262144 is the most"), "{text}");
    let text = wrong(order.enhanced(1, 1, 2, b"ab"));
    assert!(text.contains("the packet is of interface 1, but 1 are described"), "{text}");
    for (kind, bytes) in [(6, 16), (2, 16), (3, 0), (1, 4)] {
        let text = wrong(order.block(kind, &vec![0; bytes]));
        let room = format!("is claimed in a block that has room for {bytes}");
        assert!(text.contains(&room), "{kind}: {text}");
    }
    let text = wrong(order.block(6, &[0; 16]));
    assert!(
        text.contains("a packet's header of 20 bytes is claimed in a block that has room for 16"),
        "{text}"
    );
    let mut section = order.section();
    section[8] ^= 1;
    assert!(problem(&section).0.contains("a section begins without its byte order mark"));
    let mut section = order.section();
    section[12] = 2;
    assert!(problem(&section).0.contains("version 2.0 of the format is not known"));
}

#[test]
fn a_gigantic_length_costs_no_memory() {
    // The largest block that may be, of which nothing is there: what is there is all that is held.
    let order = Order(false);
    let mut file = order.section();
    file.extend([order.number(6), order.number(BLOCK_BYTES_MAX)].concat());
    let (packets, warnings, error) = read_all(&file);
    assert!(packets.is_empty() && error.is_none());
    assert!(warnings[0].starts_with("packet 1 at byte 28 is not whole"), "{warnings:?}");
}

// Captures of others.

fn captures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: there are no captures in {}", folder.display());
    None
}

#[test]
fn captures_of_others_have_as_many_packets_as_their_list_says() {
    let Some(folder) = captures() else { return };
    let list = std::fs::read_to_string(folder.join("INDEX.md")).unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // A long name is shortened in the list.
        let row = list.lines().find(|line| {
            let first = line.strip_prefix("| ").and_then(|line| line.split(' ').next()).unwrap_or("");
            let (head, tail) = first.split_once('…').unwrap_or((first, ""));
            !head.is_empty() && name.starts_with(head) && name.ends_with(tail)
        });
        let Some(row) = row else { continue };
        let count: u64 = row.split('|').nth(3).unwrap().replace(' ', "").parse().unwrap();
        let mut reader = Reader::new(std::fs::File::open(&path).unwrap()).unwrap();
        while let Some(record) = reader.next().unwrap() {
            assert_eq!(record.link, Link::Ethernet);
            assert!(!record.is_cut(), "{name} {}", record.number);
        }
        assert_eq!((reader.packets(), reader.warnings().len()), (count, 0), "{name}");
        files += 1;
    }
    assert_eq!(files, 10, "each capture is in the list");
}

// What is written.

fn written(packets: &[(u64, Vec<u8>, String)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for name in ["tun0", "tun1"] {
        writer.interface(name, Link::Raw).unwrap();
    }
    for ((at_ns, bytes, comment), number) in packets.iter().zip(0..) {
        let way = if number % 2 == 0 { Way::In } else { Way::Out };
        let heading = Heading { interface: number % 2, at_ns: *at_ns, way, packet_id: u64::from(number / 2) };
        writer.packet(&Seen { heading, bytes, comment }).unwrap();
    }
    writer.finish().unwrap()
}

/// What tshark says, or nothing where it is not installed.
fn tshark(file: &[u8], fields: &[&str]) -> Option<String> {
    let path = std::env::temp_dir().join(format!("evenkeel-{}-{}.pcapng", std::process::id(), file.len()));
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&path).args(["-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output();
    std::fs::remove_file(&path).unwrap();
    match output {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            eprintln!("SKIPPED: tshark does not run: {error}");
            None
        }
    }
}

#[test]
fn tshark_reads_what_is_written() {
    let datagram = |last: u8| {
        let mut bytes = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 10, 0, 0, last];
        bytes.extend([0x9c, 0x40, 0, 53, 0, 9, 0, 0, b'x']);
        bytes
    };
    let time = 1_700_000_000_123_456_789;
    let packets = [
        (time, datagram(3), "director: web; end: forwarded by tun1".to_owned()),
        (time + 1, datagram(20), "copy, \"quoted\", größer".to_owned()),
        (time + 2, datagram(3), String::new()),
    ];
    let fields = [
        "frame.time_epoch",
        "frame.interface_name",
        "frame.packet_id",
        "frame.packet_flags_direction",
        "ip.dst",
        "frame.comment",
    ];
    let Some(text) = tshark(&written(&packets), &fields) else { return };
    let rows: Vec<_> = text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    assert_eq!(rows.len(), 3, "{text}");
    assert_eq!(
        rows[0],
        [
            "1700000000.123456789",
            "tun0",
            "0",
            "0x00000001",
            "10.0.0.3",
            "director: web; end: forwarded by tun1"
        ]
    );
    assert_eq!(
        rows[1],
        ["1700000000.123456790", "tun1", "0", "0x00000002", "10.0.0.20", "copy, \"quoted\", größer"]
    );
    assert_eq!(rows[2], ["1700000000.123456791", "tun0", "1", "0x00000001", "10.0.0.3", ""]);
}

// Whatever comes.

/// The real headers of files, to be changed a little.
fn samples() -> Vec<Vec<u8>> {
    let packets: [(u32, u32, u32, &[u8]); 2] = [(1, 2, 60, &[0x45; 60]), (3, 4, 1_500, &[0x60; 200])];
    let mut samples = vec![sections(), written(&[(1, vec![1; 33], "a comment".to_owned())])];
    for order in ORDERS {
        for magic in [MICROSECONDS, NANOSECONDS] {
            samples.push(order.pcap(magic, 1, &packets));
        }
    }
    let all: Vec<_> = samples.iter().map(|sample| packed(sample)).collect();
    samples.extend(all);
    samples
}

/// Reads to the end and looks at everything.
fn look(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let mut packets = 0;
    while let Ok(Some(record)) = reader.next() {
        let _ = (record.notes.comment(), record.notes.packet_id(), record.notes.way(), record.is_cut());
        let _ = evenkeel_sim::capture::strip(record.link, record.bytes);
        packets += 1;
    }
    // Each packet takes at least sixteen bytes; what is packed gets at most a thousand times as long.
    assert!(packets <= bytes.len() * 1_100 / 16 + 1);
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        look(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_real_header_are_read_to_an_end(
        sample in 0usize..6,
        keep in 0usize..200,
        bytes in proptest::collection::vec(any::<u8>(), 0..500),
    ) {
        let samples = samples();
        let sample = &samples[sample];
        look(&[&sample[..keep.min(sample.len())], &bytes].concat());
    }

    #[test]
    fn changed_files_are_read_to_an_end(
        sample in 0usize..12,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = samples().swap_remove(sample);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        look(&bytes);
        look(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn what_is_written_comes_back(
        packets in proptest::collection::vec(
            (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..1_600), "[ -~é]{0,40}"),
            0..40,
        ),
    ) {
        let file = written(&packets);
        let mut reader = Reader::new(&file[..]).unwrap();
        for ((at_ns, bytes, comment), number) in packets.iter().zip(0u32..) {
            let record = reader.next().unwrap().unwrap();
            prop_assert_eq!((record.at_ns, record.bytes), (*at_ns, &bytes[..]));
            prop_assert_eq!(record.interface, number % 2);
            prop_assert_eq!(record.notes.comment().unwrap_or(""), comment);
            prop_assert_eq!(record.notes.packet_id(), Some(u64::from(number / 2)));
        }
        prop_assert!(reader.next().unwrap().is_none());
        prop_assert!(reader.warnings().is_empty());
    }
}
