# SPDX-License-Identifier: BSD-3-Clause
"""The guest's vsock by the cloud kernel's own driver, on a vsock device of ours (vhost-user), and the serial port for guests without one."""
import contextlib
import hashlib
import os
import socket
import threading

import pytest
import worldlib as w

MIB = 1 << 20


# A stream that stays; its program's pid is in /tmp/held.
HELD_OPEN = "rm -f /tmp/in; mkfifo /tmp/in; socat - VSOCK-CONNECT:2:5000 <>/tmp/in >/dev/null 2>&1 & echo $! >/tmp/held"


@pytest.fixture
def echo():
    """The operator's control plane: says back what it hears, up to the end."""
    srv = socket.create_server(("127.0.0.1", 0), backlog=128)

    def one(c):
        with c, contextlib.suppress(OSError):
            while data := c.recv(65536):
                c.sendall(data)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(srv.accept()[0],), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    yield srv.getsockname()[1]
    with contextlib.suppress(OSError):
        srv.shutdown(socket.SHUT_RDWR)
    srv.close()


def served(vms, name, port, echo):
    p = vms.attach(name, port, "--vhost-user-vsock", f"{vms.tmp}/{name}.vsock", "--serial", f"{vms.tmp}/{name}.serial", "--mediation",
                   f"5000=127.0.0.1:{echo}")
    # QEMU 7.2 under TCG crashes with MSI-X on a vhost-user device.
    p.qemu = [a + ",vectors=0" if a.startswith("vhost-user-vsock-pci") else a for a in p.qemu]
    return p


def certificate(vms, name):
    with open(os.path.join(vms.state, "slirp-med", name, "ca.pem")) as f:
        return f.read()


@pytest.mark.parametrize("port", [pytest.param("stream", marks=pytest.mark.slow), "vhost-user"])
def test_vsock_of_a_real_guest(vms, echo, port):
    g = vms.qemu(served(vms, "v1", port, echo))
    # The certificate, and nothing where there is nothing.
    assert g.ok("socat -u VSOCK-CONNECT:2:1027 -") == certificate(vms, "v1")
    g.recorded("ca_delivered", via="vsock")
    rc, said = g.sh("socat -u VSOCK-CONNECT:2:4444 - 2>&1")
    assert rc != 0 and "reset" in said, said
    assert g.recorded("mediation_error", vsock_port=4444)["reason"] == "not_listed"
    # The serial port says the same.
    got = g.ok("P=$(ls /dev/vport*p1); exec 3<>$P; printf 'ca\\n' >&3; head -c %d <&3" % len(certificate(vms, "v1")))
    assert got == certificate(vms, "v1")
    # Bytes both ways at once, the guest's half-close, and the end: identical.
    g.ok("dd if=/dev/urandom of=/tmp/blob bs=1M count=4 2>/dev/null")
    want = g.ok("sha256sum </tmp/blob")
    assert g.ok("socat -t 60 - VSOCK-CONNECT:2:5000 </tmp/blob | sha256sum", timeout=200) == want
    c = g.recorded("mediation_close", vsock_port=5000)
    assert (c["bytes_up"], c["bytes_down"], c["reason"]) == (4 * MIB, 4 * MIB, "closed")
    # Many streams, one after the other and at once.
    said = g.ok("for i in $(seq 20); do (echo $i | socat -t 30 - VSOCK-CONNECT:2:5000) & done; wait", timeout=200)
    assert sorted(map(int, said.split())) == list(range(1, 21))
    # A program that is killed in the middle.
    before = len(g.events("mediation_open"))
    g.ok(HELD_OPEN)
    w.wait_for("the connection", lambda: len(g.events("mediation_open")) > before, 20)
    g.ok("kill -9 $(cat /tmp/held)")
    w.wait_for("every connection's end", lambda: len(g.events("mediation_close")) == len(g.events("mediation_open")) == 22, 20)


@pytest.mark.slow
def test_vmm_comes_again(vms, echo):
    """A VMM that is killed leaves no stream behind; the next one finds the same ports."""
    p = served(vms, "v2", "stream", echo)
    g = vms.qemu(p)
    g.ok(HELD_OPEN)
    w.wait_for("the connection", lambda: g.events("mediation_open"), 20)
    g.p.kill()
    w.wait_for("its end", lambda: g.events("mediation_close"), 20)
    again = vms.qemu(p)
    assert again.ok("echo again | socat -t 30 - VSOCK-CONNECT:2:5000") == "again\n"
    assert hashlib.sha256(again.ok("socat -u VSOCK-CONNECT:2:1027 -").encode()).digest() == \
        hashlib.sha256(certificate(vms, "v2").encode()).digest()
