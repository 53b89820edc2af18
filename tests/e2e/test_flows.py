# SPDX-License-Identifier: BSD-3-Clause
"""Many flows in one workspace: all of them answer, none costs anything while it waits, and nothing is left of them."""
import json
import time

import worldlib as w

TCP, UDP = 1000, 300


def cpu_ns(pid):
    with open(f"/proc/{pid}/schedstat") as f:
        return int(f.read().split()[0])


def test_many_flows_wait_for_nothing_and_leave_nothing(sm):
    r = sm.start_guest(f"""
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def ask(ss, word):
    for s in ss: s.send(word)
    return sum(s.recv(16) == word for s in ss)
tcp, us = [], []
for i in range({TCP}):
    tcp.append(dial("{w.PROTO}", {w.ECHO}))
    assert ask(tcp[-1:], b"\\x01word") == 1
for i in range({UDP}):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect(("{w.PROTO}", {w.ECHO}))
    us.append(s)
    assert ask([s], b"word") == 1
say("open")
sys.stdin.readline()
out["again"] = ask(tcp[::-1], b"\\x01more"), ask(us[::7], b"more")
for s in tcp: s.close()
say("closed")
sys.stdin.readline()
""", "--egress", "guarded", "--egress-opaque", name="many")
    assert r.line(60) == "open"

    def flows():
        p = sm.cli("status", "many", "--json")
        assert p.returncode == 0, p
        return json.loads(p.stdout)["reports"]["core"]["flows"]
    assert flows() == TCP + UDP
    time.sleep(2)  # the retransmission timers that each connection had come up once more, for nothing
    pids = [p for role, p in r.pids().items() if role in ("core", "nat")]
    assert len(pids) == 2, r.pids()
    before = sum(map(cpu_ns, pids))
    time.sleep(2)  # the time in which nothing happens is what is looked at
    spent = (sum(map(cpu_ns, pids)) - before) / 1e6
    assert spent < 3, f"{spent:.1f} ms for nothing"
    r.tell("go")
    assert r.line(60) == "closed"
    end = time.monotonic() + 20
    while flows() > UDP and time.monotonic() < end:
        time.sleep(0.05)
    assert flows() == UDP  # a datagram socket says nothing when it is closed
    r.tell("end")
    done = r.end()
    assert done.rc == 0 and done.out["again"] == [TCP, len(range(0, UDP, 7))], repr(done)
    assert len(done.events("egress_close")) == TCP
