# SPDX-License-Identifier: BSD-3-Clause
"""`slirp-med reload`: new lists are in force at once, flows that they do not allow end on both sides, and what is wrong changes nothing."""
import json
import os
import subprocess

import pytest
import worldlib as w
from conftest import USER

G, S = ("--egress", "guarded"), ("--egress", "strict")
OK, OTHER = w.WEB["ok.test"], w.WEB["other.test"]

# The guest does what the test tells it to, and answers each with one line of JSON.
LOOP = """
KEPT = {}
def flow(key, host, port=7):
    s = KEPT[key] = dial(host, port)
    s.sendall(b"x")
    return s.recv(1).decode()
def ask(key):
    s = KEPT[key]
    s.settimeout(8)
    try:
        s.sendall(b"y")
        return s.recv(1).decode() or "fin"
    except OSError as e: return err(e)
def how(key):      # the way the connection ends, below TLS
    with socket.socket(fileno=os.dup(KEPT[key].fileno())) as s:
        return read(s)[1]
def flow_udp(key, host, port):
    s = KEPT[key] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((host, port))
    return ask(key)
say("up")
while line := sys.stdin.readline().strip():
    say(json.dumps(eval(line, globals())))
"""


def policy(sm, text, name="policy.yaml"):
    path = os.path.join(sm.tmp, name)
    with open(path, "w") as f:
        f.write(text)
    return path


class Guest:
    def __init__(self, sm, *flags, **kw):
        self.sm, self.run = sm, sm.start_guest(LOOP, *flags, **kw)
        assert self.run.line() == "up", self.run.errors()

    def do(self, code):
        self.run.tell(code)
        return json.loads(self.run.line())

    def reload(self, *args, rc=0):
        p = self.sm.cli("reload", self.run.name, *args)
        assert p.returncode == rc, p
        return p.stdout.decode() if rc == 0 else p.stderr.decode()

    def end(self):
        self.run.tell("")
        return self.run.end()


@pytest.mark.core
def test_names_come_and_go(sm):
    f = policy(sm, "allow: [ok.test]\n")
    g = Guest(sm, *S, "--egress-policy", f, "--egress-allow", "listed.test")
    look = '[dns(n)["rcode"] for n in ("ok.test", "other.test", "listed.test")]'
    assert g.do(look) == [0, 5, 0]
    assert g.do(f'http("other.test", "{OTHER}")["reply"]').startswith("HTTP/1.1 403")
    policy(sm, "allow:\n  - other.test\n")
    assert g.do(look) == [0, 5, 0], "a file that nobody asked for is not read"
    assert g.reload() == "2 allowed, 0 passthrough, 0 denied\n"
    assert g.do(look) == [5, 0, 0], "flags stay"
    assert "host=other.test" in g.do('http("other.test")["reply"]')
    assert g.do(f'http("ok.test", "{OK}")["reply"]').startswith("HTTP/1.1 403")
    r = g.end()
    row = r.one("egress_policy")
    assert (row["allow"], row["passthrough"], row["deny"], row["reason"]) == (2, 0, 0, "reload"), row
    before = r.audit[:r.audit.index(row)]
    assert not [x for x in before if x["event"] == "egress_allow" and x.get("host") == "other.test"]


@pytest.mark.core
def test_flows_that_are_not_allowed_any_more_end(sm, world, mark):
    """TCP is reset, UDP gets ICMP, the server sees the end; what is still allowed does not notice."""
    f = policy(sm, f"allow: ['{w.PROTO}', '{OK}']\n")
    g = Guest(sm, *S, "--egress-policy", f)
    assert g.do(f'[flow("tcp", "{w.PROTO}"), flow("kept", "{OK}"), flow_udp("udp", "{w.PROTO}", 7)]') == ["x", "x", "y"]
    policy(sm, f"allow: ['{OK}']\n")
    g.reload()
    assert g.do('[ask(k) for k in ("tcp", "kept", "udp")]') == ["ECONNRESET", "y", "EHOSTUNREACH"]
    assert world.closed(mark, "echo"), "the server's side is over too"
    assert g.do(f'[attempt("{w.PROTO}", 7, b"\\0\\0")["end"], udp("{w.PROTO}", 7).get("error")]') == ["ECONNRESET", "EHOSTUNREACH"]
    r = g.end()
    assert r.one("egress_close", dst=w.PROTO, reason="policy_changed")["bytes_up"] == 1
    r.one("egress_udp_close", dst=w.PROTO, reason="policy_changed")
    assert r.one("egress_close", dst=OK)["reason"] != "policy_changed"


@pytest.mark.core
def test_an_intercepted_connection_ends(sm):
    """An HTTPS connection that is kept alive: its next request does not go out."""
    f = policy(sm, "allow: [ok.test]\n")
    g = Guest(sm, *G, "--egress-policy", f, "--egress-deny", "evil.test")
    begin = """
def https_flow(key, name):
    c = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])
    KEPT[key] = c.wrap_socket(dial(name, 443), server_hostname=name)
    return request(key, name)
def request(key, name):
    s = KEPT[key]
    s.settimeout(8)
    try:
        s.sendall(b"GET / HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n" % name.encode())
        return s.recv(12).decode()
    except OSError as e: return err(e)
"""
    g.do("exec(%r, globals())" % begin)
    assert g.do('https_flow("a", "ok.test")') == "HTTP/1.1 200"
    # Guarded allows a public name with no list: a denial needs the deny list, which flags alone have.
    assert g.reload() == "1 allowed, 0 passthrough, 1 denied\n"
    assert g.do('bool(request("a", "ok.test"))') is True
    r = g.end()
    r.none("egress_close", reason="policy_changed")

    s = Guest(sm, *S, "--egress-policy", f)
    s.do("exec(%r, globals())" % begin)
    assert s.do('https_flow("a", "ok.test")') == "HTTP/1.1 200"
    policy(sm, "allow: [other.test]\n")
    s.reload()
    assert s.do('how("a")') == "ECONNRESET" and not s.do('request("a", "ok.test")').startswith("HTTP")
    r = s.end()
    assert r.one("egress_close", reason="policy_changed")["mitm"] is True
    assert len(r.events("egress_http_request")) == len(r.events("egress_http_response")) == 1


def test_passthrough_that_is_taken_away(sm):
    """A TLS connection that nobody looked into ends when it would be looked into now; one that speaks no TLS goes on."""
    f = policy(sm, f"passthrough: [ok.test, '{w.PROTO}']\n")
    g = Guest(sm, *S, "--egress-policy", f)
    g.do("exec(%r, globals())" % """
def tls(key, name):
    c = ssl.create_default_context(cafile=os.environ["WORLD_CA"])
    KEPT[key] = c.wrap_socket(dial(name, 443), server_hostname=name)
    return True
""")
    assert g.do('tls("tls", "ok.test")') is True
    assert g.do(f'flow("plain", "{w.PROTO}")') == "x"
    policy(sm, f"allow: [ok.test, '{w.PROTO}']\n")
    g.reload()
    assert g.do('how("tls")') == "ECONNRESET" and g.do('ask("plain")') == "y"
    assert "host=ok.test" in g.do('https("ok.test")["reply"]')
    r = g.end()
    r.one("egress_close", host="ok.test", reason="policy_changed")


@pytest.mark.core
@pytest.mark.parametrize("text,line", [("allow:\n  - ok.test\n  - .com\n", 3), ("alow: [x.test]\n", 1), ("allow: [a.test\n", None), (None, None)])
def test_the_last_good_lists_stay(sm, text, line):
    f = policy(sm, f"allow: [ok.test, '{w.PROTO}']\n")
    g = Guest(sm, *S, "--egress-policy", f)
    assert g.do(f'flow("tcp", "{w.PROTO}")') == "x"
    if text is None:
        os.unlink(f)
    else:
        policy(sm, text)
    said = g.reload(rc=1)
    assert f in said and (line is None or f"{f}:{line}" in said), said
    assert g.do('[dns("ok.test")["rcode"], ask("tcp")]') == [0, "y"]
    r = g.end()
    r.none("egress_policy")


def test_another_file(sm):
    """--egress-policy names a file that takes the place of those before, now and later; one that is wrong does not."""
    f = policy(sm, "allow: [ok.test]\n")
    other = policy(sm, '{"allow": ["other.test"], "passthrough": [".listed.test"]}', "a b.json")
    g = Guest(sm, *S, "--egress-policy", f)
    look = '[dns(n)["rcode"] for n in ("ok.test", "other.test")]'
    p = sm.cli("reload", g.run.name, "--egress-policy", os.path.basename(other), "--json", cwd=sm.tmp)
    assert p.returncode == 0 and json.loads(p.stdout) == {"allow": 1, "passthrough": 1, "deny": 0}, p
    assert g.do(look) == [5, 0]
    wrong = policy(sm, "allow: [.com]\n", "wrong.yaml")
    assert f"{wrong}:1" in g.reload("--egress-policy", wrong, rc=1)
    policy(sm, '{"allow": ["ok.test", "other.test"]}', "a b.json")
    assert g.reload() == "2 allowed, 0 passthrough, 0 denied\n" and g.do(look) == [0, 0]
    g.end()


def test_what_cannot_be_reloaded(sm):
    g = Guest(sm, *G)
    assert "started without --egress-policy" in g.reload(rc=1)
    f = policy(sm, "allow: [ok.test]\n")
    g.reload("--egress-policy", f)  # and now there is one
    g.reload()
    g.end()
    g = Guest(sm, "--egress", "off")
    assert "--egress off" in g.reload("--egress-policy", f, rc=1)
    g.end()
    run = sm.start("--network", "isolated", cmd=["sh", "-c", "echo up; read x"], stdin=subprocess.PIPE)
    assert run.line() == "up"
    p = sm.cli("reload", run.name, "--egress-policy", f)
    assert p.returncode == 1 and b"isolated" in p.stderr, p
    run.tell("")
    run.end()
    for args, words in ((("nosuch",), "nosuch"), ((), "NAME"), (("x", "--egress-policy"), "--egress-policy"), (("x", "--egress-policy="), "empty"),
                        (("x", "--egress-policy=a", "--egress-policy", "b"), "twice"), (("x", "--force"), "--force")):
        p = sm.cli("reload", *args)
        assert p.returncode == 2 and words in p.stderr.decode(), (args, p)
    assert sm.cli("reload", "--help").returncode == 0


def test_a_credential_keeps_its_host_listed(sm):
    """Lists with which a credential could not apply are refused, as they would be at the start."""
    swap = policy(sm, "swaps:\n  x:\n    type: static\n    domains: [ok.test]\n    key_ref: env:KEY\n", "swap.yaml")
    f = policy(sm, "allow: [ok.test]\n")
    g = Guest(sm, *G, "--egress-policy", f, "--egress-swap-config", swap, env={"KEY": "secret-of-the-test"})
    policy(sm, "allow: [other.test]\n")
    said = g.reload(rc=1)
    assert "ok.test" in said and "not listed" in said and "secret" not in said, said
    g.end()


def test_held_refusals_are_asked_again(sm):
    """The front repeats a refusal by itself for a second; a reload ends that."""
    f = policy(sm, "allow: [ok.test]\n")
    g = Guest(sm, *G, "--egress-policy", f)
    dial_it = 'attempt("10.0.0.5", 80, b"GET / HTTP/1.0\\r\\n\\r\\n")'
    assert sm.refused(g.do(dial_it))
    policy(sm, "allow: ['10.0.0.5']\n")
    assert sm.refused(g.do(dial_it))  # in the middle of the second
    g.reload()
    r = g.do(dial_it)
    assert r["connect"] == "ok" and '"local": "10.0.0.5"' in r["reply"], r
    g.end()


def test_many_reloads_under_load(sm):
    """A hundred reloads, with connections coming and going: none that is allowed all the time is hurt, and all lines are there."""
    f = policy(sm, f"allow: ['{w.PROTO}', '{OK}']\n")
    g = Guest(sm, *S, "--egress-policy", f)
    g.do("exec(%r, globals())" % f"""
STOP, SEEN = threading.Event(), []
def work():
    while not STOP.is_set():
        SEEN.append(attempt("{w.PROTO}", 7, b"z", n=1)["reply"])
T = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in T]
""")
    for i in range(100):
        policy(sm, f"allow: ['{w.PROTO}'" + (f", '{OK}'" if i % 2 else "") + "]\n")
        g.reload()
    seen = g.do("(STOP.set(), [t.join() for t in T], SEEN)[-1]")
    assert len(seen) > 20 and set(seen) == {"z"}, set(seen)
    r = g.end()
    assert len(r.events("egress_policy")) == 100
    r.none("egress_close", reason="policy_changed")


def test_two_at_once(sm):
    """Each is answered, and the later one is in force or said to be busy."""
    f = policy(sm, "allow: [ok.test]\n")
    g = Guest(sm, *S, "--egress-policy", f)
    ps = [subprocess.Popen(USER + [sm.bin, "reload", g.run.name], env=sm.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    for p in ps:
        so, se = p.communicate(timeout=30)
        assert (p.returncode, se) == (0, b"") or b"another policy is being loaded" in se or b"busy" in se, (p.returncode, se)
    assert g.do('dns("ok.test")["rcode"]') == 0
    assert g.end().rc == 0


def test_strangers_on_the_control_socket(sm):
    """Whatever is asked there, the answer is one line, and the workspace lives."""
    g = Guest(sm, *G, name="strange")
    path = os.path.join(sm.state, "slirp-med", "strange", "control.sock")
    ask = "import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(5)\n" \
          "s.sendall(sys.stdin.buffer.read()); print(s.recv(1 << 16).decode())"
    for line, words in ((b"policy relative.yaml\n", "absolute"), (b"policy /nonexistent\n", "/nonexistent"), (b"policy /dev/null\n", "regular"),
                        (b"policy \xff\xfe\n", "absolute"), (b"publish \x1b[31m\n", "HOST:HOSTPORT"), (b"reload now\n", "unknown"),
                        (b"policy\n", "unknown")):
        p = subprocess.run(USER + ["/usr/bin/python3", "-c", ask, path], input=line, capture_output=True, timeout=20)
        answer = json.loads(p.stdout)
        assert answer["ok"] is False and words in answer["error"] and "\x1b" not in p.stdout.decode(), (line, p)
    assert g.end().rc == 0
