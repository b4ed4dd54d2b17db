#!/usr/bin/python3
"""A small RTSP camera: serves clips in an endless loop, for the demo and the tests.

A clip is read once into access units; each media pushes them by appsrc with time stamps that never go back, so a
loop has no gap and no jump. It prints `listening on PORT` when ready and ends when its standard input closes, so it
never outlives whoever started it. Commands on standard input, one a line:

    stop NAME      takes the stream away and hangs up on its clients
    start NAME     brings it back
    freeze NAME    keeps the connections but sends no more frames
    thaw NAME      goes on sending
    hang NAME      sends no more frames to those who are connected, but to those who come anew
    garble NAME    from now on cuts access units short, turns bits in them and puts NAL units of noise between
    clean NAME     sends them as they are again

A stream of `FILE+FILE` plays one clip after the other, so its size changes on the way. `bare:FILE` (H.264) sends parameter
sets with its first frame alone, so that whoever comes later has those of the SDP. What is to be garbled is `raw:FILE`.
"""

import argparse
import random
import re
import signal
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

ROLE = "viewer"


class Clip:
    """Access units of a file (byte stream, parameter sets before each key frame) and its length in time."""

    def __init__(self, path):
        self.codec = ""
        self.units = [unit for sink in self._read(path) for unit in self._units(sink)]
        if not self.units:
            sys.exit(f"rtsp_server: {path}: no H.264 or H.265 video in it: give a clip with one of the two")
        steps = sorted(unit[1] for unit in self.units)
        frame = (steps[-1] - steps[0]) // max(1, len(steps) - 1) or Gst.SECOND // 25
        self.start, self.length = steps[0], steps[-1] - steps[0] + frame

    def _read(self, path):
        """The appsink that holds the whole of the first video stream, or none."""
        pipeline, sinks = Gst.parse_launch("filesrc name=file ! parsebin name=parse"), []

        def exposed(_parsebin, pad):
            media = (pad.get_current_caps() or pad.query_caps()).get_structure(0).get_name()
            codec = media.removeprefix("video/x-")
            if codec in ("h264", "h265") and not sinks:
                self.codec = codec
                text = f"{codec}parse config-interval=-1 ! {media},stream-format=byte-stream,alignment=au ! appsink name=out sync=false wait-on-eos=false"
            else:
                text = "fakesink sync=false"
            branch = Gst.parse_bin_from_description(text, True)
            if codec == self.codec and not sinks:
                sinks.append(branch.get_by_name("out"))
            pipeline.add(branch)
            branch.sync_state_with_parent()
            pad.link(branch.get_static_pad("sink"))

        pipeline.get_by_name("file").set_property("location", path)
        pipeline.get_by_name("parse").connect("pad-added", exposed)
        pipeline.set_state(Gst.State.PLAYING)
        ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
        message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ends)
        if message.type == Gst.MessageType.ERROR:
            print(f"rtsp_server: {path}: {message.parse_error()[0].message}", file=sys.stderr)
            sinks.clear()
        yield from sinks
        pipeline.set_state(Gst.State.NULL)

    @staticmethod
    def _units(sink):
        while (sample := sink.emit("try-pull-sample", 0)) is not None:
            buffer = sample.get_buffer()
            dts = buffer.dts if buffer.dts != Gst.CLOCK_TIME_NONE else buffer.pts
            yield buffer.extract_dup(0, buffer.get_size()), buffer.pts, dts


def without_parameter_sets(data):
    """An H.264 access unit, its slices alone."""
    units = [unit for unit in re.split(b"\x00\x00\x00?\x01", data) if unit]
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in units if unit[0] & 31 in (1, 5))


def garbled(data, chance):
    """An access unit after a bad way, or as it was."""
    match chance.randrange(4):
        case 0:
            return data[: chance.randrange(6, max(7, len(data)))]
        case 1:
            damaged = bytearray(data)
            for _ in range(1 + len(data) // 200):
                damaged[chance.randrange(5, len(data))] ^= 1 << chance.randrange(8)
            return bytes(damaged)
        case 2:
            return b"\x00\x00\x00\x01" + chance.randbytes(chance.randrange(2, 2000)) + data
        case _:
            return data


class Stream:
    """One name: its launch line, and the clip behind it (none for a test picture)."""

    def __init__(self, name, what):
        self.path, self.units, self.length = f"/{name}", [], 0
        self.frozen, self.waiting, self.fed = False, [], []
        self.garbled, self.random = False, random.Random(1)
        if what.startswith("test:"):
            size, fps = what[5:].split("@")
            width, height = size.split("x")
            self.launch = (
                f"videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width={width},height={height},"
                f"framerate={fps}/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={fps} ! "
                "video/x-h264,profile=baseline ! rtph264pay name=pay0 pt=96 config-interval=-1"
            )
        else:
            bare, raw = what.startswith("bare:"), what.startswith(("bare:", "raw:"))
            clips = [Clip(path) for path in what.removeprefix("bare:").removeprefix("raw:").split("+")]
            for clip in clips:
                shift = self.length - clip.start
                self.units += [(data, pts + shift, dts + shift) for data, pts, dts in clip.units]
                self.length += clip.length
            if bare:
                self.units[1:] = [(without_parameter_sets(data), pts, dts) for data, pts, dts in self.units[1:]]
            codec = clips[0].codec
            # A parser would mend what is garbled.
            parse = "" if raw else f"{codec}parse ! "
            self.launch = (
                f"appsrc name=source is-live=true format=time max-bytes=200000 "
                f"caps=video/x-{codec},stream-format=byte-stream,alignment=au ! {parse}"
                f"rtp{codec}pay name=pay0 pt=96 config-interval={0 if bare else -1}"
            )

    def configure(self, _factory, media):
        """Called for each new media: its own position in the clip."""
        source = media.get_element().get_by_name_recurse_up("source") if self.units else None
        if source is None:
            return
        state = {"next": 0, "offset": 0, "hangs": False}
        self.fed.append(state)
        source.connect("need-data", self._push, state)

    def thaw(self):
        """A source that got nothing waits and does not ask again: each gets the frame it asked for."""
        self.frozen, waiting, self.waiting = False, self.waiting, []
        for source, state in waiting:
            self._push(source, 0, state)

    def hang(self):
        for state in self.fed:
            state["hangs"] = True
        self.fed.clear()

    def _push(self, source, _bytes, state):
        if state["hangs"]:
            return
        if self.frozen:
            self.waiting.append((source, state))
            return
        data, pts, dts = self.units[state["next"]]
        if self.garbled:
            data = garbled(data, self.random)
        buffer = Gst.Buffer.new_wrapped(data)
        buffer.pts = max(0, pts + state["offset"])
        buffer.dts = max(0, dts + state["offset"])
        state["next"] += 1
        if state["next"] == len(self.units):
            state["next"] = 0
            state["offset"] += self.length
        source.emit("push-buffer", buffer)


class Server:
    """Mounts, clients and who watches what."""

    def __init__(self, options):
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address(options.address)
        self.server.set_service(str(options.port))
        self.secured = bool(options.user or options.tls)
        if self.secured:
            self.server.set_auth(self._auth(options))
        self.shared, self.streams, self.watching = options.shared, {}, {}
        for text in options.stream:
            name, what = text.split("=", 1)
            self.streams[name] = Stream(name, what)
            self.mount(name)
        self.server.connect("client-connected", self._connected)
        if not self.server.attach(None):
            sys.exit(f"rtsp_server: port {options.port} is taken: give another, or 0 for any")
        GLib.timeout_add_seconds(2, self._reap)

    def _auth(self, options):
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", ROLE)
        if options.user:
            methods = {"basic": GstRtsp.RTSPAuthMethod.BASIC, "digest": GstRtsp.RTSPAuthMethod.DIGEST}
            auth.set_supported_methods(methods[options.auth])
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
            auth.add_digest(options.user, options.password, token)
        else:
            auth.set_default_token(token)
        if options.tls:
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(*options.tls))
        return auth

    def mount(self, name):
        stream = self.streams[name]
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( {stream.launch} )")
        factory.set_shared(self.shared)
        factory.set_protocols(
            GstRtsp.RTSPLowerTrans.TCP | GstRtsp.RTSPLowerTrans.UDP | GstRtsp.RTSPLowerTrans.UDP_MCAST
        )
        if self.secured:
            role = Gst.Structure.new_empty(ROLE)
            role.set_value("media.factory.access", True)
            role.set_value("media.factory.construct", True)
            factory.add_role_from_structure(role)
        factory.connect("media-configure", stream.configure)
        self.server.get_mount_points().add_factory(stream.path, factory)

    def _connected(self, _server, client):
        client.connect("play-request", lambda c, ctx: self.watching.__setitem__(c, ctx.uri.abspath))
        client.connect("closed", lambda c: self.watching.pop(c, None))

    def _reap(self):
        self.server.get_session_pool().cleanup()
        return True

    def command(self, line):
        words = line.split()
        if len(words) != 2 or words[1] not in self.streams:
            print(f"rtsp_server: {line.strip()!r}: say stop, start, freeze, thaw, hang, garble or clean and a stream's name", file=sys.stderr)
            return
        verb, stream = words[0], self.streams[words[1]]
        if verb == "stop":
            self.server.get_mount_points().remove_factory(stream.path)
            for client in [c for c, path in self.watching.items() if path.startswith(stream.path)]:
                client.close()
        elif verb == "start":
            self.mount(words[1])
        elif verb == "freeze":
            stream.frozen = True
        elif verb == "thaw":
            stream.thaw()
        elif verb == "hang":
            stream.hang()
        elif verb in ("garble", "clean"):
            stream.garbled = verb == "garble"
        print(f"done {line.strip()}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="A small RTSP camera that plays clips in an endless loop.")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--stream", action="append", required=True, metavar="NAME=[raw:|bare:]FILE[+FILE]|NAME=test:WxH@FPS")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=("basic", "digest"), default="digest")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="PEM files: serve RTSPS")
    parser.add_argument("--shared", action="store_true", help="one position for all clients: late ones join mid-GOP")
    return parser.parse_args()


def main():
    options = arguments()
    Gst.init(None)
    server = Server(options)
    loop = GLib.MainLoop()

    def commands():
        for line in sys.stdin:
            GLib.idle_add(server.command, line)
        GLib.idle_add(loop.quit)

    threading.Thread(target=commands, daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, loop.quit)
    print(f"listening on {server.server.get_bound_port()}", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
