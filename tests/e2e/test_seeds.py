# SPDX-License-Identifier: BSD-3-Clause
"""docs/SEEDS.md: each promise of the documents that the mission was taken from has a command that shows it and a test that holds it.

The page is the test's data: a row whose command is missing, does something else than the row says, or whose test is not there, fails here. A row's
command is run by sh in the private internet, as an ordinary user, in a folder with the page's files, with slirp-med in PATH and state of its own.
"""
import functools
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from conftest import REPO, USER

PAGE = pathlib.Path(REPO) / "docs/SEEDS.md"
SPAN = re.compile(r"(no )?(?<!`)`([^`]+)`(?!`)")


def rows():
    """(section and number, promise, command, output, test) of each row of the tables."""
    section, n = "", 0
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section, n = re.sub(r"[^a-z0-9]+", "-", line[3:].lower()).strip("-"), 0
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)]
        if not line.startswith("|") or cells[1] == "promise" or set(cells[1]) <= set("-: "):
            continue
        n += 1
        yield pytest.param(*(c.replace(r"\|", "|") for c in (cells[1:-1] + [""] * 4)[:4]), id=f"{section}-{n}")


def files():
    """The page's files: a name in a code span and a colon, then a fenced block."""
    return dict(re.findall(r"^`([\w.-]+)`:\n+```[a-z]*\n(.*?)^```$", PAGE.read_text(), re.S | re.M))


@functools.cache
def names_in(path):
    """Names of the tests of a file."""
    text = (pathlib.Path(REPO) / path).read_text()
    return set(re.findall(r"^(?:def (?=test_)|static void )(\w+)\((?:.*\))?:?", text, re.M))


ROWS = list(rows())


def test_the_page_has_its_rows():
    assert len(ROWS) > 60 and {r.id.rsplit("-", 1)[0] for r in ROWS} == {
        "egress-mediation", "allowlist-and-passthrough", "networking", "egress-proxy"}
    assert all(r.values[0] and r.values[1] and r.values[2] and r.values[3] for r in ROWS), "a row with an empty cell"


@pytest.mark.parametrize("promise,command,output,held", ROWS)
def test_row(sm, world, tmp_path, promise, command, output, held):
    tests = [s for _, s in SPAN.findall(held)]
    assert tests, f"no test holds: {promise}"
    for t in tests:
        path, _, name = t.partition("::")
        assert name in names_in(path), f"there is no {t}"
    [script] = [s for _, s in SPAN.findall(command)]
    for name, text in files().items():
        (tmp_path / name).write_text(text)
        os.chmod(tmp_path / name, 0o600)
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    os.symlink(sm.bin, bin_dir / "slirp-med")
    env = sm.env({"PATH": f"{bin_dir}:{os.environ['PATH']}", "SSL_CERT_FILE": world.ca, "OPENAI_API_KEY": "sk-the-real-one",
                  "CLIENT_ID": "the-id", "CLIENT_SECRET": "the-secret", "SHELL": "/bin/sh", "REPO": REPO})
    try:
        p = subprocess.run([*USER, "sh", "-c", script], env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=60)
    finally:
        shutil.rmtree(bin_dir)
    got = p.stdout.decode("utf-8", "replace")
    want = re.search(r"exit (\d+)", SPAN.sub("", output))
    assert p.returncode == (int(want[1]) if want else 0), got
    for no, text in SPAN.findall(output):
        assert (text in got) != bool(no), f"{'has' if no else 'lacks'} {text!r}: {got}"
