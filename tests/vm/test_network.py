# SPDX-License-Identifier: BSD-3-Clause
"""A declared network (slirp-med-spec(5)) as a real guest's DHCP client gets it."""
import re

import worldlib as w

SPEC = """network:
  ip: 172.31.5.9/24
  gateway: 172.31.5.1
  dns: [9.9.9.9, 172.31.5.3]
  routes:
    - 0.0.0.0/0 via 172.31.5.1
    - 203.0.113.0/26 via 172.31.5.1
"""


def test_declared(vms, tmp_path):
    """Address, router, classless routes (RFC 3442) and resolvers come by DHCP, and questions to either resolver are answered by ours."""
    spec = tmp_path / "ws.yaml"
    spec.write_text(SPEC)
    spec.chmod(0o644)
    guest = vms.boot("--spec", str(spec))
    lease = dict(re.findall(r"^(\w+)='(.*)'$", guest.ok("cat /tmp/lease"), re.M))
    assert (lease["ip"], lease["mask"], lease["router"], lease["dns"]) == ("172.31.5.9", "24", "172.31.5.1", "9.9.9.9 172.31.5.3"), lease
    assert lease["staticroutes"] == "0.0.0.0/0 172.31.5.1 203.0.113.0/26 172.31.5.1", lease
    for server in ("9.9.9.9", "172.31.5.3"):
        assert w.WEB["ok.test"] in guest.ok(f"nslookup ok.test {server}")
    assert guest.ok("curl -sS https://ok.test/hello") == "hello\n"
    assert guest.recorded("egress_allow", host="ok.test", port=443)["src"].startswith("172.31.5.9:")


def test_isolated(vms):
    """No card: the guest's kernel knows lo and nothing else."""
    guest = vms.boot("--network", "isolated")
    assert guest.ok("ls /sys/class/net").split() == ["lo"]


def test_a_qemu_of_somebodys_over_the_kernel_path(vms, world, mark):
    """attach --datapath tproxy: QEMU fetches the tap by itself, with the command line that is printed; DHCP, DNS, interception and denials as ever."""
    served = vms.attach("tapped", "tap", "--datapath", "tproxy", "--egress-deny", "evil.test")
    guest = vms.qemu(served)
    lease = dict(re.findall(r"^(\w+)='(.*)'$", guest.ok("cat /tmp/lease"), re.M))
    assert (lease["ip"], lease["router"], lease["dns"], lease["mtu"]) == ("10.0.2.15", "10.0.2.2", "10.0.2.3", "1500"), lease
    assert guest.ok("curl -sS https://ok.test/hello") == "hello\n"
    assert guest.sh("nslookup evil.test")[0] != 0 and guest.sh("curl -sS --max-time 20 http://10.0.0.5/")[0] != 0
    assert guest.recorded("egress_allow", host="ok.test", port=443)["mitm"] is True
    guest.recorded("egress_dns_deny", host="evil.test")
    guest.recorded("egress_internal_deny", dst="10.0.0.5")
    assert not world.wire(mark, dst="10.0.0.5")
    assert guest.power_off() == 0
    # The workspace stays, and the next machine has the same card.
    again = vms.qemu(served)
    assert again.ok("curl -sS https://ok.test/hello") == "hello\n"
    assert vms.cli("stop", "tapped").returncode == 0
    assert again.sh("curl -sS --max-time 3 https://ok.test/hello")[0] != 0
