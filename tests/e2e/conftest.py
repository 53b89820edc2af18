# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the end-to-end tests. pytest starts itself again inside the private internet (tests/world).

`world` answers what reached whom; `sm` runs the built program as an unprivileged user and hands back exit status, output
and the parsed audit. SLIRP_MED_BIN names the program; without it the build folder of the checkout is searched.
"""
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.realpath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(REPO, "tests", "world"))
import worldlib  # noqa: E402

USER = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "--"]  # uid 1000, no capabilities, as a user would
ROLES = ("run", "core", "nat", "guest-init")


def pytest_configure(config):
    if os.environ.get("SM_WORLD"):
        config.option.basetemp = config.option.basetemp or os.path.join(os.environ["SM_WORLD_DIR"], "tmp", "pytest")
        return
    cap = config.pluginmanager.getplugin("capturemanager")
    if cap:
        cap.stop_global_capturing()
    os.chdir(config.invocation_params.dir)
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [os.path.join(REPO, "tests/world/world"), "run", "--root", "--", sys.executable, "-m", "pytest"]
    os.execve(argv[0], argv + list(config.invocation_params.args), env)


def find_bin():
    b = os.environ.get("SLIRP_MED_BIN")
    if b:
        return os.path.realpath(b)
    for sub in ("build", "build/slirp-med", "build/vmm-glue", "build/vmm-glue/cli"):
        for n in ("slirp-med-bin", "slirp-med"):
            b = os.path.join(REPO, sub, n)
            if os.path.isfile(b) and os.access(b, os.X_OK):
                return b
    return None


@pytest.fixture(autouse=True)
def bound():
    """No test waits for ever, whatever the product does."""
    def late(*_):
        raise TimeoutError("the test took more than 200 s")
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(200)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture(scope="session")
def world():
    return worldlib.World()


def processes(binary):
    """(pid, role, argv) of every process of the program, and of its parts (launch/program.h), in this pid namespace."""
    here = os.path.dirname(binary)
    folders = [here, os.path.normpath(f"{here}/../libexec/slirp-med")]
    programs = {binary, *(f"{folder}/slirp-med-{part}" for folder in folders for part in ("core", "edge"))}
    found = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.path.realpath(f"/proc/{p}/exe") not in programs:
                continue
            with open(f"/proc/{p}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        role = argv[1].decode("latin-1") if len(argv) > 1 else "?"
        found.append((int(p), role, argv))
    return found


def alive(pid):
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def descendants(pid):
    """The process, its children, theirs and so on."""
    kids = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/stat") as f:
                kids.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(p))
        except OSError:
            pass
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        todo += kids.get(p, [])
    return found


def both(sm, begin, code, *flags, **kw):
    """Runs the guest's code once with tls true and once with tls false, in one workspace; out["tls"] and out["clear"]. begin comes once, before."""
    body = "\n".join("    " + x for x in code.strip().splitlines())
    return sm.guest(begin + f"""
def exchange():
    out = {{}}
{body}
    return out
res = out
for tls in (True, False):
    res["tls" if tls else "clear"] = exchange()
""", *flags, **kw)


class Result:
    def __init__(self, name, rc, stdout, stderr, state):
        self.name, self.rc, self.stdout, self.stderr, self.state = name, rc, stdout, stderr, state
        self.audit = read_audit(state, name)
        lines = [x for x in stdout.decode("utf-8", "replace").splitlines() if x.startswith("OUT ")]
        self.out = json.loads(lines[-1][4:]) if lines else None

    def events(self, event=None, **match):
        return [r for r in self.audit if (event is None or r["event"] == event) and all(r.get(k) == v for k, v in match.items())]

    def one(self, event, **match):
        """The single record of that kind: a decision is one event with one reason."""
        rows = self.events(event, **match)
        assert len(rows) == 1, f"{len(rows)} records of {event} {match} instead of one; audit:\n{self.text()}"
        return rows[0]

    def none(self, event, **match):
        rows = self.events(event, **match)
        assert not rows, f"unexpected {event}: {rows}"

    def some(self, event, **match):
        rows = self.events(event, **match)
        assert rows, f"no {event} {match}; audit:\n{self.text()}"
        return rows[0]

    def text(self):
        return "\n".join(json.dumps(r) for r in self.audit)

    def __repr__(self):
        return f"<rc={self.rc} stdout={self.stdout[-1500:]!r} stderr={self.stderr[-3000:]!r}>"


def audit_file(state, name):
    return os.path.join(state, "slirp-med", name, "egress.jsonl")


def read_audit(state, name):
    path = audit_file(state, name)
    if not os.path.exists(path):
        return []
    with open(path, "rb") as f:
        data = f.read()
    assert not data or data.endswith(b"\n"), "the last audit line is torn"
    rows = [json.loads(x) for x in data.splitlines()]
    for i, r in enumerate(rows):
        assert {"ts", "seq", "event", "workspace"} <= set(r), f"line {i + 1} lacks a field: {r}"
    seqs = [r["seq"] for r in rows]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True, f"seq is not continuous: {seqs}"
    return rows


class Running:
    """A workspace that is up while the test looks at it."""

    def __init__(self, sm, name, popen):
        self.sm, self.name, self.p, self.err = sm, name, popen, sm.err

    def line(self, timeout=20):
        """The next line of the guest's output."""
        import select
        buf = b""
        fd = self.p.stdout.fileno()
        while not buf.endswith(b"\n"):
            if not select.select([fd], [], [], timeout)[0]:
                raise TimeoutError(f"the guest said nothing in {timeout} s (so far {buf!r}); stderr: {self.errors()}")
            c = os.read(fd, 1)
            if not c:
                raise EOFError(f"the run ended: {buf!r}; stderr: {self.errors()}")
            buf += c
        return buf.decode().rstrip("\n")

    def said(self):
        """All of stderr so far."""
        with open(self.err.name, "rb") as f:
            return f.read()

    def errors(self):
        return self.said().decode("utf-8", "replace")[-3000:]

    def tell(self, text):
        self.p.stdin.write(text.encode() + b"\n")
        self.p.stdin.flush()

    def end(self, timeout=30):
        try:
            so, _ = self.p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"slirp-med run did not end in {timeout} s: {processes(self.sm.bin)}; stderr: {self.errors()}")
        return Result(self.name, self.p.returncode, so, self.errors().encode(), self.sm.state)

    def audit(self):
        return read_audit_now(self.sm.state, self.name)

    def pids(self):
        """pid by role of this workspace's processes; "init" is pid 1 of the guest, guest-init's child."""
        own, mine = {}, set(descendants(self.p.pid))
        for pid, role, _ in sorted(processes(self.sm.bin)):
            if pid in mine:
                own["init" if role in own else role] = pid
        return own


def read_audit_now(state, name):
    """Whole lines of an audit that is being written."""
    return worldlib.jsonl(audit_file(state, name))


class Sm:
    _n = itertools.count(1)

    def __init__(self, binary, world, state, tmp, datapath="slirp"):
        self.bin, self.world, self.state, self.tmp, self.datapath = binary, world, state, tmp, datapath
        self.running, self.err = [], None

    def env(self, extra=None):
        e = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SM_WORLD"))}
        return {**e, "XDG_STATE_HOME": self.state, "WORLD_CA": self.world.ca, **(extra or {})}

    def cli(self, *args, timeout=60, env=None, **kw):
        """Any subcommand, as the user."""
        return subprocess.run(USER + [self.bin, *args], env=self.env(env), capture_output=True, timeout=timeout, **kw)

    def name(self):
        return f"t{next(self._n)}"

    def run(self, *flags, cmd, name=None, timeout=60, env=None, **kw):
        """`slirp-med run FLAGS -- CMD` to its end."""
        name = name or self.name()
        p = self.start(*flags, cmd=cmd, name=name, env=env, **kw)
        return p.end(timeout)

    def start(self, *flags, cmd, name=None, env=None, **kw):
        name = name or self.name()
        self.err = open(os.path.join(self.tmp, f"stderr.{name}.{len(self.running)}"), "w+b")
        kw.setdefault("stdin", subprocess.DEVNULL)
        if not {"off", "open", "disabled", "isolated", "--egress-opaque"} & set(flags):
            flags = ("--egress-ca-file", self.world.ca, *flags)  # as if the private internet's CA were one of the host's
        if self.datapath != "slirp" and "--datapath" not in flags:
            flags = ("--datapath", self.datapath, *flags)
        p = subprocess.Popen(USER + [self.bin, "run", "--name", name, *flags, "--", *cmd], env=self.env(env),
                             stdout=subprocess.PIPE, stderr=self.err, **kw)
        r = Running(self, name, p)
        self.running.append(r)
        return r

    @staticmethod
    def guest_cmd(code):
        code = code.strip()
        compile(code, "<guest>", "exec")  # a slip in a test is not to look like a failure of the guest
        return ["/usr/bin/python3", "-B", "-S", os.path.join(HERE, "guestlib.py"), code]

    def guest(self, code, *flags, rc=0, **kw):
        """Run guest code (see guestlib.py) and expect the exit status."""
        r = self.run(*flags, cmd=self.guest_cmd(code), **kw)
        assert rc is None or r.rc == rc, repr(r)
        assert rc != 0 or r.out is not None, repr(r)
        return r

    def start_guest(self, code, *flags, **kw):
        kw.setdefault("stdin", subprocess.PIPE)
        return self.start(*flags, cmd=self.guest_cmd(code), **kw)

    @property
    def keeper(self):
        """The roles of the processes that only the kernel path has."""
        return ["guest-init"] if self.datapath == "tproxy" else []

    def refused(self, r, *errors):
        """Whether an attempt() was turned away before a byte was relayed. On the kernel path the guest's handshake is done by then (spec
        section 10): it is reset at once, which the guest sees on connect, on its first write or on its first read."""
        if self.datapath == "tproxy":
            return not r["reply"] and (r["connect"], r["end"]) in (("ok", "ECONNRESET"), ("ok", "EPIPE"), ("ECONNRESET", ""))
        return r["connect"] in (errors or ("ECONNREFUSED",))

    def left(self):
        """Processes of the program that are still there."""
        return [(p, r) for p, r, _ in processes(self.bin) if alive(p)]


# The kernel path is held to what the slirp path is held to: the core set of these files runs over both. What differs is what spec section 10
# says: on the kernel path the guest's handshake is done before we see it. SLIRP_MED_DATAPATH=tproxy runs every test of any file over it, and
# =both, as ./dev test all sets it, each over the one and the other.
BOTH_PATHS = ("test_tcp", "test_udp", "test_dns", "test_policy", "test_tls", "test_http1", "test_http2", "test_audit", "test_caps",
              "test_publish", "test_isolation", "test_lifecycle", "test_cred_inject")
# With the sanitizers, the files whose flows take another way through the front; what the core makes of them is the same on both.
if os.environ.get("SLIRP_MED_SANITIZED"):
    BOTH_PATHS = ("test_tcp", "test_udp", "test_dns", "test_publish", "test_lifecycle")


def pytest_generate_tests(metafunc):
    every = os.environ.get("SLIRP_MED_DATAPATH", "")
    if "datapath" not in metafunc.fixturenames or every not in ("", "both"):
        return
    core = metafunc.definition.get_closest_marker("core") and metafunc.module.__name__ in BOTH_PATHS
    if every or core or metafunc.definition.get_closest_marker("both_paths"):
        metafunc.parametrize("datapath", ["slirp", "tproxy"], indirect=True)


@pytest.fixture
def datapath(request):
    every = os.environ.get("SLIRP_MED_DATAPATH", "slirp")
    return getattr(request, "param", "slirp" if every == "both" else every)


@pytest.fixture
def sm(world, tmp_path, datapath):
    b = find_bin()
    if not b:
        pytest.fail("the program is not built: run ./dev build, or set SLIRP_MED_BIN", pytrace=False)
    os.chmod(tmp_path, 0o755)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    s = Sm(b, world, str(state), str(tmp_path), datapath)
    yield s
    for r in s.running:
        if r.p.poll() is None:
            r.p.send_signal(signal.SIGKILL)
            r.p.wait()
    for r in s.running:
        for text in (b"AddressSanitizer", b"LeakSanitizer", b"runtime error:", b"Assertion"):
            assert text not in r.said(), f"{r.name}: {r.said().decode('utf-8', 'replace')}"
    if s.running:
        # Whatever a test did, nothing may outlive its workspace.
        worldlib.wait_for(f"the processes of the run to end: {s.left()}", lambda: not s.left(), 10)


@pytest.fixture
def mark(world):
    """Ends of the world's logs at the beginning of the test."""
    world.sync()
    return world.mark()
