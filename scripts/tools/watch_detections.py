#!/usr/bin/python3
"""Prints the detections of a node as they arrive on MQTT, in lines for people.

    file   10:15:02.417    31 ms  person 0.83 [0.41 0.22 0.47 0.55]  person 0.77 [0.12 0.30 0.20 0.61]

Subscribes with mosquitto_sub. Ends after --seconds, on SIGINT or SIGTERM, or when the process --pid does. The exit code is
0 only if each camera named by --expect has sent at least one --label.
"""

import argparse
import collections
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

LINES_PER_SECOND = 4  # a camera; all messages are counted
OBJECTS_PER_LINE = 3


def arguments():
    parser = argparse.ArgumentParser(description="Prints detections as they arrive on MQTT.")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--node", default="demo")
    parser.add_argument("--seconds", type=float, help="from the subscription on; without it until Ctrl-C")
    parser.add_argument("--expect", action="append", default=[], metavar="CAMERA")
    parser.add_argument("--label", default="person")
    parser.add_argument("--pid", type=int, help="the publisher: nothing is waited for once it has ended")
    return parser.parse_args()
STOP = (signal.SIGINT, signal.SIGTERM)


def stop(_number, _frame):
    """The first signal ends the watching; the summary is not for a second one to spoil."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def alive(pid):
    return pid is None or os.path.exists(f"/proc/{pid}")


def wait_for_broker(port, pid, patience=120):
    end = time.monotonic() + patience
    while alive(pid) and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"watch: no broker on port {port}" + ("" if alive(pid) else ": the daemon has ended"))


def line(message):
    shown, more = message["objects"][:OBJECTS_PER_LINE], len(message["objects"]) - OBJECTS_PER_LINE
    objects = "  ".join(f"{o['label']} {o['score']:.2f} [{' '.join(f'{edge:.2f}' for edge in o['box'])}]" for o in shown)
    objects += f"  +{more}" if more > 0 else ""
    when, age = message["ts"]["captured"][11:23], message["lat_ms"]["total"]
    return f"{message['camera']:<6} {when}  {age:4.0f} ms  {objects or '-'}"


def watch(subscription, options, counts):
    printed = collections.defaultdict(float)
    for text in subscription.stdout:
        message = json.loads(text)
        camera, objects = message["camera"], message["objects"]
        counts[camera]["messages"] += 1
        counts[camera]["objects"] += sum(o["label"] == options.label for o in objects)
        now = time.monotonic()
        if now - printed[camera] >= 1 / LINES_PER_SECOND:
            printed[camera] = now
            print(line(message), flush=True)


def main():
    options = arguments()
    for number in STOP:
        signal.signal(number, stop)
    wait_for_broker(options.port, options.pid)
    topic = f"watchpost/{options.node}/cam/+/detections"
    # A session of its own, so that Ctrl-C is for this program only; and it never outlives this program.
    command = ["setpriv", "--pdeathsig", "KILL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(options.port), "-t", topic]
    subscription = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def end_with_the_publisher():
        end = time.monotonic() + options.seconds if options.seconds else float("inf")
        while alive(options.pid) and time.monotonic() < end:
            time.sleep(0.1)
        subscription.kill()

    threading.Thread(target=end_with_the_publisher, daemon=True).start()
    counts = collections.defaultdict(collections.Counter)
    try:
        watch(subscription, options, counts)
    except KeyboardInterrupt:
        subscription.kill()
    subscription.wait()
    missing = []
    for camera in sorted(set(counts) | set(options.expect)):
        seen = counts[camera]
        print(f"{camera}: {seen['messages']} messages, {seen['objects']} × {options.label}")
        if camera in options.expect and not seen["objects"]:
            missing.append(camera)
    if missing:
        sys.exit(f"no {options.label} was detected on {', '.join(missing)}")


if __name__ == "__main__":
    main()
