# SPDX-License-Identifier: BSD-3-Clause
"""HTTP of the languages: Python's libraries, Node, Go, Java, Rust. Each with its own TLS, its own idea of trust, its own HTTP."""
import hashlib
import os
import shutil
import subprocess

import pytest
import worldlib as w
from conftest import DIRECT, PROGRAMS, need, need_modules

MIB = w.pattern(1 << 20)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def ours(issuer):
    """The leaf came from the workspace's CA."""
    return DIRECT or "world" not in str(issuer)


# --- Python ---

@pytest.mark.parametrize("host", ["origin.test", "h2.test", "tls12.test"])
def test_python_strict(client, world, mark, host):
    """VERIFY_X509_STRICT, the default since Python 3.13, and a partial chain: the leaf profile has to stand it."""
    r = client.python("strict.py", host, "/echo/strict", allow=[host])
    o = r.json()
    assert (o["status"], o["again"], o["alpn"]) == (200, 200, "http/1.1") and ours(o["issuer"]), o
    assert DIRECT or o["names"] == [["DNS", host]], "the leaf is for the name asked for and no other"
    one, two = world.requests(mark)
    assert (one["target"], two["target"]) == ("/echo/strict", "/echo/strict/post")
    assert (two["body"], two["chunks"]) == (2000, ["3E8", "3E8"]), "the chunks are as they were"
    r.intercepted(host, "http/1.1", ("GET", "/echo/strict", 200), ("POST", "/echo/strict/post", 200))
    r.quiet()


def test_python_urllib(client, world, mark):
    r = client.python("urllib_default.py", "https://h2.test/echo/urllib", allow=["h2.test"])
    assert r.json()["path"] == "/echo/urllib"
    r.intercepted("h2.test", client.agreed(mark), ("GET", "/echo/urllib", 200))


def test_pycurl(client, world, mark):
    """libcurl over GnuTLS, HTTP/2: a MiB each way, trailers, one connection."""
    need_modules("pycurl")
    body = os.path.join(client.tmp, "body")
    with open(body, "wb") as f:
        f.write(MIB)
    r = client.python("pycurl_h2.py", "https://h2.test", body, allow=["h2.test"])
    o = r.json()
    assert "GnuTLS" in o["version"], "the matrix wants the libcurl with GnuTLS"
    assert [x[:4] for x in o["rows"]] == [[200, 3, 1, 0], [200, 3, 0, 0], [200, 3, 0, 0]], o  # 3: CURL_HTTP_VERSION_2
    assert o["rows"][0][4] == 1 << 20 and o["body"] == sha(MIB)
    assert f"x-sum: {sha(w.pattern(30000))}" in o["trailers"], o
    assert {x["proto"] for x in world.requests(mark)} == {"h2"} and len({x["id"] for x in world.requests(mark)}) == 1
    r.intercepted("h2.test", "h2", ("GET", "/bytes/1048576", 200), ("PUT", "/echo/put", 200))
    r.quiet()


def test_requests(client, world, mark):
    need_modules("requests")
    r = client.python("requests_h1.py", "origin.test", allow=["origin.test"])
    o = r.json()
    assert o["one"]["target"] == "/echo/json?a=%20b" and o["one"]["sha256"] == sha(b'{"k": "v"}')
    assert o["two"]["body"] == 100000 and len(o["two"]["chunks"]) == 20
    assert o["gzip"] == sha(w.pattern(100000)) and o["stream"] == sha(w.pattern(300000))
    assert o["status"] == [204, 304, 403, 500] and o["head"] == "777"
    got = world.requests(mark)
    assert len(got) == 9 and {dict(x["headers"])["User-Agent"].strip() for x in got} == {"requests-matrix"}
    assert len({x["id"] for x in got}) == 1, "one connection is kept"
    r.intercepted("origin.test", "http/1.1", ("POST", "/echo/json", 200), ("GET", "/status/204", 204), ("GET", "/status/500", 500),
                  ("HEAD", "/bytes/777", 200))
    r.quiet()


def test_httpx_http2(client, world, mark):
    need_modules("httpx", "h2")
    r = client.python("httpx_h2.py", "h2.test", allow=["h2.test"])
    o = r.json()
    assert o["versions"] == ["HTTP/2"] and o["status"] == [200] and o["order"] == [str(i) for i in range(28)]
    assert o["up"] == sha(b"m" * (1 << 20)) and o["down"] == sha(MIB)
    got = world.requests(mark)
    assert len(got) == 30 and {x["proto"] for x in got} == {"h2"} and len({x["id"] for x in got}) == 1
    r.intercepted("h2.test", "h2", ("POST", "/echo/big", 200), ("GET", "/echo/27", 200))
    r.quiet()


def test_aiohttp(client, world, mark):
    need_modules("aiohttp")
    r = client.python("aiohttp_h1.py", "origin.test", allow=["origin.test"])
    o = r.json()
    assert o["paths"] == [f"/echo/{i}" for i in range(20)] and o["up"] == 100000
    assert (o["text"], o["size"], o["code"]) == ("grüße", 100000, 4000)
    assert len(world.requests(mark)) == 22
    r.intercepted("origin.test", client.agreed(mark), ("GET", "/echo/19", 200), ("PUT", "/echo/up", 200), ("GET", "/ws", 101))
    r.quiet()


def test_python_websockets(client, world, mark):
    need_modules("websockets")
    r = client.python("ws_python.py", "wss://origin.test/ws", allow=["origin.test"])
    o = r.json()
    assert o == {"echo": ["one", "", "grüße"], "size": 1 << 20, "code": 1000}
    (q,) = world.requests(mark)
    assert "permessage-deflate" in str(q["headers"])
    r.intercepted("origin.test", client.agreed(mark), ("GET", "/ws", 101))
    r.quiet()


# --- Node ---

def test_node_fetch(client, world, mark):
    need("node")
    r = client.run("node", os.path.join(PROGRAMS, "fetch.mjs"), "origin.test", allow=["origin.test"])
    o = r.json()
    assert o["paths"] == [f"/echo/{i}" for i in range(20)] and o["up"] == 100000
    assert o["gzip"] == sha(w.pattern(100000)) and o["stream"] == sha(w.pattern(300000)) and o["statuses"] == [204, 403, 500]
    got = world.requests(mark)
    assert len(got) == 26 and {x["proto"] for x in got} == {"h1"}
    r.intercepted("origin.test", client.agreed(mark), ("GET", "/echo/19", 200), ("POST", "/echo/up", 200))
    r.quiet()


def test_node_http2(client, world, mark):
    need("node")
    r = client.run("node", os.path.join(PROGRAMS, "http2.mjs"), "h2.test", allow=["h2.test"])
    o = r.json()
    assert o["alpn"] == "h2" and ours(o["issuer"]) and o["order"] == [str(i) for i in range(50)]
    assert o["up"] == 1 << 20 and o["sum"] == o["body"] == sha(w.pattern(30000))
    assert (o["reset"], o["beginning"], o["after"]) == (11, "beginning", 200), "the reset has its code, and it is the stream's alone"
    got = world.requests(mark)
    assert len(got) == 54 and len({x["id"] for x in got}) == 1
    r.intercepted("h2.test", "h2", ("GET", "/echo/49", 200), ("POST", "/echo/up", 200), ("GET", "/rst/11", 200), ("GET", "/echo/after", 200))
    r.quiet()


def test_node_ws(client, world, mark):
    need("node", "/usr/share/nodejs/ws/package.json", package="node-ws")
    r = client.run("node", os.path.join(PROGRAMS, "ws.cjs"), "wss://origin.test/ws", allow=["origin.test"], env={"NODE_PATH": "/usr/share/nodejs"})
    assert r.json() == {"echo": ["one", "grüße 1", "grüße 2"], "size": 1 << 20, "pong": "there?", "code": 4001}
    (q,) = world.requests(mark)
    assert dict(q["headers"])["Upgrade"].strip() == "websocket"
    r.intercepted("origin.test", client.agreed(mark), ("GET", "/ws", 101))
    r.quiet()


# --- Go ---

@pytest.fixture(scope="session")
def go_program(tmp_path_factory):
    need("go", package="golang-go")
    d = tmp_path_factory.mktemp("go")
    env = {k: v for k, v in os.environ.items() if not k.startswith("GO")}
    env.update(GOPROXY="off", GOTOOLCHAIN="local", GOENV="off", GOCACHE=str(d / "cache"), GOPATH=str(d / "path"), CGO_ENABLED="0", GO111MODULE="off")
    p = subprocess.run(["go", "build", "-o", str(d / "get"), os.path.join(PROGRAMS, "get.go")], env=env, capture_output=True, text=True, cwd=d)
    assert p.returncode == 0, p.stderr
    return str(d / "get")


@pytest.mark.parametrize("version,host", [("h1", "origin.test"), ("h2", "h2.test")])
def test_go(client, world, mark, go_program, version, host):
    r = client.run(go_program, f"https://{host}", version, allow=[host])
    o = r.json()
    assert o["good"] == 20 and o["up"] == 1 << 20 and o["gzip"] == 100000 and ours(o["issuer"]), o
    assert o["proto"] == {"h1": "HTTP/1.1", "h2": "HTTP/2.0"}[version]
    assert [[k.lower(), v.strip()] for k, v in o["trailers_up"]] == [["x-end", "of it"]], o
    assert o["trailer"] == o["sum"] == sha(w.pattern(300000 if version == "h1" else 30000))
    got = world.requests(mark)
    assert len(got) == 23 and {x["proto"] for x in got} == {version}
    r.intercepted(host, client.agreed(mark), ("GET", "/echo/19", 200), ("PUT", "/echo/up", 200))
    r.quiet("closed_in_handshake")  # a program of Go ends while connections that it does not need any more are being made


# --- Java ---

@pytest.mark.parametrize("version,host", [("HTTP_1_1", "origin.test"), ("HTTP_2", "h2.test")])
def test_java(client, world, mark, version, host):
    need("java", package="openjdk-17-jdk-headless")
    r = client.run("java", os.path.join(PROGRAMS, "Get.java"), host, version, allow=[host])
    o = r.json()
    assert o["version"] == version and o["good"] == 20 and o["up"] is True and o["down"] == sha(MIB) and ours(o["issuer"]), o
    got = world.requests(mark)
    assert len(got) == 23 and {x["proto"] for x in got} == {{"HTTP_2": "h2", "HTTP_1_1": "h1"}[version]}
    r.intercepted(host, client.agreed(mark), ("GET", "/echo/19", 200), ("PUT", "/echo/up", 200))
    r.quiet()


def test_java_in_clear(client, world, mark):
    """Out of the box it offers h2c on http:// and goes on with HTTP/1.1 when nobody takes it up; the origin does not see the offer."""
    need("java", package="openjdk-17-jdk-headless")
    r = client.run("java", os.path.join(PROGRAMS, "Clear.java"), "origin.test", allow=["origin.test"])
    o = r.json()
    assert o == {"status": [200, 200], "version": "HTTP_1_1", "path": True, "up": True}, o
    got = world.requests(mark, srv="http")
    assert [x["target"] for x in got] == ["/echo/java", "/echo/put"] and {x["proto"] for x in got} == {"h1"}
    raw = world.received(mark, "http").lower()
    assert b"user-agent: java-http-client/" in raw and raw.count(b" http/1.1\r\n") == 2, raw
    if DIRECT:
        assert b"upgrade: h2c" in raw, "the program still offers it; otherwise this test says nothing"
        return
    assert b"h2c" not in raw and b"upgrade" not in raw and b"http2-settings" not in raw, raw
    assert [x["protocol"] for x in r.result.events("egress_http_request")] == ["HTTP/1.1"] * 2, repr(r)
    r.quiet()


# --- Rust ---

@pytest.fixture(scope="session")
def rust_program(tmp_path_factory):
    """Built from the distribution's crates, offline."""
    need("/usr/bin/cargo", "/usr/bin/rustc", "/usr/share/cargo/registry", package="librust-rustls-dev librust-rustls-pemfile-dev")
    d = tmp_path_factory.mktemp("rust")
    shutil.copytree(os.path.join(PROGRAMS, "rustls"), d / "get")
    (d / "get/.cargo").mkdir()
    (d / "get/.cargo/config.toml").write_text('[source]\ncrates-io.replace-with = "debian"\ndebian.directory = "/usr/share/cargo/registry"\n')
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CARGO", "RUST"))}
    p = subprocess.run(["/usr/bin/cargo", "build", "--offline", "--quiet"], cwd=d / "get", capture_output=True, text=True,
                       env={**env, "RUSTC": "/usr/bin/rustc", "CARGO_HOME": str(d / "home")})
    assert p.returncode == 0, p.stderr
    return str(d / "get/target/debug/get")


@pytest.mark.parametrize("host,tls", [("h2.test", "TLSv1_3"), ("tls12.test", "TLSv1_2")])
def test_rustls(client, world, mark, rust_program, host, tls):
    """webpki wants a SAN, a basic constraint on the CA, an end with close_notify."""
    r = client.run(rust_program, host, "/echo/rust", allow=[host])
    assert '"target": "/echo/rust"' in r.out and "http/1.1" in r.err, repr(r)
    assert not DIRECT or tls in r.err
    assert [x["target"] for x in world.requests(mark)] == ["/echo/rust"]
    r.intercepted(host, "http/1.1", ("GET", "/echo/rust", 200))
    r.quiet()
