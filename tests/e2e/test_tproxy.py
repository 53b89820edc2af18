# SPDX-License-Identifier: BSD-3-Clause
"""The kernel path (--datapath tproxy): what is its own. All else is held by the core sets of the other files, which run over both datapaths."""
import json
import os
import signal
import subprocess
import sys

import pytest
import worldlib as w
from conftest import USER, alive, descendants

OK = w.WEB["ok.test"]
GUARDED = ("--egress", "guarded")
REFUSAL = ("egress: UDP mediation (TPROXY) unavailable for workspace {} \N{EM DASH} load the TPROXY kernel modules or use --egress off")

NO_NFT = os.path.join(os.path.dirname(__file__), "no_nft.py")


@pytest.fixture
def datapath():
    return "tproxy"


def refused(sm, world, mark, name, wrap, *flags):
    p = subprocess.run([*wrap, sm.bin, "run", "--name", name, *flags, "--", "sh", "-c", "echo ran"], env=sm.env(), capture_output=True,
                       timeout=60)
    assert p.returncode == 125 and b"ran" not in p.stdout, p
    assert not sm.left() and not world.wire(mark)
    return p.stderr.decode().rstrip("\n")


@pytest.mark.core
def test_refused_in_the_specs_words(sm, world, mark):
    """No fall-back to the other datapath, and none to a guest without a mediator."""
    said = refused(sm, world, mark, "tp", [*USER, sys.executable, NO_NFT], "--datapath", "tproxy")
    assert said == REFUSAL.format("tp")


def test_without_tun_the_slirp_path_refuses_too(sm, world, mark):
    hide = ["unshare", "-U", "-r", "-m", "--", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$0" "$@"', *USER]
    said = refused(sm, world, mark, "sl", hide)
    assert "/dev/net/tun" in said and "modprobe tun" in said, said


def test_the_other_datapath_needs_no_tun(sm):
    hide = ["unshare", "-U", "-r", "-m", "--", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$0" "$@"', *USER]
    p = subprocess.run([*hide, sm.bin, "run", "--name", "nt", "--datapath", "tproxy", "--", "sh", "-c", "echo ran"], env=sm.env(),
                       capture_output=True, timeout=60)
    assert p.returncode == 0 and p.stdout == b"ran\n", p


@pytest.mark.core
def test_a_refusal_is_a_reset_without_a_byte(sm, world, mark):
    """The one difference of spec section 10: the kernel has completed the handshake before anybody is asked."""
    r = sm.guest(f"""
out["denied"] = attempt("10.0.0.5", 80, b"GET / HTTP/1.1\\r\\n\\r\\n")
out["closed"] = attempt("{OK}", {w.CLOSED})
out["own"] = attempt(GATEWAY, 1)
out["again"] = attempt("10.0.0.5", 80)
""", *GUARDED)
    for k, v in r.out.items():
        # A connection that is reset before the guest looks is refused for it: both are a RST.
        assert (v["connect"], v["end"]) in (("ok", "ECONNRESET"), ("ok", "EPIPE"), ("ECONNRESET", "")) and not v["reply"], (k, v)
        assert v["ms"] < 500, (k, v)
    assert r.some("egress_internal_deny", dst="10.0.0.5")
    assert r.one("egress_dial_error", port=w.CLOSED)["reason"]
    assert not world.wire(mark, dst="10.0.0.5")
    assert r.one("egress_start")["datapath"] == "tproxy"


@pytest.mark.core
def test_datagrams_come_from_where_they_were_sent_to(sm):
    r = sm.guest(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
for a in ("{w.PROTO}", "{OK}"): s.sendto(a.encode(), (a, 7))
out["from"] = sorted(list(s.recvfrom(100)[1]) for _ in range(2))
out["large"] = len(udp("{w.PROTO}", 7, b"z" * 6000)["got"][0])
out["dns"] = [dns("ok.test", server=a)["rcode"] for a in (RESOLVER, GATEWAY, "{w.OTHER_RESOLVER}")]
""", *GUARDED)
    assert r.out["from"] == sorted([[w.PROTO, 7], [OK, 7]]), r.out
    assert r.out["large"] == 6000 and r.out["dns"] == [0, 0, 0], r.out


UDP_SEGMENT = 103


@pytest.mark.core
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_runs_of_datagrams_arrive_one_by_one(sm, mtu):
    """What the guest's kernel is to cut, and what comes back of one size at once (a frame that the kernel cuts, or fragments), is datagrams to
    both."""
    r = sm.guest(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(("{w.PROTO}", 7))
s.send(b"first"); s.recv(10)  # until the verdict a few are held
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
out["bad"], out["lost"] = [], 0
for size, n, last in ((1000, 30, 30), (1000, 30, 1), (1, 40, 1), ({mtu} - 28, 5, 7), ({mtu} - 27, 1, 0), (512, 60, 512)):
    want = [bytes([i]) * size for i in range(n)] + ([b"z" * last] if last else [])
    s.sendmsg([b"".join(want)], [(socket.IPPROTO_UDP, {UDP_SEGMENT}, size.to_bytes(2, sys.byteorder))] if last else [])
    got = []
    try:
        while len(got) < len(want): got.append(s.recv(70000))
    except socket.timeout:
        out["lost"] += len(want) - len(got)
    if [x for x in got if x not in want] or len(set(got)) != len(got): out["bad"].append([size, [len(x) for x in got]])
""", *GUARDED, "--mtu", str(mtu))
    assert r.out == {"bad": [], "lost": 0}, r.out


@pytest.mark.core
@pytest.mark.parametrize("flags", [(), ("--egress-max-total-bytes", str(1 << 30))], ids=["handed over", "counted"])
def test_bulk_is_spliced(sm, flags):
    """By the front's own count, in its sandbox, for a flow that is handed over and one that the core counts."""
    n = 128 << 20
    run = sm.start_guest(f"""
s = dial("{w.PROTO}", {w.SOURCE}, timeout=60); s.sendall(b"{n}\\n")
total = 0
while d := s.recv(1 << 20): total += len(d)
out["n"] = total
say("read"); sys.stdin.readline()
""", *GUARDED, *flags)
    assert run.line() == "read", run.errors()
    st = json.loads(sm.cli("status", run.name, "--json").stdout)
    run.tell("go")
    r = run.end()
    assert r.out["n"] == n and r.one("egress_close", port=w.SOURCE)["bytes_down"] == n, r
    assert st["reports"]["front"]["spliced"] > n // 2, st


def test_all_modes_and_the_status_say_which_path_it_is(sm):
    run = sm.start_guest('say("up"); sys.stdin.readline(); out["r"] = http("ok.test")["reply"]', *GUARDED, "--egress-opaque")
    assert run.line() == "up", run.errors()
    st = json.loads(sm.cli("status", run.name, "--json").stdout)
    assert st["datapath"] == "tproxy", st
    assert st["pids"]["keeper"] == keeper_of(run.p.pid) == st["processes"]["keeper"]["pid"], st
    run.tell("go")
    r = run.end()
    assert r.rc == 0 and "addr=" in r.out["r"], r


def keeper_of(pid):
    for p in descendants(pid):
        with open(f"/proc/{p}/comm") as f:
            if f.read() == "slirp-med-keep\n":
                return p
    raise AssertionError("there is no keeper")


@pytest.mark.core
@pytest.mark.parametrize("role", ["nat", "core", "guest-init", "keeper"])
def test_any_process_that_dies_takes_the_network_with_it(sm, world, role):
    run = sm.start_guest(f"""
s = dial("{w.PROTO}", {w.SSH}); read(s, 4)
say("up")
sys.stdin.readline()
say(repr(attempt("{OK}", 80, b"x", timeout=3)))
""", *GUARDED)
    assert run.line() == "up", run.errors()
    own = run.pids()
    victim = keeper_of(run.p.pid) if role == "keeper" else own[role]
    mark = world.mark()
    os.kill(victim, signal.SIGKILL)
    r = run.end()
    assert r.rc == 125, r
    assert not alive(victim) and not sm.left()
    # Neither keeper nor guest-init is in the way of what the guest sends: what it may still begin until all end is mediated, and recorded, as ever.
    seen = world.wire(mark, dst=OK)
    assert not seen or (role in ("keeper", "guest-init") and r.events("egress_dial", dst=OK)), (role, seen)


def test_the_keeper_has_one_capability(sm):
    run = sm.start_guest('say("up"); sys.stdin.readline(); out["x"] = 1', *GUARDED)
    assert run.line() == "up", run.errors()
    keeper, front = keeper_of(run.p.pid), run.pids()["nat"]
    with open(f"/proc/{keeper}/status") as f:
        status = dict(line.split(":", 1) for line in f)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << 13, status  # CAP_NET_RAW
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0 and status["Seccomp"].strip() == "2", status
    assert status["NoNewPrivs"].strip() == "1", status
    with open(f"/proc/{front}/status") as f:
        status = dict(line.split(":", 1) for line in f)
    assert int(status["CapPrm"], 16) == 0 and status["Seccomp"].strip() == "2", status
    spaces = {p: os.readlink(f"/proc/{p}/ns/net") for p in (keeper, front, run.pids()["init"])}
    assert len(set(spaces.values())) == 3, f"mediator's, front's (empty) and guest's are three: {spaces}"
    run.tell("go")
    assert run.end().rc == 0
