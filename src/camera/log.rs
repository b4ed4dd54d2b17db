//! GStreamer's own log, which the variables `GST_DEBUG` and `GST_DEBUG_FILE` ask for: as GStreamer writes it, but of a camera's
//! address only host and port. rtspsrc says the whole of it in several lines, user and password included, and some cameras
//! take a password in the path.

use std::fs::File;
use std::io::{Write, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use gstreamer as gst;

/// Writes GStreamer's log from here on. To be called once, after GStreamer was started and before it learns an address.
pub fn hide_logins() {
    gst::log::remove_default_log_function();
    let begun = Instant::now();
    let out = Mutex::new(destination());
    gst::log::add_log_function(move |category, level, file, function, line, object, message| {
        let text = message.get().map(|text| without_logins(&text)).unwrap_or_default();
        let object = object.map(ToString::to_string).unwrap_or_default();
        let (time, level, category) = (begun.elapsed().as_secs_f64(), level.name().trim_end(), category.name());
        let text = format!("{time:.6} {level} {category} {file}:{line}:{function}:{object} {text}\n");
        // As of GStreamer's: nobody can be told of a log that cannot be written.
        let _ = out.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
    });
}

/// The file that GStreamer has made as it was told to, or standard error.
fn destination() -> Box<dyn Write + Send> {
    let file = std::env::var_os("GST_DEBUG_FILE").and_then(|path| File::options().append(true).open(path).ok());
    file.map_or_else(|| Box::new(stderr()) as Box<dyn Write + Send>, |file| Box::new(file))
}

/// A text with no more than host and port of the addresses of cameras in it.
fn without_logins(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'<>".contains(c);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        rest = after;
        let scheme = before[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next();
        if !scheme.is_some_and(|scheme| scheme.starts_with("rtsp")) {
            continue;
        }
        let (address, behind) = after.split_at(after.find(ends).unwrap_or(after.len()));
        let place = address.split(['/', '?']).next().unwrap_or_default();
        match place.rsplit_once('@') {
            Some((_, host)) => out.extend(["***@", host]),
            None => out.push_str(place),
        }
        if address.len() > place.len() + 1 {
            out.push_str("/***");
        }
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_cameras_address_host_and_port_are_left() {
        for (text, left) in [
            ("set uri: rtsp://viewer:s3cret@127.0.0.1:554/x", "set uri: rtsp://***@127.0.0.1:554/***"),
            ("connecting (rtsps://h:322)...", "connecting (rtsps://h:322)..."),
            (
                "a rtsp://h/u=a&p=s3cret b \"rtspt://u:s3cret@h?s3cret\" c",
                "a rtsp://h/*** b \"rtspt://***@h/***\" c",
            ),
            // As messages on the bus are written.
            ("text=(string)\"to\\ rtsp://u:s\\%40cret\\@h/x\\ now\"", "text=(string)\"to\\ rtsp://***@h/*** now\""),
            ("file:///srv/a.mp4 and :// and rtsp://", "file:///srv/a.mp4 and :// and rtsp://"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_logins(text), left);
        }
    }
}
