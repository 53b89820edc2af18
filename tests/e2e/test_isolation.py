# SPDX-License-Identifier: BSD-3-Clause
"""What `run` isolates, tried from inside (spec section 9): files, sockets, descriptors, processes, capabilities."""
import os
import socket
import subprocess

import pytest
from conftest import USER, audit_file

G = ("--egress", "guarded")


@pytest.mark.core
def test_rights_and_descriptors(sm):
    r, wr = os.pipe()
    os.set_inheritable(wr, True)
    try:
        g = sm.guest("""
out["st"] = {k: v.strip() for k, v in (l.split(":", 1) for l in open("/proc/self/status"))}
out["fds"] = sorted(int(x) for x in os.listdir("/proc/self/fd"))
out["kinds"] = [os.readlink("/proc/self/fd/" + f) for f in ("0", "1", "2")]
""", *G, pass_fds=[wr])
    finally:
        os.close(r)
        os.close(wr)
    st = g.out["st"]
    for c in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
        assert int(st[c], 16) == 0, (c, st[c])
    assert st["NoNewPrivs"] == "1"
    assert [f for f in g.out["fds"] if f > 2] in ([3], []), f"only the one that lists the folder: {g.out}"
    assert not [k for k in g.out["kinds"] if "tun" in k or "egress" in k], g.out


@pytest.mark.core
def test_namespaces_differ(sm):
    mine = {n: os.readlink(f"/proc/self/ns/{n}") for n in ("user", "net", "mnt", "pid", "ipc", "uts")}
    g = sm.guest('out["ns"] = {n: os.readlink("/proc/self/ns/" + n) for n in ("user", "net", "mnt", "pid", "ipc", "uts")}', *G)
    assert not [n for n in mine if g.out["ns"][n] == mine[n]], g.out


@pytest.mark.core
def test_state_folder_and_audit_are_out_of_reach(sm):
    """Not readable, not writable, not by another path, not after unmounting in a user namespace of the guest's own."""
    sm.guest("pass", *G, name="older")
    d = os.path.join(sm.state, "slirp-med")
    g = sm.guest(f"""
import subprocess
def tryit(f):
    try: return repr(f())
    except OSError as e: return err(e)
out["ls"] = tryit(lambda: os.listdir("{d}"))
out["older"] = tryit(lambda: open("{audit_file(sm.state, 'older')}").read())
out["own"] = tryit(lambda: open("{audit_file(sm.state, 'me')}").read())
out["append"] = tryit(lambda: open("{audit_file(sm.state, 'me')}", "a").write("x"))
out["root"] = tryit(lambda: open("/proc/1/root{audit_file(sm.state, 'me')}").read())
p = subprocess.run(["unshare", "-Urm", "sh", "-c", "umount -l '{d}' '{sm.state}' 2>/dev/null; cat '{audit_file(sm.state, 'me')}'"], capture_output=True, text=True)
out["unmounted"] = p.stdout
out["ps"] = sorted(int(x) for x in os.listdir("/proc") if x.isdigit())
""", *G, name="me")
    o = g.out
    assert "egress" not in o["ls"] and "older" not in o["ls"], o
    assert all(o[k] in ("ENOENT", "EACCES", "EPERM", "EROFS") for k in ("older", "own", "root")), o
    assert o["append"] in ("ENOENT", "EACCES", "EPERM", "EROFS", "1") and o["unmounted"] == "", o
    assert all("x" != open(audit_file(sm.state, "me")).read()[-1:] for _ in "1"), "the log is whole"


def test_state_folder_given_by_flag_is_masked_too(sm):
    d = os.path.join(sm.tmp, "elsewhere")
    os.mkdir(d)
    g = sm.guest(f'out["ls"] = [os.path.join(a, x) for a, _, f in os.walk("{d}") for x in f]', *G, "--state-dir", d)
    assert g.out["ls"] == [], g.out
    assert [f for _, _, f in os.walk(d) if "egress.jsonl" in f]


def test_file_system_is_the_callers_elsewhere(sm):
    f = os.path.join(sm.tmp, "shared")
    g = sm.guest(f'open("{f}", "w").write("from inside"); out["cwd"] = os.getcwd(); out["etc"] = os.path.exists("/etc/passwd")', *G, cwd=sm.tmp)
    assert open(f).read() == "from inside" and g.out["etc"] and g.out["cwd"] == sm.tmp


@pytest.fixture
def host_sockets(sm):
    """Unix sockets as a desktop and a build host have them, each with a listener that must hear nothing."""
    paths = ["/run/user/1000/bus", "/run/docker.sock", "/run/dbus/system_bus_socket", os.path.join(sm.tmp, "agent.1"), "\0sm-abstract"]
    socks = []
    for p in paths:
        if p[0] == "/":
            os.makedirs(os.path.dirname(p), exist_ok=True)
            if os.path.exists(p):
                os.unlink(p)
        s = socket.socket(socket.AF_UNIX)
        s.bind(p)
        if p[0] == "/":
            os.chmod(p, 0o666)
        s.listen(8)
        s.setblocking(False)
        socks.append((p, s))
    yield socks
    for p, s in socks:
        s.close()
        if p[0] == "/":
            os.unlink(p)


@pytest.mark.core
def test_host_unix_sockets_are_out_of_reach(sm, host_sockets):
    agent = os.path.join(sm.tmp, "agent.1")
    env = {"SSH_AUTH_SOCK": agent, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus", "DOCKER_HOST": "unix:///run/docker.sock",
           "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/dbus/system_bus_socket", "GPG_AGENT_INFO": "/run/user/1000/gnupg/S.gpg-agent:0:1"}
    g = sm.guest(f"""
for p in {[p for p, _ in host_sockets]!r}:
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(p); s.sendall(b"hi"); out[p] = "connected"
    except OSError as e: out[p] = err(e)
out["run"] = [os.path.join(a, x) for a, d, f in os.walk("/run") for x in f]
out["env"] = {{k: os.environ[k] for k in ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "DBUS_SYSTEM_BUS_ADDRESS", "XDG_RUNTIME_DIR") if k in os.environ}}
""", *G, env=env)
    for p, s in host_sockets:
        assert g.out[p] != "connected", p
        with pytest.raises(BlockingIOError):
            s.accept()
    assert not [k for k in g.out["env"] if k != "XDG_RUNTIME_DIR"], g.out["env"]
    assert not [x for x in g.out["run"] if "sock" in x or "bus" in x], g.out["run"]


def test_a_socket_next_to_the_caller_is_not_named_by_a_variable(sm):
    """Any Unix socket that leads out: one in the working folder is on the same file system, and still another network namespace's."""
    g = sm.guest('out["u"] = [l for l in open("/proc/net/unix")][1:]', *G)
    assert all("@" not in x for x in g.out["u"]), "no abstract socket of the host is visible"


@pytest.mark.core
def test_processes_cannot_be_seen_signalled_or_traced(sm):
    g = sm.guest("""
def tryit(f):
    try: return repr(f())
    except OSError as e: return err(e)
import ctypes, signal
libc = ctypes.CDLL(None, use_errno=True)
out["visible"] = [open("/proc/" + x + "/cmdline").read().replace("\\0", " ") for x in os.listdir("/proc") if x.isdigit()]
out["init"] = [tryit(lambda: open("/proc/1/mem", "rb+")), libc.ptrace(16, 1, 0, 0), tryit(lambda: os.listdir("/proc/1/fd"))]
out["shm"] = open("/proc/sysvipc/shm").read().count("\\n") if os.path.exists("/proc/sysvipc/shm") else 1
out["pidns"] = os.readlink("/proc/self/ns/pid")
if out["pidns"] != "%s":   # else it would be the test driver that goes
    out["all"] = tryit(lambda: os.kill(-1, signal.SIGKILL))   # whatever can be signalled is
out["still"] = http("ok.test")["connect"]
""" % os.readlink("/proc/self/ns/pid"), *G)
    assert "all" in g.out, "the guest is in the caller's pid namespace"
    seen = " ".join(g.out["visible"])
    assert " core" not in seen and " nat" not in seen and "guestlib" in seen, seen
    assert g.out["init"][0] in ("EACCES", "EPERM", "ENOENT") and g.out["init"][1] == -1, g.out
    assert g.out["still"] == "ok", "the core and the front did not feel it"
    assert g.out["shm"] == 1


def test_privileges_cannot_be_regained_for_the_guests_network(sm, world, mark):
    """A user namespace of its own gives a guest nothing over the tap, the routes or the mounts it was given."""
    g = sm.guest("""
import subprocess
def sh(c):
    p = subprocess.run(["sh", "-c", c], capture_output=True, text=True); return [p.returncode, p.stdout[-300:], p.stderr[-300:]]
out["link"] = sh("ip link set lo down")
out["addr"] = sh("ip addr add 10.0.2.99/24 dev $(ls /sys/class/net | grep -v lo | head -1)")
out["nested"] = sh("unshare -Ur ip link set lo down")
out["raw"] = sh("unshare -Ur python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'")
out["setns"] = sh("nsenter --net=/proc/1/ns/net --user=/proc/1/ns/user true")
out["suid"] = sh("su -c id")
out["tun"] = sh("ip tuntap add x mode tap")
""", *G)
    for k in ("link", "addr", "nested", "raw", "suid", "tun"):
        assert g.out[k][0] != 0, (k, g.out[k])
    assert not world.leaks(mark)


def test_promised_state_in_proc(sm):
    """seccomp, no_new_privs, no capabilities, an empty root or Landlock, not dumpable: for each of the processes."""
    run = sm.start_guest('say("up"); sys.stdin.readline()', *G)
    assert run.line() == "up"
    pids = run.pids()
    for role in ("core", "nat"):
        with open(f"/proc/{pids[role]}/status") as f:
            st = dict(x.rstrip("\n").split(":\t", 1) for x in f if ":\t" in x)
        assert st["Seccomp"] == "2" and st["NoNewPrivs"] == "1", (role, st)
        assert all(int(st[c], 16) == 0 for c in ("CapPrm", "CapEff", "CapInh", "CapAmb")), (role, st)
        root = os.listdir(f"/proc/{pids[role]}/root")
        assert role != "nat" or root == [], f"{role} sees {root}"
    assert os.readlink(f"/proc/{pids['nat']}/ns/net") != os.readlink(f"/proc/{pids['core']}/ns/net")
    # A process that is not dumpable shows neither what its descriptors are nor its memory to another process of the same user.
    for role in ("core", "nat"):
        for look in (["readlink", "-v", f"/proc/{pids[role]}/fd/5"], ["cat", f"/proc/{pids[role]}/environ"]):
            p = subprocess.run(USER + look, capture_output=True)
            assert p.returncode != 0 and b"Permission denied" in p.stderr, p
    with open(f"/proc/{pids['nat']}/net/dev") as f:
        assert {x.split(":")[0].strip() for x in f.readlines()[2:]} <= {"lo"}
    run.tell("")
    run.end()
