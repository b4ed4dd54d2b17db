//! `probe`: connects to one camera and says what it delivers.

use std::path::Path;

use crate::camera::probe;
use crate::cli::{Code, Failure, ProbeArgs};
use crate::config::{self, Source, Transport};

/// Connects, watches, saves one picture, prints what was found.
pub fn run(args: &ProbeArgs) -> Result<(), Failure> {
    super::start_gstreamer()?;
    let (pipeline, mut source) = config::parse_source(&args.url, Path::new("."))
        .map_err(|text| Failure::new(Code::Config, format!("the address: {text}")))?;
    if let Source::Rtsp(rtsp) = &mut source {
        rtsp.transport = if args.udp { Transport::Udp } else { Transport::Tcp };
        rtsp.ca_file.clone_from(&args.ca_file);
        rtsp.verify = !args.insecure;
    }
    let name = match &source {
        Source::Rtsp(rtsp) => &rtsp.url,
        _ => &args.url,
    };
    let found = probe::watch(&pipeline, &source, args.duration, &args.jpeg).map_err(|e| e.of(name))?;
    println!("first frame after {:.2} s", found.first_frame.as_secs_f64());
    println!("caps   {}", found.caps);
    if found.frames > 0 {
        println!("fps    {:.2}", f64::from(found.frames) / found.watched.as_secs_f64());
    }
    match found.camera_clock_ms {
        Some(ms) => {
            println!("clock  rtcp_sr: the camera's clock and the journey are {ms} ms apart from this host's")
        }
        None => println!("clock  none: capture times will be arrival times on this host's clock"),
    }
    println!("saved  {}", args.jpeg.display());
    Ok(())
}
