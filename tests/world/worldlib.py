# SPDX-License-Identifier: BSD-3-Clause
"""The private internet as data: who lives where, and how a test reads what reached whom.

Everything that serves or observes writes JSON lines to a file of its own under the world's log folder. A test asks for
"what was seen since this mark"; World.sync() makes the answer final by sending a marker packet down the same wire and
waiting until the sniffer has seen it, so that "nothing arrived" is a fact and not a race.
"""
import array
import hashlib
import json
import os
import socket
import time

ROUTER = "203.0.113.1"      # the internet's end of the veth
CORE = "203.0.113.2"        # the core namespace's own, public-looking address
DNS = "198.51.100.53"       # dnsd.py: test zones and every odd answer
DNS_PLAIN = "198.51.100.54" # dnsmasq: an ordinary resolver, written by somebody else

WEB = {"ok.test": "203.0.113.10", "other.test": "203.0.113.11", "evil.test": "203.0.113.12", "listed.test": "203.0.113.13",
       "www.ok.test": "203.0.113.10", "cdn1.test": "203.0.113.21", "cdn2.test": "203.0.113.21"}
PROTO = "203.0.113.20"      # proto.test: the odd TCP and UDP servers (they listen on every other address as well)
# origin.py: TLS and HTTP servers that write down each byte. "alias.test" shares address and certificate with "origin.test".
SITES = {"origin.test": "203.0.113.40", "alias.test": "203.0.113.40", "h2.test": "203.0.113.41", "grpc.test": "203.0.113.42",
         "line.test": "203.0.113.44", "mail.test": "203.0.113.44", "tls12.test": "203.0.113.45",
         "inter.test": "203.0.113.46",  # good, by way of an intermediate CA
         "ipsan.test": "203.0.113.47",  # good for its address only
         "flood.test": "203.0.113.48"}  # sends what its client names, without end
# credd.py on origin.py's TLS: the token endpoint (once more at a private address) and Vault (port VAULT).
CRED = {"id.test": "203.0.113.80", "vault.test": "203.0.113.81"}
CRED_INSIDE = {"id10.test": "10.0.0.70"}
# The providers of --cred-swap: address, path, header and what stands before the key.
PROVIDERS = {"api.anthropic.com": ("203.0.113.82", "/v1/messages", "x-api-key", ""),
             "api.openai.com": ("203.0.113.83", "/v1/chat/completions", "authorization", "Bearer "),
             "generativelanguage.googleapis.com": ("203.0.113.84", "/v1beta/models/", "x-goog-api-key", ""),
             "api.groq.com": ("203.0.113.85", "/openai/v1/chat/completions", "authorization", "Bearer "),
             "openrouter.ai": ("203.0.113.86", "/api/v1/chat/completions", "authorization", "Bearer "),
             "api.deepseek.com": ("203.0.113.87", "/chat/completions", "authorization", "Bearer ")}
CRED_PUBLIC = {**CRED, **{n: p[0] for n, p in PROVIDERS.items()}}
GIT = {"git.test": "203.0.113.43"}      # nginx with h1 and h2 before origin.py's smart-HTTP git
# TLS servers that no verified handshake may succeed with, and the word that the audit has for each.
BAD_CERT = {"expired.test": ("203.0.113.50", "certificate_expired"), "notyet.test": ("203.0.113.51", "certificate_not_yet_valid"),
            "wrongname.test": ("203.0.113.52", "certificate_name_mismatch"),
            "selfsigned.test": ("203.0.113.53", "certificate_self_signed"),
            "unknownca.test": ("203.0.113.54", "certificate_unknown_issuer"),
            "nointer.test": ("203.0.113.55", "certificate_unknown_issuer"),
            "sha1.test": ("203.0.113.56", "certificate_weak"), "rsa1024.test": ("203.0.113.57", "certificate_weak"),
            "constraint.test": ("203.0.113.58", "certificate_name_constraint"),
            "ipwrong.test": ("203.0.113.59", "certificate_name_mismatch"),  # its only SAN is another address
            "cnonly.test": ("203.0.113.69", "certificate_name_mismatch"),  # the name only in the subject, where RFC 9525 forbids to look
            "clientonly.test": ("203.0.113.60", "certificate_purpose")}
BAD_TLS = {"clientcert12.test": ("203.0.113.61", "client_certificate_required"),
           "clientcert13.test": ("203.0.113.62", "client_certificate_required"), "tls10.test": ("203.0.113.63", "tls_version"),
           "rsthello.test": ("203.0.113.64", "reset"), "finhello.test": ("203.0.113.65", "closed_in_handshake"),
           "nottls.test": ("203.0.113.66", "tls_protocol_error"), "alert.test": ("203.0.113.67", "peer_alert"),
           "stall.test": ("203.0.113.68", "tls_timeout"), "trickle.test": ("203.0.113.78", "tls_timeout")}
TLS_BAD = {n: a for n, (a, _) in {**BAD_CERT, **BAD_TLS}.items()}
STRANGER = "203.0.113.30"   # sends datagrams nobody asked for
OTHER_RESOLVER = "203.0.113.99"
BLACKHOLE = "198.51.100.66" # packets vanish
PROHIBITED = "198.51.100.67"  # ICMP administratively prohibited
UNREACHABLE = "198.51.100.77"  # ICMP host unreachable
# Inside addresses that really answer: a denial that fails would connect, and show in the log.
INSIDE = ["10.0.0.5", "169.254.169.254", "192.168.7.7", "100.64.0.9", "168.63.129.16", "172.16.9.9", "198.18.0.5",
          "192.0.0.8", "240.0.0.5", "10.0.2.77"]
PUBLIC = sorted({*WEB.values(), *SITES.values(), *GIT.values(), *TLS_BAD.values(), *CRED_PUBLIC.values()}) + [PROTO, STRANGER, OTHER_RESOLVER, DNS, DNS_PLAIN, "198.51.100.10"]
CORE6, ROUTER6 = "2001:db8:1::2", "2001:db8:1::1"

# Ports of servers.py.
ECHO, DISCARD, SSH, SMTP = 7, 9, 22, 25
CLOSED = 81                 # nobody listens: RST
HALFCLOSE, SERVER_FIN_FIRST, RST_ON_ACCEPT, RST_MID = 2001, 2002, 2003, 2004
SLOW_READER, FIN_ON_ACCEPT, SILENT, LATE_BANNER, SOURCE, SOURCE_NOW = 2005, 2006, 2007, 2008, 2010, 2011
UDP_SINK, UDP_STRANGER = 2100, 2101
MARK = 2099                 # World.sync()'s marker
METER, METER_TLS, METER_UDP = 2020, 2443, 2120  # meterd.py
HTTP_ECHO, UPLOAD, H2C = 8000, 8090, 8081
BIG = 1 << 30
# Ports of origin.py beside 80 and 443. IMAPS speaks first inside TLS, TLS_LINE echoes lines inside TLS, SUBMISSION has STARTTLS.
IMAPS, TLS_LINE, SUBMISSION, GRPC_CLEAR, DRIP, VAULT = 993, 4433, 587, 50051, 8082, 8200

BANNER_SSH = b"SSH-2.0-world_1.0\r\n"
BANNER_SMTP = b"220 world.test ESMTP\r\n"
BANNER_IMAPS = b"* OK world.test IMAP4rev1\r\n"


def pattern(n):
    """n bytes in which no two aligned blocks are equal, so that a lost, doubled or moved block changes the sum."""
    a = array.array("Q", range(n // 8 + 1))
    a.byteswap()
    return a.tobytes()[:n]


def token(key, n):
    """The token that the endpoint gives as its answer number n for this key."""
    return f"tok-{key}-{n}-" + hashlib.sha256(f"{key} {n}".encode()).hexdigest()[:24]


def jsonl(path, start=0):
    """Whole JSON lines of a file that begin at byte offset start or later; a last line without its end is not there yet. A line that was
    being written when the offset was taken began before it (a write that crosses a page grows the file in two steps)."""
    try:
        with open(path, "rb") as f:
            f.seek(max(start - 1, 0))
            data = f.read()
    except FileNotFoundError:
        return []
    if start:
        data = data[data.find(b"\n") + 1:] if b"\n" in data else b""
    return [json.loads(x) for x in data[: data.rfind(b"\n") + 1].splitlines()]


def wait_for(what, cond, timeout=10.0):
    """Poll cond until it is true and return its value; the message names what did not happen."""
    end = time.monotonic() + timeout
    while True:
        v = cond()
        if v:
            return v
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(0.003)


class World:
    """A handle on the world this process runs in (made by `world run`)."""

    LOGS = ("servers", "nginx", "dns", "wire", "leak", "origin", "grpc", "meter")

    def __init__(self, folder=None):
        self.dir = folder or os.environ["SM_WORLD_DIR"]
        self.ca = os.path.join(self.dir, "ca.pem")
        self.www = os.path.join(self.dir, "www")
        self.git = os.path.join(self.dir, "git")  # bare repositories here are served as http(s)://git.test/NAME.git
        self.keys = os.path.join(self.dir, "keys")  # NAME.pub: what credd.py verifies tokens against
        self.client_cert = os.path.join(self.dir, "client.pem")  # certificate and key that clientcert*.test accept

    def log(self, name):
        return os.path.join(self.dir, "log", name + ".jsonl")

    def mark(self):
        """Remember the ends of all logs."""
        return {n: (os.path.getsize(self.log(n)) if os.path.exists(self.log(n)) else 0) for n in self.LOGS}

    def sync(self):
        """Return once everything that left the core namespace before this call is in the wire log."""
        start = self.mark()["wire"]
        with socket.create_connection((ROUTER, MARK), timeout=10) as s:
            me = s.getsockname()[1]
            wait_for("the sniffer to see the marker",
                     lambda: any(r.get("sport") == me and r["port"] == MARK for r in jsonl(self.log("wire"), start)))

    def since(self, mark, name, **match):
        """Records of one log since a mark whose fields equal those given."""
        return [r for r in jsonl(self.log(name), mark[name]) if all(r.get(k) == v for k, v in match.items())]

    def wire(self, mark, **match):
        """Packets that opened something (SYN, datagram, ICMP, IPv6) and left the core namespace since the mark.

        The resolver's own questions and the markers are left out unless a port is asked for."""
        self.sync()
        rows = self.since(mark, "wire", **match)
        if "port" not in match:
            rows = [r for r in rows if r["port"] != MARK and not (r["port"] == 53 and r["dst"] in (DNS, DNS_PLAIN))]
        return rows

    def accepts(self, mark, **match):
        """Connections that a server accepted since the mark."""
        self.sync()
        return self.since(mark, "servers", ev="accept", **match)

    def closed(self, mark, srv, n=1, timeout=10.0):
        """Wait for n close records of one server and return them."""
        wait_for(f"{n} closed connections at {srv}",
                 lambda: len(self.since(mark, "servers", ev="close", srv=srv)) >= n, timeout)
        return self.since(mark, "servers", ev="close", srv=srv)

    def leaks(self, mark):
        """Connections and datagrams that reached the core namespace's own listeners (loopback and own address)."""
        self.sync()
        return self.since(mark, "leak")

    def requests(self, mark, **match):
        """Requests that origin.py had received whole since the mark: the record is written before the answer is sent."""
        return self.since(mark, "origin", ev="request", **match)

    def tokens(self, mark, key, **match):
        """What the token endpoint was asked for this key since the mark."""
        return self.since(mark, "origin", ev="token", key=key, **match)

    def vault_put(self, **state):
        """What the Vault stand-in holds and whom it knows: token, namespace, secret={path: {field: value} or "deleted"}, kv={...}, lease;
        sealed=True, slow=True (half a second)."""
        for word in ("sealed", "slow"):
            path = os.path.join(self.dir, "vault", word.upper())
            if state.pop(word, False):
                with open(path, "w"):
                    pass
            elif os.path.exists(path):
                os.unlink(path)
        path = os.path.join(self.dir, "vault", "state.json")
        with open(path + ".new", "w") as f:
            json.dump({"token": "", "namespace": "", "secret": {}, "kv": {}, **state}, f)
        os.rename(path + ".new", path)

    def vault_asked(self, mark, **match):
        return self.since(mark, "origin", ev="vault", **match)

    def hellos(self, mark, **match):
        """ClientHellos that origin.py's TLS ports saw: sni, alpn (offer), versions, and whether a session was offered."""
        return self.since(mark, "origin", ev="hello", **match)

    def raw(self, cid):
        """The first MiB that one of origin.py's connections received, after TLS."""
        with open(os.path.join(self.dir, "log", "raw", str(cid)), "rb") as f:
            return f.read()

    def received(self, mark, srv=None):
        """All bytes that HTTP/1 connections to origin.py received since the mark, in order of the connections."""
        ids = [r["id"] for r in self.since(mark, "origin", ev="accept") if srv is None or r["srv"] == srv]
        return b"".join(self.raw(i) for i in ids)

    def origin_closed(self, mark, n=1, timeout=10.0, **match):
        """Wait for n of origin.py's connections to end and return those records."""
        wait_for(f"{n} closed connections at the origin {match}",
                 lambda: len(self.since(mark, "origin", ev="close", **match)) >= n, timeout)
        return self.since(mark, "origin", ev="close", **match)
