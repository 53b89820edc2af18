# SPDX-License-Identifier: BSD-3-Clause
"""slirp-med-guest and its script in a real guest: the kernel's own virtio-serial port, fw_cfg and AF_VSOCK.

QEMU alone, without a network and without slirp-med: the test is the host, so that it sees every byte that leaves the guest. The host's side of
the vsock is the kernel's loopback transport with socat in the same guest. SM_VM_DIR names the folder that tests/vm/image has made.
"""
import base64
import glob
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import select
import shutil
import socket
import subprocess
import threading
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[1]
IMAGE = pathlib.Path(os.environ.get("SM_VM_DIR", REPO / "build/vm"))
BUILT = pathlib.Path(os.environ.get("SLIRP_MED_BIN", REPO / "build/vmm-glue/slirp-med")).parent / "guest"
# A boot takes 5 s on an idle machine. These only bound how long a failure takes.
BOOT_S, COMMAND_S = 150, 60
TOOLS = {"binary": "/bin/slirp-med-guest", "script": "/bin/slirp-med-guest.sh"}


def pem(name, folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null", "-out",
                    folder / name, "-days", "2", "-subj", f"/O={name}/CN=slirp-med CA"], check=True, capture_output=True)
    return (folder / name).read_bytes()


def initrd(path):
    """The image's, and behind it an archive with what is tried here: the kernel unpacks one after the other."""
    loader = importlib.machinery.SourceFileLoader("vm_image", str(HERE / "image"))
    image = importlib.util.module_from_spec(importlib.util.spec_from_loader("vm_image", loader))
    loader.exec_module(image)
    more = image.Cpio(f"{path}.more")
    for tool in TOOLS.values():
        more.copy(str(BUILT / os.path.basename(tool)), tool[1:])
    loopback = glob.glob(f"{IMAGE}/kernel/lib/modules/*/kernel/net/vmw_vsock/vsock_loopback.ko")
    assert loopback, "the kernel has no module vsock_loopback"
    more.copy(loopback[0], "vsock_loopback.ko")
    more.close()
    with open(path, "wb") as f:
        for part in (IMAGE / "initrd", f"{path}.more"):
            with open(part, "rb") as p:
                shutil.copyfileobj(p, f)
            f.write(b"\0" * (-f.tell() % 4))


class Guest:
    """A guest, and the host's side of its channels."""

    def __init__(self, folder):
        self.fw_cfg, self.serial, self.got, self.n, self.seen = pem("fw_cfg", folder), pem("serial", folder), b"", 0, b""
        initrd(folder / "initrd")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "port"))
        self.listener.listen()
        self.p = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none", "-nic", "none",
             "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console", "-kernel", IMAGE / "vmlinuz", "-initrd", folder / "initrd", "-append",
             "console=ttyS0 quiet panic=-1 norun", "-device", "virtio-serial-pci", "-chardev", f"socket,id=port,path={folder}/port", "-device",
             "virtserialport,chardev=port,name=org.slirp-med.0", "-fw_cfg", f"name=opt/org.slirp-med/ca.pem,file={folder}/fw_cfg"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.listener.settimeout(BOOT_S)
        self.conn, _ = self.listener.accept()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        self.until(b"@@UP\n", BOOT_S)

    def serve(self):
        """A line is answered with the certificate; everything that came is kept."""
        while data := self.conn.recv(100):
            self.got += data
            if data.endswith(b"\n"):
                self.conn.sendall(self.serial)

    def until(self, mark, timeout):
        end = time.monotonic() + timeout
        while mark not in self.seen:
            left = end - time.monotonic()
            ready = left > 0 and select.select([self.p.stdout], [], [], left)[0]
            data = os.read(self.p.stdout.fileno(), 1 << 16) if ready else b""
            assert data, f"{mark} did not come: {self.seen[-3000:]}"
            self.seen += data
        before, self.seen = self.seen.split(mark, 1)
        return before.decode()

    def sh(self, command):
        """(exit status, output) of a command in the guest."""
        self.n += 1
        self.p.stdin.write(b"%d %s\n" % (self.n, base64.b64encode(command.encode())))
        self.p.stdin.flush()
        said = self.until(b"@@END %d " % self.n, COMMAND_S)
        return int(self.until(b"\n", COMMAND_S)), said

    def ok(self, command):
        status, said = self.sh(command)
        assert status == 0, said
        return said

    def close(self):
        self.p.kill()
        self.p.communicate()
        self.thread.join()
        self.conn.close()
        self.listener.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    for path in (IMAGE / "vmlinuz", IMAGE / "initrd", *(BUILT / os.path.basename(tool) for tool in TOOLS.values())):
        assert path.exists(), f"{path} is not there: run ./dev build and tests/vm/image {IMAGE}"
    g = Guest(tmp_path_factory.mktemp("guest"))
    yield g
    g.close()


@pytest.fixture(params=TOOLS)
def tool(request, plain):
    """Each begins without what the other has left."""
    plain.ok("slirp-med-guest --uninstall >/dev/null; rm -rf /etc/profile.d")
    return TOOLS[request.param]


def check(plain, tool, channel, args, cert):
    """Installed, and the second time unchanged; the guest's own curl and sha256sum read what is there."""
    r = json.loads(plain.ok(f"{tool} --from {channel} {args} --json"))
    assert r["result"] == "installed" and r["from"].startswith(channel) and r["layout"] == "none" and r["system_bundle"] is None
    assert plain.ok("cat /etc/slirp-med/ca.pem").encode() == plain.ok("cat /etc/slirp-med/ca-bundle.pem").encode() == cert
    assert plain.ok(f"base64 -d <<E | sha256sum\n{''.join(cert.decode().splitlines()[1:-1])}\nE").split()[0] == r["sha256"]
    assert plain.ok(f"{tool} --from {channel} {args} --expect {r['sha256']}").splitlines()[-1] == "unchanged"
    assert plain.ok(f'eval "$({tool} --print-env)"; echo $CURL_CA_BUNDLE') == "/etc/slirp-med/ca-bundle.pem\n"


def test_fw_cfg(plain, tool):
    plain.ok("rmmod qemu_fw_cfg; insmod /modules/*qemu_fw_cfg.ko")
    before = plain.got
    check(plain, tool, "fw_cfg", "", plain.fw_cfg)
    assert plain.got == before


def test_serial(plain, tool):
    """By the port's name, without udev. The request is all that the host hears."""
    before = plain.got
    check(plain, tool, "serial", "", plain.serial)
    assert plain.got == before + b"ca\n" * 2


def test_default(plain, tool):
    """No vsock device: the serial port is next."""
    assert "from serial" in plain.ok(tool)


def test_vsock(plain, tool):
    """AF_VSOCK of the guest's kernel, through its loopback transport; the listener keeps what it is sent."""
    plain.ok("grep -q vsock_loopback /proc/modules || insmod /vsock_loopback.ko")
    status, said = plain.sh(f"{tool} --from vsock --vsock 1:7 --wait 1")
    assert status == 1 and "no certificate within 1 s (vsock: " in said
    plain.ok(f"cat >/tmp/offer <<E\n{plain.fw_cfg.decode()}E\n"
             ": >/tmp/heard; socat VSOCK-LISTEN:1027,fork 'OPEN:/tmp/offer,rdonly!!OPEN:/tmp/heard,append' >/tmp/socat 2>&1 & echo $! >/tmp/pid\n"
             "n=0; until socat -u VSOCK-CONNECT:1:1027 - >/dev/null 2>&1; do n=$((n + 1)); [ $n -lt 50 ] || exit 1; sleep 0.1; done")
    try:
        check(plain, tool, "vsock", "--vsock 1:1027", plain.fw_cfg)
        assert plain.ok("cat /tmp/heard") == ""
    finally:
        plain.ok("kill $(cat /tmp/pid)")
