//! The built-in kinds: what they are called, how they are defaulted, validated, shown. One file per kind below
//! `kinds/GROUP/`, each filling the same contract ([`rules::Rules`]).

pub mod addresses;
pub mod controller;
pub mod diff;
pub mod human;
pub mod internal;
pub mod kinds;
pub mod marks;
pub mod meta;
pub mod names;
pub mod object;
pub mod resource;
pub mod rules;
pub mod table;
pub mod tree;
pub mod write;
