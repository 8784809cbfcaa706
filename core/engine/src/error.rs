//! What a caller can do wrong.

use alloc::string::String;

use crate::plan::OptionError;

/// Why a plan was refused. The engine keeps the plan that it had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Two directors have the same name.
    #[error("director {name} is there twice")]
    DuplicateDirector {
        /// The name.
        name: String,
    },
    /// Two directors are bound to the same address, port and protocol.
    #[error("directors {first} and {second} are both bound to {binding}")]
    DuplicateBinding {
        /// The earlier one.
        first: String,
        /// The later one.
        second: String,
        /// The address, port and protocol, as users write it.
        binding: String,
    },
    /// Two real servers of a director have the same address and port.
    #[error("director {director}: {name} has the address and port of another real server")]
    DuplicateServer {
        /// The director.
        director: String,
        /// The later one.
        name: String,
    },
    /// A guest that the plan names was not handed over.
    #[error("{name} needs the component {component}, which is not loaded")]
    MissingGuest {
        /// The director or policy.
        name: String,
        /// The component.
        component: String,
    },
    /// Something names an interface or director that is not there.
    #[error("{name} refers to {target}, which is not there")]
    UnknownReference {
        /// Who refers.
        name: String,
        /// To what.
        target: String,
    },
    /// A value is outside of its range.
    #[error("{name}: {value} is outside of {range}")]
    OutOfRange {
        /// What it is a value of.
        name: String,
        /// The value.
        value: u64,
        /// The range in words.
        range: &'static str,
    },
    /// A scheduler can not have its options.
    #[error("director {name}: {error}")]
    Scheduler {
        /// The director.
        name: String,
        /// Why not.
        error: OptionError,
    },
    /// Two things that exclude each other.
    #[error("{name}: {reason}")]
    Conflict {
        /// What they are said of.
        name: String,
        /// Why they do.
        reason: &'static str,
    },
}

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// No director has this name.
    #[error("no director {name}")]
    NoDirector {
        /// The name.
        name: String,
    },
    /// The director has no real server of this name.
    #[error("director {director} has no real server {name}")]
    NoServer {
        /// The director.
        director: String,
        /// The name.
        name: String,
    },
    /// The weight is out of range.
    #[error("weight {weight} is outside of 0 to 65535")]
    WeightOutOfRange {
        /// The weight.
        weight: u32,
    },
    /// The options of a scheduler can not be.
    #[error("{reason}")]
    Options {
        /// Why.
        reason: String,
    },
    /// A component is named as scheduler, and nobody has made it ready.
    #[error("the component that is to schedule for director {director} is not loaded")]
    NoComponent {
        /// The director.
        director: String,
    },
}
