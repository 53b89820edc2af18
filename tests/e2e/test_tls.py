# SPDX-License-Identifier: BSD-3-Clause
"""TLS interception (spec section 5): who is verified, what the guest is shown, what upstream sees, and what is left alone."""
import os
import stat

import pytest
import worldlib as w

STRICT = ("--egress", "strict") + tuple(f"--egress-allow={n}" for n in (*w.SITES, *w.TLS_BAD, "ok.test"))
ORIGIN, H2, LINE = w.SITES["origin.test"], w.SITES["h2.test"], w.SITES["line.test"]


@pytest.mark.core
def test_curl_h1_and_h2_and_the_alpn_that_upstream_chose(sm, world, mark):
    r = sm.run(*STRICT, cmd=["curl", "-sS", "-w", "%{http_version} %{http_code}\n", "-o", "/dev/null", "https://origin.test/echo", "--next", "-sS", "-w",
                             "%{http_version} %{http_code}\n", "-o", "/dev/null", "https://h2.test/echo", "--next", "-sS", "--http1.1", "-w",
                             "%{http_version} %{http_code}\n", "-o", "/dev/null", "https://h2.test/echo", "--next", "-sS", "-o", "/dev/null", "-w",
                             "%{http_version} %{http_code}\n", "https://ok.test/mib"])
    assert r.rc == 0 and r.stdout == b"1.1 200\n2 200\n1.1 200\n2 200\n", r
    assert [(x["sni"], x["alpn"]) for x in world.hellos(mark)] == [
        ("origin.test", ["h2", "http/1.1"]), ("h2.test", ["h2", "http/1.1"]), ("h2.test", ["http/1.1"])], "the guest's SNI and offer go upstream"
    rows = r.events("egress_allow")
    assert [(x["host"], x["name_source"], x["mitm"], x["alpn"], x["tls_version"]) for x in rows] == [
        (n, "pin", True, a, "TLSv1.3") for n, a in (("origin.test", "http/1.1"), ("h2.test", "h2"), ("h2.test", "http/1.1"), ("ok.test", "h2"))], r.text()
    for row in rows:
        q = r.one("egress_http_request", flow=row["flow"])
        a = r.one("egress_http_response", flow=row["flow"], req=q["req"])
        assert (q["method"], q["authority"], a["status"]) == ("GET", row["host"], 200)
        dial = r.one("egress_mitm_dial", flow=row["flow"])
        order = [x["seq"] for x in (dial, row, q, a, r.one("egress_close", flow=row["flow"]))]
        assert order == sorted(order), "each line is written before what it tells of"
    r.none("egress_deny")


@pytest.mark.core
def test_the_leaf_is_acceptable_to_strict_verifiers(sm, world, mark):
    r = sm.guest("""
import httplib as h
for n in ("origin.test", "h2.test"):
    c = h.tls(n, strict=True, alpn=["http/1.1"])
    out[n] = [c.cert, c.issuer, h.outcome(lambda: c.ask(h.get("/echo", n)).status), c.o.version()]
""", *STRICT)
    for n in ("origin.test", "h2.test"):
        san, issuer, status, version = r.out[n]
        assert (san, status, version) == ([n], 200, "TLSv1.3") and "slirp-med" in issuer, r.out


BAD = {**{n: why for n, (_, why) in w.BAD_CERT.items()}, **{n: why for n, (_, why) in w.BAD_TLS.items() if why != "tls_timeout"}}


@pytest.mark.core
def test_each_bad_upstream_gives_an_alert_and_a_reason(sm, world, mark):
    """All of them at once, in one workspace: none may make another one acceptable."""
    r = sm.guest(f"""
import httplib as h
def one(n):
    c = h.context(alpn=["http/1.1"])
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE   # whatever leaf is shown would be taken
    out[n] = h.outcome(lambda: h.tls(n, ctx=c, timeout=20).ask(h.get("/secret", n)).status)
ts = [threading.Thread(target=one, args=(n,)) for n in {[*BAD, "inter.test"]!r}]
for t in ts: t.start()
for t in ts: t.join()
c = h.tls("ipsan.test", addr="{w.SITES['ipsan.test']}", sni=None)   # a certificate for the address
out["ip"] = [c.cert, c.ask(h.get("/echo", "{w.SITES['ipsan.test']}")).status]
def bad_ip():
    return h.tls("ipwrong.test", addr="{w.TLS_BAD['ipwrong.test']}", sni=None).ask(h.get("/secret", "{w.TLS_BAD['ipwrong.test']}")).status
out["badip"] = h.outcome(bad_ip)
""", timeout=90)
    assert r.out.pop("inter.test") == 200, r.out
    assert r.out.pop("ip") == [[w.SITES["ipsan.test"]], 200], r.out
    assert "ALERT" in str(r.out.pop("badip"))
    assert all("ALERT" in str(v) for v in r.out.values()), f"a TLS alert, and no leaf: {r.out}"
    got = {x["host"]: x["reason"] for x in r.events("egress_mitm_upstream_error") if x.get("host")}
    assert got == BAD, r.text()
    refused = {x["flow"] for x in r.events("egress_mitm_upstream_error")}
    assert len(refused) == len(BAD) + 1
    assert not [x for x in r.audit if x.get("flow") in refused and x["event"] in ("egress_allow", "egress_http_request")], r.text()
    assert not [x for x in world.requests(mark) if "secret" in x["path"] and x["local"] != w.SITES["inter.test"]]
    assert b"secret" not in b"".join(world.raw(x["id"]) for x in world.since(mark, "origin", ev="accept") if x["local"] in w.TLS_BAD.values())
    hint = r.one("egress_mitm_upstream_error", host="clientcert12.test")
    assert "--egress-passthrough" in hint.get("hint", ""), hint


def test_an_upstream_that_stalls_in_the_handshake_has_an_end(sm, world, mark):
    r = sm.guest("""
import httplib as h
t = time.monotonic()
out["r"] = h.outcome(lambda: h.tls("stall.test", timeout=40).cert)
out["s"] = time.monotonic() - t
""", *STRICT, timeout=90)
    assert "ALERT" in str(r.out["r"]) and r.out["s"] < 30, r.out
    assert r.one("egress_mitm_upstream_error")["reason"] == "tls_timeout"


@pytest.mark.core
def test_a_guest_that_does_not_take_our_leaf(sm, world, mark):
    """A pinned client: it has its own trust and refuses ours. Nothing of it reaches the origin, and the record says what to do."""
    r = sm.guest("""
import httplib as h
out["r"] = h.outcome(lambda: h.tls("origin.test", cafile=os.environ["WORLD_CA"]).ask(h.get("/pinned", "origin.test")).status)
def silent():
    c = h.connect("h2.test", 443)
    c.send(hello("h2.test"))
    c.recv()
    c.close()
silent()
""", *STRICT)
    assert "verify" in str(r.out["r"]), r.out
    row = r.some("egress_mitm_handshake_error", host="origin.test")
    assert row["reason"] == "peer_alert" and row["alert"] == "unknown_ca" and "--egress-passthrough origin.test" in row["hint"], row
    row = r.some("egress_mitm_handshake_error", host="h2.test")
    assert row["reason"] in ("closed_in_handshake", "reset"), row
    r.none("egress_http_request")
    assert world.received(mark) == b""


@pytest.mark.core
@pytest.mark.parametrize("flags,env", [(("--egress", "strict", "--egress-passthrough", "origin.test"), True),
                                       (("--egress", "guarded", "--egress-passthrough", "origin.test"), True),
                                       (("--egress", "strict", "--egress-allow", "origin.test", "--egress-opaque"), False)],
                         ids=["passthrough-strict", "passthrough-guarded", "opaque"])
def test_left_alone_the_client_sees_the_real_certificate(sm, world, mark, flags, env):
    r = sm.guest("""
import httplib as h
c = h.tls("origin.test", cafile=os.environ["WORLD_CA"])
out["san"], out["issuer"] = c.cert, c.issuer
out["status"] = c.ask(h.get("/echo", "origin.test")).status
""", *flags)
    assert "ok.test" in r.out["san"] and "world test CA" in r.out["issuer"] and r.out["status"] == 200, r.out
    assert r.one("egress_allow")["mitm"] is False
    r.none("egress_http_request")
    r.none("egress_mitm_dial")
    # The hello that arrived is the guest's own: Python's ssl sends no ALPN unless told to.
    hello, = world.hellos(mark)
    assert hello["alpn"] == [] and hello["sni"] == "origin.test"


@pytest.mark.core
def test_no_sni_takes_the_pinned_name_and_an_address_is_no_sni(sm, world, mark):
    r = sm.guest(f"""
import httplib as h
c = h.tls("origin.test", sni=None, alpn=["http/1.1"])
out["cert"], out["r"] = c.cert, c.ask(h.get("/nosni", "origin.test")).status
out["address"] = attempt("{H2}", 443, hello("a" * {len(H2)}).replace(b"a" * {len(H2)}, b"{H2}"))
""")
    assert r.out["cert"] == ["origin.test", w.SITES["origin.test"]] and r.out["r"] == 200, r.out
    assert r.out["address"]["reply"] == "" and r.out["address"]["end"] == "ECONNRESET", r.out
    assert r.one("egress_deny", dst=H2)["reason"] == "tls_sni_address"
    assert [x["sni"] for x in world.hellos(mark)] == [None], "no name is made up for upstream"


# A hello that arrives in odd pieces, and one that is larger than a record.
PIECES = """
import httplib as h
class Cut(h.Client):
    "Sends what it has to say in records of `size` bytes, each in a segment of its own."
    size = 1
    def _flush(self):
        d = self.out.read()
        while d:
            n = int.from_bytes(d[3:5], "big")
            head, body, d = d[:3], d[5:5 + n], d[5 + n:]
            if head[:1] != b"\\x16" or self.done:
                self.s.sendall(head + n.to_bytes(2, "big") + body)
                continue
            for i in range(0, n, self.size):
                p = body[i:i + self.size]
                self.s.sendall(head + len(p).to_bytes(2, "big") + p)
            self.done = True
    done = False
"""


@pytest.mark.core
def test_a_hello_over_many_records_and_segments(sm, world, mark):
    r = sm.guest(PIECES + """
for size in (1, 7, 100):
    c = Cut("origin.test", 443); c.size = size
    c.start_tls(h.context(alpn=["http/1.1"]), "origin.test")
    out[str(size)] = c.ask(h.get("/cut", "origin.test")).status
""", *STRICT)
    assert r.out == {"1": 200, "7": 200, "100": 200}
    assert [x["sni"] for x in world.hellos(mark)] == ["origin.test"] * 3
    assert [x["mitm"] for x in r.events("egress_allow")] == [True] * 3


@pytest.mark.core
def test_a_hello_over_16_kib(sm, world, mark):
    """Post-quantum shares and long offers do that. One that completes (a long ALPN offer), and one synthesised with an unknown extension."""
    r = sm.guest("""
import httplib as h
offer = ["proto-%03d-" % i + "x" * 200 for i in range(90)] + ["http/1.1"]
c = h.tls("origin.test", alpn=offer)
out["alpn"], out["r"] = c.alpn, c.ask(h.get("/long", "origin.test")).status

def with_extension(raw, kind, data):
    hs = raw[5:]                              # one record as OpenSSL writes it
    p = 4 + 2 + 32
    p += 1 + hs[p]
    p += 2 + int.from_bytes(hs[p:p + 2], "big")
    p += 1 + hs[p]
    ext = kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data + hs[p + 2:]
    body = hs[4:p] + len(ext).to_bytes(2, "big") + ext
    hs = b"\\x01" + len(body).to_bytes(3, "big") + body
    return b"".join(b"\\x16\\x03\\x01" + len(x).to_bytes(2, "big") + x for x in (hs[i:i + 16384] for i in range(0, len(hs), 16384)))
for what, kind, data in (("big", 0x9a9a, bytes(20000)), ("ech", 0xfe0d, b"\\0\\0\\1\\0\\1\\x42\\0\\x20" + os.urandom(32) + b"\\0\\xa0" + os.urandom(160))):
    d = h.connect("h2.test", 443)
    d.send(with_extension(hello("h2.test"), kind, data))
    head = h.outcome(lambda: d.take(6))
    out[what] = head.hex() if isinstance(head, bytes) else head
    d.close()
""", *STRICT)
    assert (r.out["alpn"], r.out["r"]) == ("http/1.1", 200), r.out
    for what in ("big", "ech"):
        assert r.out[what].startswith("160303") and r.out[what].endswith("02"), f"a ServerHello: {r.out}"
    hellos = world.hellos(mark)
    assert len(hellos[0]["alpn"]) == 91 and hellos[0]["bytes"] > 16384
    assert 0xFE0D not in [e for x in hellos for e in x["extensions"]], "what is encrypted for upstream cannot go with our own hello"


@pytest.mark.core
def test_a_session_of_one_name_is_never_used_for_another(sm, world, mark):
    r = sm.guest("""
import httplib as h
for v in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    ctx = h.context(alpn=["http/1.1"])
    ctx.minimum_version = ctx.maximum_version = v
    a = h.tls("origin.test", ctx=ctx)
    assert a.ask(h.get("/one", "origin.test")).status == 200
    session = a.o.session
    a.close()
    for n in ("alias.test", "h2.test", "origin.test"):
        b = h.tls(n, ctx=ctx, session=session)
        out[f"{v.name} {n}"] = [b.o.session_reused, b.cert, b.ask(h.get("/two", n)).status, b.o.version()]
        b.close()
""", *STRICT)
    for k, (reused, san, status, version) in r.out.items():
        v, n = k.split()
        assert (reused, san, status, version) == (False, [n], 200, v.replace("_", ".")), r.out
    # Upstream is another matter: our own cache resumes there, per name.
    tls = world.since(mark, "origin", ev="tls", sni="origin.test")
    assert tls[-1]["resumed"] and not tls[0]["resumed"], tls


@pytest.mark.core
def test_versions_are_each_sides_own(sm, world, mark):
    r = sm.guest("""
import httplib as h
V = ssl.TLSVersion
ctx = h.context(alpn=["http/1.1"]); ctx.maximum_version = V.TLSv1_2
c = h.tls("origin.test", ctx=ctx)
out["old"] = [c.o.version(), c.ask(h.get("/old", "origin.test")).status]
c = h.tls("tls12.test", alpn=["http/1.1"])
out["new"] = [c.o.version(), c.ask(h.get("/new", "tls12.test")).status]
import warnings; warnings.simplefilter("ignore")
ctx = h.context(); ctx.set_ciphers("ALL:@SECLEVEL=0"); ctx.minimum_version, ctx.maximum_version = V.TLSv1, V.TLSv1_1
out["ancient"] = h.outcome(lambda: h.tls("origin.test", ctx=ctx).cert)
""", *STRICT)
    assert r.out["old"] == ["TLSv1.2", 200] and r.out["new"] == ["TLSv1.3", 200], r.out
    assert "ALERT" in str(r.out["ancient"]), r.out
    assert r.some("egress_allow", host="tls12.test")["tls_version"] == "TLSv1.2", "upstream's version is what the line tells"


@pytest.mark.core
def test_alpn_is_never_made_up(sm, world, mark):
    r = sm.guest("""
import httplib as h
for n in ("origin.test", "h2.test"):
    c = h.tls(n)
    out[n] = [c.alpn, c.ask(h.get("/none", n)).status]
c = h.tls("h2.test", alpn=["http/1.1", "h2"])
out["both"] = c.alpn
""", *STRICT)
    assert r.out["origin.test"] == [None, 200] and r.out["h2.test"] == [None, 200], r.out
    assert r.out["both"] == "h2", "upstream chose"
    assert [x["alpn"] for x in world.hellos(mark)] == [[], [], ["http/1.1", "h2"]]


@pytest.mark.core
def test_what_is_not_http_inside_tls_is_relayed_and_recorded(sm, world, mark):
    r = sm.guest(f"""
import httplib as h
c = h.tls("line.test", {w.TLS_LINE})
c.send(b"first line\\n"); out["a"] = c.until(b"\\n").decode()
c.send(b"\\0\\1\\2 second\\n"); out["b"] = c.until(b"\\n").decode("latin-1")
c.shut()
out["rest"], out["end"] = c.rest().decode(), c.end
c = h.tls("line.test", {w.IMAPS})
out["banner"] = c.until(b"\\n").decode()
c.send(b"a login\\n"); out["c"] = c.until(b"\\n").decode()
c.close()
c = h.tls("line.test", 443)
c.send(bytes(range(256)) * 400 + b"\\n"); out["n"] = len(c.until(b"\\n"))
""", *STRICT)
    assert r.out["a"] == "echo: first line" and r.out["b"] == "echo: \0\1\2 second", r.out
    assert r.out["rest"] == "lines: 2, end: notify\n" and r.out["end"] == "notify", "half-closes are kept, in both directions"
    assert r.out["banner"] + "\n" == w.BANNER_IMAPS.decode() and r.out["c"] == "echo: a login", r.out
    why = [(x["port"], x["reason"]) for x in r.events("egress_mitm_opaque")]
    assert why == [(w.TLS_LINE, "not_http"), (w.IMAPS, "server_first"), (443, "not_http")], r.text()
    r.none("egress_http_request")


@pytest.mark.core
def test_starttls_is_opaque(sm, world, mark):
    r = sm.guest(f"""
import smtplib
with smtplib.SMTP("mail.test", {w.SUBMISSION}, timeout=10) as s:
    s.starttls(context=ssl.create_default_context(cafile=os.environ["WORLD_CA"]))
    out["ehlo"] = s.ehlo()[0]
""", *STRICT)
    assert r.out["ehlo"] == 250
    assert r.one("egress_allow")["mitm"] is False
    assert [(x["verb"], x["tls"]) for x in world.since(mark, "origin", ev="smtp")] == [("EHLO", False), ("STARTTLS", False), ("EHLO", True), ("QUIT", True)]


@pytest.mark.core
def test_the_ca_is_fresh_and_its_key_stays_outside(sm):
    seen = []
    for _ in range(2):
        g = sm.start_guest("""
say(open(os.environ["SSL_CERT_FILE"]).read().replace("\\n", "|"))
found = []
for top in (os.environ.get("XDG_STATE_HOME", "/nosuch"), "/run", "/etc/ssl"):
    for d, _, files in os.walk(top):
        for f in files:
            try:
                with open(os.path.join(d, f), "rb") as x:
                    if b"PRIVATE KEY" in x.read(1 << 20): found.append(os.path.join(d, f))
            except OSError: pass
out["found"] = found
out["fds"] = [x for x in (os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)) if "ca." in x] + [n for n in range(3, 99) if os.path.exists(f"/proc/self/fd/{n}")]
out["env"] = [k for k, v in os.environ.items() if "PRIVATE" in v]
sys.stdin.readline()
""", *STRICT, name="fresh")
        bundle = g.line()
        key = os.path.join(sm.state, "slirp-med", "fresh", "ca.key")
        st = os.stat(key)
        assert stat.S_IMODE(st.st_mode) == 0o600 and "PRIVATE KEY" in open(key).read()
        seen.append(open(os.path.join(os.path.dirname(key), "ca.pem")).read().strip())
        assert seen[-1].replace("\n", "|") in bundle, "the bundle in the workspace has the workspace's CA"
        g.tell("")
        r = g.end()
        assert r.out == {"found": [], "fds": [], "env": []}
        assert "PRIVATE KEY" not in r.text()
    assert seen[0] != seen[1]


def test_a_flood_of_names_does_not_starve_others(sm, world, mark):
    """Each new name costs a signature: they are rationed, and a flow whose leaf is there does not wait."""
    r = sm.guest(f"""
import httplib as h
ctx = h.context(alpn=["http/1.1"])
c = h.tls("origin.test", ctx=ctx)
assert c.ask(h.get("/warm", "origin.test")).status == 200
stop = time.monotonic() + 4
def flood(k):
    n = 0
    while time.monotonic() < stop:
        n += 1
        h.outcome(lambda: h.tls("f%d-%d.wild.test" % (k, n), addr="{w.WEB['ok.test']}", check=False).close())
ts = [threading.Thread(target=flood, args=(k,)) for k in range(4)]
for t in ts: t.start()
took = []
while time.monotonic() < stop:
    t = time.monotonic()
    assert c.ask(h.get("/tick", "origin.test")).status == 200
    took.append(time.monotonic() - t)
    time.sleep(0.02)
for t in ts: t.join()
took.sort()
out["n"], out["median"], out["worst"] = len(took), took[len(took) // 2], took[-1]
""", timeout=60)
    assert r.out["n"] > 20 and r.out["median"] < 0.25, r.out


def test_without_sni_only_the_name_that_was_verified_is_served(sm, world, mark):
    """Two listed names at one address: the certificate was looked at for one of them, and requests for the other are misdirected."""
    r = sm.guest("""
import httplib as h
dns("origin.test"); dns("alias.test")
for host in ("origin.test", "alias.test"):
    out[host] = h.tls("origin.test", sni=None, alpn=["http/1.1"]).ask(h.get("/which", host)).status
""", "--egress", "strict", "--egress-allow", "origin.test", "--egress-allow", "alias.test")
    assert sorted(r.out.values()) == [200, 421], r.out
    served = next(k for k, v in r.out.items() if v == 200)
    assert {x["host"] for x in world.requests(mark)} == {served}
    r.one("egress_deny", reason="authority_mismatch")
