#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Instructions, system calls and allocations of one thing done once: a frame, a connection, a request. Repeatable, so they can be compared.

bench.py check [--tools FOLDER] [--only NAME,...] [--counts FILE] [--record]
bench.py profile NAME|all [--tools FOLDER] [--top N] [--markdown FILE]

bench_counts (counts.h) has a front or a core in one process with a scripted other side. It runs under callgrind, which counts what is done below
counts_counted_turn() and nothing else: user-space instructions, and system calls, whose own cost no instruction count shows. `check` compares with
counts.json and fails when a count has grown by more than a tenth; a count that has shrunk by as much is to be recorded, so that it cannot grow back
unseen. `profile` says in which functions the instructions are.

What a count depends on: the code, the compiler and its flags, the libraries. Not the machine's load, and not its processor: callgrind shows a
program one of a few processors of its own, and what that leaves open is closed by PINS (glibc's and OpenSSL's choice of routines: SSE2 copies, AES-NI
and PCLMULQDQ without AVX, no ADX, no SHA extensions). So the counts are not those of the routines that a present processor would run: they are for
comparing.

Allocations are the calls of malloc and its family (counts_alloc.c), by whatever library; they are counted by the program itself in a second run,
without callgrind, in which GLib's slices are allocations like others. What is nought has to stay so.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import report

HERE = os.path.dirname(os.path.realpath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
RECORDED = os.path.join(HERE, "counts.json")
BEGIN, END = "<!-- bench profile: begin -->", "<!-- bench profile: end -->"
GROWTH = 0.10
# A system call more or less in ten of something, which differs from run to run, is none. Allocations do not differ.
SLACK = {"instructions": 20.0, "system calls": 0.25, "allocations": 0.0}
DIGITS = {"instructions": 2, "system calls": 2, "allocations": 4}
COUNTED = "counts_counted_turn"
# OPENSSL_ia32cap: without AVX, FMA, MOVBE, OSXSAVE, XOP, RDRAND; and nothing of leaf 7.
PINS = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX_Fast_Unaligned_Load,-BMI1,-BMI2,-ERMS,-FSRM,-MOVBE,-RTM",
        "OPENSSL_ia32cap": "~0x5840180000000000:0x0", "MALLOC_ARENA_MAX": "1"}


def run(argv, **env):
    """What a harness says at its end: (how often, turns, allocations)."""
    p = subprocess.run(argv, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, env={**os.environ, **PINS, **env})
    if p.returncode:
        raise RuntimeError(f"{argv[-1]}: exit status {p.returncode}: {p.stderr.strip()[-500:]}")
    return map(int, p.stdout.split())


def allocations(tool, name):
    """Of one unit."""
    n, _, made = run([tool, name], G_SLICE="always-malloc")
    return made / n


def callgrind(tool, name, out):
    """Runs one harness; its counts for one unit, and how many there were. The profile stays in out."""
    n, turns, _ = run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={COUNTED}", "--collect-systime=nsec",
                       tool, name])
    with open(out) as f:
        calls, instructions, system = inclusive(f)
    if calls != turns:
        raise RuntimeError(f"{name}: {turns} turns, and callgrind saw {calls}")
    return {"instructions": instructions / n, "system calls": system / n, "allocations": allocations(tool, name)}, n


def inclusive(lines):
    """(calls, instructions, system calls) of COUNTED with all below it, out of a callgrind file."""
    calls = instructions = system = 0
    ours, here, columns = None, False, []
    for line in lines:
        if line.startswith("events:"):
            columns = line.split()[1:]
        m = re.match(r"(c?fn)=(\(\d+\))(?: (.*))?", line)
        if m:  # a number stands for a name that was spelled out once
            if m.group(3) == COUNTED:
                ours = m.group(2)
            if m.group(1) == "cfn":
                here = m.group(2) == ours
        elif line.startswith("calls=") and here:
            cost = list(map(int, next(lines).split()[1:])) + [0] * len(columns)
            calls += int(line[6:].split()[0])
            instructions += cost[columns.index("Ir")]
            system += cost[columns.index("sysCount")]
    return calls, instructions, system


def harnesses(tool):
    """{name: unit}."""
    text = subprocess.run([tool, "list"], capture_output=True, text=True, check=True).stdout
    return {x[0]: x[2] for x in (line.split("\t") for line in text.splitlines())}


def measure(tool, names):
    """({name: counts}, [what failed])."""
    got, failed = {}, []

    def one(name):
        with tempfile.TemporaryDirectory(prefix="sm-counts.") as d:
            return callgrind(tool, name, os.path.join(d, "out"))[0]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for name, result in [(n, pool.submit(one, n)) for n in names]:
            try:
                got[name] = {k: round(v, DIGITS[k]) for k, v in result.result().items()}
            except (RuntimeError, subprocess.SubprocessError, OSError, ValueError) as e:
                failed.append(str(e))
    return got, failed


def made_with(tools):
    """What the counts depend on beside the code."""
    info = os.path.join(tools, "..", "..", "meson-info")
    with open(os.path.join(info, "intro-buildoptions.json")) as f:
        options = {o["name"]: o["value"] for o in json.load(f)}

    # What each compiler that had a part in it wrote into it.
    comment = subprocess.run(["readelf", "-p", ".comment", os.path.join(tools, "bench_counts")], capture_output=True, text=True, check=True).stdout
    compilers = sorted(set(re.findall(r"\]\s+(.+)", comment)))

    def version(package):
        p = subprocess.run(["pkg-config", "--modversion", package], capture_output=True, text=True)
        return p.stdout.strip() if p.returncode == 0 else "unknown"

    return {"build": " ".join(f"{k}={options[k]}" for k in ("buildtype", "optimization", "b_ndebug", "b_lto", "b_sanitize")),
            "compiler": ", ".join(compilers), "libc": " ".join(os.confstr("CS_GNU_LIBC_VERSION").split()),
            "glib": version("glib-2.0"), "openssl": version("openssl"), "nghttp2": version("libnghttp2"),
            "valgrind": subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()}


def compare(recorded, measured, there_are):
    """What is wrong (a list of sentences), and what is better than recorded. Both {name: {kind: count}}; there_are: the names of all harnesses."""
    wrong = [f"{n}: recorded, and there is no such harness any more; ./dev bench check --record" for n in recorded if n not in there_are]
    better = []
    for name in measured:
        if name not in recorded:
            wrong.append(f"{name}: not recorded; ./dev bench check --record")
            continue
        for kind, slack in SLACK.items():
            before, now = recorded[name].get(kind), measured[name][kind]
            if before is None:
                wrong.append(f"{name}: {kind}: not recorded; ./dev bench check --record")
                continue
            unit, growth = recorded[name].get("unit", "unit"), 100 * (now / before - 1) if before else 100
            text = f"{name}: {kind} for one {unit}: {before:,.{DIGITS[kind]}f} before, {now:,.{DIGITS[kind]}f} now ({growth:+.1f} %)"
            if now > before * (1 + GROWTH) and now - before > slack:
                wrong.append(text)
            elif now < before * (1 - GROWTH) and before - now > slack:
                better.append(text)
    return wrong, better


def check(a):
    with open(a.counts) as f:
        recorded = json.load(f)
    units, now_with = harnesses(a.tool), made_with(a.tools)
    names = a.only.split(",") if a.only else list(units)
    unknown = [n for n in names if n not in units]
    if unknown:
        print(f"bench check: no such harness: {', '.join(unknown)}; there are: {', '.join(units)}", file=sys.stderr)
        return 2
    if now_with["build"] != recorded["made with"]["build"] and not a.record:
        print(f"bench check: the counts are of a build with {recorded['made with']['build']}; this one has {now_with['build']}", file=sys.stderr)
        return 2
    measured, failed = measure(a.tool, names)
    if a.record:
        if failed:
            print("\n".join(failed), file=sys.stderr)
            return 1
        kept = {} if not a.only else {n: c for n, c in recorded["counts"].items() if n in units}
        counts = {**kept, **{n: {"unit": units[n], **c} for n, c in measured.items()}}
        with open(a.counts, "w") as f:
            f.write(json.dumps({"made with": now_with, "counts": {n: counts[n] for n in units if n in counts}}, indent=1) + "\n")
        print(f"recorded: {len(measured)} harnesses")
        return 0
    wrong, better = compare(recorded["counts"], measured, units)
    wrong += failed
    for name, c in measured.items():
        print(f"{name:30} {c['instructions']:14,.1f} instructions {c['system calls']:8.2f} system calls {c['allocations']:9.2f} allocations "
              f"for one {units[name]}")
    for text in better:
        print(f"better: {text}\n  record it, so that it cannot grow back unseen: ./dev bench check --record")
    if wrong:
        print("\nbench check: more than is recorded in tests/bench/counts.json:\n  " + "\n  ".join(wrong), file=sys.stderr)
        print("Where it is: ./dev bench profile NAME, here and at the commit before. "
              "A growth that is meant: ./dev bench check --record, and say why in the commit.", file=sys.stderr)
        for k, v in recorded["made with"].items():
            if now_with.get(k) != v:
                print(f"Recorded with {k} {v}; this is {now_with.get(k)}.", file=sys.stderr)
        return 1
    print(f"bench check: {len(measured)} harnesses, none more than {100 * GROWTH:.0f} % above what is recorded")
    return 0


LINE = re.compile(r"^\s*([\d,]+)(?: \(\s*[\d.]+%\))?\s+(.*?):([^:\[]+?)\s*(?:\[([^]]*)\])?$")


def functions(out, below):
    """[(function, instructions)], most first; with all that it calls, if below. Not the harness's own, nor the loop around it all."""
    text = subprocess.run(["callgrind_annotate", "--threshold=100", "--auto=no", "--show=Ir", f"--inclusive={'yes' if below else 'no'}", out],
                          capture_output=True, text=True, check=True).stdout
    got, around = {}, {COUNTED}
    for m in filter(None, map(LINE.match, text.split("file:function", 1)[1].splitlines())):
        n, path, name, where = int(m.group(1).replace(",", "")), m.group(2), m.group(3), os.path.basename(m.group(4) or "")
        if name.startswith("0x"):
            if not below:
                got[where, "(no name)"] = got.get((where, "(no name)"), 0) + n
            continue
        name = re.sub(r"(\.(part|constprop|isra|cold)(\.\d+)?|'\d+|@@?[\w.]+)+$", "", name)
        if re.search(r"tests/(bench|unit)/.*\.[ch]$", path):
            around.add(name)
            continue
        # What is inlined out of a header belongs to the function, and two files may have a function of one name.
        file = re.sub(r"\.so.*", "", where) if path == "???" or where.startswith("libc.so") else "" if path.endswith(".h") else os.path.basename(path)
        key = file, name
        got[key] = max(got.get(key, 0), n) if below else got.get(key, 0) + n
    for name in [name for file, name in got if not file]:
        n, files = got.pop(("", name)), [k for k in got if k[1] == name]
        key = max(files, key=got.get, default=("", name))
        got[key] = max(got.get(key, 0), n) if below else got.get(key, 0) + n
    if below:
        around |= {"sm_loop_turn", "main", "_start", "(below main)", "__libc_start_main", "__libc_start_call_main"}
    return sorted(((f"{f}: {name}" if f else name, n) for (f, name), n in got.items() if name not in around), key=lambda x: -x[1])


def profile_one(a, name, unit):
    with tempfile.TemporaryDirectory(prefix="sm-counts.") as d:
        counts, n = callgrind(a.tool, name, os.path.join(d, "out"))
        alone, below = (functions(os.path.join(d, "out"), x) for x in (False, True))
    total = counts["instructions"]
    below = [(f, x) for f, x in below if x < 0.85 * n * total]  # the chain of calls that leads to the rest says nothing
    lines = [f"**{name}**: one {unit}: {total:,.0f} instructions, {counts['system calls']:.2f} system calls, "
             f"{counts['allocations']:.2f} allocations.", "",
             "| in the function itself | instructions | | with what it calls | instructions | |", "|---|---|---|---|---|---|"]
    for (f, x), (g, y) in zip(alone[:a.top], below[:a.top]):
        lines.append(f"| `{f}` | {x / n:,.0f} | {100 * x / n / total:.1f} % | `{g}` | {y / n:,.0f} | {100 * y / n / total:.1f} % |")
    return counts, "\n".join(lines) + "\n"


def profile(a):
    units = harnesses(a.tool)
    names = list(units) if a.name == "all" else [a.name]
    if names[0] not in units:
        print(f"bench profile: no harness {a.name}; there are: {', '.join(units)}", file=sys.stderr)
        return 2
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        made = list(pool.map(lambda n: profile_one(a, n, units[n]), names))
    lines = ["Counted with " + "; ".join(f"{k} {v}" if v[:1].isdigit() else v for k, v in made_with(a.tools).items()) + ".", "",
             "| harness | one | instructions | system calls | allocations |", "|---|---|---|---|---|"]
    lines += [f"| {n} | {units[n]} | {c['instructions']:,.0f} | {c['system calls']:.2f} | {c['allocations']:.2f} |" for n, (c, _) in zip(names, made)]
    report.write(None, "\n".join(lines + [""] + [text for _, text in made]), None, a.markdown, BEGIN, END)
    return 0


def main(argv):
    what = argv[0]
    ap = argparse.ArgumentParser(prog=f"bench.py {what}", description=__doc__.splitlines()[0])
    if what == "profile":
        ap.add_argument("name", metavar="NAME", help="a harness, or all")
        ap.add_argument("--top", type=int, default=15, help="so many functions")
        ap.add_argument("--markdown", help="write the tables here; in a file with the two marker lines, between them")
    else:
        ap.add_argument("--only", help="names of harnesses, comma separated")
        ap.add_argument("--counts", default=RECORDED, help="what was recorded (default: tests/bench/counts.json)")
        ap.add_argument("--record", action="store_true", help="write what is measured now into that file")
    ap.add_argument("--tools", default=os.path.join(REPO, "build", "tests", "bench"), help="where bench_counts is (default: build/tests/bench)")
    a = ap.parse_args(argv[1:])
    a.tool = os.path.realpath(os.path.join(a.tools, "bench_counts"))
    if not os.access(a.tool, os.X_OK):
        ap.error(f"no bench_counts in {a.tools}: ninja -C BUILD tests/bench/bench_counts")
    if not shutil.which("valgrind"):
        ap.error("there is no valgrind: apt-get install valgrind")
    return profile(a) if what == "profile" else check(a)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
