# SPDX-License-Identifier: BSD-3-Clause
"""Real guests: each boots the distribution's cloud kernel under QEMU (TCG) with `slirp-med vm`, in the private internet.

The guest is made by tests/vm/image before the private internet is entered. A test gives commands to a shell in the guest over its serial
console (guest/init says how), so what is seen is what the guest's own kernel and programs see. `boot` gives guests of a test's own;
`guest` is one that a whole file shares, once for each port. SM_VM_DIR names the folder of the image.
"""
import base64
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import time

import pytest

HERE = os.path.dirname(os.path.realpath(__file__))
spec = importlib.util.spec_from_file_location("e2e_conftest", os.path.join(os.path.dirname(HERE), "e2e", "conftest.py"))
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)
import worldlib  # noqa: E402 - its folder is on the path only now

mark, USER = e2e.mark, e2e.USER
IMAGE = os.environ.setdefault("SM_VM_DIR", os.path.join(e2e.REPO, "build", "vm"))
# A boot takes 5 s on an idle machine. These only bound how long a failure takes.
BOOT_S, COMMAND_S, TEST_S = 150, 60, 400

VERSION_1, CSUM, GUEST_CSUM, MTU, MAC, GUEST_TSO4, GUEST_ECN, HOST_TSO4, HOST_ECN = 32, 0, 1, 3, 5, 7, 9, 11, 13
GUEST_UFO, HOST_UFO, MRG_RXBUF, INDIRECT, EVENT_IDX = 10, 14, 15, 28, 29
# port: features that the guest's driver must have agreed to, and those that it must not.
PORTS = {
    "stream": ({VERSION_1, MAC, MRG_RXBUF, INDIRECT, EVENT_IDX}, {GUEST_UFO, HOST_UFO}),
    "vhost-user": ({VERSION_1, MAC, MRG_RXBUF, INDIRECT, EVENT_IDX, CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, GUEST_ECN, HOST_ECN},
                   {GUEST_UFO, HOST_UFO}),
}
# The third way: a tap of the mediator's namespace (--datapath tproxy), whose offloads are QEMU's and the kernel's.
KERNEL_PATH = "tproxy"
FEATURES = {**PORTS, KERNEL_PATH: ({VERSION_1, MAC, MRG_RXBUF, INDIRECT, EVENT_IDX, CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4}, set())}


def pytest_configure(config):
    if not os.environ.get("SM_WORLD"):
        beside = os.path.dirname(e2e.find_bin() or "")
        programs = [p for p in (f"{beside}/../tests/vm/outb", f"{beside}/guest/slirp-med-guest") if os.path.exists(p)]
        subprocess.run([os.path.join(HERE, "image"), IMAGE, *programs], check=True)
    e2e.pytest_configure(config)


@pytest.fixture(autouse=True)
def bound():
    """No test waits for ever, whatever the product or a guest does."""
    def late(*_):
        raise TimeoutError(f"the test took more than {TEST_S} s")
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(TEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


class Guest:
    """A guest, from the start of `slirp-med vm` (or of a QEMU of the test's own) on."""

    def __init__(self, vms, name, argv, env=None):
        self.name, self.vms, self.seen, self.n = name, vms, b"", 0
        self.err = open(os.path.join(vms.tmp, f"stderr.{len(vms.guests)}.{name}"), "w+b")
        self.p = subprocess.Popen(USER + argv, env=vms.env(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.err)

    def errors(self):
        with open(self.err.name, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def until(self, pattern, timeout):
        """The console up to a match of the pattern, and the match."""
        end = time.monotonic() + timeout
        while True:
            m = re.search(pattern, self.seen)
            if m:
                before, self.seen = self.seen[:m.start()], self.seen[m.end():]
                return before.decode("utf-8", "replace"), m
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.p.stdout], [], [], left)[0]:
                raise TimeoutError(f"{self.name}: {pattern!r} did not come in {timeout} s: {self.seen[-3000:]!r}; stderr: {self.errors()[-2000:]}")
            got = os.read(self.p.stdout.fileno(), 1 << 16)
            if not got:
                raise EOFError(f"{self.name} ended: {self.seen[-3000:]!r}; stderr: {self.errors()[-2000:]}")
            self.seen += got

    def up(self):
        """Booted, with a lease; what was said until then is .booting."""
        self.booting, _ = self.until(rb"@@UP\n", BOOT_S)
        return self

    def send(self, command):
        self.n += 1
        self.p.stdin.write(b"%d %s\n" % (self.n, base64.b64encode(command.encode())))
        self.p.stdin.flush()
        return self.n

    def answer(self, number, timeout=COMMAND_S):
        said, m = self.until(rb"@@END %d (\d+)\n" % number, timeout)
        return int(m[1]), said

    def sh(self, command, timeout=COMMAND_S):
        """(exit status, output) of a command in the guest."""
        return self.answer(self.send(command), timeout)

    def ok(self, command, timeout=COMMAND_S):
        rc, said = self.sh(command, timeout)
        assert rc == 0, f"{command}: exit status {rc}: {said}"
        return said

    def audit(self):
        return worldlib.jsonl(e2e.audit_file(self.vms.state, self.name))

    def events(self, event, **match):
        return [r for r in self.audit() if r["event"] == event and all(r.get(k) == v for k, v in match.items())]

    def recorded(self, event, **match):
        """The first such line, waited for."""
        return worldlib.wait_for(f"{event} {match} in the audit of {self.name}", lambda: self.events(event, **match), 20)[0]

    def pid(self, role):
        """A process of this workspace: core, nat, guest-init, or qemu."""
        for pid in e2e.descendants(self.p.pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    argv = f.read().split(b"\0")
            except OSError:
                continue
            if role == "qemu" and argv[0].endswith(b"qemu-system-x86_64") or len(argv) > 1 and argv[1] == role.encode():
                return pid
        return None

    def end(self, timeout=60):
        """Exit status of `slirp-med vm`, when it has ended by itself."""
        out, _ = self.p.communicate(timeout=timeout)
        self.seen += out
        return self.p.returncode

    def power_off(self):
        self.send("poweroff -f")
        return self.end()


class Vms:
    """Where guests are started; all are gone when it closes."""

    def __init__(self, world, tmp):
        self.bin = e2e.find_bin() or pytest.fail("the program is not built: run ./dev build, or set SLIRP_MED_BIN", pytrace=False)
        self.world, self.tmp, self.state, self.guests, self.served = world, str(tmp), str(tmp / "state"), [], []
        os.chmod(tmp, 0o755)
        os.mkdir(self.state, 0o700)

    def env(self, extra=None):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SM_WORLD"))}
        return {**kept, "XDG_STATE_HOME": self.state, **(extra or {})}

    def add(self, g, wait):
        self.guests.append(g)
        return g.up() if wait else g

    def boot(self, *flags, wait=True, append="quiet", qemu_args=()):
        """`slirp-med vm`, with its guest up unless told otherwise."""
        name = f"vm{len(self.guests) + 1}"
        return self.add(Guest(self, name, [self.bin, "vm", "--name", name, "--egress-ca-file", self.world.ca, "--kernel", f"{IMAGE}/vmlinuz",
                                           "--initrd", f"{IMAGE}/initrd", "--append", append, *flags, "--", *qemu_args]), wait)

    def attach(self, name, port, *flags):
        """`slirp-med attach`, ready; .qemu is what it says that a QEMU needs."""
        path = f"{self.tmp}/{name}.sock"
        argv = [self.bin, "attach", name, f"--{port}", path, "--egress-ca-file", self.world.ca, "--json", *flags]
        r, w = os.pipe()
        with open(f"{self.tmp}/attach.{name}", "w+b") as out:
            p = subprocess.Popen(USER + argv + ["--ready-fd", str(w)], env=self.env(), stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT, pass_fds=[w])
        os.close(w)
        with os.fdopen(r) as f:
            ready = f.readline()
        with open(f"{self.tmp}/attach.{name}") as f:
            said = f.read()
        self.served.append(p)
        assert ready, said
        told = json.JSONDecoder().raw_decode(said[said.index("{"):])[0]
        p.name, p.qemu = name, told["qemu"]
        if port == "vhost-user":  # QEMU 7.2 under TCG
            p.qemu = [a + ",vectors=0" if a.startswith("virtio-net-pci") else a for a in p.qemu]
        return p

    def qemu(self, served, wait=True):
        """A QEMU of nobody's but the test's, with a card that leads to what `attach` serves."""
        return self.add(Guest(self, served.name, ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                                                  "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512M", "-kernel", f"{IMAGE}/vmlinuz",
                                                  "-initrd", f"{IMAGE}/initrd", "-append", "console=ttyS0 quiet", "-chardev",
                                                  "stdio,id=c,signal=off", "-serial", "chardev:c", *served.qemu]), wait)

    def cli(self, *args, timeout=60, **kw):
        return subprocess.run(USER + [self.bin, *args], env=self.env(), capture_output=True, timeout=timeout, **kw)

    def close(self):
        for p in [g.p for g in self.guests] + self.served:
            if p.poll() is None:
                p.kill()
            p.communicate()
        for path in [g.err.name for g in self.guests] + [f"{self.tmp}/attach.{p.name}" for p in self.served]:
            with open(path, "rb") as f:
                said = f.read()
            for text in (b"AddressSanitizer", b"LeakSanitizer", b"runtime error:", b"Assertion"):
                assert text not in said, f"{path}: {said.decode('utf-8', 'replace')}"
        worldlib.wait_for("the processes of the workspaces to end", lambda: not [p for p, *_ in e2e.processes(self.bin) if e2e.alive(p)], 20)


@pytest.fixture
def vms(world, tmp_path):
    v = Vms(world, tmp_path)
    yield v
    v.close()


@pytest.fixture(scope="session")
def world():
    return worldlib.World()


@pytest.fixture(params=PORTS)
def port(request):
    return request.param


@pytest.fixture(scope="module", params=[*PORTS, KERNEL_PATH])
def guest(request, world, tmp_path_factory):
    """One guest for all tests of a file, guarded: .port says over what."""
    v = Vms(world, tmp_path_factory.mktemp("vm"))
    over = ("--datapath", "tproxy") if request.param == KERNEL_PATH else ("--port", request.param)
    g = v.boot(*over, "--egress-deny", "evil.test", "--memory", "512M")
    g.port = request.param
    yield g
    v.close()
