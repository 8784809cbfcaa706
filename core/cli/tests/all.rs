//! The tests of this package from outside, in one binary: a binary for each file would link everything once more.

mod commands;
mod ethernet;
mod explain;
mod forwarder;
mod interrupted;
mod modes;
mod plugin;
mod replay;
mod rules;
mod simulation;
mod world;
