# SPDX-License-Identifier: BSD-3-Clause
"""Trust in the workspace's CA as CMD finds it: mounts, variables, and nothing on the host.

The CA's certificate comes as guest-init's descriptor 7, as the supervisor gives it. test_guest_trust.c tries what is made; here it is in place.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import threading
import time

import pytest

from test_guest_init import Guest, folder, inside, own, refused, sh, user  # noqa: F401 (fixtures)

VARIABLES = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
]
ENV = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki():
    """A CA and a leaf that it signed, where everybody may read them."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="slirp-med-test-", dir="/var/tmp") as name:
        at = pathlib.Path(name)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
        for ca in ("ca", "other"):
            openssl("req", "-x509", *key, "-keyout", at / f"{ca}.key", "-out", at / f"{ca}.pem", "-days", "2", "-subj", f"/O=slirp-med/CN=slirp-med {ca}")
        openssl("req", *key, "-keyout", at / "leaf.key", "-out", at / "leaf.csr", "-subj", "/CN=leaf")
        openssl("x509", "-req", "-in", at / "leaf.csr", "-CA", at / "ca.pem", "-CAkey", at / "ca.key", "-out", at / "leaf.pem", "-days", "1")
        at.chmod(0o755)
        yield at


@contextlib.contextmanager
def certificate(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def trusting(script, pki, **kw):
    """The output of a shell script in a workspace with the CA."""
    with certificate(pki / "ca.pem") as ca:
        output, status = sh(script, ca=ca, **kw)
    assert status == 0, output
    return output


def lines_of(pem):
    return "".join(pathlib.Path(pem).read_text().split("\n")[1:-2])


def state_of(tree):
    """Everything that a write would change: names, contents, times of change."""
    state = {}
    for path in [pathlib.Path(tree), *sorted(pathlib.Path(tree).rglob("*"))]:
        st = path.lstat()
        if path.is_symlink():
            content = os.readlink(path)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        state[str(path)] = (st.st_ino, st.st_mode, st.st_mtime_ns, st.st_ctime_ns, content)
    return state


def root_binds():
    return [f"{os.path.realpath(d)}:{d}" for d in ("/usr", "/bin", "/lib", "/lib64", "/sbin") if os.path.exists(d)]


# ---- the caller's own file system ----


def test_variables_lead_to_the_ca(user, pki):
    script = "; ".join(f'echo "{v}=${v}"; tr -d "\\n" < "${v}"; echo' for v in [*VARIABLES, "NODE_EXTRA_CA_CERTS"])
    got = trusting(script, pki, user=user, env=ENV).splitlines()
    ca = lines_of(pki / "ca.pem")
    for i, name in enumerate([*VARIABLES, "NODE_EXTRA_CA_CERTS"]):
        expected = "slirp-med-ca.pem" if name == "NODE_EXTRA_CA_CERTS" else "ca-bundle.pem"
        assert got[2 * i] == f"{name}=/run/slirp-med/{expected}"
        assert ca in got[2 * i + 1]


def test_the_machines_own_certificates_stay(user, pki):
    stores = [p for p in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem") if os.path.exists(p)]
    for store in stores:
        before = pathlib.Path(store).read_text().count("BEGIN CERTIFICATE")
        got = trusting(f"grep -c 'BEGIN CERTIFICATE' {store} /run/slirp-med/ca-bundle.pem", pki, user=user, env=ENV)
        assert got == f"{store}:{before + 1}\n/run/slirp-med/ca-bundle.pem:{before + 1}\n"


@pytest.mark.skipif(not os.path.isdir("/etc/ssl/certs"), reason="this machine has no folder of certificates")
def test_openssl_finds_it_without_variables(user, pki):
    """By the folder of hashes alone, and by the default file alone where there is one."""
    verify = f"env -i PATH=$PATH openssl verify {pki}/leaf.pem"
    plain, status = sh(f"{verify} 2>&1", user=user, env=ENV)
    assert status != 0, plain
    got = trusting(f"{verify}; env -i PATH=$PATH openssl verify -no-CAfile -no-CAstore -CApath /etc/ssl/certs {pki}/leaf.pem", pki, user=user, env=ENV)
    assert got == f"{pki}/leaf.pem: OK\n" * 2


def test_nothing_on_the_host(user, pki):
    trees = [t for t in ("/etc/ssl", "/etc/pki", "/etc/chromium", "/etc/opt", "/etc/ca-certificates", "/usr/local/share/ca-certificates") if os.path.isdir(t)]
    before = [state_of(t) for t in trees]
    script = "".join(f"echo x >> {t}/new; " for t in trees) + "echo x > /run/slirp-med/new; rm -f /etc/ssl/certs/* /run/slirp-med/*; ls /run/slirp-med | wc -l"
    if user != "self" or os.geteuid() != 0:  # a root caller may write to what is not covered, as it always may
        trusting(f"({script}) 2>&1", pki, user=user, env=ENV)
    trusting("true", pki, user=user, env=ENV)
    assert [state_of(t) for t in trees] == before
    assert not os.path.exists("/run/slirp-med")


def test_read_only(user, pki):
    places = ["/run/slirp-med/x", "/etc/ssl/certs/x"] if os.path.isdir("/etc/ssl/certs") else ["/run/slirp-med/x"]
    got = trusting("; ".join(f"touch {p} 2>&1" for p in places) + "; mount -o remount,rw /run/slirp-med 2>&1; touch /run/slirp-med/x 2>&1; true", pki, user=user, env=ENV)
    assert got.count("Read-only file system") == len(places) + 1


def test_no_descriptor_is_left(user, pki):
    assert trusting("ls /proc/self/fd", pki, user=user, env=ENV) == "0\n1\n2\n3\n"  # 3: the folder itself


def test_callers_own_certificates_stay_trusted(user, pki):
    env = dict(ENV, SSL_CERT_FILE=str(pki / "other.pem"), NODE_EXTRA_CA_CERTS=str(pki / "other.pem"), JAVA_TOOL_OPTIONS="-Xmx32m", SSL_CERT_DIR="/nowhere")
    got = trusting('tr -d "\\n" < $SSL_CERT_FILE; tr -d "\\n" < $NODE_EXTRA_CA_CERTS; echo; echo $JAVA_TOOL_OPTIONS; echo $SSL_CERT_DIR', pki, user=user, env=env).splitlines()
    assert got[0].count(lines_of(pki / "other.pem")) == 2 and got[0].count(lines_of(pki / "ca.pem")) == 2
    assert got[1] == "-Xmx32m -Djavax.net.ssl.trustStore=/run/slirp-med/ca-bundle.jks -Djavax.net.ssl.trustStorePassword=changeit"
    assert got[2] == "/run/slirp-med/hashed:/nowhere"


def test_a_masked_file_is_not_read(user, pki, folder):  # noqa: F811
    """A credential file that a variable names: its certificates stay hidden with it."""
    secret = os.path.join(folder, "secret.pem")
    shutil.copy(pki / "other.pem", secret)
    own(secret, user)
    got = trusting('cat $SSL_CERT_FILE | tr -d "\\n"', pki, user=user, env=dict(ENV, SSL_CERT_FILE=secret), masks=[secret])
    assert lines_of(pki / "ca.pem") in got and lines_of(pki / "other.pem") not in got


# ./dev test installs both; where CI is set, their absence is a failure and no reason to skip.
CI = bool(os.environ.get("CI"))
KEYTOOL = CI or shutil.which("keytool")
CERTUTIL = CI or os.path.exists("/usr/bin/certutil")


@pytest.mark.skipif(not KEYTOOL, reason="this machine has no keytool")
def test_java_reads_the_stores(pki):
    got = trusting("keytool -list -keystore /run/slirp-med/ca-bundle.jks -storepass changeit 2>&1", pki, env=ENV)
    assert "slirp-med, " in got and "trustedCertEntry" in got
    if os.path.exists("/etc/ssl/certs/java/cacerts"):
        got = trusting("env -u JAVA_TOOL_OPTIONS keytool -list -cacerts -storepass changeit 2>&1", pki, env=ENV)
        assert "slirp-med, " in got


@pytest.fixture
def home(user, folder):  # noqa: F811
    """A home folder with two NSS databases: one that is made, one whose folder is empty."""
    made, empty = os.path.join(folder, ".pki/nssdb"), os.path.join(folder, ".local/share/pki/nssdb")
    for path in (made, empty):
        os.makedirs(path)
    for path in pathlib.Path(folder).rglob("*"):
        own(path, user)
    yield folder, made, empty


def make_database(path, user, *password):
    subprocess.run(["certutil", "-N", "-d", f"sql:{path}", *(password or ["--empty-password"])], check=True, capture_output=True)
    for name in os.listdir(path):
        own(os.path.join(path, name), user)


@pytest.mark.skipif(not CERTUTIL, reason="this machine has no certutil: nothing is done to the databases")
def test_nss_databases_of_the_home_folder(user, pki, home):  # noqa: F811
    top, made, empty = home
    make_database(made, user)
    certificate_of_the_user = ["certutil", "-A", "-d", f"sql:{made}", "-n", "mine", "-t", "C,,", "-i", str(pki / "other.pem")]
    subprocess.run(certificate_of_the_user, check=True, capture_output=True)
    before = state_of(top)
    got = trusting(f"certutil -L -d sql:{made}; echo ----; certutil -L -d sql:{empty}; touch {made}/x && echo writable", pki, user=user, env=dict(ENV, HOME=top))
    of_made, of_empty = got.split("----")
    for listed in (of_made, of_empty):
        assert [x.split()[-1] for x in listed.splitlines() if x.startswith("slirp-med workspace CA")] == ["C,,"], got
    assert "mine" in of_made and "mine" not in of_empty
    assert got.endswith("writable\n")
    assert state_of(top) == before, "the databases on the host are as before"


@pytest.mark.skipif(not CERTUTIL, reason="this machine has no certutil: nothing is done to the databases")
def test_nss_database_with_a_password_stays(user, pki, home):  # noqa: F811
    top, made, _ = home
    password = os.path.join(top, "password")
    pathlib.Path(password).write_text("secret-of-the-user\n")
    make_database(made, user, "-f", password)
    got = trusting(f"certutil -L -d sql:{made}; grep -c {made} /proc/self/mountinfo; true", pki, user=user, env=dict(ENV, HOME=top))
    assert "slirp-med" not in got and got.endswith("\n0\n")


@pytest.mark.skipif(not CERTUTIL, reason="this machine has no certutil: nothing can be put in its place")
def test_certutil_that_fails_fails_nothing_else(user, pki, home):  # noqa: F811
    top, made, _ = home
    make_database(made, user)
    got = trusting("grep -c 'nssdb ' /proc/self/mountinfo; ls /run/slirp-med/ca-bundle.pem", pki, user=user, env=dict(ENV, HOME=top), binds=["/bin/false:/usr/bin/certutil"])
    assert got == "0\n/run/slirp-med/ca-bundle.pem\n"


def test_with_everything_read_only(user, pki):
    got = trusting("grep -c 'BEGIN' /run/slirp-med/slirp-med-ca.pem; touch /run/mine && echo mine", pki, user=user, env=ENV, ro=True)
    assert got == "1\nmine\n"


def test_without_a_ca_nothing_is_different(user):
    got, status = sh("ls -d /run/slirp-med 2>&1; env; grep slirp-med /proc/self/mountinfo", user=user, env=ENV)
    assert "/run/slirp-med/" not in got and "SSL_CERT_FILE" not in got and "JAVA_TOOL" not in got


# ---- a file system of another distribution ----

SYSTEM = "etc/ssl/certs/ca-certificates.crt"


def debian(root, pem):
    root.joinpath("etc/ssl/certs").mkdir(parents=True)
    root.joinpath(SYSTEM).write_text(pem)
    root.joinpath("etc/ssl/certs/One.pem").symlink_to("/usr/share/ca-certificates/One.crt")
    root.joinpath("etc/ssl/certs/java").mkdir()
    root.joinpath("etc/ssl/certs/java/cacerts").write_text("of another format")
    return ["/" + SYSTEM], ["/etc/ssl/certs"], ["/etc/ssl/certs/java/cacerts"]


def fedora(root, pem):
    extracted = root / "etc/pki/ca-trust/extracted"
    for name in ("pem", "java"):
        extracted.joinpath(name).mkdir(parents=True)
    root.joinpath("etc/pki/tls/certs").mkdir(parents=True)
    root.joinpath("etc/ssl").mkdir()
    root.joinpath("etc/pki/ca-trust/source/anchors").mkdir(parents=True)
    extracted.joinpath("pem/tls-ca-bundle.pem").write_text(pem)
    extracted.joinpath("java/cacerts").write_text("of another format")
    root.joinpath("etc/pki/tls/certs/ca-bundle.crt").symlink_to("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")
    root.joinpath("etc/pki/tls/cert.pem").symlink_to("certs/ca-bundle.crt")
    root.joinpath("etc/ssl/certs").symlink_to("../pki/tls/certs")
    files = ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/tls/cert.pem", "/etc/ssl/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"]
    return files, ["/etc/ssl/certs", "/etc/pki/tls/certs"], ["/etc/pki/ca-trust/extracted/java/cacerts"]


def alpine(root, pem):
    root.joinpath("etc/ssl/certs").mkdir(parents=True)
    root.joinpath(SYSTEM).write_text(pem)
    root.joinpath("etc/ssl/cert.pem").symlink_to("certs/ca-certificates.crt")
    return ["/" + SYSTEM, "/etc/ssl/cert.pem"], ["/etc/ssl/certs"], []


@pytest.mark.parametrize("layout", [debian, fedora, alpine])
def test_rootfs(user, pki, folder, layout):  # noqa: F811
    root = pathlib.Path(folder, "root")
    root.mkdir()
    files, folders, java = layout(root, pki.joinpath("other.pem").read_text())
    root.joinpath("data").mkdir()
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            own(path, user)
    before = state_of(root / "etc")
    script = [f"tr -d '\\n' < {f}; echo" for f in files]
    script += [f"openssl verify -no-CAfile -no-CAstore -CApath {d} /data/leaf.pem" for d in folders]
    script += [f"head -c 4 {j} | od -An -tx1" for j in java]
    got = trusting("; ".join(script), pki, user=user, env=ENV, rootfs=str(root), binds=[*root_binds(), f"{pki}:/data"]).splitlines()
    ca, other = lines_of(pki / "ca.pem"), lines_of(pki / "other.pem")
    for line in got[: len(files)]:
        assert ca in line and other in line
    assert got[len(files) : len(files) + len(folders)] == ["/data/leaf.pem: OK"] * len(folders)
    assert got[len(files) + len(folders) :] == [" fe ed fe ed"] * len(java)
    # guest-init itself makes files for the mounts of hosts and resolv.conf in a root that lacks them; nothing else.
    after = {k: v for k, v in state_of(root / "etc").items() if not k.endswith(("/etc", "/hosts", "/resolv.conf"))}
    assert after == {k: v for k, v in before.items() if not k.endswith("/etc")}


def test_rootfs_cannot_lead_out(user, pki, folder):  # noqa: F811
    """The host's files under the names of a hostile root are neither read nor covered."""
    root = pathlib.Path(folder, "root")
    root.joinpath("etc/ssl/certs").mkdir(parents=True)
    root.joinpath("data").mkdir()
    root.joinpath(SYSTEM).symlink_to("../" * 12 + str(pki / "other.pem"))
    root.joinpath("etc/ssl/cert.pem").symlink_to(pki / "other.pem")
    root.joinpath("etc/ssl/ca-bundle.pem").symlink_to("/proc/1/root/etc/passwd")
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            own(path, user)
    got = trusting("tr -d '\\n' < $SSL_CERT_FILE", pki, user=user, env=ENV, rootfs=str(root), binds=root_binds())
    assert lines_of(pki / "ca.pem") in got and lines_of(pki / "other.pem") not in got


@pytest.fixture
def root(folder, user):  # noqa: F811
    """An empty root for a former CMD to prepare, and what it may hold of the machine."""
    at = pathlib.Path(folder, "root")
    at.joinpath("etc/ssl").mkdir(parents=True)
    for path in [at, *at.rglob("*")]:
        own(path, user)
    return at


def prepared(root, pki, user, script, **kw):
    for path in root.rglob("*"):
        if not path.is_symlink():
            own(path, user)
    began = time.monotonic()
    got = trusting(script, pki, user=user, rootfs=str(root), **{"env": ENV, "binds": root_binds(), **kw})
    assert time.monotonic() - began < 15
    return got


@pytest.mark.parametrize("to", ["/proc/self", "/proc/1", "/proc/self/task/1", "/proc/self/fdinfo", "/proc/thread-self", "/sys/kernel"])
def test_rootfs_shows_nothing_of_guest_init(user, pki, root, to):
    """/proc/1 is guest-init, whose environment still has what CMD's was cleared of."""
    root.joinpath("etc/ssl/certs").symlink_to(to)
    root.joinpath("etc/ssl/cert.pem").symlink_to(to + "/environ")
    root.joinpath("etc/pki/tls/certs").mkdir(parents=True)
    root.joinpath("etc/pki/tls/certs/ca-bundle.crt").symlink_to(to + "/maps")
    script = "find /run/slirp-med; cat -- $(find /run/slirp-med -type f) | tr '\\0' '\\n'"
    got = prepared(root, pki, user, script, env=dict(ENV, TOKEN="of-an-env-reference"), unset_env=["TOKEN"])
    assert "slirp-med-ca.pem" in got and lines_of(pki / "ca.pem")[:64] in got
    assert "of-an-env-reference" not in got and "environ" not in got and "fdinfo" not in got


def fifo(root, pki):
    for name in (SYSTEM, "etc/ssl/cert.pem", "etc/ssl/certs/java/cacerts", "etc/ssl/certs/a.pem"):
        os.mkfifo(root / name)


def loops(root, pki):
    root.joinpath(SYSTEM).symlink_to("ca-certificates.crt")
    root.joinpath("etc/ssl/certs/java/cacerts").symlink_to("../java/cacerts")
    root.joinpath("etc/pki").symlink_to("/etc/pki/tls")
    root.joinpath("etc/chromium").symlink_to("chromium/policies")
    root.joinpath("etc/ssl/certs/self").symlink_to(".")


def sparse(root, pki):
    for name in (SYSTEM, "etc/ssl/cert.pem", "etc/ssl/certs/java/cacerts", "etc/ssl/certs/a.pem"):
        root.joinpath(name).touch()
        os.truncate(root / name, 1 << 40)


def crowded(root, pki):
    for i in range(9000):
        root.joinpath(f"etc/ssl/certs/{i}.pem").symlink_to("/nowhere")


def lying_jks(root, pki):
    body = bytes.fromhex("feedfeed00000002 7ffffffe 00000002 ffff") + b"short"
    salt = "".join("\0" + c for c in "changeit").encode() + b"Mighty Aphrodite"
    root.joinpath("etc/ssl/certs/java/cacerts").write_bytes(body + hashlib.sha1(salt + body).digest())


def hard_links(root, pki):
    root.joinpath("secret").write_text("not a certificate")
    os.link(root / "secret", root / SYSTEM)
    os.link(root / "secret", root / "etc/ssl/certs/java/cacerts")
    os.link(root / "secret", root / "etc/ssl/cert.pem")


def dashes(root, pki):
    """What would make a reader that starts over at each block take for ever."""
    root.joinpath(SYSTEM).write_bytes(b"-----BEGIN CERTIFICATE-----" * (4 << 20 >> 5))


@pytest.mark.parametrize("prepare", [fifo, loops, sparse, crowded, lying_jks, hard_links, dashes])
def test_a_hostile_rootfs_holds_nobody_up(user, pki, root, prepare):
    root.joinpath("etc/ssl/certs/java").mkdir(parents=True)
    prepare(root, pki)
    before = {k: v for k, v in state_of(pki).items()}
    got = prepared(root, pki, user, "tr -d '\\n' < $SSL_CERT_FILE; du -sm /run/slirp-med; head -c 4 /run/slirp-med/ca-bundle.jks | od -An -tx1")
    assert lines_of(pki / "ca.pem") in got and "fe ed fe ed" in got
    assert int(got.split("/run/slirp-med")[0].split("-----")[-1]) < 24  # MiB
    assert state_of(pki) == before


def test_a_bundle_that_changes_while_it_is_read(user, pki, root):
    """Grown and cut all the time: the start takes what it finds. (Another file in its place in the middle of a start fails the start.)"""
    root.joinpath("etc/ssl/certs").mkdir()
    store, stop = root / SYSTEM, threading.Event()
    store.write_text(pki.joinpath("other.pem").read_text())

    def change():
        while not stop.is_set():
            store.write_bytes(pki.joinpath("other.pem").read_bytes() * 400)
            os.truncate(store, 100)

    t = threading.Thread(target=change)
    t.start()
    try:
        for _ in range(5):
            got = trusting("tr -d '\\n' < $SSL_CERT_FILE", pki, user=user, env=ENV, rootfs=str(root), binds=root_binds())
            assert lines_of(pki / "ca.pem") in got
    finally:
        stop.set()
        t.join()


def test_a_certutil_of_the_rootfs_uncovers_nothing(user, pki, root, folder):  # noqa: F811
    """It runs while our mounts are made; what it leaves in the place of our files is not mounted: below a cover lies what is covered."""
    state = pathlib.Path(folder, "home/state")
    state.mkdir(parents=True)
    state.joinpath("key").write_text("the CA's key")
    for name in ("usr/bin", "usr/lib", "bin", "lib", "lib64", "bound", "home/me/.pki/nssdb", "etc/ssl/certs"):
        root.joinpath(name).mkdir(parents=True)
    shutil.copy(os.environ["HOSTILE_CERTUTIL"], root / "usr/bin/certutil")
    for path in [root, *root.rglob("*"), state.parent, state, state / "key"]:
        own(path, user)
    binds = [f"{os.path.realpath(d)}:{d}" for d in ("/bin", "/lib", "/lib64") if os.path.exists(d)] + [f"{state.parent}:/bound"]
    script = "ls -d /run/slirp-med/away-0 >&2 2>/dev/null; cat /home/me/.pki/nssdb/state/key /etc/ssl/certs/state/key 2>/dev/null; true"
    with certificate(pki / "ca.pem") as ca:
        guest = Guest(["/bin/sh", "-c", script], user=user, ca=ca, rootfs=str(root), binds=binds, masks=[str(state)], env=dict(ENV, HOME="/home/me")).go()
        output = guest.read()
        message, status = guest.end()
    assert "the CA's key" not in output
    assert message.startswith("FAIL ") and "lay the trust" in message and status == 125, (message, output)


# ---- what fails the start ----


def test_a_bind_over_run_is_refused(user, pki, folder):  # noqa: F811
    with certificate(pki / "ca.pem") as ca:
        refused("--bind hides /run/slirp-med", user=user, ca=ca, binds=[f"{folder}:/run"])
    assert os.listdir(folder) == []


@pytest.mark.parametrize("content", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nMAIFAA==\n-----END CERTIFICATE-----\n", b"x" * 70000])
def test_a_broken_ca_fails_the_start(user, folder, content):  # noqa: F811
    path = os.path.join(folder, "ca.pem")
    pathlib.Path(path).write_bytes(content)
    with certificate(path) as ca:
        refused("CA", user=user, ca=ca)


def test_a_missing_descriptor_fails_the_start(user):
    refused("descriptor 7", user=user, raw=b'{"name":"x","argv":["true"],"cwd":"/","network":"isolated","ca":true}')
