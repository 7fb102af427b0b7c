#!/usr/bin/env python3
"""Loads docs/grafana.json against a real Prometheus that scrapes a real server.

    tests/dashboard/test.py PROMETHEUS SERVER

PROMETHEUS is the binary, SERVER that of the example `dashboard_server`. Clients of both transports use the
server meanwhile. Every query of every panel has to be accepted and to return a series, as it would in Grafana,
and so has the query of every variable.
"""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

DASHBOARD = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "grafana.json")
TIMEOUT = 60


def get(url, body=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=TIMEOUT) as response:
        return response.read()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class LongPoll:
    """A long-poll client of 2.0.0."""

    def __init__(self, address):
        self.url = f"http://{address}/socket/longpoll?vsn=2.0.0"
        self.token = json.loads(get(self.url))["token"]

    def send(self, message):
        get(f"{self.url}&token={self.token}", json.dumps(message).encode())

    def poll(self):
        answer = json.loads(get(f"{self.url}&token={self.token}"))
        self.token = answer.get("token", self.token)
        return answer


class WebSocket:
    """A WebSocket client of 2.0.0 that sends short texts and discards what it receives."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = self.socket.recv(4096)
        assert b" 101 " in answer.split(b"\r\n")[0], answer

    def send(self, message):
        payload, mask = json.dumps(message).encode(), os.urandom(4)
        assert len(payload) < 126
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.socket.sendall(bytes([0x81, 0x80 | len(payload)]) + mask + masked)


def use(address):
    """Does something that most panels show."""
    clients = [LongPoll(address), WebSocket(address)]
    for client in clients:
        client.send(["1", "1", "room:1", "phx_join", {}])
        client.send(["2", "2", "room:closed", "phx_join", {}])
        client.send([None, "3", "nowhere", "new_msg", {}])
        client.send(["1", "4", "room:1", "new_msg", {"body": "hi"}])
        client.send(["5", "5", "room:2", "phx_join", {}])
        client.send(["5", "6", "room:2", "unknown", {}])
    get(f"http://{address}/socket/longpoll?vsn=2.0.0&banned=1")
    assert clients[0].poll()["messages"]
    return clients


def query(prometheus, expression):
    parameters = urllib.parse.urlencode({"query": expression})
    try:
        answer = json.loads(get(f"{prometheus}/api/v1/query?{parameters}"))
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{expression}: {error.read().decode()}") from error
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def wait_for(what, condition):
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"timed out: {what}")


def expressions(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$job", ".+")
            assert "$" not in expression, expression
            yield panel["title"], expression


def check(prometheus, dashboard):
    for title, expression in expressions(dashboard):
        assert query(prometheus, expression), f"{title}: no series for {expression}"
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
            assert label in query(prometheus, series)[0]["metric"], variable
    for series in ["connects_total", "messages_received_total", "messages_sent_total", "sessions"]:
        for transport in ["websocket", "longpoll"]:
            [result] = query(prometheus, f'sum (tower_channels_{series}{{transport="{transport}"}})')
            assert float(result["value"][1]) > 0, (series, transport)
    for series in ["joins_total", "channel_crashes_total", "broadcasts_total", "handle_in_seconds_count"]:
        [result] = query(prometheus, f"sum (tower_channels_{series})")
        assert float(result["value"][1]) > 0, series


def main():
    prometheus_binary, server_binary = sys.argv[1:]
    with open(DASHBOARD, encoding="utf-8") as file:
        dashboard = json.load(file)
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            server = subprocess.Popen([server_binary], stdout=subprocess.PIPE, text=True)
            processes.append(server)
            address = server.stdout.readline().strip()
            with open(f"{folder}/prometheus.yml", "w", encoding="utf-8") as config:
                json.dump(
                    {
                        "global": {"scrape_interval": "1s"},
                        "scrape_configs": [
                            {"job_name": "chat", "static_configs": [{"targets": [address]}]}
                        ],
                    },
                    config,
                )
            port = free_port()
            log = open(f"{folder}/log", "w+", encoding="utf-8")
            processes.append(
                subprocess.Popen(
                    [
                        prometheus_binary,
                        f"--config.file={folder}/prometheus.yml",
                        f"--storage.tsdb.path={folder}/data",
                        f"--web.listen-address=127.0.0.1:{port}",
                    ],
                    stdout=log,
                    stderr=log,
                )
            )
            prometheus = f"http://127.0.0.1:{port}"
            scraped = lambda n: lambda: float(
                query(prometheus, "count_over_time(tower_channels_memory_limit_bytes[1h])")[0]["value"][1]
            ) >= n
            wait_for("the first scrape", lambda: query(prometheus, "tower_channels_memory_limit_bytes"))
            clients = use(address)
            wait_for("the next scrapes", scraped(5))
            check(prometheus, dashboard)
            del clients
        except BaseException:
            if len(processes) == 2:
                log.seek(0)
                print(log.read()[-2000:], file=sys.stderr)
            raise
        finally:
            for process in processes:
                process.kill()
                process.wait()
    print(f"{len(list(expressions(dashboard)))} queries return data")


main()
