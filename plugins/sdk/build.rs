//! Links guests with the C library of the target for `memcmp` and its like: the compiler calls them, and
//! without `std` nobody brings them for `wasm32-wasip2`. Only those functions get into the component.

fn main() {
    println!("cargo::rerun-if-changed=../../wit");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "wasi") {
        println!("cargo::rustc-link-lib=c");
    }
}
