//! What operators hear of a component that cannot be used, and what loading costs.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use crate::common::{self, Director, guest, load_plan, plan_of, policy_plan, settings};
use evenkeel_engine::Plan;
use evenkeel_engine::plan::{Builtin, GuestPlan, OnFault, SchedulerPlan};
use evenkeel_plugin_host::{Host, LoadError, Mode, Settings};

fn refusal(guest: GuestPlan) -> String {
    let errors = load_plan(&plan_of(guest), Mode::Fuel).unwrap_err();
    let [LoadError { name, reason, .. }] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!(name, "web");
    reason.clone()
}

/// A folder of this test's own under the build's.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn an_unknown_name_and_a_missing_file_are_named() {
    assert_eq!(refusal(guest("bundled:nothing", "")), "there is no bundled component `nothing`");
    let reason = refusal(guest("no/such/file.wasm", ""));
    assert!(reason.contains("no/such/file.wasm") && reason.contains("No such file"), "{reason}");
    assert!(refusal(guest("src", "")).contains("is not a file"));
}

#[test]
fn a_relative_path_starts_at_the_base_folder() {
    let folder = folder("relative");
    fs::write(folder.join("guest.wasm"), evenkeel_plugins_bundled::component("round-robin").unwrap())
        .unwrap();
    let settings = Settings { base_dir: folder, ..settings(Mode::Fuel) };
    let guests = evenkeel_plugin_host::load(&plan_of(guest("guest.wasm", "")), &settings).unwrap();
    assert!(guests.schedulers.contains_key("web"));
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    let folder = folder("bytes");
    let reason = |bytes: &[u8]| {
        fs::write(folder.join("guest.wasm"), bytes).unwrap();
        let settings = Settings { base_dir: folder.clone(), ..settings(Mode::Fuel) };
        let errors = evenkeel_plugin_host::load(&plan_of(guest("guest.wasm", "")), &settings).unwrap_err();
        errors[0].reason.clone()
    };
    assert!(reason(b"").starts_with("it does not compile"));
    assert!(reason(b"hello").starts_with("it does not compile"));
    assert!(reason(b"\0asm\x01\0\0\0").contains("core module"));
    assert!(reason(b"\0asm\x0d\0\x01\0").contains("must export one of"));
}

#[test]
fn a_policy_is_no_scheduler_and_the_other_way_round() {
    let reason = refusal(guest("bundled:rate-guard", ""));
    assert!(
        reason.starts_with("it is not a scheduler: it must export one of evenkeel:plugin/schedule@0.1.0")
    );
    assert!(reason.ends_with("it exports evenkeel:plugin/decide@0.1.0"), "{reason}");
    let errors =
        load_plan(&policy_plan(guest("bundled:maglev", ""), OnFault::Permit), Mode::Fuel).unwrap_err();
    assert_eq!(errors[0].name, "guard");
    assert!(errors[0].reason.starts_with("it is not a policy: it must export evenkeel:plugin/decide@0.1.0"));
}

/// A component with one import and nothing else: an instance type without items, imported under `name`.
fn importing(name: &str) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.extend([7, 3, 1, 0x42, 0]);
    let length = u8::try_from(name.len()).unwrap();
    bytes.extend([10, length + 5, 1, 0, length]);
    bytes.extend(name.as_bytes());
    bytes.extend([5, 0]);
    bytes
}

#[test]
fn an_import_of_wasi_is_refused_by_its_name() {
    let folder = folder("imports");
    fs::write(folder.join("guest.wasm"), importing("wasi:clocks/monotonic-clock@0.2.6")).unwrap();
    let settings = Settings { base_dir: folder, ..settings(Mode::Fuel) };
    let errors = evenkeel_plugin_host::load(&plan_of(guest("guest.wasm", "")), &settings).unwrap_err();
    let reason = &errors[0].reason;
    assert!(
        reason.starts_with("it imports wasi:clocks/monotonic-clock@0.2.6, and a guest may import"),
        "{reason}"
    );
    assert!(reason.contains("no_std"), "{reason}");
}

#[test]
fn options_that_the_guest_refuses_are_told_in_its_words() {
    let refused = [
        ("size = 4", "option `size`: 4 is not a prime"),
        ("size = 4\nsizes = 5", "option `size`: 4 is not a prime"),
        ("sizes = 5", "there is no option `sizes`"),
        ("size = [1]", "options, line 1: a list or a table is not an option of this guest"),
    ];
    for (options, reason) in refused {
        assert_eq!(refusal(guest("bundled:maglev", options)), reason);
    }
}

#[test]
fn a_guest_that_traps_while_it_is_configured_is_refused() {
    let reason = refusal(guest("bundled:misbehave", "kind = \"configure\""));
    assert!(reason.contains("told to panic in configure"), "{reason}");
}

#[test]
fn a_memory_limit_below_what_the_component_needs_is_told() {
    let mut plan = guest("bundled:round-robin", "");
    plan.memory_limit_bytes = 65_536;
    let reason = refusal(plan);
    assert!(reason.contains("more memory than its limit of 65536 bytes"), "{reason}");
}

#[test]
fn every_wrong_guest_has_its_own_error() {
    let mut plan = plan_of(guest("bundled:nothing", ""));
    plan.directors.push(common::director("dns", guest("bundled:maglev", "size = 9")));
    plan.directors.push(common::director("ok", guest("bundled:maglev", "")));
    plan.policies = policy_plan(guest("bundled:maglev", ""), OnFault::Permit).policies;
    let errors = load_plan(&plan, Mode::Epoch).unwrap_err();
    let names: Vec<&str> = errors.iter().map(|error| error.name.as_str()).collect();
    assert_eq!(names, ["web", "dns", "guard"]);
    assert_eq!(errors[1].to_string(), "dns: bundled:maglev: option `size`: 9 is not a prime");
}

#[test]
fn a_plan_without_components_has_no_guests() {
    let mut plan = plan_of(guest("bundled:maglev", ""));
    plan.directors[0].scheduler = SchedulerPlan::Builtin(Builtin::Maglev);
    let guests = load_plan(&plan, Mode::Epoch).unwrap();
    assert!(guests.schedulers.is_empty() && guests.policies.is_empty());
    assert!(load_plan(&Plan::empty(), Mode::Fuel).is_ok());
}

#[test]
fn a_host_compiles_a_component_once_for_all_plans() {
    let mut host = Host::new(settings(Mode::Fuel));
    let plan = plan_of(guest("bundled:maglev", ""));
    host.load(&plan, 0).unwrap();
    let shown = format!("{host:?}");
    assert!(shown.contains("compiled: 1"), "{shown}");
    let mut both = plan.clone();
    both.directors.push(common::director("dns", guest("bundled:maglev", "")));
    both.directors.push(common::director("api", guest("bundled:round-robin", "")));
    let guests = host.load(&both, 1).unwrap();
    assert_eq!(guests.schedulers.len(), 3);
    assert!(format!("{host:?}").contains("compiled: 2"));
    host.load(&plan, 0).unwrap();
    assert!(format!("{host:?}").contains("compiled: 1"), "what is not used any more is forgotten");
}

#[test]
fn guests_outlive_the_host_that_made_them() {
    let mut director = Director::new("bundled:round-robin", "", Mode::Epoch, &[1, 1]);
    assert_eq!(director.shares(64, 32), [32, 32]);
}
