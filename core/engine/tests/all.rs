//! The tests of this package from outside, in one binary: a binary for each file would link everything once more.

mod added;
mod agents;
mod chain;
mod drops;
mod ethernet;
mod explain;
mod feedback;
mod fragments;
mod ipvs_model;
mod modes;
mod nat;
mod outflows;
mod policy_rules;
mod support;
mod swap;
mod tokens;
mod tracking;
