//! The fuzz target without a fuzzer: the committed corpus, and programs drawn from a fixed seed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use evenkeel_benches::fuzz::{run, run_with_tables, text};

#[test]
fn the_corpus_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/engine");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "the corpus is there");
    files.iter().for_each(|file| run(&fs::read(file).unwrap()));
}

#[test]
fn random_rules_are_printed_and_understood_alike() {
    let mut state: u64 = 11;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for _ in 0..3_000 {
        let length = next() % 40;
        let words = (0..length).map(|_| u8::try_from(next() % 256).unwrap());
        let data: Vec<u8> = std::iter::once(1).chain(words).collect();
        text::run(&data);
    }
    // A flow with each condition, which chance does not write.
    text::run(&[1, 0, 52, 8, 13, 19, 20, 23, 25, 31, 33, 43, 44, 45, 33, 46, 47, 48, 49, 14, 15, 16, 17]);
}

#[test]
fn random_programs_break_no_promise() {
    // SplitMix64 (Steele, Lea, Flood 2014): a fixed seed, so a failure repeats.
    let mut state: u64 = 7;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    for number in 0..2000 {
        let words = usize::try_from(next() % 300).unwrap();
        let program: Vec<u8> = (0..words).flat_map(|_| next().to_le_bytes()).collect();
        if number % 100 == 0 {
            run_with_tables(&program);
        } else {
            run(&program);
        }
    }
}
