#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""slirp-med beside its peers: same run, same world, same origin, alternating; medians with minimum and maximum.

bench.py [--bin FILE] [--rounds N] [--seconds S] [--only PEER,...] [--json FILE] [--markdown FILE]
bench.py mitm ...: TLS interception, see mitm.py
bench.py cred ...: credential swap, see cred.py
bench.py vhost ...: frames over vhost-user and over a stream, see vhost.py
bench.py vm ...: what a workspace adds to the start of a virtual machine, see vm.py
bench.py life ...: a workspace from create to stop, and many at once, see life.py

Every peer is a way to run a command in a guest network whose traffic reaches the origin 203.0.113.20 in the internet
namespace: kernel forwarding over veth (the limit a user would name), slirp4netns, pasta, and slirp-med with --egress off
and with --egress guarded --egress-opaque. A peer that is not installed or does not work is named in the output, never
silently left out. In each column the origin's link has the guest's MTU, for every peer alike.
"""
import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys

import report

HERE = os.path.dirname(os.path.realpath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
ORIGIN, DENIED, CLOSED_AT = "203.0.113.20", "10.0.0.5", "203.0.113.20"
IPERF, CRR = 5201, 5202
INTERNET = ["nsenter", "--net=/run/netns/internet", "--"]
USER = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "--"]
MTUS = (1500, 65520)
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


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
            yield lambda argv: out(["nsenter", "--net=/run/netns/bench", "--"] + argv)
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


def tcp(run, seconds, reverse):
    d = json.loads(run(["iperf3", "-J", "-c", ORIGIN, "-p", str(IPERF), "-t", str(seconds), "-O", "0.3"] + (["-R"] if reverse else [])))
    if "error" in d:
        raise RuntimeError(d["error"])
    return d["end"]["sum_received"]["bits_per_second"] / 1e9


def measure(peers, crr, rounds, seconds):
    """{peer: {column: [values]}} and {peer: why not}."""
    got, bad = {p.name: {} for p in peers}, {}

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
        for mtu in MTUS:
            sh(f"ip link set up0 mtu {mtu}; nsenter --net=/run/netns/internet ip link set int0 mtu {mtu}")
            print(f"round {r + 1} of {rounds}, MTU {mtu}", file=sys.stderr)
            for peer in peers if r % 2 == 0 else peers[::-1]:
                try:
                    with peer.guest(mtu) as run:
                        for up in (True, False):
                            put(peer, f"{'up' if up else 'down'} {mtu}", lambda: tcp(run, seconds, not up))
                        if mtu == 1500:
                            put(peer, "crr", lambda: dict(zip(("crr p50", "crr p99"), map(float, run([crr, "crr", ORIGIN, str(CRR), "2000"]).split()))))
                            if isinstance(peer, SlirpMed) and "off" not in peer.flags:
                                put(peer, "SYN held", lambda: float(run([crr, "refused", DENIED, "2000", "20000", "0"])))
                                put(peer, "SYN un-held", lambda: float(run([crr, "refused", DENIED, "2000", "5000", "1"])))
                            else:
                                put(peer, "SYN un-held", lambda: float(run([crr, "refused", CLOSED_AT, "20000", "5000", "1"])))
                except (RuntimeError, OSError, subprocess.CalledProcessError) as e:
                    bad.setdefault(peer.name, str(getattr(e, "stderr", None) or e))
    return got, bad


COLUMNS = [("up 1500", "TCP up, MTU 1500", "Gbit/s", 2), ("down 1500", "TCP down, MTU 1500", "Gbit/s", 2), ("up 65520", "TCP up, MTU 65520", "Gbit/s", 2),
           ("down 65520", "TCP down, MTU 65520", "Gbit/s", 2), ("crr p50", "connect-request-response p50", "us", 0),
           ("crr p99", "connect-request-response p99", "us", 0), ("SYN held", "refused SYN, held", "us", 2), ("SYN un-held", "refused SYN, un-held", "us", 2)]


def table(doc):
    got, base = doc["results"], Veth.name
    lines = [f"Measured {doc['date']} on {doc['machine']}; {doc['rounds']} alternating rounds of {doc['seconds']} s; median (min to max), "
             "then the ratio to kernel veth in the same run.", ""]
    names = [p["name"] for p in doc["peers"] if p["name"] in got and got[p["name"]]]
    lines += ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, title, unit, dec in COLUMNS:
        cells = []
        for n in names:
            v = got[n].get(key)
            if not v:
                cells.append("")
                continue
            m = statistics.median(v)
            b = got.get(base, {}).get(key)
            ratio = f", x{m / statistics.median(b):.2f}" if b and n != base else ""
            cells.append(f"{m:.{dec}f} ({min(v):.{dec}f} to {max(v):.{dec}f}){ratio}")
        lines.append(f"| {title}, {unit} | " + " | ".join(cells) + " |")
    lines.append("")
    for p in doc["peers"]:
        if p["missing"]:
            lines.append(f"- {p['name']}: **not measured**: {p['missing']}")
        else:
            lines.append(f"- {p['name']}: {p['note']}" + (f"; **failed in part**: {doc['failed'][p['name']]}" if p["name"] in doc["failed"] else ""))
    lines += ["", "A refused SYN is timed from the guest with 64 in flight: for slirp-med a denied inside address (held: the front repeats one verdict; "
              "un-held: each destination port asks the core); for the others a closed port of the origin, which is what a refusal costs there."]
    return "\n".join(lines) + "\n"


def inner(a):
    d = os.environ["SM_WORLD_DIR"]
    crr = os.path.join(d, "crr")
    cc = os.environ.get("CC") or "cc"
    sh(f"{cc} -O2 -Wall -o {crr} {HERE}/crr.c")
    peers = [Veth(), Slirp4netns(), Pasta(), SlirpMed(a.bin, "slirp-med off", ["--egress", "off"]),
             SlirpMed(a.bin, "slirp-med guarded opaque", ["--egress", "guarded", "--egress-opaque"]),
             SlirpMed(a.bin, "slirp-med kernel path", ["--datapath", "tproxy", "--egress", "guarded", "--egress-opaque"])]
    if a.only:
        peers = [p for p in peers if any(o in p.name for o in a.only.split(","))]
    missing = {p.name: p.missing() for p in peers}
    sh("mkdir -p $SM_WORLD_DIR/benchstate")
    os.environ["XDG_STATE_HOME"] = d + "/benchstate"
    servers = [subprocess.Popen(INTERNET + ["iperf3", "-s", "-B", ORIGIN, "-p", str(IPERF), "--forceflush"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT),
               subprocess.Popen(INTERNET + [crr, "serve", ORIGIN, str(CRR)], stdout=subprocess.PIPE)]
    try:
        while b"listening" not in (line := servers[0].stdout.readline()):
            if not line:
                sys.exit("bench: iperf3 server did not start: apt-get install iperf3")
        servers[1].stdout.readline()
        # Nobody reads the server's report from here on; a pipe that fills would stop it.
        import threading
        threading.Thread(target=servers[0].stdout.read, daemon=True).start()
        got, bad = measure([p for p in peers if not missing[p.name]], crr, a.rounds, a.seconds)
    finally:
        for s in servers:
            s.kill()
    with open("/proc/cpuinfo") as f:
        cpu = next((x.split(":", 1)[1].strip() for x in f if x.startswith("model name")), platform.machine())
    doc = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
           "machine": f"{os.cpu_count()} x {cpu}, Linux {platform.release()}", "rounds": a.rounds, "seconds": a.seconds, "results": got, "failed": bad,
           "peers": [{"name": p.name, "note": p.note, "missing": missing[p.name]} for p in peers]}
    print(json.dumps(doc))


def main():
    if sys.argv[1:2] in (["mitm"], ["cred"], ["vhost"], ["vm"], ["life"]):
        sys.path.insert(0, HERE)
        sys.dont_write_bytecode = True
        import importlib
        return importlib.import_module(sys.argv[1]).main(sys.argv[2:])
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--bin", default=os.environ.get("SLIRP_MED_BIN"))
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--seconds", type=int, default=2)
    ap.add_argument("--only", help="peers whose name contains one of these, comma separated")
    ap.add_argument("--json", help="write the raw figures here")
    ap.add_argument("--markdown", help="write the table here; in a file with the two marker lines, between them")
    a = ap.parse_args()
    if a.bin:
        a.bin = os.path.realpath(a.bin)
    if os.environ.get("SM_WORLD"):
        return inner(a)
    p = subprocess.run([os.path.join(REPO, "tests/world/world"), "run", "--root", "--", sys.executable, "-B", os.path.realpath(__file__),
                        "--rounds", str(a.rounds), "--seconds", str(a.seconds)] + (["--bin", a.bin] if a.bin else [])
                       + (["--only", a.only] if a.only else []), stdout=subprocess.PIPE, text=True)
    if p.returncode:
        sys.exit(p.returncode)
    doc = json.loads(p.stdout.splitlines()[-1])
    report.write(doc, table(doc), a.json, a.markdown, BEGIN, END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
