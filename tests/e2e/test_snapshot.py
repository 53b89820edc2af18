# SPDX-License-Identifier: BSD-3-Clause
"""`--keep-ca`, `slirp-med snapshot` and `slirp-med restore`: the guest of a restored workspace finds the same CA, pins, counters and entries; what is
wrong with a file is said, and changes nothing; nothing is ever half written."""
import hashlib
import hmac
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import time

import proxylib as px
import pytest
import vmmlib
import worldlib as w
from conftest import USER, Running
from test_attach import attach, path_of
from test_life import documented

G, S = ("--egress", "guarded"), ("--egress", "strict")
OK, OTHER = w.WEB["ok.test"], w.WEB["other.test"]
KEPT = ("ca.key", "ca.pem", "ca.kept")

# The guest does what the test tells it to, and answers each with one line of JSON.
LOOP = """
import subprocess
def curl(ca, url="https://ok.test/"):
    return subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", ca, "--capath", "/nowhere", url], capture_output=True, text=True).stdout
def attempt_to(f, *a):
    try: return f(*a)
    except OSError as e: return err(e)
say("up")
while line := sys.stdin.readline().strip():
    say(json.dumps(eval(line, globals())))
"""


def base(sm):
    return os.path.join(sm.state, "slirp-med")


def folder(sm, name, *more):
    return os.path.join(base(sm), name, *more)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data, mode=0o600):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    return path


def tree(top):
    """Every file below a folder, and what is in it."""
    return {os.path.join(at, f): (os.lstat(os.path.join(at, f)).st_mode, read(os.path.join(at, f))) for at, _, files in os.walk(top) for f in files
            if f not in ("lock", "control.sock")}


class Guest:
    """A guest that is told what to do."""

    def __init__(self, sm, running):
        self.sm, self.run, self.name = sm, running, running.name
        assert running.line() == "up", running.errors()

    def do(self, code):
        self.run.tell(code)
        return json.loads(self.run.line())

    def end(self):
        self.run.tell("")
        return self.run.end()


def up(sm, *flags, **kw):
    return Guest(sm, sm.start_guest(LOOP, *flags, **kw))


def launch(sm, argv, name):
    sm.err = open(os.path.join(sm.tmp, f"stderr.{name}.{len(sm.running)}"), "w+b")
    p = subprocess.Popen(USER + [sm.bin, *argv], env=sm.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sm.err)
    r = Running(sm, name, p)
    sm.running.append(r)
    return r


def start(sm, name, *cmd):
    return launch(sm, ["start", name, *(("--", *cmd) if cmd else ())], name)


def go(sm, name):
    """`slirp-med start` of a restored workspace."""
    return Guest(sm, start(sm, name, *sm.guest_cmd(LOOP)))


def create(sm, name, *flags):
    p = sm.cli("create", name, "--egress-ca-file", sm.world.ca, *flags)
    assert p.returncode == 0, p
    return name


def snapshot(sm, name, *more, rc=0, file="snap", **kw):
    path = os.path.join(sm.tmp, file)
    p = sm.cli("snapshot", name, path, *more, **kw)
    assert p.returncode == rc, p
    return (path, p.stdout.decode()) if rc == 0 else p.stderr.decode()


def restore(sm, path, *more, rc=0, **kw):
    p = sm.cli("restore", path, *more, **kw)
    assert p.returncode == rc, p
    return p.stdout.decode() if rc == 0 and "--json" not in more else json.loads(p.stdout) if rc == 0 else p.stderr.decode()


def state(sm, name):
    return json.loads(sm.cli("status", name, "--json").stdout)["state"]


def fingerprint(pem):
    import ssl
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()


def parts(path):
    """The first line's words, the JSON, the key, the HMAC of a snapshot."""
    data = read(path)
    head, rest = data.split(b"\n", 1)
    words = head.split()
    n, k = int(words[3]), int(words[4])
    return words, rest[:n], rest[n + 1:n + 1 + k], rest[n + 1 + k:]


def forge(sm, path, change, version=b"1", key=None):
    """A snapshot whose contents were changed by somebody who has the key."""
    words, text, pem, _ = parts(path)
    o = json.loads(text)
    pem = change(o) or pem
    text = json.dumps(o).encode() if o is not None else text
    body = b"%s %s %s %d %d\n%s\n%s" % (words[0], version, words[2], len(text), len(pem), text, pem)
    secret = bytes.fromhex(read(key or os.path.join(base(sm), ".snapshot-key")).decode().strip())
    return write(os.path.join(sm.tmp, "forged"), body + hmac.new(secret, body, "sha256").hexdigest().encode() + b"\n")


# ---- --keep-ca ----

@pytest.mark.core
def test_a_kept_ca_stays(sm):
    name = sm.name()
    look = "out['ca'] = open(os.environ['SSL_CERT_FILE']).read()"
    sm.guest(look, *G, "--keep-ca", name=name)
    first = {f: read(folder(sm, name, f)) for f in KEPT}
    assert first["ca.kept"].decode() == fingerprint(first["ca.pem"]) + "\n"
    assert {stat.S_IMODE(os.stat(folder(sm, name, f)).st_mode) for f in KEPT} == {0o600}
    again = sm.guest("""
c = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])
with c.wrap_socket(dial("ok.test", 443), server_hostname="ok.test") as s: out["cipher"] = s.cipher()[0]
out["ca"] = open(os.environ["SSL_CERT_FILE"]).read()
""", *G, "--keep-ca", name=name)
    assert first["ca.pem"].decode().split("\n")[3] in again.out["ca"]
    assert {f: read(folder(sm, name, f)) for f in KEPT} == first
    # Without the flag it would be thrown away: refused, and there it is still.
    r = sm.run(*G, cmd=["true"], name=name)
    assert r.rc == 2 and b"--keep-ca" in r.stderr, r
    # A run that needs no CA leaves it alone.
    assert sm.run("--egress", "off", cmd=["true"], name=name).rc == 0
    assert {f: read(folder(sm, name, f)) for f in KEPT} == first


@pytest.mark.core
def test_without_the_flag_each_run_has_its_own(sm):
    name = sm.name()
    look = "out['ca'] = open(os.environ['SSL_CERT_FILE']).read()"
    a, b = sm.guest(look, *G, name=name), sm.guest(look, *G, name=name)
    assert a.out["ca"] != b.out["ca"]
    assert not os.path.exists(folder(sm, name, "ca.key")) and not os.path.exists(folder(sm, name, "ca.kept"))


def openssl_ca(sm, name, days="365"):
    """Another P-256 CA, as key and certificate."""
    key, cert = os.path.join(sm.tmp, name + ".key"), os.path.join(sm.tmp, name + ".pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-days",
                    days, "-subj", "/O=other/CN=slirp-med CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext",
                    "basicConstraints=critical,CA:TRUE,pathlen:0"], check=True, capture_output=True)
    return read(key), read(cert)


@pytest.mark.core
def test_a_kept_ca_that_is_not_right_is_no_reason_for_another(sm):
    name = sm.name()
    assert sm.run(*G, "--keep-ca", cmd=["true"], name=name).rc == 0
    whole = {f: read(folder(sm, name, f)) for f in KEPT}
    key, cert = openssl_ca(sm, "other")
    old_key, old_cert = openssl_ca(sm, "old", "6")
    broken = [
        ({"ca.key": None}, "ca.key"), ({"ca.pem": None}, "ca.pem"), ({"ca.key": b""}, "key is no PEM"),
        ({"ca.key": whole["ca.key"][:100]}, "key is no PEM"), ({"ca.pem": whole["ca.pem"][:200]}, "certificate is no PEM"),
        ({"ca.key": key}, "not a P-256 CA of one pair"), ({"ca.pem": cert}, "not a P-256 CA of one pair"),
        ({"ca.key": key, "ca.pem": cert}, "and %s was kept" % fingerprint(whole["ca.pem"])),
        ({"ca.key": old_key, "ca.pem": old_cert, "ca.kept": fingerprint(old_cert).encode() + b"\n"}, "too soon"),
        ({"ca.pem": whole["ca.pem"] + cert}, "more than one certificate"), ({"ca.kept": b""}, "ca.kept"),
        ({"ca.kept": whole["ca.kept"].upper()}, "ca.kept"), ({"ca.kept": whole["ca.kept"] * 2}, "ca.kept"),
        ({"ca.key": b"x" * 2000}, "ca.key"), ({"ca.pem": b"x" * 5000}, "larger than 4096"),
    ]
    for change, words in broken:
        for f, data in {**whole, **change}.items():
            write(folder(sm, name, f), data) if data is not None else os.unlink(folder(sm, name, f))
        before = {f: x for f, x in tree(folder(sm, name)).items() if "/ca." in f}
        r = sm.run(*G, "--keep-ca", cmd=["echo", "went"], name=name)
        assert r.rc in (2, 125) and words in r.stderr.decode() and not r.stdout, (change, r)
        assert {f: x for f, x in tree(folder(sm, name)).items() if "/ca." in f} == before, change
    for f, data in whole.items():
        write(folder(sm, name, f), data)
    os.chmod(folder(sm, name, "ca.key"), 0o644)
    r = sm.run(*G, "--keep-ca", cmd=["true"], name=name)
    assert r.rc == 2 and b"ca.key is not a plain file of yours" in r.stderr, r
    os.chmod(folder(sm, name, "ca.key"), 0o600)
    assert sm.run(*G, "--keep-ca", cmd=["true"], name=name).rc == 0


@pytest.mark.core
def test_a_first_start_that_fails_leaves_no_mark(sm):
    """There is no CA to come back to before a guest had one: the next start makes it."""
    name = sm.name()
    with socket.create_server(("127.0.0.1", 0)) as s:
        r = sm.run(*G, "--keep-ca", "--publish", f"127.0.0.1:{s.getsockname()[1]}:80/tcp", cmd=["true"], name=name)
    assert r.rc != 0 and not os.path.exists(folder(sm, name, "ca.kept")) and not os.path.exists(folder(sm, name, "ca.key")), r
    assert sm.run(*G, "--keep-ca", cmd=["true"], name=name).rc == 0
    assert os.path.exists(folder(sm, name, "ca.kept"))


# ---- what is kept ----

@pytest.mark.core
def test_a_restored_workspace_is_trusted(sm):
    """Of a running workspace, restored under another name, with the old certificate in the guest's hands."""
    g = up(sm, *G)
    ca = write(os.path.join(sm.tmp, "guests-ca.pem"), read(folder(sm, g.name, "ca.pem")), 0o644)
    assert g.do(f"curl({ca!r})") == "200"
    path, said = snapshot(sm, g.name)
    assert said.splitlines()[1] == "ca-sha256 " + fingerprint(read(ca))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    g.end()
    assert not os.path.exists(folder(sm, g.name, "ca.key"))
    assert restore(sm, path, "--name", "copy", "--expect-ca", fingerprint(read(ca))) == "restored copy\nca-sha256 " + fingerprint(read(ca)) + "\n"
    h = go(sm, "copy")
    assert h.do(f"curl({ca!r})") == "200"
    assert read(folder(sm, "copy", "ca.pem")) == read(ca)
    h.end()
    assert os.path.exists(folder(sm, "copy", "ca.key"))
    other = up(sm, *G)
    assert other.do(f"curl({ca!r})") == "000", "another workspace's CA is another one"
    other.end()


@pytest.mark.core
def test_pins_go_on(sm):
    """In strict mode a bare connection needs a pin: the restored guest has it, though nobody resolved anything there."""
    bare = f'attempt("{w.PROTO}", {w.SSH}, n=len({w.BANNER_SSH!r}))["reply"]'
    flags = (*S, "--egress-allow", "proto.test")
    g = up(sm, *flags)
    assert g.do(bare) == "" and g.do('dns("proto.test")["rcode"]') == 0 and g.do(bare) == w.BANNER_SSH.decode()
    path, _ = snapshot(sm, g.name)
    g.end()
    pins = json.loads(parts(path)[1])["pins"]
    assert [(p["name"], p["addr"]) for p in pins] == [("proto.test", w.PROTO)]
    left = pins[0]["expires_us"] / 1e6 - time.time()
    assert 0 < left <= 86400
    restored = restore(sm, path, "--name", "copy", "--json")
    assert restored["pins"] == 1 and restored["state"] == "restored"
    assert state(sm, "copy") == "restored"
    h = go(sm, "copy")
    assert h.do(bare) == w.BANNER_SSH.decode()
    assert state(sm, "copy") == "running"
    r = h.end()
    assert state(sm, "copy") == "stopped"
    assert r.some("egress_allow", dst=w.PROTO)["name_source"] == "pin"
    # What is over is dropped, and a clock that runs wrong makes no pin last for ever.
    for expires, alive in ((time.time() - 1, 0), (time.time() + 10 ** 8, 1)):
        forged = forge(sm, path, lambda o, at=expires: o["pins"][0].update(expires_us=int(at * 1e6)))
        assert restore(sm, forged, "--name", "copy", "--force", "--json")["pins"] == alive
        h = go(sm, "copy")
        assert h.do(bare) == (w.BANNER_SSH.decode() if alive else "")
        if alive:
            p, _ = snapshot(sm, "copy", file="late")
            assert json.loads(parts(p)[1])["pins"][0]["expires_us"] / 1e6 <= time.time() + 86400
        h.end()


@pytest.mark.core
def test_as_many_pins_as_there_may_be(sm, taken):
    """16,384 with the longest names, 128 to an address: all of them go in and come out again, and nobody waits for them."""
    ends = int(time.time() * 1e6) + 3600 * 10 ** 6
    pins = [{"name": f"{i:05}." + ".".join(["x" * 60] * 4), "addr": f"203.0.{i >> 15}.{i >> 7 & 255}", "expires_us": ends} for i in range(16384)]
    forged = forge(sm, taken, lambda o: o.update(pins=pins))
    assert restore(sm, forged, "--name", "many", "--json")["pins"] == 16384
    g = go(sm, "many")
    assert json.loads(sm.cli("status", "many", "--json").stdout)["reports"]["core"]["pins"] == 16384
    began = time.monotonic()
    path, _ = snapshot(sm, "many", file="all")
    assert time.monotonic() - began < 20
    assert sorted(p["name"] for p in json.loads(parts(path)[1])["pins"]) == sorted(p["name"] for p in pins)
    assert g.do('dns("ok.test")["rcode"]') == 0
    g.end()
    listed = json.loads(sm.cli("list", "--json").stdout)
    assert "snapshot-key" not in json.dumps(listed) and "many" in json.dumps(listed)


@pytest.mark.core
def test_counters_go_on_and_never_back(sm):
    total = 1 << 20
    flags = (*G, "--egress-opaque", "--egress-max-total-bytes", str(total))
    fetch = f'attempt("{OK}", 7, bytes(100000), n=100000)["end"]'
    g = up(sm, *flags)
    assert g.do(fetch) == "full"
    path, _ = snapshot(sm, g.name)
    first = json.loads(parts(path)[1])["counters"]
    assert first["bytes_up"] >= 100000 and first["bytes_down"] >= 100000
    assert json.loads(parts(path)[1])["ca"] is None
    assert g.do(fetch) == "full"
    g.end()
    used = restore(sm, path, "--name", "copy", "--json")["counters"]
    assert used == first
    # Over the workspace itself, which has gone on: what it has used stays used.
    error = restore(sm, path, "--name", g.name, rc=2)
    assert "is there already" in error and "--force" in error
    used = restore(sm, path, "--force", "--json")
    assert used["name"] == g.name and used["counters"]["bytes_up"] >= 200000
    h = go(sm, g.name)
    ends = [h.do(fetch) for _ in range(8)]
    assert ends[:2] == ["full", "full"] and ends[-1] != "full", ends
    h.end()
    # Used up: a restore of a time before changes nothing about it, and only the operator's word does.
    assert sum(restore(sm, path, "--force", "--json")["counters"].values()) >= total - 65536
    h = go(sm, g.name)
    assert h.do(fetch) != "full"
    h.end()
    assert restore(sm, path, "--force", "--reset-caps", "--json")["counters"] == {"bytes_up": 0, "bytes_down": 0}
    h = go(sm, g.name)
    assert h.do(fetch) == "full"
    h.end()


@pytest.mark.core
def test_the_entries_in_force_are_kept_and_not_the_files(sm):
    f = os.path.join(sm.tmp, "policy.yaml")
    look = '[dns(n)["rcode"] for n in ("ok.test", "other.test", "listed.test")]'
    write(f, b"allow: [ok.test]\n")
    g = up(sm, *S, "--egress-policy", f, "--egress-allow", "listed.test")
    write(f, b"allow: [other.test]\n")
    assert sm.cli("reload", g.name).returncode == 0
    write(f, b"allow: [ok.test]\n")  # nobody asked for this one
    assert g.do(look) == [5, 0, 0]
    path, _ = snapshot(sm, g.name)
    g.end()
    os.unlink(f)
    restore(sm, path, "--name", "copy")
    h = go(sm, "copy")
    assert h.do(look) == [5, 0, 0]
    assert os.path.exists(folder(sm, "copy", "policy.json"))
    p = sm.cli("reload", "copy")
    assert p.returncode == 0, p
    assert h.do(look) == [5, 0, 0]
    h.end()
    assert sm.cli("delete", "copy").returncode == 0 and not os.path.exists(folder(sm, "copy")), "all of it"


@pytest.mark.core
def test_the_spec_file_is_not_needed_again(sm):
    spec = write(os.path.join(sm.tmp, "spec.yaml"), b"network:\n  ip: 10.9.8.7\n  subnet: 10.9.8.0/24\n  gateway: 10.9.8.1\n")
    name = create(sm, "speced", *G, "--egress-opaque", "--spec", spec)
    where = f"out['ip'] = (lambda s: (s.connect(('{w.PROTO}', 9)), s.getsockname()[0])[1])(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))"
    g = start(sm, name, *sm.guest_cmd(where)).end()
    assert g.out["ip"] == "10.9.8.7", g
    path, _ = snapshot(sm, name)
    os.unlink(spec)
    restore(sm, path, "--name", "copy")
    g = start(sm, "copy", *sm.guest_cmd(where)).end()
    assert g.out["ip"] == "10.9.8.7", g
    assert json.loads(sm.cli("network", "copy", "--json").stdout)["network"]["ip"] == "10.9.8.7"


@pytest.mark.core
def test_no_credential_is_in_it(sm):
    secret = "sk-" + os.urandom(12).hex()
    env = {"OPENAI_API_KEY": secret}
    g = up(sm, *G, "--cred-swap", "openai", env=env)
    path, _ = snapshot(sm, g.name, env=env)
    g.end()
    data = read(path)
    assert secret.encode() not in data and b"--cred-swap=openai" in data
    assert data.count(b"PRIVATE KEY") == 2 and b"PRIVATE KEY" not in parts(path)[1], "the CA's, and not in the JSON"
    assert b"guestlib" not in data, "CMD of `run` is nobody's business"


@pytest.mark.core
def test_a_stopped_workspace(sm):
    name = create(sm, "stopped", *G, "--keep-ca")
    error = snapshot(sm, name, rc=2)
    assert "keeps no CA" in error and not os.path.exists(os.path.join(sm.tmp, "snap"))
    h = go(sm, name)
    ca = write(os.path.join(sm.tmp, "guests-ca.pem"), read(folder(sm, name, "ca.pem")), 0o644)
    h.end()
    path, _ = snapshot(sm, name)
    assert sm.cli("delete", name).returncode == 0 and not os.path.exists(folder(sm, name))
    restore(sm, path)
    error = sm.cli("create", name, *G).stderr.decode()
    assert "there already" in error or "already (restored)" in error, error
    h = go(sm, name)
    assert h.do(f"curl({ca!r})") == "200"
    h.end()
    plain = create(sm, "plain", *G, "--egress-opaque")
    path, said = snapshot(sm, plain, file="plain")
    assert said.endswith("ca-sha256 none\n")
    assert "workspace 'plain' is there already" in restore(sm, path, rc=2)
    run = sm.run(*G, "--keep-ca", cmd=["true"])
    assert "was not made by 'create'" in snapshot(sm, run.name, rc=2, file="other")


# ---- what is refused ----

def expect_refusal(sm, path, words, *more, rc=(1, 2)):
    before = tree(base(sm))
    folders = set(os.listdir(base(sm)))
    p = sm.cli("restore", path, *(more or ("--name", "new")))
    assert p.returncode in rc and words in p.stderr.decode(), (words, p)
    assert b"PRIVATE" not in p.stderr and not p.stdout
    assert tree(base(sm)) == before and set(os.listdir(base(sm))) == folders, words


@pytest.fixture
def taken(sm):
    """A snapshot of a workspace that has ended."""
    g = up(sm, *G, "--egress-max-total-bytes", "1M")
    path, _ = snapshot(sm, g.name)
    g.end()
    return path


@pytest.mark.core
def test_every_byte_is_authenticated(sm, taken):
    data = read(taken)
    bad = os.path.join(sm.tmp, "bad")
    at = {0, 5, data.index(b"\n") - 1, data.index(b"\n"), data.index(b"BEGIN PRIVATE"), len(data) - 66, len(data) - 2, len(data) - 1}
    at |= set(range(30, len(data), len(data) // 40))
    for i in sorted(at):
        write(bad, data[:i] + bytes([data[i] ^ 1]) + data[i + 1:])
        expect_refusal(sm, bad, f"{bad}: ")
    for n in (0, 1, 20, data.index(b"\n"), data.index(b"\n") + 1, len(data) // 2, len(data) - 65, len(data) - 1):
        write(bad, data[:n])
        expect_refusal(sm, bad, "cut off" if n > data.index(b"\n") else "not a snapshot")
    for more in (b"\n", b"\0", b"x" * 5000, data):
        write(bad, data + more)
        expect_refusal(sm, bad, "belong to it")
    write(bad, data.replace(b"slirp-med-snapshot 1 ", b"slirp-med-snapshot 2 ", 1))
    expect_refusal(sm, bad, "version 2: this slirp-med")
    write(bad, b"\x7fELF" + bytes(4000))
    expect_refusal(sm, bad, "not a snapshot")
    expect_refusal(sm, "/nowhere/snap", "/nowhere/snap: No such file")
    expect_refusal(sm, sm.tmp, "not a file of yours")
    os.chmod(taken, 0o640)
    expect_refusal(sm, taken, "chmod 600")


@pytest.mark.core
def test_what_the_key_s_owner_may_get_wrong(sm, taken):
    """Authenticated, and wrong: each field is looked at all the same, and named."""
    key, cert = openssl_ca(sm, "other")
    old_key, old_cert = openssl_ca(sm, "old", "5")

    def swap_ca(key, cert, sha=None):
        def change(o):
            o["ca"] = {"cert": cert.decode(), "sha256": sha or fingerprint(cert)}
            return key
        return change

    def normal(pem):  # OpenSSL's own habit
        return subprocess.run(["openssl", "x509"], input=pem, capture_output=True, check=True).stdout
    cases = [
        (lambda o: o["ca"].pop("sha256") and None, "ca.sha256: must be there"),
        (lambda o: o["ca"].update(sha256="0" * 64), "ca.sha256: 0000"),
        (lambda o: o["ca"].update(sha256=o["ca"]["sha256"].upper()), "ca.sha256: must be 64 lower-case hex digits"),
        (lambda o: o["ca"].update(cert=cert.decode()), "ca: the workspace's CA: key and certificate are not"),
        (lambda o: o["ca"].update(cert=o["ca"]["cert"] + cert.decode()), "more than one certificate"),
        (lambda o: o.update(ca=None), "ca: must be there, since there is a key"),
        (swap_ca(old_key, normal(old_cert)), "too soon"),
        (swap_ca(b"no key", normal(cert)), "key is no PEM"),
        (lambda o: o.update(id="x"), "id: must be"), (lambda o: o.pop("pins") and None, "pins: must be there"),
        (lambda o: o.update(more=1), "more: unknown field"), (lambda o: o.update(workspace="../up"), "workspace"),
        (lambda o: o.update(counters={"bytes_up": -1, "bytes_down": 0}), "counters.bytes_up"),
        (lambda o: o.update(counters={"bytes_up": 1.5, "bytes_down": 0}), "counters.bytes_up"),
        (lambda o: o.update(pins=[{"name": "A.test", "addr": OK, "expires_us": 1}]), "pins[0].name"),
        (lambda o: o.update(pins=[{"name": "a.test", "addr": "1.2.3", "expires_us": 1}]), "pins[0].addr"),
        (lambda o: o.update(pins=[{"name": "a.test", "addr": OK, "expires_us": 10 ** 18}]), "pins[0].expires_us"),
        (lambda o: o.update(pins=[{"name": "a.test", "addr": OK, "expires_us": 1, "proof": True}]), "pins[0]"),
        (lambda o: o.update(pins=[{"name": "a.test", "addr": OK, "expires_us": 1}] * 16385), "more than 16384"),
        (lambda o: o.update(policy={"allow": [".com"], "passthrough": []}), "policy.allow[0]"),
        (lambda o: o.update(policy={"allow": [7], "passthrough": []}), "policy.allow[0]"),
        (lambda o: o.update(policy={"allow": []}), "policy: must be"),
        (lambda o: o["settings"].update(version=2), "settings: version"),
        (lambda o: o["settings"].update(command="exec"), "settings: command"),
        (lambda o: o["settings"]["args"].append("--state-dir=/tmp"), "settings: args["),
        (lambda o: o["settings"]["args"].append("--no-such-flag"), "--no-such-flag"),
        (lambda o: o["settings"]["args"].append("--egress-swap-config=/nowhere.yaml"), "/nowhere.yaml"),
    ]
    for change, words in cases:
        expect_refusal(sm, forge(sm, taken, change), words)
    assert restore(sm, forge(sm, taken, lambda o: None), "--name", "new"), "and as it was it is right"


@pytest.mark.core
def test_keys_and_expectations(sm, taken):
    sha = json.loads(parts(taken)[1])["ca"]["sha256"]
    expect_refusal(sm, taken, "belongs to another guest", "--name", "new", "--expect-ca", "0" * 64)
    expect_refusal(sm, taken, "not a SHA-256 fingerprint", "--name", "new", "--expect-ca", sha[:40])
    expect_refusal(sm, taken, "--expect-ca=: empty", "--name", "new", "--expect-ca", "")
    expect_refusal(sm, taken, "--name", "--name", "../up")
    # Another machine: another state folder, which has no key, or another one.
    there = os.path.join(sm.tmp, "there")
    os.mkdir(there, 0o700)
    p = sm.cli("restore", taken, "--state-dir", there)
    assert p.returncode == 1 and b"--key-file" in p.stderr and os.listdir(there) == [], p
    p = sm.cli("restore", taken, "--state-dir", os.path.join(there, "no"))
    assert p.returncode == 2 and b"--key-file" in p.stderr and os.listdir(there) == [], p
    key = read(os.path.join(base(sm), ".snapshot-key"))
    assert re.fullmatch(rb"[0-9a-f]{64}\n", key) and stat.S_IMODE(os.stat(os.path.join(base(sm), ".snapshot-key")).st_mode) == 0o600
    other = write(os.path.join(sm.tmp, "other.key"), b"0" * 64 + b"\n")
    p = sm.cli("restore", taken, "--state-dir", there, "--key-file", other)
    assert p.returncode == 2 and b"another key" in p.stderr and os.listdir(there) == [], p
    for wrong in (b"", key[:-1], key + b"\n", b"g" * 64 + b"\n"):
        write(other, wrong)
        p = sm.cli("restore", taken, "--state-dir", there, "--key-file", other)
        assert p.returncode == 2 and b"not a snapshot key" in p.stderr, p
    write(other, key, 0o644)
    p = sm.cli("restore", taken, "--state-dir", there, "--key-file", other)
    assert p.returncode == 2 and b"mode 0600" in p.stderr, p
    os.chmod(other, 0o600)
    with_colons = ":".join(sha[i:i + 2] for i in range(0, 64, 2)).upper()
    p = sm.cli("restore", taken, "--state-dir", there, "--key-file", other, "--expect-ca", with_colons)
    assert p.returncode == 0, p
    # And taken with a key of one's own, it needs that one here too.
    write(other, b"ab" * 32 + b"\n")
    g = up(sm, *G)
    path, _ = snapshot(sm, g.name, "--key-file", other, file="own")
    g.end()
    expect_refusal(sm, path, "another key")
    restore(sm, path, "--name", "own", "--key-file", other)


@pytest.mark.core
def test_names_that_are_taken(sm, taken):
    g = up(sm, *G)
    p = sm.cli("restore", taken, "--name", g.name, "--force")
    assert p.returncode == 1 and b"is already running" in p.stderr, p
    assert "is there already" in snapshot(sm, g.name, rc=2)
    before = read(taken)
    path, _ = snapshot(sm, g.name, "--force")
    assert read(path) != before
    g.end()
    expect_refusal(sm, taken, "is there already", "--name", g.name)
    # Forced, and refused for another reason: as it was.
    forged = forge(sm, taken, lambda o: o["settings"]["args"].append("--egress-swap-config=/nowhere.yaml"))
    expect_refusal(sm, forged, "/nowhere.yaml", "--name", g.name, "--force")
    lines = len(g.run.audit())
    restore(sm, taken, "--name", g.name, "--force")
    h = go(sm, g.name)
    h.end()
    assert len(h.run.audit()) > lines, "its audit goes on"


@pytest.mark.core
def test_a_fork_is_said_or_refused(sm, taken):
    assert sm.cli("restore", taken, "--name", "one").stderr == b""
    p = sm.cli("--json", "restore", taken, "--name", "two")
    documented(json.loads(p.stdout), "Restored")
    assert p.returncode == 0 and b"workspace 'one' has the same CA" in p.stderr, p
    assert json.loads(p.stdout)["shares_ca_with"] == ["one"]
    expect_refusal(sm, taken, "--refuse-fork", "--name", "three", "--refuse-fork", rc=(1,))
    p = sm.cli("restore", taken, "--name", "one", "--force", "--refuse-fork")
    assert p.returncode == 1 and b"'two'" in p.stderr, p
    assert sm.cli("delete", "two").returncode == 0
    assert sm.cli("restore", taken, "--name", "one", "--force", "--refuse-fork").returncode == 0
    # The one that it was taken of shares it too, while it runs.
    g = up(sm, *G)
    path, said = snapshot(sm, g.name, "--json", file="live")
    assert documented(json.loads(said), "Snapshot")["file"] == path
    assert g.name.encode() in sm.cli("restore", path, "--name", "live").stderr
    g.end()


@pytest.mark.core
def test_two_restores_at_once_see_each_other(sm, taken):
    ps = [subprocess.Popen(USER + [sm.bin, "restore", taken, "--name", f"n{i}", "--refuse-fork"], env=sm.env(), stderr=subprocess.PIPE) for i in range(6)]
    assert sorted(p.wait(60) for p in ps) == [0, 1, 1, 1, 1, 1]
    assert sum(os.path.isdir(folder(sm, f"n{i}")) for i in range(6)) == 1


@pytest.mark.core
def test_the_key_is_out_of_the_guests_reach(sm, taken):
    names = [".snapshot-key", os.path.basename(taken)]
    g = up(sm, *G)
    assert g.do(f"[os.path.exists(os.path.join({base(sm)!r}, n)) for n in {names!r}]") == [False, False]
    assert g.do(f"attempt_to(os.listdir, {base(sm)!r})") == "EACCES"
    g.end()


# ---- in the middle of it ----

def full_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.core
def test_a_full_disk(sm, taken):
    g = up(sm, *G)
    error = snapshot(sm, g.name, rc=1, file="full", preexec_fn=full_disk)
    assert "full: File too large" in error
    g.end()
    assert sorted(x for x in os.listdir(sm.tmp) if "full" in x) == []
    before = tree(base(sm))
    assert "File too large" in restore(sm, taken, "--name", "new", rc=1, preexec_fn=full_disk)
    assert tree(base(sm)) == before and not os.path.exists(folder(sm, "new"))
    assert "File too large" in restore(sm, taken, "--name", g.name, "--force", rc=1, preexec_fn=full_disk)
    assert tree(base(sm)) == before


@pytest.mark.core
def test_killed_in_the_middle(sm):
    """Whenever it is killed, there is a whole file or none; and no other one."""
    g = up(sm, *G)
    snapshot(sm, g.name, file="first")
    there = os.path.join(sm.tmp, "out")
    os.mkdir(there)
    os.chmod(there, 0o777)
    for i in range(40):
        path = os.path.join(there, "snap")
        p = subprocess.Popen([sm.bin, "snapshot", g.name, path, "--key-file", os.path.join(base(sm), ".snapshot-key")], env=sm.env(),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + i * 0.0007
        while time.monotonic() < end and p.poll() is None:
            pass
        p.send_signal(signal.SIGKILL)
        p.wait()
        assert set(os.listdir(there)) <= {"snap"}, os.listdir(there)
        if os.path.exists(path):
            words, text, pem, mac = parts(path)
            assert len(mac) == 65 and json.loads(text)
            os.unlink(path)
    snapshot(sm, g.name, file="last")
    g.end()


@pytest.mark.core
def test_a_restore_killed_in_the_middle(sm, taken):
    """There is a workspace that can be started, or none, whose name is free; in the end it is there, and so is what was before."""
    before = tree(base(sm))
    key = os.path.join(base(sm), ".snapshot-key")
    for i in range(30):
        p = subprocess.Popen(USER + [sm.bin, "restore", taken, "--name", "new", "--key-file", key], env=sm.env(), stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        end = time.monotonic() + i * 0.0008
        while time.monotonic() < end and p.poll() is None:
            pass
        p.send_signal(signal.SIGKILL)
        p.wait()
        there = os.path.exists(folder(sm, "new", "settings.json"))
        q = sm.cli("restore", taken, "--name", "new")
        assert q.returncode == (2 if there else 0), q
        assert sm.cli("start", "new", "--", "true").returncode == 0
        assert not [f for f in os.listdir(folder(sm, "new")) if f.endswith(".new")] or there
        assert sm.cli("delete", "new").returncode == 0 and not os.path.exists(folder(sm, "new"))
    assert tree(base(sm)) == before


@pytest.mark.core
def test_many_at_once(sm):
    g = up(sm, *G)
    ps = [subprocess.Popen(USER + [sm.bin, "snapshot", g.name, os.path.join(sm.tmp, f"s{i}")], env=sm.env(), stdout=subprocess.PIPE) for i in range(6)]
    said = [p.communicate(timeout=60)[0] for p in ps]
    assert [p.returncode for p in ps] == [0] * 6
    assert len({x.split()[1] for x in said}) == 6 and len({x.split()[3] for x in said}) == 1
    assert os.listdir(base(sm)).count(".snapshot-key") == 1 and not [x for x in os.listdir(base(sm)) if x.startswith(".snapshot-key.")]
    # And one to one name: one of them gets it.
    ps = [subprocess.Popen(USER + [sm.bin, "snapshot", g.name, os.path.join(sm.tmp, "same")], env=sm.env(), stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sorted(p.wait(60) for p in ps)[:2] == [0, 2]
    g.end()
    for i in range(6):
        restore(sm, os.path.join(sm.tmp, f"s{i}"), "--name", f"n{i}")


@pytest.mark.core
def test_the_workspace_ends_meanwhile(sm):
    """A core that does not answer, and a stop: the client hears of it, and there is no file."""
    g = up(sm, *G)
    os.kill(g.run.pids()["core"], signal.SIGSTOP)
    s = vmmlib.connect(folder(sm, g.name, "control.sock"))
    s.settimeout(60)
    s.sendall(b"snapshot\n")
    path = os.path.join(sm.tmp, "snap")
    p = subprocess.Popen(USER + [sm.bin, "snapshot", g.name, path], env=sm.env(), stderr=subprocess.PIPE)
    stop = subprocess.Popen(USER + [sm.bin, "stop", g.name], env=sm.env())
    answer = json.loads(s.makefile().readline())
    assert answer["ok"] is False and "the workspace ended" in answer["error"], answer
    _, error = p.communicate(timeout=60)
    assert p.returncode in (1, 2) and error.startswith(b"slirp-med: ") and not os.path.exists(path), error
    assert stop.wait(30) == 0
    g.run.p.wait(30)
    s.close()


# ---- a guest whose connections live on ----

@pytest.mark.core
def test_connections_of_before_are_reset(sm):
    """A virtual machine that is restored sends on what it takes for its connections: each is answered by RST, and new ones work."""
    a = attach(sm, "--stream", path_of(sm), *G).ready()
    v = a.vmm(path_of(sm))
    assert v.arp() == vmmlib.GATEWAY_MAC
    c = v.tcp(w.PROTO, 7)
    c.sendall(b"before")
    assert c.read(6) == b"before"
    path, _ = snapshot(sm, a.name)
    assert sm.cli("stop", a.name).returncode == 0
    a.p.wait(30)
    restore(sm, path, "--name", "copy")
    r = start(sm, "copy")
    w.wait_for("the workspace", lambda: b"slirp-med: ready: " in r.said() or r.p.poll() is not None, 20)
    again = vmmlib.Vmm(vmmlib.connect(path_of(sm)))
    assert again.arp() == vmmlib.GATEWAY_MAC
    c.v = again
    c._send(vmmlib.PSH | vmmlib.ACK, b"after")
    flags, seq, _, data = again.until(lambda f: again.tcp_of(f, w.PROTO, 7, c.sport))
    assert flags & vmmlib.RST and seq == c.ack and data == b""
    c._send(vmmlib.FIN | vmmlib.ACK)
    assert again.until(lambda f: again.tcp_of(f, w.PROTO, 7, c.sport))[0] & vmmlib.RST
    new = again.tcp(w.PROTO, 7)
    new.sendall(b"new")
    assert new.read(3) == b"new"
    assert sm.cli("stop", "copy").returncode == 0


@pytest.mark.core
def test_a_descriptor_of_one_start_cannot_be_kept(sm):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    a = attach(sm, "--fd", str(theirs.fileno()), *G, pass_fds=[theirs.fileno()]).ready()
    theirs.close()
    error = snapshot(sm, a.name, rc=2)
    assert "cannot be kept" in error and "--fd" in error and not os.path.exists(os.path.join(sm.tmp, "snap")), error
    ours.close()
    assert a.p.wait(30) == 0


@pytest.mark.core
def test_a_proxy_s_clients_trust_it_again(sm):
    """Containers live on and keep the CA that they were given: the proxy that is restored has it."""
    box = px.Box(px.PROXY, px.CLIENT, "px0")
    try:
        p = px.start(sm)
        ca = write(os.path.join(sm.tmp, "clients-ca.pem"), read(p.ca), 0o644)
        assert px.curl(box, "https://origin.test/plain", "--cacert", ca)[0] == 200
        path, _ = snapshot(sm, p.name)
        p.stop()
        restore(sm, path, "--name", "copy")
        r = start(sm, "copy")
        w.wait_for("the proxy", lambda: b"slirp-med: ready: " in r.said() or r.p.poll() is not None, 20)
        code, _, _, c = px.curl(box, "https://origin.test/plain", "--cacert", ca)
        assert code == 200, (c, r.errors())
        assert sm.cli("stop", "copy").returncode == 0
    finally:
        box.close()
