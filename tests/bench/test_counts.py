# SPDX-License-Identifier: BSD-3-Clause
"""`./dev bench check` fails when it should: over records that were altered, and over a real harness. And where a table goes."""
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
import counts  # noqa: E402
import report  # noqa: E402

QUICK, ALLOCATES = "core-udp-up", "core-denied"


def record(**counts_of):
    """By name: instructions, system calls, and allocations, if not 0."""
    return {n: {"unit": "thing", "instructions": c[0], "system calls": c[1], "allocations": c[2] if len(c) > 2 else 0} for n, c in counts_of.items()}


def compare(recorded, measured, there_are="ab"):
    return counts.compare(recorded, measured, there_are)


def test_a_growth_of_more_than_a_tenth_is_named():
    wrong, better = compare(record(a=(1000, 10), b=(1000, 10)), record(a=(1101, 10), b=(1099, 10)))
    assert len(wrong) == 1 and not better
    assert wrong[0].startswith("a: instructions for one thing: 1,000.00 before, 1,101.00 now (+10.1 %)")


def test_a_system_call_more_is_a_growth():
    wrong, _ = compare(record(a=(1000, 3)), record(a=(1000, 4)))
    assert len(wrong) == 1 and "system calls" in wrong[0] and "3.00 before, 4.00 now" in wrong[0]


def test_an_allocation_where_there_was_none_is_a_growth():
    wrong, better = compare(record(a=(1000, 3, 0)), record(a=(1000, 3, 0.0025)))
    assert len(wrong) == 1 and not better and wrong[0].startswith("a: allocations for one thing: 0.0000 before, 0.0025 now")


def test_allocations_may_not_grow_by_more_than_a_tenth_either():
    before, now = ({n: (1000, 3, made) for n, made in zip("abc", x)} for x in ((20, 20, 20), (23, 22, 17)))
    wrong, better = compare(record(**before), record(**now), "abc")
    assert [x.split(":")[0] for x in wrong] == ["a"] and [x.split(":")[0] for x in better] == ["c"]


def test_the_allocations_of_a_harness_whose_number_is_known():
    """Each of the family once, and GLib's two; as many outside of what is counted are not in it."""
    tool = HERE.parent.parent / "build" / "tests" / "bench" / "bench_counts"
    assert counts.allocations(str(tool), "known") == 10


def test_what_shrank_is_to_be_recorded():
    wrong, better = compare(record(a=(1000, 10)), record(a=(890, 10)))
    assert not wrong and len(better) == 1 and "1,000.00 before, 890.00 now" in better[0]


def test_what_is_not_recorded_is_wrong():
    wrong, _ = compare({}, record(a=(1, 1)))
    assert len(wrong) == 1 and "not recorded" in wrong[0]
    wrong, _ = compare({"a": {"instructions": 1, "allocations": 0}}, record(a=(1, 1)))
    assert len(wrong) == 1 and "system calls: not recorded" in wrong[0]


def check(tmp_path, alter, name=QUICK):
    with open(counts.RECORDED) as f:
        recorded = json.load(f)
    alter(recorded)
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(recorded))
    argv = [sys.executable, "-B", HERE / "bench.py", "check", "--only", name, "--counts", path]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


def test_over_the_real_harness(tmp_path):
    same = check(tmp_path, lambda r: None)
    assert same.returncode == 0, same.stderr
    assert "none more than 10 % above" in same.stdout

    def less(r):
        r["counts"][QUICK]["instructions"] *= 0.5

    grown = check(tmp_path, less)
    assert grown.returncode == 1
    assert f"{QUICK}: instructions for one" in grown.stderr and "before" in grown.stderr and "bench profile" in grown.stderr

    def nothing(r):
        r["counts"][ALLOCATES]["allocations"] = 0

    grown = check(tmp_path, nothing, ALLOCATES)
    assert grown.returncode == 1 and f"{ALLOCATES}: allocations for one" in grown.stderr

    def more(r):
        r["counts"][QUICK]["instructions"] *= 2

    shrunk = check(tmp_path, more)
    assert shrunk.returncode == 0 and "record it" in shrunk.stdout

    def other(r):
        r["made with"]["build"] = "buildtype=debug"

    assert check(tmp_path, other).returncode == 2


def test_a_harness_that_is_gone_is_wrong():
    wrong, _ = compare(record(a=(1, 1), b=(1, 1)), record(a=(1, 1)), there_are="a")
    assert len(wrong) == 1 and wrong[0].startswith("b: ") and "no such harness" in wrong[0]


def test_callgrind_numbers_its_names():
    text = """events: Ir sysCount sysTime sysCpuTime
fn=(1) main
1 5
cfn=(2) counts_counted_turn
calls=3 7
2 100 4 9 9
cfn=(3) other
calls=1 7
2 1000 40
fn=(2)
9 1
cfn=(3)
calls=9 9
9 90 9
fn=(1)
cfn=(2)
calls=1 7
2 20
"""
    assert counts.inclusive(iter(text.splitlines(True))) == (4, 120, 4)


def test_a_table_keeps_what_is_around_it(tmp_path):
    path = tmp_path / "x.md"
    path.write_text("before\n<b>\nold\n<e>\nafter\n")
    report.write(None, "new\n", None, path, "<b>", "<e>")
    assert path.read_text() == "before\n<b>\nnew\n<e>\nafter\n"
    report.write(None, "more\n", None, path, "<c>", "<d>")
    assert path.read_text() == "before\n<b>\nnew\n<e>\nafter\n\n<c>\nmore\n<d>\n"
