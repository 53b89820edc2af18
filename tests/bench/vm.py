#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a workspace adds to the start of a virtual machine: from the start of `slirp-med vm` to the exec of the VMM.

bench.py vm [--bin FILE] [--tools FOLDER] [--rounds N] [--json FILE] [--markdown FILE]

In the VMM's place stands a program that says when it was executed (stamp.c). The same program is started alone, in turns with each way of `vm`,
and the difference of the medians is what is added to a guest's boot, and so to its first byte: once the VMM runs, core and front have long been
ready. Nothing is sent anywhere, and no guest boots.
"""
import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time

import report

BEGIN, END = "<!-- bench vm: begin -->", "<!-- bench vm: end -->"
GOAL_MS = 20
WAYS = {
    "the VMM alone": None,
    "vm --port stream": ["--port", "stream"],
    "vm --port vhost-user": ["--port", "vhost-user"],
    "vm --egress-opaque (no CA)": ["--egress-opaque"],
    "vm --network isolated": ["--network", "isolated"],
}


def once(way, a, tool, state):
    argv = [tool] if way is None else [a.bin, "vm", "--name", "bench", "--state-dir", state, "--qemu", tool, "--kernel", tool, *way]
    begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if p.returncode:
        raise RuntimeError(f"exit status {p.returncode}: {p.stderr.strip()[-300:]}")
    return (int(p.stdout.split()[-1]) - begin) / 1e6


def table(doc):
    alone = statistics.median(doc["results"]["the VMM alone"])
    out = [f"{doc['date']}, {doc['machine']}, load {doc['load']:.1f} at the start; {doc['rounds']} rounds; ms from start to exec of the VMM.", "",
           "| way | median (least to most) | added, median | added, least |", "|---|---|---|---|"]
    for way, got in doc["results"].items():
        m, least = statistics.median(got), min(got) - min(doc["results"]["the VMM alone"])
        added = "" if way == "the VMM alone" else f"{m - alone:.1f}"
        out.append(f"| {way} | {m:.1f} ({min(got):.1f} to {max(got):.1f}) | {added} | {f'{least:.1f}' if added else ''} |")
    worst = max(statistics.median(doc["results"][w]) - alone for w in ("vm --port stream", "vm --port vhost-user"))
    out += ["", "| goal | measured | |", "|---|---|---|",
            f"| a workspace adds at most {GOAL_MS} ms to a guest's first byte | {worst:.1f} ms | {'met' if worst <= GOAL_MS else 'missed'} |", ""]
    return "\n".join(out) + "\n"


def main(argv=None):
    ap = argparse.ArgumentParser(prog="bench.py vm", description=__doc__.splitlines()[0])
    ap.add_argument("--bin", default=os.environ.get("SLIRP_MED_BIN"), required=not os.environ.get("SLIRP_MED_BIN"))
    ap.add_argument("--tools", help="where bench_stamp is (default: beside the binary's build)")
    ap.add_argument("--rounds", type=int, default=30)
    ap.add_argument("--json", help="write the raw figures here")
    ap.add_argument("--markdown", help="write the table here; in a file with the two marker lines, between them")
    a = ap.parse_args(argv)
    tool = os.path.realpath(os.path.join(a.tools or os.path.join(os.path.dirname(a.bin), "..", "tests", "bench"), "bench_stamp"))
    if not os.access(tool, os.X_OK):
        ap.error(f"there is no {tool}: ninja -C BUILD tests/bench/bench_stamp")
    doc = {"date": datetime.date.today().isoformat(), "machine": report.machine(),
           "load": os.getloadavg()[0], "rounds": a.rounds, "results": {w: [] for w in WAYS}}
    with tempfile.TemporaryDirectory(prefix="sm-bench-vm.") as state:
        for _ in range(a.rounds):
            for name, way in WAYS.items():
                doc["results"][name].append(once(way, a, tool, state))
    report.write(doc, table(doc), a.json, a.markdown, BEGIN, END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
