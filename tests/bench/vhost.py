#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a frame costs over vhost-user and over QEMU's stream: the port alone, and with the NAT behind it, on one processor.

bench.py vhost [--tools FOLDER] [--rounds N] [--seconds S] [--json FILE] [--markdown FILE]

bench_vhost (vhost.c) has the guest, the port, the front and what is upstream in one thread, and counts the processor time of the port, or of the
whole front, alone: neither the guest's nor the far end's, so that no VM is in the way and other work on the machine counts little. Each round
runs every case once, both ports one after the other. Gbit/s are of that time: what one processor would carry if it did nothing else.
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys

import report

BEGIN, END = "<!-- bench vhost: begin -->", "<!-- bench vhost: end -->"
PORTS = ("vhost-user", "stream")
CASES = [(layer, direction, size) for layer in ("port", "nat") for size in ("1500", "tso") for direction in ("up", "down")]
WORDS = {"port": "port alone", "nat": "port and NAT", "up": "from the guest", "down": "to the guest", "1500": "1500 bytes", "tso": "64 KiB"}


def once(tool, port, case, seconds):
    argv = [tool, port, *case, str(seconds)]
    if len(os.sched_getaffinity(0)) > 1:
        argv = ["taskset", "-c", str(max(os.sched_getaffinity(0)))] + argv
    p = subprocess.run(argv, capture_output=True, text=True, timeout=seconds * 20 + 60, stdin=subprocess.DEVNULL)
    if p.returncode:
        raise RuntimeError(f"exit {p.returncode}: {(p.stderr or p.stdout).strip()[-300:]}")
    j = json.loads(p.stdout)
    return {"frames_s": j["frames"] / j["busy_us"] * 1e6, "gbit_s": j["bytes"] * 8e-3 / j["busy_us"],
            "with_guest_gbit_s": j["bytes"] * 8e-3 / j["all_us"]}


def table(doc):
    rows = [f"{doc['date']}, {doc['machine']}, load {doc['load']:.1f} at the start; {doc['rounds']} rounds of {doc['seconds']} s; "
            "median, and least to most.", "",
            "| what | frames | direction | vhost-user, frames/s | vhost-user, Gbit/s | stream, frames/s | stream, Gbit/s | vhost-user to stream |",
            "|---|---|---|---|---|---|---|---|"]
    for case in CASES:
        cells = []
        for port in PORTS:
            got = doc["results"].get("/".join((port,) + case), [])
            if not got:
                cells += ["**failed**"] * 2
                continue
            frames, gbit = ([r[k] for r in got] for k in ("frames_s", "gbit_s"))
            cells += [f"{statistics.median(frames):,.0f}", f"{statistics.median(gbit):.1f} ({min(gbit):.1f} to {max(gbit):.1f})"]
        pairs = list(zip(*(doc["results"].get("/".join((port,) + case), []) for port in PORTS)))
        ratio = f"{statistics.median(a['gbit_s'] / b['gbit_s'] for a, b in pairs):.2f}" if pairs else ""
        layer, direction, size = case
        rows.append(f"| {WORDS[layer]} | {WORDS[size]} | {WORDS[direction]} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(rows + [""] + [f"- **failed**: {x}" for x in doc["failed"]]) + "\n"


def main(argv=None):
    ap = argparse.ArgumentParser(prog="bench.py vhost", description=__doc__.splitlines()[0])
    ap.add_argument("--bin", default=os.environ.get("SLIRP_MED_BIN"), help=argparse.SUPPRESS)
    ap.add_argument("--tools", help="where bench_vhost is (default: beside the binary's build)")
    ap.add_argument("--rounds", type=int, default=9)
    ap.add_argument("--seconds", type=float, default=0.5)
    ap.add_argument("--json", help="write the raw figures here")
    ap.add_argument("--markdown", help="write the table here; in a file with the two marker lines, between them")
    a = ap.parse_args(argv)
    tools = a.tools or os.path.join(os.path.dirname(a.bin or "build/vmm-glue/x"), "..", "tests", "bench")
    tool = os.path.realpath(os.path.join(tools, "bench_vhost"))
    if not os.access(tool, os.X_OK):
        ap.error(f"no bench_vhost in {tools}: ninja -C BUILD tests/bench/bench_vhost")
    doc = {"date": datetime.date.today().isoformat(), "machine": report.machine(),
           "load": os.getloadavg()[0], "rounds": a.rounds, "seconds": a.seconds, "results": {}, "failed": []}
    for n in range(a.rounds):
        for case in CASES:
            try:  # both or none, so that ratios are of one moment
                got = {port: once(tool, port, case, a.seconds) for port in (PORTS if n % 2 == 0 else PORTS[::-1])}
            except (RuntimeError, subprocess.TimeoutExpired, ValueError) as e:
                doc["failed"].append(f"{' '.join(case)}: {e}")
                continue
            for port, r in got.items():
                doc["results"].setdefault("/".join((port,) + case), []).append(r)
        print(f"round {n + 1} of {a.rounds}", file=sys.stderr)
    report.write(doc, table(doc), a.json, a.markdown, BEGIN, END)
    return 1 if doc["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
