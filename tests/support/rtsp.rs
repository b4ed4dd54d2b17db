//! A real RTSP server (gst-rtsp-server, `scripts/tools/rtsp_server.py`) on a free port.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A server process, killed when dropped; it ends by itself where the test is killed, since its standard input closes.
pub struct RtspServer {
    child: Child,
    replies: Lines<BufReader<ChildStdout>>,
    /// The port it listens on, of 127.0.0.1.
    pub port: u16,
    scheme: &'static str,
}

impl RtspServer {
    /// Starts one with the script's own arguments, such as `["--stream", "walk=clip.mp4", "--shared"]`, and waits until
    /// it listens. Without `--port` it takes a free one.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(arguments: &[&str], environment: &[(String, String)]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/tools/rtsp_server.py");
        // The script's own first line names the system's Python, which has GStreamer's bindings.
        let mut child = Command::new(script)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{script}: {error}: run scripts/setup"));
        let mut replies = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = replies.next().transpose().unwrap().unwrap_or_default();
        let port = first.strip_prefix("listening on ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("the RTSP server did not start, see above: run scripts/setup"));
        let scheme = if arguments.contains(&"--tls") { "rtsps" } else { "rtsp" };
        Self { child, replies, port, scheme }
    }

    /// Address of a stream, without user and password.
    pub fn url(&self, name: &str) -> String {
        format!("{}://127.0.0.1:{}/{name}", self.scheme, self.port)
    }

    /// `stop NAME` (hangs up and is not found), `start NAME`, `freeze NAME` (stays connected and sends nothing),
    /// `thaw NAME`, and what else the script tells of; returns when it is done.
    pub fn command(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        let reply = self.replies.next().transpose().unwrap();
        assert_eq!(reply, Some(format!("done {line}")));
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
