//! Holds one thread of a process, as a stage that hangs would be held: by ptrace, from Python, which needs no `unsafe`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// PTRACE_SEIZE and PTRACE_INTERRUPT on the oldest thread of that name, until standard input ends. Of the thread's end it takes
/// notice: its process would not be over before.
const HOLD: &str = "
import ctypes, os, sys, threading
pid, name = int(sys.argv[1]), sys.argv[2]
tasks = f'/proc/{pid}/task'
named = [int(t) for t in os.listdir(tasks) if open(f'{tasks}/{t}/comm').read().strip() == name]
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long] * 4
for request in (0x4206, 0x4207):
    if ptrace(request, min(named), 0, 0) != 0:
        sys.exit(f'ptrace: {os.strerror(ctypes.get_errno())}')
os.waitpid(min(named), 0x40000000)
print('held', flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
ended = False
while not ended:
    status = os.waitpid(min(named), 0x40000000)[1]
    ended = os.WIFEXITED(status) or os.WIFSIGNALED(status)
";

/// A thread that stands still until this is dropped, or its process is killed.
pub struct Held(Child);

impl Held {
    /// Holds thread `name` of process `pid`; `prefix` is what runs Python where that process is, if not here.
    pub fn thread(prefix: &[&str], pid: u32, name: &str) -> Self {
        let pid = pid.to_string();
        let line = [prefix, &["python3", "-c", HOLD, &pid, name]].concat();
        let mut child =
            Command::new(line[0]).args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n", "{name} of {pid} is not held, see above");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
