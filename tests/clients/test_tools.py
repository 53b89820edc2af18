# SPDX-License-Identifier: BSD-3-Clause
"""Programs of the command line: curl, wget, git, openssl, gnutls-cli, nghttp, h2load."""
import hashlib
import os
import re
import subprocess

import pytest
import worldlib as w
from conftest import DIRECT, need

MIB = w.pattern(1 << 20)


def names(headers):
    return [k.lower() for k, _ in headers]


@pytest.mark.parametrize("version,alpn,host", [
    ("--http1.1", "http/1.1", "origin.test"), ("--http1.1", "http/1.1", "h2.test"), ("--http2", "h2", "h2.test"),
    ("--http2", "http/1.1", "origin.test"), ("--no-alpn", None, "origin.test")])
def test_curl(client, world, mark, version, alpn, host):
    """Debian's curl is OpenSSL's. Two requests on one connection, the second with a body that is asked for (Expect) and then chunked."""
    need("curl")
    assert "OpenSSL" in subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout
    body = os.path.join(client.tmp, "body")
    with open(body, "wb") as f:
        f.write(MIB)
    url = f"https://{host}"
    show = ["-w", "%{stderr}%{http_code} %{http_version} %{ssl_verify_result} %{num_connects}\n"]
    get = ["curl", "-sS", version, *show, "-A", "Matrix/1", "-H", "X-Mixed-Case: One  Two", f"{url}/echo/one?q=1"]
    put = ["-sS", version, *show, "-T", body, "-H", "Expect: 100-continue", f"{url}/echo/two"]
    r = client.run(*get, "--next", *(["-H", "Transfer-Encoding: chunked"] if alpn != "h2" else []), *put, allow=[host])
    http = "2" if alpn == "h2" else "1.1"
    assert [x for x in r.err.splitlines() if x[:1] == "2"] == [f"200 {http} 0 1", f"200 {http} 0 0"], repr(r)
    one, two = world.requests(mark)
    assert (one["method"], one["target"], one["host"], one["proto"]) == ("GET", "/echo/one?q=1", host, "h2" if alpn == "h2" else "h1")
    spelling = "x-mixed-case" if alpn == "h2" else "X-Mixed-Case"
    assert [k for k, v in one["headers"] if v.strip() == "One  Two"] == [spelling], one
    assert not [k for k in names(one["headers"]) if k in ("via", "forwarded") or k.startswith("x-forwarded")], one
    assert (two["method"], two["body"], two["sha256"]) == ("PUT", len(MIB), hashlib.sha256(MIB).hexdigest())
    assert alpn == "h2" or len(two["chunks"]) > 1, two
    assert one["id"] == two["id"], "one connection here is one connection there"
    hello = world.hellos(mark)
    assert len(hello) == 1 and hello[0]["sni"] == host, hello
    offer = {"--http1.1": ["http/1.1"], "--http2": ["h2", "http/1.1"], "--no-alpn": []}[version]
    assert hello[0]["alpn"] == offer, "upstream is offered what the guest offers"
    r.intercepted(host, alpn, ("GET", "/echo/one", 200), ("PUT", "/echo/two", 200))
    r.quiet()


def test_curl_in_clear_offers_h2c(client, world, mark):
    """--http2 on http:// offers an upgrade; nobody takes it up, the origin does not see it, and the rest of the head is as curl wrote it."""
    need("curl")
    show = ["-w", "%{stderr}%{http_code} %{http_version} %{num_connects}\\n"]
    common = ["-sSv", "--http2", *show, "-A", "Matrix/1", "-H", "X-Mixed-Case: One  Two"]
    r = client.run("curl", *common, "http://origin.test/echo/one?q=1", "--next", *common, "-d", "hello", "http://origin.test/echo/two",
                   allow=["origin.test"])
    assert "> Upgrade: h2c" in r.err, "curl offers it; otherwise this test says nothing"
    assert [x for x in r.err.splitlines() if x.startswith("200 ")] == ["200 1.1 1", "200 1.1 0"], repr(r)
    one, two = world.requests(mark, srv="http")
    assert (one["target"], two["target"], two["method"], two["body"]) == ("/echo/one?q=1", "/echo/two", "POST", 5)
    raw = world.received(mark, "http")
    if DIRECT:
        assert b"Upgrade: h2c" in raw
        return
    head = b"GET /echo/one?q=1 HTTP/1.1\r\nHost: origin.test\r\nUser-Agent: Matrix/1\r\nAccept: */*\r\nX-Mixed-Case: One  Two\r\n\r\n"
    assert raw.startswith(head) and not [x for x in (b"h2c", b"upgrade", b"http2-settings") if x in raw.lower()], raw
    r.quiet()


def test_curl_is_shown_the_workspaces_ca(client, world):
    r = client.run("curl", "-sSv", "https://ok.test/hello", allow=["ok.test"])
    issuer = re.search(r"issuer: (.*)", r.err).group(1)
    assert r.out == "hello\n" and "ALPN: server accepted h2" in r.err
    assert DIRECT or "world test CA" not in issuer, issuer


def test_curl_refused_name(client, world, mark):
    """A second name over the first one's connection is for the origin of neither: 421, and the connection lives on."""
    if DIRECT:
        pytest.skip("about the product alone")
    r = client.run("curl", "-sS", "-w", "%{stderr}%{http_code} %{num_connects}\n", "-H", "Host: evil.test", "https://h2.test/echo/x",
                   "--next", "-sS", "-w", "%{stderr}%{http_code} %{num_connects}\n", "https://h2.test/echo/y", allow=["h2.test"])
    assert r.err.split() == ["421", "1", "200", "0"], repr(r)
    assert [x["target"] for x in world.requests(mark)] == ["/echo/y"]


def test_wget(client, world, mark):
    """GnuTLS, HTTP/1.1, gzip left alone, a file of a MiB."""
    need("wget")
    to = os.path.join(client.tmp, "got")
    r = client.run("wget", "-nv", "-O", to, "https://origin.test/bytes/1048576", allow=["origin.test"])
    with open(to, "rb") as f:
        assert f.read() == MIB
    (q,) = world.requests(mark)
    assert q["target"] == "/bytes/1048576" and q["proto"] == "h1" and "Wget" in str(q["headers"])
    r.intercepted("origin.test", client.agreed(mark), ("GET", "/bytes/1048576", 200))
    r.quiet()


def sums(folder):
    return {os.path.relpath(os.path.join(d, f), folder): hashlib.sha256(open(os.path.join(d, f), "rb").read()).hexdigest()
            for d, _, fs in os.walk(folder) if "/.git" not in d and not d.endswith(".git") for f in fs}


def git(*args, **kw):
    env = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@test", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@test"}
    return subprocess.run(["git", *args], check=True, capture_output=True, env=env, **kw)


def test_git_clone_commit_push(client, world, mark, tmp_path):
    """GnuTLS, HTTP/2, clone, and a push of 3 MiB, which git sends chunked behind a probe (http.postBuffer is 1 MiB)."""
    need("git")
    lib = subprocess.run("ldd $(git --exec-path)/git-remote-http", shell=True, capture_output=True, text=True).stdout
    assert "libcurl-gnutls" in lib, "this git does not speak through GnuTLS: the matrix wants one that does"
    name = tmp_path.name
    bare, seed, work = os.path.join(world.git, name + ".git"), str(tmp_path / "seed"), str(tmp_path / "work")
    git("init", "-q", "-b", "main", "--bare", bare)
    git("init", "-q", "-b", "main", seed)
    for i in range(200):
        with open(os.path.join(seed, f"f{i}"), "wb") as f:
            f.write(hashlib.sha256(b"%d" % i).digest() * 50)
    git("-C", seed, "add", ".")
    for i in range(40):  # so many wants that the request is worth compressing to git
        git("-C", seed, "commit", "-q", "--allow-empty", "-m", f"{i}")
        git("-C", seed, "branch", f"b{i}")
    git("-C", seed, "push", "-q", "--all", bare)
    url = f"https://git.test/{name}.git"
    r = client.run("sh", "-ec", f"""
git clone -q {url} {work}
cd {work}
git config user.name b && git config user.email b@test
head -c 3145728 /dev/urandom >new
git add new && git commit -q -m two
git push -q origin HEAD:main
git rev-parse HEAD
git fetch -q origin && git rev-parse origin/main
""", allow=["git.test"])
    head = r.out.split()[0]
    assert r.out.split() == [head, head], repr(r)
    assert git("-C", bare, "rev-parse", "main").stdout.decode().strip() == head
    git("-C", bare, "fsck", "--strict")
    check = str(tmp_path / "check")
    git("clone", "-q", bare, check)
    assert sums(check) == sums(work) and len(sums(check)) == 201
    got = [(x["method"], x["path"]) for x in world.requests(mark)]
    base = f"/git/{name}.git"
    assert ("POST", f"{base}/git-upload-pack") in got and ("POST", f"{base}/git-receive-pack") in got, got
    pushes = [x for x in world.requests(mark, method="POST") if x["path"].endswith("git-receive-pack")]
    assert max(x["body"] for x in pushes) > 3 << 20, pushes
    wants = [{k.lower(): v.strip() for k, v in x["headers"]} for x in world.requests(mark, method="POST") if x["path"].endswith("upload-pack")]
    assert "gzip" in [h.get("content-encoding") for h in wants], wants
    r.intercepted("git.test", "h2", ("POST", f"/{name}.git/git-upload-pack", 200), ("POST", f"/{name}.git/git-receive-pack", 200))
    r.quiet()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(client, world, mark, version):
    """The chain as OpenSSL sees it, verified by its strict rules, in both versions of TLS; a request typed in."""
    need("openssl")
    r = client.run("sh", "-ec", f"""printf 'GET /echo/typed HTTP/1.1\\r\\nHost: origin.test\\r\\nConnection: close\\r\\n\\r\\n' |
openssl s_client -connect origin.test:443 -servername origin.test {version} -x509_strict -verify_return_error -verify_hostname origin.test \\
 -ign_eof -nocommands""", allow=["origin.test"])
    assert "Verify return code: 0 (ok)" in r.out and "Verified peername: " in r.out and '"target": "/echo/typed"' in r.out, repr(r)
    assert {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}[version] in r.out
    assert DIRECT or "world test CA" not in r.out, "the leaf is not the workspace's"
    assert [x["target"] for x in world.requests(mark)] == ["/echo/typed"]
    r.intercepted("origin.test", client.agreed(mark), ("GET", "/echo/typed", 200))
    r.quiet()


@pytest.mark.parametrize("priority", ["NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"])
def test_gnutls_cli(client, world, mark, priority):
    need("gnutls-cli", package="gnutls-bin")
    r = client.run("sh", "-ec", f"""printf 'GET /echo/gnutls HTTP/1.1\\r\\nHost: origin.test\\r\\nConnection: close\\r\\n\\r\\n' |
gnutls-cli --priority={priority} --alpn=http/1.1 origin.test""", allow=["origin.test"])
    assert "The certificate is trusted" in r.out and '"target": "/echo/gnutls"' in r.out, repr(r)
    assert [x["target"] for x in world.requests(mark)] == ["/echo/gnutls"]
    r.intercepted("origin.test", "http/1.1", ("GET", "/echo/gnutls", 200))


def test_nghttp(client, world, mark):
    """An HTTP/2 client that shows frames: ten requests on one connection, trailers, and no word about the certificate."""
    need("nghttp", package="nghttp2-client")
    r = client.run("nghttp", "-v", *[f"https://h2.test/echo/{i}" for i in range(9)], "https://h2.test/trailers", allow=["h2.test"])
    assert "Certificate verification failed" not in r.out + r.err and "The negotiated protocol: h2" in r.out, repr(r)
    got = world.requests(mark)
    assert {x["target"] for x in got} == {f"/echo/{i}" for i in range(9)} | {"/trailers"} and {x["proto"] for x in got} == {"h2"}
    assert len({x["id"] for x in got}) == 1, "one connection here is one connection there"
    assert "x-sum: " + hashlib.sha256(w.pattern(30000)).hexdigest() in r.out and "x-last: a b" in r.out
    r.intercepted("h2.test", "h2", ("GET", "/echo/8", 200), ("GET", "/trailers", 200))
    r.quiet()


def test_nghttp_upload(client, world, mark):
    need("nghttp", package="nghttp2-client")
    body = os.path.join(client.tmp, "body")
    with open(body, "wb") as f:
        f.write(MIB)
    r = client.run("nghttp", "-d", body, "--trailer=x-end: of it", "https://h2.test/echo/up", allow=["h2.test"])
    (q,) = world.requests(mark)
    assert (q["method"], q["body"], q["sha256"]) == ("POST", len(MIB), hashlib.sha256(MIB).hexdigest())
    assert [list(x) for x in q["trailers"]] == [["x-end", "of it"]], q
    r.intercepted("h2.test", "h2", ("POST", "/echo/up", 200))


@pytest.mark.parametrize("flags,alpn", [(["-m", "10"], "h2"), (["--h1"], "http/1.1")])
def test_h2load(client, world, mark, flags, alpn):
    """2,000 requests over 4 connections, 10 at a time in each: none lost, none doubled."""
    need("h2load", package="nghttp2-client")
    r = client.run("h2load", "-n", "2000", "-c", "4", *flags, "https://ok.test/hello", allow=["ok.test"])
    assert "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout" in r.out, repr(r)
    assert f"Application protocol: {alpn}" in r.out
    w.wait_for("nginx to write down 2000 requests", lambda: len(world.since(mark, "nginx", host="ok.test")) >= 2000)
    assert len(world.since(mark, "nginx", host="ok.test")) == 2000
    r.intercepted("ok.test", alpn, ("GET", "/hello", 200))
    if not DIRECT:
        assert len(r.result.events("egress_http_request")) == len(r.result.events("egress_http_response")) == 2000


def test_guarded_with_no_list(client, world, mark):
    """The default mode: nothing is listed, all of it is intercepted."""
    r = client.run("sh", "-ec", "curl -sS https://h2.test/echo/a; curl -sS --http1.1 https://h2.test/echo/b; wget -qO- https://origin.test/echo/c", allow=[], mode="guarded")
    assert [x["target"] for x in world.requests(mark)] == ["/echo/a", "/echo/b", "/echo/c"], repr(r)
    if not DIRECT:
        assert [a["mitm"] for a in r.result.events("egress_allow")] == [True] * 3, repr(r)
        assert [(q["path"], q["protocol"]) for q in r.result.events("egress_http_request")] == [
            ("/echo/a", "HTTP/2"), ("/echo/b", "HTTP/1.1"), ("/echo/c", "HTTP/1.1")]
    r.quiet()


@pytest.mark.parametrize("version,host", [("--http2", "h2.test"), ("--http1.1", "origin.test")])
def test_curl_parallel(client, world, mark, version, host):
    """A hundred transfers at the same time, each of another length, so that nothing may be mixed up."""
    need("curl")
    to = os.path.join(client.tmp, "got")
    os.mkdir(to)
    sizes = [1000 * i + i for i in range(100)]
    r = client.run("curl", "-sS", "--fail", version, "--parallel", "--parallel-max", "50", *[x for n in sizes for x in ("-o", f"{to}/{n}", f"https://{host}/bytes/{n}")],
                   allow=[host])
    for n in sizes:
        if n:
            with open(os.path.join(to, str(n)), "rb") as f:
                assert f.read() == w.pattern(n), n
    assert len(world.requests(mark)) == 100, repr(r)
    r.intercepted(host, client.agreed(mark), *[("GET", f"/bytes/{n}", 200) for n in sizes])
    r.quiet()
