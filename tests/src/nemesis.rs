//! Random faults on real processes, writers all the while, and a checker over the whole history.
//!
//! [`Plan`] says what goes wrong from a seed alone, [`run()`] does it to a [`crate::Pair`] and records a [`History`],
//! [`judge`] holds that against the promises. The same seed is the same plan, not the same run: real processes race.
//! Absent on purpose: faults that destroy the only data set in reach, since no supervisor can answer for them.

mod act;
mod check;
mod course;
mod guests;
mod history;
mod plan;
mod rival;
mod run;

pub use check::{Bounds, Class, Judgement, judge};
pub use history::{Deed, History, Reign, Write};
pub use plan::{Fault, Plan, Role, Step};
pub use rival::run_sentinel;
pub use run::{Run, run};
