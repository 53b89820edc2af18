# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the guest's program share: the ways to run it, certificates, roots.

SLIRP_MED_GUEST names the program, SLIRP_MED_GUEST_SH the script. No test asks a real vsock host: CID 2 is this machine's own host.
"""
import base64
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import pytest

BINARY = os.environ["SLIRP_MED_GUEST"]
SCRIPT = os.environ["SLIRP_MED_GUEST_SH"]
TIMEOUT = 60

IMPLEMENTATIONS = {"binary": [BINARY], "dash": ["dash", SCRIPT], "ash": ["busybox", "ash", SCRIPT]}
DEBIAN_ANCHOR = "usr/local/share/ca-certificates/slirp-med.crt"
FEDORA_ANCHOR = "etc/pki/ca-trust/source/anchors/slirp-med.pem"
CA, BUNDLE, ENV, PROFILE = "etc/slirp-med/ca.pem", "etc/slirp-med/ca-bundle.pem", "etc/slirp-med/env", "etc/profile.d/slirp-med.sh"
OURS = {CA, BUNDLE, ENV, PROFILE}
TO_BUNDLE = {
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
}
VARIABLES = {**dict.fromkeys(TO_BUNDLE, "/" + BUNDLE), "NODE_EXTRA_CA_CERTS": "/" + CA}


@pytest.fixture(params=IMPLEMENTATIONS)
def run(request):
    """Runs one implementation: run(args...) gives a CompletedProcess of text."""
    argv = IMPLEMENTATIONS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not there")

    def call(*args, **kw):
        kw.setdefault("timeout", TIMEOUT)
        return subprocess.run([*argv, *map(str, args)], capture_output=True, text=True, **kw)

    call.argv, call.name = argv, request.param
    return call


def sequence(content):
    """A DER SEQUENCE that is no certificate, which nothing here looks into."""
    n = len(content)
    head = bytes([n]) if n < 128 else bytes([0x81, n]) if n < 256 else bytes([0x82, n >> 8, n & 255])
    return b"\x30" + head + content


def pem(der, width=64, end="\n", label="CERTIFICATE"):
    text = base64.b64encode(der).decode()
    lines = [text[i:i + width] for i in range(0, len(text), width)]
    return end.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def der_of(n, size=600):
    """Certificate number n."""
    return sequence(hashlib.shake_128(b"%d" % n).digest(size))


def workspace_der(n):
    """One that names itself as a workspace's does (slirp-med/tls/ca.c), somewhere."""
    random = hashlib.shake_128(b"%d" % n).digest(600)
    return sequence(random[:150 + n] + b"\x06\x03\x55\x04\x03\x0c\x0cslirp-med CA" + random[150 + n:])


def sha256(der):
    return hashlib.sha256(der).hexdigest()


ONE, TWO = workspace_der(1), workspace_der(2)
SYSTEM = [der_of(n, 900) for n in range(100, 103)]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="") if isinstance(text, str) else path.write_bytes(text)
    return path


def make_root(folder, layout):
    """The files by which a layout is known, and its bundle with SYSTEM in it, with what real ones have around it."""
    text = "# comment\n" + "".join(f"subject=/CN={i}\n{pem(d)}\n" for i, d in enumerate(SYSTEM))
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "debian":
        write(folder / "etc/debian_version", "12\n")
        (folder / "usr/local/share/ca-certificates").mkdir(parents=True)
        write(folder / "etc/ssl/certs/ca-certificates.crt", text)
    elif layout == "alpine":
        write(folder / "etc/alpine-release", "3.20\n")
        (folder / "usr/share/ca-certificates").mkdir(parents=True)
        write(folder / "etc/ssl/certs/ca-certificates.crt", text)
        (folder / "etc/ssl/cert.pem").symlink_to("certs/ca-certificates.crt")
    elif layout == "fedora":
        (folder / "etc/pki/ca-trust/source/anchors").mkdir(parents=True)
        (folder / "etc/pki/tls/certs").mkdir(parents=True)
        write(folder / "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", text)
        (folder / "etc/pki/tls/certs/ca-bundle.crt").symlink_to("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")
    return folder


def anchor_of(layout):
    return {"debian": DEBIAN_ANCHOR, "alpine": DEBIAN_ANCHOR, "fedora": FEDORA_ANCHOR}.get(layout)


def snapshot(folder):
    """Every name below folder with what it holds and when that was written."""
    out = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        st = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        out[str(path.relative_to(folder))] = (what, st.st_mode, st.st_mtime_ns if not path.is_dir() else 0)
    return out


def files(folder):
    return {name for name, (what, _, _) in snapshot(folder).items() if what is not None}


def blocks(path):
    """The certificates of a bundle, in order; nothing else may be in it."""
    out, text = [], path.read_text()
    while text:
        head, body, text = text.split("-----", 4)[0:1] + [text.split("-----", 4)[2], text.split("-----END CERTIFICATE-----\n", 1)[1]]
        assert head == ""
        out.append(base64.b64decode(body))
    return out


def report(got):
    """The JSON report of a run, with what must always hold."""
    r = json.loads(got.stdout)
    assert set(r) == {"schema", "version", "result", "status", "dry_run", "error", "from", "sha256", "root", "layout", "replaced", "system_bundle",
                      "system_certificates", "update", "files", "notes"}
    assert r["schema"] == "slirp-med-guest/1" and r["status"] == got.returncode
    assert (r["result"] == "failed") == (r["status"] != 0) == (r["error"] is not None)
    return r
