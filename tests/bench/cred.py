#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a credential costs: intercepted requests with and without one, and what a cold token does to requests that need none.

bench.py cred [--bin FILE] [--tools FOLDER] [--rounds N] [--seconds S] [--colds N] [--json FILE] [--markdown FILE]

Injection: on the parts of mitm.py. The same client, front, core and nginx in one run, three ways that take turns: no credential, a static key
(scrubbed responses, which is the default), and one with `scrub: false`. The client sends a header of that name in all three. A shared machine is
noisy: each round's ratio is of figures that were taken one after the other, and processor time a request stands beside them, of the core and of all
four (client, front, core, nginx): where nothing else limits, requests a second are its inverse.

Cold tokens: `slirp-med run` with an endpoint that takes 500 ms (tests/world/credd.py). One guest asks for two hosts without a pause, one with
a static key and one without any; meanwhile another host after another is asked whose token has to be fetched first. Every second round
nothing is fetched.
"""
import contextlib
import datetime
import json
import os
import re
import resource
import statistics
import sys
import tempfile

import inside
import mitm
import report
from mitm import FAULTS, NAME, REPO, USER, cpu

KEY = "sk-bench-0123456789abcdef0123456789abcdef0123456789abcdef"
HEADER = ["-H", "authorization: Bearer what-the-guest-has"]
SLOW_MS = 500


class Injecting(mitm.Peer):
    def __init__(self, env, name, scrub):
        super().__init__(env)
        self.name, self.scrub = name, scrub

    @contextlib.contextmanager
    def way(self):
        more = []
        if self.scrub is not None:
            swaps = os.path.join(self.d, "swaps.json")
            secret = os.path.join(self.d, "secret")
            entry = {"type": "static", "domains": [NAME], "header": "Authorization", "format": "Bearer {key}", "scrub": self.scrub, "key_ref": 0}
            for path, text in ((swaps, json.dumps({"refs": ["env:KEY"], "entries": {"bench": entry}})), (secret, KEY)):
                with open(path, "w") as f:
                    f.write(text)
            more = ["--swaps", swaps, "--secret", secret]
        with self.front(False, more) as (pid, ca):
            yield mitm.Way(mitm.LISTEN, ca, pid, pid)
            if self.scrub is not None:
                self.check()

    def check(self):
        """Every request had its credential, or the figures are of something else."""
        with open(os.path.join(self.d, "front", "egress.jsonl")) as f:
            requests = swaps = 0
            for line in f:
                requests += '"egress_http_request"' in line
                swaps += '"egress_swap"' in line
        if requests == 0 or requests != swaps:
            raise RuntimeError(f"{swaps} of {requests} requests had a credential")


COLUMNS = [("h1", "requests, h1 keep-alive, 20 clients, 1/s", 0), ("h1 all", "processor time of all four, h1, us a request", 1),
           ("h1 cpu", "of the core alone", 1), ("h2", "requests, h2, 20 x 10, 1/s", 0), ("h2 all", "processor time of all four, h2, us a request", 1),
           ("h2 cpu", "of the core alone", 1), ("down", "1 GiB download, h1, MB/s", 0)]
WAYS = [("none", None, "no credential"), ("static", True, "a static key, responses scrubbed"),
        ("static, scrub: false", False, "a static key, responses left alone")]


def load(way, n, more):
    """Requests a second. A number of them instead of a time, so that processor time can be divided by it."""
    text = mitm.out(["h2load", "-n", str(n), "-t", "1", f"--connect-to={way.at['tickets']}", *more, *HEADER, f"https://{NAME}/hello"])
    m = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)
    if not m or f"{n} succeeded, 0 failed, 0 errored" not in text:
        raise RuntimeError("h2load: " + " ".join(text.split())[-300:])
    return float(m.group(1))


def parent(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


def all_cpu(core, nginx):
    """Seconds so far of the core, the front that started it, nginx with its workers, and of clients that have ended."""
    kids = [int(p) for p in os.listdir("/proc") if p.isdigit() and os.path.exists(f"/proc/{p}/stat")]
    workers = []
    for p in kids:
        with contextlib.suppress(OSError, IndexError):
            if parent(p) == nginx:
                workers.append(p)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(cpu(p) for p in (core, parent(core), nginx, *workers)) + used.ru_utime + used.ru_stime


def inject(env, rounds, nginx):
    got, bad = {n: {} for n, _, _ in WAYS}, {}
    for r in range(rounds):
        print(f"round {r + 1} of {rounds}", file=sys.stderr)
        for name, scrub, _ in WAYS if r % 2 == 0 else WAYS[::-1]:
            try:
                with Injecting(env, name, scrub).way() as way:
                    for col, guess, more in (("h1", 20000, ["--h1", "-c", "20", "-m", "1"]), ("h2", 40000, ["-c", "20", "-m", "10"])):
                        load(way, 1000, more)
                        n = int(guess * env.seconds)
                        before, everything = cpu(way.core), all_cpu(way.core, nginx)
                        rate = load(way, n, more)
                        used, total = (cpu(way.core) - before) / n * 1e6, (all_cpu(way.core, nginx) - everything) / n * 1e6
                        got[name].setdefault(col + " all", []).append(total)
                        got[name].setdefault(col, []).append(rate)
                        got[name].setdefault(col + " cpu", []).append(used)
                        print(f"  {name}: {col}: {rate:.0f}/s, {total:.1f} us, {used:.1f} of the core", file=sys.stderr)
                    if r < 3:  # slow, and no goal speaks of it
                        down = env.curl(way, "tickets", ["--http1.1", *HEADER, f"https://{NAME}/zeros"], "download", mitm.GIB)
                        got[name].setdefault("down", []).append(down)
            except FAULTS as e:
                bad.setdefault(name, str(e))
                print(f"  {name}: {e}", file=sys.stderr)
    return got, bad


GUEST = """
import threading, h2lib
hosts = {"plain": "h2.test", "static": "fixed.swap.test"}
took, stop, cold, begun = {n: [] for n in hosts}, threading.Event(), [], threading.Barrier(3)
def busy(name, host):
    c = h2lib.tls(host)
    c.ask(host, "/bytes/10")
    begun.wait()
    while not stop.is_set():
        t = time.monotonic(); s = c.ask(host, "/bytes/10"); took[name].append(time.monotonic() - t)
        assert s.status == 200, s.summary()
threads = [threading.Thread(target=busy, args=x) for x in hosts.items()]
for t in threads: t.start()
conns = [(n, h2lib.tls(n)) for n in (f"c{i}.swap.test" for i in range(COLDS))]
begun.wait()
for n, c in conns:
    t = time.monotonic()
    if FETCH:
        s = c.ask(n, "/bytes/10"); assert s.status == 200, s.summary()
    else:
        time.sleep(0.5)
    cold.append(time.monotonic() - t)
stop.set()
for t in threads: t.join()
out.update(took, cold=cold)
"""


def cold(env, rounds, colds):
    """{what: [ms]} with and without fetches going on."""
    entries = {f"c{i}": {"type": "oauth2-cc", "domains": [f"c{i}.swap.test"], "token_url": f"https://id.test/token/slow/bench{i}/{SLOW_MS}",
                         "client_id_ref": "env:ID", "client_secret_ref": "env:SECRET"} for i in range(colds)}
    entries["fixed"] = {"type": "static", "domains": ["fixed.swap.test"], "key_ref": "env:KEY"}
    got, bad = {}, {}
    lib = os.path.join(REPO, "tests", "e2e", "guestlib.py")
    with tempfile.TemporaryDirectory(dir=env.d) as d:
        os.chmod(d, 0o755)
        swaps = os.path.join(d, "swaps.json")
        with open(swaps, "w") as f:
            json.dump({"swaps": entries}, f)
        for r in range(2 * rounds):
            fetch = r % 2 == 0
            argv = USER + [env.bin, "run", "--egress", "strict", "--egress-allow", "h2.test", "--egress-allow", ".swap.test",
                           "--egress-ca-file", env.ca,
                           "--egress-swap-config", swaps, "--", "/usr/bin/python3", "-B", "-S", lib, f"COLDS, FETCH = {colds}, {fetch}\n" + GUEST]
            try:
                text = mitm.out(argv, env={**os.environ, "ID": "bench", "SECRET": "bench-secret-0123", "KEY": KEY})
                res = json.loads(next(x for x in text.splitlines() if x.startswith("OUT "))[4:])
            except (*FAULTS, StopIteration) as e:
                bad["cold"] = str(e)
                print(f"  cold: {e}", file=sys.stderr)
                continue
            for name, v in res.items():
                got.setdefault(f"{name} {'during' if fetch else 'quiet'}", []).append([x * 1000 for x in v])
            print(f"  {'cold' if fetch else 'quiet'}: " + ", ".join(f"{n} {len(v)} x {statistics.median(v) * 1000:.2f} ms" for n, v in res.items()),
                  file=sys.stderr)
    return got, bad


def quantile(v, q):
    v = sorted(v)
    return v[min(len(v) - 1, int(q * len(v)))]


def mid(values, fmt):
    return f"{statistics.median(values):{fmt}} ({min(values):{fmt}} to {max(values):{fmt}})"


def table(doc):
    got, names = doc["results"], [n for n, _, _ in WAYS if doc["results"].get(n)]
    lines = [f"Measured {doc['date']} on {doc['machine']}; {doc['rounds']} alternating rounds; median (min to max), then the median of "
             "the ratios to no credential in the same round.", "", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    ratios = {}
    for col, title, dec in COLUMNS:
        cells = []
        for n in names:
            v, base = got[n].get(col), got["none"].get(col) or []
            if not v:
                cells.append("")
                continue
            ratios[n, col] = statistics.median([a / b for a, b in zip(v, base)]) if base and n != "none" else None
            cells.append(mid(v, f".{dec}f") + (f", x{ratios[n, col]:.3f}" if ratios[n, col] else ""))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", "| goal | measured | |", "|---|---|---|"]
    for col, word in (("h1", "h1"), ("h2", "h2")):
        x, y = ratios.get(("static", col)), ratios.get(("static", col + " all"))
        if x and y:
            lines.append(f"| injection costs at most 5 % of requests a second, {word} | {100 * (1 - x):.1f} % | "
                         f"{'met' if x >= 0.95 else '**missed**'} |")
            lines.append(f"| ... by processor time of all four, {word} | {100 * (1 - 1 / y):.1f} % | {'met' if 1 / y >= 0.95 else '**missed**'} |")
            z = min(got["none"][col + " all"]) / min(got["static"][col + " all"])
            lines.append(f"| ... by the least of that, which other work disturbs least, {word} | {100 * (1 - z):.1f} % | "
                         f"{'met' if z >= 0.95 else '**missed**'} |")
    if doc["cold"]:
        lines += ["", f"Other requests while {doc['colds']} tokens, one after the other, are fetched from an endpoint that takes {SLOW_MS} ms, "
                  "and while none is; "
                  "ms, median over rounds:", "", "| | p50 | p99 | longest |", "|---|---|---|---|"]
        titles = {"plain": "a host without a credential", "static": "a host with a static key", "cold": "a request that needs the token"}
        for name, title in titles.items():
            for when, word in (("during", "during fetches"), ("quiet", "none fetched")):
                runs = doc["cold"].get(f"{name} {when}")
                if runs and (name, when) != ("cold", "quiet"):
                    cells = (f"{statistics.median([quantile(v, q) for v in runs]):.2f}" for q in (0.5, 0.99, 1))
                    lines.append(f"| {title}, {word} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"- {n}: {note}" + (f"; **failed in part**: {doc['failed'][n]}" if n in doc["failed"] else "") for n, _, note in WAYS]
    if "cold" in doc["failed"]:
        lines.append(f"- cold tokens: **failed in part**: {doc['failed']['cold']}")
    return "\n".join(lines) + "\n"


def inner(a):
    env = mitm.Env(a)
    os.environ["XDG_STATE_HOME"] = os.path.join(env.d, "benchstate")
    os.makedirs(os.environ["XDG_STATE_HOME"])
    procs = mitm.origins(env)
    try:
        got, bad = inject(env, a.rounds, procs[0].pid)
    finally:
        for p in procs:
            mitm.end(p)
    colds, worse = cold(env, min(a.rounds, 3), a.colds) if a.colds else ({}, {})
    print(json.dumps({"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
                      "machine": report.machine(), "rounds": a.rounds, "seconds": a.seconds,
                      "results": got, "cold": colds, "colds": a.colds, "failed": {**bad, **worse}}))


def main(argv=None):
    ap = inside.options("cred", __doc__, rounds=11)
    ap.add_argument("--tools", help="where bench_front and bench_tls are (default: beside the binary's build)")
    ap.add_argument("--seconds", type=float, default=1, help="about this long each: 20000 requests h1, 40000 h2 a second of it")
    ap.add_argument("--colds", type=int, default=12, help="tokens to fetch in a round; 0 leaves that part out")
    a = ap.parse_args(argv)
    inside.find_tools(ap, a, "bench_front", "bench_tls")
    return inside.run(a, "cred", inner, table, "tools", "seconds", "colds")


if __name__ == "__main__":
    sys.exit(main())
