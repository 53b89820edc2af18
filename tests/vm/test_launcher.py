# SPDX-License-Identifier: BSD-3-Clause
"""docs/examples/launcher.c, linked with the library of this build: it boots a real guest, prints what is decided, and ends with it.

Guest and launcher share one console, and a line of one may stand in the middle of the other's; the launcher's own are whole.
"""
import os
import re
import subprocess

from conftest import IMAGE, Guest, e2e


def test_the_example_boots_a_guest(vms):
    lib, program = os.path.join(os.path.dirname(vms.bin), "embed"), f"{vms.tmp}/launcher"
    subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-I", f"{e2e.REPO}/include", f"{e2e.REPO}/docs/examples/launcher.c", "-L", lib, "-lslirp-med",
                    f"-Wl,-rpath,{lib}", "-o", program], check=True)
    g = Guest(vms, "example", [program, f"{IMAGE}/vmlinuz", f"{IMAGE}/initrd", "ok.test"], {"SLIRP_MED": vms.bin})
    vms.add(g, True)
    assert "ready: guest 10.0.2.15, audit " in g.booting, g.booting
    g.send("curl -s http://ok.test/hello; nslookup evil.test")
    assert g.power_off() == 0
    said = g.seen.decode("utf-8", "replace")
    for line in (r" egress_dns_allow ok\.test:", r" egress_allow ok\.test:80 ", r" egress_dns_deny evil\.test:", r"stopped: 0\n"):
        assert re.search(line, said), (line, said[-3000:])
    assert [r["event"] for r in g.audit()][-1] == "egress_stop"
