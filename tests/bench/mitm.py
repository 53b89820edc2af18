#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""TLS interception beside its peers: same run, same world, same origin, same front, alternating; medians with minimum and maximum.

bench.py mitm [--bin FILE] [--tools FOLDER] [--rounds N] [--seconds S] [--only PEER,...] [--json FILE] [--markdown FILE]

The client sits in the core namespace, nginx in the internet namespace at a public-looking address. "No front" is the client on its own.
Every other way goes through the same small front (front.c), which stands in for libslirp: "direct" with the core under --egress-opaque,
slirp-med with the core intercepting; for the others the core is opaque, and the internet namespace redirects what comes in from it to the
peer, which stands there as a transparent proxy. The client trusts one CA only, so each figure proves who ended its TLS.
"""
import contextlib
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import inside
import report

HERE = os.path.dirname(os.path.realpath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(REPO, "tests/world"))
sys.dont_write_bytecode = True
import worldlib as w  # noqa: E402

# The origins: nginx with session tickets, nginx that resumes nothing, and bench_tls for bodies and events. The front listens once for each.
ORIGIN = {"tickets": "203.0.113.200", "full": "203.0.113.201", "sink": "203.0.113.202"}
LISTEN = {"tickets": "127.0.0.2:4443", "full": "127.0.0.3:4443", "sink": "127.0.0.4:4443"}
NAME, PEER_PORT, GIB = "ok.test", 28443, 1 << 30
INTERNET = ["nsenter", "--net=/run/netns/internet", "--"]
USER = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "--"]
THREADS, IDLE = 20, 1000
FAULTS = (RuntimeError, subprocess.SubprocessError, ValueError, KeyError, OSError, TimeoutError, AttributeError)


def sh(text, there=False):
    p = subprocess.run((INTERNET if there else []) + ["sh", "-ec", text], capture_output=True, text=True, timeout=60)
    if p.returncode:
        raise RuntimeError(f"{text.splitlines()[0]}: {p.stderr.strip()}")


def out(argv, timeout=90, **kw):
    p = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **kw)
    if p.returncode:
        raise RuntimeError(f"{os.path.basename(argv[0])}: exit {p.returncode}: {(p.stderr or p.stdout).strip()[-300:]}")
    return p.stdout


def end(p):
    """A process of ours, softly first."""
    p.terminate()
    try:
        p.wait(5)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()


def memory(pid):
    """Resident KiB of a process and all below it."""
    kids = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{p}/stat") as f:
            kids.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(p))
    total, todo = 0, [pid]
    while todo:
        p = todo.pop()
        todo += kids.get(p, [])
        with contextlib.suppress(OSError), open(f"/proc/{p}/status") as f:
            m = re.search(r"VmRSS:\s+(\d+)", f.read())
            total += int(m.group(1)) if m else 0
    return total


def cpu(pid):
    """Seconds of processor time of one process."""
    with open(f"/proc/{pid}/stat") as f:
        x = f.read().rsplit(")", 1)[1].split()
    return (int(x[11]) + int(x[12])) / os.sysconf("SC_CLK_TCK")


class Way:
    """How the client reaches the origins: where to connect to, whom to trust, and the mediator and the core to look at."""

    def __init__(self, at, ca, pid=None, core=None):
        self.at, self.ca, self.pid, self.core = at, ca, pid, core


class Peer:
    note, h2 = "", True
    rounds = None  # of as many as there are; a slow peer that no goal speaks of needs no more than one

    def __init__(self, env):
        self.env, self.d = env, env.d

    def missing(self):
        return None

    @contextlib.contextmanager
    def front(self, opaque, more=()):
        d = os.path.join(self.d, "front")
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        argv = [self.env.front, "--core", self.env.bin, "--dir", d, "--roots", self.env.ca] + (["--opaque"] if opaque else []) + list(more)
        for k, a in LISTEN.items():
            argv += ["--map", f"{a}={ORIGIN[k]}:443"]
        with open(os.path.join(self.d, "log", "front.err"), "a+") as err:
            p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True)
            try:
                line = p.stdout.readline().split()
                if line[:1] != ["ready"]:
                    err.seek(0)
                    raise RuntimeError("the front did not start: " + err.read().strip()[-300:])
                yield int(line[1]), os.path.join(d, "ca.pem")
            finally:
                p.stdin.close()
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()


class NoFront(Peer):
    name, note = "no front", "the client speaks with nginx over veth"

    @contextlib.contextmanager
    def way(self):
        yield Way({k: a + ":443" for k, a in ORIGIN.items()}, self.env.ca)


class Direct(Peer):
    name, note = "direct", "the front and the core, --egress-opaque: the front has the upstream socket"

    @contextlib.contextmanager
    def way(self):
        with self.front(True) as (pid, _):
            yield Way(LISTEN, self.env.ca, pid, pid)


class SlirpMed(Peer):
    name = "slirp-med"

    def missing(self):
        version = out([self.env.bin, "--version"]).splitlines()[0]
        self.note = version + ", the front and the core, guarded: verifies, parses, two audit lines a request"
        return None

    @contextlib.contextmanager
    def way(self):
        with self.front(False) as (pid, ca):
            yield Way(LISTEN, ca, pid, pid)


class Transparent(Peer):
    """A peer that stands where the core's connections arrive, behind the opaque front."""

    program = package = ""

    def missing(self):
        if not shutil.which(self.program, path=os.environ.get("PATH", "") + ":/usr/sbin"):
            return f"not installed: apt-get install {self.package}"
        self.note = self.version()
        return None

    @contextlib.contextmanager
    def way(self):
        d = os.path.join(self.d, self.name)
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        sh(f"""cd {d}
openssl ecparam -genkey -name prime256v1 -noout -out ec.key; openssl pkcs8 -topk8 -nocrypt -in ec.key -out ca.key
openssl ecparam -genkey -name prime256v1 -noout -out leaf.key
openssl req -x509 -new -key ca.key -days 30 -subj '/CN={self.name} bench CA' -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem""")
        argv = self.command(d)
        with open(os.path.join(d, "log"), "w+") as log:
            p = subprocess.Popen(INTERNET + argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "HOME": d}, cwd=d)
            try:
                def up():
                    if p.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(f"{self.name} ended: " + log.read().strip()[-400:])
                    return f":{PEER_PORT} " in out(INTERNET + ["ss", "-Hltn"])
                w.wait_for(f"{self.name} to listen", up, 20)
                sh("nft add table ip bench; nft add chain ip bench pre '{ type nat hook prerouting priority -100; }'; nft add rule ip bench pre "
                   f"iifname int0 ip daddr '{{ {', '.join(ORIGIN.values())} }}' tcp dport 443 redirect to :{PEER_PORT}", True)
                try:
                    with self.front(True) as (core, _):
                        yield Way(LISTEN, f"{d}/ca.pem", p.pid, core)
                finally:
                    sh("nft delete table ip bench", True)
            finally:
                end(p)


class SslSplit(Transparent):
    name, program, package, h2 = "sslsplit", "sslsplit", "sslsplit", False

    def version(self):
        p = subprocess.run(["sslsplit", "-V"], capture_output=True, text=True)
        return (p.stdout + p.stderr).splitlines()[0] + ", mode ssl: does not verify, does not parse HTTP, no HTTP/2; P-256 leaf key"

    def command(self, d):
        return USER + ["sslsplit", "-k", f"{d}/ca.key", "-c", f"{d}/ca.pem", "-K", f"{d}/leaf.key", "ssl", "0.0.0.0", str(PEER_PORT)]


class Mitmproxy(Transparent):
    name, program, package = "mitmproxy", "mitmdump", "mitmproxy"
    rounds = 1

    def version(self):
        return out(["mitmdump", "--version"]).splitlines()[0] + ", transparent, stream_large_bodies=1"

    def command(self, d):
        with open(f"{d}/mitmproxy-ca.pem", "w") as f:
            for n in ("ca.key", "ca.pem"):
                with open(f"{d}/{n}") as g:
                    f.write(g.read())
        return USER + ["mitmdump", "-q", "--mode", "transparent", "--listen-host", "0.0.0.0", "-p", str(PEER_PORT), "--set", f"confdir={d}",
                       "--set", "stream_large_bodies=1", "--set", f"ssl_verify_upstream_trusted_ca={self.env.ca}", "--set", "flow_detail=0"]


class Squid(Transparent):
    name, program, package, h2 = "squid", "squid", "squid-openssl", False
    rounds = 1

    def missing(self):
        why = super().missing()
        if why is None and "with-openssl" not in out(["/usr/sbin/squid", "-v"]):
            return "squid has no ssl-bump: apt-get install squid-openssl"
        return why

    def version(self):
        return out(["/usr/sbin/squid", "-v"]).splitlines()[0] + ", intercept, ssl-bump (peek, bump), no cache, one worker, no HTTP/2"

    def command(self, d):
        helper = "/usr/lib/squid/security_file_certgen"
        with open(f"{d}/squid.conf", "w") as f:
            f.write(f"""visible_hostname bench
pid_filename {d}/squid.pid
http_port 127.0.0.1:3128
https_port 0.0.0.0:{PEER_PORT} intercept ssl-bump tls-cert={d}/ca.pem tls-key={d}/ca.key generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program {helper} -s {d}/ssl_db -M 4MB
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
tls_outgoing_options cafile={self.env.ca}
http_access allow all
cache deny all
cache_mem 8 MB
access_log none
cache_store_log none
cache_log {d}/cache.log
coredump_dir {d}
pinger_enable off
netdb_filename none
client_request_buffer_max_size 64 MB
max_filedescriptors 16384
shutdown_lifetime 0 seconds
""")
        out([helper, "-c", "-s", f"{d}/ssl_db", "-M", "4MB"])
        return USER + ["/usr/sbin/squid", "-N", "-f", f"{d}/squid.conf"]


# ---- what is measured ----

class Env:
    def __init__(self, a):
        self.d = os.environ["SM_WORLD_DIR"]
        self.bin, self.tools, self.seconds = a.bin, a.tools, a.seconds
        self.front, self.tls = os.path.join(a.tools, "bench_front"), os.path.join(a.tools, "bench_tls")
        self.ca = os.path.join(self.d, "ca.pem")

    def curl(self, way, key, more, what, size):
        text = out(["curl", "-sS", "-o", "/dev/null", "--cacert", way.ca, "--connect-to", f"{NAME}:443:{way.at[key]}", "-w",
                    f"%{{speed_{what}}} %{{size_{what}}} %{{http_code}} %{{http_version}}"] + more)
        speed, got, code, version = text.split()
        if int(got) != size or code != "200" or version != ("2" if "--http2" in more else "1.1"):
            raise RuntimeError(f"curl: {text}")
        return float(speed) / 1e6

    def tool(self, what, way, key, *numbers):
        return [float(x) for x in out([self.tls, what, way.at[key], NAME, way.ca, *map(str, numbers)]).split()]

    def load(self, way, *more):
        text = out(["h2load", "-D", str(self.seconds), "--warm-up-time", "1", "-t", "1", f"--connect-to={way.at['tickets']}", *more,
                    f"https://{NAME}/hello"])
        m = re.search(r"finished in [\d.]+s, ([\d.]+) req/s", text)
        bad = re.search(r"(\d+) failed, (\d+) errored", text)
        if not m or bad.groups() != ("0", "0") or float(m.group(1)) == 0:
            raise RuntimeError("h2load: " + " ".join(text.split())[-300:])
        return float(m.group(1))

    def idle(self, way, tool):
        """KiB of the mediator for one connection that has served one request and waits."""
        if way.pid is None:
            return None
        out([self.tls, tool, way.at["tickets"], NAME, way.ca, "20"])
        before = memory(way.pid)
        p = subprocess.Popen([self.tls, tool, way.at["tickets"], NAME, way.ca, str(IDLE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        try:
            if p.stdout.readline() != "ready\n":
                raise RuntimeError(p.stderr.read().strip()[-300:])
            return (memory(way.pid) - before) / IDLE
        finally:
            p.kill()
            p.wait()


def measures(env, peer, way):
    """(column, function) in the order in which they are taken."""
    zeros = os.path.join(env.d, "www", "zeros")
    yield "down", lambda: env.curl(way, "tickets", ["--http1.1", f"https://{NAME}/zeros"], "download", GIB)
    if peer.h2:
        yield "down h2", lambda: env.curl(way, "tickets", ["--http2", f"https://{NAME}/zeros"], "download", GIB)
    yield "up", lambda: env.curl(way, "sink", ["--http1.1", "-H", "Expect:", "-T", zeros, f"https://{NAME}/up"], "upload", GIB)
    yield "conns", lambda: env.tool("conns", way, "tickets", env.seconds, THREADS)[0]
    yield "conns full", lambda: env.tool("conns", way, "full", env.seconds, THREADS)[0]
    yield "h1", lambda: env.load(way, "--h1", "-c", "20", "-m", "1")
    if peer.h2:
        yield "h2", lambda: env.load(way, "-c", "20", "-m", "10")
    yield "get", lambda: dict(zip(("p50", "p99"), env.tool("get", way, "tickets", 1000)[1:3]))
    yield "sse", lambda: dict(zip(("sse p50", "sse p99", "sse max"), env.tool("sse", way, "sink", 200)[1:4]))


def measure(env, peers, rounds, columns):
    got, bad, load = {p.name: {} for p in peers}, {}, {}

    def put(peer, way, col, f):
        core = cpu(way.core) if way.core else 0
        start = time.monotonic()
        try:
            v = f()
        except FAULTS as e:
            bad.setdefault(peer.name, {}).setdefault(col, str(e))
            print(f"  {peer.name}: {col}: {e}", file=sys.stderr)
            return
        if v is None:
            return
        for c, x in (v.items() if isinstance(v, dict) else [(col, v)]):
            got[peer.name].setdefault(c, []).append(x)
        if way.core:
            load.setdefault(peer.name, {}).setdefault(col, []).append((cpu(way.core) - core) / (time.monotonic() - start))
        print(f"  {peer.name}: {col}: {v}", file=sys.stderr)

    for r in range(rounds):
        print(f"round {r + 1} of {rounds}", file=sys.stderr)
        for peer in peers if r % 2 == 0 else peers[::-1]:
            if peer.rounds and r >= peer.rounds:
                continue
            try:
                for col, tool in (("idle", "idle"), ("idle h2", "idle2")):
                    if r == 0 and (not columns or col in columns) and (peer.h2 or col == "idle"):
                        with peer.way() as way:
                            put(peer, way, col, lambda: env.idle(way, tool))
                with peer.way() as way:
                    for col, f in measures(env, peer, way):
                        if not columns or col in columns:
                            put(peer, way, col, f)
            except FAULTS as e:
                bad.setdefault(peer.name, {}).setdefault("start", str(e))
                print(f"  {peer.name}: {e}", file=sys.stderr)
    return got, bad, load


def through_slirp(env, rounds):
    """The same download through libslirp, as `run` has it: reported, no goal in this table."""
    got, bad = {}, {}
    for _ in range(rounds):
        for mtu in (1500, 65520):
            for word, flags in (("opaque", ["--egress-opaque"]), ("intercepted", ["--egress-ca-file", env.ca])):
                ca = ["--cacert", env.ca] if word == "opaque" else []
                argv = USER + [env.bin, "run", "--mtu", str(mtu), "--egress", "guarded", *flags, "--", "curl", "-sS", "-o", "/dev/null", "--http1.1",
                               *ca, "--resolve", f"{NAME}:443:{ORIGIN['tickets']}", "-w", "%{speed_download} %{size_download}",
                               f"https://{NAME}/zeros"]
                try:
                    speed, size = out(argv).split()
                    if int(size) != GIB:
                        raise RuntimeError(f"{size} bytes came")
                    got.setdefault(f"{word} {mtu}", []).append(float(speed) / 1e6)
                    print(f"  slirp: {word} {mtu}: {float(speed) / 1e6:.0f}", file=sys.stderr)
                except FAULTS as e:
                    bad.setdefault(f"{word} {mtu}", str(e))
                    print(f"  slirp: {word} {mtu}: {e}", file=sys.stderr)
    return got, bad


# ---- the table ----

COLUMNS = [("down", "1 GiB download, h1", "MB/s", 0), ("down h2", "1 GiB download, h2", "MB/s", 0), ("up", "1 GiB upload, h1", "MB/s", 0),
           ("conns", "new connections, upstream resumes", "1/s", 0), ("conns full", "new connections, upstream full", "1/s", 0),
           ("h1", "requests, h1 keep-alive, 20 clients", "1/s", 0), ("h2", "requests, h2, 20 x 10", "1/s", 0),
           ("p50", "small request p50", "us", 0), ("p99", "small request p99", "us", 0), ("sse p50", "event to client p50", "us", 0),
           ("sse max", "event to client, longest", "us", 0), ("idle", "resident, one idle connection, h1", "KiB", 1),
           ("idle h2", "resident, one idle connection, h2", "KiB", 1)]
# column, factor, of whom: the median must be at least that (numbers.md)
GOALS = [("down", 0.7, "direct"), ("down", 1.0, "sslsplit"), ("conns", 0.4, "direct"), ("conns full", 0.4, "direct"), ("conns", 3.0, "sslsplit"),
         ("conns full", 3.0, "sslsplit"), ("h1", 0.5, "direct"), ("h2", 0.5, "direct")]


def mid(got, peer, col):
    v = got.get(peer, {}).get(col)
    return statistics.median(v) if v else None


def table(doc):
    got, base = doc["results"], "direct"
    lines = [f"Measured {doc['date']} on {doc['machine']}; {doc['rounds']} alternating rounds of {doc['seconds']} s; median (min to max), then the "
             "ratio to direct in the same run.", ""]
    names = [p["name"] for p in doc["peers"] if got.get(p["name"])]
    lines += ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, title, unit, dec in COLUMNS:
        cells = []
        for n in names:
            v, b = got[n].get(key), mid(got, base, key)
            if not v:
                cells.append("")
                continue
            m = statistics.median(v)
            ratio = f", x{m / b:.2f}" if b and n != base and not key.startswith("idle") else ""
            spread = f" ({min(v):.{dec}f} to {max(v):.{dec}f})" if len(v) > 1 else ""
            cells.append(f"{m:.{dec}f}{spread}{ratio}")
        lines.append(f"| {title}, {unit} | " + " | ".join(cells) + " |")
    if got.get("slirp-med"):
        lines += ["", "| goal | measured | |", "|---|---|---|"]
        titles = {k: t for k, t, _, _ in COLUMNS}
        for col, factor, of in GOALS:
            mine, other = mid(got, "slirp-med", col), mid(got, of, col)
            if mine and other:
                lines.append(f"| {titles[col]}: {factor:g} x {of} | {mine / other:.2f} x | {'met' if mine >= factor * other else '**missed**'} |")
        rows = [("idle", 64, "64 KiB for one idle connection, h1", 1.0, "KiB"),
                ("idle h2", 64, "64 KiB for one idle connection, h2", 1.0, "KiB"), ("sse max", 10000, "an event within 10 ms", 1000.0, "ms")]
        for col, most, title, unit, word in rows:
            v = mid(got, "slirp-med", col)
            if v is not None:
                lines.append(f"| {title} | {v / unit:.1f} {word} | {'met' if v <= most else '**missed**'} |")
        added = [mid(got, "slirp-med", c) - mid(got, base, c) for c in ("p50", "p99") if mid(got, "slirp-med", c) and mid(got, base, c)]
        if len(added) == 2:
            lines.append(f"| (added to a small request, p50 and p99) | {added[0]:.0f} us, {added[1]:.0f} us | |")
    if doc["slirp"]:
        lines += ["", "Through libslirp, `slirp-med run`, 1 GiB download, h1, MB/s (reported; falls due with the data path's own goals):", "",
                  "| | opaque | intercepted | |", "|---|---|---|---|"]
        for mtu in (1500, 65520):
            o, i = doc["slirp"].get(f"opaque {mtu}"), doc["slirp"].get(f"intercepted {mtu}")
            def cell(v):
                return f"{statistics.median(v):.0f} ({min(v):.0f} to {max(v):.0f})" if v else ""
            ratio = f"x{statistics.median(i) / statistics.median(o):.2f}" if o and i else ""
            lines.append(f"| MTU {mtu} | {cell(o)} | {cell(i)} | {ratio} |")
    lines.append("")
    for p in doc["peers"]:
        if p["missing"]:
            lines.append(f"- {p['name']}: **not measured**: {p['missing']}")
        else:
            bad = doc["failed"].get(p["name"], {})
            lines.append(f"- {p['name']}: {p['note']}" + "".join(f"; **{c} failed**: {e}" for c, e in bad.items()))
    lines += [f"- slirp-med run, {c}: **failed**: {e}" for c, e in doc["slirp_failed"].items()]
    return "\n".join(lines) + "\n"


# ---- the run ----

def origins(env):
    """nginx and bench_tls in the internet namespace, and what a bench asks of both namespaces."""
    d = os.path.join(env.d, "bench")
    os.makedirs(d)
    inside.hush()
    for there in (False, True):
        sh("echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse; echo '1024 65535' >/proc/sys/net/ipv4/ip_local_port_range; "
           "echo 4096 >/proc/sys/net/core/somaxconn", there)
    with open(os.path.join(env.d, "www", "zeros"), "rb", buffering=0) as f:  # into the page cache, or the first download pays for it
        while f.read(1 << 20):
            pass
    sh("; ".join(f"ip addr add {a}/32 dev lo" for a in ORIGIN.values()), True)
    conf = f"""user root root;
daemon off;
pid {d}/nginx.pid;
error_log {d}/nginx.err warn;
worker_processes 2;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
  keepalive_timeout 600; keepalive_requests 1000000000;
  ssl_certificate {env.d}/leaf.pem; ssl_certificate_key {env.d}/leaf.key; ssl_protocols TLSv1.2 TLSv1.3;
  server {{ listen {ORIGIN["tickets"]}:443 ssl http2 backlog=4096; ssl_session_cache shared:s:8m; root {env.d}/www;
    location = /hello {{ default_type text/plain; return 200 "hello\\n"; }} }}
  server {{ listen {ORIGIN["full"]}:443 ssl http2 backlog=4096; ssl_session_tickets off; ssl_session_cache off; root {env.d}/www;
    location = /hello {{ default_type text/plain; return 200 "hello\\n"; }} }}
}}
"""
    with open(f"{d}/nginx.conf", "w") as f:
        f.write(conf)
    procs = [subprocess.Popen(INTERNET + ["nginx", "-c", f"{d}/nginx.conf", "-p", d], stdin=subprocess.DEVNULL),
             subprocess.Popen(INTERNET + [env.tls, "serve", ORIGIN["sink"] + ":443", os.path.join(env.d, "certs", "good.pem")],
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE)]
    try:
        if procs[1].stdout.readline() != b"ready\n":
            raise RuntimeError("bench_tls serve did not start")
        w.wait_for("nginx", lambda: procs[0].poll() is not None or f"{ORIGIN['full']}:443 " in out(INTERNET + ["ss", "-Hltn"]))
        if procs[0].poll() is not None:
            raise RuntimeError("nginx ended")
    except FAULTS:
        for p in procs:
            end(p)
        raise
    return procs


def inner(a):
    env = Env(a)
    peers = [c(env) for c in (NoFront, Direct, SlirpMed, SslSplit, Mitmproxy, Squid)]
    if a.only:
        peers = [p for p in peers if p.name in a.only.split(",")]
    os.environ["XDG_STATE_HOME"] = os.path.join(env.d, "benchstate")
    os.makedirs(os.environ["XDG_STATE_HOME"])
    missing = {p.name: p.missing() for p in peers}
    procs = origins(env)
    try:
        got, bad, load = measure(env, [p for p in peers if not missing[p.name]], a.rounds, a.columns.split(",") if a.columns else [])
        slirp, slirp_bad = through_slirp(env, a.rounds) if not a.only and not a.columns else ({}, {})
    finally:
        for p in procs:
            end(p)
    print(json.dumps({"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
                      "machine": report.machine(), "rounds": a.rounds, "seconds": a.seconds, "results": got,
                      "core_load": load, "failed": bad, "slirp": slirp, "slirp_failed": slirp_bad,
                      "peers": [{"name": p.name, "note": p.note, "missing": missing[p.name]} for p in peers]}))


def main(argv=None):
    ap = inside.options("mitm", __doc__, rounds=3)
    ap.add_argument("--tools", help="where bench_front and bench_tls are (default: beside the binary's build)")
    ap.add_argument("--seconds", type=lambda t: max(1, round(float(t))), default=2)
    ap.add_argument("--only", help="names of peers, comma separated")
    ap.add_argument("--columns", help="what to measure, comma separated: down, 'down h2', up, conns, 'conns full', h1, h2, get, sse, idle, 'idle h2'")
    a = ap.parse_args(argv)
    inside.find_tools(ap, a, "bench_front", "bench_tls")
    return inside.run(a, "mitm", inner, table, "tools", "seconds", "only", "columns")


if __name__ == "__main__":
    sys.exit(main())
