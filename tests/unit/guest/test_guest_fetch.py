# SPDX-License-Identifier: BSD-3-Clause
"""The guest's program and script: the channels. A pty stands in for the virtio-serial port, a folder for sysfs.

Only the request line may go to the host, and nothing may outlast --wait by much.
"""
import contextlib
import os
import pty
import select
import shutil
import subprocess
import tempfile
import threading
import time

import pytest

from guest import BUNDLE, CA, ONE, SCRIPT, TWO, der_of, pem, report, run, sha256, snapshot, write

FW_CFG = "sys/firmware/qemu_fw_cfg/by_name/opt/org.slirp-med/ca.pem/raw"
# A slow machine may take this much longer than it was told to wait.
SLACK = 15


class Host:
    """The host's side of a serial port: answers the request with the given pieces, keeps everything that the guest wrote."""

    def __init__(self, *answer, close=False, requests=1):
        self.answer, self.close, self.requests, self.got = answer, close, requests, b""
        self.master, self.slave = pty.openpty()
        # By a name of its own: a terminal's number is given to the next one that asks, and who still tries the old one would ask a stranger.
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "port")
        os.symlink(os.ttyname(self.slave), self.path)
        self.stop_read, self.stop_write = os.pipe()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        answered = 0
        while True:
            ready, _, _ = select.select([self.master, self.stop_read], [], [])
            if self.stop_read in ready:
                return
            self.got += os.read(self.master, 100)
            if self.got.count(b"ca\n") <= answered or answered == self.requests:
                continue
            answered += 1
            for piece in self.answer:
                # As much as the terminal takes: an answer without end must not hold the test up.
                _, writable, _ = select.select([self.stop_read], [self.master], [])
                if not writable:
                    return
                os.write(self.master, piece)
            if self.close:
                os.unlink(self.path)
                os.close(self.slave)
                os.close(self.master)
                self.master = self.slave = -1
                return

    def stop(self):
        os.close(self.stop_write)
        self.thread.join()
        self.folder.cleanup()
        for fd in (self.master, self.slave, self.stop_read):
            if fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def host(*answer, **kw):
    h = Host(*answer, **kw)
    try:
        yield h
    finally:
        h.stop()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def fetch(run, root, tmp_path):
    """Runs it over what the test has put into tmp_path/sys and tmp_path/dev; gives the report and the seconds that it took."""
    (tmp_path / "sys").mkdir()
    (tmp_path / "dev").mkdir()

    def call(source, *args, wait=10, code=0, **kw):
        start = time.monotonic()
        got = run("--from", source, "--root", root, "--sys", tmp_path / "sys", "--dev", tmp_path / "dev", "--wait", wait, "--json", *args, **kw)
        took = time.monotonic() - start
        assert got.returncode == code, got
        assert took < wait + SLACK
        r = report(got)
        r["took"] = took
        # One line, or none.
        assert got.stderr == (f"slirp-med-guest: {r['error']}\n" if code else "")
        if code != 0:
            assert list(root.iterdir()) == []
        return r
    call.name = run.name
    return call


def pieces(data, size):
    return [data[i:i + size] for i in range(0, len(data), size)]


# ---- serial ----

TEXT = pem(ONE).encode()


@pytest.mark.parametrize("answer", [[TEXT], [pem(ONE, end="\r\n").encode()], pieces(TEXT, 7), [b"\n" + TEXT]], ids=["whole", "crlf", "pieces", "empty_line"])
def test_serial(fetch, root, answer):
    with host(*answer) as h:
        r = fetch("serial", "--serial", h.path)
    assert r["result"] == "installed" and r["from"] == "serial" and r["sha256"] == sha256(ONE)
    assert (root / CA).read_text() == (root / BUNDLE).read_text() == pem(ONE)
    assert h.got == b"ca\n" and r["took"] < 5


@pytest.mark.parametrize("answer", [
    [b"sorry, there is none\n"], [TEXT[:300], b"\x1b\n", TEXT[300:]], [TEXT.replace(b"A", b"*", 1)], [b"-----BEGIN CERTIFICATE-----\n", b"A" * 64 + b"\n"] * 1200,
    [TEXT + b"more\n"], [pem(ONE + b"\0").encode()],
], ids=["words", "control", "letter", "endless", "trailing", "der"])
def test_serial_bad(fetch, answer):
    """Refused as soon as it can be seen."""
    with host(*answer) as h:
        r = fetch("serial", "--serial", h.path, code=3, wait=10)
    assert "serial gave no certificate that can be used" in r["error"] and r["took"] < 9
    assert h.got == b"ca\n"


def test_serial_silent(fetch):
    with host() as h:
        r = fetch("serial", "--serial", h.path, code=1, wait=1)
    assert "says nothing" in r["error"] and set(h.got) <= set(b"ca\n")


@pytest.mark.parametrize("answer", [[b"error\n"], [b"err", b"or\n"]], ids=["whole", "pieces"])
def test_serial_none_to_give(fetch, tmp_path, answer):
    """The core has no CA (--egress off, --egress-opaque): asked once, the others go on, and it is no bad certificate."""
    with host(*answer) as h:
        r = fetch("serial", "--serial", h.path, code=1, wait=20)
        assert "serial: the host has none to give" in r["error"] and r["took"] < 10 and h.got == b"ca\n"
    with host(*answer, requests=9) as h:
        r = fetch("serial,fw_cfg", "--serial", h.path, code=1, wait=2)
        assert "serial: the host has none to give; fw_cfg: " in r["error"] and h.got == b"ca\n"
        write(tmp_path / FW_CFG, pem(TWO))
        assert fetch("serial,fw_cfg", "--serial", h.path)["sha256"] == sha256(TWO)


def test_serial_breaks_off(fetch):
    """The host goes away in the middle: what came is not used."""
    with host(TEXT[:200], close=True) as h:
        fetch("serial", "--serial", h.path, code=1, wait=2)


def test_serial_stops(fetch):
    """Half a certificate and then nothing, with the port open."""
    with host(TEXT[:200]) as h:
        fetch("serial", "--serial", h.path, code=1, wait=1)


def test_serial_by_name(fetch, tmp_path):
    """Without udev: sysfs knows the name, the device has a number. Other ports are left alone."""
    with host(TEXT) as h, host(pem(TWO).encode()) as other:
        for number, name, path in (("0p1", "org.qemu.guest_agent.0", other.path), ("0p2", "org.slirp-med.01", other.path), ("1p1", "org.slirp-med.0", h.path)):
            write(tmp_path / f"sys/class/virtio-ports/vport{number}/name", name + "\n")
            (tmp_path / f"dev/vport{number}").symlink_to(path)
        assert fetch("serial")["sha256"] == sha256(ONE)
    assert other.got == b"" and h.got == b"ca\n"


def test_serial_by_link(fetch, tmp_path):
    """With udev: a link of that name."""
    with host(TEXT) as h:
        (tmp_path / "dev/virtio-ports").mkdir()
        (tmp_path / "dev/virtio-ports/org.slirp-med.0").symlink_to(h.path)
        assert fetch("serial")["sha256"] == sha256(ONE)


def test_serial_appears(fetch, tmp_path):
    """The device comes while it waits."""
    with host(TEXT) as h:
        write(tmp_path / "sys/class/virtio-ports/vport0p1/name", "org.slirp-med.0\n")
        timer = threading.Timer(1.5, os.symlink, (h.path, tmp_path / "dev/vport0p1"))
        timer.start()
        r = fetch("serial")
        timer.join()
    assert r["sha256"] == sha256(ONE) and r["took"] >= 1


def test_serial_does_not_hold_others_up(fetch, tmp_path):
    """A port on which nobody answers gets its share of the time."""
    write(tmp_path / FW_CFG, pem(TWO))
    with host() as h:
        r = fetch("serial,fw_cfg", "--serial", h.path, wait=4)
    assert r["from"] == "fw_cfg" and r["sha256"] == sha256(TWO)


# ---- fw_cfg ----

def test_fw_cfg(fetch, root, tmp_path):
    write(tmp_path / FW_CFG, pem(ONE))
    r = fetch("fw_cfg")
    assert r["from"] == "fw_cfg" and (root / CA).read_text() == pem(ONE)


def test_fw_cfg_appears(fetch, tmp_path):
    """The module is loaded while it waits."""
    write(tmp_path / "later/by_name/opt/org.slirp-med/ca.pem/raw", pem(ONE))
    (tmp_path / "sys/firmware").mkdir()
    timer = threading.Timer(1.5, os.rename, (tmp_path / "later", tmp_path / "sys/firmware/qemu_fw_cfg"))
    timer.start()
    assert fetch("fw_cfg")["took"] >= 1
    timer.join()


@pytest.mark.parametrize("text", ["", pem(ONE)[:100], pem(ONE) * 2, "x"])
def test_fw_cfg_bad(fetch, tmp_path, text):
    """It does not change any more: no reason to wait."""
    write(tmp_path / FW_CFG, text)
    assert fetch("fw_cfg", code=3, wait=20)["took"] < 10


# ---- order, time, files ----

def test_order(fetch, tmp_path):
    write(tmp_path / FW_CFG, pem(ONE))
    two = write(tmp_path / "two.pem", pem(TWO))
    assert fetch(f"file:{two},fw_cfg")["sha256"] == sha256(TWO)
    assert fetch("fw_cfg", "--from", f"file:{two}")["sha256"] == sha256(ONE)
    assert fetch(f"file:{tmp_path}/none,serial,fw_cfg")["from"] == "fw_cfg"


def test_bad_ends_it(fetch, tmp_path):
    """A channel that gives something wrong is not made up for by the next."""
    write(tmp_path / FW_CFG, pem(ONE))
    bad = write(tmp_path / "bad.pem", "bad")
    fetch(f"file:{bad},fw_cfg", code=3)


@pytest.mark.parametrize("wait", [0, 2])
def test_nothing_there(fetch, wait):
    """Bounded, and what is missing is said."""
    r = fetch("serial,fw_cfg", wait=wait, code=1)
    assert f"no certificate within {wait} s" in r["error"] and "serial: there is no port org.slirp-med.0" in r["error"] and "fw_cfg: " in r["error"]
    assert r["took"] >= wait - 1


def test_does_not_spin(run, tmp_path):
    """Three seconds of waiting cost little."""
    before = os.times()
    got = run("--from", "serial,fw_cfg", "--sys", tmp_path, "--dev", tmp_path, "--wait", 3, "--root", tmp_path)
    after = os.times()
    assert got.returncode == 1
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.5


def test_file(fetch, tmp_path):
    r = fetch(f"file:{tmp_path}/none", code=1, wait=20)
    assert r["took"] < 10 and "No such file" in r["error"]
    fetch(f"file:{tmp_path}", code=1, wait=20)
    fetch("file:/dev/null", code=3, wait=20)
    odd = write(tmp_path / "-n it's", pem(ONE))
    assert fetch(f"file:{odd}")["from"] == f"file {odd}"
    assert fetch("file:-n it's", cwd=tmp_path)["result"] == "unchanged"


def test_input(fetch):
    assert fetch("-", input=pem(ONE))["from"] == "file -"
    with pytest.raises(AssertionError):
        fetch("-", input=pem(ONE) + "x")


# ---- vsock ----

def test_vsock_not_there(fetch):
    """CID 1 is this machine itself: without the loopback transport nobody answers."""
    r = fetch("vsock", "--vsock", "1:1027", wait=1, code=1)
    assert "vsock: " in r["error"]


def applets(folder, *without):
    """A PATH of busybox alone, so that what else this machine has is not found."""
    folder.mkdir()
    names = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name not in without:
            (folder / name).symlink_to(shutil.which("busybox"))
    (folder / "dash").symlink_to(shutil.which("dash"))
    return folder


HELPERS = {
    "socat": ('[ "$*" = "-u VSOCK-CONNECT:7:1234 -" ] || exit 9', "cat {cert}"),
    "slirp-med-guest": ('case "$*" in "--print-cert --from vsock --vsock 7:1234 --wait "*) ;; *) exit 9 ;; esac', "cat {cert}"),
    "nc": ('[ "$1" != --help ] || exec echo "  --vsock"\n[ "$*" = "--recv-only --vsock 7 1234" ] || exit 9', "cat {cert}"),
}


@pytest.mark.parametrize("shell", ["dash", "ash"])
@pytest.mark.parametrize("helper", [*HELPERS, None])
def test_script_vsock(tmp_path, shell, helper):
    """A shell needs a helper for a vsock, and uses the first of three; its output is judged like everything else."""
    path = applets(tmp_path / "bin", "nc")
    if shell == "ash" and helper == "nc":
        pytest.skip("this busybox uses its own nc, which knows no vsock")
    argv = ["dash", SCRIPT] if shell == "dash" else ["busybox", "ash", SCRIPT]
    cert = tmp_path / "cert.pem"
    if helper:
        check, answer = HELPERS[helper]
        write(path / helper, f"#!{path}/dash\n{check}\n{answer.format(cert=cert)}\n").chmod(0o755)

    def fetch():
        return subprocess.run([*argv, "--print-cert", "--from", "vsock", "--vsock", "7:1234", "--wait", "1"], env={"PATH": str(path)}, capture_output=True,
                              text=True, timeout=60)
    if helper is None:
        got = fetch()
        assert got.returncode == 1 and "a shell cannot open it: neither socat, slirp-med-guest nor an nc with --vsock is here" in got.stderr
        return
    for text, code in ((pem(ONE), 0), (pem(ONE)[:300], 1), ("", 1), ("x\n", 3), (pem(ONE) * 2, 3), (pem(der_of(5, 50000)), 3)):
        write(cert, text)
        got = fetch()
        assert got.returncode == code, (text, got)
        assert got.stdout == (pem(ONE) if code == 0 else "")


def test_script_says_what_is_missing(tmp_path):
    """A system that has too little."""
    path = applets(tmp_path / "bin", "base64")
    got = subprocess.run(["dash", SCRIPT, "--from", "-", "--root", str(tmp_path)], env={"PATH": str(path)}, input=pem(ONE), capture_output=True, text=True)
    assert got.returncode == 1 and "no base64" in got.stderr


def test_nothing_stays(run, tmp_path):
    """No temporary files, whatever happens."""
    for args, text in ((["--from", "-"], pem(ONE)), (["--from", "-"], "bad"), (["--from", "fw_cfg", "--sys", tmp_path, "--wait", "0"], "")):
        (tmp_path / "tmp").mkdir(exist_ok=True)
        run(*args, "--root", tmp_path, input=text, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")})
        assert list((tmp_path / "tmp").iterdir()) == []


def test_ended_by_a_signal(run, tmp_path):
    """While it waits: it goes, and leaves nothing."""
    (tmp_path / "tmp").mkdir()
    child = subprocess.Popen([*run.argv, "--from", "fw_cfg", "--sys", str(tmp_path), "--wait", "60", "--root", str(tmp_path)], stderr=subprocess.PIPE,
                             env={**os.environ, "TMPDIR": str(tmp_path / "tmp")})
    deadline = time.monotonic() + SLACK
    # The program has no sign of being ready; the script has its folder.
    while run.name != "binary" and not list((tmp_path / "tmp").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.terminate()
    child.communicate(timeout=SLACK)
    assert child.returncode != 0
    assert list((tmp_path / "tmp").iterdir()) == [] and {p.name for p in tmp_path.iterdir()} == {"tmp"}
