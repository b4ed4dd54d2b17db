//! The commands, one file each.

pub mod status_line;
