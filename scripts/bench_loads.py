"""What `scripts/bench` does to a peer: one function or class a kind of load; each returns the figures of one run."""
import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

from bench_peers import HOST, Running, Skipped

CONNECTIONS = 64
H2_CONNECTIONS, H2_STREAMS = 16, 10
TICK = os.sysconf("SC_CLK_TCK")
SCALE = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class Failed(Exception):
    """A run with failed requests measures nothing."""


def descendants(pid: int) -> list:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += descendants(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    total = 0
    for p in descendants(pid):
        fields = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(int(field) for field in fields[11:13])
    return total / TICK


def memory_mib(pid: int, what: str = "VmRSS") -> float:
    total = 0
    for p in descendants(pid):
        for line in Path(f"/proc/{p}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                total += int(line.split()[1])
    return total / 1024


def counted(running: Running, load) -> dict:
    """The figures of a run, and what it cost the peer."""
    before = cpu_seconds(running.process.pid)
    figures = load(running)
    if running.process.poll() is not None:
        raise Failed(f"{' '.join(running.process.args[3:5])} has ended with {running.process.returncode}")
    used = cpu_seconds(running.process.pid) - before
    figures["cpu_s"] = used
    if figures.get("requests"):
        figures["cpu_s_per_100k"] = used / figures["requests"] * 100_000
    figures["memory_mib"] = memory_mib(running.process.pid)
    return figures


def client(bench, *command: str, **words) -> str:
    done = subprocess.run(["taskset", "-c", bench.client_cores, *command], capture_output=True, text=True, **words)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def wrk(bench, running: Running, path: str = "/", script: str | None = None, fields: tuple = ()) -> dict:
    threads = max(1, min(4, len(bench.client_cores.split(","))))
    scheme = "https" if running.setup.tls else "http"
    command = ["wrk", "-t", str(threads), "-c", str(CONNECTIONS), "-d", f"{max(1, round(bench.seconds))}s", "--timeout", "10s", "--latency"]
    for name, value in (("Host", HOST), *running.fields, *fields):
        command += ["-H", f"{name}: {value}"]
    if script:
        file = bench.work / "load.lua"
        file.write_text(script)
        command += ["-s", str(file)]
    out = client(bench, *command, f"{scheme}://127.0.0.1:{running.port}{path}")
    if "Non-2xx" in out or "Socket errors" in out:
        raise Failed(f"{running.home.name} failed requests:\n{out}")
    percentile = lambda p: next((float(n) * SCALE[u] for n, u in re.findall(rf"{p}%\s+([\d.]+)(us|ms|s|m)\b", out)), 0.0)
    return {"requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "requests": int(re.search(r"(\d+) requests in", out)[1]),
            "p50_ms": percentile(50), "p99_ms": percentile(99)}



def plain(bench, running, contestant) -> dict:
    return wrk(bench, running)


def handshakes(bench, running, contestant) -> dict:
    return wrk(bench, running, fields=(("Connection", "close"),))


def routes(bench, running, contestant) -> dict:
    count = contestant.setup.routes
    return wrk(bench, running, script=f"""
local n = 0
request = function()
  n = (n + 7919) % {count}
  return wrk.format("GET", "/v" .. n .. "/x")
end
""")


def uploads(bench, running, contestant) -> dict:
    return wrk(bench, running, path="/sink", script='wrk.method = "PUT"\nwrk.body = string.rep("x", 1048576)\n')


def h2load(bench, running, *more: str, path: str = "/", fields: tuple = ()) -> dict:
    if shutil.which("h2load") is None:
        raise Failed("h2load is not installed (--install fetches it)")
    command = ["h2load", "-t1", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", "-D", str(max(1, round(bench.seconds))), "--warm-up-time=0"]
    for name, value in (*running.fields, *fields):
        command += ["-H", f"{name}: {value}"]
    address = f"https://{HOST}:{running.port}{path}"
    out = client(bench, *command, *more, f"--connect-to=127.0.0.1:{running.port}", address)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (done|succeeded|failed|errored|timeout)", out)}
    codes = dict((word, int(n)) for n, word in re.findall(r"(\d+) ([2345]xx)", out))
    # What is under way when the time is over is counted as neither.
    if counts.get("failed") or counts.get("errored") or counts.get("timeout") or not counts.get("succeeded") or sum(codes.get(c, 0) for c in ("3xx", "4xx", "5xx")):
        raise Failed(f"{running.home.name} failed requests:\n{out}")
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", out)
    return {"requests_per_s": float(re.search(r"([\d.]+) req/s", out)[1]), "requests": counts["succeeded"], "mean_ms": float(mean[1]) * SCALE[mean[2]]}


def grpc(bench, running, contestant) -> dict:
    message = bench.work / "message"
    message.write_bytes(b"\0\0\0\0\x64" + b"m" * 100)
    fields = (("content-type", "application/grpc"), ("te", "trailers"))
    return h2load(bench, running, "-d", str(message), path="/bench.Bench/Call", fields=fields)


def own_client(bench, running, verb: str, *words: str) -> dict:
    ca = ("--ca", str(bench.materials.ca)) if running.setup.tls else ()
    out = client(bench, bench.client_binary, verb, f"127.0.0.1:{running.port}", *ca, *words)
    return json.loads(out)


def http3(bench, running, contestant) -> dict:
    return own_client(bench, running, "http3", "--connections", str(H2_CONNECTIONS), "--streams", str(H2_STREAMS), "--seconds", str(bench.seconds))


class Body:
    """One large body; what the peer's memory grew by at the most while it passed."""

    def __init__(self, protocol: str, upload: bool):
        self.protocol, self.upload = protocol, upload

    def __call__(self, bench, running, contestant) -> dict:
        words = ["--protocol", self.protocol, *(["--upload"] if self.upload else [])]
        own_client(bench, running, "body", *words, "--bytes", str(1 << 20))
        pids = descendants(running.process.pid)
        before = memory_mib(running.process.pid)
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        took = own_client(bench, running, "body", *words, "--bytes", str(bench.large))
        grown = memory_mib(running.process.pid, "VmHWM") - before
        return {"mib_per_s": took["bytes"] / took["seconds"] / (1 << 20), "grown_mib": max(0.0, grown)}


class Idle:
    """What each of many connections costs that has served one request and rests."""

    def __init__(self, connections: int):
        self.connections = connections

    def __call__(self, bench, running, contestant) -> dict:
        # What the first ones cost for good is not theirs.
        self.open(bench, running, 100)
        before = memory_mib(running.process.pid)
        resting = self.open(bench, running, self.connections)
        return {"kib_per_connection": (resting - before) * 1024 / self.connections, "opened": self.connections}

    def open(self, bench, running, connections: int) -> float:
        ca = ("--ca", str(bench.materials.ca)) if running.setup.tls else ()
        command = ["taskset", "-c", bench.client_cores, bench.client_binary, "idle", f"127.0.0.1:{running.port}", *ca, "--connections", str(connections)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as opened:
            said = opened.stdout.readline().strip()
            if said != "ready":
                raise Failed(f"{running.home.name}: {opened.stderr.read().strip()}")
            time.sleep(5)  # at rest after one, given back to the system within two more
            resting = memory_mib(running.process.pid)
            opened.stdin.close()
        return resting


class Pace:
    """Half of what the slowest peer does with all it has, for all of them."""

    def __init__(self):
        self.rate = None

    def load(self, bench, running, contestant) -> dict:
        if self.rate is None:
            return wrk(bench, running)
        return own_client(bench, running, "paced", "--rate", str(self.rate), "--connections", str(CONNECTIONS), "--seconds", str(bench.seconds)) | {"rate": self.rate}

    def prepare(self, bench, running, warm) -> None:
        self.rate = max(CONNECTIONS, int(min(it["requests_per_s"] for it in warm.values()) / 2))


def churn(bench, running, contestant) -> dict:
    if contestant.label == "steady":
        return wrk(bench, running)
    stop, changes, failures = threading.Event(), [0], []

    def change() -> None:
        while not stop.wait(0.2 if contestant.peer == "quorumgate" else 1.0):
            try:
                running.reload(changes[0])
                changes[0] += 1
            except SystemExit as why:
                failures.append(str(why))
                return

    changing = threading.Thread(target=change)
    changing.start()
    try:
        figures = wrk(bench, running)
    finally:
        stop.set()
        changing.join()
    if failures:
        raise Failed(failures[0])
    return figures | {"changes": changes[0]}
