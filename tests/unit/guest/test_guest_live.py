# SPDX-License-Identifier: BSD-3-Clause
"""The guest's program and script in the system that they run in (root "/"), where the distribution's tool is run.

Each test makes a root and enters it, in a user namespace of its own: with a false tool of busybox's shell, and with Debian's real one over this
machine's /usr.
"""
import contextlib
import os
import shutil
import subprocess

import pytest

from guest import (BINARY, BUNDLE, CA, DEBIAN_ANCHOR, ENV, ONE, OURS, PROFILE, SCRIPT, SYSTEM, TIMEOUT, TWO, anchor_of, blocks, files,
                   make_root, pem, report, snapshot, write)

TOOLS = {"debian": "update-ca-certificates", "alpine": "update-ca-certificates", "fedora": "update-ca-trust"}
STORE = {"debian": "etc/ssl/certs/ca-certificates.crt", "alpine": "etc/ssl/certs/ca-certificates.crt",
         "fedora": "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"}


def is_static(path):
    return b"INTERP" not in subprocess.run(["readelf", "-lW", path], capture_output=True, check=True).stdout


@pytest.fixture(scope="session", autouse=True)
def namespaces():
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")


@pytest.fixture(params=["binary", "ash"])
def small(request, tmp_path):
    """A system of busybox alone. small(layout) makes it; then small.run(args...), small.root, small.log()."""
    if request.param == "binary" and not is_static(BINARY):
        pytest.skip("linked dynamically (a sanitizer's build)")

    class Small:
        root = tmp_path / "root"

        def __call__(self, layout):
            make_root(self.root, layout)
            for name in ("bin", "usr/sbin", "dev", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self.busybox()
            self.layout = layout
            self.tool()
            return self

        def busybox(self):
            shutil.copy(shutil.which("busybox"), self.root / "bin/busybox")
            for name in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
                if name != "busybox":
                    (self.root / "bin" / name).symlink_to("busybox")
            write(self.root / "dev/null", "")

        def tool(self, status=0, work=True):
            """Writes down how it was called; makes the store of what there was and the anchors, as real ones do."""
            store, anchors = STORE[self.layout], anchor_of(self.layout).rsplit("/", 1)[0]
            if not (self.root / "base").exists():
                shutil.copy(self.root / store, self.root / "base")
            make = f"cat /base /{anchors}/slirp-med.* >/{store} 2>/dev/null" if work else ":"
            write(self.root / "usr/sbin" / TOOLS[self.layout],
                  f"#!/bin/sh\necho \"$@\" >>/log\nenv >/env\ncat >/input\necho said by the tool\n{make}\nexit {status}\n").chmod(0o755)

        def log(self):
            """The calls since the last time."""
            with contextlib.suppress(FileNotFoundError):
                lines = (self.root / "log").read_text().splitlines()
                (self.root / "log").unlink()
                return lines
            return []

        def run(self, *args, **kw):
            shutil.copy(BINARY, self.root / "slirp-med-guest")
            shutil.copy(SCRIPT, self.root / "slirp-med-guest.sh")
            argv = ["/slirp-med-guest"] if request.param == "binary" else ["/bin/busybox", "ash", "/slirp-med-guest.sh"]
            kw.setdefault("env", {"SECRET": "x", "PATH": "/bin"})
            return subprocess.run([shutil.which("unshare"), "-Ur", shutil.which("chroot"), self.root, *argv, *args], capture_output=True, text=True,
                                  timeout=TIMEOUT, **kw)

        def install(self, der, *args, code=0):
            got = self.run("--from", "-", "--json", *args, input=pem(der))
            assert got.returncode == code, got
            self.stderr = got.stderr
            return report(got)
    return Small()


@pytest.mark.parametrize("layout", TOOLS)
def test_tool(small, layout):
    """Run once for each certificate, after the anchor is there; what it says does not get into the report."""
    small(layout)
    always = ["extract"] if layout == "fedora" else [""]
    r = small.install(ONE)
    assert r["result"] == "installed" and r["root"] == "/" and r["update"] == {"tool": TOOLS[layout], "state": "done"} and r["notes"] == []
    assert small.log() == always and "said by the tool" in small.stderr
    assert blocks(small.root / BUNDLE) == [ONE, *SYSTEM] and r["system_certificates"] == 3
    assert ONE in _store(small)
    r = small.install(ONE)
    assert r["result"] == "unchanged" and r["update"]["state"] == "not needed" and small.log() == []
    r = small.install(TWO)
    assert r["result"] == "replaced" and small.log() == (["--fresh"] if layout == "debian" else always)
    assert blocks(small.root / BUNDLE) == [TWO, *SYSTEM] and ONE not in _store(small) and TWO in _store(small)
    r = report(small.run("--uninstall", "--json"))
    assert r["result"] == "removed" and small.log() == (["--fresh"] if layout == "debian" else always)
    assert _store(small) == SYSTEM and not any((small.root / f).exists() for f in OURS)


def _store(small):
    """The certificates in the system's store, without the words around them."""
    lines, keep = [], False
    for line in (small.root / STORE[small.layout]).read_text().splitlines(keepends=True):
        keep |= line.startswith("-----BEGIN")
        if keep:
            lines.append(line)
        keep &= not line.startswith("-----END")
    (small.root / "store").write_text("".join(lines))
    return blocks(small.root / "store")


def test_tool_gets_nothing(small):
    """Neither our input nor our environment."""
    small("debian").install(ONE)
    assert (small.root / "input").read_text() == ""
    env = dict(line.split("=", 1) for line in (small.root / "env").read_text().splitlines())
    assert "SECRET" not in env and env["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin" and env["LC_ALL"] == "C"


@pytest.mark.parametrize("layout", TOOLS)
def test_tool_missing(small, layout):
    """The bundle and the variables are there all the same, and it is said."""
    small(layout)
    (small.root / "usr/sbin" / TOOLS[layout]).unlink()
    r = small.install(ONE)
    assert r["update"]["state"] == "missing" and any(TOOLS[layout] + " is not there" in n for n in r["notes"])
    assert blocks(small.root / BUNDLE) == [ONE, *SYSTEM]
    assert small.install(ONE)["result"] == "unchanged"
    # It comes later: the store does not have the certificate, so it is run although no file of ours changes.
    small.tool()
    assert small.install(ONE)["update"]["state"] == "done" and ONE in _store(small)


@pytest.mark.parametrize("work", [True, False])
def test_tool_fails(small, work):
    small("debian").tool(status=3, work=work)
    r = small.install(ONE, code=4)
    assert r["update"]["state"] == "failed" and r["error"] == "/usr/sbin/update-ca-certificates failed with status 3"
    assert blocks(small.root / BUNDLE) == [ONE, *SYSTEM] and {CA, BUNDLE, ENV, PROFILE} <= files(small.root)


def test_dry_run(small):
    small("debian")
    before = snapshot(small.root / "etc")
    r = small.install(ONE, "--dry-run")
    assert any("update-ca-certificates would be run" in n for n in r["notes"]) and small.log() == []
    assert snapshot(small.root / "etc") == before and not (small.root / DEBIAN_ANCHOR).exists()


def test_initrd(small, tmp_path):
    """Nothing but the program: our certificate alone, said so."""
    for name in ("bin", "dev", "tmp"):
        (small.root / name).mkdir(parents=True, exist_ok=True)
    small.busybox()
    r = small.install(ONE)
    assert r["layout"] == "none" and r["update"]["state"] == "none" and any("the workspace's alone" in n for n in r["notes"])
    assert (small.root / BUNDLE).read_text() == pem(ONE)


# ---- Debian's own ----

DEBIAN_TOOL = "/usr/sbin/update-ca-certificates"


@pytest.fixture(params=["binary", "dash", "ash"])
def debian(request, tmp_path):
    """This machine's /usr with an /etc of its own. debian(shell lines) runs them there; $guest is the implementation."""
    if not os.path.exists(DEBIAN_TOOL) or not os.path.exists("/etc/debian_version"):
        pytest.skip("this is no Debian, or it has no ca-certificates")
    root = tmp_path / "root"
    for name in ("usr", "etc/ssl/certs", "etc/ca-certificates/update.d", "dev", "tmp", "proc", "t"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink("/" + name):
            (root / name).symlink_to(os.readlink("/" + name))
    # A few of its certificates: the tool starts three processes for each.
    with open("/etc/ca-certificates.conf") as f:
        write(root / "etc/ca-certificates.conf", "".join([line for line in f if line[:1] not in "#!\n"][:8]))
    shutil.copy("/etc/debian_version", root / "etc")
    if os.path.isdir("/etc/alternatives"):
        shutil.copytree("/etc/alternatives", root / "etc/alternatives", symlinks=True)
    for name in ("null", "urandom"):
        write(root / "dev" / name, "")
    for path, name in ((BINARY, "slirp-med-guest"), (SCRIPT, "slirp-med-guest.sh")):
        shutil.copy(path, root / "t" / name)
    guest = {"binary": "/t/slirp-med-guest", "dash": "dash /t/slirp-med-guest.sh", "ash": "busybox ash /t/slirp-med-guest.sh"}[request.param]
    enter = """
        set -e
        mount --rbind /usr "$1/usr"
        mount --rbind /proc "$1/proc"
        mount -t tmpfs none "$1/usr/local"
        for d in null urandom; do mount --bind /dev/$d "$1/dev/$d"; done
        mkdir -p "$1/usr/local/share/ca-certificates"
        exec chroot "$1" /bin/sh -euc "$2" sh
    """

    def call(script):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "guest": guest, "LC_ALL": "C"}
        return subprocess.run(["unshare", "-Urm", "sh", "-c", enter, "sh", str(root), script], capture_output=True, text=True, timeout=120, env=env)
    call.root = root
    return call


def make_ca(folder, name):
    """A CA as the core makes it, and a server's certificate under it."""
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, cwd=folder, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/O={name}/CN=slirp-med CA")
    openssl("req", *key, "-keyout", "/dev/null", "-out", f"{name}.csr", "-subj", "/CN=server.test")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{name}.pem", "-CAkey", f"{name}.key", "-days", "2", "-out", f"{name}-leaf.pem")


def test_debian(debian):
    """The real tool: OpenSSL trusts the certificate by the store's file, by its folder of hashes and by the combined bundle, and no former one."""
    for name in ("first", "second"):
        make_ca(debian.root / "t", name)
    got = debian("""
        store=/etc/ssl/certs/ca-certificates.crt
        ok() { openssl verify -no-CApath -no-CAfile -no-CAstore "$@" >/dev/null 2>&1; }
        not() { if "$@"; then echo "should fail: $*" >&2; exit 9; fi; }  # a "! command" would not end a set -e
        update-ca-certificates >/dev/null 2>&1
        before=$(sha256sum <$store)
        not ok -CAfile $store /t/first-leaf.pem
        $guest --from file:/t/first.pem >/t/out1
        ok -CAfile $store /t/first-leaf.pem
        ok -CApath /etc/ssl/certs /t/first-leaf.pem
        ok -CAfile /etc/slirp-med/ca-bundle.pem /t/first-leaf.pem
        [ "$(grep -c BEGIN $store)" = "$(grep -c BEGIN /etc/slirp-med/ca-bundle.pem)" ]
        $guest --from file:/t/first.pem >/t/out2
        $guest --from file:/t/second.pem >/t/out3
        for where in "-CAfile $store" "-CApath /etc/ssl/certs" "-CAfile /etc/slirp-med/ca-bundle.pem"; do
            ok $where /t/second-leaf.pem
            not ok $where /t/first-leaf.pem
        done
        [ "$(grep -c BEGIN $store)" = "$(grep -c BEGIN /etc/slirp-med/ca-bundle.pem)" ]
        $guest --uninstall >/t/out4
        [ "$before" = "$(sha256sum <$store)" ]
        not ok -CApath /etc/ssl/certs /t/second-leaf.pem
        ls -l /etc/ssl/certs >/t/links
    """)
    assert got.returncode == 0, got
    out = [(debian.root / f"t/out{n}").read_text().splitlines() for n in (1, 2, 3, 4)]
    assert [o[-1] for o in out] == ["installed", "unchanged", "replaced", "removed"]
    assert "run: /usr/sbin/update-ca-certificates" in out[0] and "run: /usr/sbin/update-ca-certificates --fresh" in out[2]
    assert not [line for line in out[1] if line.startswith("run:")]
    assert "slirp-med" not in (debian.root / "t/links").read_text()
