//! A page for each built-in scheduler, from what its file says of itself, what it does with scripted flows, and a table of
//! what it is good for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that fails says where"
)]

#[allow(dead_code, reason = "the helpers of the house rules; not all are needed here")]
mod tidy {
    pub(crate) mod files;
    pub(crate) mod uses;
}

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use evenkeel_engine::Instant;
use evenkeel_engine::director::{NewFlow, Selection, ServerId, ServerLoad, ServerView, native};
use evenkeel_engine::plan::{Builtin, Tuned};
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use tidy::{files, uses};

const FOLDER: &str = "src/schedulers";
/// Servers of the picture, with these weights.
const WEIGHTS: [u32; 3] = [4, 2, 1];
/// Flows of the picture: all stay open. As many as all weights, many times.
const FLOWS: u32 = 70;
/// Flows whose servers are listed.
const LISTED: usize = 14;

/// What `//!` says at the head of a file, as Markdown.
fn head(file: &str) -> String {
    let text = files::read(&format!("core/engine/src/director/builtin/{file}.rs"));
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

/// Where 70 flows of as many clients go that stay open.
fn picture(kind: Builtin) -> String {
    let view = |(number, weight): (u8, &u32)| ServerView {
        id: ServerId(u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        address: IpAddr::from([10, 0, 3, 20 + number]),
        port: 80,
        weight: *weight,
        is_up: true,
        is_full: false,
    };
    let views: Vec<ServerView> = (0..).zip(&WEIGHTS).map(view).collect();
    let mut scheduler = native(&Tuned::from(kind), 1);
    scheduler.update(&views, Instant::ZERO);
    let flow = |number: u32| {
        let source = Address::from(Ipv4Addr::from_bits(0xc633_6401 + number * 257));
        let destination = Address::v4([10, 0, 0, 3]);
        let (source_port, destination_port, protocol) = (40_000, 80, Protocol::TCP);
        let tuple = FiveTuple { source, destination, source_port, destination_port, protocol };
        NewFlow { hash: tuple.hash(HashKey([1, 2])), tuple }
    };
    let flows: Vec<NewFlow> = (0..FLOWS).map(flow).collect();
    let (mut loads, mut answers) = (vec![ServerLoad::default(); 3], vec![None; flows.len()]);
    scheduler.pick(&mut Selection::new(&flows, &views, &mut loads, &mut answers), Instant::ZERO);
    let names =
        answers.iter().take(LISTED).map(|answer| answer.map_or("-".to_owned(), |n| format!("s{}", n + 1)));
    let mut text = format!("flows in order:  {} ...\n\n", names.collect::<Vec<_>>().join(" "));
    for (place, weight) in (0_u16..).zip(WEIGHTS) {
        let count = answers.iter().filter(|answer| **answer == Some(place)).count();
        let line = format!("s{} weight {weight}  {:<50} {count}", place + 1, "#".repeat(count.min(50)));
        writeln!(text, "{line}").unwrap();
    }
    text
}

fn page(kind: Builtin) -> String {
    let used = uses::of(kind.name());
    let settings: Vec<String> = kind.settings().iter().map(|one| format!("`{}`", one.name())).collect();
    let settings = if settings.is_empty() { "none".to_owned() } else { settings.join(", ") };
    let example = if kind.settings().is_empty() {
        format!("scheduler = \"{}\"", kind.name())
    } else {
        format!("scheduler = {{ name = \"{}\" }}", kind.name())
    };
    let twin = match kind.name() {
        name @ ("rr" | "wlc" | "maglev" | "rendezvous" | "p2c" | "peak-ewma" | "prequal") => {
            format!("\nThe component `bundled:{name}` decides the same.\n")
        }
        _ => String::new(),
    };
    format!(
        "# {name}\n\n\
         <!-- Generated from core/engine/src/director/builtin/{file}.rs and docs/tests/tidy/uses.rs. To write it again:\n\
         EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-docs --test schedulers -->\n\n\
         {head}\n\
         ## When\n\n{when}\n\n## When not\n\n{when_not}\n\n\
         ## What it does with 70 flows\n\n\
         Three servers of weight 4, 2 and 1; each flow comes from another client, and all stay open.\n\n\
         ```text\n{picture}```\n\n\
         ## In a configuration\n\n```toml,ignore\n{example}\n```\n\n\
         Options: {settings}. They are in the [configuration reference](../reference/configuration.md).\n{twin}",
        name = kind.name(),
        file = used.file,
        head = head(used.file),
        when = used.when,
        when_not = used.when_not,
        picture = picture(kind),
    )
}

fn overview() -> String {
    let mut page = String::from(
        "# Schedulers\n\n\
         <!-- Generated. To write it again:\n\
         EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-docs --test schedulers -->\n\n\
         Who picks the real server of a new flow. A flow that has one keeps it. Each name has a page: the idea, a picture,\n\
         when to use it and when not, and where it comes from. One of your own is a [component](../plugins/writing-a-scheduler.md).\n\n\
         | scheduler | when |\n|---|---|\n",
    );
    for kind in Builtin::ALL {
        let name = kind.name();
        writeln!(page, "| [`{name}`]({name}.md) | {} |", uses::of(name).when).unwrap();
    }
    page
}

#[test]
fn the_pages_of_schedulers_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let mut pages = vec![("README.md".to_owned(), overview())];
    pages.extend(Builtin::ALL.iter().map(|kind| (format!("{}.md", kind.name()), page(*kind))));
    let is_writing = std::env::var_os("EVENKEEL_WRITE_DOCS").is_some();
    let mut old = Vec::new();
    for (name, text) in &pages {
        let path = folder.join(name);
        if is_writing {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != *text {
            old.push(name.as_str());
        }
    }
    assert!(
        old.is_empty(),
        "{old:?}: run EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-docs --test schedulers, and look at the difference"
    );
}

#[test]
fn every_scheduler_is_good_for_something_and_named_where_it_comes_from() {
    assert_eq!(uses::ALL.len(), Builtin::ALL.len());
    for kind in Builtin::ALL {
        let used = uses::of(kind.name());
        assert!(used.when.ends_with('.') && used.when_not.ends_with('.'), "{}", kind.name());
        assert!(head(used.file).contains("Source"), "{} names no source", used.file);
    }
}
