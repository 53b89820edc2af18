#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A workspace's life: create, start, first byte and stop; and many workspaces at once.

bench.py life [--bin FILE] [--rounds N] [--many N] [--json FILE] [--markdown FILE]

One life is `create NAME`, then `start NAME -- C`, where C connects to the origin, sends 64 bytes and reads as many, and ends; with it the workspace
ends. What is measured is the wall time of the two commands, as their caller has it. The ways take turns. Then --many workspaces are started as fast
as one caller can, each with a command that waits; memory is what no other process has (USS: Private_* of smaps_rollup) of all of their processes
without the command's own, and processor time is what they use while nobody does anything.
"""
import datetime
import json
import os
import statistics
import subprocess
import time

import inside
import report

ORIGIN, PORT = "203.0.113.20", 5202
INTERNET = ["nsenter", "--net=/run/netns/internet", "--"]
USER = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "--"]
GOAL_MS = 50
IDLE_SECONDS = 5
WAYS = {"guarded, TLS intercepted": [], "guarded, opaque": ["--egress-opaque"], "off": ["--egress", "off"],
        "kernel path, opaque": ["--datapath", "tproxy", "--egress-opaque"]}


def timed(argv):
    begin = time.monotonic()
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if p.returncode:
        raise RuntimeError(f"{' '.join(argv[-6:])}: exit status {p.returncode}: {p.stderr.strip()[-300:]}")
    return (time.monotonic() - begin) * 1e3


def life(binary, crr, flags, name):
    """(create, start to end) in ms."""
    made = timed([*USER, binary, "create", name, *flags])
    ran = timed([*USER, binary, "start", name, "--", crr, "once", ORIGIN, str(PORT)])
    timed([*USER, binary, "delete", name])
    return made, ran


def children(pid):
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as f:
            for kid in map(int, f.read().split()):
                found += [kid, *children(kid)]
    return found


def ours(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("slirp-med")
    except OSError:
        return False


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(x.split()[1]) for x in f if x.startswith("Private_"))


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def many(binary, n):
    begin = time.monotonic()
    runs = [subprocess.Popen([*USER, binary, "run", "--name", f"many{i}", "--", "sh", "-c", "echo up; exec sleep 1000"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for i in range(n)]
    for r in runs:
        if r.stdout.readline() != b"up\n":
            raise RuntimeError("a workspace did not start")
    up = time.monotonic() - begin
    pids = [[p for p in (r.pid, *children(r.pid)) if ours(p)] for r in runs]
    memory = [sum(map(private_kib, ps)) / 1024 for ps in pids]
    before = sum(cpu_s(p) for ps in pids for p in ps)
    time.sleep(IDLE_SECONDS)  # the time in which nothing happens is what is measured
    idle = (sum(cpu_s(p) for ps in pids for p in ps) - before) / IDLE_SECONDS
    begin = time.monotonic()
    for r in runs:
        r.terminate()
    for r in runs:
        r.wait(60)
    return {"n": n, "up_s": up, "mib": memory, "processes": len(pids[0]), "idle_percent": idle * 100, "down_s": time.monotonic() - begin}


def table(doc):
    out = [f"{doc['date']}, {doc['machine']}, load {doc['load']:.1f} at the start; {doc['rounds']} rounds; ms, median (least to most).", "",
           "| way | create | start, first byte, stop | in all |", "|---|---|---|---|"]
    for way, got in doc["results"].items():
        cols = [[c for c, _ in got], [s for _, s in got], [c + s for c, s in got]]
        out.append(f"| {way} | " + " | ".join(f"{statistics.median(x):.1f} ({min(x):.1f} to {max(x):.1f})" for x in cols) + " |")
    for way, why in doc["failed"].items():
        out.append(f"| {way} | failed: {why} | | |")
    m = doc["many"]
    out += ["", f"{m['n']} workspaces at once, started by one caller: all up after {m['up_s']:.1f} s ({m['up_s'] / m['n'] * 1e3:.0f} ms each), "
            f"{m['processes']} processes each, private memory {statistics.median(m['mib']):.1f} MiB each (most: {max(m['mib']):.1f}), "
            f"all together {m['idle_percent']:.1f} % of one "
            f"processor while idle, all ended {m['down_s']:.1f} s after SIGTERM.", ""]
    first = next(iter(doc["results"].values()), None)
    out += ["| goal | measured | |", "|---|---|---|"]
    if first:
        total = statistics.median(c + s for c, s in first)
        out.append(f"| create, start, first byte and stop in {GOAL_MS} ms | {total:.1f} ms | {'met' if total <= GOAL_MS else 'missed'} |")
    out.append(f"| an idle workspace has at most 10 MiB private memory | {max(m['mib']):.1f} MiB | {'met' if max(m['mib']) <= 10 else 'missed'} |")
    return "\n".join(out) + "\n"


def inner(a):
    crr = inside.make("crr")
    inside.keep_state()
    doc = {"date": datetime.date.today().isoformat(), "machine": report.machine(),
           "load": os.getloadavg()[0], "rounds": a.rounds, "results": {w: [] for w in WAYS}, "failed": {}}
    with inside.served(INTERNET + [crr, "serve", ORIGIN, str(PORT)]):
        for i in range(a.rounds):
            for way, flags in WAYS.items():
                if way in doc["failed"]:
                    continue
                try:
                    doc["results"][way].append(life(a.bin, crr, flags, f"life{i}"))
                except RuntimeError as e:
                    doc["failed"][way] = str(e)
                    del doc["results"][way]
        doc["many"] = many(a.bin, a.many)
    print(json.dumps(doc))
    return 0


def main(argv=None):
    ap = inside.options("life", __doc__, rounds=20)
    ap.add_argument("--many", type=int, default=100)
    return inside.run(ap.parse_args(argv), "life", inner, table, "many")
