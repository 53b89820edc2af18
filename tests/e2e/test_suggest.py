# SPDX-License-Identifier: BSD-3-Clause
"""`slirp-med suggest`: what a guarded workspace did is what the suggested file allows under strict, and no more than it says."""
import json
import os
import pty
import select
import subprocess

import pytest
import worldlib as w
from conftest import USER
from test_life import documented

G, S = ("--egress", "guarded"), ("--egress", "strict")
OK, OTHER = w.WEB["ok.test"], w.WEB["other.test"]

# Everything a strict workspace can be told to allow: names intercepted, in clear and left alone, TCP and UDP to addresses, a bare look-up,
# names that are only asserted, a private address by its name.
TRAFFIC = f"""
def short(r): return (r.get("reply") or "")[:12] or r.get("end") or r.get("error")
out["https"] = short(https("ok.test"))
out["http"] = short(http("other.test"))
out["sub"] = [short(http(n)) for n in ("cdn1.test", "www.ok.test")]
out["left_alone"] = short(https("listed.test"))
out["ip"] = short(http("{w.WEB['evil.test']}", "{w.WEB['evil.test']}"))
out["echo"] = attempt("{w.PROTO}", 7, b"z", n=1)["reply"]
out["udp"] = udp("{w.PROTO}", 7)
out["asserted"] = short(http("evil.test", "{w.WEB['evil.test']}"))
out["inside"] = short(http("inside.test"))
out["lookup"] = dns("proto.test")["rcode"]
"""


def suggest(sm, name, *args, rc=0):
    p = sm.cli("suggest", name, *args)
    assert p.returncode == rc, p
    return p.stdout.decode()


def without_time(r):
    return {k: v for k, v in r.items() if k != "udp"} | {"udp": {k: v for k, v in r["udp"].items() if k != "ms"}}


@pytest.mark.core
def test_round_trip(sm):
    f = os.path.join(sm.tmp, "first.yaml")
    with open(f, "w") as o:
        o.write("allow: [inside.test]\npassthrough: [listed.test]\n")
    first = sm.guest(TRAFFIC, *G, "--egress-policy", f)
    first.none("egress_deny")
    path = os.path.join(sm.tmp, "suggested.yaml")
    assert suggest(sm, first.name, "--output", path) == ""
    assert os.stat(path).st_mode & 0o777 == 0o600
    with open(path) as o:
        text = o.read()
    second = sm.guest(TRAFFIC, *S, "--egress-policy", path)
    assert without_time(second.out) == without_time(first.out), (text, second.text())
    for event in ("egress_deny", "egress_udp_deny", "egress_internal_deny", "egress_dns_deny", "egress_dial_error"):
        second.none(event)
    assert [x for x in second.events("egress_allow", host="listed.test") if x["mitm"]] == []
    assert second.some("egress_allow", host="ok.test")["mitm"] is True
    # And what is not in it stays out.
    third = sm.guest('out["r"] = [dns(n)["rcode"] for n in ("line.test", "ok.test")]', *S, "--egress-policy", path)
    assert third.out["r"] == [5, 0], text
    # Suggested again from what it allowed, it is the same.
    again = suggest(sm, second.name)
    entries = lambda t: [x.split("  #")[0] for x in t.splitlines() if x.startswith("  - ")]  # noqa: E731
    assert entries(again) == entries(text)


def test_reasons_warnings_and_json(sm):
    r = sm.guest(f"""
out["denied"] = attempt("10.0.0.5", 80)["connect"]
out["v"] = [dns(n)["rcode"] for n in ("evil.test", "bad.evil.test")]
s = dial("ok.test", {w.UPLOAD})
s.sendall(b"POST / HTTP/1.1\\r\\nHost: ok.test:{w.UPLOAD}\\r\\nContent-Length: 3000000\\r\\nConnection: close\\r\\n\\r\\n" + b"x" * 3000000)
out["up"] = s.recv(12).decode()
""", *S, "--egress-allow", "ok.test")
    p = sm.cli("suggest", r.name)
    text, said = p.stdout.decode(), p.stderr.decode()
    assert p.returncode == 0 and f'"ok.test:{w.UPLOAD}"' in text, p
    assert '#  - "10.0.0.5"  # inside, 1 time' in text and '#  - "evil.test"  # unlisted_name' in text, text
    assert "WARNING" in text and f"warning: ok.test:{w.UPLOAD} took much data out" in said, (text, said)
    assert b"\x1b" not in p.stdout + p.stderr, "no colour in a pipe"
    d = documented(json.loads(suggest(sm, r.name, "--json")), "Suggestion")
    assert d["schema"] == 1 and d["workspace"] == r.name and d["bad_lines"] == 0, d
    assert [(x["list"], x["entry"], x["uploads"], x["warning"]) for x in d["entries"]] == [("allow", f"ok.test:{w.UPLOAD}", 1, True)], d
    assert {(x["entry"], x["reason"], x["opens"]) for x in d["denied"]} >= {("10.0.0.5", "inside", True), ("evil.test", "unlisted_name", True)}, d


def test_rotated_files_and_bad_lines(sm):
    """Both files are read, oldest first; what is no record is named and passed over."""
    r = sm.guest('out["r"] = http("ok.test")["end"]', *G)
    folder = os.path.join(sm.state, "slirp-med", r.name)
    with open(os.path.join(folder, "egress.jsonl"), "rb") as f:
        lines = f.read().splitlines(True)
    half = len(lines) // 2
    with open(os.path.join(folder, "egress.jsonl.1"), "wb") as f:
        f.writelines(lines[:half])
    with open(os.path.join(folder, "egress.jsonl"), "wb") as f:
        f.write(b"no record\n" + b"".join(lines[half:]) + b'{"ts":"torn')
    for name in ("egress.jsonl", "egress.jsonl.1"):
        os.chmod(os.path.join(folder, name), 0o600)
    p = sm.cli("suggest", r.name)
    assert p.returncode == 0 and b'"ok.test"' in p.stdout, p
    assert f"line {half + 1} (behind seq {half})".encode() in p.stderr and b"2 lines of the audit were skipped" in p.stderr, p
    assert b"# 2 lines were no records" in p.stdout, p


def on_terminal(sm, *args, env=None, err=False):
    """What a command writes when its stdout (or stderr) is a terminal."""
    lead, end = pty.openpty()
    p = subprocess.Popen(USER + [sm.bin, *args], env=sm.env({"TERM": "xterm", **(env or {})}), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE if err else end, stderr=end if err else subprocess.PIPE)
    os.close(end)
    got = b""
    while select.select([lead], [], [], 30)[0]:
        try:
            b = os.read(lead, 65536)
        except OSError:
            break
        if not b:
            break
        got += b
    p.communicate(timeout=30)
    os.close(lead)
    return got


def test_colour_only_on_a_terminal(sm):
    r = sm.guest('out["r"] = [http("ok.test")["end"], attempt("10.0.0.5", 80)["connect"]]', *G)
    plain = sm.cli("doctor")  # whose probes take a while
    assert b"\x1b" not in plain.stdout and b"\x1b[" in on_terminal(sm, "doctor") and b"\x1b[" in sm.cli("doctor", "--color=always").stdout
    assert sm.cli("doctor", "--color=blue").returncode == 2
    for cmd in (["suggest", r.name], ["egress", r.name], ["status", r.name], ["check", r.name, "ok.test"]):
        plain = sm.cli(*cmd)
        assert plain.returncode in (0, 1) and b"\x1b" not in plain.stdout, (cmd, plain)
        assert b"\x1b[" in on_terminal(sm, *cmd), cmd
        assert b"\x1b" not in on_terminal(sm, *cmd, env={"NO_COLOR": "1"}), cmd
        assert b"\x1b[" in on_terminal(sm, *cmd, env={"NO_COLOR": ""}), cmd
        assert b"\x1b" not in on_terminal(sm, *cmd, env={"TERM": "dumb"}), cmd
        assert b"\x1b" not in on_terminal(sm, *cmd, "--color", "never"), cmd
        assert b"\x1b" not in on_terminal(sm, *cmd, "--json", "--color=always"), cmd
        always = sm.cli(*cmd, "--color=always")
        assert b"\x1b[" in always.stdout, cmd
        bad = sm.cli(*cmd, "--color=blue")
        assert bad.returncode == 2 and b"--color=blue" in bad.stderr, bad
    # Without the colours it is the same text.
    import re
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", sm.cli("egress", r.name, "--color=always").stdout) == sm.cli("egress", r.name).stdout


def test_progress_only_on_a_terminal(sm):
    """Long work tells where it is on a terminal, and nowhere else."""
    r = sm.guest('out["r"] = http("ok.test")["end"]', *G)
    path = os.path.join(sm.state, "slirp-med", r.name, "egress.jsonl")
    with open(path, "rb") as f:
        lines = [json.loads(x) for x in f.read().splitlines()]
    row = [x for x in lines if x["event"] == "egress_allow"][0]
    with open(path, "ab") as f:
        for i in range(200000):
            f.write(json.dumps({**row, "seq": len(lines) + 1 + i}).encode() + b"\n")
    assert b"reading the audit: " in on_terminal(sm, "suggest", r.name, err=True)
    assert b"reading the audit" not in on_terminal(sm, "suggest", r.name, env={"TERM": "dumb"}, err=True)
    p = sm.cli("suggest", r.name)
    assert p.returncode == 0 and p.stderr == b"", p


def test_wrong_use(sm):
    r = sm.guest('out["r"] = 1', *G)
    for args, words, rc in ((("nosuch",), "nosuch", 2), ((), "NAME", 2), ((r.name, "--force"), "--force", 2), ((r.name, "--output"), "--output", 2),
                            ((r.name, "--output="), "--output=", 2), ((r.name, "--output=a", "--output=b"), "twice", 2),
                            ((r.name, "--output", "/nonexistent/x"), "--output=/nonexistent/x", 1), ((r.name, "--color"), "--color", 2)):
        p = sm.cli("suggest", *args)
        assert p.returncode == rc and words in p.stderr.decode() and not p.stdout, (args, p)
    assert sm.cli("suggest", "--help").returncode == 0
    # A file that cannot be replaced stays as it was.
    keep = os.path.join(sm.tmp, "ro")
    os.mkdir(keep, 0o755)
    with open(os.path.join(keep, "f.yaml"), "w") as f:
        f.write("allow: [keep.test]\n")
    os.chmod(keep, 0o555)
    p = sm.cli("suggest", r.name, "--output", os.path.join(keep, "f.yaml"))
    assert p.returncode == 1, p
    with open(os.path.join(keep, "f.yaml")) as f:
        assert f.read() == "allow: [keep.test]\n"
