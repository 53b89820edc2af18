# SPDX-License-Identifier: BSD-3-Clause
"""Many at once, and rudely: what an ordinary but impatient guest does must not end its workspace."""
import pytest
import worldlib as w

G = ("--egress", "guarded")


@pytest.mark.core
def test_resets_at_any_moment(sm):
    """Connections that are reset while they are dialled, judged or handed over, some of each."""
    g = sm.guest(f"""
import random, struct, threading, time
end = time.monotonic() + 4
done = [0] * 8
def work(k):
    r = random.Random(k)
    while time.monotonic() < end:
        s = socket.socket()
        s.settimeout(10)
        s.connect(("{w.PROTO}", 80))
        s.send(r.choice([b"\\x01\\x02\\x03", b"GET / HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n"]))
        if r.random() < .7:
            time.sleep(r.random() * .0015)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        done[k] += 1
ts = [threading.Thread(target=work, args=(k,)) for k in range(8)]
[t.start() for t in ts]
[t.join() for t in ts]
out["done"] = sum(done)
""", *G)
    assert g.rc == 0 and g.out["done"] > 100, g
    begun = {r["flow"] for r in g.events("egress_dial")}
    ended = {r["flow"] for r in g.events("egress_close")} | {r["flow"] for r in g.events("egress_dial_error")}
    assert begun and begun == ended, sorted(begun ^ ended)[:5]
