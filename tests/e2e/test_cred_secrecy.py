# SPDX-License-Identifier: BSD-3-Clause
"""Canaries: every strategy, reference and failure is run with secrets that nothing else looks like, and then all is searched (issue 4, item 7).

Where a secret may be: in the core; a variable's in the launcher, whose environment it is; in a fetch helper what it was started to say. Nowhere
else: not in what the guest sees, the audit, stderr with all debugging on, the state folder, an argument, an environment or another process.
"""
import base64
import json
import os
import uuid

import pytest
import worldlib as w
from conftest import descendants, processes
from credlib import GO, STRICT, canary, jwt, oauth, secret_file, signing_key, static, swap_file, values
from memlib import environment, forms, key_forms, memory

SANITIZED = bool(os.environ.get("SLIRP_MED_SANITIZED"))
MARK = "CANARY" + uuid.uuid4().hex  # stands in every secret that we make up, so that one search finds all of them


class Secrets:
    """The secrets of the test by name; which of them lie in some bytes."""

    def __init__(self):
        self.all, self.special = {}, {}

    def new(self, name, odd=""):
        self.all[name] = f"{name.replace(' ', '-')}.{MARK}{odd}.{uuid.uuid4().hex}"
        return self.all[name]

    def found(self, data):
        """Names. A form of a secret that cannot be told from another's is "some secret"."""
        names = {n for n, fs in self.special.items() if any(f in data for f in fs)}
        if any(f in data for f in forms(MARK)):
            named = {n for n, s in self.all.items() if any(f in data for f in forms(s))}
            names |= named or {"some secret"}
        return names


GUEST = GO + """
got = b""
def keep(f):
    "All bytes that come over the connection, as they came."
    global got
    conn = f()
    io = getattr(conn, "io", conn)
    old = io.recv
    def recv(*a):
        global got
        d = old(*a); got += d
        return d
    io.recv = recv
    return conn
def ask(n, path, fake):
    two = keep(lambda: h2(n))
    codes = [ask2(path, n, [("authorization", "Bearer " + fake)], c=two).status for path in (path, "/echo", "/say/head/b64-1", "/say/trailer/percent")]
    one = keep(lambda: h1(n))
    try:
        codes.append(ask1("/say/pieces/plain/3", n, "Authorization: " + fake + "\\r\\n", c=one).status)
    except EOFError:
        codes.append("EOF")
    return codes
for n, path, fake in HOSTS:
    out[n] = ask(n, path, fake)
stuck = keep(lambda: h2("never.swap.test", timeout=60)); sid = stuck.request("never.swap.test", "/never")
say("up")
sys.stdin.readline()
out["never"] = stuck.wait(sid).status
out["got"], out["env"] = got.decode("latin-1"), dict(os.environ)
"""


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's shadow memory is too large to search")
def test_no_canary_anywhere(sm, world, mark, tmp_path):
    s, k = Secrets(), {n: "k" + uuid.uuid4().hex[:10] for n in ("body", "basic", "none", "error", "s500", "never", "exchange", "redirect", "twice", "again")}
    for n in ("body", "basic", "exchange"):
        s.special[f"token {n}"] = forms(w.token(k[n], 1))
    s.special["withdrawn token"], s.special["new token"] = (forms(w.token(k["again"], n)) for n in (1, 2))
    ec, ec_name = signing_key(world, tmp_path, "ES256")
    with open(ec) as f:
        s.special["signing key"] = key_forms(f.read())
    vault_token = s.new("vault token")
    world.vault_put(token=vault_token, kv={"good": {"key": s.new("vault key")}, "odd": {"key": s.new("vault odd", "\x01")}})
    env = {"ENV_KEY": s.new("env key"), "ENV_ODD": s.new("env odd", "\n"), "ENV_FAKE": s.new("env placeholder"), "CLIENT_ID": s.new("client id"),
           "CLIENT_SECRET": s.new("client secret"), "BASIC_SECRET": s.new("basic secret", ":&%+ "), "NEVER_SECRET": s.new("never secret"),
           "ERROR_SECRET": s.new("error secret"), "VAULT_ADDR": f"https://vault.test:{w.VAULT}", "VAULT_TOKEN": vault_token, "VAULT_CACERT": world.ca,
           "SLIRP_MED_LOG": "debug"}
    in_launcher = {n for n, v in s.all.items() if v in env.values()}
    fake = "sk-0000-placeholder-of-the-guest"
    path = {n: secret_file(tmp_path, n, s.new(n)) for n in ("file-key",)}
    open_file = secret_file(tmp_path, "open", s.new("open file"), 0o644)
    odd_file = secret_file(tmp_path, "odd", s.new("odd file", "\t") + "\nmore")
    pem = secret_file(tmp_path, "none.pem", "-----BEGIN PRIVATE KEY-----\n" + s.new("no key") + "\n-----END PRIVATE KEY-----\n")

    def end(how, n, *more):
        return "/".join([f"https://id.test/token/{how}/{k[n]}", *more])

    def client(host, url, secret="CLIENT_SECRET", **more):
        return {**oauth(host, url=url, **more), "client_secret_ref": f"env:{secret}"}
    entries = {
        "env": static("env.swap.test", ref="env:ENV_KEY"), "envodd": static("envodd.swap.test", ref="env:ENV_ODD"),
        "file": static("file.swap.test", ref=f"file:{path['file-key']}"), "open": static("open.swap.test", ref=f"file:{open_file}"),
        "odd": static("odd.swap.test", ref=f"file:{odd_file}"), "fake": static("fake.swap.test", ref="env:ENV_FAKE", placeholder=fake),
        "vault": static("vault.swap.test", ref="vault:kv/good#key"), "vaultodd": static("vaultodd.swap.test", ref="vault:kv/odd#key"),
        "nofield": static("nofield.swap.test", ref="vault:kv/good#nothing"), "body": client("body.swap.test", end("ok", "body")),
        "basic": client("basic.swap.test", end("ok", "basic"), "BASIC_SECRET", auth_style="basic"), "none": client("none.swap.test", end("none", "none")),
        "error": client("error.swap.test", end("error", "error"), "ERROR_SECRET"), "s500": client("s500.swap.test", end("status", "s500", "500")),
        "redirect": client("redirect.swap.test", end("redirect", "redirect")), "twice": client("twice.swap.test", end("twice", "twice")),
        "tls": client("tls.swap.test", "https://selfsigned.test/token/ok/x"), "meta": client("meta.swap.test", "https://meta.test/token"),
        "never": client("never.swap.test", end("never", "never"), "NEVER_SECRET"), "jwt": jwt("jwt.swap.test", key=ec),
        "exchange": jwt("exchange.swap.test", key=ec, token_url=end("assert", "exchange", ec_name)), "nokey": jwt("nokey.swap.test", key=pem),
        "again": client("again.swap.test", end("ok", "again"))}
    works = {"env", "file", "fake", "vault", "body", "basic", "jwt", "exchange", "again"}
    first = {"jwt": "/jwt/" + ec_name, "again": f"/current/{k['again']}/2"}
    hosts = [(f"{n}.swap.test", first.get(n, "/say/body/plain"), fake if n == "fake" else "mine") for n in entries if n != "never"]
    r = sm.start_guest(f"HOSTS = {hosts!r}\n" + GUEST, *STRICT, *swap_file(tmp_path, **entries), env=env)
    assert r.line(60) == "up"

    # The helper that waits for "never" is there; so is every other process.
    w.wait_for("the fetch helper", lambda: [p for p, role, _ in processes(sm.bin) if role == "fetch"])
    w.wait_for("the endpoint to be asked", lambda: world.tokens(mark, k["never"]))
    names = {pid: role for pid, role, _ in processes(sm.bin)}
    everybody = {pid: names.get(pid, "CMD") for pid in descendants(r.p.pid)}
    assert sorted(everybody.values()) == sorted(["CMD", "core", "fetch", "guest-init", "guest-init", "nat", "run", *sm.keeper]), everybody
    jwts = {v.removeprefix("Bearer ") for q in world.requests(mark) if q["host"] == "jwt.swap.test" for v in values(q, "authorization")}
    assert jwts, "no signed token arrived: the test would search for nothing"
    s.special["signed token"] = [t.encode() for t in jwts] + [t.rpartition(".")[2].encode() for t in jwts]
    for n, allowed in (("client secret", True), ("token body", True)):
        assert s.found(json.dumps(world.since(mark, "origin")).encode()) >= {n}, "what arrived at the servers is what is searched for"

    held, where = {}, {}
    for pid, role in everybody.items():
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            where[f"cmdline of {role}"] = f.read()
        if role not in ("run", "CMD"):
            where[f"environment of {role} {pid}"] = environment(pid)
        held.setdefault(role, set()).update(s.found(memory(pid)))
    where["environment of CMD"] = b"".join(environment(p) for p, role in everybody.items() if role == "CMD")
    for args in (("status", r.name), ("status", r.name, "--json"), ("egress", r.name), ("egress", r.name, "--json")):
        p = sm.cli(*args)
        assert p.returncode == 0 and p.stdout, p
        where[" ".join(args)] = p.stdout + p.stderr
    r.tell("")
    g = r.end(60)
    assert g.rc == 0, repr(g)

    everything = set(s.all) | set(s.special)
    assert held["core"] >= {"env key", "file-key", "vault key", "token body", "token exchange", "new token", "signing key"}, held["core"]
    assert held["run"] <= in_launcher, "the launcher has its own environment's, and no more"
    assert held["fetch"] <= {"client id", "never secret"} and "never secret" in held["fetch"], held["fetch"]
    for role in ("nat", "guest-init", "CMD"):
        assert not held[role], f"in the memory of {role}: {held[role]}"
    for n in entries:
        if n == "never":
            continue
        codes = g.out[f"{n}.swap.test"]
        assert codes[:4] == ([200] * 4 if n in works else [502] * 4) and codes[4] in (200, 502), (n, codes)
    where["what the guest got"] = g.out["got"].encode("latin-1")
    assert b"*" * 32 in where["what the guest got"], "the origins said credentials back"
    assert g.out["never"] == 502
    where["the guest's output"], where["stderr"] = g.stdout, r.said()
    assert b"core" in where["stderr"], "debugging was on"
    for at, _, files in os.walk(sm.state):
        for name in files:
            with open(os.path.join(at, name), "rb") as f:
                where[f"state: {name}"] = f.read()
    assert "state: egress.jsonl" in where
    assert {e["name"] for e in g.events("egress_swap_error")} == set(entries) - works and {e["name"] for e in g.events("egress_swap")} == works
    leaks = {place: s.found(data) for place, data in where.items()}
    leaks = {place: found for place, found in leaks.items() if found}
    assert not leaks, leaks
    assert everything


def test_the_search_itself_finds():
    """Each form in which a secret could lie about is found, and only then."""
    s = Secrets()
    key = s.new("one")
    for text in (key, base64.b64encode(b"a" + key.encode()).decode(), base64.urlsafe_b64encode(b"ab" + key.encode()).decode(), key.encode().hex(),
                 "".join(f"%{c:02X}" for c in key.encode())):
        assert s.found(b"..." + text.encode() + b"...") == {"one"}
    assert s.found(MARK.encode()) == {"some secret"}
    assert s.found(b"nothing " + canary().encode()) == set()
