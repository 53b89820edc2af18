#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""UDP: datagrams a second from a guest to an origin and back, every peer in the same run.

bench.py udp [--bin FILE] [--rounds N] [--seconds S] [--size BYTES] [--only PEER,...] [--json FILE] [--markdown FILE]

A sender that is faster than the path spends the processors' time on datagrams that are dropped, and a slow path looks slower than it is. So each
round offers several rates, and what counts is the rate that arrived; of each round the best is kept, with what was lost of it. The sender and the
receiver are udp.c, the same for all. A sender gives its kernel 32 datagrams at a time, plain (each then goes through that kernel's stack by itself,
which is often what limits the rate) or to be cut there (UDP_SEGMENT), as a QUIC server does.
"""
import datetime
import json
import os
import statistics
import subprocess
import sys

import inside
import paths
import report

PORT, GOAL = 5203, 200_000
RATES = (120_000, 210_000, 350_000, 0)  # offered; 0: as fast as may be
WAYS = {"up plain": "guest to origin", "down plain": "origin to guest", "up cut": "guest to origin, cut by the sender's kernel",
        "down cut": "origin to guest, cut by the sender's kernel"}


def best(run, tool, way, size, ms, rates):
    """(datagrams a second, lost of 1) of the offered rate at which most arrived."""
    got = []
    for rate in rates:
        sent, received, seconds = run([tool, way.split()[0], paths.ORIGIN, str(PORT), str(size), str(ms), str(rate), way.split()[1]]).split()
        # Over the time in which they were sent, or longer where they came later: a burst that got through alone is no rate.
        got.append((int(received) / max(float(seconds), ms / 1000), 1 - int(received) / max(1, int(sent)), rate))
        if received == "0":
            raise RuntimeError("nothing arrived")
    return max(got)


def measure(peers, tool, a):
    got, bad = {p.name: {} for p in peers}, {}
    for r in range(a.rounds):
        for peer in peers if r % 2 == 0 else peers[::-1]:
            for way in WAYS:
                try:
                    with peer.guest(1500) as run:
                        v = best(run, tool, way, a.size, round(a.seconds * 1000), a.rates)
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired, subprocess.CalledProcessError) as e:
                    bad.setdefault(peer.name, f"{way}: {getattr(e, 'stderr', None) or e}")
                    continue
                got[peer.name].setdefault(way, []).append(v)
                print(f"  round {r + 1} of {a.rounds}: {peer.name}: {way}: {v[0]:.0f}/s of {v[2] or 'all that is possible'} offered, {v[1]:.1%} lost",
                      file=sys.stderr)
    return got, bad


def table(doc):
    got = doc["results"]
    out = [f"{doc['date']}, {doc['machine']}, load {doc['load']:.1f} at the start; {doc['rounds']} alternating rounds; "
           f"datagrams of {doc['size']} bytes a "
           "second that arrived, median (least to most), then how many of those offered were lost.", "",
           "| path | " + " | ".join(WAYS.values()) + " |", "|---|" + "---|" * len(WAYS)]
    for p in doc["peers"]:
        if p["missing"]:
            out.append(f"| {p['name']} | not measured: {p['missing']} |" + " |" * (len(WAYS) - 1))
            continue
        cells = []
        for way in WAYS:
            v = got[p["name"]].get(way)
            cells.append(f"{statistics.median(x[0] for x in v):,.0f} ({min(x[0] for x in v):,.0f} to {max(x[0] for x in v):,.0f}), "
                         f"{statistics.median(x[1] for x in v):.0%} lost" if v else f"failed: {doc['failed'].get(p['name'])}")
        out.append(f"| {p['name']} | {' | '.join(cells)} |")
    out += ["", "| goal | measured | |", "|---|---|---|"]
    ours, pasta = got.get("slirp-med", {}), got.get("pasta", {})
    for way, words in WAYS.items():
        if not ours.get(way):
            continue
        rate = statistics.median(x[0] for x in ours[way])
        if doc["size"] == 1400:
            out.append(f"| {words}: at least {GOAL:,} datagrams/s | {rate:,.0f} | {'met' if rate >= GOAL else 'missed'} |")
        if pasta.get(way):
            other = statistics.median(x[0] for x in pasta[way])
            out.append(f"| {words}: above pasta | {rate:,.0f} to {other:,.0f} | {'met' if rate > other else 'missed'} |")
    return "\n".join(out) + "\n"


def inner(a):
    tool = inside.make("udp")
    inside.keep_state()
    flags = ["--egress", "guarded", "--egress-opaque"]
    peers = [paths.Veth(), paths.Slirp4netns(), paths.Pasta(), paths.SlirpMed(a.bin, "slirp-med", flags),
             paths.SlirpMed(a.bin, "slirp-med, kernel path", ["--datapath", "tproxy", *flags])]
    if a.only:
        peers = [p for p in peers if p.name in a.only.split(",")]
    missing = {p.name: p.missing() for p in peers}
    doc = {"date": datetime.date.today().isoformat(), "machine": report.machine(),
           "load": os.getloadavg()[0], "rounds": a.rounds, "size": a.size,
           "peers": [{"name": p.name, "note": p.note, "missing": missing[p.name]} for p in peers]}
    with inside.served(paths.INTERNET + [tool, "serve", paths.ORIGIN, str(PORT)]):
        doc["results"], doc["failed"] = measure([p for p in peers if not missing[p.name]], tool, a)
    print(json.dumps(doc))
    return 0


def main(argv=None):
    ap = inside.options("udp", __doc__, rounds=5)
    ap.add_argument("--seconds", type=float, default=1, help="how long each rate is offered")
    ap.add_argument("--size", type=int, default=1400)
    ap.add_argument("--rates", type=lambda t: [int(x) for x in t.split(",")], default=list(RATES))
    ap.add_argument("--only", help="these peers, comma separated")
    return inside.run(ap.parse_args(argv), "udp", inner, table, "seconds", "size", "rates", "only")
