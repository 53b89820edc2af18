# SPDX-License-Identifier: BSD-3-Clause
"""What a guest sees: the same promises as in tests/e2e, over each port, by the guest's own kernel and programs."""
import hashlib
import os
import re

import worldlib as w
from conftest import FEATURES, KERNEL_PATH

MIB100 = 100 << 20
METADATA = "169.254.169.254"


def refusals(guest):
    """What curl makes of a refused connection: on the kernel path it was made, and is reset when it is used, or just before (spec section 10)."""
    return (7, 55, 56) if guest.port == KERNEL_PATH else (7,)


def test_lease(guest):
    """DHCP offers address, gateway, resolver and MTU; the card has the workspace's MAC and a carrier."""
    lease = dict(re.findall(r"^(\w+)='(.*)'$", guest.ok("cat /tmp/lease"), re.M))
    assert (lease["ip"], lease["mask"], lease["router"], lease["dns"], lease["mtu"]) == ("10.0.2.15", "24", "10.0.2.2", "10.0.2.3", "1500"), lease
    assert guest.ok("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /sys/class/net/eth0/carrier").split() == \
        ["52:55:0a:00:02:0f", "1500", "1"]


def test_features(guest):
    """What driver and device agreed on, as the guest's kernel tells it."""
    bits = guest.ok("cat $(readlink -f /sys/class/net/eth0/device)/features").strip()
    agreed = {i for i, c in enumerate(bits) if c == "1"}
    must, must_not = FEATURES[guest.port]
    assert must <= agreed and not must_not & agreed, (sorted(agreed), "missing", must - agreed, "unwanted", must_not & agreed)


def test_resolver(guest):
    assert w.WEB["ok.test"] in guest.ok("nslookup ok.test")
    guest.recorded("egress_dns_allow", host="ok.test")
    rc, said = guest.sh("nslookup evil.test")
    assert rc != 0 and "REFUSED" in said, said
    guest.recorded("egress_dns_deny", host="evil.test")


def test_intercepted(guest):
    """The delivered CA alone makes the fetch succeed, and it is the workspace's."""
    assert guest.ok("curl -sS https://ok.test/hello") == "hello\n"
    assert guest.recorded("egress_allow", host="ok.test", port=443)["mitm"] is True
    assert guest.recorded("egress_http_request", authority="ok.test", path="/hello")["method"] == "GET"
    said = guest.ok("curl -sv https://ok.test/ 2>&1 >/dev/null")
    assert "issuer:" in said and "world test CA" not in said, said
    rc, said = guest.sh("CURL_CA_BUNDLE=/dev/null curl -sS https://ok.test/ 2>&1")
    assert rc in (35, 60, 77), (rc, said)


def test_delivered_ca(guest):
    """fw_cfg holds the certificate that the workspace made, whole, and no key."""
    with open(os.path.join(guest.vms.state, "slirp-med", guest.name, "ca.pem")) as f:
        made = f.read()
    got = guest.ok("cat /sys/firmware/qemu_fw_cfg/by_name/opt/org.slirp-med/ca.pem/raw")
    assert got == made and "PRIVATE" not in got and got.count("BEGIN CERTIFICATE") == 1


# What each machine offers: a vsock device needs memory that is shared with the front.
WAYS = {"stream": ("serial", "fw_cfg"), "vhost-user": ("vsock", "serial", "fw_cfg"), KERNEL_PATH: ("serial", "fw_cfg")}


def test_each_way_to_the_ca(guest):
    """By vsock, by virtio-serial and by fw_cfg comes the same certificate, and by the guest's own tool it is trusted."""
    made = guest.ok("cat /tmp/ca.pem")
    for way in WAYS[guest.port]:
        assert guest.ok(f"slirp-med-guest --from {way} --wait 30 --print-cert") == made, way
        assert guest.ok(f"slirp-med-guest --from {way} --wait 30 --print-cert") == made, f"{way} again"
    said = guest.ok("slirp-med-guest --wait 30 --json")
    assert f'"from": "{WAYS[guest.port][0]}' in said, said
    assert guest.ok("CURL_CA_BUNDLE=/etc/slirp-med/ca-bundle.pem curl -sS https://ok.test/hello") == "hello\n"


def test_denied(guest, world, mark):
    """Refused fast, recorded with the reason, and nothing is dialled."""
    for address in (METADATA, "10.0.0.5", "203.0.113.2"):
        rc, _ = guest.sh(f"curl -sS --max-time 20 http://{address}/")
        assert rc in refusals(guest), (address, rc)
        assert guest.recorded("egress_internal_deny", dst=address)["internal"] is True
    rc, _ = guest.sh("curl -sS --max-time 20 --resolve evil.test:443:203.0.113.12 https://evil.test/")
    assert rc in (35, 56), rc
    guest.recorded("egress_deny", host="evil.test")
    assert not [r for r in world.wire(mark) if r["dst"] != "203.0.113.12"]
    assert not world.leaks(mark)


def test_udp(guest):
    assert guest.ok("echo datagram | socat -t 5 - UDP:203.0.113.20:7") == "datagram\n"
    guest.recorded("egress_udp_allow", dst="203.0.113.20", port=7)


def test_refused_upstream(guest):
    """What the origin says reaches the guest as the same error."""
    assert guest.sh("curl -sS --max-time 20 http://203.0.113.20:81/")[0] in refusals(guest)
    guest.recorded("egress_dial_error", dst="203.0.113.20", port=81)


def test_echo_to_the_gateway(guest):
    guest.ok("ping -c 2 -W 5 10.0.2.2")
    assert guest.sh("ping -c 1 -W 1 203.0.113.10")[0] != 0
    guest.recorded("egress_other_deny", dst="203.0.113.10")


def test_half_close(guest):
    """The server answers after the guest has said that it has no more."""
    assert guest.ok(f"echo all | socat -t 10 - TCP:203.0.113.20:{w.HALFCLOSE}")


def test_bulk(guest, world):
    """100 MiB down and up, byte-identical."""
    data = w.pattern(MIB100)
    with open(os.path.join(world.www, "bulk"), "wb") as f:
        f.write(data)
    want = hashlib.sha256(data).hexdigest()
    got = guest.ok("curl -sS http://ok.test/bulk -o /tmp/bulk && sha256sum /tmp/bulk", 300)
    assert got.split()[0] == want
    said = guest.ok(f"curl -sS -T /tmp/bulk http://203.0.113.20:{w.UPLOAD}/ && rm /tmp/bulk", 300)
    assert f'"bytes": {MIB100}' in said and want in said, said
    os.unlink(os.path.join(world.www, "bulk"))


def test_many_at_once(guest):
    """Twenty flows at the same time, each with its own content."""
    said = guest.ok("for i in $(seq 20); do curl -sS --max-time 100 http://203.0.113.40/echo$i -o /tmp/e$i & done; wait; "
                    "for i in $(seq 20); do grep -c /echo$i /tmp/e$i; done | sort | uniq -c; rm /tmp/e*", 150)
    assert re.fullmatch(r"\s*20 1\s*", said), said
