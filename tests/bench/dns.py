#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""DNS: answers a second without a cache, beside dnsmasq as a plain forwarder: same zone, same server behind, same client, same run.

bench.py dns [--bin FILE] [--rounds N] [--seconds S] [--only WAY,...] [--json FILE] [--markdown FILE]

The client is dnsperf in a guest's network namespace, with 100 questions on their way; over UDP from four sockets, over TCP from four connections.
Each question is another name, so that nobody's cache answers. The client over TCP is measured beside itself over UDP. dnsmasq stands in the namespace
behind the guest's veth, as a router's would, with its cache off. slirp-med has its DNS budget off, judges each name, records a question before it
leaves and its answer before the guest has it; dnsmasq does neither. "straight" is the client at the server itself.
"""
import contextlib
import datetime
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys

import inside
import paths
import report

PORT, NAMES = 5204, 20000
ROUTER = "192.0.2.1"  # what paths.Veth gives to our end
WAYS = ("UDP", "TCP")
GUARDED = ["--egress", "guarded", "--egress-dns-qps", "0", "--dns", f"{paths.ORIGIN}:{PORT}"]


class Straight(paths.Veth):
    name, note, server, port = "straight to the server", "kernel veth, routed; no TCP: the server has none", paths.ORIGIN, PORT
    ways = ("UDP",)


class Dnsmasq(paths.Veth):
    name, note, server, port = "dnsmasq", "", ROUTER, 5205
    ways = ("UDP",)  # over TCP it asks over TCP, which the server does not serve

    def missing(self):
        if not shutil.which("dnsmasq"):
            return "not installed: apt-get install dnsmasq-base"
        self.note = " ".join(paths.out(["dnsmasq", "--version"]).split()[:3]) + ", cache off, kernel veth to the guest"
        return None

    @contextlib.contextmanager
    def guest(self, mtu):
        with super().guest(mtu) as run:
            p = subprocess.Popen([*paths.USER, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                                  "--cache-size=0", "--pid-file=", f"--server={paths.ORIGIN}#{PORT}", f"--listen-address={ROUTER}",
                                  "--bind-interfaces", f"--port={self.port}",
                                  "--dns-forward-max=1000", "--log-facility=-"], stderr=subprocess.PIPE, text=True)
            try:
                last = ""
                while "using nameserver" not in (line := p.stderr.readline()):
                    last = line or last
                    if not line:
                        raise RuntimeError(f"dnsmasq did not start: {last}")
                yield run
            finally:
                p.kill()
                p.wait()


class SlirpMed(paths.SlirpMed):
    server, port, ways = None, 53, WAYS


def cpu_s():
    """Of all processes that have been waited for."""
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime + u.ru_stime


def ask(run, peer, way, names, seconds):
    """(answers a second, lost of 1, answers)."""
    flags = ["-m", way.lower(), "-p", str(peer.port), "-d", names, "-l", str(max(1, round(seconds))), "-c", "4", "-q", "100", "-t", "2"]
    server = peer.server or "$(sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1)"
    text = run(["sh", "-c", f"dnsperf -s {server} {' '.join(flags)}"])
    got = {k: float(v) for k, v in re.findall(r"^\s+(Queries (?:sent|completed|per second)):\s+([0-9.]+)", text, re.M)}
    codes = re.search(r"Response codes:\s+(.*)", text)
    if not got.get("Queries completed") or not codes or not codes[1].startswith("NOERROR") or "100.00%" not in codes[1]:
        raise RuntimeError(f"not all of it was answered: {text[-400:]}")
    return got["Queries per second"], 1 - got["Queries completed"] / got["Queries sent"], got["Queries completed"]


def measure(peers, names, a):
    got, bad = {p.name: {} for p in peers}, {}
    for r in range(a.rounds):
        for peer in peers if r % 2 == 0 else peers[::-1]:
            for way in peer.ways:
                before = cpu_s()
                try:
                    with peer.guest(1500) as run:
                        v = ask(run, peer, way, names, a.seconds)
                    v = (*v[:2], (cpu_s() - before) / v[2] * 1e6)
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired, subprocess.CalledProcessError) as e:
                    bad.setdefault(peer.name, f"{way}: {getattr(e, 'stderr', None) or e}")
                    continue
                got[peer.name].setdefault(way, []).append(v)
                print(f"  round {r + 1} of {a.rounds}: {peer.name}: {way}: {v[0]:.0f}/s, {v[1]:.2%} lost, {v[2]:.1f} us of processor time each",
                      file=sys.stderr)
    return got, bad


def table(doc):
    got = doc["results"]
    out = [f"{doc['date']}, {doc['machine']}, load {doc['load']:.1f} at the start; {doc['rounds']} alternating rounds of {doc['seconds']} s; "
           "answers a second, median (least to most), then how many questions had none, and the processor time that forwarder and client used for "
           "each answer.", "", "| path | over UDP | over TCP |", "|---|---|---|"]
    for p in doc["peers"]:
        if p["missing"]:
            out.append(f"| {p['name']} | not measured: {p['missing']} | |")
            continue
        cells = []
        for way in WAYS:
            v = got[p["name"]].get(way)
            why = doc["failed"].get(p["name"])
            cells.append(f"{statistics.median(x[0] for x in v):,.0f} ({min(x[0] for x in v):,.0f} to {max(x[0] for x in v):,.0f}), "
                         f"{statistics.median(x[1] for x in v):.1%}, {statistics.median(x[2] for x in v):.0f} us"
                         if v else f"failed: {why}" if why else "")
        out.append(f"| {p['name']} | {cells[0]} | {cells[1]} |")
    out += [""] + [f"- {p['name']}: {p['note']}" for p in doc["peers"] if not p["missing"]]
    ours, other = got.get("slirp-med guarded", {}), got.get("dnsmasq", {})
    out += ["", "| goal | measured | |", "|---|---|---|"]
    rate = {(who, way): statistics.median(x[0] for x in v[way]) for who, v in (("ours", ours), ("dnsmasq", other)) for way in WAYS[:1] if v.get(way)}
    if ("ours", "UDP") in rate and ("dnsmasq", "UDP") in rate:
        a, b = rate["ours", "UDP"], rate["dnsmasq", "UDP"]
        out.append(f"| at least as many answers a second as dnsmasq | {a:,.0f} to {b:,.0f} | {'met' if a >= b else 'missed'} |")
    return "\n".join(out) + "\n"


def inner(a):
    tool, names = inside.make("dns"), os.path.join(os.environ["SM_WORLD_DIR"], "names")
    with open(names, "w") as f:
        f.writelines(f"n{i}.bench.test A\n" for i in range(NAMES))
    inside.keep_state()
    peers = [Straight(), Dnsmasq(), SlirpMed(a.bin, "slirp-med guarded", GUARDED),
             SlirpMed(a.bin, "slirp-med kernel path", ["--datapath", "tproxy", *GUARDED])]
    if a.only:
        peers = [p for p in peers if p.name in a.only.split(",")]
    missing = {p.name: "not installed: apt-get install dnsperf" if not shutil.which("dnsperf") else p.missing() for p in peers}
    doc = {"date": datetime.date.today().isoformat(), "machine": report.machine(), "load": os.getloadavg()[0],
           "rounds": a.rounds, "seconds": a.seconds, "peers": [{"name": p.name, "note": p.note, "missing": missing[p.name]} for p in peers]}
    with inside.served(paths.INTERNET + [tool, "serve", paths.ORIGIN, str(PORT)]):
        doc["results"], doc["failed"] = measure([p for p in peers if not missing[p.name]], names, a)
    print(json.dumps(doc))
    return 0


def main(argv=None):
    ap = inside.options("dns", __doc__, rounds=5)
    ap.add_argument("--seconds", type=float, default=3)
    ap.add_argument("--only", help="these ways, comma separated")
    return inside.run(ap.parse_args(argv), "dns", inner, table, "seconds", "only")
