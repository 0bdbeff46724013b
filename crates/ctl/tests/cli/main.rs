//! `redkeepctl` as a program, against a supervisor with prepared answers.

#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod outcome;
mod output;
mod secure;
mod support;
