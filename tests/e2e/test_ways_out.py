# SPDX-License-Identifier: BSD-3-Clause
"""Ways to what is outside: a second proc file system in the files of the caller (a chroot has one), and the process group."""
import os
import subprocess

import pytest
from conftest import USER, audit_file

G = ("--egress", "guarded")


@pytest.mark.core
def test_a_second_proc_is_covered(sm):
    sm.guest("pass", *G, name="older")
    other = os.path.join(sm.tmp, "chroot", "proc")
    os.makedirs(other)
    subprocess.run(["mount", "-t", "proc", "proc", other], check=True)
    try:
        assert [x for x in os.listdir(other) if x.isdigit()], "this test needs a second /proc"
        g = sm.guest(f"""
out["pids"] = [x for x in os.listdir("{other}") if x.isdigit()] if os.access("{other}", os.R_OK) else []
out["read"] = []
for p in out["pids"]:
    try: out["read"].append(open("{other}/" + p + "/root{audit_file(sm.state, 'older')}").read(20))
    except OSError: pass
""", *G)
    finally:
        subprocess.run(["umount", other], check=True)
    assert g.rc == 0 and g.out["read"] == [] and g.out["pids"] == [], g


@pytest.mark.core
def test_own_process_group(sm):
    """kill(0) reaches a process group across PID namespaces: CMD of a script is in one of its own."""
    p = subprocess.run(USER + ["sh", "-c", f"{sm.bin} run --egress guarded -- python3 -c 'import os; os.kill(0, 9)'; echo after $?"],
                       env=sm.env(), capture_output=True, timeout=60, start_new_session=True, stdin=subprocess.DEVNULL)
    assert p.returncode == 0 and p.stdout == b"after 137\n", p
