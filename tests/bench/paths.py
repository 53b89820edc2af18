#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""slirp-med's paths beside its peers: same run, same world, same origin, alternating; medians with minimum and maximum.

bench.py tcp [--bin FILE] [--rounds N] [--seconds S] [--only PEER,...] [--json FILE] [--markdown FILE]
bench.py crr [--bin FILE] [--rounds N] [--only PEER,...] [--json FILE] [--markdown FILE]

tcp is iperf3 with one stream, up and down at two MTUs; crr connects, sends 64 bytes, reads 64 and closes, again and again, and has SYNs refused.
Every peer is a way to run a command in a guest network whose traffic reaches the origin 203.0.113.20 in the internet
namespace: kernel forwarding over veth (the limit a user would name), slirp4netns, pasta, and slirp-med with --egress off,
with --egress guarded --egress-opaque, and with that over the kernel path. A peer that is not installed or does not work is
named in the output, never silently left out. In each column the origin's link has the guest's MTU, for every peer alike.
"""
import contextlib
import datetime
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading

import inside
import report

ORIGIN, DENIED, CLOSED_AT = "203.0.113.20", "10.0.0.5", "203.0.113.20"
IPERF, CRR = 5201, 6001
# Whoever closed a connection first keeps its source port for a minute, for each destination: with one port for all, 28,000 connections
# later the kernel searches milliseconds for a free one, in each path alike. Each peer's turn of each round has a port of its own.
CRR_PORTS = 400
INTERNET = ["nsenter", "--net=/run/netns/internet", "--"]
USER = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "--"]
MTUS = (1500, 65520)
CONNECTIONS = 2000


def sh(text):
    subprocess.run(["sh", "-ec", text], check=True, capture_output=True, text=True)


def out(argv, timeout=60):
    p = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if p.returncode:
        raise RuntimeError(f"exit {p.returncode}: {(p.stderr or p.stdout).strip()[-300:]}")
    return p.stdout


class Veth:
    name, note = "kernel veth, routed", "the kernel forwards from a guest namespace to the origin"

    def missing(self):
        return None

    @contextlib.contextmanager
    def guest(self, mtu):
        sh(f"""ip netns add bench
ip link add bv0 mtu {mtu} type veth peer name bv1 mtu {mtu} netns bench
ip addr add 192.0.2.1/24 dev bv0; ip link set bv0 up
nsenter --net=/run/netns/bench sh -ec 'ip addr add 192.0.2.2/24 dev bv1; ip link set bv1 up; ip link set lo up; ip route add default via 192.0.2.1'
echo 1 >/proc/sys/net/ipv4/ip_forward
nsenter --net=/run/netns/internet ip route replace 192.0.2.0/24 via 203.0.113.2""")
        try:
            yield lambda argv: out(["nsenter", "--net=/run/netns/bench", "--"] + argv)
        finally:
            sh("ip link del bv0; ip netns del bench; echo 0 >/proc/sys/net/ipv4/ip_forward")


class Slirp4netns:
    name, note = "slirp4netns", ""

    def missing(self):
        if not shutil.which("slirp4netns"):
            return "not installed: apt-get install slirp4netns"
        self.note = out(["slirp4netns", "--version"]).splitlines()[0]
        return None

    @contextlib.contextmanager
    def guest(self, mtu):
        sh("ip netns add bench; nsenter --net=/run/netns/bench ip link set lo up")
        r, w = os.pipe()
        p = subprocess.Popen(["slirp4netns", "--configure", f"--mtu={mtu}", f"--ready-fd={w}", "--netns-type=path", "/run/netns/bench", "tap0"],
                             pass_fds=[w], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        os.close(w)
        try:
            if not os.read(r, 1):
                raise RuntimeError(p.communicate()[1].decode()[-300:])
            def run(argv):
                return out(["nsenter", "--net=/run/netns/bench", "--"] + argv)
            run.pid = p.pid
            yield run
        finally:
            os.close(r)
            p.kill()
            p.wait()
            sh("ip netns del bench")


class Pasta:
    name, note = "pasta", ""

    def missing(self):
        if not shutil.which("pasta"):
            return "not installed: apt-get install passt"
        self.note = out(["pasta", "--version"]).splitlines()[0]
        return None

    @contextlib.contextmanager
    def guest(self, mtu):
        yield lambda argv: out(USER + ["pasta", "--config-net", "-q", "-t", "none", "-u", "none", "-T", "none", "-U", "none",
                                       "-m", str(mtu), "--"] + argv)


class SlirpMed:
    def __init__(self, binary, name, flags):
        self.bin, self.name, self.flags, self.note = binary, name, flags, " ".join(flags)

    def missing(self):
        if not self.bin or not os.access(self.bin, os.X_OK):
            return "not built: ./dev build, or --bin FILE"
        self.note = out([self.bin, "--version"]).splitlines()[0] + ", " + " ".join(self.flags)
        return None

    @contextlib.contextmanager
    def guest(self, mtu):
        yield lambda argv: out(USER + [self.bin, "run", "--mtu", str(mtu), *self.flags, "--", *argv])


def used(run):
    """(user, system) seconds of what has been waited for, and of a peer's process that still runs."""
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = r.ru_utime, r.ru_stime
    pid = getattr(run, "pid", None)
    if pid:
        with open(f"/proc/{pid}/stat") as f:
            x = f.read().rsplit(")", 1)[1].split()
        user, system = user + int(x[11]) / os.sysconf("SC_CLK_TCK"), system + int(x[12]) / os.sysconf("SC_CLK_TCK")
    return user, system


def tcp(run, seconds, up, mtu):
    """Gbit/s, and the path's own processor time (not the client's) in ns a KiB: in all, and in the kernel."""
    before = used(run)
    d = json.loads(run(["iperf3", "-J", "-c", ORIGIN, "-p", str(IPERF), "-t", str(seconds), "-O", "0.3"] + ([] if up else ["-R"])))
    if "error" in d:
        raise RuntimeError(d["error"])
    after, client, received = used(run), d["end"]["cpu_utilization_percent"], d["end"]["sum_received"]
    # iperf3's share is of all its time, the 0.3 s that its sum leaves out included; so are all bytes here.
    whole = received["seconds"] + 0.3
    kib = received["bytes"] * whole / received["seconds"] / 1024
    user = after[0] - before[0] - client["host_user"] / 100 * whole
    system = after[1] - before[1] - client["host_system"] / 100 * whole
    col = f"{'up' if up else 'down'} {mtu}"
    return {col: received["bits_per_second"] / 1e9, "cpu " + col: max(user + system, 0) * 1e9 / kib, "sys " + col: max(system, 0) * 1e9 / kib}


def crr_columns(peer, run, crr, ports):
    """(column, what gives its value or several) for one peer."""
    yield "crr", lambda: dict(zip(("crr p50", "crr p99"), map(float, run([crr, "crr", ORIGIN, str(next(ports)), str(CONNECTIONS)]).split())))
    if not isinstance(peer, SlirpMed) or "off" in peer.flags:
        yield "SYN un-held", lambda: float(run([crr, "refused", CLOSED_AT, "20000", "5000", "1"]))
    elif "tproxy" not in peer.flags:
        yield "SYN held", lambda: float(run([crr, "refused", DENIED, "2000", "20000", "0"]))
        yield "SYN un-held", lambda: float(run([crr, "refused", DENIED, "2000", "5000", "1"]))


def tcp_columns(mtu, run, seconds):
    for up in (True, False):
        yield f"{'up' if up else 'down'} {mtu}", lambda up=up: tcp(run, seconds, up, mtu)


def measure(what, peers, crr, rounds, seconds):
    """{peer: {column: [values]}} and {peer: why not}."""
    got, bad, ports = {p.name: {} for p in peers}, {}, itertools.cycle(range(CRR, CRR + CRR_PORTS))

    def put(peer, col, f):
        try:
            v = f()
        except (RuntimeError, subprocess.TimeoutExpired, ValueError, KeyError, OSError, subprocess.CalledProcessError) as e:
            bad.setdefault(peer.name, f"{col}: {e}")
            return
        for c, x in (v.items() if isinstance(v, dict) else [(col, v)]):
            got[peer.name].setdefault(c, []).append(x)
        print(f"  {peer.name}: {col}: {v}", file=sys.stderr)

    for r in range(rounds):
        for mtu in MTUS if what == "tcp" else MTUS[:1]:
            sh(f"ip link set up0 mtu {mtu}; nsenter --net=/run/netns/internet ip link set int0 mtu {mtu}")
            print(f"round {r + 1} of {rounds}, MTU {mtu}", file=sys.stderr)
            for peer in peers if r % 2 == 0 else peers[::-1]:
                try:
                    with peer.guest(mtu) as run:
                        for col, f in tcp_columns(mtu, run, seconds) if what == "tcp" else crr_columns(peer, run, crr, ports):
                            put(peer, col, f)
                except (RuntimeError, OSError, subprocess.CalledProcessError) as e:
                    bad.setdefault(peer.name, str(getattr(e, "stderr", None) or e))
    return got, bad


COLUMNS = {"tcp": [("up 1500", "TCP up, MTU 1500", "Gbit/s", 2), ("down 1500", "TCP down, MTU 1500", "Gbit/s", 2),
                   ("up 65520", "TCP up, MTU 65520", "Gbit/s", 2), ("down 65520", "TCP down, MTU 65520", "Gbit/s", 2)],
           "crr": [("crr p50", "connect-request-response p50", "us", 0), ("crr p99", "connect-request-response p99", "us", 0),
                   ("SYN held", "refused SYN, held", "us", 2), ("SYN un-held", "refused SYN, un-held", "us", 2)]}
OTHERS = (Slirp4netns.name, Pasta.name)
OURS = {"slirp-med guarded opaque": "through libslirp", "slirp-med kernel path": "kernel path"}


def ratio(mine, other):
    """The median of the ratios of the same round, where both were measured in each."""
    if len(mine) == len(other):
        return statistics.median(a / b for a, b in zip(mine, other))
    return statistics.median(mine) / statistics.median(other)


def spread(v, dec):
    return f"{statistics.median(v):.{dec}f}" + (f" ({min(v):.{dec}f} to {max(v):.{dec}f})" if len(v) > 1 else "")


def goals(what, got):
    """numbers.md's goals as rows of a table: each of our paths beside what it must reach."""
    rows = []
    for col, title, _, _ in COLUMNS[what][:4 if what == "tcp" else 1]:
        veth = got.get(Veth.name, {}).get(col)
        others = [got[p][col] for p in OTHERS if got.get(p, {}).get(col)]
        best = (max if what == "tcp" else min)(others, key=statistics.median, default=None)
        lines = [("at least 0.9 x kernel veth", veth, 0.9), ("above the best of slirp4netns and pasta", best, 1)]
        if what == "crr":
            lines = [("below the better of slirp4netns and pasta", best, 1), ("(x kernel veth)", veth, None)]
        for text, other, least in lines:
            cells = []
            for mine in (got.get(p, {}).get(col) for p in OURS):
                if not mine or not other:
                    cells += ["not measured", ""]
                    continue
                x = ratio(mine, other)
                met = None if least is None else x < 1 if what == "crr" else x >= least if least < 1 else x > 1
                cells += [f"{x:.2f} x", "" if met is None else "met" if met else "**missed**"]
            rows.append(f"| {title}: {text} | " + " | ".join(cells) + " |")
    return ["| goal | " + " | | ".join(OURS.values()) + " | |", "|---|" + "---|---|" * len(OURS), *rows]


def table(doc):
    got, base, what = doc["results"], Veth.name, doc["what"]
    lines = [f"Measured {doc['date']} on {doc['machine']}, load {doc['load']:.1f} at the start; {doc['rounds']} alternating rounds"
             + (f" of {doc['seconds']} s" if what == "tcp" else f" of {CONNECTIONS} connections")
             + "; median (min to max), then the median of the ratios to kernel veth in the same round.", ""]
    names = [p["name"] for p in doc["peers"] if p["name"] in got and got[p["name"]]]
    lines += ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, title, unit, dec in COLUMNS[what]:
        cells = []
        for n in names:
            v = got[n].get(key)
            if not v:
                cells.append("")
                continue
            b = got.get(base, {}).get(key)
            cells.append(spread(v, dec) + (f", x{ratio(v, b):.2f}" if b and n != base else ""))
        lines.append(f"| {title}, {unit} | " + " | ".join(cells) + " |")
    if what == "tcp":
        for key, title, _, _ in COLUMNS[what]:
            cells = [f"{statistics.median(got[n]['cpu ' + key]):.0f}, {statistics.median(got[n]['sys ' + key]):.0f}"
                     if got[n].get("cpu " + key) and n != base else ""
                     for n in names]
            lines.append(f"| the path's own time, {title[4:]}, ns a KiB; in the kernel | " + " | ".join(cells) + " |")
    lines += ["", *goals(what, got), ""]
    for p in doc["peers"]:
        if p["missing"]:
            lines.append(f"- {p['name']}: **not measured**: {p['missing']}")
        else:
            lines.append(f"- {p['name']}: {p['note']}" + (f"; **failed in part**: {doc['failed'][p['name']]}" if p["name"] in doc["failed"] else ""))
    if what == "tcp":
        lines += ["", "The path's own time is the processor time of all processes of the peer, without the client's and the origin's, "
                  "its start and end included; what the "
                  "kernel does for others in a softirq that interrupts them is in it, and veth's, which is nobody's, is not shown."]
    else:
        lines += ["", "A refused SYN is timed from the guest with 64 in flight: for slirp-med a denied inside address (held: the front repeats one "
                  "verdict; "
                  "un-held: each destination port asks the core); for the others a closed port of the origin, which is what a refusal costs there. "
                  "On the kernel path a guest's handshake is done before the refusal, so there is no refused SYN."]
    return "\n".join(lines) + "\n"


def inner(a):
    load, crr = os.getloadavg()[0], inside.make("crr")
    peers = [Veth(), Slirp4netns(), Pasta(), SlirpMed(a.bin, "slirp-med off", ["--egress", "off"]),
             SlirpMed(a.bin, "slirp-med guarded opaque", ["--egress", "guarded", "--egress-opaque"]),
             SlirpMed(a.bin, "slirp-med kernel path", ["--datapath", "tproxy", "--egress", "guarded", "--egress-opaque"])]
    if a.only:
        peers = [p for p in peers if any(o in p.name for o in a.only.split(","))]
    missing = {p.name: p.missing() for p in peers}
    inside.keep_state()
    inside.hush()
    iperf = subprocess.Popen(INTERNET + ["iperf3", "-s", "-B", ORIGIN, "-p", str(IPERF), "--forceflush"],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while b"listening" not in (line := iperf.stdout.readline()):
            if not line:
                sys.exit("bench: iperf3 server did not start: apt-get install iperf3")
        # Nobody reads the server's report from here on; a pipe that fills would stop it.
        threading.Thread(target=iperf.stdout.read, daemon=True).start()
        with inside.served(INTERNET + [crr, "serve", ORIGIN, str(CRR), str(CRR_PORTS)]):
            got, bad = measure(a.what, [p for p in peers if not missing[p.name]], crr, a.rounds, a.seconds)
    finally:
        iperf.kill()
    doc = {"what": a.what, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "machine": report.machine(),
           "load": load, "rounds": a.rounds, "seconds": a.seconds, "results": got, "failed": bad,
           "peers": [{"name": p.name, "note": p.note, "missing": missing[p.name]} for p in peers]}
    print(json.dumps(doc))


def main(argv, what):
    ap = inside.options(what, __doc__, rounds=3, needs_bin=False)
    if what == "tcp":
        ap.add_argument("--seconds", type=lambda t: max(1, round(float(t))), default=2)
    else:
        ap.set_defaults(seconds=None)
    ap.add_argument("--only", help="peers whose name contains one of these, comma separated")
    ap.set_defaults(what=what)
    return inside.run(ap.parse_args(argv), what, inner, table, "seconds", "only")
