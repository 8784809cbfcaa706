//! What becomes of a packet: the closed list of ends that a walk through the engine can have.

/// Which interface of the plan; the index into [`Plan::interfaces`](crate::plan::Plan::interfaces).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u16);

impl InterfaceId {
    /// The position in the plan's list.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The end of one packet's walk. Every packet that comes in gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The buffer, edited in place, leaves by this interface.
    Forward(InterfaceId),
    /// Other packets that were made of it leave by this interface.
    Replace(InterfaceId),
    /// The engine keeps it until its neighbour answers or its first fragment comes.
    Hold,
    /// The buffer was turned into an answer to its sender and leaves by this interface.
    Answer(InterfaceId),
    /// The packet was for the engine itself (an ARP reply, say) and nothing leaves.
    Consume,
    /// The packet ends here, counted under its reason.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet ended in the engine. One list for counters, metrics, docs and tests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name under which counters, metrics and replies show this reason.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One line for the operator: what it means.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The frame or packet is shorter than the header that it announces.
    Truncated = "truncated",
    /// A header field contradicts itself: version, header length or total length.
    BadHeader = "bad_header",
    /// The IPv4 header checksum, or the checksum of a message that asks for an answer, is wrong.
    BadChecksum = "bad_checksum",
    /// The source address can not be a sender, or source and destination are the same (RFC 1812 s.5.3.7).
    Martian = "martian",
    /// The options ask for a way through other routers (RFC 7126 s.4.3).
    SourceRoute = "source_route",
    /// Neither IP nor, on Ethernet, ARP.
    NotIp = "not_ip",
    /// A protocol other than TCP, UDP and ICMP.
    UnknownProtocol = "unknown_protocol",
    /// A fragment whose first one went nowhere, or one of a message that is never cut.
    Fragment = "fragment",
    /// A fragment so small that it hides the header from whoever looks at it (RFC 1858, RFC 3128).
    FragmentTiny = "fragment_tiny",
    /// A fragment that repeats or overlaps another of its datagram, or one of a datagram with such a fragment (RFC 5722).
    FragmentOverlap = "fragment_overlap",
    /// There is no room for this fragment: too many datagrams under way, pieces of one, or bytes that wait.
    FragmentsFull = "fragments_full",
    /// A fragment that waited for the first one of its datagram, which did not come.
    FragmentTimeout = "fragment_timeout",
    /// An ICMP message that the engine does not answer, or an error about a packet of no known flow.
    IcmpUnhandled = "icmp_unhandled",
    /// A flow rule or a policy component denied the packet.
    PolicyDenied = "policy_denied",
    /// No director is bound to the destination address, port and protocol.
    NoDirector = "no_director",
    /// A TCP segment of no known flow that opens none. Its sender gets a reset, unless it is one itself.
    NoFlow = "no_flow",
    /// The director has no real server that may take a new flow.
    NoServer = "no_server",
    /// The client has as many flows as one may have.
    ClientLimit = "client_limit",
    /// The flow table is full and keeps the flows that it has.
    FlowTableFull = "flow_table_full",
    /// Source NAT has no port left towards this real server.
    PortsExhausted = "ports_exhausted",
    /// The time to live would reach zero here.
    TtlExceeded = "ttl_exceeded",
    /// The packet is larger than the MTU of the way out.
    TooBig = "too_big",
    /// No route leads to the destination.
    NoRoute = "no_route",
    /// The link address of the next hop is not known yet; it has been asked for.
    NeighbourUnresolved = "neighbour_unresolved",
    /// An answer was due, but answers are rate limited (RFC 1812 s.4.3.2.8).
    AnswerLimited = "answer_limited",
    /// The interface of the packet is not in the plan.
    UnknownInterface = "unknown_interface",
    /// The device could not take the packet: its queue is full or it is gone.
    DeviceQueueFull = "device_queue_full",
    /// A frame on Ethernet that is addressed to another host.
    OtherHost = "other_host",
}

impl DropReason {
    /// Whether a packet is dropped since it is none of our business, and so may be passed on where the plan says so.
    #[must_use]
    pub const fn is_about_others(self) -> bool {
        matches!(
            self,
            Self::OtherHost | Self::NotIp | Self::UnknownProtocol | Self::NoDirector | Self::IcmpUnhandled
        )
    }
}
