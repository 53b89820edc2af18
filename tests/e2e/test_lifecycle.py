# SPDX-License-Identifier: BSD-3-Clause
"""Starting, signals, exit status, errors of use, and what is left when any process dies at any moment."""
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest
import worldlib as w
from conftest import USER, alive

G = ("--egress", "guarded")


@pytest.mark.core
@pytest.mark.parametrize("cmd,rc", [(["true"], 0), (["false"], 1), (["sh", "-c", "exit 42"], 42), (["sh", "-c", "kill -9 $$"], 137),
                                    (["sh", "-c", "kill -TERM $$"], 143), (["/nonexistent/x"], 127), (["/etc/passwd"], 126)])
def test_exit_status_is_the_commands(sm, cmd, rc):
    r = sm.run(*G, cmd=cmd)
    assert r.rc == rc, r
    assert rc not in (126, 127) or cmd[0] in r.stderr.decode(), r


@pytest.mark.core
@pytest.mark.parametrize("sig", ["TERM", "INT", "HUP", "USR1", "QUIT"])
def test_signals_pass_through(sm, sig):
    run = sm.start(*G, cmd=["sh", "-c", f"trap 'echo got; exit 42' {sig}; echo up; while :; do read x || sleep 1 & wait; done"], stdin=subprocess.PIPE)
    assert run.line() == "up"
    run.p.send_signal(getattr(signal, "SIG" + sig))
    r = run.end(15)
    assert r.rc == 42 and b"got" in r.stdout, r
    assert not sm.left()


def test_standard_streams_pass_through(sm):
    data = os.urandom(1 << 20)
    p = sm.cli("run", *G, "--", "sh", "-c", "cat; echo problem >&2", input=data)
    assert p.returncode == 0 and p.stdout == data and b"problem\n" in p.stderr


def test_the_terminal_passes_through(sm):
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe("unshare", USER + [sm.bin, "run", *G, "--", "sh", "-c", "test -t 0 && test -t 1 && stty size && tty && cat"], sm.env())
    got = b""
    try:
        import fcntl
        import struct
        import termios
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))

        def until(what):
            nonlocal got
            end = time.monotonic() + 20
            while what not in got:
                assert select.select([fd], [], [], max(0, end - time.monotonic()))[0], got
                got += os.read(fd, 4096)
        until(b"/dev/")
        os.write(fd, b"echo me\n")
        until(b"echo me\r\necho me")
        os.write(fd, b"\x03")  # Ctrl-C reaches the command, and the run ends with its status
        deadline = time.monotonic() + 15
        while True:
            p, st = os.waitpid(pid, os.WNOHANG)
            if p:
                break
            assert time.monotonic() < deadline, got
            select.select([fd], [], [], 0.05)
        assert os.waitstatus_to_exitcode(st) == 130, got
    finally:
        os.close(fd)


@pytest.mark.core
@pytest.mark.parametrize("args,words", [
    (("--egress", "wide"), ("--egress", "wide", "guarded")),
    (("--egress-allow", ""), ("--egress-allow",)),
    (("--egress-allow", "a b"), ("--egress-allow", "a b")),
    (("--egress-allow", ".com"), ("--egress-allow", ".com")),
    (("--egress-allow", ".co.uk"), ("--egress-allow", ".co.uk")),
    (("--egress-allow", ".github.io"), ("--egress-allow", ".github.io")),
    (("--egress-allow", "ok.test:0"), ("ok.test:0",)),
    (("--egress-allow", "ok.test:70000"), ("70000",)),
    (("--egress-allow", "10.0.0.0/33"), ("10.0.0.0/33",)),
    (("--egress-allow", "10.0.0.300"), ("10.0.0.300",)),
    (("--egress-allow", "a" * 64 + ".test"), ("--egress-allow",)),
    (("--egress-deny", "*.ok.test"), ("--egress-deny", "*.ok.test")),
    (("--egress-passthrough", "http://ok.test"), ("--egress-passthrough", "http://ok.test")),
    (("--egress-inside", "nonsense"), ("--egress-inside", "nonsense")),
    (("--egress-dns-qps", "-1"), ("--egress-dns-qps", "-1")),
    (("--dns", "nowhere"), ("--dns", "nowhere")),
    (("--mtu", "20"), ("--mtu", "20")),
    (("--mtu", "70000"), ("--mtu", "70000")),
    (("--name", "../x"), ("--name", "../x")),
    (("--name", "a/b"), ("--name", "a/b")),
    (("--name", ""), ("--name",)),
    (("--no-such-flag",), ("--no-such-flag",)),
    (("--egress-policy", "/nonexistent.yaml"), ("--egress-policy", "/nonexistent.yaml")),
], ids=lambda a: " ".join(a) if isinstance(a, tuple) and a and a[0].startswith("--") else "")
def test_errors_name_the_flag_the_value_and_the_fix(sm, world, mark, args, words):
    p = sm.cli("run", *args, "--", "sh", "-c", "echo ran")
    err = p.stderr.decode()
    assert p.returncode == 2 and b"ran" not in p.stdout, p
    assert all(x in err for x in words), err
    assert not sm.left() and not world.wire(mark)
    d = os.path.join(sm.state, "slirp-med")
    assert not os.path.isdir(d) or not [f for _, _, fs in os.walk(d) for f in fs], "nothing half-started is left behind"


def test_no_command_is_an_error(sm):
    for args in (("run",), ("run", "--"), (), ("frobnicate",)):
        p = sm.cli(*args)
        assert p.returncode == 2 and p.stderr.strip() and not p.stdout, (args, p)
    for args in (("--help",), ("--version",), ("run", "--help")):
        p = sm.cli(*args)
        assert p.returncode == 0 and p.stdout.strip(), (args, p)


POLICY_BAD = [  # file name, text, line that the message must name
    ("a.yaml", "allow:\n  - ok.test\nalow:\n  - x.test\n", 3),
    ("b.yaml", "allow:\n  - ok.test\n  - ''\n", 3),
    ("c.yaml", "allow:\n  - ok.test\n---\nallow: []\n", 3),
    ("d.yaml", "allow: ok.test\n", 1),
    ("e.yaml", "allow:\n  - [a, b]\n", 2),
    ("f.yaml", "allow:\n  - ok.test\n  - .co.uk\n", 3),
    ("g.yaml", "allow:\n  - ok.test\nallow:\n  - x.test\n", 3),
    ("h.json", '{"allow": ["ok.test"],\n "deny": []}', 2),
    ("i.json", '{"allow": ["ok.test"]}\n{"allow": []}', 2),
    ("j.json", '{"allow": ["ok.test",]}', 1),
    ("k.yaml", "- ok.test\n", 1),
    ("l.yaml", "allow:\n\t- ok.test\n", 2),
    ("m.yaml", "allow: &a [ok.test]\npassthrough: *a\n", None),
]


@pytest.mark.core
@pytest.mark.parametrize("name,text,line", POLICY_BAD, ids=[x[0] for x in POLICY_BAD])
def test_policy_file_errors_name_file_and_line(sm, name, text, line):
    f = os.path.join(sm.tmp, name)
    with open(f, "w") as h:
        h.write(text)
    p = sm.cli("run", "--egress", "strict", "--egress-policy", f, "--", "sh", "-c", "echo ran")
    if line is None:  # aliases are legal YAML: either understood or refused, never half-read
        assert p.returncode in (0, 2), p
        return
    assert p.returncode == 2 and f"{f}:{line}" in p.stderr.decode() and b"ran" not in p.stdout, p


def test_policy_file_and_flags_are_united(sm):
    for name, text in (("p.yaml", "allow:\n  - ok.test\npassthrough:\n  - other.test\n"), ("p.yml", "allow: [ok.test]\npassthrough: [other.test]\n"),
                       ("p.json", '{"allow": ["ok.test"], "passthrough": ["other.test"]}')):
        f = os.path.join(sm.tmp, name)
        with open(f, "w") as h:
            h.write(text)
        r = sm.guest('for n in ("ok.test", "other.test", "listed.test", "evil.test"): out[n] = dns(n)["rcode"]',
                     "--egress", "strict", "--egress-policy", f, "--egress-allow", "listed.test")
        assert r.out == {"ok.test": 0, "other.test": 0, "listed.test": 0, "evil.test": 5}
    for mode in ("off", "open", "disabled"):
        p = sm.cli("run", "--egress", mode, "--egress-policy", f, "--", "true")
        assert p.returncode == 2 and b"--egress-policy" in p.stderr, p


@pytest.mark.core
def test_two_starts_of_one_name(sm):
    run = sm.start_guest('say("up"); sys.stdin.readline(); out["ok"] = dns("ok.test")["rcode"]', *G, name="twice")
    assert run.line() == "up"
    p = sm.cli("run", "--name", "twice", *G, "--", "sh", "-c", "echo ran")
    assert p.returncode == 125 and b"twice" in p.stderr and b"ran" not in p.stdout, p
    run.tell("")
    assert run.end().out["ok"] == 0, "the first one is not disturbed"


def test_many_starts_of_one_name_at_once(sm):
    ps = [subprocess.Popen(USER + [sm.bin, "run", "--name", "race", *G, "--", "sh", "-c", "echo won; read x"], env=sm.env(),
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    try:
        losers = w.wait_for("five of six to be refused", lambda: [p for p in ps if p.poll() is not None] if
                            len([p for p in ps if p.poll() is not None]) >= 5 else None, 20)
        assert all(p.returncode == 125 for p in losers), [(p.returncode, p.stderr.read()) for p in losers]
        win = [p for p in ps if p not in losers]
        so, se = win[0].communicate(b"\n", timeout=20)
        assert len(win) == 1 and b"won" in so, (so, se)
    finally:
        for p in ps:
            if p.poll() is None:
                p.kill()
            p.wait()


@pytest.mark.core
def test_status_and_stop(sm, world, mark):
    run = sm.start_guest(f'S = dial("{w.PROTO}", 7); say("up"); sys.stdin.readline()', *G, name="ctl")
    assert run.line() == "up"
    p = sm.cli("status", "ctl")
    assert p.returncode == 0 and b"ctl" in p.stdout, p
    st = sm.cli("status", "ctl", "--json")
    assert st.returncode == 0 and json.loads(st.stdout), st
    p = sm.cli("stop", "ctl")
    assert p.returncode == 0, p
    r = run.end(10)
    assert r.rc != 0 and r.audit[-1]["event"] == "egress_stop", r
    assert world.closed(mark, "echo")
    for verb in ("status", "stop"):
        p = sm.cli(verb, "nosuch")
        assert p.returncode != 0 and b"nosuch" in p.stderr, p


def test_control_socket_is_private(sm):
    run = sm.start_guest('say("up"); sys.stdin.readline()', *G, name="priv")
    assert run.line() == "up"
    found = [os.path.join(d, f) for top in (sm.state, "/run/user/1000") for d, _, fs in os.walk(top) for f in fs
             if os.path.exists(os.path.join(d, f)) and (os.stat(os.path.join(d, f)).st_mode & 0o170000) == 0o140000]
    assert found and all(os.stat(f).st_mode & 0o077 == 0 for f in found), found
    run.tell("")
    run.end()
    assert not [f for f in found if os.path.exists(f)], "no socket is left"


def mounts():
    with open("/proc/self/mountinfo") as f:
        return sorted(x.split()[4] for x in f)


def unix_sockets(sm):
    return sorted(os.path.join(d, f) for top in (sm.state, "/run/user/1000") for d, _, fs in os.walk(top) for f in fs
                  if (os.lstat(os.path.join(d, f)).st_mode & 0o170000) == 0o140000)


GUEST = """
S = dial("%s", 7); S.sendall(b"x"); S.recv(1)
say("up")
""" % w.PROTO

MOMENTS = {"idle": GUEST + "S.settimeout(60)\ntry: S.recv(1)\nexcept OSError: pass\ntime.sleep(30)",
           "busy": GUEST + f"""
def pump():
    b = dial("{w.PROTO}", {w.DISCARD})
    while True: b.sendall(b"z" * 65536)
def churn():
    while True: attempt("{w.PROTO}", {w.FIN_ON_ACCEPT}, timeout=2); dns("ok.test", timeout=2)
ts = [threading.Thread(target=f, daemon=True) for f in (pump, churn, churn)]
[t.start() for t in ts]
time.sleep(30)"""}


@pytest.mark.core
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("role", ["run", "core", "nat", "guest-init", "init"])
def test_kill_any_process_and_nothing_is_left(sm, world, mark, role, moment):
    before = mounts()
    run = sm.start_guest(MOMENTS[moment], *G, name="victim")
    assert run.line() == "up"
    pids = run.pids()
    assert role in pids, pids
    tree = set(pids.values())
    with open(f"/proc/{pids['guest-init']}/task/{pids['guest-init']}/children") as f:
        tree |= {int(x) for x in f.read().split()}
    os.kill(pids[role], signal.SIGKILL)
    t = time.monotonic()
    run.p.wait(timeout=10)
    w.wait_for(f"all processes to end after {role} was killed: {[(p, alive(p)) for p in tree]}", lambda: not [p for p in tree if alive(p)], 5)
    assert time.monotonic() - t < 5
    assert run.p.returncode != 0
    assert world.closed(mark, "echo"), "the guest's connections end"
    assert mounts() == before and not sm.left()
    if role != "run":
        assert not unix_sockets(sm), "no control socket is left"
        assert {"nat": "front", "guest-init": "guest", "init": "guest"}.get(role, role) in run.errors(), f"says what happened: {run.errors()}"
    for line in open(os.path.join(sm.state, "slirp-med", "victim", "egress.jsonl"), "rb"):
        json.loads(line)
    again = sm.run(*G, cmd=["true"], name="victim")
    assert again.rc == 0, f"the name can be used again: {again}"


@pytest.mark.parametrize("role", ["run", "core", "nat", "guest-init"])
def test_kill_during_start(sm, role):
    """As soon as the process exists, at whatever stage it is: the run ends, and nothing stays."""
    before = mounts()
    for i in range(5):
        run = sm.start(*G, cmd=["sh", "-c", "echo up; exec sleep 20"], name=f"early{i}")
        pid = w.wait_for(f"{role} to appear", lambda: run.pids().get(role) or (run.p.poll() is not None and -1), 10)
        assert pid > 0, run.errors()
        os.kill(pid, signal.SIGKILL)
        run.p.wait(timeout=10)
        assert run.p.returncode != 0
        w.wait_for(f"leftovers to end: {sm.left()}", lambda: not sm.left(), 5)
    assert mounts() == before


def test_a_daemon_of_the_command_ends_with_it(sm):
    r = sm.run(*G, cmd=["sh", "-c", "setsid sh -c 'exec sleep 300' >/dev/null 2>&1 & echo $!"])
    assert r.rc == 0
    out = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 300" not in out


@pytest.mark.core
def test_doctor(sm):
    p = sm.cli("doctor")
    assert p.returncode == 0 and p.stdout, p
    j = sm.cli("doctor", "--json")
    d = json.loads(j.stdout)
    text = json.dumps(d)
    assert j.returncode == 0 and '"ok"' in text, d
    for what in ("tap", "seccomp", "namespace", "tproxy"):
        assert what in text.lower(), f"doctor says nothing about {what}: {text}"


def test_no_state_home_falls_back_and_a_bad_one_is_an_error(sm):
    p = sm.cli("run", *G, "--name", "bad", "--", "true", env={"XDG_STATE_HOME": "/proc/nonexistent"})
    assert p.returncode == 2 and b"/proc/nonexistent" in p.stderr and b"XDG_STATE_HOME" in p.stderr, p
    env = {**sm.env(), "HOME": sm.tmp}
    env.pop("XDG_STATE_HOME")
    p = subprocess.run(USER + [sm.bin, "run", *G, "--name", "dflt", "--", "true"], env=env, capture_output=True, timeout=60)
    assert p.returncode == 0 and os.path.exists(os.path.join(sm.tmp, ".local/state/slirp-med/dflt/egress.jsonl")), p


def test_descriptor_exhaustion_of_the_host_process_is_survived(sm):
    """With few descriptors the workspace refuses new flows rather than ending or hanging, and recovers."""
    import resource
    r = sm.guest(f"""
keep = []
for i in range(400):
    try: s = dial("{w.PROTO}", 7, 3); keep.append(s)
    except OSError as e: pass
out["n"] = len(keep)
[s.close() for s in keep]
end = time.monotonic() + 10
while time.monotonic() < end:
    out["after"] = attempt("{w.PROTO}", 7, b"x", n=1, timeout=2)["reply"]
    if out["after"] == "x": break
""", *G, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    assert r.out["after"] == "x", r.out


def test_without_its_other_half_nothing_starts(sm, tmp_path):
    """A program that was copied alone, or with one of the two: it says what is missing, and makes nothing."""
    alone = tmp_path / "slirp-med"
    shutil.copy(sm.bin, alone)
    for missing in "slirp-med-core", "slirp-med-edge":
        r = subprocess.run([alone, "run", "--name", "half", "--", "true"], env=sm.env(), capture_output=True, text=True, timeout=60)
        if r.returncode == 0:  # an installed one of this prefix
            pytest.skip("slirp-med's parts are installed on this machine")
        assert r.returncode == 125
        assert f"{missing} is neither at" in r.stderr and "the installation is not whole" in r.stderr
        assert not os.path.exists(f"{sm.state}/slirp-med/half")
        if missing == "slirp-med-core":
            r = subprocess.run([alone, "doctor"], env=sm.env(), capture_output=True, text=True, timeout=60)
            assert r.returncode == 125 and "slirp-med-core is neither at" in r.stderr
        shutil.copy(os.path.join(os.path.dirname(sm.bin), missing), tmp_path)


def test_maps_no_openssl(sm):
    """The launcher has no TLS library, and becomes the program that has where a flag needs one."""
    libraries = {}
    for name, flags in ("thin", []), ("full", ["--egress-ca-file", "/etc/ssl/certs/ca-certificates.crt"]):
        p = subprocess.Popen([sm.bin, "run", "--name", f"maps-{name}", *flags, "--", "sh", "-c", "echo up; cat"], env=sm.env(), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
        try:
            assert p.stdout.readline() == b"up\n"
            with open(f"/proc/{p.pid}/maps") as f:
                libraries[name] = {os.path.basename(x.split()[-1]) for x in f if "/" in x}
        finally:
            p.stdin.close()
            assert p.wait(20) == 0
    assert not [x for x in libraries["thin"] if x.startswith(("libssl", "libcrypto", "libnghttp2"))], libraries["thin"]
    assert [x for x in libraries["full"] if x.startswith("libcrypto")], libraries["full"]
