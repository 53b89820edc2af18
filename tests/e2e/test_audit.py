# SPDX-License-Identifier: BSD-3-Clause
"""The audit as a file: rights, continuity, hostile names, repeats, a full disk, and the command that prints it."""
import json
import os
import re
import select
import stat
import subprocess

import pytest
import worldlib as w
from conftest import audit_file

OK, EVIL = w.WEB["ok.test"], w.WEB["evil.test"]
STRICT = ("--egress", "strict", "--egress-allow", "ok.test")


@pytest.mark.core
def test_rights_and_place(sm):
    r = sm.guest("pass", "--egress", "guarded")
    f = audit_file(sm.state, r.name)
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o600 and stat.S_IMODE(os.stat(os.path.dirname(f)).st_mode) == 0o700


def test_name_is_generated_and_printed(sm):
    p = sm.cli("run", "--egress", "guarded", "--", "true")
    names = os.listdir(os.path.join(sm.state, "slirp-med"))
    names = [n for n in names if os.path.exists(audit_file(sm.state, n))]
    assert p.returncode == 0 and len(names) == 1 and names[0] in p.stderr.decode(), (p, names)


@pytest.mark.core
def test_a_name_used_again_appends(sm):
    for i in range(3):
        r = sm.guest('dns("ok.test")', *STRICT, name="again")
        assert len(r.events("egress_start")) == i + 1  # read_audit has checked that seq goes on


def test_a_torn_tail_is_ended_and_recorded(sm):
    sm.guest("pass", *STRICT, name="torn")
    f = audit_file(sm.state, "torn")
    before = open(f, "rb").read()
    with open(f, "ab") as h:
        h.write(b'{"ts":"2026-01-01T00:00:00.000000Z","seq":99,"ev')
    p = sm.cli("run", "--name", "torn", *STRICT, "--", "true")
    assert p.returncode == 0, p
    after = open(f, "rb").read()
    assert after.startswith(before) and after.endswith(b"\n"), "nothing that was whole is touched"
    rows, torn = [], 0
    for x in after.splitlines():
        try:
            rows.append(json.loads(x))
        except ValueError:
            torn += 1
    assert torn <= 1, "the torn tail is ended, and nothing is glued to it"
    new = rows[len(before.splitlines()):]
    assert any(re.search("torn|tail|incomplete|truncat", json.dumps({**x, "workspace": ""})) for x in new), f"it is not on record: {new}"


@pytest.mark.core
def test_repeats_are_counted_not_repeated(sm):
    r = sm.guest('out["r"] = [attempt("10.0.0.5", 80)["connect"] for _ in range(300)]; attempt("10.0.0.5", 81); attempt("10.0.0.5", 81)', *STRICT)
    assert len(r.out["r"]) == 300 and set(r.out["r"]) <= ({"ECONNREFUSED"} if sm.datapath == "slirp" else {"ok", "ECONNRESET"})
    rows = r.events("egress_internal_deny", dst="10.0.0.5", port=80)
    # One line at once, one each second, and at the end what the front and the repeats still held.
    assert 2 <= len(rows) <= 6 and "count" not in {k for k, v in rows[0].items() if v not in (0, 1)}, rows
    assert sum(x.get("count", 1) for x in rows) == 300, rows
    assert sum(x.get("count", 1) for x in r.events("egress_internal_deny", port=81)) == 2, "another port is another denial"


@pytest.mark.core
def test_counts_of_every_kind_add_up_at_the_end(sm):
    """Refusals that the front repeats by itself, drops, and queries over the budget: none is lost when CMD just ends."""
    r = sm.guest("""
for i in range(40):
    attempt("10.0.0.5", 80); udp("10.0.0.6", 7, timeout=1)
    dns("x%d.test" % (i % 4))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(40): s.sendto(b"x", ("239.1.2.3", 7))
""", *STRICT, "--egress-dns-qps", "5")
    def total(event, **match):
        return sum(x.get("count", 1) for x in r.events(event, **match))
    assert total("egress_internal_deny", dst="10.0.0.5") == 40, r.text()
    assert total("egress_udp_internal_deny", dst="10.0.0.6") == 40, r.text()
    assert total("egress_dns_deny") == 40, r.text()
    assert total("egress_other_deny", dst="239.1.2.3") == 40, r.text()


def test_first_denial_is_on_record_before_the_guest_knows(sm):
    g = sm.start_guest('attempt("10.0.0.5", 80); say("refused"); sys.stdin.readline()', *STRICT)
    assert g.line() == "refused"
    assert [x for x in g.audit() if x["event"] == "egress_internal_deny"], "written before its effect"
    g.tell("")
    g.end()


def test_an_allowed_dial_is_on_record_before_the_server_sees_it(sm, world, mark):
    g = sm.start_guest(f'S = dial("{w.PROTO}", {w.SSH}); S.recv(99); say("up"); sys.stdin.readline()', "--egress", "guarded")
    assert g.line() == "up"
    assert [x for x in g.audit() if x["event"] == "egress_dial"] and [x for x in g.audit() if x["event"] == "egress_allow"], g.audit()
    g.tell("")
    g.end()


EVILNAMES = [r"b'\x09a\n{\"evt\":'", r"b'\x08\x1b[31mred'", r"b'\x06\xff\xfe\xc3(ab'", r"b'\x05a\0b\0c'", r"b'\x04a\"\\\\b'", "b'\\x3f' + b'z' * 63",
             r"b'\x05..x..'", r"b'\x07\xe2\x80\xaeabcd'"]


@pytest.mark.core
def test_names_cannot_inject_lines_or_escapes(sm):
    r = sm.guest(f"""
for n in ({', '.join(EVILNAMES)}):
    dns(n + b"\\x04test\\0", timeout=1)
for h in (b'a\\x0b{{"event":"egress_allow"}}', b'\\x1b]0;x\\x07', b'\\xff\\xfe', b'a"b\\\\c', b'x' * 3000):
    attempt("{EVIL}", 80, b"GET / HTTP/1.1\\r\\nHost: " + h + b"\\r\\n\\r\\n", timeout=3)
h = hello("aaaaaaaaaa.test").replace(b"aaaaaaaaaa.test", b'a\\n{{"a":1}}\\x1b[2')
attempt("{EVIL}", 443, h, timeout=3)
""", *STRICT, name="inject")
    raw = open(audit_file(sm.state, "inject"), "rb").read()
    raw.decode("utf-8")
    assert not [c for c in raw if c < 32 and c != 10 or c == 127], "control characters are escaped in the file"
    assert all(len(x) < 4096 for x in raw.splitlines())
    r.none("egress_allow")
    for args in (("egress", "inject"), ("egress", "inject", "--json")):
        p = sm.cli(*args)
        assert p.returncode == 0 and not [c for c in p.stdout if c < 32 and c not in (9, 10) or c == 127], p.stdout
        assert b"\xe2\x80\xae" not in p.stdout or "--json" in args, "no direction override on a terminal"


@pytest.mark.core
def test_reader_columns_and_json(sm):
    r = sm.guest('http("ok.test"); attempt("10.0.0.5", 80)', *STRICT, name="reader")
    p = sm.cli("egress", "reader", "--json")
    assert p.returncode == 0 and json.loads(p.stdout) == r.audit, p
    p = sm.cli("egress", "reader")
    lines = p.stdout.decode().splitlines()
    assert p.returncode == 0 and any("egress_allow" in x and "ok.test" in x for x in lines), p.stdout
    where = [next(i for i, x in enumerate(lines) if e in x) for e in ("egress_start", "egress_allow", "egress_stop")]
    assert where == sorted(where), "oldest first"
    p = sm.cli("egress", "nosuch")
    assert p.returncode == 2 and b"nosuch" in p.stderr, p


def test_reader_follows_until_the_workspace_stops(sm):
    g = sm.start_guest('say("up"); sys.stdin.readline(); dns("ok.test"); say("asked"); sys.stdin.readline()', *STRICT, name="follow")
    assert g.line() == "up"
    from conftest import USER
    f = subprocess.Popen(USER + [sm.bin, "egress", "follow", "--follow"], env=sm.env(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        got = b""

        def until(what):
            nonlocal got
            while what not in got:
                assert select.select([f.stdout], [], [], 10)[0], f"no {what} in 10 s: {got}"
                d = os.read(f.stdout.fileno(), 65536)
                assert d, got
                got += d
        until(b"egress_start")
        g.tell("")
        assert g.line() == "asked"
        until(b"egress_dns_allow")
        g.tell("")
        g.end()
        rest, _ = f.communicate(timeout=10)
        assert f.returncode == 0 and b"egress_stop" in got + rest
    finally:
        if f.poll() is None:
            f.kill()


def test_rotation_keeps_the_sequence_and_the_reader_follows(sm):
    # 6,000 denials of a name of 200 bytes each are two files and a half of the smallest size that there is.
    r = sm.run("--egress", "strict", "--audit-max-bytes", "1M", "--egress-dns-qps", "1000000", cmd=sm.guest_cmd("""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect((RESOLVER, 53))
tail = qname(".".join(["n" * 60] * 3) + ".test") + struct.pack("!HH", 1, 1)
for i in range(6000):
    label = b"%05d" % i
    s.send(struct.pack("!HHHHHH", i, 0x0100, 1, 0, 0, 0) + bytes([len(label)]) + label + tail)
    assert s.recv(2000)[3] & 15 == 5
"""), name="rot")
    assert r.rc == 0, r
    d = os.path.dirname(audit_file(sm.state, "rot"))
    files = [f for f in os.listdir(d) if f.startswith("egress")]
    assert len(files) >= 2, files
    assert sum(os.path.getsize(os.path.join(d, f)) for f in files) < 10 << 20, "a guest cannot fill the host's disk"
    rows = json.loads(sm.cli("egress", "rot", "--json").stdout)
    seqs = [x["seq"] for x in rows]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) and rows[-1]["event"] == "egress_stop", (seqs[:3], seqs[-3:])


@pytest.fixture
def small(sm):
    """A state folder on a 1 MiB disk."""
    d = os.path.join(sm.tmp, "small")
    os.mkdir(d)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "small", d], check=True)
    yield d
    subprocess.run(["umount", "-l", d], check=True)


def fill(folder, leave):
    """Fill a disk except for some bytes."""
    st = os.statvfs(folder)
    n = max(0, st.f_bavail * st.f_frsize - leave)
    with open(os.path.join(folder, "filler"), "wb") as f:
        f.write(b"\0" * n)


def test_full_disk_stops_admission_and_tears_nothing(sm, world, mark, small):
    g = sm.start_guest(f"""
say("up"); sys.stdin.readline()
n = [0, 0]
for i in range(20000):
    r = attempt("{w.PROTO}", {w.FIN_ON_ACCEPT}, timeout=3)
    n[0 if r["connect"] == "ok" and r["end"] == "fin" else 1] += 1
    if n[1] >= 20: break
out["n"] = n
out["dns"] = dns("ok.test", timeout=2)
""", "--egress", "guarded", "--state-dir", small, name="full")
    assert g.line() == "up"
    fill(small, 64 << 10)
    r = g.end(120)
    assert r.out["n"][1] >= 20, f"admission went on: {r.out}"
    assert "audit" in r.stderr.decode().lower() and ("full" in r.stderr.decode().lower() or "space" in r.stderr.decode().lower()), r.stderr
    files = [os.path.join(dp, f) for dp, _, fs in os.walk(small) for f in fs if f.startswith("egress.jsonl")]
    assert len(files) == 1
    raw = open(files[0], "rb").read()
    assert raw.endswith(b"\n"), "no torn line"
    rows = [json.loads(x) for x in raw.rstrip(b"\0").splitlines()]
    dialled = len(world.wire(mark, dst=w.PROTO, port=w.FIN_ON_ACCEPT))
    assert dialled == len([x for x in rows if x["event"] == "egress_dial"]), "each connection that left is on record"
    assert not r.out["dns"].get("answers"), "an answer that cannot be recorded is not given"


def test_no_start_on_a_disk_that_is_already_full(sm, small):
    fill(small, 0)
    p = sm.cli("run", "--egress", "guarded", "--state-dir", small, "--name", "nospace", "--", "sh", "-c", "echo ran")
    assert p.returncode == 125 and b"ran" not in p.stdout and b"No space left" in p.stderr, p


def test_log_removed_or_replaced_while_running(sm):
    """Renaming the log away must not silence it: its lines are in one of the two files and none is lost."""
    g = sm.start_guest('dns("ok.test"); say("up"); sys.stdin.readline(); dns("www.ok.test"); out["x"] = 1', *STRICT, name="moved")
    assert g.line() == "up"
    f = audit_file(sm.state, "moved")
    os.rename(f, f + ".away")
    g.tell("")
    g.p.communicate(timeout=30)
    rows = [json.loads(x) for p in (f + ".away", f) if os.path.exists(p) for x in open(p)]
    assert {"egress_dns_allow", "egress_dns_deny"} <= {x["event"] for x in rows}
    seqs = sorted(x["seq"] for x in rows)
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
