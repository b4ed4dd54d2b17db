//! The whole path with real parts: the daemon as a process, a Mosquitto, an RTSP server, YOLOX-nano on OpenVINO.
//! What is asserted is what leaves on MQTT, and that every frame is accounted for.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod consumers;
mod contract;
mod events;
mod faults;
mod files;
mod load;
mod motion;
mod on_demand;
mod people;
mod pool;
mod reload;
mod repeat;
mod rtsp;
mod snapshots;
mod stuck;
