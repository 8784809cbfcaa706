//! What each built-in scheduler is good for, and for what another one is better.

/// Of one scheduler.
#[derive(Debug)]
pub(crate) struct Use {
    /// Its name.
    pub(crate) name: &'static str,
    /// The file that defines it.
    pub(crate) file: &'static str,
    /// When to use it.
    pub(crate) when: &'static str,
    /// When not, and what instead.
    pub(crate) when_not: &'static str,
}

const fn entry(name: &'static str, file: &'static str, when: &'static str, when_not: &'static str) -> Use {
    Use { name, file, when, when_not }
}

/// Of each scheduler.
pub(crate) const ALL: &[Use] = &[
    entry(
        "rr",
        "round_robin",
        "Equal servers, and flows that cost about the same.",
        "Servers of unequal size: `wrr` or `swrr`. Flows of unequal length: `wlc`.",
    ),
    entry(
        "wrr",
        "weighted_round_robin",
        "Servers of unequal size, as a Linux director does it.",
        "Without a reason to do as Linux does, `swrr` spreads a heavy server's turns more evenly.",
    ),
    entry(
        "lc",
        "least_connections",
        "Equal servers, and flows of unequal length.",
        "Servers of unequal size: `wlc`. UDP that never closes: connections say little there; `maglev`.",
    ),
    entry(
        "wlc",
        "weighted_least_connections",
        "The usual choice: servers of unequal size, flows of unequal length. It is the default.",
        "Several forwarders that must agree without talking: `maglev`. Hundreds of servers: each flow looks at all of them; `p2c`.",
    ),
    entry(
        "sh",
        "source_hashing",
        "Clients that must come back to their server, as a Linux director does it.",
        "Servers that come and go: most clients move; `maglev` with `key = \"source\"`.",
    ),
    entry(
        "maglev",
        "maglev",
        "Several forwarders that must agree; a change of servers that moves few flows.",
        "Unequal flows on few servers: it does not look at load; `wlc`.",
    ),
    entry(
        "lblc",
        "locality",
        "Caches: each address that clients call is served by one of them.",
        "Few destinations, such as one VIP: then it is one server at a time; `wlc`.",
    ),
    entry(
        "lblcr",
        "locality_replicated",
        "Caches with some destinations that one of them can not serve alone.",
        "Few destinations, or servers that all hold the same; `wlc`.",
    ),
    entry(
        "dh",
        "destination_hashing",
        "Caches by destination, as a Linux director does it.",
        "Servers that come and go: most destinations move; `maglev` with `key = \"destination\"`.",
    ),
    entry(
        "sed",
        "shortest_expected_delay",
        "Servers of very unequal size, where a fast one may work while a slow one idles.",
        "UDP: nothing counts as active there, and one server gets everything.",
    ),
    entry("nq", "never_queue", "As `sed`, where no server should idle.", "UDP, as with `sed`."),
    entry(
        "fo",
        "failover",
        "One server works, the others stand by.",
        "Whenever the others could help: `ovf` or `wlc`.",
    ),
    entry(
        "ovf",
        "overflow",
        "Fill one server before the next one is woken.",
        "Latency matters more than idle machines: `wlc`. UDP: nothing counts as active there.",
    ),
    entry(
        "mh",
        "maglev_hashing",
        "Maglev as a Linux director has it, to stand beside one.",
        "Without such a neighbour `maglev` has larger tables and looks at the whole flow.",
    ),
    entry(
        "twos",
        "random_twos",
        "Hundreds of servers, as newer Linux kernels do it.",
        "Without a reason to do as Linux does, `p2c` never draws the same server twice.",
    ),
    entry(
        "p2c",
        "power_of_choices",
        "Hundreds of servers, or several forwarders that do not know of each other's flows.",
        "Few servers: `wlc` looks at all of them for little more.",
    ),
    entry(
        "jsq",
        "shortest_queue",
        "The least waiting that counts of flows can give; the yardstick for others.",
        "Several forwarders: all of them run to the same server; `p2c`.",
    ),
    entry(
        "jiq",
        "idle_queue",
        "Little load: somebody is idle nearly always.",
        "Much load: where nobody is idle it is random; `p2c`.",
    ),
    entry(
        "modulo",
        "modulo",
        "A yardstick: what moves when nothing prevents it.",
        "Servers that ever come or go: nearly all flows move; `maglev`.",
    ),
    entry(
        "source",
        "source",
        "To decide as HAProxy's `balance source`.",
        "Without such a neighbour `maglev` with `key = \"source\"` moves fewer clients.",
    ),
    entry(
        "leastconn",
        "leastconn",
        "To decide as HAProxy's `balance leastconn`.",
        "Without such a neighbour `wlc` is the same idea.",
    ),
    entry(
        "first",
        "first",
        "Servers with a bound on their flows, filled one after the other so that the last ones can be switched off.",
        "Without bounds the first server gets everything.",
    ),
    entry(
        "random",
        "random",
        "To decide as HAProxy's `balance random`.",
        "Without such a neighbour `p2c` is the same idea.",
    ),
    entry(
        "static-rr",
        "static_round_robin",
        "To decide as HAProxy's `balance static-rr`.",
        "Without such a neighbour `swrr` is the same idea, and follows changes.",
    ),
    entry(
        "swrr",
        "smooth_round_robin",
        "Servers of unequal size, flows that cost about the same.",
        "Flows of unequal length: `wlc`.",
    ),
    entry(
        "rendezvous",
        "rendezvous",
        "The least movement when servers change, and agreement whatever the order of the list.",
        "Hundreds of servers: each flow looks at all of them; `maglev`. Weights: `weighted-rendezvous`.",
    ),
    entry(
        "weighted-rendezvous",
        "rendezvous",
        "As `rendezvous`, with servers of unequal size.",
        "Hundreds of servers: a logarithm for each of them and each flow; `maglev`.",
    ),
    entry(
        "ring",
        "ring",
        "The classic consistent hashing, to stand beside others that use it.",
        "Evenness: with 160 points a server is some percent off its share; `maglev`.",
    ),
    entry(
        "bounded",
        "ring",
        "Consistent hashing where a few clients bring most of the load.",
        "Clients that must stay whatever happens: a full server passes them on; `ring`.",
    ),
    entry(
        "jump",
        "jump",
        "Servers that are only added and removed at the end of the list; no memory at all.",
        "A server in the middle that goes: `anchor` or `maglev`.",
    ),
    entry(
        "anchor",
        "anchor",
        "Many servers that come and go in any order, the least movement and no table.",
        "More servers than `capacity` will ever hold; weights: `maglev`.",
    ),
    entry(
        "dx",
        "dx",
        "As `anchor`, with less memory where most of the capacity is used.",
        "A capacity that is mostly empty: flows look long for a server; `anchor`.",
    ),
    entry(
        "multi-probe",
        "multi_probe",
        "A ring with little memory: one point for each server.",
        "Cost of a decision: 21 hashes for each flow; `maglev`.",
    ),
    entry(
        "peak-ewma",
        "peak_ewma",
        "Servers whose speed differs and changes: other tenants, garbage collection.",
        "A first answer that says nothing of the work behind it; `wlc`.",
    ),
    entry(
        "least-request",
        "least_request",
        "To decide as Envoy's least request.",
        "Without such a neighbour `p2c` is the same idea.",
    ),
    entry(
        "prequal",
        "prequal",
        "Heterogeneous servers under heavy load, where tail latency counts.",
        "Few flows: the pool of answers is stale; `peak-ewma`.",
    ),
];

/// Of the scheduler of this name.
pub(crate) fn of(name: &str) -> &'static Use {
    ALL.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("docs/tests/tidy/uses.rs lacks {name}"))
}
