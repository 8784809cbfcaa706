//! A scheduler by its name alone, as an operator or a timeline gives it to a director that is at work.
//!
//! In: `maglev`, `bundled:rr` or the file of a component, and what schedules now. Out: the plan of the new one. A
//! component is held to the bounds of the one before it; nobody looks whether it is there.

use evenkeel_engine::plan::{Builtin, GuestPlan, SchedulerPlan};

use crate::meant;

/// How like a name must be to be suggested: one or two wrong letters.
const LIKENESS_MIN: f64 = 0.7;

/// The most characters of an unknown name that are shown.
const SHOWN_MAX: usize = 32;

/// Whether `name` is that of a component and not of a built-in scheduler.
#[must_use]
pub fn is_component(name: &str) -> bool {
    name.starts_with("bundled:") || name.ends_with(".wasm") || name.contains('/')
}

/// The scheduler with this name, without options, in the place of `before`.
///
/// # Errors
/// When no built-in scheduler has the name, with the nearest one, or with all of them.
pub fn scheduler_by_name(name: &str, before: &SchedulerPlan) -> Result<SchedulerPlan, String> {
    if is_component(name) {
        return Ok(SchedulerPlan::Guest(guest_like(before, name)));
    }
    let found = Builtin::ALL.iter().find(|kind| kind.name() == name);
    found.map(|kind| SchedulerPlan::Builtin(*kind)).ok_or_else(|| unknown(name))
}

/// A component as scheduler, with the bounds of the one before it where that was a component, and no options.
fn guest_like(before: &SchedulerPlan, component: &str) -> GuestPlan {
    let component = component.to_owned();
    match before {
        SchedulerPlan::Guest(before) => GuestPlan { component, options: String::new(), ..before.clone() },
        SchedulerPlan::Builtin(_) | SchedulerPlan::Tuned(_) => GuestPlan {
            component,
            options: String::new(),
            call_budget: meant::BUDGET_DEFAULT,
            memory_limit_bytes: meant::MEMORY_DEFAULT,
            fallback: before.native().map_or(Builtin::WeightedLeastConnections, |tuned| tuned.kind),
        },
    }
}

/// What to say of a name that no scheduler has.
fn unknown(name: &str) -> String {
    let shown: String = name.chars().take(SHOWN_MAX).filter(|character| !character.is_control()).collect();
    let names: Vec<&str> = Builtin::ALL.iter().map(|kind| kind.name()).collect();
    let near = names.iter().max_by(|one, other| {
        strsim::jaro_winkler(&shown, one).total_cmp(&strsim::jaro_winkler(&shown, other))
    });
    match near.filter(|near| strsim::jaro_winkler(&shown, near) >= LIKENESS_MIN) {
        Some(near) => format!("no scheduler {shown}; did you mean {near}?"),
        None => format!(
            "no scheduler {shown}; built in are {}, a component is named bundled:NAME or by its file",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_schedulers_and_components_are_told_apart_and_a_misspelt_name_has_its_nearest() {
        let before = SchedulerPlan::Builtin(Builtin::RoundRobin);
        let maglev = scheduler_by_name("maglev", &before).unwrap();
        assert_eq!(maglev, SchedulerPlan::Builtin(Builtin::Maglev));
        for component in ["bundled:rr", "mine.wasm", "./mine"] {
            let SchedulerPlan::Guest(guest) = scheduler_by_name(component, &before).unwrap() else {
                panic!("{component}")
            };
            assert_eq!((guest.component.as_str(), guest.fallback), (component, Builtin::RoundRobin));
        }
        let nearest = scheduler_by_name("maglv", &before).unwrap_err();
        assert!(nearest.contains("did you mean maglev?"), "{nearest}");
        let all = scheduler_by_name("xyz\u{7}", &before).unwrap_err();
        assert!(all.starts_with("no scheduler xyz; built in are rr"), "{all}");
    }

    #[test]
    fn a_component_keeps_the_bounds_of_the_one_before_it_and_not_its_options() {
        let SchedulerPlan::Guest(first) =
            scheduler_by_name("a.wasm", &SchedulerPlan::Builtin(Builtin::Maglev)).unwrap()
        else {
            panic!("a.wasm is a component")
        };
        let bounded = GuestPlan { options: "k = 1".to_owned(), memory_limit_bytes: 1 << 20, ..first.clone() };
        let second = scheduler_by_name("b.wasm", &SchedulerPlan::Guest(bounded)).unwrap();
        let expected = GuestPlan { component: "b.wasm".to_owned(), memory_limit_bytes: 1 << 20, ..first };
        assert_eq!(second, SchedulerPlan::Guest(expected));
    }
}
