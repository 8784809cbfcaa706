//! The laws that go by a name: what traces of data centres have shown, as papers and their programs give them.
//!
//! Sizes are in bytes, times in nanoseconds. Facts of others, in our own form; each says where it is from.

use super::cdf::{Cdf, Shape};

/// Bytes of payload of a packet in the tables that count packets (1,500 minus headers of IP and TCP).
const SEGMENT_BYTES: u64 = 1_460;
const SECOND: u64 = 1_000_000_000;

/// The names of all laws.
pub const NAMES: [&str; 9] = [
    "websearch",
    "datamining",
    "hadoop",
    "cache",
    "alistorage",
    "googlerpc2008",
    "hadoop-connection-duration",
    "hadoop-connection-size",
    "silkroad-upgrade",
];

/// Flow sizes of a web-search cluster: Alizadeh et al., "Data Center TCP (DCTCP)", SIGCOMM 2010, in the form of the
/// traffic generator of HPCC (alibaba-edu/High-Precision-Congestion-Control, `WebSearch_distribution.txt`).
const WEBSEARCH: &str = "0 0\n10000 15\n20000 20\n30000 30\n50000 40\n80000 53\n200000 60\n1000000 70\n\
    2000000 80\n5000000 90\n10000000 97\n30000000 100";

/// Flow sizes of a data-mining cluster, in packets: Greenberg et al., "VL2", SIGCOMM 2009, in the form of PIAS
/// (HKUST-SING/TrafficGenerator, `CDF_vl2.txt`).
const DATAMINING: &str = "1 0\n1 50\n2 60\n3 70\n7 80\n267 90\n2107 95\n66667 99\n666667 100";

/// Flow sizes of a Hadoop cluster: Roy et al., "Inside the Social Network's (Datacenter) Network", SIGCOMM 2015, in the
/// form of the traffic generator of HPCC (`FbHdp_distribution.txt`).
const HADOOP: &str = "0 0\n100 1\n200 2\n300 5\n350 15\n400 20\n500 30\n600 40\n700 50\n1000 60\n2000 67\n\
    7000 70\n30000 72\n50000 82\n80000 87\n120000 90\n300000 95\n1000000 97.5\n2000000 99\n10000000 100";

/// Flow sizes of cache followers, in packets: Roy et al., SIGCOMM 2015, in the form of HKUST-SING/TrafficGenerator,
/// `CDF_cache.txt`.
const CACHE: &str =
    "1 0\n1 36\n2 40\n7 46\n13 50\n67 60\n133 70\n667 78\n1333 80\n2000 90\n2667 99\n33333 100";

/// Sizes of a storage cluster in 2019, from the traffic generator of HPCC (`AliStorage2019.txt`).
const ALISTORAGE: &str = "0 0\n4000 22.93\n8000 69.21\n16000 80.61\n32000 90.47\n64000 93.53\n128000 96.77\n\
    256000 97.53\n2000000 100";

/// Sizes of all remote calls of a large operator in 2008: Montazeri et al., "Homa", SIGCOMM 2018 (W3), in the form of
/// the traffic generator of HPCC (`GoogleRPC2008.txt`). Its 600 points lie on curves that are linear in 1 / size from
/// one of these to the next: size, percentage times 10^4, steps from the point before.
const GOOGLE_RPC_2008: [(u64, u64, u64); 17] = [
    (0, 0, 0),
    (3, 64_883, 1),
    (32, 97_324, 1),
    (64, 155_271, 5),
    (128, 351_573, 6),
    (256, 497_901, 8),
    (512, 784_921, 11),
    (1_024, 863_200, 14),
    (2_048, 908_862, 18),
    (4_096, 934_955, 24),
    (8_192, 964_309, 31),
    (16_384, 984_694, 41),
    (32_768, 990_402, 53),
    (65_536, 993_256, 69),
    (131_072, 997_129, 90),
    (262_144, 998_453, 118),
    (524_288, 999_498, 153),
];
/// Its last curve.
const GOOGLE_RPC_2008_END: (u64, u64, u64) = (15_158_197, 1_000_000, 199);

/// How long connections of a Hadoop cluster last, in seconds: Roy et al., SIGCOMM 2015, as the event-driven simulation
/// of JET reads it (anchorhash/jetlb, `hadoop_cdf.txt`, MIT licence): a step for each value.
const HADOOP_CONNECTION_DURATION: &str = "0.001 29.33579336\n0.002001660865 37.82287823\n\
    0.002989009054 40.5904059\n0.008934175126 45.20295203\n0.02549699459 47.60147601\n0.3100950157 50.18450185\n\
    10.27643336 54.79704797\n10.43614193 76.01476015\n22.91478965 89.85239852\n36.39509637 92.80442804\n\
    100.7122436 94.83394834\n214.4188863 95.75645756\n228.0621963 99.81549815\n602.5595861 100";

/// How many kilobytes connections of a Hadoop cluster carry (same source, `hadoop_size_cdf.txt`). Of several
/// values with the same share the last counts, as in that program.
const HADOOP_CONNECTION_SIZE: &str = "0.1602775321 0.3710575139\n0.2132571763 0.9276437848\n\
    0.2562346593 1.85528757\n0.2895969742 4.452690167\n0.3206939807 5.936920223\n0.3273031357 13.72912801\n\
    0.3624490407 14.10018553\n0.3853230841 15.21335807\n0.3932641749 20.40816327\n0.4444680334 22.07792208\n\
    0.4822563584 23.37662338\n0.4822563584 26.15955473\n0.5340411849 27.27272727\n0.5913866811 30.98330241\n\
    0.628708906 32.65306122\n0.6416659146 45.82560297\n0.8365282659 58.44155844\n1.310347515 62.52319109\n\
    1.708276394 66.04823748\n7.573406209 70.6864564\n32.23336513 71.61410019\n45.59473844 74.95361781\n\
    50.49071458 81.26159555\n72.89201497 82.93135436\n84.08053368 87.01298701\n280.1544748 95.54730983\n\
    1320.409829 97.77365492\n2244.150862 98.51576994\n54089.36082 99.25788497\n271019.8543 99.81447124\n\
    553450.2995 100";

/// How long a real server is away for an upgrade, in seconds: Miao et al., "SilkRoad", SIGCOMM 2017, as the
/// simulation of JET reads it (`downtime_upgrade_cdf.txt`): a step for each value.
const SILKROAD_UPGRADE: &str = "60 0.6833712984\n120.8016369 4.328018223\n130.7333965 21.50341686\n\
    141.4817002 38.67881549\n153.1136803 55.85421412\n165.7019888 73.02961276\n179.3252506 90.20501139\n\
    304.8130828 96.58314351\n671.6930555 98.17767654\n20533.59424 99.77220957\n567076.2339 100";

/// The law of this name, if there is one.
#[must_use]
pub fn named(name: &str) -> Option<Cdf> {
    let (text, unit, shape) = match name {
        "websearch" => (WEBSEARCH, 1, Shape::Line),
        "datamining" => (DATAMINING, SEGMENT_BYTES, Shape::Line),
        "hadoop" => (HADOOP, 1, Shape::Line),
        "cache" => (CACHE, SEGMENT_BYTES, Shape::Line),
        "alistorage" => (ALISTORAGE, 1, Shape::Line),
        "googlerpc2008" => return Cdf::parse(&google_rpc_2008(), 1, Shape::Line).ok(),
        "hadoop-connection-duration" => (HADOOP_CONNECTION_DURATION, SECOND, Shape::Step),
        "hadoop-connection-size" => (HADOOP_CONNECTION_SIZE, 1_000, Shape::Step),
        "silkroad-upgrade" => (SILKROAD_UPGRADE, SECOND, Shape::Step),
        _ => return None,
    };
    Cdf::parse(text, unit, shape).ok()
}

/// The table with all its points.
fn google_rpc_2008() -> String {
    let ends = GOOGLE_RPC_2008.iter().skip(1).chain([&GOOGLE_RPC_2008_END]);
    let mut lines = vec!["0 0".to_owned()];
    for ((low, from, _), (high, upto, steps)) in GOOGLE_RPC_2008.iter().zip(ends) {
        for step in 1..=*steps {
            // 1 / size = 1 / low - (1 / low - 1 / high) step / steps; with one step this is the end itself.
            let divisor = high * steps - step * (high - low);
            let size = if step == *steps { *high } else { (low * high * steps + divisor / 2) / divisor };
            let share = (from * steps + step * (upto - from)) * 100 / steps;
            lines.push(format!("{size} {}.{:06}", share / 1_000_000, share % 1_000_000));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_law_and_nobody_else() {
        assert!(NAMES.iter().all(|name| named(name).is_some()));
        assert!(named("").is_none());
    }

    #[test]
    fn means_are_those_of_the_sources() {
        // The mean of each table by hand of the same published numbers, within the digits that are given there.
        let cases = [
            // 1138 to 1,745 packets of 1,460 bytes are quoted for it; this form has 1.71 MB.
            ("websearch", 1_711_250.0),
            // MQ-ECN-NS2's scripts set meanFlowSize 7,495,019 for the same table.
            ("datamining", 7_495_019.0),
            ("cache", 913_703.0),
        ];
        for (name, wanted) in cases {
            let mean = named(name).unwrap().mean();
            assert!((mean / wanted - 1.0).abs() < 0.01, "{name}: {mean}");
        }
    }

    #[test]
    fn curves_go_through_the_published_points() {
        let text = google_rpc_2008();
        let points: Vec<&str> = text.lines().collect();
        for (size, percent) in [
            (36, "10.8"),
            (110, "31.88"),
            (331, "62.83"),
            (717, "82.96"),
            (2_341, "91.53"),
            (6_349, "95.57"),
            (12_674, "97.87"),
            (25_170, "98.86"),
            (47_104, "99.213"),
            (95_133, "99.566"),
            (206_220, "99.809"),
            (399_085, "99.917"),
            (1_008_790, "99.974"),
            (4_300_563, "99.995"),
        ] {
            let begins = format!("{size} {percent}");
            assert!(points.iter().any(|point| point.starts_with(&begins)), "{begins}");
        }
    }

    #[test]
    fn connections_of_a_hadoop_cluster_last_as_long_as_the_simulation_of_jet_has_them() {
        // 100,000 connections at once come at 4,687 to 4,688 a second (README of anchorhash/jetlb: 4,687,530 in 1,000 s).
        let mean = named("hadoop-connection-duration").unwrap().mean() / 1e9;
        assert!((100_000.0 / mean - 4_687.5).abs() < 2.0, "{mean}");
    }
}
