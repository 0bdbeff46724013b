//! `redkeepctl` as a program, against a supervisor with prepared answers.

mod outcome;
mod output;
mod support;
