# SPDX-License-Identifier: BSD-3-Clause
"""A benchmark in the private internet (tests/world): its options, getting there, and what it does there first."""
import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys

import report

HERE = os.path.dirname(os.path.realpath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))


def options(name, doc, rounds, needs_bin=True):
    """The parser of `bench.py NAME`, with what each of them takes."""
    ap = argparse.ArgumentParser(prog=f"bench.py {name}", description=doc.splitlines()[0])
    binary = os.environ.get("SLIRP_MED_BIN")
    ap.add_argument("--bin", default=binary, required=needs_bin and not binary)
    ap.add_argument("--rounds", type=int, default=rounds)
    ap.add_argument("--json", help="write the raw figures here")
    ap.add_argument("--markdown", help="write the table here; in a file with the two marker lines, between them")
    return ap


def find_tools(ap, a, *needed):
    """Completes a.tools, which is beside the binary's build if nothing else was said."""
    if not os.access(a.bin, os.X_OK):
        ap.error(f"no slirp-med at {a.bin}: ./dev build, or --bin FILE")
    beside = os.path.join(os.path.dirname(os.path.realpath(a.bin)), "..", "tests", "bench")
    a.tools = os.path.realpath(a.tools or beside)
    for tool in needed:
        if not os.access(os.path.join(a.tools, tool), os.X_OK):
            ap.error(f"no {tool} in {a.tools}: ninja -C BUILD " + " ".join(f"tests/bench/{t}" for t in needed))


def run(a, name, inner, table, *words):
    """The end of a main(): in the private internet inner(a), whose last line is the document; elsewhere it goes there, with these options of a, and
    the document's table is written."""
    if a.bin:
        a.bin = os.path.realpath(a.bin)
    if os.environ.get("SM_WORLD"):
        return inner(a)
    pass_on = []
    for word in ("bin", "rounds", *words):
        value = getattr(a, word)
        if value is not None:
            pass_on += ["--" + word, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    doc = enter(name, pass_on)
    report.write(doc, table(doc), a.json, a.markdown, f"<!-- bench {name}: begin -->", f"<!-- bench {name}: end -->")
    return 0


def enter(name, words):
    """Runs `bench.py NAME WORDS` in a private internet; its last line is the document. Ends this process with its status if it fails."""
    p = subprocess.run([f"{REPO}/tests/world/world", "run", "--root", "--", sys.executable, "-B", f"{HERE}/bench.py", name, *words],
                       stdout=subprocess.PIPE, text=True)
    if p.returncode:
        sys.exit(p.returncode)
    return json.loads(p.stdout.splitlines()[-1])


@contextlib.contextmanager
def served(argv):
    """A server that says a line when it is ready, as long as the block lasts."""
    p = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        if not p.stdout.readline():
            raise RuntimeError(f"{' '.join(argv)}: it ended before it was ready")
        yield p
    finally:
        p.kill()
        p.wait()
        p.stdout.close()


def make(tool):
    """The measuring tool, of TOOL.c."""
    path = os.path.join(os.environ["SM_WORLD_DIR"], tool)
    subprocess.run([os.environ.get("CC") or "cc", "-O2", "-Wall", "-o", path, f"{HERE}/{tool}.c"], check=True)
    return path


def keep_state():
    """Workspaces of a benchmark have a state folder of their own."""
    state = os.path.join(os.environ["SM_WORLD_DIR"], "benchstate")
    os.makedirs(state, 0o700, exist_ok=True)
    os.environ["XDG_STATE_HOME"] = state


def hush():
    """Stops the sniffer of this private internet, which writes a line for every SYN, while connections are counted. Other ones may run beside it."""
    ours = os.environ["SM_WORLD_DIR"] + "/log/wire.jsonl"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as f:
            words = f.read().split("\0")
            if ours in words and any(w.endswith("/sniff.py") for w in words):
                os.kill(int(pid), signal.SIGSTOP)
