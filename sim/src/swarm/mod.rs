//! Many random scenarios: topology, load and faults are drawn from a seed, run, and judged.
//!
//! ```text
//! seed -> Case::draw -> files -> the simulator -> Judge -> Verdict
//!                         ^                                  | fails
//!                         +------------- shrink <------------+
//! ```
//! * [`case`] a case as data and as scenario files; [`draw`] from a seed to a case
//! * [`judge`] what must not happen, and what the case explains
//! * [`shrink`] a failing case becomes small
//!
//! A case is run from the text of its files, so what fails here fails for everybody who has the files. One case is one
//! thread's; whoever has several cores gives each its own seeds.

pub mod case;
mod draw;
pub mod judge;
pub mod shrink;

pub use case::Case;
pub use judge::{Judge, Kind, Verdict, Violation};
pub use shrink::shrink;

/// Shrinks a case that has a violation of `kind` to a small one that has one as well.
#[must_use]
pub fn shrink_violation(judge: &mut Judge<'_, '_>, case: &Case, kind: Kind) -> (Case, u32) {
    shrink(case, &mut |case| {
        let verdict = if kind == Kind::NotRepeated { judge.judge_twice(case) } else { judge.judge(case) };
        verdict.has(kind)
    })
}
