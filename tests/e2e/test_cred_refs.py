# SPDX-License-Identifier: BSD-3-Clause
"""What a reference names: a file that changes, a file that is refused, a Vault (the stand-in of tests/world/credd.py). What cannot be had is 502
with a reason, and nothing else suffers."""
import json
import os
import time

import pytest
import worldlib as w
from credlib import GO, STRICT, arrived, canary, secret_file, static, swap_file, swapped

# Paths come by lines and answers go back; one connection of each protocol for the whole test.
LOOP = GO + """
two, last = h2(), time.monotonic()
for line in sys.stdin:
    path = line.strip()
    if not path:
        break
    s = ask2(path, c=two)
    say(json.dumps([s.status, s.json().get("reason") if s.status != 200 else None]))
"""


def ask(run, path):
    run.tell(path)
    return json.loads(run.line())


def until(run, path, want, seconds=2.0):
    """Ask until the answer is the one wanted; how long that took. The last path used is PATH/N."""
    begin, n = time.monotonic(), 0
    while True:
        n += 1
        got = ask(run, f"{path}/{n}")
        if got == want or time.monotonic() - begin > seconds:
            assert got == want, f"after {seconds} s still {got}"
            return f"{path}/{n}", time.monotonic() - begin


OK = [200, None]


def key_at(world, mark, path):
    return arrived(world, mark, path)[0].removeprefix("Bearer ")


def test_a_file_that_is_rotated_is_used_within_two_seconds(sm, world, mark, tmp_path):
    """Rewritten in place, and renamed over; a newline at the end is the editor's. What is missing, empty or open to others is 502, until it is well again."""
    keys = [canary(f"v{i}") for i in range(5)]
    path = secret_file(tmp_path, "key", keys[0] + "\n")
    r = sm.start_guest(LOOP, *STRICT, *swap_file(tmp_path, api=static("h2.test", ref=f"file:{path}")))
    assert ask(r, "/r/first") == OK and key_at(world, mark, "/r/first") == keys[0]

    def used(key, path, seconds=2.0):
        begin, n = time.monotonic(), 0
        while True:
            n += 1
            assert ask(r, f"{path}/{n}") == OK
            if key_at(world, mark, f"{path}/{n}") == key:
                return
            assert time.monotonic() - begin < seconds, "the old key is still used"
    with open(path, "w") as f:
        f.write(keys[1])
    used(keys[1], "/r/rewritten")
    os.rename(secret_file(tmp_path, "key.new", keys[2] + "\r\n"), path)
    used(keys[2], "/r/renamed")
    os.chmod(path, 0o644)
    until(r, "/r/open", [502, "ref_mode"])
    os.chmod(path, 0o600)
    assert key_at(world, mark, until(r, "/r/closed", OK)[0]) == keys[2]
    os.unlink(path)
    until(r, "/r/gone", [502, "ref_missing"])
    secret_file(tmp_path, "key", "")
    until(r, "/r/empty", [502, "ref_empty"])
    secret_file(tmp_path, "key", "\n")
    until(r, "/r/newline", [502, "value_empty"])
    secret_file(tmp_path, "key", "two\nlines")
    until(r, "/r/lines", [502, "value_invalid"])
    secret_file(tmp_path, "key", "x" * 70000)
    until(r, "/r/large", [502, "ref_too_large"])
    os.unlink(path)
    os.symlink(secret_file(tmp_path, "elsewhere", keys[3]), path)
    links = ask(r, "/r/link")
    os.unlink(path)
    os.mkdir(path, 0o700)
    until(r, "/r/folder", [502, "ref_not_a_file"])
    os.rmdir(path)
    secret_file(tmp_path, "key", keys[4])
    assert key_at(world, mark, until(r, "/r/again", OK)[0]) == keys[4]
    r.tell("")
    g = r.end()
    assert g.rc == 0, repr(g)
    assert links[0] in (200, 502)
    assert {x["reason"] for x in g.events("egress_swap_error")} >= {
        "ref_mode", "ref_missing", "ref_empty", "value_empty", "value_invalid", "ref_too_large", "ref_not_a_file"}
    assert len({x["flow"] for x in g.events("egress_swap") + g.events("egress_swap_error")}) == 1, "one connection for all of it"
    text = g.text() + g.stderr.decode("utf-8", "replace") + g.stdout.decode()
    assert not [k for k in keys if k in text]


@pytest.mark.core
def test_a_missing_credential_is_a_502_with_a_reason(sm, world, mark, tmp_path):
    """A variable that is unset or empty, a file that others may read: each request fails on its own, the connections and their neighbours live on."""
    open_file = secret_file(tmp_path, "open", canary(), 0o644)
    flags = swap_file(tmp_path, unset=static("a.swap.test", ref="env:NOT_THERE"), empty=static("b.swap.test", ref="env:EMPTY_KEY"),
                      mode=static("c.swap.test", ref=f"file:{open_file}"), odd=static("d.swap.test", ref="env:ODD_KEY"), good=static("e.swap.test", ref="env:GOOD_KEY"))
    r = sm.guest(GO + """
for x in "abcde":
    n = x + ".swap.test"
    c = h2(n)
    got = [c.ask(n, "/m/" + x + str(i)) for i in range(2)]
    out[x] = [[s.status, s.json().get("error"), s.json().get("reason"), s.get("content-type"), s.json().get("hint")] for s in got]
    out["ping " + x] = c.ping()
    a = ask1("/m/1" + x, n)
    out["1" + x] = [a.status, a.json().get("reason"), a.json().get("workspace")]
    raw = f"POST /m/p{x} HTTP/1.1\\r\\nHost: {n}\\r\\nContent-Length: 100000\\r\\n\\r\\n".encode() + b"z" * 100000
    out["post " + x] = h.outcome(lambda: h1(n).ask(raw, "POST").status)
""", *STRICT, *flags, env={"EMPTY_KEY": "", "ODD_KEY": "a\tb\x01c", "GOOD_KEY": canary()})
    words = {"a": "ref_missing", "b": "ref_empty", "c": "ref_mode", "d": "value_invalid"}
    for x, reason in words.items():
        for got in r.out[x]:
            assert got[:4] == [502, "bad_gateway", reason, "application/json"], r.out[x]
            assert got[4], f"{reason} has no hint"
        assert r.out["ping " + x] is True
        assert r.out["1" + x][:2] == [502, reason]
        assert r.out["post " + x] == 502
        rows = r.events("egress_swap_error", reason=reason)
        assert len(rows) == 4 and all({"flow", "req", "name", "type", "header", "host"} <= set(e) for e in rows), rows
        for e in rows:
            r.none("egress_http_request", flow=e["flow"], req=e["req"])
            r.none("egress_swap", flow=e["flow"], req=e["req"])
    assert [s[0] for s in r.out["e"]] == [200, 200] and r.out["1e"][0] == 200 and r.out["post e"] == 200
    swapped(r, "good", 4)
    r.none("egress_swap_error", name="good")
    r.none("egress_swap_fetch")
    assert not [q for q in world.requests(mark) if q["host"] in [x + ".swap.test" for x in words]]


def test_an_h1_connection_is_usable_after_a_502(sm, world, mark, tmp_path):
    """Issue 4, Failure: the flow's connection stays usable; HTTP/1 keeps it where the request had no body."""
    path = os.path.join(tmp_path, "late")
    r = sm.start_guest(GO + """
c = h1()
for path in ("/c/1", "/c/2"):
    a = ask1(path, c=c)
    say(json.dumps(a.status))
    sys.stdin.readline()
    time.sleep(1.2)  # what failed is looked at again after a second
""", *STRICT, *swap_file(tmp_path, api=static("origin.test", ref=f"file:{path}")))
    assert json.loads(r.line()) == 502
    secret_file(tmp_path, "late", canary())
    r.tell("")
    assert json.loads(r.line()) == 200
    r.tell("")
    g = r.end()
    assert g.rc == 0, repr(g)
    assert g.one("egress_swap_error")["flow"] == g.one("egress_swap")["flow"]


# ---- Vault ----

def vault_env(world, token, **more):
    return {"VAULT_ADDR": f"https://vault.test:{w.VAULT}", "VAULT_TOKEN": token, "VAULT_CACERT": world.ca, **more}


def test_vault_version_1_and_2(sm, world, mark, tmp_path):
    keys, token = [canary(f"vault{i}") for i in range(3)], canary("token")
    world.vault_put(token=token, secret={"team/openai": {"api.key": keys[0], "other": "x"}}, kv={"openai": {"value": keys[1]}}, namespace="team-a")
    flags = swap_file(tmp_path, two=static("a.swap.test", ref="vault:secret/data/team/openai#api.key"), one=static("b.swap.test", ref="vault:kv/openai#value"))
    r = sm.guest(GO + """
out["s"] = [ask2(f"/v/{x}{i}", x + ".swap.test").status for x in "ab" for i in range(3)]
out["env"] = dict(os.environ)
""", *STRICT, *flags, env=vault_env(world, token, VAULT_NAMESPACE="team-a"))
    assert r.out["s"] == [200] * 6, (r.out, r.text())
    for x, key in (("a", keys[0]), ("b", keys[1])):
        assert [arrived(world, mark, f"/v/{x}{i}") for i in range(3)] == [[f"Bearer {key}"]] * 3
    asked = world.vault_asked(mark)
    assert sorted(a["path"] for a in asked) == ["kv/openai", "secret/data/team/openai"], "one request a secret"
    assert all(a["token"] == token and a["namespace"] == "team-a" and a["method"] == "GET" for a in asked)
    fetches = r.events("egress_swap_fetch")
    assert len(fetches) == 2 and all(f["host"] == "vault.test" and f["dst"] == w.CRED["vault.test"] and f["port"] == w.VAULT for f in fetches), fetches
    assert token not in json.dumps(r.out) + r.text() and "VAULT_TOKEN" not in r.out["env"]


VAULT_FAILURES = {"denied": ("vault_denied", {}, {"VAULT_TOKEN": "hvs.wrong"}), "namespace": ("vault_denied", {}, {"VAULT_NAMESPACE": "other"}),
                  "missing": ("vault_not_found", {"secret": {}}, {}), "deleted": ("vault_not_found", {"secret": {"x": "deleted"}}, {}),
                  "sealed": ("vault_sealed", {"sealed": True}, {}), "field": ("vault_field_missing", {"secret": {"x": {"other": "v"}}}, {}),
                  "number": ("vault_field_invalid", {"secret": {"x": {"key": 7}}}, {}), "empty": ("vault_field_invalid", {"secret": {"x": {"key": ""}}}, {}),
                  "no token": ("ref_missing", {}, {"VAULT_TOKEN": None}), "untrusted": ("endpoint_tls", {}, {"VAULT_ADDR": "https://unknownca.test"}),
                  "metadata": ("endpoint_denied", {}, {"VAULT_ADDR": "https://meta.test"}), "loopback name": ("endpoint_denied", {}, {"VAULT_ADDR": "https://loop.test"})}


@pytest.mark.parametrize("what", VAULT_FAILURES)
def test_vault_fails(sm, world, mark, tmp_path, what):
    reason, state, env = VAULT_FAILURES[what]
    token = canary("token")
    world.vault_put(**{"token": token, "secret": {"x": {"key": canary()}}, **state})
    env = {k: v for k, v in {**vault_env(world, token), **env}.items() if v is not None}
    r = sm.guest(GO + """
c = h2(); s = c.ask("h2.test", "/f/1"); out["got"] = [s.status, s.json().get("reason")]
out["ping"], out["other"] = c.ping(), ask1("/f/other").status
""", *STRICT, *swap_file(tmp_path, api=static("h2.test", ref="vault:secret/data/x#key")), env=env)
    assert r.out == {"got": [502, reason], "ping": True, "other": 200}, (r.out, r.text())
    e = r.one("egress_swap_error", reason=reason, name="api")
    assert not world.requests(mark, path="/f/1")
    assert token not in r.text() and token.encode() not in r.stderr + r.stdout
    if reason in ("endpoint_denied", "ref_missing"):
        r.none("egress_swap_fetch")
        assert not world.wire(mark, dst="169.254.169.254") and not world.leaks(mark)
    else:
        r.some("egress_swap_fetch", name="vault")
    assert e["status"] == 502


def test_a_vault_secret_that_changes(sm, world, mark, tmp_path):
    """A lease of two seconds is used for one; then the new value comes, and a Vault that is sealed by then takes nothing away before its time."""
    keys, token = [canary("v1"), canary("v2")], canary("token")
    world.vault_put(token=token, kv={"x": {"key": keys[0]}}, lease=2)
    r = sm.start_guest(LOOP, *STRICT, *swap_file(tmp_path, api=static("h2.test", ref="vault:kv/x#key")), env=vault_env(world, token))
    assert ask(r, "/l/1") == OK and key_at(world, mark, "/l/1") == keys[0]
    world.vault_put(token=token, kv={"x": {"key": keys[1]}}, lease=2)
    begin, n = time.monotonic(), 1
    while key_at(world, mark, f"/l/{n}") != keys[1]:
        assert time.monotonic() - begin < 3, "the old value is used beyond its lease"
        n += 1
        assert ask(r, f"/l/{n}") == OK
    world.vault_put(token=token, sealed=True)
    until(r, "/l/sealed", [502, "vault_sealed"], 3)
    r.tell("")
    g = r.end()
    assert g.rc == 0, repr(g)
