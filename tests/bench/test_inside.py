# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks do in the private internet."""
import contextlib
import pathlib
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import inside  # noqa: E402


@contextlib.contextmanager
def sniffer(folder):
    """What looks like one. It ends with its standard input."""
    p = subprocess.Popen(["sh", "-c", "echo; read x", "/anywhere/sniff.py", "int0", f"{folder}/log/wire.jsonl"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == b"\n"  # it has its arguments
        yield p.pid
    finally:
        p.communicate()


def test_only_the_sniffer_of_this_private_internet_is_stopped(tmp_path, monkeypatch):
    stopped = []
    with sniffer(tmp_path / "ours") as ours, sniffer(tmp_path / "other"):
        monkeypatch.setenv("SM_WORLD_DIR", str(tmp_path / "ours"))
        monkeypatch.setattr(inside.os, "kill", lambda pid, number: stopped.append((pid, number)))
        inside.hush()
    assert stopped == [(ours, signal.SIGSTOP)]


def test_a_server_that_ends_before_it_is_ready_is_no_server():
    with inside.served(["sh", "-c", "echo ready; exec sleep 60"]) as p:
        assert p.poll() is None
    assert p.returncode == -signal.SIGKILL
    with pytest.raises(RuntimeError, match="ended before it was ready"), inside.served(["false"]):
        pass
