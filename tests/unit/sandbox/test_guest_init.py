# SPDX-License-Identifier: BSD-3-Clause
"""guest-init from inside: the test plays the supervisor, CMD tries what it must not be able to do.

Needs no network. Everything runs as the caller, and as nobody too when the caller is root; a tap is used where /dev/net/tun can be opened.
GUEST_INIT names the program (tests/unit/sandbox/guest_init_tool.c).
"""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

import pytest

EXE = os.environ["GUEST_INIT"]
NOBODY = 65534
TIMEOUT = 30


def can_tap():
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
        return True
    except OSError:
        return False


USERS = ["self", "nobody"] if os.geteuid() == 0 else ["self"]
NETWORK = {
    "mac": "52:55:0a:00:02:0f",
    "ip": "10.0.2.15",
    "prefix_len": 24,
    "gateway": "10.0.2.2",
    "dns": ["10.0.2.3"],
    "routes": ["0.0.0.0/0"],
    "mtu": 1500,
}


class Guest:
    """One guest-init; the link is self.link, CMD's output self.out."""

    def __init__(self, argv, user="self", env=None, cwd="/", stdin=None, tty=None, extra_fd=None, raw=None, ca=None, sockets=(), **config):
        conf = {"name": "work", "argv": argv, "cwd": cwd}
        if user == "self" and can_tap() and config.get("network") != "isolated":
            conf.update(NETWORK)
        else:
            conf["network"] = "isolated"
        conf.update(config)
        if ca is not None:
            conf["ca"] = True
        if sockets:
            conf["more"] = len(sockets)
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(TIMEOUT)
        memfd = os.memfd_create("config", 0)
        os.write(memfd, raw if raw is not None else json.dumps(conf).encode())
        exe = os.open(EXE, os.O_RDONLY | os.O_CLOEXEC)
        self.out, out_w = os.pipe2(os.O_CLOEXEC)
        environ = dict(os.environ if env is None else env)
        environ.pop("XDG_RUNTIME_DIR", None) if env is None else None
        # As the core says it in CA, and the supervisor passes it on. Nothing is hashed where a test gives no certificate.
        self.ca, self.ca_hash = ca, b"-"
        if ca is not None:
            named = subprocess.run(["openssl", "x509", "-noout", "-subject_hash", "-in", f"/proc/self/fd/{ca}"], pass_fds=(ca,), capture_output=True)
            self.ca_hash = named.stdout.strip() or b"-"
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if tty is not None:
                    os.setsid()
                    fcntl.ioctl(tty, termios.TIOCSCTTY, 0)
                link, conf_fd, out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 40) for fd in (theirs.fileno(), memfd, out_w))
                certificate = None if ca is None else fcntl.fcntl(ca, fcntl.F_DUPFD, 40)
                program = fcntl.fcntl(exe, fcntl.F_DUPFD_CLOEXEC, 40)
                os.dup2(link, 3)
                os.dup2(conf_fd, 4)
                os.dup2(tty if tty is not None else (stdin if stdin is not None else os.open("/dev/null", os.O_RDONLY)), 0)
                os.dup2(tty if tty is not None else out, 1)
                os.dup2(tty if tty is not None else out, 2)
                if extra_fd is not None:
                    os.dup2(extra_fd, 77)
                high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 40) for fd in sockets]
                if ca is not None:
                    os.dup2(certificate, 7)
                for i, fd in enumerate(high):
                    os.dup2(fd, 8 + i)
                if user == "nobody":
                    os.setgroups([])
                    os.setresgid(NOBODY, NOBODY, NOBODY)
                    os.setresuid(NOBODY, NOBODY, NOBODY)
                os.execve(program, ["guest-init"], environ)
            finally:
                os._exit(99)
        for fd in (memfd, exe, out_w):
            os.close(fd)
        theirs.close()
        self.tap = None
        self.keeper = None
        self.first, fds, _, _ = socket.recv_fds(self.link, 32768, 4)
        if self.first.startswith(b"TAP "):
            self.first, self.keeper = b"TAP", int(self.first[4:])
        if fds:
            self.tap = fds[0]

    def go(self):
        assert self.first == b"TAP", self.first
        with contextlib.suppress(BrokenPipeError):  # it has failed already: its message says why
            if self.ca is not None:
                self.link.send(b"CA " + self.ca_hash)
            self.link.send(b"GO")
        return self

    def read(self):
        data = b""
        while True:
            ready, _, _ = select.select([self.out], [], [], TIMEOUT)
            assert ready, f"no end of output after {data!r}"
            got = os.read(self.out, 65536)
            if not got:
                return data.decode(errors="replace")
            data += got

    def read_until(self, text):
        data = b""
        while text.encode() not in data:
            ready, _, _ = select.select([self.out], [], [], TIMEOUT)
            assert ready, f"{text!r} did not come: {data!r}"
            got = os.read(self.out, 65536)
            assert got, f"{text!r} did not come: {data!r}"
            data += got
        return data.decode(errors="replace")

    def end(self):
        """(last message, exit status)"""
        message = self.link.recv(32768).decode()
        _, status = os.waitpid(self.pid, 0)
        self.close()
        return message, os.waitstatus_to_exitcode(status)

    def close(self):
        self.link.close()
        with contextlib.suppress(OSError):
            os.close(self.out)
        if self.tap is not None:
            os.close(self.tap)


def inside(argv, **kw):
    """Run to the end; returns (output, status), having checked that the message and the status agree."""
    guest = Guest(argv, **kw).go()
    output = guest.read()
    message, status = guest.end()
    assert message == f"EXIT {status}"
    return output, status


def sh(script, **kw):
    return inside(["/bin/sh", "-c", script], **kw)


def py(script, **kw):
    return inside([sys.executable, "-I", "-c", script], **kw)


def refused(text, argv=("true",), **kw):
    guest = Guest(list(argv), **kw)
    if guest.first == b"TAP":
        guest.go()
        message, status = guest.end()
    else:
        message = guest.first.decode()
        _, status = os.waitpid(guest.pid, 0)
        status = os.waitstatus_to_exitcode(status)
        guest.close()
    assert status == 125, message
    assert message.startswith("FAIL ")
    assert text in message, message


@pytest.fixture(params=USERS)
def user(request):
    return request.param


@pytest.fixture
def folder(user):
    """A folder that the user owns, outside pytest's 0700 base."""
    with tempfile.TemporaryDirectory(prefix="slirp-med-test-", dir="/var/tmp") as name:
        if user == "nobody":
            os.chown(name, NOBODY, NOBODY)
        os.chmod(name, 0o755)
        yield name


def own(path, user):
    if user == "nobody":
        os.chown(path, NOBODY, NOBODY)


# ---- status, output, signals ----


@pytest.mark.parametrize(
    "script,status",
    [("true", 0), ("exit 3", 3), ("exit 125", 125), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_status(user, script, status):
    assert sh(script, user=user) == ("", status)


def test_not_found(user):
    output, status = inside(["no-such-command-here"], user=user)
    assert status == 127
    assert output == "slirp-med run: no-such-command-here: command not found\n"


def test_not_executable(user):
    output, status = inside(["/etc/passwd"], user=user)
    assert status == 126
    assert "/etc/passwd" in output and "denied" in output


def test_output_ends_with_cmd_though_orphans_run(user):
    # A background child that would hold the pipe for ever dies with the PID namespace.
    output, status = sh("(trap '' HUP TERM; exec sleep 1000) & echo started; exit 4", user=user)
    assert (output, status) == ("started\n", 4)


def test_orphans_are_reaped(user):
    script = "for i in 1 2 3; do (sh -c 'true' & ) ; done; wait; while grep -qs '^State:.Z' /proc/[0-9]*/status; do :; done; echo clean"
    assert sh(script, user=user) == ("clean\n", 0)


COUNT_SIGNALS = """
import signal
want = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, want)
print("ready", flush=True)
got = []
while len(got) < 4:
    got.append(signal.sigwait(want))
again = signal.sigtimedwait(want, 0.3)
print(sorted(int(n) for n in got), again and int(again.si_signo), flush=True)
"""


@pytest.mark.parametrize("via", ["kill", "link"])
def test_signals_pass_once(user, via):
    guest = Guest([sys.executable, "-I", "-c", COUNT_SIGNALS], user=user).go()
    guest.read_until("ready")
    for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
        if via == "kill":
            os.kill(guest.pid, sig)
        else:
            guest.link.send(b"SIGNAL %d" % sig)
    assert guest.read() == "[1, 2, 10, 15] None\n"
    assert guest.end() == ("EXIT 0", 0)


def test_stop_kills(user):
    guest = Guest(["/bin/sh", "-c", "trap '' TERM INT HUP; echo ready; while :; do sleep 100; done"], user=user).go()
    guest.read_until("ready")
    guest.link.send(b"STOP")
    assert guest.end() == ("EXIT 137", 137)


def test_link_closed_before_go(user):
    guest = Guest(["true"], user=user)
    guest.link.close()
    _, status = os.waitpid(guest.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 125


def test_link_closed_while_running(user):
    guest = Guest(["/bin/sh", "-c", "echo ready; exec sleep 1000"], user=user).go()
    guest.read_until("ready")
    guest.link.close()
    assert guest.read() == ""  # the sleeping CMD held the pipe
    os.waitpid(guest.pid, 0)


def test_kill_guest_init_ends_everything(user):
    guest = Guest(["/bin/sh", "-c", "(trap '' HUP TERM INT; exec sleep 1000) & echo ready; exec sleep 1000"], user=user).go()
    guest.read_until("ready")
    os.kill(guest.pid, signal.SIGKILL)
    assert guest.read() == ""
    os.waitpid(guest.pid, 0)


def test_terminal(user):
    """CMD has the caller's terminal: Ctrl-C reaches it once, window size and name work, TIOCSTI does not."""
    ours, theirs = pty.openpty()
    script = """
import fcntl, os, signal, struct, sys, termios
got = []
want = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, want)
print("tty", os.isatty(0), os.ttyname(0) if True else "", flush=True)
try:
    fcntl.ioctl(0, termios.TIOCSTI, b"x")
    print("TIOCSTI worked", flush=True)
except OSError as e:
    print("TIOCSTI", e.errno, flush=True)
print("ready", flush=True)
while signal.SIGTERM not in got:
    got.append(signal.sigwait(want))
print("got", [int(n) for n in got], flush=True)
"""
    if user == "nobody":
        os.chown(os.ttyname(theirs), NOBODY, NOBODY)
    guest = Guest([sys.executable, "-I", "-c", script], user=user, tty=theirs)
    os.close(theirs)
    guest.go()
    data = b""

    def until(text):
        nonlocal data
        while text not in data:
            ready, _, _ = select.select([ours], [], [], TIMEOUT)
            assert ready, data
            data += os.read(ours, 4096)

    until(b"ready")
    os.write(ours, b"\x03")
    until(b"^C")
    os.kill(guest.pid, signal.SIGTERM)
    until(b"got [")
    until(b"]")
    assert b"TIOCSTI 1\r\n" in data
    assert b"tty True /dev/" in data
    assert b"got [2, 15]" in data
    assert guest.end() == ("EXIT 0", 0)
    os.close(ours)


# ---- what CMD is ----


def test_identity(user):
    output, status = py(
        "import os, socket\n"
        "print(os.getuid(), os.geteuid(), os.getgid(), socket.gethostname())\n"
        "for l in open('/proc/self/status'):\n"
        "    if l.split(':')[0] in ('NoNewPrivs','Seccomp','CapInh','CapPrm','CapEff','CapBnd','CapAmb','SigBlk','SigIgn'): print(' '.join(l.split()))\n"
        "print(sorted(os.listdir('/proc/self/fd')))",
        user=user,
        extra_fd=2,
    )
    assert status == 0
    uid = NOBODY if user == "nobody" else os.getuid()
    lines = output.splitlines()
    assert lines[0].split()[:2] == [str(uid), str(uid)] and lines[0].endswith(" work")
    zero = "0000000000000000"
    for want in [f"Cap{s}: {zero}" for s in ("Inh", "Prm", "Eff", "Bnd", "Amb")] + ["NoNewPrivs: 1", "Seccomp: 2", f"SigBlk: {zero}"]:
        assert want in lines
    assert lines[-1] == "['0', '1', '2', '3']"  # 3 is the listing itself


def test_signals_are_default(user):
    # Python ignores SIGPIPE, and the supervisor does too: CMD must not.
    output, _ = inside(["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"], user=user)
    assert [line.split()[1] for line in output.splitlines()] == ["0" * 16, "0" * 16]


def test_namespaces(user):
    names = ["user", "net", "mnt", "pid", "ipc", "uts"]
    output, _ = sh("for n in %s; do readlink /proc/self/ns/$n; done" % " ".join(names), user=user)
    for name, got in zip(names, output.split()):
        assert got.startswith(name + ":[")
        assert got != os.readlink(f"/proc/self/ns/{name}")


def test_only_own_processes(user):
    output, _ = sh("ls /proc | grep -c '^[0-9]'; kill -9 %d 2>&1; kill -0 -1; echo done" % os.getpid(), user=user)
    lines = output.splitlines()
    assert int(lines[0]) <= 5
    assert lines[-1] == "done"


def test_no_capability_to_be_had(user):
    output, _ = py(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def t(name, rc): print(name, rc, ctypes.get_errno())\n"
        "t('unshare user', libc.unshare(0x10000000))\n"
        "t('unshare net', libc.unshare(0x40000000))\n"
        "t('mount', libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))\n"
        "t('umount', libc.umount2(b'/run', 2))\n"
        "t('ptrace init', libc.ptrace(16, 1, 0, 0))\n"
        "t('sethostname', libc.sethostname(b'x', 1))\n",
        user=user,
    )
    for line in output.splitlines():
        assert line.split()[-2:] == ["-1", "1"], output


def test_environment(user, folder):
    path = os.path.join(folder, "agent.sock")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "KEEP": "yes",
            "SECRET_REF": "hunter2",
            "DBUS_SESSION_BUS_ADDRESS": "unix:path=/x",
            "DBUS_SYSTEM_BUS_ADDRESS": "x",
            "SSH_AUTH_SOCK": "/x",
            "SSH_AGENT_PID": "1",
            "DOCKER_HOST": "tcp://127.0.0.1:1",
            "CONTAINER_HOST": "x",
            "GPG_AGENT_INFO": "x",
            "XDG_RUNTIME_DIR": "/run/user/0",
            "WAYLAND_DISPLAY": "x",
            "DISPLAY": ":0",
            "PULSE_SERVER": "x",
            "NOTIFY_SOCKET": "@x",
            "LISTEN_FDS": "1",
            "LISTEN_PID": "1",
            "SLIRP_MED_LOG": "error",
            "MY_AGENT": f"unix:{path}",
            "OTHER_AGENT": f"{path},x",
            "NOT_AGENT": f"{path}-other",
        }
        output, _ = inside(["env"], user=user, env=env, unset_env=["SECRET_REF"])
    names = {line.split("=")[0] for line in output.splitlines()}
    assert names == {"PATH", "HOME", "KEEP", "NOT_AGENT"}


def test_limits(user):
    output, _ = sh("umask; ulimit -S -n; ulimit -S -c", user=user, umask=0o027, nofile=333, core=0)
    assert output.split() == ["0027", "333", "0"]


# ---- what CMD does not see ----


def test_state_folder(user, folder):
    state = os.path.join(folder, "state")
    os.mkdir(state)
    own(state, user)
    with open(os.path.join(state, "audit.jsonl"), "w") as f:
        f.write("secret line\n")
    own(f.name, user)
    script = f"ls -A {state} 2>&1; cat {f.name} 2>&1; echo x > {state}/new 2>&1; chmod 700 {state} 2>&1; ls -A {state} 2>&1; mv {state} {folder}/moved 2>&1; ls -A {folder}/state"
    output, _ = sh(script, user=user, state_dir=state)
    assert "secret" not in output and "audit" not in output.replace(f.name, "")
    assert not os.path.exists(os.path.join(state, "new"))
    assert os.path.exists(f.name)


def test_state_folder_has_no_second_name(user, folder):
    # The same file system under another name: by a bind of a folder above it.
    state = os.path.join(folder, "a", "state")
    os.makedirs(state)
    with open(os.path.join(state, "audit"), "w") as f:
        f.write("secret\n")
    os.mkdir(os.path.join(folder, "other"))
    output, _ = sh(
        f"ls {folder}/other; cat {folder}/other/state/audit {folder}/a/state/audit 2>&1",
        user=user,
        state_dir=state,
        binds=[f"{folder}/a:{folder}/other"],
    )
    assert output.startswith("state\n")
    assert "secret" not in output


def test_reference_file(user, folder):
    key = os.path.join(folder, "key")
    with open(key, "w") as f:
        f.write("hunter2\n")
    own(key, user)
    link = os.path.join(folder, "link")
    os.symlink("key", link)
    output, _ = sh(f"cat {key} 2>&1; cat {link} 2>&1; chmod 600 {key} 2>&1; cat {key} 2>&1; mv {key} {key}2 2>&1; rm -f {key} 2>&1; cat {key}* 2>&1", user=user, masks=[link, "/no/such/file"])
    assert "hunter2" not in output
    assert open(key).read() == "hunter2\n"


CONNECT = """
import socket, sys
for path in sys.argv[1:]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(socket.AF_UNIX, kind)
        try:
            s.connect(path.replace('@', chr(0)))
            print("connected to", path)
        except OSError as e:
            print(e.errno, end=" ")
print("end")
"""


def test_host_sockets(user, folder):
    plain, relative, abstract, nested = (os.path.join(folder, n) for n in ("plain", "relative", "x", "deep/er/sock"))
    os.makedirs(os.path.dirname(nested))
    with contextlib.ExitStack() as stack:
        def listener(name, kind=socket.SOCK_STREAM):
            s = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            s.bind(name)
            if kind == socket.SOCK_STREAM:
                s.listen()

        listener(plain)
        listener(nested, socket.SOCK_DGRAM)
        listener("\0slirp-med-test-" + folder)
        here = os.getcwd()
        os.chdir(folder)
        listener("relative")
        os.chdir(here)
        for path in (plain, relative, nested):
            os.chmod(path, 0o777)
        for path in (plain, relative):  # the test itself can
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
        output, status = inside(
            [sys.executable, "-I", "-c", CONNECT, plain, relative, nested, "@slirp-med-test-" + folder], user=user, env={"HOME": folder, "PATH": os.environ["PATH"]}
        )
    assert status == 0
    assert "connected" not in output and output.endswith("end\n")


def test_own_sockets_work(user):
    script = (
        "import os, socket, tempfile\n"
        "d = tempfile.mkdtemp()\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(d + '/s'); s.listen()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect(d + '/s')\n"
        "os.unlink(d + '/s'); os.rmdir(d)\n"
        "l = socket.socket(); l.bind(('0.0.0.0', 80)); l.listen(); c = socket.create_connection(('127.0.0.1', 80))\n"
        "print('fine')"
    )
    assert py(script, user=user) == ("fine\n", 0)


def test_run_and_runtime_dir(user, folder):
    with open(os.path.join(folder, "bus"), "w") as f:
        f.write("secret\n")
    env = dict(os.environ, XDG_RUNTIME_DIR=folder)
    output, _ = sh(f"ls -A /run; ls -A /var/run/; cat {folder}/bus 2>&1; echo x > /run/x && rm /run/x", user=user, env=env)
    assert "secret" not in output
    assert output.split()[0:2] == ["lock", "lock"], output


def test_kernel_settings_are_readonly(user):
    output, _ = sh(
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/modprobe /sys/kernel/mm/ksm/run /sys/kernel/uevent_helper; do "
        "(echo x > $f) 2>&1 && echo written $f; done; head -c 1 /proc/kcore 2>&1; echo done",
        user=user,
    )
    assert "written" not in output and output.endswith("done\n")


def test_devices(user):
    output, status = sh(
        "set -e; echo x > /dev/null; test $(head -c 3 /dev/zero | wc -c) = 3; test $(head -c 3 /dev/urandom | wc -c) = 3; echo a > /dev/shm/a; "
        "ls /dev; test ! -e /dev/mem; test -z \"$(find /dev -type b)\"; echo b | cat /dev/stdin",
        user=user,
    )
    assert status == 0, output
    assert output.endswith("b\n")
    assert not os.path.exists("/dev/shm/a")
    assert not {"vda", "sda", "mem", "net", "kmsg", "log"} & set(output.split())


# ---- names, network ----

# Ours is laid over the machine's file; a freshly made root may have none, and then CMD has none.
HOSTS = os.path.exists("/etc/hosts")


def test_resolver_and_hosts():
    if not can_tap():
        pytest.skip("/dev/net/tun cannot be opened")
    output, _ = sh("cat /etc/resolv.conf; grep -c localhost /etc/hosts; grep work /etc/hosts; getent ahostsv4 work")
    lines = output.splitlines()
    assert lines[0] == "nameserver 10.0.2.3"
    if not HOSTS:
        assert "/etc/hosts" in lines[1]
        return
    assert lines[1] == "1"
    assert lines[2].split() == ["10.0.2.15", "work"]
    assert lines[3].split()[0] == "10.0.2.15"


def test_isolated(user):
    output, _ = sh("cat /proc/net/dev /proc/net/route | grep -c eth0; cat /etc/resolv.conf; getent hosts work", user=user, network="isolated")
    assert output.split("\n")[0] == "0"
    assert "nameserver" not in output
    assert ("127.0.1.1" in output) == HOSTS


def test_tap():
    if not can_tap():
        pytest.skip("/dev/net/tun cannot be opened")
    script = (
        "import fcntl, socket, struct\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "ifr = struct.pack('16s240x', b'eth0')\n"
        "print(socket.inet_ntoa(fcntl.ioctl(s, 0x8915, ifr)[20:24]), struct.unpack('i', fcntl.ioctl(s, 0x8921, ifr)[16:20])[0], fcntl.ioctl(s, 0x8927, ifr)[18:24].hex())\n"
        "print(open('/proc/sys/net/ipv6/conf/eth0/disable_ipv6').read().strip() if __import__('os').path.exists('/proc/sys/net/ipv6') else 1)\n"
        "s.sendto(b'hello', ('203.0.113.9', 9)); print('sent', flush=True)\n"
        "import sys; sys.stdin.read()"
    )
    r, w = os.pipe2(os.O_CLOEXEC)
    guest = Guest([sys.executable, "-I", "-c", script], stdin=r, mtu=9000)
    os.close(r)
    assert guest.tap is not None
    assert fcntl.fcntl(guest.tap, fcntl.F_GETFL) & os.O_NONBLOCK
    guest.go()
    output = guest.read_until("sent")
    assert output.splitlines()[:2] == ["10.0.2.15 9000 52550a00020f", "1"]
    frames = []
    while not any(f[12:14] == b"\x08\x06" for f in frames):
        ready, _, _ = select.select([guest.tap], [], [], TIMEOUT)
        assert ready
        frames.append(os.read(guest.tap, 65536))
    arp = next(f for f in frames if f[12:14] == b"\x08\x06")
    assert arp[6:12].hex() == "52550a00020f" and arp[38:42] == bytes([10, 0, 2, 2])
    assert not any(f[12:14] == b"\x86\xdd" for f in frames)
    os.close(w)
    guest.read()
    assert guest.end() == ("EXIT 0", 0)


# ---- --ro, --rootfs, --bind ----


def test_readonly(user, folder):
    place = os.path.join(folder, "open")
    os.mkdir(place)
    own(place, user)
    output, _ = sh(
        f"echo x > {folder}/new; echo x > /tmp/new && echo tmp; echo x > {place}/new && echo bind; ls /tmp",
        user=user,
        ro=True,
        binds=[place],
        cwd=place,
    )
    assert "tmp\n" in output and "bind\n" in output
    assert "Read-only file system" in output
    assert not os.path.exists(os.path.join(folder, "new")) and not os.path.exists("/tmp/new")
    assert os.path.exists(os.path.join(place, "new"))


def test_rootfs(user, folder):
    # A root with nothing of its own; resolv.conf is a link into /run, as on many distributions.
    root = os.path.join(folder, "root")
    os.makedirs(os.path.join(root, "etc"))
    for path in (root, os.path.join(root, "etc")):
        own(path, user)
    os.symlink("../run/systemd/resolve/stub-resolv.conf", os.path.join(root, "etc/resolv.conf"))
    binds = [d for d in ("/usr", "/bin", "/lib", "/lib64", "/sbin") if os.path.exists(d)]
    binds = [f"{os.path.realpath(d)}:{d}" for d in binds] + [f"{folder}:/data"]
    output, status = sh("ls /; cat /etc/resolv.conf; grep -c . /etc/hosts; ls -A /data; cat /proc/self/mountinfo", user=user, rootfs=root, binds=binds)
    assert status == 0, output
    entries = output.splitlines()
    assert {"bin", "data", "dev", "etc", "lib", "proc", "run", "sys", "tmp", "usr"} <= set(entries)
    assert "root" in entries and not {"home", "work", "var"} & set(entries[: entries.index("usr") + 1])
    assert ("nameserver 10.0.2.3" in output) or ("# no network" in output)


# ---- a VMM's view ----

BARE = {"bare": True, "network": "isolated"}


def test_bare_shows_programs_and_nothing_of_the_caller(user, folder):
    with open(f"{folder}/secret", "w") as f:
        f.write("secret")
    os.chmod(f"{folder}/secret", 0o644)
    script = f"""import os
print(sorted(os.listdir("/")), os.path.exists("/usr/bin/env"), os.path.exists("{folder}"), os.path.exists("/etc/passwd"),
      os.path.exists(os.path.expanduser("~")) and os.listdir(os.path.expanduser("~")) != [])
for path in ("/usr/x", "/bin/x", "/lib/x"):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        print("wrote", path)
    except OSError as e:
        print(e.strerror)
open("/tmp/mine", "w").close()
print(sorted(os.listdir("/sys/class/net")), [line.split()[4] for line in open("/proc/self/mountinfo") if "{folder}" in line])"""
    output, status = py(script, user=user, **BARE)
    lines = output.splitlines()
    assert status == 0, output
    assert lines[0].endswith("True False False False"), output
    assert not {"home", "root", "var", "srv", "opt"} & set(eval(lines[0][:lines[0].index("]") + 1])), output
    assert lines[1:4] == ["Read-only file system"] * 3, output
    assert lines[4] == "['lo'] []", output


def test_bare_gets_its_descriptors_and_no_other(user, folder):
    """The CA's file as 7, sockets from 8 on, files from 12 on: these, opened for reading, and nothing of guest-init's."""
    for name in ("ca", "kernel", "initrd"):
        with open(f"{folder}/{name}", "w") as f:
            f.write(f"this is {name}")
        own(f"{folder}/{name}", user)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ca = os.open(f"{folder}/ca", os.O_RDONLY)
    script = """import os, socket
print(sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)))
for fd in (7, 12, 13):
    print(open(f"/proc/self/fd/{fd}").read())
socket.socket(fileno=8).sendall(b"frame")
try:
    os.write(12, b"x")
except OSError as e:
    print(e.strerror)"""
    guest = Guest([sys.executable, "-I", "-c", script], user=user, ca=ca, sockets=[theirs.fileno()],
                  files=[f"{folder}/kernel", f"{folder}/initrd"], **BARE).go()
    theirs.close()
    os.close(ca)
    output = guest.read()
    assert guest.end() == ("EXIT 0", 0), output
    assert output.splitlines() == ["[0, 1, 2, 7, 8, 12, 13]", "this is ca", "this is kernel", "this is initrd", "Bad file descriptor"]
    ours.settimeout(TIMEOUT)
    assert ours.recv(100) == b"frame"
    assert ours.recv(100) == b""  # nobody else has kept the other end
    ours.close()


TPROXY = {**NETWORK, "network": "user", "datapath": "tproxy", "gateway_mac": "52:55:0a:00:02:02", "resolver": "10.0.2.3"}


def test_bare_on_the_kernel_path():
    """A VMM has the guest's tap as 8, with a virtio-net header, and nothing but lo in its namespace; the front gets the five sockets."""
    if not can_tap():
        pytest.skip("/dev/net/tun cannot be opened")
    script = """import fcntl, os, struct
print(sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)), os.listdir("/sys/class/net"))
name, flags = struct.unpack("16sH22x", fcntl.ioctl(8, 0x800454d2, bytes(40)))
print(name.strip(b"\\0").decode(), hex(flags & 0x5002))
question = bytes.fromhex("ffffffffffff52550a00020f08060001080006040001" "52550a00020f0a00020f" "0000000000000a000202")
os.set_blocking(8, True)
os.write(8, bytes(12) + question)
frames = (os.read(8, 2000)[12:] for _ in range(10)) # the keeper's SYN is among them
answer = next(f for f in frames if f[12:14] == b"\\x08\\x06")
print(answer[6:12].hex(), answer[28:32].hex())"""
    guest = Guest([sys.executable, "-I", "-c", script], **{**BARE, **TPROXY})
    assert guest.first == b"TAP" and guest.tap is not None and guest.keeper, guest.first
    with socket.socket(fileno=os.dup(guest.tap)) as bundle:
        bundle.settimeout(TIMEOUT)
        hello, fds, _, _ = socket.recv_fds(bundle, 100, 8)
        assert hello == b"S" and len(fds) == 5
        # A keeper that answers is at work, and has its name.
        bundle.send(struct.pack(">QIHH", 7, 0xc6336407, 4000, 80))
        answer, dialled, _, _ = socket.recv_fds(bundle, 100, 8)
        assert answer == struct.pack(">Q", 7) and len(dialled) == 1
    with open(f"/proc/{guest.keeper}/comm") as f:
        assert f.read() == "slirp-med-keep\n"
    output = guest.go().read()
    for fd in fds + dialled:
        os.close(fd)
    assert guest.end() == ("EXIT 0", 0), output
    # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR; and the mediator's kernel says who the gateway is.
    assert output.splitlines() == ["[0, 1, 2, 8] ['lo']", "slirp0 0x5002", "52550a000202 0a000202"], output


def test_bare_binds(user, folder):
    """A disk image is where it was, as writable as it was."""
    with open(f"{folder}/disk", "w") as f:
        f.write("disk")
    own(f"{folder}/disk", user)
    output, status = sh(f"cat {folder}/disk; echo more >>{folder}/disk; ls {folder}", user=user, binds=[f"{folder}/disk"], **BARE)
    assert (output, status) == ("diskdisk\n", 0)
    with open(f"{folder}/disk") as f:
        assert f.read() == "diskmore\n"


def test_bare_hides_state(user, folder):
    """A bind cannot bring it back."""
    state = f"{folder}/state"
    os.mkdir(state, 0o700)
    own(state, user)
    output, _ = sh(f"ls {folder}/state 2>&1", user=user, state_dir=state, binds=[folder], **BARE)
    assert "ermission denied" in output or "cannot open" in output, output
    refused("own state", user=user, state_dir=state, binds=[state], **BARE)


def test_rootfs_cannot_be_left(user, folder):
    root = os.path.join(folder, "root")
    os.mkdir(root)
    own(root, user)
    binds = [f"{os.path.realpath(d)}:{d}" for d in ("/usr", "/bin", "/lib", "/lib64") if os.path.exists(d)]
    output, _ = sh("cd / && cd .. && cd ../../.. && ls -A; ls -d /proc/1/root/var /proc/self/cwd/var 2>&1", user=user, rootfs=root, binds=binds)
    assert "var\n" not in output.replace("root/var", "").replace("cwd/var", "")


@pytest.mark.parametrize(
    "config,text",
    [
        ({"cwd": "/no/such/folder"}, "working directory"),
        ({"rootfs": "/no/such/folder"}, "--rootfs"),
        ({"binds": ["/no/such/folder:/x"]}, "--bind"),
        ({"binds": ["/etc:/no/such/place"]}, "--bind"),
        ({"bogus": 1}, "bogus"),
        ({"argv": []}, "argv"),
        ({"cwd": "relative"}, "cwd"),
        ({"umask": 4096}, "umask"),
        ({"hostname": "x" * 65}, "hostname"),
        ({"uid": os.geteuid() + 70000}, str(os.geteuid() + 70000)),
        ({"binds": ["/etc:relative"]}, "binds"),
        ({"bare": True, "ro": True}, "bare"),
        ({"bare": True, "rootfs": "/usr"}, "bare"),
        ({"bare": True, "more": 5}, "more"),
        ({"files": ["/etc/passwd"]}, "bare"),
        ({"bare": True, "files": ["passwd"]}, "files"),
        ({"bare": True, "files": ["/no/such/file"]}, "/no/such/file"),
        ({"bare": True, "more": 1}, "descriptor 8 is missing"),
        ({"network": "bridge"}, "network"),
        ({**NETWORK, "network": "user", "datapath": "tproxy"}, "gateway_mac"),
        ({**TPROXY, "datapath": "carrier-pigeon"}, "datapath"),
        ({**TPROXY, "bare": True, "more": 1}, "more"),
    ],
)
def test_refused(user, config, text):
    refused(text, **{"argv": ["true"], "user": user, **config})


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return f.read().split()


def state(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0]


def test_init_that_ends_before_go_is_told():
    """PID 1 fails while A is not looking: its end and its reason are both there when A looks next, and A still says why and ends."""
    caught = 0
    for _ in range(20):
        guest = Guest(["true"], binds=["/etc:/no/such/place"])
        if guest.first == b"TAP":
            os.kill(guest.pid, signal.SIGSTOP)
            os.waitpid(guest.pid, os.WUNTRACED)
            for pid in children(guest.pid):
                before = state(pid)
                while state(pid) != "Z":
                    time.sleep(0.001)
                caught += before != "Z"
            os.kill(guest.pid, signal.SIGCONT)
            message, status = guest.end()
        else:
            message = guest.first.decode()
            status = os.waitstatus_to_exitcode(os.waitpid(guest.pid, 0)[1])
            guest.close()
        assert status == 125 and message.startswith("FAIL ") and "--bind" in message, (message, status)
        if caught >= 3:
            return
    assert caught, "PID 1 was never seen alive while A stood still"


@pytest.mark.parametrize("change,text", [
    ({"mac": "53:55:0a:00:02:0f"}, "mac"), ({"mtu": 100}, "mtu"), ({"gateway": "10.0.3.2"}, "gateway"), ({"ip": "10.0.2"}, "ip"),
    ({"dns": None}, "dns"), ({"dns": []}, "dns"), ({"dns": ["::1"]}, "dns"), ({"dns": "10.0.2.3"}, "dns"),
    ({"routes": None}, "routes"), ({"routes": ["10.0.0.1/8"]}, "routes"), ({"routes": ["0.0.0.0/0"] * 9}, "routes")])
def test_refused_network(change, text):
    conf = dict(NETWORK, name="x", argv=["true"], cwd="/")
    conf.update(change)
    refused(f'"{text}"', raw=json.dumps(conf).encode())


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"name":"a","name":"b"}', b"\xff", b'{"name":"x\\u0000y","argv":["a"],"cwd":"/"}'])
def test_malformed(raw):
    refused("guest-init configuration", raw=raw)


def test_bind_of_state_is_refused(user, folder):
    state = os.path.join(folder, "state")
    os.makedirs(os.path.join(state, "ws"))
    refused("must not see", user=user, state_dir=state, binds=[f"{state}/ws:/tmp"])
    refused("must not see", user=user, masks=[os.path.join(state, "ws")], binds=[f"{state}/ws:/tmp"])


def test_cwd_in_masked_folder(user, folder):
    refused("working directory", user=user, state_dir=folder, cwd=folder)


def test_no_supervisor():
    got = subprocess.run([EXE], capture_output=True, text=True, close_fds=True, timeout=TIMEOUT)
    assert got.returncode == 2
    assert "slirp-med run" in got.stderr
