# SPDX-License-Identifier: BSD-3-Clause
"""A guest that wants the credential itself, or that wants the core to lose count of what it asked for."""
import json
import os
import uuid

from credlib import GO, STRICT, arrived, canary, oauth, secret_file, static, swap_file

KEY = canary("attack")
ENV = {"API_KEY": KEY}


def test_a_renewed_key_stays_hidden(sm, world, mark, tmp_path):
    """A key is renewed by a rename, which takes a cover off a file: its folder is covered. Where that cannot be, the operator is told at the start."""
    own = tmp_path / "keys"
    own.mkdir(mode=0o700)
    first, second = canary("first"), canary("second")
    key = secret_file(own, "key", first)
    flags = swap_file(tmp_path, api=static("h2.test", ref=f"file:{key}"), later=static("origin.test", ref=f"file:{own}/later"))
    r = sm.start_guest(GO + f"""
def look(path={key!r}):
    try:
        return open(path).read()
    except OSError as e:
        return type(e).__name__
say(json.dumps([look(), ask2("/n/1").status]))
sys.stdin.readline()
time.sleep(1.2)  # a file is looked at again after a second
say(json.dumps([look(), look({str(own)!r} + "/later"), ask2("/n/2").status]))
""", *STRICT, *flags)
    assert json.loads(r.line()) == ["PermissionError", 200]
    os.rename(secret_file(own, "key.new", second), key)
    secret_file(own, "later", canary())
    r.tell("")
    assert json.loads(r.line()) == ["PermissionError", "PermissionError", 200]
    g = r.end()
    assert g.rc == 0 and b"warning" not in g.stderr, repr(g)
    assert [arrived(world, mark, f"/n/{i}") for i in (1, 2)] == [[f"Bearer {first}"], [f"Bearer {second}"]]
    mixed = secret_file(tmp_path, "among-others", first)
    g = sm.guest("pass", *STRICT, *swap_file(tmp_path, api=static("h2.test", ref=f"file:{mixed}")))
    assert f"{mixed} is not in a folder of its own".encode() in g.stderr, g.stderr


def test_a_guest_cannot_put_another_key_in_its_place(sm, world, mark, tmp_path):
    """It renames a folder above a key, and puts one there with a link to another host's key: the key is looked for where it was at the start."""
    own, others = tmp_path / "above" / "keys", tmp_path / "others"
    own.mkdir(parents=True, mode=0o700)
    others.mkdir(mode=0o700)
    first, second = canary("first"), canary("second")
    key, other = secret_file(own, "key", first), secret_file(others, "key", second)
    flags = swap_file(tmp_path, api=static("h2.test", ref=f"file:{key}"), other=static("origin.test", ref=f"file:{other}"))
    r = sm.guest(GO + f"""
out["before"] = ask2("/p/1").status
os.rename({str(tmp_path / "above")!r}, {str(tmp_path / "moved")!r})
os.makedirs({str(own)!r}, 0o700)
os.symlink({other!r}, {key!r})
for i in (2, 3):
    time.sleep(1.2)  # a file is looked at again after a second
    out[i] = ask2(f"/p/{{i}}").status
""", *STRICT, *flags)
    assert set(r.out.values()) == {200}, r.out
    assert [arrived(world, mark, f"/p/{i}") for i in (1, 2, 3)] == [[f"Bearer {first}"]] * 3


def test_no_piece_of_an_answer_can_be_asked_for(sm, world, mark, tmp_path):
    """A range that the guest chooses would cut the secret out of an echo in pieces that no scrub knows. Where nothing is scrubbed ranges go through."""
    code = GO + """
out["h1"] = ask1("/r/1", extra="Range: bytes=0-3\\r\\nrequest-range: bytes=0-3\\r\\nA-IM: vcdiff\\r\\nConnection: range, x-other\\r\\nX-Other: 1\\r\\n").status
out["h2"] = ask2("/r/2", extra=[("range", "bytes=0-3"), ("request-range", "bytes=0-3"), ("a-im", "vcdiff"), ("x-other", "1")]).status
"""
    for scrub in (True, False):
        world.sync()
        at = world.mark()
        r = sm.guest(code, *STRICT, *swap_file(tmp_path, api=static("origin.test", "h2.test", scrub=scrub)), env=ENV)
        assert r.out == {"h1": 200, "h2": 200}
        for path in ("/r/1", "/r/2"):
            for name in ("range", "request-range", "a-im"):
                assert len(arrived(world, at, path, name)) == (0 if scrub else 1), (path, name, scrub)
            assert arrived(world, at, path, "x-other") == ["1"]
        if scrub:
            assert arrived(world, at, "/r/1", "connection") == ["x-other"]


def test_a_request_without_an_authority(sm, world, mark, tmp_path):
    """HTTP/1.0 without Host would go where its connection goes, without the credential and its answer unscrubbed: the host may know the key by then."""
    r = sm.guest(GO + f"""
a = h1().ask(b"GET /say/body/plain HTTP/1.0\\r\\nX-Secret: {KEY}\\r\\n\\r\\n")
out["got"] = [a.status, a.body.decode("latin-1")]
""", *STRICT, *swap_file(tmp_path, api=static("origin.test")), env=ENV)
    assert r.out["got"][0] == 421 and KEY not in r.out["got"][1], (r.out, r.text())
    r.one("egress_deny", reason="authority_mismatch")
    assert not world.requests(mark)


def test_no_say_in_how_it_travels(sm, world, mark, tmp_path):
    """A target with the scheme http, which a server that is a proxy would fetch in cleartext with the credential; TRACE in letters that a lax server takes."""
    r = sm.guest(GO + """
for i, line in enumerate(("GET http://origin.test/t/0", "GET HTTP://origin.test:443/t/1", "trace /t/2", "Track /t/3", "GET HTTPS://origin.test/t/4")):
    a = h1().ask(f"{line} HTTP/1.1\\r\\nHost: origin.test{':443' * (i == 1)}\\r\\n\\r\\n".encode())
    out[i] = [a.status, a.json()["reason"] if a.status != 200 else None]
out["other"] = h1("alias.test").ask(b"GET http://alias.test/t/5 HTTP/1.1\\r\\nHost: alias.test\\r\\n\\r\\n").status
""", *STRICT, *swap_file(tmp_path, api=static("origin.test")), env=ENV)
    refused = [[403, "cleartext_with_credential"]] * 2 + [[403, "trace_with_credential"]] * 2
    assert r.out == {**{str(i): x for i, x in enumerate(refused)}, "4": [200, None], "other": 200}, r.out
    assert len(world.requests(mark)) == 2


def test_requests_that_are_taken_back_while_they_wait(sm, world, mark, tmp_path):
    """They are no requests any more when the token is there: no line says that one was passed, and the connection still has all its places."""
    k = "k" + uuid.uuid4().hex[:10]
    flags = swap_file(tmp_path, api=oauth("h2.test", url=f"https://id.test/token/slow/{k}/1500"))
    r = sm.guest(GO + """
c = h2()
for i in range(5):
    c.rst(c.request("h2.test", f"/back/{i}"))
s = c.ask("h2.test", "/stays")
out["s"] = [s.status, s.body.decode("latin-1")[:200]]
""", *STRICT, *flags, env={"CLIENT_ID": "an-id", "CLIENT_SECRET": canary()})
    assert r.out["s"][0] == 200
    assert [x["path"] for x in r.events("egress_http_request")] == ["/stays"], r.text()
    r.one("egress_swap")
