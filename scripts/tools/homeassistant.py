"""Gives Home Assistant our discovery messages and states, and asks it over REST what it made of them; then the same with a
watchpost that runs.

    homeassistant.py FOLDER WATCHPOST     FOLDER/messages: what examples/homeassistant.rs prints
"""

import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE_S = 120
ROOT = pathlib.Path(__file__).resolve().parents[2]
TOPICS = "watchpost/edge07"
GATE = f"{TOPICS}/cam/front_gate"
CONFIGURATION = """\
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
auth:
config:
onboarding:
logger:
  default: warning
"""
# The smallest JPEG there is, near enough: one grey pixel.
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300" + "01" * 64 + "ffc0000b080001000101011100"
    "ffc40014000100000000000000000000000000000009ffc40014100100000000000000000000000000000000"
    "ffda0008010100003f0054dfffd9"
)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, done):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = done()
        if found:
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"homeassistant: waited in vain for {what}")
        time.sleep(0.2)


class Broker:
    def __init__(self, folder):
        self.port = free_port()
        configuration = folder / "mosquitto.conf"
        configuration.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        binary = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        self.process = subprocess.Popen([binary, "-c", configuration], stderr=subprocess.DEVNULL)
        wait_until("the broker", self.accepts)

    def accepts(self):
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def publish(self, topic, body, retain):
        arguments = ["mosquitto_pub", "-p", str(self.port), "-q", "1", "-t", topic, "-s" if body else "-n"]
        body = body if isinstance(body, bytes) else body.encode()
        subprocess.run(arguments + (["-r"] if retain else []), input=body, check=True)

    def retained(self, topic):
        """The body that a topic keeps."""
        arguments = ["mosquitto_sub", "-p", str(self.port), "-t", topic, "-C", "1", "-N", "-W", "5"]
        return subprocess.run(arguments, stdout=subprocess.PIPE, check=False).stdout

    def listen(self, topic):
        """The next message of a topic, as `retained body`, once it is waited for."""
        arguments = ["mosquitto_sub", "-p", str(self.port), "-t", topic, "-C", "1", "-F", "%r %p", "-W", str(PATIENCE_S)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


class HomeAssistant:
    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = None
        (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=self.port))
        self.start()

    def start(self):
        hass = pathlib.Path(sys.executable).with_name("hass")
        log = open(self.folder / "log", "a")
        self.process = subprocess.Popen([hass, "-c", self.folder], stdout=log, stderr=log)
        wait_until("Home Assistant", lambda: self.ask("GET", "/api/onboarding", quiet=True) is not None)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def ask(self, method, path, body=None, form=None, quiet=False, raw=False):
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"}
        if form is not None:
            data, headers = urllib.parse.urlencode(form).encode(), {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return text if raw else json.loads(text)
        except (urllib.error.URLError, OSError) as error:
            if quiet:
                return None
            said = error.read() if isinstance(error, urllib.error.HTTPError) else b""
            raise SystemExit(f"homeassistant: {method} {path}: {error} {said.decode()}") from error

    def onboard(self):
        user = {"name": "t", "username": "t", "password": "not-a-secret", "client_id": self.url, "language": "en"}
        code = self.ask("POST", "/api/onboarding/users", user)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": self.url}
        self.token = self.ask("POST", "/auth/token", form=form)["access_token"]

    def connect(self, port):
        flows = "/api/config/config_entries/flow"
        flow = self.ask("POST", flows, {"handler": "mqtt"})
        done = self.ask("POST", f"{flows}/{flow['flow_id']}", {"broker": "127.0.0.1", "port": port})
        if done["type"] != "create_entry":
            raise SystemExit(f"homeassistant: the broker was not accepted: {done}")

    def state(self, entity):
        return self.ask("GET", f"/api/states/{entity}", quiet=True)

    def entities(self, *devices):
        """Those of a camera or a box."""
        found = (state["entity_id"] for state in self.ask("GET", "/api/states"))
        return {entity for entity in found if any(device in entity for device in devices)}


class Proof:
    def __init__(self, broker, hass, messages):
        self.broker, self.hass, self.messages, self.checks = broker, hass, messages, 0

    def send(self, stage):
        for message in self.messages:
            if message["stage"] == stage:
                self.broker.publish(message["topic"], message["body"], message["retain"])

    def expect(self, entity, wanted, **attributes):
        """`wanted` and the attributes, as soon as they are so."""

        def look():
            seen = self.hass.state(entity)
            return seen, seen and seen["state"] == wanted and all(seen["attributes"].get(k) == v for k, v in attributes.items())

        self.wait_for(entity, f"wanted {wanted} {attributes}", look)
        print(f"  {entity} = {wanted}")

    def wait_for(self, what, wanted, look):
        """What `look` sees, as soon as it says beside it that it is so."""
        seen = None

        def is_so():
            nonlocal seen
            seen, so = look()
            return so

        try:
            wait_until(what, is_so)
        except SystemExit:
            raise SystemExit(f"homeassistant: {what}: {wanted}, there is {seen}") from None
        self.checks += 1
        return seen

    def expect_event(self, stage, entity, **attributes):
        before = (self.hass.state(entity) or {}).get("state")
        self.send(stage)
        wait_until(f"an event of {entity}", lambda: self.hass.state(entity)["state"] not in (before, "unknown"))
        seen = self.hass.state(entity)
        for name, value in attributes.items():
            if seen["attributes"].get(name) != value:
                raise SystemExit(f"homeassistant: {entity}: wanted {name} = {value!r}, there is {seen}")
        self.checks += 1
        print(f"  {entity}: {attributes}")

    def expect_gone(self, entities):
        wait_until(f"the end of {entities}", lambda: not any(map(self.hass.state, entities)))
        self.checks += len(entities)
        print(f"  gone: {' '.join(sorted(entities))}")

    def as_discovered(self):
        self.expect("binary_sensor.front_gate_connection", "on", device_class="connectivity", reason="frames arrive")
        self.expect("binary_sensor.front_gate_person_occupancy", "on", device_class="occupancy")
        self.expect("binary_sensor.front_gate_traffic_light_occupancy", "off")
        self.expect("sensor.front_gate_person_count", "2", unit_of_measurement="objects", state_class="measurement")
        self.expect("sensor.front_gate_traffic_light_count", "0")
        self.expect("sensor.front_gate_drive_person_count", "1")
        self.expect("sensor.front_gate_path_person_in", "12", state_class="total_increasing", unit_of_measurement="objects")
        self.expect("sensor.front_gate_path_person_out", "0", state_class="total_increasing")
        self.expect("sensor.front_gate_frame_rate", "24.96", unit_of_measurement="fps")
        self.expect("sensor.front_gate_frame_age", "31.2", unit_of_measurement="ms", device_class="duration")
        self.expect("switch.front_gate_enabled", "on")
        self.expect("binary_sensor.watchpost_edge07_connection", "on")
        self.expect("sensor.watchpost_edge07_started", "2026-09-30T10:00:00+00:00", device_class="timestamp")

    def health(self):
        self.send("health")
        self.expect("binary_sensor.watchpost_edge07_problem", "on", problems=["camera front_gate is slow"])
        self.expect("binary_sensor.watchpost_edge07_overload", "off")
        self.expect("sensor.watchpost_edge07_inference_rate", "100.5")
        self.expect("sensor.watchpost_edge07_batch_fill", "87.5", unit_of_measurement="%")
        self.expect("sensor.watchpost_edge07_frame_age_95th_percentile", "60.0")
        self.expect("sensor.watchpost_edge07_memory", "314572800", device_class="data_size")
        self.expect("sensor.watchpost_edge07_spooled_messages", "3")
        self.expect("sensor.watchpost_edge07_spooled_messages_dropped", "0", state_class="total_increasing")
        self.expect("sensor.watchpost_edge07_detections_messages_dropped", "7")

    def events(self):
        self.expect_event("notice", "event.watchpost_edge07_notice", event_type="camera_lost", camera="front_gate")
        for stage in ["new", "update", "end"]:
            reason = "left" if stage == "end" else None
            self.expect_event(stage, "event.front_gate_event", event_type=stage, label="person", end_reason=reason)
        self.expect_event("envelope", "event.front_gate_event", event_type="update", zones=["drive"])

    def picture(self):
        self.broker.publish(f"{GATE}/snapshot", JPEG, True)
        wait_until("the picture", lambda: self.hass.state("image.front_gate_snapshot")["state"] != "unknown")
        if self.hass.ask("GET", "/api/image_proxy/image.front_gate_snapshot", raw=True) != JPEG:
            raise SystemExit("homeassistant: the picture is another one")
        self.checks += 1
        print("  image.front_gate_snapshot is the JPEG")

    def switch(self):
        command = self.broker.listen(f"{GATE}/enabled/set")
        time.sleep(1)
        self.hass.ask("POST", "/api/services/switch/turn_off", {"entity_id": "switch.front_gate_enabled"})
        said = command.communicate(timeout=PATIENCE_S)[0].strip()
        if said != "0 OFF":
            raise SystemExit(f"homeassistant: enabled/set: wanted OFF, not retained, there is {said!r}")
        self.checks += 1
        print("  turn_off publishes OFF, not retained")
        # As the daemon answers.
        self.broker.publish(f"{GATE}/enabled/state", "OFF", True)
        self.broker.publish(f"{GATE}/status", "disabled", True)
        self.expect("switch.front_gate_enabled", "off")
        self.expect("binary_sensor.front_gate_connection", "off")
        self.expect("binary_sensor.front_gate_person_occupancy", "unavailable")
        self.expect("sensor.front_gate_drive_person_count", "unavailable")
        self.broker.publish(f"{GATE}/enabled/state", "ON", True)
        self.broker.publish(f"{GATE}/status", "online", True)
        self.expect("binary_sensor.front_gate_person_occupancy", "on")

    def box_away(self):
        self.broker.publish(f"{TOPICS}/status", "offline", True)
        self.expect("binary_sensor.watchpost_edge07_connection", "off")
        for entity in ["switch.front_gate_enabled", "binary_sensor.front_gate_connection", "image.front_gate_snapshot"]:
            self.expect(entity, "unavailable")
        self.broker.publish(f"{TOPICS}/status", "online", True)
        self.expect("switch.front_gate_enabled", "on")


class Box:
    """A watchpost with one camera, a clip of pedestrians that is repeated."""

    CONFIGURATION = """\
node = "box"
state_dir = "{folder}/state"
[engine]
manifest = "{root}/engines/yolo12n.toml"
model = "{root}/.models/yolov12n.onnx"
backend = "openvino"
[engine.openvino]
library = "{root}/.openvino/libopenvino_c.so"
[mqtt]
broker = "mqtt://127.0.0.1:{port}"
[homeassistant]
enabled = true
[[camera]]
id = "walk"
url = "{root}/.demo/vtest.avi"
pace = "realtime"
repeat = true
fps_max = 3
[[camera.zone]]
name = "street"
polygon = [[0, 0], [1, 0], [1, 1], [0, 1]]
labels = ["person"]
"""

    def __init__(self, watchpost, folder, port):
        self.watchpost, self.log, self.path = watchpost, folder / "box-log", folder / "box.toml"
        self.path.write_text(self.CONFIGURATION.format(folder=folder, root=ROOT, port=port))
        self.start()

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([self.watchpost, "run", self.path], stdout=log, stderr=log)

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait(60)


class LiveProof(Proof):
    """Against a box that runs: what Home Assistant shows is what the broker keeps of it."""

    CAMERA = "watchpost/box/cam/walk"

    def __init__(self, broker, hass, box):
        super().__init__(broker, hass, [])
        self.box = box

    def expect_kept(self, entity, topic):
        """A state as the topic has it, and true of a street with people."""

        def look():
            state, kept = (self.hass.state(entity) or {}).get("state"), self.broker.retained(topic).decode()
            return (state, kept), state == kept and int(state) > 0

        count, _ = self.wait_for(entity, f"wanted what {topic} says, and somebody there", look)
        print(f"  {entity} = {count}, as {topic} says")

    def expect_number(self, entity, least):
        def look():
            state = self.hass.state(entity)
            return state, state and number(state["state"]) >= least

        self.wait_for(entity, f"wanted {least} at least", look)
        print(f"  {entity} >= {least}")

    def as_it_is(self):
        self.expect("binary_sensor.watchpost_box_connection", "on")
        self.expect("binary_sensor.walk_connection", "on", reason="frames arrive")
        self.expect("switch.walk_enabled", "on")
        self.expect("binary_sensor.walk_person_occupancy", "on")
        self.expect_kept("sensor.walk_person_count", f"{self.CAMERA}/count/person")
        self.expect_kept("sensor.walk_street_person_count", f"{self.CAMERA}/zone/street/count/person")
        self.expect_number("sensor.walk_frame_rate", 1)
        self.expect("binary_sensor.watchpost_box_problem", "off")
        self.expect_number("sensor.watchpost_box_inference_rate", 1)
        self.expect_number("sensor.watchpost_box_memory", 1 << 20)

    def events(self):
        seen = {}

        def are_there():
            state = self.hass.state("event.walk_event")
            seen[state["attributes"].get("event_type")] = state["attributes"].get("label")
            return {"new", "end"} <= seen.keys()

        wait_until("a new and an end of a track", are_there)
        if seen["new"] != "person" or seen["end"] != "person":
            raise SystemExit(f"homeassistant: events of people wanted, there are {seen}")
        self.checks += 2
        print("  event.walk_event: new and end of a person")

    def picture(self):
        def is_shown():
            shown = self.hass.ask("GET", "/api/image_proxy/image.walk_snapshot", raw=True, quiet=True)
            return shown and shown[:2] == b"\xff\xd8" and shown == self.broker.retained(f"{self.CAMERA}/snapshot")

        wait_until("the camera's latest picture", is_shown)
        self.checks += 1
        print("  image.walk_snapshot is the JPEG that the broker keeps")

    def switch(self):
        for service, state, connection in [("turn_off", "off", "off"), ("turn_on", "on", "on")]:
            self.hass.ask("POST", f"/api/services/switch/{service}", {"entity_id": "switch.walk_enabled"})
            self.expect("switch.walk_enabled", state)
            self.expect("binary_sensor.walk_connection", connection)
            self.expect("binary_sensor.walk_person_occupancy", "on" if state == "on" else "unavailable")

    def away(self, how):
        self.box.end(how)
        self.expect("binary_sensor.watchpost_box_connection", "off")
        self.expect("switch.walk_enabled", "unavailable")
        self.box.start()
        self.expect("binary_sensor.watchpost_box_connection", "on")
        self.expect("switch.walk_enabled", "on")


def number(text):
    try:
        return float(text)
    except ValueError:
        return -1


def prove_live(broker, hass, watchpost, folder):
    box = Box(watchpost, folder, broker.port)
    proof = LiveProof(broker, hass, box)

    def part(what, run):
        print(f"homeassistant: a box that runs: {what}")
        run()

    try:
        part("its camera and itself", proof.as_it_is)
        part("events", proof.events)
        part("the picture", proof.picture)
        part("the switch", proof.switch)
        part("killed, and started again", lambda: proof.away(signal.SIGKILL))
        part("stopped, and started again", lambda: proof.away(signal.SIGTERM))
        hass.stop()
        hass.start()
        part("after a restart of Home Assistant", proof.as_it_is)
        everything = hass.entities(".walk_", "watchpost_box")
        box.end(signal.SIGTERM)
        box.path.write_text(box.path.read_text().replace("[homeassistant]\nenabled = true", "[homeassistant]\nenabled = false"))
        box.start()
        part("without [homeassistant]", lambda: proof.expect_gone(everything))
        code = box.end(signal.SIGTERM)
        if code:
            raise SystemExit(f"homeassistant: the box ended with code {code}")
    finally:
        box.process.kill()
        shutil.copy(box.log, ROOT / ".homeassistant/box-log")
    return proof.checks


def prove(broker, hass, messages):
    proof = Proof(broker, hass, messages)

    def part(what, run):
        print(f"homeassistant: {what}")
        run()

    hass.onboard()
    hass.connect(broker.port)
    proof.send("discovery")
    proof.send("states")
    part("what is retained", proof.as_discovered)
    part("health", proof.health)
    part("notices and events", proof.events)
    part("the picture", proof.picture)
    part("the switch, and a camera that is off", proof.switch)
    part("the box is away", proof.box_away)
    hass.stop()
    hass.start()
    part("after a restart of Home Assistant", proof.as_discovered)
    proof.send("fewer")
    fewer = ["binary_sensor.front_gate_traffic_light_occupancy", "sensor.front_gate_traffic_light_count"]
    places = ["drive_person_count", "path_person_in", "path_person_out"]
    fewer += [f"sensor.front_gate_{place}" for place in places]
    part("a label, a zone and a line less", lambda: proof.expect_gone({*fewer}))
    proof.expect("sensor.front_gate_person_count", "2")
    everything = hass.entities("front_gate", "edge07")
    proof.send("removal")
    part("removal", lambda: proof.expect_gone(everything))
    return proof.checks


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    messages = [json.loads(line) for line in (folder / "messages").read_text().splitlines()]
    from importlib.metadata import version

    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "hass").mkdir()
        broker, hass = Broker(work), None
        try:
            hass = HomeAssistant(work / "hass")
            checks = prove(broker, hass, messages) + prove_live(broker, hass, sys.argv[2], work)
            log = (work / "hass" / "log").read_text()
        finally:
            for process in [hass and hass.process, broker.process]:
                if process:
                    process.kill()
            shutil.copy(work / "hass" / "log", folder / "log")
    bad = [line for line in log.splitlines() if "components.mqtt" in line and ("WARNING" in line or "ERROR" in line)]
    if bad:
        raise SystemExit("homeassistant: it complains of our messages:\n" + "\n".join(bad))
    print(f"homeassistant: Home Assistant {version('homeassistant')}: {checks} checks passed, no complaint in its log")


if __name__ == "__main__":
    main()
