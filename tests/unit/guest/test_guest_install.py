# SPDX-License-Identifier: BSD-3-Clause
"""The guest's program and script: what is believed, and what is installed where, in roots that the test makes."""
import os
import re
import resource
import subprocess

import pytest

from guest import (BUNDLE, CA, DEBIAN_ANCHOR, ENV, FEDORA_ANCHOR, ONE, OURS, PROFILE, SYSTEM, TWO, VARIABLES, anchor_of, blocks, der_of, files,
                   make_root, pem, report, run, sequence, sha256, snapshot, workspace_der, write)

LAYOUTS = ["debian", "fedora", "alpine", "none"]
BUNDLE_OF = {"debian": "/etc/ssl/certs/ca-certificates.crt", "alpine": "/etc/ssl/certs/ca-certificates.crt",
             "fedora": "/etc/pki/tls/certs/ca-bundle.crt", "none": None}


def install(run, root, der, *args, code=0, **kw):
    """From a file, with a report."""
    cert = write(root.parent / "cert.pem", pem(der) if isinstance(der, bytes) else der)
    got = run("--from", f"file:{cert}", "--root", root, "--json", *args, **kw)
    assert got.returncode == code, got
    return report(got)


# ---- what is written ----

@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(run, tmp_path, layout):
    root = make_root(tmp_path / "root", layout)
    before = files(root)
    r = install(run, root, ONE)
    anchor = anchor_of(layout)
    assert files(root) - before == OURS | ({anchor} if anchor else set())
    assert r["result"] == "installed" and r["layout"] == layout and r["sha256"] == sha256(ONE) and not r["replaced"]
    assert r["system_bundle"] == BUNDLE_OF[layout] and r["system_certificates"] == (3 if BUNDLE_OF[layout] else 0)
    assert {f["path"][1:]: f["state"] for f in r["files"]} == dict.fromkeys(files(root) - before, "written")
    # The store's tool belongs to the running system: in another root it is not run, and that is said.
    assert r["update"]["state"] == ("skipped" if anchor else "none")
    assert any("was not run" in n for n in r["notes"]) == bool(anchor)
    assert any("the workspace's alone" in n for n in r["notes"]) == (layout == "none")
    for name in files(root) - before:
        assert (root / name).stat().st_mode & 0o7777 == 0o644
        assert (root / name).parent.stat().st_mode & 0o7777 == 0o755
    assert (root / CA).read_text() == pem(ONE)
    assert not anchor or (root / anchor).read_text() == pem(ONE)
    assert blocks(root / BUNDLE) == [ONE] + (SYSTEM if BUNDLE_OF[layout] else [])
    assert dict(line.split("=", 1) for line in (root / ENV).read_text().splitlines()) == VARIABLES


@pytest.mark.parametrize("layout", ["debian", "fedora", "alpine", "none"])
def test_layout_as_told(run, tmp_path, layout):
    """Where nothing says so; the folders are made."""
    root = tmp_path / "root"
    root.mkdir()
    assert install(run, root, ONE, "--layout", layout)["layout"] == layout
    assert files(root) == OURS | ({anchor_of(layout)} if anchor_of(layout) else set())


def test_umask(run, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    install(run, root, ONE, preexec_fn=lambda: os.umask(0o077))
    for name in OURS:
        assert (root / name).stat().st_mode & 0o7777 == 0o644 and (root / name).parent.stat().st_mode & 0o7777 == 0o755


def test_profile_and_print_env(run, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    got = run("--root", root, "--print-env")
    assert got.returncode == 1 and got.stdout == "" and "no certificate" in got.stderr
    install(run, root, ONE)
    got = run("--root", root, "--print-env")
    assert got.returncode == 0 and got.stderr == ""
    for script in ((root / PROFILE).read_text(), got.stdout):
        shown = subprocess.run(["sh", "-c", script + "\nenv"], env={}, capture_output=True, text=True, check=True).stdout
        env = dict(line.split("=", 1) for line in shown.splitlines())
        assert {k: v for k, v in env.items() if k not in ("PWD", "_", "SHLVL", "OLDPWD")} == VARIABLES


def test_print_cert(run, tmp_path):
    cert = write(tmp_path / "cert.pem", pem(ONE, end="\r\n"))
    got = run("--print-cert", "--from", f"file:{cert}", "--expect", sha256(ONE))
    assert (got.returncode, got.stdout, got.stderr) == (0, pem(ONE), "")
    got = run("--print-cert", "--from", f"file:{cert}", "--expect", sha256(TWO))
    assert got.returncode == 3 and got.stdout == ""


def test_text(run, tmp_path):
    """For people: what came from where, each file, what was not done."""
    root = make_root(tmp_path / "root", "debian")
    cert = write(tmp_path / "cert.pem", pem(ONE))
    lines = run("--from", f"file:{cert}", "--root", root).stdout.splitlines()
    assert lines[0] == f"certificate: SHA-256 {sha256(ONE)}, from file {cert}"
    assert {line.removeprefix("written: /") for line in lines if line.startswith("written: ")} == OURS | {DEBIAN_ANCHOR}
    assert any(line.startswith("note: update-ca-certificates was not run") for line in lines)
    assert lines[-1] == "installed"
    assert run("--from", f"file:{cert}", "--root", root).stdout.splitlines()[-1] == "unchanged"


# ---- again ----

@pytest.mark.parametrize("layout", LAYOUTS)
def test_again(run, tmp_path, layout):
    root = make_root(tmp_path / "root", layout)
    install(run, root, ONE)
    before = snapshot(root)
    r = install(run, root, ONE)
    assert r["result"] == "unchanged" and {f["state"] for f in r["files"]} == {"unchanged"}
    assert snapshot(root) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_replaced(run, tmp_path, layout):
    """A new start has a new CA: nothing of the old one stays, also where the system's bundle still has it."""
    root = make_root(tmp_path / "root", layout)
    install(run, root, ONE)
    names = files(root)
    if BUNDLE_OF[layout]:
        where = root / ("etc/ssl/certs/ca-certificates.crt" if layout != "fedora" else "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")
        with open(where, "a") as f:
            f.write(pem(ONE))
    r = install(run, root, TWO)
    assert r["result"] == "replaced" and r["replaced"]
    assert files(root) == names
    assert blocks(root / BUNDLE) == [TWO] + (SYSTEM if BUNDLE_OF[layout] else [])
    for name in {CA, anchor_of(layout)} - {None}:
        assert (root / name).read_text() == pem(TWO)
    assert install(run, root, TWO)["result"] == "unchanged"


def test_both_make_the_same(tmp_path):
    """The same input: the same bytes, whichever of them ran."""
    from guest import IMPLEMENTATIONS
    made = []
    for name, argv in IMPLEMENTATIONS.items():
        root = make_root(tmp_path / name, "fedora")
        for der in (ONE, TWO):
            cert = write(tmp_path / "cert.pem", pem(der))
            got = subprocess.run([*argv, "--from", f"file:{cert}", "--root", root], capture_output=True, text=True, check=True)
        made.append((got.stdout, {k: v[0] for k, v in snapshot(root).items()}))
        usage = subprocess.run([*argv, "--help"], capture_output=True, text=True, check=True).stdout
        made[-1] += (set(re.findall(r"--[a-z-]+", usage)), )
    assert made[0] == made[1] == made[2]


def test_present_already(run, tmp_path):
    """A system whose bundle has the certificate: once in ours, and the tool is not needed."""
    root = make_root(tmp_path / "root", "debian")
    write(root / "etc/ssl/certs/ca-certificates.crt", pem(SYSTEM[0]) + pem(ONE, width=76) + pem(SYSTEM[1], end="\r\n"))
    write(root / DEBIAN_ANCHOR, pem(ONE)).chmod(0o644)
    r = install(run, root, ONE)
    assert r["update"] == {"tool": "update-ca-certificates", "state": "not needed"} and r["system_certificates"] == 2
    assert blocks(root / BUNDLE) == [ONE, *SYSTEM[:2]]


def test_odd_bundle(run, tmp_path):
    """Keys, trust settings, broken blocks and a last line without an end: the certificates alone come along."""
    root = make_root(tmp_path / "root", "debian")
    text = (pem(TWO, label="TRUSTED CERTIFICATE") + pem(TWO, label="PRIVATE KEY") + "-----BEGIN CERTIFICATE-----\nAAAA\n" + pem(SYSTEM[0])
            + "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n" + "text\n" + pem(SYSTEM[1]).rstrip("\n"))
    write(root / "etc/ssl/certs/ca-certificates.crt", text)
    r = install(run, root, ONE)
    assert blocks(root / BUNDLE) == [ONE, *SYSTEM[:2]] and r["system_certificates"] == 2


def test_former_workspaces(run, tmp_path):
    """A store that still has former CAs, wherever their name lies in base64: they are left out. The tool would do so; it need not be there."""
    root = make_root(tmp_path / "root", "debian")
    with open(root / "etc/ssl/certs/ca-certificates.crt", "a") as f:
        f.writelines(pem(workspace_der(n), width=w) for n in range(10, 40) for w in (64, 76))
    for name in ("a", "ab", "abc"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null", "-out",
                        tmp_path / "real.pem", "-subj", f"/O={name}/CN=slirp-med CA"], check=True, capture_output=True)
        with open(root / "etc/ssl/certs/ca-certificates.crt", "a") as f:
            f.write((tmp_path / "real.pem").read_text())
    install(run, root, ONE)
    assert blocks(root / BUNDLE) == [ONE, *SYSTEM]


def test_bundle_too_large(run, tmp_path):
    root = make_root(tmp_path / "root", "debian")
    write(root / "etc/ssl/certs/ca-certificates.crt", pem(SYSTEM[0]) + "#" * (4 << 20))
    write(root / "etc/ssl/cert.pem", pem(SYSTEM[1]))
    r = install(run, root, ONE)
    assert r["system_bundle"] == "/etc/ssl/cert.pem" and blocks(root / BUNDLE) == [ONE, SYSTEM[1]]
    assert len([n for n in r["notes"] if "ca-certificates.crt is not used" in n]) == 1


def test_uninstall(run, tmp_path):
    root = make_root(tmp_path / "root", "debian")
    before = snapshot(root)
    install(run, root, ONE)
    r = report(run("--uninstall", "--root", root, "--json"))
    assert r["result"] == "removed" and {f["path"][1:] for f in r["files"]} == OURS | {DEBIAN_ANCHOR}
    assert any("was not run" in n for n in r["notes"])
    after = snapshot(root)
    assert {k: v for k, v in after.items() if v[0] is not None} == {k: v for k, v in before.items() if v[0] is not None}
    assert "etc/slirp-med" not in after
    r = report(run("--uninstall", "--root", root, "--json"))
    assert r["result"] == "unchanged" and r["files"] == []


def test_uninstall_leaves_others(run, tmp_path):
    """An anchor for another layout goes too; a file that somebody else has put into our folder stays."""
    root = make_root(tmp_path / "root", "debian")
    install(run, root, ONE, "--layout", "fedora")
    write(root / "etc/slirp-med/mine", "x")
    assert run("--uninstall", "--root", root).returncode == 0
    assert files(root / "etc/slirp-med") == {"mine"} and not (root / FEDORA_ANCHOR).exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dry_run(run, tmp_path, layout):
    root = make_root(tmp_path / "root", layout)
    before = snapshot(root)
    r = install(run, root, ONE, "--dry-run")
    assert snapshot(root) == before
    assert r["dry_run"] and r["result"] == "installed" and {f["state"] for f in r["files"]} == {"written"}
    install(run, root, ONE)
    before = snapshot(root)
    assert install(run, root, TWO, "--dry-run")["result"] == "replaced"
    assert report(run("--uninstall", "--dry-run", "--root", root, "--json"))["result"] == "removed"
    assert snapshot(root) == before
    assert "would be written: /etc/slirp-med/ca.pem" in run("--from", "-", "--root", root, "--dry-run", input=pem(TWO)).stdout


# ---- what is believed ----

GOOD = {
    "lines_76": pem(ONE, width=76),
    "crlf": pem(ONE, end="\r\n"),
    "no_last_end": pem(ONE).rstrip("\n"),
    "empty_lines_around": "\n\r\n" + pem(ONE) + "\n\n",
    "short_lines": pem(ONE, width=4),
}
B, E = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"
BAD = {
    "empty": "",
    "nothing": "hello\n",
    "two": pem(ONE) + pem(TWO),
    "twice": pem(ONE) * 2,
    "cut": pem(ONE)[:400],
    "cut_in_end": pem(ONE)[:-10],
    "cut_in_begin": "-----BEGIN CERTIF",
    "no_end": B + "AAAA\n",
    "text_before": "subject=x\n" + pem(ONE),
    "text_after": pem(ONE) + "x\n",
    "key": pem(ONE, label="PRIVATE KEY"),
    "trusted": pem(ONE, label="TRUSTED CERTIFICATE"),
    "other_end": pem(ONE).replace("END CERTIFICATE", "END PRIVATE KEY"),
    "space_before": " " + pem(ONE),
    "space_in": pem(ONE).replace("\n", " \n", 3),
    "tab": pem(ONE).replace("\n", "\t\n", 2),
    "escape": pem(ONE) + "\x1b[2J\n",
    "nul_in": pem(ONE).replace("A", "\0", 1),
    "nul_after": pem(ONE) + "\0",
    "delete": pem(ONE).replace("\n", "\x7f\n", 1),
    "latin": pem(ONE).encode() + b"\xe9\n",
    "return_alone": pem(ONE).replace("\n", "\r", 2),
    "two_returns": pem(ONE, end="\r\r\n"),
    "bad_letter": pem(ONE).replace("A", "*", 1),
    "url_letters": B + "MAH-\n" + E,
    "empty_line_in": pem(ONE).replace("\n", "\n\n", 2),
    "header_in": B + "Proc-Type: 4,ENCRYPTED\n\n" + pem(ONE)[len(B):],
    "long_line": pem(ONE, width=80),
    "one_line": pem(ONE, width=100000),
    "no_body": B + E,
    "padding_in": B + "MAE=\nAAAA\n" + E,
    "padding_three": B + "M===\n" + E,
    "padding_four": B + "MAEA\n====\n" + E,
    "group_short": B + "MAEAA\n" + E,
    "bits_left_over": B + "MAEB/x==\n" + E,
    "bits_left_over_1": B + "MAIBAV==\n" + E,
    "not_sequence": pem(b"\x31" + sequence(b"x" * 200)[1:]),
    "sequence_short": pem(ONE[:-1]),
    "sequence_long": pem(ONE + b"\0"),
    "sequence_empty": pem(b"\x30\0"),
    "indefinite": pem(b"\x30\x80" + b"x" * 10 + b"\0\0"),
    "not_minimal": pem(b"\x30\x81\x05hello"),
    "not_minimal_2": pem(b"\x30\x82\0\x90" + b"x" * 0x90),
    "three_bytes": pem(b"\x30\x83\0\x01\0" + b"x" * 256),
    "only_tag": pem(b"\x30"),
    "too_long": pem(der_of(3, 0xbff0)),
    "too_long_by_lines": pem(ONE) + "\n" * 65536,
    "much_too_long": "A" * 300000,
}


@pytest.mark.parametrize("name", GOOD)
def test_good(run, tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    assert install(run, root, GOOD[name])["sha256"] == sha256(ONE)
    assert (root / CA).read_text() == pem(ONE)


@pytest.mark.parametrize("name", BAD)
def test_bad(run, tmp_path, name):
    """Refused, and what was installed before stays as it is."""
    root = make_root(tmp_path / "root", "debian")
    install(run, root, TWO)
    before = snapshot(root)
    bad = BAD[name]
    cert = write(tmp_path / "bad.pem", bad)
    got = run("--from", f"file:{cert}", "--root", root, "--json")
    assert got.returncode == 3, got
    assert snapshot(root) == before
    r = report(got)
    assert r["sha256"] is None and r["files"] == [] and "no certificate that can be used" in r["error"]
    assert got.stderr == f"slirp-med-guest: {r['error']}\n" and "\x1b" not in got.stderr


def test_largest(run, tmp_path):
    """Exactly 64 KiB are taken, one byte more is not."""
    root = tmp_path / "root"
    root.mkdir()
    text = pem(der_of(4, 48000))
    text += "\n" * (65536 - len(text))
    assert install(run, root, text)["sha256"] == sha256(der_of(4, 48000))
    assert install(run, root, text + "\n", code=3)["result"] == "failed"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 45, 46, 47, 51, 52, 53, 54, 55, 56, 60, 61, 62, 63, 64, 117, 118, 119, 120, 127, 128, 255, 256, 1000])
def test_sizes(run, tmp_path, size):
    """Every way in which base64, PEM's lines, DER's lengths and SHA-256's padding can end."""
    got = run("--print-cert", "--from", "-", "--expect", sha256(der_of(size, size)), input=pem(der_of(size, size)))
    assert (got.returncode, got.stdout) == (0, pem(der_of(size, size))), got


def test_expect(run, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    colons = ":".join(sha256(ONE)[i:i + 2] for i in range(0, 64, 2)).upper()
    assert install(run, root, ONE, "--expect", colons)["result"] == "installed"
    before = snapshot(root)
    r = install(run, root, TWO, "--expect", sha256(ONE), code=3)
    assert sha256(ONE) in r["error"] and r["sha256"] == sha256(TWO) and snapshot(root) == before


# ---- what goes wrong ----

@pytest.mark.parametrize("args", [
    ["--bogus"], ["x"], ["--from"], ["--from", ""], ["--from", "vsock,"], ["--from", "file:"], ["--from", "ftp"], ["--wait", "-1"], ["--wait", "x"],
    ["--wait", "3601"], ["--wait", "1.5"], ["--wait", ""], ["--expect", "ab"], ["--expect", "g" * 64], ["--expect", "a" * 65], ["--layout", "arch"],
    ["--root", ""], ["--vsock", "1:x"], ["--vsock", ":1"], ["--vsock", "4294967296"], ["--serial", ""], ["--uninstall", "--from", "-"],
    ["--uninstall", "--print-env"], ["--print-env", "--json"], ["--print-cert", "--uninstall"], ["--print-cert", "--dry-run"], ["--jso"],
    ["--json=1"], ["--from", ",".join(["fw_cfg"] * 9)], ["--dry-run=yes"],
], ids=" ".join)
def test_usage(run, tmp_path, args):
    got = run(*args, cwd=tmp_path)
    assert got.returncode == 2 and got.stdout == "" and got.stderr.startswith("slirp-med-guest: ") and got.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_and_version(run):
    got = run("--help")
    assert got.returncode == 0 and got.stderr == "" and "Exit status: 0 done" in got.stdout
    got = run("--version")
    assert got.returncode == 0 and re.fullmatch(r"slirp-med-guest \d+\.\d+\.\d+\n", got.stdout)


@pytest.mark.parametrize("spoil", ["no_root", "file_for_folder", "folder_for_file"])
def test_not_written(run, tmp_path, spoil):
    root = tmp_path / "root"
    if spoil == "file_for_folder":
        write(root / "etc", "")
    elif spoil == "folder_for_file":
        (root / CA / "x").mkdir(parents=True)
    before = snapshot(tmp_path) if root.exists() else {}
    r = install(run, root, ONE, code=4)
    assert all(f["path"] != "/" + CA for f in r["files"])
    (tmp_path / "cert.pem").unlink()
    assert (snapshot(tmp_path) if root.exists() else {}) == before
    assert not [n for n in files(tmp_path) if "slirp-med-new" in n]


def test_cannot_write_whole_file(run, tmp_path):
    """No room in the middle of a file: the old one stays whole, the next run sets it right and clears up."""
    root = make_root(tmp_path / "root", "debian")
    install(run, root, ONE)
    cert = write(tmp_path / "cert.pem", pem(TWO))
    # More than the certificate, less than the bundle.
    got = run("--from", f"file:{cert}", "--root", root, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)))
    assert got.returncode not in (0, 3), got
    assert blocks(root / BUNDLE) == [ONE, *SYSTEM]
    assert blocks(root / CA) in ([ONE], [TWO])
    install(run, root, TWO)
    assert blocks(root / BUNDLE) == [TWO, *SYSTEM] and not [n for n in files(root) if "slirp-med-new" in n]


def test_clears_up_after_a_killed_one(run, tmp_path):
    root = make_root(tmp_path / "root", "fedora")
    install(run, root, ONE)
    left = [write((root / name).parent / ".slirp-med-new.4711", "-----BEGIN") for name in (CA, FEDORA_ANCHOR)]
    install(run, root, TWO)
    assert not any(p.exists() for p in left)


# ---- a root that somebody else has written ----

@pytest.mark.parametrize("what", ["folder", "parent", "relative", "file", "anchors", "bundle", "loop"])
def test_links_do_not_lead_out(run, tmp_path, what):
    root = make_root(tmp_path / "root", "debian")
    outside = tmp_path / "outside"
    write(outside / "victim", pem(TWO))
    (root / "etc/slirp-med").mkdir()
    if what == "folder":
        (root / "etc/slirp-med").rmdir()
        (root / "etc/slirp-med").symlink_to(outside)
    elif what == "parent":
        (root / "etc/profile.d").symlink_to(outside)
    elif what == "relative":
        (root / "etc/profile.d").symlink_to("../../../../../.." + str(outside))
    elif what == "file":
        (root / CA).symlink_to(outside / "victim")
    elif what == "anchors":
        (root / "usr/local/share/ca-certificates").rmdir()
        (root / "usr/local/share/ca-certificates").symlink_to(outside)
    elif what == "bundle":
        (root / "etc/ssl/certs/ca-certificates.crt").unlink()
        (root / "etc/ssl/certs/ca-certificates.crt").symlink_to(outside / "victim")
    else:
        (root / "etc/profile.d").symlink_to("profile.d")
    before = snapshot(outside)
    got = run("--from", "-", "--root", root, input=pem(ONE))
    assert snapshot(outside) == before
    assert got.returncode in ((0, ) if what in ("file", "bundle") else (4, ) if what == "loop" else (0, 4))
    if what == "file":
        assert not (root / CA).is_symlink() and (root / CA).read_text() == pem(ONE)
    if what == "bundle":
        assert blocks(root / BUNDLE) == [ONE]
    run("--uninstall", "--root", root)
    assert snapshot(outside) == before


def test_links_inside(run, tmp_path):
    """Links of the root's own, absolute ones too, lead where they would lead when it is the root."""
    root = make_root(tmp_path / "root", "fedora")
    (root / "var/etc/profile.d").mkdir(parents=True)
    (root / "etc/profile.d").symlink_to("/var/etc/profile.d")
    (root / "usr/local").mkdir(parents=True)
    r = install(run, root, ONE)
    assert r["result"] == "installed" and r["system_bundle"] == "/etc/pki/tls/certs/ca-bundle.crt"
    assert (root / "var/etc/profile.d/slirp-med.sh").exists()
