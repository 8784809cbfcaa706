//! The differences that are meant: each with its reason, and at most twenty of them.
//!
//! The list is the table of `docs/src/differences.md`. Which difference falls under which rule is decided by what the
//! frames say, never by the name of a recording.

/// The most rules: a list that nobody reads to its end hides mistakes.
pub const RULES_MAX: usize = 20;

/// A difference that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its short name, in the table and in reports.
    pub id: &'static str,
    /// What the recorded load balancer does.
    pub recorded: &'static str,
    /// What Evenkeel does.
    pub ours: &'static str,
    /// Why.
    pub reason: &'static str,
    /// What gives the recorded behaviour, if anything does.
    pub option: &'static str,
}

macro_rules! rules {
    ($($name:ident = $id:literal, $recorded:literal, $ours:literal, $reason:literal, $option:literal;)+) => {
        $(pub(super) const $name: &str = $id;)+

        /// Every difference that is meant, in the order of the table.
        pub const RULES: &[Rule] = &[
            $(Rule { id: $id, recorded: $recorded, ours: $ours, reason: $reason, option: $option },)+
        ];
    };
}

rules! {
    UDP_WITHOUT_CHECKSUM = "udp-without-checksum",
        "IPVS gives a UDP datagram that came without a checksum one when it translates it",
        "it stays without",
        "RFC 768: the sender chose none; a checksum over bytes that nobody vouched for hides damage",
        "`fill_udp_checksum = true`";
    QUOTED_CHECKSUM = "quoted-checksum",
        "IPVS translates the packet that an ICMP error quotes, and leaves its UDP or TCP checksum as it was",
        "the quoted checksum is mended",
        "RFC 5508 s.4.2: the quote is the packet as its sender sent it",
        "none";
    OWN_PACKETS_WHOLE = "own-packets-whole",
        "Linux sends its own ICMP messages with an identification and without don't fragment",
        "identification 0 and don't fragment; an echo reply keeps both from its request",
        "RFC 6864 s.4: they are atomic, and need no identification that is unique",
        "none";
    MAPPED_PORT = "mapped-port",
        "netfilter draws a port, or counts on, when a client's own is taken or out of the range",
        "the first free port at or after a place that the flow's hash chooses",
        "RFC 6056 s.3.3; which port it is was never promised",
        "none";
    GUE_SOURCE_PORT = "gue-source-port",
        "IPVS and Katran take the source port of GUE from hashes of their own",
        "from the flow's hash, between 49,152 and 65,535",
        "any port that is the same for one flow does (draft-ietf-intarea-gue s.5.6.1); these are the dynamic ones of RFC 6335",
        "none";
    TUNNEL_IDENTIFICATION = "tunnel-identification",
        "the outer header of an IPv4 tunnel without don't fragment: Katran writes identification 0, IPVS counts",
        "made from the inner identification and the flow's hash",
        "RFC 6864 s.4.3: packets that may be cut need different identifications, or their pieces mix",
        "none";
    NEIGHBOUR_PROBE = "neighbour-probe",
        "Linux asks neighbours that it knows again, by unicast, by timers of its own",
        "a neighbour that is in use is asked anew when its entry ages",
        "RFC 1122 s.2.3.2.1 leaves the mechanism free; timing is masked anyway",
        "none";
    INNER_HOP = "inner-hop",
        "Katran leaves the inner TTL as it came",
        "one hop is taken off the inner packet",
        "RFC 2003 s.3.1: who forwards a packet into a tunnel is a router (RFC 1812 s.5.3.1), and loops end",
        "none";
    TUNNEL_SOURCE = "tunnel-source",
        "Katran writes the flow into the outer source address (172.16.0.0/16, 100::/64), to spread load over queues",
        "one of the forwarder's own addresses",
        "RFC 2003 s.3.1, RFC 2827: errors about the tunnel come back, and filters let it pass",
        "none";
    FLOW_LABEL = "flow-label",
        "Katran writes flow label 0 into outer IPv6 headers",
        "made from the flow's hash",
        "RFC 6438: routers spread tunnels by it",
        "none";
    GUE_HEADER = "gue-header",
        "Katran sends GUE variant 1: IP directly behind UDP",
        "GUE variant 0, with its header of 4 bytes, as IPVS and Linux do",
        "every receiver of GUE knows variant 0",
        "none";
    ERROR_QUOTE = "error-quote",
        "Katran quotes 84 bytes (IPv4) or 248 (IPv6) of a packet that is too big",
        "as much as fits into 576 or 1,280 bytes",
        "RFC 1812 s.4.3.2.3, RFC 4443 s.3.2: as much as possible",
        "none";
    ERROR_CLASS = "error-class",
        "Katran sends ICMP errors with type of service 0",
        "internetwork control, 0xc0, as Linux does",
        "RFC 1812 s.4.3.2.5",
        "none";
    ERROR_MTU = "error-mtu",
        "Katran's Origin GUE writes an MTU of 0 into ICMPv6 packet too big",
        "the MTU that fits",
        "RFC 4443 s.3.2, RFC 8201 s.4: a sender ignores less than 1,280",
        "none";
    ERROR_CHECKSUM = "error-checksum",
        "Katran steers ICMP errors whose checksum is wrong",
        "they are dropped as `bad_checksum`",
        "RFC 5508 s.4.2, REQ-3: what a damaged error quotes names no flow",
        "none";
    CUTS = "cuts",
        "Katran drops an IPv4 packet that does not fit, or sends fragmentation needed, though it may be cut",
        "it is cut; with don't fragment the same error is sent",
        "RFC 791 s.2.3, RFC 1191 s.4: the error is for packets with don't fragment",
        "`cut = false` drops it";
    IP_OPTIONS = "ip-options",
        "Katran drops every IPv4 packet with options",
        "forwarded; only source routes are dropped",
        "RFC 7126 s.4: options by themselves are no reason to drop",
        "none";
    NO_SERVER_TOLD = "no-server-told",
        "Katran drops packets for a service without real servers in silence",
        "the sender is told: port unreachable",
        "RFC 1122 s.3.2.2.1; IPVS does the same",
        "none";
}

/// The rule with this id.
#[must_use]
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_is_short_and_its_names_differ() {
        let ids: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert!(ids.len() == RULES.len() && RULES.len() <= RULES_MAX);
        assert!(RULES.iter().all(|one| rule(one.id) == Some(one)));
    }
}
