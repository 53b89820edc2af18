# SPDX-License-Identifier: BSD-3-Clause
"""libslirp-med as a stranger uses it: `meson install` into an empty folder, a program built with pkg-config alone, and a workspace run by it.

The program (tests/embed/host.c) has threads that allocate, fork and open descriptors all the time. The guest is this test: frames by hand
(vmmlib) at the other end of a socket pair, as QEMU's `-netdev stream` would send them.
"""
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time

import conftest
import pytest
import vmmlib

REPO = conftest.REPO
BUILD = os.path.dirname(os.path.dirname(conftest.find_bin() or ""))


def answer(guest, dst, port, sport=40000):
    """The flags of what answers the guest's SYN."""
    guest.segment(dst, sport, port, 1, 0, vmmlib.SYN)
    return guest.until(lambda f: guest.tcp_of(f, dst, port, sport), 60)[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(root, path of slirp-med, path of the host program, version): everything out of DESTDIR, found by pkg-config."""
    root, build = os.environ.get("SLIRP_MED_INSTALLED"), str(tmp_path_factory.mktemp("host"))
    if not root:  # ./dev has done it already: meson wants to write into the build folder, which is not ours in here
        root = str(tmp_path_factory.mktemp("installed"))
        out = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root], capture_output=True, text=True)
        assert out.returncode == 0, out.stdout + out.stderr
    pc = [os.path.join(d, "slirp-med.pc") for d, _, files in os.walk(root) if "slirp-med.pc" in files]
    assert len(pc) == 1, pc
    env = {**os.environ, "PKG_CONFIG_PATH": os.path.dirname(pc[0])}

    def pkg(*args):
        prefix = "--define-variable=prefix=" + os.path.join(root, "usr/local")
        return shlex.split(subprocess.run(["pkg-config", prefix, *args, "slirp-med"], env=env, check=True, capture_output=True, text=True).stdout)
    host = os.path.join(build, "host")
    san = ["-fsanitize=address,undefined"] if os.environ.get("SLIRP_MED_SANITIZED") else []
    for source, target in ((os.path.join(REPO, "tests/embed/host.c"), host),
                           (os.path.join(root, "usr/local/share/doc/slirp-med/examples/launcher.c"), os.path.join(build, "launcher"))):
        subprocess.run(["cc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-D_GNU_SOURCE", *san, source, *pkg("--cflags", "--libs"), "-pthread",
                        "-Wl,-rpath," + os.path.dirname(os.path.dirname(pc[0])), "-o", target], check=True)
    static = [*pkg("--cflags"), "-Wl,-Bstatic", "-lslirp-med", "-Wl,-Bdynamic", *(x for x in pkg("--static", "--libs") if x != "-lslirp-med")]
    archive = os.path.dirname(os.path.dirname(pc[0]))
    subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", *san, os.path.join(REPO, "tests/embed/host.c"), "-L" + archive, *static, "-pthread", "-o", host + "-static"],
                   check=True)
    assert "libslirp-med" not in subprocess.run(["readelf", "-d", host + "-static"], check=True, capture_output=True, text=True).stdout
    version = subprocess.run(["pkg-config", "--modversion", "slirp-med"], env=env, check=True, capture_output=True, text=True).stdout.strip()
    program = pkg("--variable=program")[0]
    return root, program, host, version


class Host:
    def __init__(self, path, tmp, fds=()):
        os.makedirs(tmp, exist_ok=True)
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=fds)
        self.hello = self.p.stdout.readline().split()
        self.seen = []

    def do(self, line):
        """One order; the answer ("ok ..." or "error ..."), after the events on the way, which are kept in seen."""
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()
        while True:
            got = self.p.stdout.readline().rstrip("\n")
            assert got, f"the host died of {self.p.wait()}"
            if not got.startswith("event "):
                return got
            self.seen.append(got[6:])

    def line(self):
        return self.p.stdout.readline().rstrip("\n")

    def records(self):
        return [json.loads(x[len("RECORD "):x.rindex("}") + 1]) for x in self.seen if x.startswith("RECORD ")]

    def end(self):
        if self.p.poll() is None:
            self.p.stdin.close()
            assert self.p.wait(60) == 0


@pytest.fixture
def start(installed, tmp_path):
    """start(fds) -> a Host; new(**settings) -> its first order."""
    hosts = []

    def begin(fds=()):
        hosts.append(Host(installed[2], str(tmp_path), fds))
        return hosts[-1]
    yield begin
    for h in hosts:
        h.end()


def new(host, installed, tmp_path, name="embedded", **more):
    settings = {"program": installed[1], "state_dir": str(tmp_path / "state"), "name": name, **more}
    return host.do("new " + " ".join(f"{k}={v}" for k, v in settings.items()))


def device():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return vmmlib.Vmm(ours), theirs


def test_what_is_installed(installed):
    root, program, _, version = installed
    there = {os.path.relpath(os.path.join(d, f), root) for d, _, files in os.walk(root) for f in files}
    for path in ("bin/slirp-med", "include/slirp-med/slirp-med.h", "include/slirp-med/version.h", "share/man/man1/slirp-med.1",
                 "share/man/man5/slirp-med-policy.5", "share/man/man3/slirp-med.3", "share/bash-completion/completions/slirp-med",
                 "lib/systemd/system/slirp-med@.service", "share/doc/slirp-med/examples/launcher.c"):
        assert "usr/local/" + path in there, (path, sorted(there))
    assert any(p.endswith("/libslirp-med.so." + version) for p in there), there
    assert any(p.endswith("/libslirp-med.a") for p in there), there
    assert subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1] == version
    lib = next(os.path.join(root, p) for p in there if p.endswith("/libslirp-med.so." + version))
    names = [x.split()[-1] for x in subprocess.run(["nm", "-D", "--defined-only", lib], capture_output=True, text=True, check=True).stdout.splitlines()]
    assert names and all(n.startswith(("slirp_med_", "SLIRP_MED_")) for n in names), names
    unit = os.path.join(root, "usr/local/lib/systemd/system/slirp-med@.service")
    assert "/usr/local/bin/slirp-med attach" in open(unit).read()


@pytest.mark.core
def test_a_workspace_from_a_program_with_threads(installed, start, tmp_path):
    guest, theirs = device()
    h = start((theirs.fileno(),))
    assert h.hello == ["host", installed[3]]
    assert new(h, installed, tmp_path) == "ok"
    assert h.do("network").startswith("error 3 "), "nothing runs yet"
    assert h.do(f"start-fd 0 {theirs.fileno()}") == "ok"
    assert h.do(f"start-fd 0 {theirs.fileno()}").startswith("error 3 "), "it runs already"
    assert h.do("ready 30000") == "ok"
    theirs.close()
    assert h.do("network") == "ok"
    ip, gateway, resolver, prefix, mac, mtu, state, connected, ca, audit, pid = h.line().split()[1:]
    assert (ip, gateway, resolver, prefix, mtu, state) == (vmmlib.GUEST, vmmlib.GATEWAY, vmmlib.RESOLVER, "24", "1500", "running")
    assert bytes.fromhex(mac.replace(":", "")) == vmmlib.GUEST_MAC and connected == "1"
    assert open(ca).read().startswith("-----BEGIN CERTIFICATE-----") and os.path.exists(audit)

    # Nothing of the host's is in the workspace's processes but what they were given.
    for p in conftest.descendants(int(pid)):
        for fd in os.listdir(f"/proc/{p}/fd"):
            assert os.readlink(f"/proc/{p}/fd/{fd}") != "/dev/null" or int(fd) < 3, (p, fd)

    assert answer(guest, "10.0.0.5", 80) & vmmlib.RST, "inside is refused at the SYN"
    assert h.do("events 2000") == "ok"
    rows = h.records()
    assert [r["event"] for r in rows].count("egress_internal_deny") == 1, rows
    row = next(r for r in rows if r["event"] == "egress_internal_deny")
    assert (row["dst"], row["port"]) == ("10.0.0.5", 80) or row["dst"].startswith("10.0.0.5"), row
    text = next(x for x in h.seen if '"egress_internal_deny"' in x)
    assert text.split()[-4] == "egress_internal_deny" and text.split()[-3] == "80"

    assert h.do("stop 20000") == "ok"
    assert h.do("events 5000") == "ok"
    assert h.seen[-1].startswith("STOPPED 0 "), h.seen[-3:]
    assert h.records()[-1]["event"] == "egress_stop"
    assert guest.ended(), "the guest's device ends with the workspace"
    assert not conftest.alive(int(pid))

    # Again: earlier records are not told twice, and seq goes on.
    last = h.records()[-1]["seq"]
    h.seen.clear()
    guest, theirs = device()
    assert h.do("free") == "ok"
    h.end()
    h = start((theirs.fileno(),))
    assert new(h, installed, tmp_path) == "ok" and h.do(f"start-fd 0 {theirs.fileno()}") == "ok" and h.do("ready 30000") == "ok"
    theirs.close()
    assert h.do("events 1000") == "ok"
    assert h.records()[0]["seq"] == last + 1 and h.records()[0]["event"] == "egress_start", h.records()
    guest.close()
    assert h.do("events 20000") == "ok"
    assert h.seen[-1].startswith("STOPPED 0 "), "the given device has ended, so the workspace does"


def test_errors_say_what_is_wrong(installed, start, tmp_path):
    h = start()
    assert new(h, installed, tmp_path, name="../x").startswith("error 1 name: ")
    assert new(h, installed, tmp_path, mode=7).startswith("error 1 mode: ")
    assert new(h, installed, tmp_path, size=4).startswith("error 1 config: ")
    assert new(h, installed, tmp_path, size=100000).startswith("error 1 config: ")
    assert new(h, installed, tmp_path, program="/nowhere/slirp-med") == "ok"
    assert h.do(f"start-path 0 {tmp_path}/s 0").startswith("error 2 /nowhere/slirp-med cannot be started: ")
    assert h.do("start-path 3 /dev/tap 0").startswith("error 1 ")
    assert h.do("start-fd 0 -1").startswith("error 1 ")
    assert h.do("free") == "ok"
    # What only slirp-med can judge: its own words come back, and nothing is left.
    assert new(h, installed, tmp_path, mode=1, allow=".com") == "ok"
    assert h.do(f"start-path 0 {tmp_path}/s 0") == "ok"
    got = h.do("ready 30000")
    assert got.startswith("error 4 ") and ".com" in got and "public suffix" in got, got
    assert h.do("stop 1000").startswith("error 3 ")
    assert not os.path.exists(tmp_path / "s")


def test_over_a_path_again_and_again(installed, start, tmp_path):
    h = start()
    path = str(tmp_path / "vm.sock")
    assert new(h, installed, tmp_path) == "ok"
    assert h.do(f"start-path 0 {path} 0") == "ok" and h.do("ready 30000") == "ok"
    for port in (81, 82):
        with socket.socket(socket.AF_UNIX) as vm:
            vm.connect(path)
            assert answer(vmmlib.Vmm(vm), "10.0.0.5", port, 41000 + port) & vmmlib.RST
    assert h.do("events 2000") == "ok"
    assert {r["port"] for r in h.records() if r["event"] == "egress_internal_deny"} == {81, 82}
    assert h.do("stop 20000") == "ok" and h.do("events 5000") == "ok"
    assert h.seen[-1].startswith("STOPPED 0 ") and not os.path.exists(path)


def test_publish_and_policy_while_it_runs(installed, start, tmp_path):
    guest, theirs = device()
    policy = tmp_path / "policy.yaml"
    policy.write_text("allow: [10.0.0.5]\n")
    h = start((theirs.fileno(),))
    assert new(h, installed, tmp_path, policy_file=policy) == "ok" and h.do(f"start-fd 0 {theirs.fileno()}") == "ok" and h.do("ready 30000") == "ok"
    theirs.close()
    assert h.do("publish 127.0.0.1:0:8080/tcp") == "ok"
    port = int(h.line().split()[1])
    assert port > 0
    got = {}

    def client():
        with socket.create_connection(("127.0.0.1", port), 60) as c:
            got["peer"] = c.getpeername()[1]
            got["bytes"] = c.recv(1)
    thread = threading.Thread(target=client)
    thread.start()
    # The guest sees a SYN to its port.
    guest.until(lambda f: True if f[12:14] == b"\x08\x00" and f[23] == 6 and f[36:38] == (8080).to_bytes(2, "big") and f[47] == vmmlib.SYN else None, 60)
    assert h.do(f"publish 127.0.0.1:{port}:9090/tcp").startswith("error 4 "), "in use"
    assert h.do("publish nonsense").startswith("error "), "malformed"
    assert h.do(f"unpublish 127.0.0.1:{port}:8080/tcp") == "ok"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 5)

    assert answer(guest, "10.0.0.5", 80) == vmmlib.SYN | vmmlib.ACK, "listed, and there is a server"
    policy.write_text("allow: [10.0.0.5\n")
    got_error = h.do("policy")
    assert got_error.startswith("error 4 ") and "policy.yaml" in got_error, got_error
    policy.write_text("allow: [10.0.0.6]\n")
    assert h.do("policy") == "ok"
    assert answer(guest, "10.0.0.5", 91, 42000) & vmmlib.RST
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"allow": ["10.0.0.5"]}))
    assert h.do(f"policy {other}") == "ok"
    assert h.do("events 1000") == "ok"
    assert [r for r in h.records() if r["event"] == "egress_internal_deny" and r["port"] == 91], h.records()
    assert h.do("stop 20000") == "ok"
    thread.join(60)


def test_the_workspace_ends_with_its_host(installed, start, tmp_path):
    guest, theirs = device()
    h = start((theirs.fileno(),))
    assert new(h, installed, tmp_path) == "ok" and h.do(f"start-fd 0 {theirs.fileno()}") == "ok" and h.do("ready 30000") == "ok"
    theirs.close()
    assert h.do("network") == "ok"
    fields = h.line().split()
    pid, audit = int(fields[-1]), fields[-2]
    family = conftest.descendants(pid)
    assert len(family) >= 3
    h.p.send_signal(signal.SIGKILL)
    h.p.wait()
    assert guest.ended()
    until = time.monotonic() + 30
    while any(conftest.alive(p) for p in family) and time.monotonic() < until:
        time.sleep(0.02)  # the kernel tells nobody but a parent
    assert not [p for p in family if conftest.alive(p)]
    assert json.loads(open(audit).read().splitlines()[-1])["event"] == "egress_stop", "in order, and recorded"


def test_a_workspace_that_dies_is_told(installed, start, tmp_path):
    guest, theirs = device()
    h = start((theirs.fileno(),))
    assert new(h, installed, tmp_path) == "ok" and h.do(f"start-fd 0 {theirs.fileno()}") == "ok" and h.do("ready 30000") == "ok"
    theirs.close()
    assert h.do("network") == "ok"
    pid = int(h.line().split()[-1])
    front = [p for p in conftest.descendants(pid) if open(f"/proc/{p}/comm").read().strip() == "slirp-med-front"]
    os.kill(front[0], signal.SIGKILL)
    assert h.do("events 20000") == "ok"
    assert h.seen[-1].startswith("STOPPED 125 ") and "front" in h.seen[-1], h.seen[-3:]
    assert guest.ended()
