# SPDX-License-Identifier: BSD-3-Clause
"""What credentials are for and come from: APIs that want a key, origins that say it back, a token endpoint, and a Vault stand-in.

The path says what the answer is, on every TLS site of origin.py. A server here believes nothing of what slirp-med should have done: it logs
what it got (`text` of request lines is the body) and answers.

  /say/WHAT/FORM[/N[/MS]]   the secret that came (`secret_of`) is said back: see r_say
  /unauth/KEY/N             401 to the first N requests, then 200
  /current/KEY/N            200 to token number N of KEY and later ones, else 401 that says the token back
  /to/HOST                  302 to https://HOST/echo
  /jwt/NAME                 verifies the bearer token against keys/NAME.pub: {"ok", "header", "claims"}
  /token/HOW/KEY[/ARG]      the token endpoint: see token()
  /v1..., /openai, ...      the providers' APIs, and on vault.test Vault's

Vault: no package of it exists here, so this speaks its HTTP API as the documentation has it ("HTTP API", "KV Secrets Engine" 1 and 2): secret/ is
a KV engine of version 2, kv/ one of version 1; what they hold lies in the world's folder (World.vault_put). It shows errors as Vault does.
"""
import base64
import gzip
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.parse

import http1d
import http2d
import worldlib as w
from peer import D, Gone, log

SECRET_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "x-secret")
_counts, _lock = {}, threading.Lock()


def count(*key):
    with _lock:
        _counts[key] = _counts.get(key, 0) + 1
        return _counts[key]


class Ask:
    """A request of either protocol, taken whole; answers are steps: ("hints", fields), ("head", status, fields[, length]), ("data", bytes),
    ("end", trailers). Without a length HTTP/1 is chunked, one chunk for each piece of data."""

    def __init__(self, x):
        self.x, self.h2 = x, not isinstance(x, http1d.Request)
        self.parts, self.site, self.p = x.parts, x.p.site, x.p
        self.headers = [(k.strip().lower(), v.strip()) for k, v in x.headers]
        self.body = b"".join(x.body())
        log(ev="request", **x.facts(), text=self.body[:65536].decode("latin-1"))

    def arg(self, i, default=None):
        return self.parts[i] if len(self.parts) > i else default

    def num(self, i, default):
        return int(self.arg(i, default))

    def all(self, name):
        return [v for k, v in self.headers if k == name]

    def get(self, name):
        return next(iter(self.all(name)), None)

    def secret(self):
        """The last word of the header that holds a credential."""
        value = next((v for k, v in self.headers if k in SECRET_HEADERS), "")
        return value.split(" ")[-1].encode("latin-1")

    def run(self, steps):
        chunked = False
        for s in steps:
            if s[0] == "hints":
                if self.h2:
                    self.x.head(103, s[1])
                else:
                    self.p.say(b"HTTP/1.1 103 Early Hints\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in s[1]) + b"\r\n")
            elif s[0] == "head":
                length = s[3] if len(s) > 3 else None
                fields = list(s[2]) + ([("content-length", str(length))] if length is not None else [])
                chunked = length is None
                if self.h2:
                    self.x.head(s[1].split(" ")[0], [(k.lower(), v) for k, v in fields])
                else:
                    self.x.reply(s[1], fields + ([("Transfer-Encoding", "chunked")] if chunked else []), length=False)
            elif s[0] == "data":
                if self.h2:
                    self.x.say(s[1])
                elif chunked:
                    self.x.chunk(s[1])
                else:
                    self.p.say(s[1])
            elif s[0] == "end":
                if self.h2 and s[1]:
                    self.x.end([(k.lower(), v) for k, v in s[1]])
                elif self.h2:
                    self.x.say(b"", end=True)
                elif chunked:
                    self.p.say(b"0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in s[1]) + b"\r\n")

    def reply(self, status, body, ctype="application/json", fields=()):
        self.run([("head", status, [("Content-Type", ctype), *fields], len(body)), ("data", body), ("end", [])])

    def json(self, status, doc, fields=()):
        self.reply(status, json.dumps(doc).encode(), fields=fields)


# ---- origins that say it back ----

def form(secret, how):
    """plain; percent (every byte, digits in either case); b64-0, b64-1, b64-2: base64 of a text that has it at that offset; url-N likewise."""
    if how == "percent":
        return b"".join(b"%%%02X" % c if i % 2 else b"%%%02x" % c for i, c in enumerate(secret))
    kind, _, k = how.partition("-")
    if kind in ("b64", "url"):
        text = b"~" * int(k) + secret + b"tail"
        return base64.b64encode(text) if kind == "b64" else base64.urlsafe_b64encode(text)
    return secret


def r_say(a):
    """body, head, reason, hints, trailer, gzip, negotiated (gzip for who asks for it), pieces/FORM/N (N bytes each), sse/FORM/N/MS (N events)."""
    what, how = a.arg(1, "body"), a.arg(2, "plain")
    said = form(a.secret(), how)
    body, text = b"before[" + said + b"]after", said.decode("latin-1")
    if what == "head":
        a.reply("200 OK", b"ok", "text/plain", [("X-Said", f"[{text}]"), ("Set-Cookie", f"k={text}; Path=/")])
    elif what == "reason":
        a.reply(f"200 {text}", b"ok", "text/plain")
    elif what == "hints":
        a.run([("hints", [("link", f"<https://origin.test/{text}>; rel=preload")])])
        a.reply("200 OK", b"ok", "text/plain")
    elif what == "trailer":
        a.run([("head", "200 OK", [("Trailer", "X-Said")]), ("data", b"ok"), ("end", [("X-Said", f"[{text}]")])])
    elif what == "gzip" or what == "negotiated" and "gzip" in (a.get("accept-encoding") or ""):
        a.reply("200 OK", gzip.compress(body, mtime=0), "text/plain", [("Content-Encoding", "gzip")])
    elif what == "pieces":
        n = a.num(3, 1)

        def pieces():
            yield "head", "200 OK", [("Content-Type", "text/plain")]
            for i in range(0, len(body), n):
                yield "data", body[i:i + n]
                time.sleep(0.001)  # so that most are read apart; no test relies on it
            yield "end", []
        a.run(pieces())
    elif what == "sse":
        def events():
            yield "head", "200 OK", [("Content-Type", "text/event-stream")]
            for i in range(a.num(3, 20)):
                time.sleep(a.num(4, 10) / 1000)
                yield "data", b"id: %d\ndata: %.6f %s\n\n" % (i, time.monotonic(), said)
            yield "end", []
        a.run(events())
    else:
        a.reply("200 OK", body, "text/plain")


def r_unauth(a):
    n = count("unauth", a.arg(1))
    if n <= a.num(2, 1):
        return a.json("401 Unauthorized", {"error": "invalid_token", "n": n}, [("WWW-Authenticate", 'Bearer error="invalid_token"')])
    return a.json("200 OK", {"n": n})


def r_current(a):
    """Any token of KEY before number N has been withdrawn."""
    good = a.secret().decode("latin-1") in [w.token(a.arg(1), n) for n in range(a.num(2, 1), a.num(2, 1) + 10)]
    a.json("200 OK" if good else "401 Unauthorized", {"said": a.secret().decode("latin-1"), "body": len(a.body)}, [] if good else [("WWW-Authenticate", "Bearer")])


def r_to(a):
    a.reply("302 Found", b"", fields=[("Location", f"https://{a.arg(1)}/echo")])


# ---- tokens ----

def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def ecdsa_der(raw):
    """r || s as an ASN.1 signature, which is what openssl verifies."""
    half = len(raw) // 2
    out = b""
    for x in (raw[:half], raw[half:]):
        x = x.lstrip(b"\0") or b"\0"
        x = (b"\0" if x[0] & 0x80 else b"") + x
        out += bytes([2, len(x)]) + x
    return bytes([0x30, len(out)]) + out


def verify_jwt(token, pub):
    """(ok, header, claims) of a compact token, judged by openssl, which had no part in making it."""
    try:
        head, claims, sig = token.split(".")
        header, payload, raw = json.loads(unbase64(head)), json.loads(unbase64(claims)), unbase64(sig)
    except ValueError:
        return False, None, None
    with tempfile.TemporaryDirectory() as d:
        for name, data in (("text", f"{head}.{claims}".encode()), ("sig", ecdsa_der(raw) if header.get("alg") == "ES256" else raw)):
            with open(os.path.join(d, name), "wb") as f:
                f.write(data)
        argv = ["openssl", "dgst", "-sha256", "-verify", pub, "-signature", d + "/sig", d + "/text"]
        if header.get("alg") == "EdDSA":
            argv = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", pub, "-sigfile", d + "/sig", "-in", d + "/text"]
        ok = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    return ok, header, payload


def key_file(name):
    return os.path.join(D[0], "keys", os.path.basename(name or "") + ".pub")


def r_jwt(a):
    ok, header, claims = verify_jwt((a.get("authorization") or "").partition(" ")[2], key_file(a.arg(1)))
    a.json("200 OK" if ok else "401 Unauthorized", {"ok": ok, "header": header, "claims": claims})


def token(a):
    """HOW: ok, slow/MS, never, drip (a byte a second), redirect, type, huge, garbage, twice (a member two times), none, empty, bad (no header value), expiry/N
    (expires_in N), mac (token_type), field (in id_token), error (RFC 6749 5.2 with the secret in its description), status/N, assert/NAME
    (RFC 7523: the assertion must verify against keys/NAME.pub), reset, once (only the first is good). A refused way of asking is 400."""
    how, key, n = a.arg(1), a.arg(2), count("token", a.arg(2))
    form = dict(urllib.parse.parse_qsl(a.body.decode("latin-1"), keep_blank_values=True))
    log(ev="token", how=how, key=key, n=n, id=a.p.id, form=form, authorization=a.get("authorization"), ctype=a.get("content-type"),
        method=a.x.method, headers=a.headers)
    if a.x.method != "POST" or a.get("content-type") != "application/x-www-form-urlencoded" or not form.get("grant_type"):
        return a.json("400 Bad Request", {"error": "invalid_request"})
    value, doc = w.token(key, n), {"access_token": w.token(key, n), "token_type": "Bearer", "expires_in": 3600}
    arg = a.arg(3, "")
    if how == "slow":
        time.sleep(int(arg) / 1000)
    elif how == "never":
        while a.p.more():
            pass
        return None
    elif how == "drip":
        a.run([("head", "200 OK", [("Content-Type", "application/json")], 1000)])
        for c in json.dumps(doc).ljust(1000):
            a.run([("data", c.encode())])
            time.sleep(1)
        return None
    elif how == "reset":
        a.p.reset()
        raise Gone
    elif how == "redirect":
        return a.reply("302 Found", b"", fields=[("Location", f"https://id.test/token/ok/{key}")])
    elif how == "type":
        return a.reply("200 OK", json.dumps(doc).encode(), "text/html")
    elif how == "huge":
        return a.reply("200 OK", json.dumps({**doc, "pad": "x" * (2 << 20)}).encode())
    elif how == "garbage":
        return a.reply("200 OK", b'{"access_token": "' + value.encode())
    elif how == "twice":
        return a.reply("200 OK", b'{"access_token": "a-token", "access_token": "b-token"}')
    elif how == "none" or how == "once" and n > 1:
        doc.pop("access_token")
    elif how == "empty":
        doc["access_token"] = ""
    elif how == "bad":
        doc["access_token"] = value + "\r\nX-Smuggled: 1"
    elif how == "expiry":
        doc["expires_in"] = int(arg) if arg.lstrip("-").isdigit() else arg
    elif how == "mac":
        doc["token_type"] = "mac"
    elif how == "field":
        doc = {"id_token": value, "expires_in": 3600}
    elif how == "error":
        return a.json("400 Bad Request", {"error": "invalid_client", "error_description": form.get("client_secret", "") + a.body.decode("latin-1")})
    elif how == "status":
        return a.json(f"{arg} Status", doc)
    elif how == "assert":
        ok, header, claims = verify_jwt(form.get("assertion", ""), key_file(arg))
        log(ev="assertion", key=key, n=n, ok=ok, header=header, claims=claims)
        if not ok or form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return a.json("400 Bad Request", {"error": "invalid_grant"})
    return a.json("200 OK", doc, [("Cache-Control", "no-store")])


# ---- Vault ----

def vault(a):
    def say(status, doc):
        a.json(status, doc, [("Cache-Control", "no-store"), ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")])

    def secret(data, lease=0, **more):
        return {"request_id": f"00000000-0000-4000-8000-{count('vault'):012d}", "lease_id": "", "renewable": False, "lease_duration": lease,
                "data": data, "wrap_info": None, "warnings": None, "auth": None, **more}
    path, space, folder = "/".join(a.parts[1:]), a.get("x-vault-namespace") or "", os.path.join(D[0], "vault")
    path = urllib.parse.unquote(path)
    log(ev="vault", path=path, token=a.get("x-vault-token"), namespace=space, method=a.x.method, headers=a.headers, id=a.p.id)
    if os.path.exists(os.path.join(folder, "SEALED")):
        return say("503 Service Unavailable", {"errors": ["Vault is sealed"]})
    if os.path.exists(os.path.join(folder, "SLOW")):
        time.sleep(0.5)
    if not a.get("x-vault-token"):
        return say("400 Bad Request", {"errors": ["missing client token"]})
    with open(os.path.join(folder, "state.json")) as f:
        state = json.load(f)
    if a.get("x-vault-token") != state["token"] or space.strip("/") != state.get("namespace", ""):
        return say("403 Forbidden", {"errors": ["permission denied"]})
    if a.x.method != "GET":
        return say("405 Method Not Allowed", {"errors": ["unsupported operation"]})
    mount, _, rest = path.partition("/")
    if mount == "kv" and rest in state["kv"]:
        return say("200 OK", secret(state["kv"][rest], state.get("lease", 2764800)))
    if mount == "secret" and rest.startswith("data/"):
        entry = state["secret"].get(rest[5:])
        meta = {"created_time": "2026-01-02T03:04:05.678901234Z", "custom_metadata": None, "deletion_time": "", "destroyed": False, "version": 3}
        if entry == "deleted":
            return say("404 Not Found", secret({"data": None, "metadata": {**meta, "deletion_time": "2026-02-02T03:04:05.678901234Z"}}))
        if entry is not None:
            return say("200 OK", secret({"data": entry, "metadata": meta}))
    elif mount == "secret":
        return say("404 Not Found", {"errors": [], "warnings": ["Invalid path for a versioned K/V secrets engine. See the API docs for the "
                   "appropriate API endpoints to use. If using the Vault CLI, use 'vault kv get' for this operation."]})
    elif mount != "kv":
        return say("404 Not Found", {"errors": [f"no handler for route \"{path}\". route entry not found."]})
    return say("404 Not Found", {"errors": []})


# ---- providers ----

def provider(a):
    """Chat requests as the six providers take them: the header in its format and the path, or 401 and 404. Streams when it is asked to."""
    host = (a.get(":authority") or a.get("host") or "").partition(":")[0]
    try:
        doc = json.loads(a.body or b"{}")
    except ValueError:
        return a.json("400 Bad Request", {"error": {"message": "no JSON"}})
    path, header, scheme = w.PROVIDERS[host][1:4] if host in w.PROVIDERS else ("", "", "")
    if not a.x.path.startswith(path) or a.x.method != "POST":
        return a.json("404 Not Found", {"error": {"message": "no such path"}})
    got = a.all(header)
    if len(got) != 1 or not got[0].startswith(scheme) or got[0] == scheme:
        return a.json("401 Unauthorized", {"error": {"type": "authentication_error", "message": "no key"}})
    if host == "api.anthropic.com" and not a.get("anthropic-version"):
        return a.json("400 Bad Request", {"error": {"message": "anthropic-version"}})
    words = ["hello", " from", " " + host]
    if not doc.get("stream"):
        text = "".join(words)
        if host == "api.anthropic.com":
            return a.json("200 OK", {"type": "message", "content": [{"type": "text", "text": text}]})
        if host == "generativelanguage.googleapis.com":
            return a.json("200 OK", {"candidates": [{"content": {"parts": [{"text": text}]}}]})
        return a.json("200 OK", {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": text}}]})

    def events():
        yield "head", "200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")]
        if host == "api.anthropic.com":
            yield "data", b'event: message_start\ndata: {"type": "message_start", "message": {"content": []}}\n\n'
        for x in words:
            time.sleep(0.02)
            if host == "api.anthropic.com":
                yield "data", b"event: content_block_delta\ndata: " + json.dumps(
                    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": x}, "t": time.monotonic()}).encode() + b"\n\n"
            else:
                yield "data", b"data: " + json.dumps({"choices": [{"delta": {"content": x}}], "t": time.monotonic()}).encode() + b"\n\n"
        yield "data", b'event: message_stop\ndata: {"type": "message_stop"}\n\n' if host == "api.anthropic.com" else b"data: [DONE]\n\n"
        yield "end", []
    return a.run(events())


def api(a):
    return vault(a) if a.site == "vault.test" else provider(a)


ROUTES = {"say": r_say, "unauth": r_unauth, "current": r_current, "to": r_to, "jwt": r_jwt, "token": token, "v1": api, "v1beta": provider, "openai": provider,
          "api": provider, "chat": provider}


def install():
    """Both protocols get the routes; theirs come first."""
    for name, f in ROUTES.items():
        for table in (http1d.H1_ROUTES, http2d.H2_ROUTES):
            table.setdefault(name, lambda x, f=f: f(Ask(x)))
