# SPDX-License-Identifier: BSD-3-Clause
"""The workspace's CA: CMD trusts it, the host does not change, and the key is nowhere but in the core and in its file.

What programs make of the trust is shown by tests/clients; what lies where in other distributions by tests/unit/sandbox/test_guest_trust.py.
"""
import hashlib
import os
import signal
import stat

import conftest
import pytest
from conftest import alive, descendants, processes
from memlib import body, key_forms, memory

G = ("--egress", "guarded")
VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE",
             "NODE_EXTRA_CA_CERTS", "DENO_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
LOOK = f"out['files'] = {{v: open(os.environ[v]).read() for v in {VARIABLES!r}}}"


def folder(sm, name):
    return os.path.join(sm.state, "slirp-med", name)


def read(path):
    with open(path) as f:
        return f.read()


def tree(*roots):
    """Everything that a write to these folders would change."""
    seen = {}
    for root in filter(os.path.isdir, roots):
        for at, _, files in os.walk(root):
            for path in [at] + [os.path.join(at, f) for f in files]:
                st = os.lstat(path)
                digest = None
                if stat.S_ISREG(st.st_mode):
                    with open(path, "rb") as f:
                        digest = hashlib.sha256(f.read()).hexdigest()
                seen[path] = (st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns, digest)
    return seen


@pytest.mark.core
def test_variables_lead_to_the_ca(sm):
    g = sm.guest(LOOK, *G)
    ca = read(os.path.join(folder(sm, g.name), "ca.pem"))
    for name, text in g.out["files"].items():
        assert body(ca) in text.replace("\n", ""), name
        assert "PRIVATE" not in text, name


@pytest.mark.core
def test_the_host_is_as_before(sm):
    roots = ("/etc/ssl", "/etc/pki", "/etc/chromium", "/etc/opt", "/etc/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/ca-certificates")
    before = tree(*roots)
    sm.guest("""
for p in ("/etc/ssl/certs/new", "/etc/ssl/certs/ca-certificates.crt", "/run/slirp-med/ca-bundle.pem", "/run/slirp-med/new"):
    try: open(p, "a").write("x"); out[p] = "written"
    except OSError as e: out[p] = err(e)
assert "written" not in out.values(), out
""", *G)
    assert tree(*roots) == before
    assert not os.path.exists("/run/slirp-med")


def test_key_while_it_runs(sm):  # not core: a sanitizer's shadow memory is too large to search
    """Its file is the user's alone and hidden from CMD; no argument, environment or memory but the core's holds it; it goes with the run."""
    r = sm.start_guest(f"""
def tryit(f):
    try: return repr(f())
    except OSError as e: return err(e)
d = "{folder(sm, 'keyed')}"
out["read"] = [tryit(lambda p=p: open(p).read()) for p in (d + "/ca.key", "/proc/1/root" + d + "/ca.key", "/proc/self/root" + d + "/ca.key")]
out["list"] = tryit(lambda: os.listdir(d))
out["fds"] = sorted(int(x) for x in os.listdir("/proc/self/fd"))
print("up", flush=True)
sys.stdin.readline()
""", *G, name="keyed")
    assert r.line() == "up"
    key, cert = (os.path.join(folder(sm, "keyed"), n) for n in ("ca.key", "ca.pem"))
    st = os.lstat(key)
    assert stat.S_ISREG(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o600 and st.st_nlink == 1
    assert stat.S_IMODE(os.lstat(cert).st_mode) == 0o600
    forms = key_forms(read(key))
    pids = r.pids()
    assert set(pids) == {"run", "core", "nat", "guest-init", "init"}
    everybody = {pid: "CMD" for pid in descendants(r.p.pid)} | {pid: role for pid, role, _ in processes(sm.bin)}
    assert sorted(everybody.values()) == sorted(["CMD", "core", "guest-init", "guest-init", "nat", "run", *sm.keeper])
    holders = {role for pid, role in everybody.items() if any(x in memory(pid) for x in forms)}
    assert holders == {"core"}, "the core signs with it (else this shows nothing), and nobody else has it, as argument, environment or otherwise"
    r.tell("")
    g = r.end()
    assert g.rc == 0, repr(g)
    assert set(g.out["read"]) <= {"ENOENT", "EACCES"} and g.out["list"] in ("ENOENT", "EACCES"), g.out
    assert g.out["fds"] in ([0, 1, 2], [0, 1, 2, 3]), g.out
    assert not os.path.lexists(key) and os.path.exists(cert)
    kept = b"".join(open(os.path.join(at, f), "rb").read() for at, _, files in os.walk(sm.state) for f in files)
    for text in (kept, g.stdout, g.stderr):
        assert not [x for x in forms if x in text], "in what is left of the run"


@pytest.mark.core
def test_fresh_on_every_start(sm):
    first = sm.guest(LOOK, *G, name="again").out["files"]["NODE_EXTRA_CA_CERTS"]
    second = sm.guest(LOOK, *G, name="again").out["files"]["NODE_EXTRA_CA_CERTS"]
    ca = body(read(os.path.join(folder(sm, "again"), "ca.pem")))
    assert ca in second.replace("\n", "") and ca not in first.replace("\n", "")


def test_after_a_kill(sm):
    """A supervisor that was killed leaves its key; the next start has another one, in a file that nobody had open."""
    r = sm.start_guest("print('up', flush=True)\nsys.stdin.readline()", *G, name="killed")
    assert r.line() == "up"
    key = os.path.join(folder(sm, "killed"), "ca.key")
    with open(key) as held:
        old = held.read()
        pids = r.pids()
        os.kill(pids["run"], signal.SIGKILL)
        r.p.wait()
        import worldlib
        worldlib.wait_for("all processes to end with the supervisor", lambda: not any(alive(p) for p in pids.values()), 10)
        assert read(key) == old
        r = sm.start_guest("print('up', flush=True)\nsys.stdin.readline()", *G, name="killed")
        assert r.line() == "up"
        assert read(key) != old and os.stat(key).st_ino != os.fstat(held.fileno()).st_ino
        held.seek(0)
        assert held.read() == old
    r.tell("")
    assert r.end().rc == 0
    assert not os.path.lexists(key)


@pytest.mark.parametrize("flags", [("--egress", "off"), ("--egress", "strict", "--egress-opaque"), ("--network", "isolated")])
def test_no_ca_where_nothing_is_intercepted(sm, flags):
    left = folder(sm, "plain")
    sm.guest("pass", *G, name="plain")  # a CA of an earlier run is not mistaken for one of this
    g = sm.guest(f"out['env'] = [v for v in {VARIABLES!r} + ('JAVA_TOOL_OPTIONS',) if 'slirp-med' in os.environ.get(v, '')]\nout['dir'] = os.path.exists('/run/slirp-med')", *flags, name="plain")
    assert g.out == {"env": [], "dir": False}
    assert not os.path.lexists(os.path.join(left, "ca.key")) and not os.path.lexists(os.path.join(left, "ca.pem"))


def test_a_failed_start_leaves_no_key(sm):
    r = sm.run(*G, "--bind", f"{sm.tmp}:/run", cmd=["true"], name="refused")
    assert r.rc == 125 and b"--bind hides /run/slirp-med" in r.stderr, repr(r)
    assert not os.path.lexists(os.path.join(folder(sm, "refused"), "ca.key"))
    assert not processes(sm.bin)


def test_upstream_is_verified_against_the_hosts_roots(sm, world):
    """The launcher's SSL_CERT_FILE, else the distribution's bundle; asked for when the first flow is intercepted."""
    def fetch(name, env):
        p = sm.cli("run", "--name", name, "--egress", "strict", "--egress-allow", "ok.test", "--",
                   "curl", "-sS", "--http1.1", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "https://ok.test/", env=env)
        return p, conftest.read_audit(sm.state, name)
    p, audit = fetch("known", {"SSL_CERT_FILE": world.ca})
    assert (p.returncode, p.stdout) == (0, b"200"), p
    assert [r["mitm"] for r in audit if r["event"] == "egress_allow"] == [True]
    p, audit = fetch("unknown", {"SSL_CERT_FILE": ""})
    assert p.returncode != 0 and p.stdout == b"000", p
    assert [r["event"] for r in audit if r.get("host") == "ok.test" and r["event"] in ("egress_allow", "egress_mitm_upstream_error")] == ["egress_mitm_upstream_error"]
