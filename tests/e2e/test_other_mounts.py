# SPDX-License-Identifier: BSD-3-Clause
"""A second /proc somewhere in the caller's files (a chroot's, say) shows the processes outside, and through them the files that are covered."""
import os
import subprocess

import pytest
from conftest import audit_file

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
