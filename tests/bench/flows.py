#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Many flows in one workspace: memory of each, time of a new one beside few and many, what an idle table costs, and the end of all.

bench.py flows [--bin FILE] [--tools FOLDER] [--rounds N] [--flows N] [--only WAY,...] [--json FILE] [--markdown FILE]

The guest is `slirp-med run` with flows.c, which opens flows to the origin and times new ones, each with 64 bytes and back, while few (10) and
while many are open; few and many take turns within a workspace, and so do the ways. Memory is what no other process has (USS: Private_* of
smaps_rollup) of all of our processes, without the guest's: the difference between many and few, by their number. Processor time is from schedstat, of
all of our processes: that of a new flow, and in a second while nobody does anything. The close is over when the origin has seen the
end of each. Where the machine's limit of open files is too low for the number of flows (two in one process for a UDP or an intercepted flow, and on
the kernel path) there are as many as fit, and the table says so. Refused SYNs, and new connections once more without the noise of a machine, are
counted in process, by bench_syn (syn.c).
"""
import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import inside
import life
import report

ORIGIN, PORT = "203.0.113.20", 5210
INTERNET = ["nsenter", "--net=/run/netns/internet", "--"]
FEW, IDLE_SECONDS, FDS_RESERVED = 10, 5, 400
INTERCEPTED = 2000  # enough to divide by; nginx on the same machine holds as many TLS connections
# way: protocol, descriptors of the core or of the front for each, whichever has more, flags
WAYS = {"TCP opaque": ("tcp", 1, ["--egress-opaque"]), "TCP off": ("tcp", 1, ["--egress", "off"]), "UDP opaque": ("udp", 2, ["--egress-opaque"]),
        "TCP opaque by the kernel path": ("tcp", 2, ["--datapath", "tproxy", "--egress-opaque"])}
PROBED = ("p50", "p99", "cpu")
TURNS = 3  # few and many; a UDP flow outlasts its socket, so of those there is one
SETTLE_S = 3  # delayed ACKs, retransmission timers and the turn that frees memory


def cpu_ns(pid):
    with open(f"/proc/{pid}/schedstat") as f:
        return int(f.read().split()[0])


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Workspace:
    """`run` with a guest program that takes lines; the pids that are ours."""

    def __init__(self, binary, flags, argv):
        self.p = subprocess.Popen([*life.USER, binary, "run", *flags, "--", *argv],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True)
        self.line()
        self.pids = [p for p in (self.p.pid, *life.children(self.p.pid)) if life.ours(p)]

    def line(self):
        text = self.p.stdout.readline()
        if not text:
            raise RuntimeError(self.p.stderr.read().strip()[-300:] or "the guest ended")
        return text.split()

    def ask(self, text):
        self.p.stdin.write(text + "\n")
        self.p.stdin.flush()
        return [float(x) for x in self.line()]

    def kib(self):
        return {os.path.basename(open(f"/proc/{p}/comm").read().strip()) + f" {p}": life.private_kib(p) for p in self.pids}

    def probe(self, n):
        """(p50, p99, processor time of ours for one) in us."""
        before = sum(map(cpu_ns, self.pids))
        p50, p99 = self.ask(f"probe {n}")
        return p50, p99, (sum(map(cpu_ns, self.pids)) - before) / 1e3 / n

    def idle_us(self):
        before = sum(map(cpu_ns, self.pids))
        time.sleep(IDLE_SECONDS)  # the time in which nothing happens is what is measured
        return (sum(map(cpu_ns, self.pids)) - before) / 1e3 / IDLE_SECONDS

    def end(self):
        self.p.stdin.close()
        try:
            self.p.wait(30)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()


def measure(a, tool, way, server):
    proto, fds, flags = WAYS[way]
    n = min(a.flows, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - FDS_RESERVED) // fds - 3 * (a.probes + 20) * (proto == "udp"))
    w = Workspace(a.bin, flags, [tool, proto, ORIGIN, str(PORT)])
    got = {"n": n, **{f"{beside} {what}": [] for beside in ("few", "many") for what in PROBED}}

    def probe(beside):
        for what, value in zip(PROBED, w.probe(a.probes)):
            got[f"{beside} {what}"].append(value)

    try:
        w.ask(f"open {FEW}")
        w.ask(f"probe {a.probes}")
        time.sleep(SETTLE_S)
        few, base = w.kib(), open_files(server)
        got["idle few"] = w.idle_us()
        for i in range(1 if proto == "udp" else TURNS):
            probe("few")
            t = w.ask(f"open {n}")[0]
            if i == 0:
                got["open ms"] = t
                time.sleep(SETTLE_S)
                many = w.kib()
                got["processes"] = {k.split()[0]: (many[k] - few[k]) / (n - FEW) for k in few}
                got["kib"] = (sum(many.values()) - sum(few.values())) / (n - FEW)
                got["idle many"] = w.idle_us()
            probe("many")
            if proto == "udp":
                break
            begin = time.monotonic()
            w.ask(f"close {FEW}")
            while open_files(server) > base:
                if time.monotonic() - begin > 60:
                    raise RuntimeError("flows that were closed stay")
                time.sleep(0.005)  # a table of descriptors has no event for us
            got.setdefault("close ms", (time.monotonic() - begin) * 1e3)
    finally:
        w.end()
    print(f"  {way}: {got}", file=sys.stderr)
    return got


def intercepted(a):
    """KiB of an idle intercepted connection, through the whole of `run`."""
    import mitm
    env = mitm.Env(argparse.Namespace(bin=a.bin, tools=a.tools, seconds=1))
    procs = mitm.origins(env)
    try:
        n = min(INTERCEPTED, a.flows)
        script = f'exec {env.tls} idle {mitm.ORIGIN["tickets"]}:443 {mitm.NAME} "$SSL_CERT_FILE" {{}}'
        total = []
        for count in (FEW, n):
            w = Workspace(a.bin, ["--egress-ca-file", env.ca], ["sh", "-c", script.format(count)])
            try:
                time.sleep(SETTLE_S)
                total.append(w.kib())
            finally:
                w.end()
        return {"n": n, "kib": (sum(total[1].values()) - sum(total[0].values())) / (n - FEW)}
    finally:
        for p in procs:
            mitm.end(p)


def spread(v, dec=0):
    return f"{statistics.median(v):.{dec}f}" + (f" ({min(v):.{dec}f} to {max(v):.{dec}f})" if len(v) > 1 else "") if v else ""


def many_of(runs, key):
    return [x for r in runs for x in (r[key] if isinstance(r[key], list) else [r[key]])] if runs else []


def table(doc):
    out = [f"{doc['date']}, {doc['machine']}, load {doc['load']:.1f} at the start; {doc['rounds']} rounds, {doc['probes']} new flows each; "
           "median (least to most).", "",
           "| way | flows | one more beside 10: p50, p99; processor, us | beside all of them | memory of a flow, KiB | "
           "idle, us of a processor in a second: "
           "10, all | all opened, ms | all closed, ms |", "|---|---|---|---|---|---|---|---|"]
    goals = []
    for way, runs in doc["results"].items():
        if not runs:
            continue
        cells = ["{}, {}; {}".format(*(spread(many_of(runs, f"{beside} {what}")) for what in PROBED)) for beside in ("few", "many")]
        kib = many_of(runs, "kib")
        out.append(f"| {way} | {runs[0]['n']} | {cells[0]} | {cells[1]} | {spread(kib, 2)} | {spread(many_of(runs, 'idle few'))}, "
                   f"{spread(many_of(runs, 'idle many'))} | {spread(many_of(runs, 'open ms'))} | "
                   f"{spread(many_of([r for r in runs if 'close ms' in r], 'close ms'))} |")
        ratio = statistics.median(many_of(runs, "many p99")) / statistics.median(many_of(runs, "few p99"))
        work = statistics.median(many_of(runs, "many cpu")) / statistics.median(many_of(runs, "few cpu"))
        goals.append((f"{way}: p99 of a new flow beside {runs[0]['n']} is at most 2 x that beside 10",
                      f"{ratio:.2f} x (processor time {work:.2f} x)", ratio <= 2))
        if way == "TCP opaque":
            goals.append(("memory of an idle opaque connection at most 16 KiB", f"{statistics.median(kib):.1f} KiB", statistics.median(kib) <= 16))
    if doc.get("intercepted"):
        kib = [r["kib"] for r in doc["intercepted"]]
        goals.append((f"memory of an idle intercepted connection at most 64 KiB ({doc['intercepted'][0]['n']} of them)", f"{spread(kib, 1)} KiB",
                      statistics.median(kib) <= 64))
    for s in doc.get("syn", []):
        if s.get("held"):
            goals.append(("1,000,000 refused SYNs in a second under a held refusal, in process", f"{s['rate'] / 1e6:.2f} million", s["rate"] >= 1e6))
            goals.append(("... and no memory grows", f"{s['grown_kib']} KiB", s["grown_kib"] <= 64))
    for way, why in doc["failed"].items():
        out.append(f"| {way} | failed: {why} | | | | | | |")
    for s in doc.get("syn", []):
        if s.get("held") is False:
            out += ["", f"Un-held, each SYN asked of a core that answers at once: {s['rate'] / 1e3:.0f} thousand in a second in process "
                    "(the front's part of it)."]
    beside = [s for s in doc.get("syn", []) if "beside" in s]
    if beside:
        out += ["", "In process, the front alone, processor time of a connection from SYN to RST with 64 bytes each way: " +
                ", ".join(f"{s['us']:.1f} us beside {s['beside']} others" for s in beside) + "."]
    out += ["", "| goal | measured | |", "|---|---|---|"] + [f"| {g} | {v} | {'met' if ok else '**missed**'} |" for g, v, ok in goals]
    return "\n".join(out) + "\n"


def inner(a):
    tool = inside.make("flows")
    inside.keep_state()
    ways = [w for w in WAYS if not a.only or any(o in w for o in a.only.split(","))]
    doc = {"date": datetime.date.today().isoformat(), "machine": report.machine(),
           "load": os.getloadavg()[0], "rounds": a.rounds, "probes": a.probes, "results": {w: [] for w in ways},
           "failed": {}, "intercepted": [], "syn": []}
    inside.hush()
    with inside.served(INTERNET + [tool, "serve", ORIGIN, str(PORT)]) as server:
        for _ in range(a.rounds):
            for way in ways:
                try:
                    if way not in doc["failed"]:
                        doc["results"][way].append(measure(a, tool, way, server.pid))
                except (RuntimeError, OSError, ValueError) as e:
                    doc["failed"][way] = str(e)
    if not a.only or "intercepted" in a.only.split(","):
        try:
            doc["intercepted"].append(intercepted(a))
        except (RuntimeError, OSError, ValueError) as e:
            doc["failed"]["TCP intercepted"] = str(e)
    if not a.only or "syn" in a.only.split(","):
        for words in (["held"], ["unheld"], ["beside", str(FEW), "4000"], ["beside", "9000", "4000"]):
            p = subprocess.run([os.path.join(a.tools, "bench_syn"), *words], check=True, stdout=subprocess.PIPE, text=True)
            doc["syn"].append(json.loads(p.stdout))
    print(json.dumps(doc))
    return 0


def main(argv=None):
    ap = inside.options("flows", __doc__, rounds=3)
    ap.add_argument("--tools", help="where bench_tls and bench_syn are (default: beside the binary's build)")
    ap.add_argument("--flows", type=int, default=10000)
    ap.add_argument("--probes", type=int, default=500)
    ap.add_argument("--only", help="ways whose name contains one of these, intercepted, syn; comma separated")
    a = ap.parse_args(argv)
    inside.find_tools(ap, a)
    return inside.run(a, "flows", inner, table, "tools", "flows", "probes", "only")
