//! The WIT package as Rust: one module per world, all of them over the same records.
//!
//! Everything here is generated from `wit/`. The generated code holds the unsafe blocks of the canonical ABI
//! (pointers and lengths that cross between the guest's memory and the host); nothing else in this crate, and
//! nothing in a guest, has any.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::missing_panics_doc,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks,
    clippy::use_self,
    reason = "generated code has its own style"
)]

/// What every guest may import.
pub mod guest {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "guest",
        generate_all,
        generate_unused_types: true,
        runtime_path: "::evenkeel_plugin_sdk::wit_bindgen::rt",
        additional_derives: [PartialEq],
    });
}

macro_rules! world {
    ($module:ident, $world:literal, $macro:literal) => {
        /// The exports of one world.
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                with: {
                    "evenkeel:plugin/types@0.1.0": crate::bindings::guest::evenkeel::plugin::types,
                    "evenkeel:plugin/log@0.1.0": crate::bindings::guest::evenkeel::plugin::log,
                },
                pub_export_macro: true,
                export_macro_name: $macro,
                runtime_path: "::evenkeel_plugin_sdk::wit_bindgen::rt",
                additional_derives: [PartialEq],
            });
        }
    };
}

world!(scheduler, "full-scheduler", "export_scheduler_world");
world!(hash_scheduler, "hash-scheduler", "export_hash_scheduler_world");
world!(table_scheduler, "table-scheduler", "export_table_scheduler_world");
world!(policy, "policy", "export_policy_world");

/// The allocation that the canonical ABI asks of every guest, as a world of its own.
///
/// A component must have a core function `cabi_realloc`. The runtime of the bindings leaves it to `std` on this
/// target, and guests have no `std`. This world has the same function under the same name, so that its unsafe
/// shell is generated like all the others; the crate's `runtime` fills it in without unsafe code.
pub mod runtime {
    wit_bindgen::generate!({
        inline: "
            package evenkeel:runtime;
            world runtime {
                export realloc: func(old: u32, old-length: u32, align: u32, length: u32) -> u32;
            }
        ",
        world: "runtime",
        export_prefix: "cabi_",
        pub_export_macro: true,
        export_macro_name: "export_runtime_world",
        runtime_path: "::evenkeel_plugin_sdk::wit_bindgen::rt",
    });
}
