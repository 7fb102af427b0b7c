#!/usr/bin/env python3
"""Drives the example `reference` behind nginx and Caddy, with the configurations of docs/deploy/.

    tests/deploy/run.py [nginx] [caddy]

Needs the programs in PATH, and `cargo build --example reference`; nginx is also driven in front of three nodes, for which
REDIS_SERVER names the program of Redis. Takes half a minute, as a poll has to wait for its whole timeout. Everything listens
on loopback only, and ends with this script.
"""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs" / "deploy"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# A name that only the `Host` header carries: an origin of it is allowed if the proxy passes that header on.
HOST = "chat.test"
# How long anything may take that does not wait for a timeout.
SOON = 30
# The poll timeout of the server, its default.
POLL_TIMEOUT = 10


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(command, **options):
    """A process that is ended with the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(SOON)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port, process):
    deadline = time.monotonic() + SOON
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{process.args[0]} does not listen"
            time.sleep(0.05)


@contextlib.contextmanager
def server(address="127.0.0.1:0", **settings):
    binary = TARGET / "debug" / "examples" / "reference"
    environment = {**os.environ, "ADDR": address, **settings}
    with running([binary], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert select.select([process.stdout], [], [], SOON)[0], "the server does not start"
        yield process, int(re.search(r":(\d+)$", process.stdout.readline().strip())[1])


def configuration(name, port, backends):
    """A file of docs/deploy/ with these ports in place of its own."""
    text = (DEPLOY / name).read_text()
    (own,) = re.findall(r"^.*127\.0\.0\.1:4000.*\n", text, re.MULTILINE)
    lines = "".join(own.replace(":4000", f":{backend}") for backend in backends)
    for own, ours in [("listen 8080", f"listen 127.0.0.1:{port}"), (":8080 {", f":{port} {{\n\tbind 127.0.0.1"),
                      (own, lines), ("/var/log/nginx/", "")]:
        text = text.replace(own, ours)
    assert all(str(number) in text for number in [port, *backends]), text
    return text


@contextlib.contextmanager
def nginx(folder, port, *backends):
    (folder / "channels.conf").write_text(configuration("nginx.conf", port, backends))
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in
                    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr error;\n{user}"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}include {folder}/channels.conf;\n}}\n")
    with running(["nginx", "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]) as process:
        yield process


@contextlib.contextmanager
def caddy(folder, port, backend):
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + configuration("Caddyfile", port, [backend]))
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    command = ["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]
    with running(command, env=environment, stderr=(folder / "log").open("w")) as process:
        yield process


class WebSocket:
    """A WebSocket whose messages are short texts."""

    def __init__(self, port, parameters="", origin=f"http://{HOST}"):
        self.socket = socket.create_connection(("127.0.0.1", port), SOON)
        self.socket.sendall((
            f"GET /socket/websocket?vsn=2.0.0{parameters} HTTP/1.1\r\nHost: {HOST}:{port}\r\nOrigin: {origin}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        self.stream = self.socket.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        while self.stream.readline().strip():
            pass

    def send(self, *message):
        text = json.dumps(message).encode()
        self.socket.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)

    def frame(self):
        opcode, length = self.stream.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.stream.read(2))
        return opcode & 15, self.stream.read(length)

    def receive(self):
        opcode, payload = self.frame()
        while opcode == 9:
            self.socket.sendall(bytes([0x8A, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
            opcode, payload = self.frame()
        assert opcode == 1, (opcode, payload)
        return json.loads(payload)

    def expect(self, event):
        """Skips messages until one has this event, and returns its payload."""
        while (message := self.receive())[3] != event:
            pass
        return message[4]

    def cut(self):
        self.stream.close()
        self.socket.close()


class LongPoll:
    def __init__(self, port, parameters=""):
        self.port, self.parameters, self.token, self.waiting = port, parameters, "", []
        answer = self.request("GET")
        assert answer["status"] == 410, answer

    def request(self, method, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=POLL_TIMEOUT + SOON)
        headers = {"Host": f"{HOST}:{self.port}", "Origin": f"http://{HOST}"}
        if body is not None:
            headers["Content-Type"] = "application/x-ndjson"
        connection.request(method, f"/socket/longpoll?vsn=2.0.0{self.parameters}&token={self.token}", body, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert response.status == 200, (response.status, text)
        answer = json.loads(text)
        self.token = answer.get("token", self.token)
        return answer

    def send(self, *message):
        answer = self.request("POST", json.dumps(message))
        assert answer == {"status": 200}, answer

    def expect(self, event):
        """Polls until a message has this event, and returns its payload; others before it are dropped."""
        while True:
            self.waiting += self.request("GET").get("messages", []) if not self.waiting else []
            while self.waiting:
                message = json.loads(self.waiting.pop(0))
                if message[3] == event:
                    return message[4]

    def cut(self):
        pass


def ok(response):
    return {"status": "ok", "response": response}


def websocket_joins_and_pushes(port):
    client = WebSocket(port)
    assert client.status == 101, client.status
    client.send("1", "1", "room:a", "phx_join", {})
    assert client.receive() == ["1", "1", "room:a", "phx_reply", ok({})]
    client.send("1", "2", "room:a", "ping", {"n": 7})
    assert client.expect("phx_reply") == ok({"n": 7})
    return client


def origins_are_compared_with_the_host(port):
    assert WebSocket(port, origin=f"https://{HOST}").status == 101
    for origin in ["http://evil.test", f"http://{HOST}.evil.test"]:
        assert WebSocket(port, origin=origin).status == 403, origin


def long_poll_waits_for_its_whole_timeout(port):
    client = LongPoll(port)
    client.send("1", "1", "room:a", "phx_join", {})
    (reply, *_) = client.request("GET")["messages"]
    assert json.loads(reply) == ["1", "1", "room:a", "phx_reply", ok({})]
    start = time.monotonic()
    while (answer := client.request("GET"))["status"] == 200:
        start = time.monotonic()
    assert answer["status"] == 204, answer
    assert time.monotonic() - start > POLL_TIMEOUT - 1, "the poll ended early"
    client.send("1", "2", "room:a", "ping", {"n": 8})
    answer = client.request("GET")
    assert [json.loads(text)[4] for text in answer["messages"]] == [ok({"n": 8})], answer


def the_longest_message_arrives(port):
    client = LongPoll(port)
    client.send("1", "1", "room:a", "phx_join", {})
    names = [b"1", b"2", b"room:a", b"ack"]
    message = bytes([0, *map(len, names)]) + b"".join(names)
    message += bytes(2**20 - len(message))
    assert client.request("POST", base64.b64encode(message)) == {"status": 200}


def a_disconnect_is_seen(port):
    ann, bob = (WebSocket(port, f"&user_id={name}") for name in ["ann", "bob"])
    for client in [ann, bob]:
        client.send("1", "1", "lobby:a", "phx_join", {})
        assert client.expect("phx_reply") == ok({})
    while "bob" not in ann.expect("presence_diff")["joins"]:
        pass
    bob.cut()
    while "bob" not in ann.expect("presence_diff")["leaves"]:
        pass
    ann.cut()


def a_shutdown_closes_the_websockets(port, process):
    client = websocket_joins_and_pushes(port)
    process.send_signal(signal.SIGTERM)
    while (frame := client.frame())[0] != 8:
        pass
    assert struct.unpack(">H", frame[1][:2]) == (1012,), frame
    client.cut()
    assert process.wait(SOON) == 0


def drive(name, proxy):
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, server() as (process, backend):
        with proxy(pathlib.Path(folder), port, backend) as front:
            wait_for(port, front)
            for check in [websocket_joins_and_pushes, origins_are_compared_with_the_host,
                          long_poll_waits_for_its_whole_timeout, the_longest_message_arrives, a_disconnect_is_seen]:
                check(port)
                print(f"{name}: {check.__name__}", flush=True)
            a_shutdown_closes_the_websockets(port, process)
            print(f"{name}: {a_shutdown_closes_the_websockets.__name__}", flush=True)


REDIS = shutil.which(os.environ.get("REDIS_SERVER") or "redis-server")


@contextlib.contextmanager
def redis(folder):
    port = free_port()
    command = [REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        wait_for(port, process)
        yield f"redis://127.0.0.1:{port}"


def broadcast(port, n):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
    connection.request("POST", "/broadcast", json.dumps({"topic": "room:a", "event": "news", "payload": {"n": n}}))
    assert connection.getresponse().status == 204
    connection.close()


def join(client, number):
    client.send(number, number, "room:a", "phx_join", {})
    assert client.expect("phx_reply") == ok({})


def fetch(client, number):
    client.send(number, f"{number}0", "room:a", "fetch", {"k": "color"})
    return client.expect("phx_reply")


def a_long_poll_has_its_session_on_any_node(port, nodes):
    client = LongPoll(port)
    join(client, "1")
    for n in range(9):
        broadcast(nodes[n % 3], n)
        assert client.expect("news") == {"n": n}


def a_session_follows_its_client_to_any_node(port, nodes):
    parameters = "&user_id=ann&session=a-session-of-the-proxy-test"
    client = WebSocket(port, parameters)
    join(client, "1")
    client.send("1", "2", "room:a", "assign", {"k": "color", "v": "red"})
    assert client.expect("phx_reply") == ok({})
    for n, kind in enumerate([WebSocket, WebSocket, LongPoll, WebSocket, LongPoll, LongPoll], 1):
        client.cut()
        broadcast(nodes[n % 3], n)
        client = kind(port, parameters)
        join(client, str(10 * n))
        while client.expect("news") != {"n": n}:
            pass
        assert fetch(client, str(10 * n)) == ok({"v": "red"}), "the session began anew"
    return client


def drive_nodes():
    """nginx in front of three nodes, without stickiness."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = stack.enter_context(redis(folder))
        servers = [stack.enter_context(server(ENGINE=engine, APP="proxies")) for _ in range(3)]
        nodes = [backend for _, backend in servers]
        wait_for(port, stack.enter_context(nginx(folder, port, *nodes)))
        for check in [a_long_poll_has_its_session_on_any_node, a_session_follows_its_client_to_any_node]:
            check(port, nodes)
            print(f"nginx, three nodes: {check.__name__}", flush=True)


if __name__ == "__main__":
    PROXIES = {"nginx": nginx, "caddy": caddy}
    for name in sys.argv[1:] or PROXIES:
        drive(name, PROXIES[name])
    if "nginx" in (sys.argv[1:] or PROXIES):
        if REDIS or os.environ.get("CI"):
            drive_nodes()
        else:
            print("nginx, three nodes: skipped, REDIS_SERVER is not set")
