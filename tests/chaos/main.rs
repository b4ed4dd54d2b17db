//! What is promised, while everything around fails at random: brokers and disks. Each test has a long form, which
//! SPECIFICATION.md names.

#[path = "../support/mod.rs"]
mod support;

mod broker;
mod disk;
