//! Sends flows to directors by the network that an address lies in: the longest prefix decides.
//!
//! The table is the component's `data` (a file with one line for each network) or its option `prefixes`, in which commas
//! may stand for ends of lines. A line is `NETWORK WHAT`, where `WHAT` is the name of a director, `director NAME`,
//! `table ID`, `permit`, `deny` or `skip`; `#` begins a comment. A table has at most 65,536 networks. A flow in no network
//! gets what the option `otherwise` says, `skip` by default.
//!
//! Option `by`: the `source` of a flow (the default), or its `destination`.
//!
//! Networks that hold others are cut into stretches of addresses when the table is read, so that a flow costs one binary
//! search, however many networks there are.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use evenkeel_plugin_sdk::network::{Network, is_ipv4};
use evenkeel_plugin_sdk::{
    Arrival, ConfigureError, Decision, Instant, Options, Policy, PolicySetup, Verdict,
};

/// The most networks: what can be read within the time of a reload, and 7 MiB of stretches.
const NETWORKS_MAX: usize = 65_536;

#[derive(Debug)]
struct GeoPrefix {
    is_by_source: bool,
    otherwise: Verdict,
    /// Of IPv6, and of IPv4: no network of the one holds an address of the other.
    tables: [Stretches; 2],
}

/// Where stretches of addresses begin, and what holds from there on; nothing where no network does.
#[derive(Debug, Default)]
struct Stretches {
    firsts: Vec<u128>,
    verdicts: Vec<Option<Verdict>>,
}

impl Stretches {
    /// Of networks that are sorted, the longer ones behind those that hold them.
    fn new(networks: impl Iterator<Item = (Network, Verdict)>) -> Self {
        let mut stretches = Self::default();
        let mut open: Vec<(u128, Verdict)> = Vec::new();
        for (network, verdict) in networks {
            stretches.close(&mut open, Some(network.first()));
            stretches.begin(network.first(), Some(verdict));
            open.push((network.last(), verdict));
        }
        stretches.close(&mut open, None);
        stretches
    }

    /// Ends the networks that end before `until`, or all: what they lie in goes on.
    fn close(&mut self, open: &mut Vec<(u128, Verdict)>, until: Option<u128>) {
        while let Some((last, _)) = open.last().copied()
            && until.is_none_or(|until| last < until)
        {
            open.pop();
            let Some(next) = last.checked_add(1) else { continue };
            self.begin(next, open.last().map(|(_, verdict)| *verdict));
        }
    }

    fn begin(&mut self, first: u128, verdict: Option<Verdict>) {
        if self.firsts.last() == Some(&first) {
            self.verdicts.pop();
        } else {
            self.firsts.push(first);
        }
        self.verdicts.push(verdict);
    }

    fn find(&self, bits: u128) -> Option<Verdict> {
        let place = self.firsts.partition_point(|first| *first <= bits).checked_sub(1)?;
        self.verdicts.get(place).copied().flatten()
    }
}

/// What a text stands for.
fn verdict(text: &str, setup: &PolicySetup) -> Result<Verdict, String> {
    let text = text.trim();
    match text {
        "permit" => return Ok(Verdict::Permit),
        "deny" => return Ok(Verdict::Deny),
        "skip" => return Ok(Verdict::Skip),
        _ => {}
    }
    let index = |place: Option<usize>| place.and_then(|place| u16::try_from(place).ok());
    if let Some(id) = text.strip_prefix("table ") {
        let place = setup.tables.iter().position(|table| id.trim().parse() == Ok(*table));
        return index(place).map(Verdict::Table).ok_or_else(|| format!("no routing table is number {id}"));
    }
    let name = text.strip_prefix("director ").unwrap_or(text).trim();
    let place = setup.directors.iter().position(|director| director == name);
    index(place).map(Verdict::Director).ok_or_else(|| format!("no director is named `{name}`"))
}

/// A network, and what happens to flows from there.
type Entry = (Network, Verdict);

/// Reads the networks of a table.
fn read(text: &str, setup: &PolicySetup, all: &mut Vec<Entry>) -> Result<(), ConfigureError> {
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for entry in line.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let refuse = |reason: &str| ConfigureError::Other(format!("line {}: {reason}", number + 1));
            let (network, what) = entry
                .split_once([' ', '\t'])
                .ok_or_else(|| refuse("a line is NETWORK and what happens, as in `192.0.2.0/24 web`"))?;
            let network = Network::parse(network)
                .ok_or_else(|| refuse(&format!("`{network}` is not a network, as in `192.0.2.0/24`")))?;
            if all.len() == NETWORKS_MAX {
                return Err(refuse(&format!("more than {NETWORKS_MAX} networks")));
            }
            all.push((network, verdict(what, setup).map_err(|reason| refuse(&reason))?));
        }
    }
    Ok(())
}

/// Brings them into order, the longer ones behind those that hold them.
fn sort(all: &mut [Entry]) -> Result<(), ConfigureError> {
    all.sort_by_key(|(network, _)| (network.first(), core::cmp::Reverse(network.last())));
    for pair in all.windows(2) {
        if let [(one, first), (other, second)] = pair
            && one == other
            && first != second
        {
            return Err(ConfigureError::Other(String::from("a network is there twice with two ends")));
        }
    }
    Ok(())
}

impl Policy for GeoPrefix {
    fn configure(setup: &PolicySetup, options: &mut Options) -> Result<Self, ConfigureError> {
        let by = options.text("by", "source")?;
        if by != "source" && by != "destination" {
            return Err(ConfigureError::bad_option("by", "write `source` or `destination`"));
        }
        let otherwise = options.text("otherwise", "skip")?;
        let otherwise =
            verdict(&otherwise, setup).map_err(|reason| ConfigureError::bad_option("otherwise", reason))?;
        let prefixes = options.text("prefixes", "")?;
        let mut all = Vec::new();
        read(&setup.data, setup, &mut all)?;
        read(&prefixes, setup, &mut all)?;
        sort(&mut all)?;
        let of = |is_v4: bool| all.iter().copied().filter(move |(network, _)| network.is_ipv4() == is_v4);
        let tables = [Stretches::new(of(false)), Stretches::new(of(true))];
        Ok(Self { is_by_source: by == "source", otherwise, tables })
    }

    fn decide(&mut self, Arrival { flow, .. }: &Arrival, _: Instant) -> Decision {
        let bits = if self.is_by_source { flow.source_bits() } else { flow.destination_bits() };
        let [six, four] = &self.tables;
        let table = if is_ipv4(bits) { four } else { six };
        table.find(bits).unwrap_or(self.otherwise).into()
    }
}

evenkeel_plugin_sdk::export_policy!(GeoPrefix);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use evenkeel_plugin_sdk::Flow;
    use evenkeel_plugin_sdk::kit::{PolicyKit, flow_from, message};

    fn kit(options: &str, data: &str) -> PolicyKit<GeoPrefix> {
        PolicyKit::with_data(options, data).unwrap()
    }

    fn from(address: [u8; 4]) -> Flow {
        flow_from(Ipv4Addr::from(address), 0)
    }

    #[test]
    fn the_longest_prefix_decides() {
        let data = "# two continents\n10.0.0.0/8 web\n10.1.0.0/16 dns\n10.1.2.0/24 deny # one office\n\
                    10.1.2.128/32 table 200\n2001:db8::/32 director dns\n";
        let mut kit = kit("otherwise = \"permit\"", data);
        let six = Flow { source_high: 0x2001_0db8_0000_0000, source_low: 1, ..from([0; 4]) };
        let flows = [
            from([10, 0, 0, 0]),
            from([10, 1, 1, 255]),
            from([10, 1, 2, 127]),
            from([10, 1, 2, 128]),
            from([10, 1, 2, 129]),
            from([10, 1, 3, 0]),
            from([10, 255, 255, 255]),
            from([11, 0, 0, 0]),
            six,
        ];
        use Verdict::{Deny, Director, Permit, Table};
        let expected =
            [Director(0), Director(1), Deny, Table(0), Deny, Director(1), Director(0), Permit, Director(1)];
        assert_eq!(kit.decide(&flows), expected);
    }

    #[test]
    fn the_last_addresses_have_nothing_behind_them() {
        let mut kit = kit("", "255.255.255.0/24 web\n255.255.255.255 dns\nff00::/8 web\n");
        let six = Flow { source_high: u64::MAX, source_low: u64::MAX, ..from([0; 4]) };
        let verdicts = kit.decide(&[from([255; 4]), from([255, 255, 255, 254]), six]);
        assert_eq!(verdicts, [Verdict::Director(1), Verdict::Director(0), Verdict::Director(0)]);
    }

    #[test]
    fn thousands_of_prefixes_agree_with_a_walk_over_all() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let names = ["web", "dns", "deny", "permit"];
        let verdicts = [Verdict::Director(0), Verdict::Director(1), Verdict::Deny, Verdict::Permit];
        let mut known = alloc::collections::BTreeMap::new();
        let mut data = String::new();
        for _ in 0..5_000 {
            let length = 8 + random(25);
            let bits = u32::try_from(random(1 << 12) << 20 | random(1 << 20)).unwrap();
            let address = bits & u32::MAX.checked_shl(32 - u32::try_from(length).unwrap()).unwrap_or(0);
            let what = usize::try_from(random(4)).unwrap();
            if known.insert((length, address), what).is_none() {
                data += &format!("{}/{length} {}\n", Ipv4Addr::from_bits(address), names[what]);
            } else {
                known.remove(&(length, address));
                data = data
                    .lines()
                    .filter(|line| !line.starts_with(&format!("{}/{length} ", Ipv4Addr::from_bits(address))))
                    .map(|line| format!("{line}\n"))
                    .collect();
            }
        }
        let mut kit = kit("", &data);
        for _ in 0..20_000 {
            let bits = u32::try_from(random(1 << 32)).unwrap();
            let longest = (8..=32).rev().find_map(|length: u64| {
                let mask = u32::MAX.checked_shl(32 - u32::try_from(length).unwrap()).unwrap_or(0);
                known.get(&(length, bits & mask))
            });
            let expected = longest.map_or(Verdict::Skip, |what| verdicts[*what]);
            assert_eq!(kit.decide(&[from(bits.to_be_bytes())]), [expected]);
        }
    }

    #[test]
    fn destinations_count_where_that_is_asked_for() {
        let mut kit = kit("by = \"destination\"\nprefixes = \"10.0.0.3 dns, 10.0.0.0/8 web\"", "");
        assert_eq!(kit.decide(&[from([192, 0, 2, 1])]), [Verdict::Director(1)]);
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (data, reason) in [
            (
                "10.0.0.0/8 web\n10.0.0.0/33 web",
                "line 2: `10.0.0.0/33` is not a network, as in `192.0.2.0/24`",
            ),
            ("10.0.0.0/8 nowhere", "line 1: no director is named `nowhere`"),
            ("10.0.0.0/8 table 7", "line 1: no routing table is number 7"),
            ("\n\n10.0.0.0/8", "line 3: a line is NETWORK and what happens, as in `192.0.2.0/24 web`"),
            ("10.0.0.0/8 web\n10.0.0.0/8 dns", "a network is there twice with two ends"),
        ] {
            let error = PolicyKit::<GeoPrefix>::with_data("", data).unwrap_err();
            assert_eq!(message(&error), reason);
        }
        let many: String = (0..=65_536_u32).map(|n| format!("{} web\n", Ipv4Addr::from_bits(n))).collect();
        let error = PolicyKit::<GeoPrefix>::with_data("", &many).unwrap_err();
        assert_eq!(message(&error), "line 65537: more than 65536 networks");
    }
}
