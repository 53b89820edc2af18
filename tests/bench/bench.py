#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""One dispatch for all that is measured: ./dev bench [WHAT ...] [OPTIONS].

Each WHAT is a module of its own, with its own --help; several, or all, are run one after the other with the options they share.
"""
import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time

import report

HERE = os.path.dirname(os.path.realpath(__file__))
# In the order in which `all` runs them: what is measured, its module, in words.
RUNS = {
    "tcp": ("paths", "bytes over TCP beside slirp4netns, pasta and the kernel's routed veth"),
    "crr": ("paths", "connections (connect, request, response) and refused SYNs beside them"),
    "udp": ("udp", "datagrams beside them"),
    "dns": ("dns", "DNS answers a second beside dnsmasq"),
    "flows": ("flows", "many flows: new connections among 10,000, memory, idle cost, SYN floods"),
    "mitm": ("mitm", "TLS interception beside sslsplit, mitmproxy and squid"),
    "cred": ("cred", "what a credential costs a request"),
    "vhost": ("vhost", "frames over vhost-user and over a stream, in process"),
    "vm": ("vm", "what a workspace adds to the start of a virtual machine"),
    "life": ("life", "a workspace from create to stop, and many at once"),
}
COUNTS = {"check": "instructions, system calls and allocations against those that are recorded (callgrind)",
          "profile": "the functions that a harness of check spends them in"}
# What ./dev bench measures without a word.
USUAL = ["tcp", "crr"]
SHARED = ("rounds", "seconds")


def knows(name):
    """Which of the shared options the run has."""
    text = subprocess.run([sys.executable, "-B", os.path.join(HERE, "bench.py"), name, "--help"], capture_output=True, text=True)
    return [o for o in SHARED if "--" + o in text.stdout]


def several(names, a):
    done, failed, begin = {}, [], time.monotonic()
    if a.bin:
        os.environ["SLIRP_MED_BIN"] = os.path.realpath(a.bin)
    for i, name in enumerate(names):
        print(f"bench: {i + 1} of {len(names)}: {name}: {RUNS[name][1]} ({(time.monotonic() - begin) / 60:.0f} min so far)",
              file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="sm-bench.") as d:
            argv = [sys.executable, "-B", os.path.join(HERE, "bench.py"), name, "--json", os.path.join(d, "json")]
            for option in knows(name):
                if getattr(a, option) is not None:
                    argv += ["--" + option, f"{getattr(a, option):g}"]
            if a.markdown:
                argv += ["--markdown", a.markdown]
            print(f"## {name}: {RUNS[name][1]}\n", flush=True)
            status = subprocess.run(argv).returncode
            if status:
                failed.append(name)
            if os.path.exists(os.path.join(d, "json")):
                with open(os.path.join(d, "json")) as f:
                    done[name] = json.load(f)
    if a.json:
        with open(a.json, "w") as f:
            f.write(json.dumps({"machine": report.machine(), "failed": failed, "runs": done}, indent=1) + "\n")
    print(f"bench: {len(names)} in {(time.monotonic() - begin) / 60:.0f} min" + (f"; failed: {', '.join(failed)}" if failed else ""), file=sys.stderr)
    return 1 if failed else 0


def main():
    sys.path.insert(0, HERE)
    sys.dont_write_bytecode = True
    argv = sys.argv[1:]
    words = [w for w in argv if not w.startswith("-")]
    if words and words[0] == argv[0] and argv[0] in {**RUNS, **COUNTS} and not any(w in RUNS for w in argv[1:]):
        name = argv[0]
        if name in COUNTS:
            return importlib.import_module("counts").main(argv)
        module = importlib.import_module(RUNS[name][0])
        return module.main(argv[1:]) if module.__name__ == name else module.main(argv[1:], name)
    ap = argparse.ArgumentParser(prog="./dev bench", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
                                 epilog="WHAT:\n" + "\n".join(f"  {n:8} {t}" for n, t in [*((n, t) for n, (_, t) in RUNS.items()), *COUNTS.items()])
                                 + f"\n  all      {', '.join(RUNS)}; without a word: {' and '.join(USUAL)}\n\n"
                                 "A peer that is not installed, or does not work, is named in the table.")
    ap.add_argument("what", nargs="*", metavar="WHAT", help="see below; `./dev bench WHAT --help` lists the options of one")
    ap.add_argument("--bin", default=os.environ.get("SLIRP_MED_BIN"), help="slirp-med (default: the build's)")
    ap.add_argument("--rounds", type=int, help="alternating rounds (default: each run's own)")
    ap.add_argument("--seconds", type=float, help="length of one measurement, where there is one (default: each run's own)")
    ap.add_argument("--json", help="write the raw figures here")
    ap.add_argument("--markdown", help="write the tables here, each between its two marker lines; what has none yet is appended")
    a = ap.parse_args(argv)
    unknown = [w for w in a.what if w not in RUNS and w != "all"]
    if unknown:
        ap.error(f"{unknown[0]} stands alone" if unknown[0] in COUNTS else f"there is no {unknown[0]}: {', '.join([*RUNS, *COUNTS])}, all")
    return several(list(RUNS) if "all" in a.what else a.what or USUAL, a)


if __name__ == "__main__":
    sys.exit(main())
