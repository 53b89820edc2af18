# SPDX-License-Identifier: BSD-3-Clause
"""doctor: the schema, the exit status, and findings that change when the machine is made worse. SLIRP_MED names the program."""

import json
import os
import resource
import subprocess
import tempfile

import pytest

EXE = os.environ["SLIRP_MED"]
NAMES = [
    "user_namespace",
    "network_namespace",
    "tap",
    "proc",
    "mounts",
    "sandbox",
    "seccomp",
    "state_dir",
    "landlock",
    "tproxy",
    "resolver",
    "roots",
    "descriptors",
    "libraries",
]


def doctor(*args, prefix=(), env=None, setup=None):
    got = subprocess.run(
        [*prefix, EXE, "doctor", *args], capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}, preexec_fn=setup
    )
    return got


def findings(**kw):
    got = doctor("--json", **kw)
    report = json.loads(got.stdout)
    assert got.returncode == (0 if report["run"] else 1)
    return report, {p["name"]: p for p in report["probes"]}


def test_schema():
    report, probes = findings()
    assert set(report) == {"schema", "version", "run", "probes"}
    assert report["schema"] == 1
    assert [p["name"] for p in report["probes"]] == NAMES
    for p in probes.values():
        assert set(p) == {"name", "status", "detail", "fix", "needed_for"}
        assert p["status"] in ("ok", "degraded", "missing")
        assert p["needed_for"] in ("run", "tproxy", "hardening", "comfort")
        assert p["detail"]
        assert p["status"] != "ok" or p["fix"] is None
    blocking = [p for p in probes.values() if p["status"] == "missing" and p["needed_for"] == "run"]
    assert report["run"] == (not blocking)


def test_table_says_the_same():
    report, _ = findings()
    got = doctor()
    assert got.returncode == (0 if report["run"] else 1)
    for p in report["probes"]:
        assert any(line.split()[:2] == [p["status"], p["name"]] for line in got.stdout.splitlines())


def test_nothing_left_behind():
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        findings(env={"XDG_STATE_HOME": folder})
        assert os.listdir(folder) == []


def test_few_descriptors():
    _, probes = findings(setup=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    assert probes["descriptors"]["status"] == "degraded"
    assert "ulimit" in probes["descriptors"]["fix"]


def test_state_dir_that_cannot_be_made():
    report, probes = findings(env={"XDG_STATE_HOME": "/proc"})
    assert probes["state_dir"]["status"] == "missing" and probes["state_dir"]["fix"]
    assert not report["run"]


def test_without_user_namespaces():
    # A user namespace that allows none below it, and no capability to do without.
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("user namespaces cannot be limited here")
    report, probes = findings(prefix=prefix)
    assert not report["run"]
    for name in ("user_namespace", "network_namespace", "tap", "proc", "mounts", "sandbox"):
        assert probes[name]["status"] == "missing", probes[name]
        assert probes[name]["fix"]
    assert "max_user_namespaces" in probes["user_namespace"]["fix"]


@pytest.mark.parametrize("args", [["--jso"], ["x"], ["--json", "--yaml"]])
def test_wrong_flag(args):
    got = doctor(*args)
    assert got.returncode == 2
    assert repr(args[-1]) in got.stderr and got.stdout == ""


def test_help():
    got = doctor("--help")
    assert got.returncode == 0 and "--json" in got.stdout


def test_roots():
    """SSL_CERT_FILE is what the core would verify servers against; one that holds no certificate is said."""
    with tempfile.NamedTemporaryFile("w") as own:
        own.write("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n" * 3)
        own.flush()
        _, probes = findings(env={"SSL_CERT_FILE": own.name})
        assert (probes["roots"]["status"], probes["roots"]["detail"]) == ("ok", f"{own.name}: 3 certificates")
        own.truncate(0)
        own.seek(0)
        own.write("nothing")
        own.flush()
        _, probes = findings(env={"SSL_CERT_FILE": own.name})
        assert probes["roots"]["status"] == "degraded" and own.name in probes["roots"]["detail"] and probes["roots"]["fix"]
