# SPDX-License-Identifier: BSD-3-Clause
"""The life of a virtual machine: its start, what its QEMU may do, its end and everybody else's, and how a VMM that is started again finds its
workspace."""
import json
import os
import re
import shlex
import signal
import stat
import subprocess

import pytest
import worldlib as w
from conftest import IMAGE, USER, e2e

OK = "curl -sS --max-time 30 https://ok.test/hello"


# ---- the command ----


# Where the port makes no difference that is looked for, the second one is for ./dev test all.
SECOND_PORT_SLOW = pytest.mark.parametrize("port", ["stream", pytest.param("vhost-user", marks=pytest.mark.slow)])


@pytest.mark.parametrize("args,rc,words", [
    ((), 2, ("--kernel",)),
    (("--kernel", "/nonexistent/vmlinuz"), 2, ("--kernel", "/nonexistent/vmlinuz", "No such file")),
    (("--kernel", f"{IMAGE}/vmlinuz", "--initrd", "/nonexistent/initrd"), 2, ("--initrd", "/nonexistent/initrd")),
    (("--kernel", f"{IMAGE}/vmlinuz", "--port", "carrier-pigeon"), 2, ("--port", "stream", "vhost-user")),
    (("--kernel", f"{IMAGE}/vmlinuz", "--memory", "1K"), 2, ("--memory", "1K")),
    (("--kernel", f"{IMAGE}/vmlinuz", "extra"), 2, ("extra", "--")),
    (("--kernel", f"{IMAGE}/vmlinuz", "--qemu", "/nonexistent/qemu"), 127, ("--qemu", "/nonexistent/qemu")),
], ids=lambda a: " ".join(a)[-30:] if isinstance(a, tuple) and a and a[0].startswith("--") else "")
def test_errors_leave_nothing(vms, args, rc, words):
    p = vms.cli("vm", *args)
    said = p.stderr.decode()
    assert p.returncode == rc and not p.stdout and all(x in said for x in words), p
    assert not os.path.exists(f"{vms.state}/slirp-med")


def test_without_qemu(vms):
    """Another status than a wrong flag's, and the package's name."""
    argv = USER + ["env", "PATH=/nonexistent", vms.bin, "vm", "--kernel", f"{IMAGE}/vmlinuz"]
    p = subprocess.run(argv, env=vms.env(), capture_output=True, timeout=30)
    assert p.returncode == 127 and b"qemu-system-x86" in p.stderr, p
    assert not os.path.exists(f"{vms.state}/slirp-med")


def test_print_command(vms):
    p = vms.cli("vm", "--kernel", f"{IMAGE}/vmlinuz", "--memory", "1G", "--print-command", "--", "-device", "isa-debug-exit")
    argv = shlex.split(p.stdout.decode())
    assert p.returncode == 0 and argv[0].endswith("/qemu-system-x86_64") and argv[-2:] == ["-device", "isa-debug-exit"], p
    assert argv[argv.index("-m") + 1] == "1024M"
    assert not os.path.exists(f"{vms.state}/slirp-med"), "nothing was started or made"


# ---- what QEMU may do, and a guest that has taken it over ----

# In QEMU's place: a program that tells what it can do there.
TAKEN_OVER = '''#!/usr/bin/python3 -I
import json, os, socket
def attempt(f):
    try:
        return f() or "done"
    except OSError as e:
        return e.strerror
def dial(address):
    s = socket.socket()
    s.settimeout(5)
    s.connect(address)
def write(path):
    with open(path, "w"):
        pass
status = dict(x.split(":\\t", 1) for x in open("/proc/self/status").read().splitlines() if ":\\t" in x)
print(json.dumps({
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "dial": [attempt(lambda: dial(a)) for a in (("203.0.113.10", 443), ("203.0.113.2", 80), ("10.0.2.2", 53))],
    "fds": sorted(int(x) for x in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{x}")),
    "root": sorted(os.listdir("/")),
    "home": attempt(lambda: str(os.listdir(os.environ["HOME"]))),
    "state": attempt(lambda: str(os.listdir(STATE))),
    "write": [attempt(lambda: write(p)) for p in ("/usr/bin/x", "/bin/x", "/lib/x", "/etc/alternatives/x")],
    "env": sorted(os.environ),
    "caps": [status[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privs": status["NoNewPrivs"],
    "others": [p for p in os.listdir("/proc") if p.isdigit() and int(p) > 1 and int(p) != os.getpid()],
    "ca": open("/proc/self/fd/7").read()[:27],
}))
'''


@pytest.mark.parametrize("flags,fds", [(("--port", "stream"), [0, 1, 2, 7, 8, 12, 13]), (("--port", "vhost-user"), [0, 1, 2, 7, 12, 13, 14, 15]),
                                       (("--datapath", "tproxy"), [0, 1, 2, 7, 8, 12, 13]), (("--network", "isolated"), None)],
                         ids=["stream", "vhost-user", "tproxy", "isolated"])
def test_a_qemu_that_was_taken_over(vms, world, mark, flags, fds):
    """It has the frames of its guest, and no network, no file of the caller's, no variable of his, and no right."""
    program = f"{vms.tmp}/qemu"
    with open(program, "w") as f:
        text = TAKEN_OVER.replace("STATE", repr(vms.state))
        f.write(text if fds else re.sub(r'\n    "ca".*', "", text))
    os.chmod(program, 0o755)
    argv = USER + [vms.bin, "vm", "--name", "taken", "--kernel", f"{IMAGE}/vmlinuz", "--qemu", program, *flags]
    env = vms.env({"A_SECRET": "1", "AWS_SECRET_ACCESS_KEY": "2", "HOME": vms.tmp})
    p = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert p.returncode == 0, p
    seen = json.loads(p.stdout)
    assert seen["interfaces"] == ["lo"] and seen["dial"] == ["Network is unreachable"] * 3, seen
    assert seen["fds"] == (fds or [0, 1, 2, 12]) or seen["fds"] == (fds or [0, 1, 2, 12]) + [3], seen  # 3: listdir's own
    assert not {"home", "root", "var", "srv", "mnt", "opt"} & set(seen["root"]), seen
    assert "No such file" in seen["state"] and (program.split("/")[-1] in seen["home"] or "No such" in seen["home"]), seen
    assert "stderr" not in seen["home"], seen
    assert all(x in ("Read-only file system", "No such file or directory") for x in seen["write"]), seen
    assert not {"A_SECRET", "AWS_SECRET_ACCESS_KEY", "XDG_STATE_HOME"} & set(seen["env"]), seen
    assert set(seen["caps"]) == {"0" * 16} and seen["no_new_privs"] == "1" and not seen["others"], seen
    assert not fds or seen["ca"] == "-----BEGIN CERTIFICATE-----"
    assert not world.wire(mark) and not world.leaks(mark)


@SECOND_PORT_SLOW
def test_the_real_qemu_is_held_in(vms, port):
    """Seen from outside: its namespaces are its own, it has a filter and nothing of ours."""
    g = vms.boot("--port", port)
    qemu, ours = g.pid("qemu"), os.getpid()
    for ns in ("net", "mnt", "pid", "ipc", "uts", "user"):
        assert os.readlink(f"/proc/{qemu}/ns/{ns}") != os.readlink(f"/proc/{ours}/ns/{ns}"), ns
    with open(f"/proc/{qemu}/net/dev") as f:
        assert [line.split(":")[0].strip() for line in f.readlines()[2:]] == ["lo"]
    with open(f"/proc/{qemu}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    assert status["CapEff"] == status["CapBnd"] == "0" * 16 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    with open(f"/proc/{qemu}/cmdline", "rb") as f:
        argv = f.read().split(b"\0")
    assert b"-sandbox" in argv and b"PRIVATE" not in b" ".join(argv)
    assert g.power_off() == 0


# ---- lives ----


@SECOND_PORT_SLOW
def test_strict(vms, world, mark, port):
    """Only what is listed, by name and by address, over a guest's own resolver."""
    g = vms.boot("--port", port, "--egress", "strict", "--egress-allow", "ok.test")
    assert g.ok(OK) == "hello\n"
    rc, said = g.sh("nslookup other.test")
    assert rc != 0 and "REFUSED" in said
    assert '"no_name"' in g.ok("curl -sS --max-time 20 http://203.0.113.11/")  # the page of the denial, and nothing was dialled
    assert g.sh("curl -sS --max-time 20 http://10.0.0.5/")[0] == 7
    assert "No route to host" in g.sh("echo x | socat -t 5 - UDP:203.0.113.20:7")[1]
    g.recorded("egress_dns_deny", host="other.test")
    g.recorded("egress_deny", dst="203.0.113.11")
    g.recorded("egress_internal_deny", dst="10.0.0.5")
    g.recorded("egress_udp_deny", dst="203.0.113.20")
    assert {r["dst"] for r in world.wire(mark)} == {w.WEB["ok.test"]}
    assert g.power_off() == 0
    assert g.events("egress_stop")


def test_isolated(vms):
    """No network device at all, and no card either."""
    g = vms.boot("--network", "isolated", append="quiet norun")
    assert g.ok("ls /sys/class/net").split() == ["lo"]
    assert g.pid("core") is None and g.pid("nat") is None
    assert g.power_off() == 0


def test_exit_status_is_qemus(vms):
    """A guest that can say a number says it to the caller: (n << 1) | 1 is how QEMU's debug port tells it."""
    g = vms.boot("--network", "isolated", append="quiet norun", qemu_args=("-device", "isa-debug-exit,iobase=0x501,iosize=1"))
    g.send("outb 0x501 0x15")
    assert g.end() == (0x15 << 1) | 1


def test_a_guest_that_panics_ends(vms):
    g = vms.boot("--network", "isolated", wait=False, append="quiet rdinit=/nonexistent")
    assert g.end(150) == 0
    assert b"Kernel panic" in g.seen


def test_status_and_stop(vms):
    g = vms.boot("--port", "vhost-user", "--memory", "256M")
    status = json.loads(vms.cli("status", g.name, "--json").stdout)
    assert status["vm"] == {"vmm": "qemu", "port": "vhost-user", "kernel": f"{IMAGE}/vmlinuz", "initrd": f"{IMAGE}/initrd", "memory_mib": 256,
                            "cpus": 1}, status
    assert status["state"] == "running" and status["reports"]["front"]["connected"] is True
    sock = os.stat(f"{vms.state}/slirp-med/{g.name}/vmm.sock")
    assert stat.S_ISSOCK(sock.st_mode) and sock.st_mode & 0o077 == 0
    assert vms.cli("stop", g.name).returncode == 0
    assert g.end() in (0, 143)
    assert not [f for f in os.listdir(f"{vms.state}/slirp-med/{g.name}") if f.endswith(".sock")]
    assert json.loads(vms.cli("status", g.name, "--json").stdout)["state"] == "stopped"


def test_two_at_once_do_not_meet(vms, world, mark):
    """Each its own workspace, CA and log; the other's address leads to itself, and what it published on is nobody's."""
    a = vms.boot("--port", "stream", wait=False)
    b = vms.boot("--port", "vhost-user", wait=False)
    a.up(), b.up()
    assert a.ok(OK) == b.ok(OK) == "hello\n"
    assert a.ok("cat /tmp/ca.pem") != b.ok("cat /tmp/ca.pem")
    b.ok("httpd -p 8088 -h /tmp && echo here >/tmp/index.html")
    for address in ("10.0.2.16", "10.0.2.15", "10.0.2.2"):
        assert a.sh(f"curl -sS --max-time 20 http://{address}:8088/")[0] == 7, address
    assert b.ok("curl -sS http://10.0.2.15:8088/") == "here\n"
    for g in (a, b):
        assert {r["workspace"] for r in g.audit()} == {g.name}
    assert not [r for r in b.audit() if r.get("port") == 8088]
    assert a.power_off() == b.power_off() == 0


def busy(g):
    """The guest fetches without end."""
    g.send(f"while :; do {OK} -o /dev/null; done 2>/dev/null")
    g.recorded("egress_http_request", authority="ok.test")


@pytest.mark.parametrize("victim", ["nat", "core"])
def test_killed_back_end(vms, world, port, victim):
    """Front or core dies: the machine ends with it, and not one packet leaves afterwards."""
    g = vms.boot("--port", port)
    busy(g)
    qemu = g.pid("qemu")
    os.kill(g.pid(victim), signal.SIGKILL)
    assert g.end() == 125
    mark = world.mark()
    assert not e2e.alive(qemu)
    assert not world.wire(mark) and not world.leaks(mark)
    assert "the workspace was stopped" in g.errors()


@SECOND_PORT_SLOW
def test_killed_supervisor(vms, world, port):
    """Everything ends, by the kernel's hand."""
    g = vms.boot("--port", port)
    busy(g)
    pids = [g.pid(role) for role in ("qemu", "core", "nat", "guest-init")]
    assert all(pids)
    g.p.kill()
    w.wait_for("all of the workspace to end", lambda: not any(e2e.alive(p) for p in pids), 20)
    mark = world.mark()
    assert not world.wire(mark)


@SECOND_PORT_SLOW
def test_killed_vmm(vms, port):
    g = vms.boot("--port", port)
    busy(g)
    os.kill(g.pid("qemu"), signal.SIGKILL)
    assert g.end() == 137
    assert g.events("egress_stop")


# ---- a VMM that somebody else starts, and starts again ----


def test_vmm_killed_and_restarted(vms, port):
    """The next QEMU finds the same workspace: its CA, its log, its lease; and nothing of its predecessor's connections."""
    served = vms.attach("again", port)
    first = vms.qemu(served)
    assert first.ok(OK) == "hello\n"
    ca = first.ok("cat /tmp/ca.pem")
    busy(first)
    first.p.kill()
    second = vms.qemu(served)
    assert second.ok("cat /tmp/ca.pem") == ca
    assert second.ok(OK) == "hello\n"
    assert second.ok("cat /sys/class/net/eth0/carrier") == "1\n"
    seqs = [r["seq"] for r in second.audit()]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) and len(second.events("egress_start")) == 1
    assert vms.cli("stop", "again").returncode == 0 and served.wait(30) == 0


@pytest.mark.parametrize("port,victim", [("stream", "nat"), ("vhost-user", "core"), pytest.param("stream", "core", marks=pytest.mark.slow),
                                         pytest.param("vhost-user", "nat", marks=pytest.mark.slow),
                                         pytest.param("stream", "attach", marks=pytest.mark.slow),
                                         pytest.param("vhost-user", "attach", marks=pytest.mark.slow)])
def test_served_vmm_outlives_its_back_end(vms, world, port, victim):
    """Then it has no network at all: nothing that it sends goes anywhere."""
    served = vms.attach("gone", port)
    g = vms.qemu(served)
    assert g.ok(OK) == "hello\n"
    pids = {role: pid for pid, role, _ in e2e.processes(vms.bin)}
    os.kill(pids[victim], signal.SIGKILL)
    assert served.wait(30) != 0
    w.wait_for("the processes of the workspace to end", lambda: not [p for p in pids.values() if e2e.alive(p)], 20)
    mark = world.mark()
    for command in ("curl -sS --max-time 4 http://203.0.113.10/", "curl -sS --max-time 4 https://ok.test/", "ping -c 2 -W 2 203.0.113.10",
                    "echo x | socat -t 2 - UDP:203.0.113.20:7 && false", "ping -c 1 -W 2 10.0.2.2"):
        assert g.sh(command)[0] != 0, command
    assert not world.wire(mark) and not world.leaks(mark) and not world.since(mark, "nginx")


@SECOND_PORT_SLOW
def test_published_port(vms, port):
    """A connection from the host to a server in the guest."""
    g = vms.boot("--port", port, "--publish", "127.0.0.1:0:80/tcp")
    g.ok("mkdir /tmp/www && echo from inside >/tmp/www/index.html && httpd -h /tmp/www")
    host = w.wait_for("the published port to be told", lambda: re.search(r"127\.0\.0\.1:(\d+)", g.errors()), 20)[1]
    p = subprocess.run(["curl", "-sS", "--max-time", "30", f"http://127.0.0.1:{host}/"], capture_output=True, text=True)
    assert p.stdout == "from inside\n", p
    g.recorded("ingress_accept")
    assert g.power_off() == 0


@SECOND_PORT_SLOW
def test_mediation_channel(vms, world, mark, port):
    """The guest's vsock port leads to a target of the host's, and no other port does; it is no egress, so strict does not matter."""
    g = vms.boot("--port", port, "--egress", "strict", "--mediation", f"5000=203.0.113.20:{w.ECHO}")
    assert g.ok("echo through | socat -t 10 - VSOCK-CONNECT:2:5000") == "through\n"
    assert json.loads(vms.cli("status", g.name, "--json").stdout)["mediationReady"] is True
    assert g.sh("echo x | socat -t 2 - VSOCK-CONNECT:2:5001")[0] != 0
    got = g.ok("head -c 4194304 /dev/zero >/tmp/z; socat -t 20 - VSOCK-CONNECT:2:5000 </tmp/z | cmp - /tmp/z && echo same", 120)
    assert got == "same\n"
    assert g.power_off() == 0


def test_required_target_must_be_there(vms, port):
    """Fail-closed: the machine does not even boot."""
    g = vms.boot("--port", port, "--mediation", "5000=203.0.113.20:81", wait=False)
    assert g.end() == 125 and not g.seen
    assert "mediation" in g.errors()
