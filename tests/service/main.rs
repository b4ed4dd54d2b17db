//! The daemon as a service: the unit, what the service manager is told, a clock that steps, and secrets.

#[path = "../support/mod.rs"]
mod support;

mod booted;
mod clock;
mod notify;
mod secrets;
mod unit;
