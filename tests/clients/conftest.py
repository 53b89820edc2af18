# SPDX-License-Identifier: BSD-3-Clause
"""Real clients through interception: each test is one program that somebody really uses, in a workspace, against the private internet.

The fixtures are those of tests/e2e. `client` adds what is the same for every program: its environment holds no word of trust but those
that `run` itself puts there, the core gets the private internet's CA by --egress-ca-file (as in all e2e tests), and a program that is not
installed is a failure that names the remedy.

SM_CLIENTS_DIRECT=1 runs the programs without the product, in the namespace of the core and with the private CA put where `run` would put
the workspace's: what fails then is a fault of a test, a program or an origin, and not of the product. Nothing is then said of the audit.
"""
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.realpath(__file__))
PROGRAMS = os.path.join(HERE, "programs")
spec = importlib.util.spec_from_file_location("e2e_conftest", os.path.join(os.path.dirname(HERE), "e2e", "conftest.py"))
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)
import worldlib  # noqa: E402 - its folder is on the path only now

pytest_configure, bound, world, sm, mark = e2e.pytest_configure, e2e.bound, e2e.world, e2e.sm, e2e.mark
DIRECT = bool(os.environ.get("SM_CLIENTS_DIRECT"))
PYTHON = "/usr/bin/python3"
# Every variable by which a program of the matrix could be told to trust something: none is left from outside.
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO",
                   "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "DENO_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "JAVA_TOOL_OPTIONS",
                   "NODE_OPTIONS", "PYTHONHTTPSVERIFY", "GIT_SSL_NO_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy")


def need(*programs, package=None):
    """Every one of these is installed, as a program on the path or as a file."""
    missing = [p for p in programs if not (os.path.exists(p) if p.startswith("/") else shutil.which(p))]
    if missing:
        pytest.fail(f"not installed: {' '.join(missing)}{f' (package {package})' if package else ''}: run ./dev setup clients", pytrace=False)


def need_modules(*modules):
    """Every one of these Python modules is there for the distribution's Python."""
    p = subprocess.run([PYTHON, "-c", "import sys, importlib\nfor m in sys.argv[1:]: importlib.import_module(m)", *modules],
                       capture_output=True, text=True)
    if p.returncode:
        pytest.fail(f"not installed: {p.stderr.strip().splitlines()[-1]}: run ./dev setup clients", pytrace=False)


class Seen:
    """What a program left: its own output and the workspace's audit."""

    def __init__(self, rc, stdout, stderr, result):
        self.rc, self.stdout, self.stderr, self.result = rc, stdout, stderr, result
        self.out = stdout.decode("utf-8", "replace")
        self.err = stderr.decode("utf-8", "replace")

    def __repr__(self):
        return f"<rc={self.rc}\nstdout={self.out[-3000:]}\nstderr={self.err[-4000:]}\naudit={self.result.text()[-6000:] if self.result else ''}>"

    def json(self):
        """The last line of output that is an object."""
        rows = [x for x in self.out.splitlines() if x.startswith("{")]
        assert rows, repr(self)
        return json.loads(rows[-1])

    def alpn(self, host):
        """The ALPN that the audit has for a host's first flow."""
        return None if DIRECT else self.result.events("egress_allow", host=host)[0].get("alpn")

    def intercepted(self, host, alpn, *requests):
        """The host's flows were intercepted with that ALPN; each (method, path, status) has its two lines, in the protocol that ALPN means."""
        if DIRECT:
            return
        silent = {c["flow"] for c in self.result.events("egress_close", bytes_up=0)}  # a spare connection that nobody needed in the end
        allows = [a for a in self.result.events("egress_allow", host=host) if a["flow"] not in silent]
        assert allows, f"no egress_allow for {host}: {self!r}"
        for a in allows:
            assert a.get("mitm") is True and a.get("alpn", "") == (alpn or ""), f"{a}: {self!r}"
            assert a.get("tls_version") in ("TLSv1.2", "TLSv1.3"), a
        flows = {a["flow"] for a in allows}
        protocol = "HTTP/2" if alpn in ("h2", "grpc-exp") else "HTTP/1.1"
        for method, path, status in requests:
            rows = [r for r in self.result.events("egress_http_request", method=method, path=path) if r["flow"] in flows]
            assert rows, f"no egress_http_request {method} {path}: {self!r}"
            for q in rows:
                assert q["protocol"] == protocol and q["authority"].split(":")[0] == host, q
            answers = [r for r in self.result.events("egress_http_response") if (r["flow"], r["req"]) in {(q["flow"], q["req"]) for q in rows}]
            assert len(answers) == len(rows), f"not every request has its response: {rows} {answers}"
            assert status in {r["status"] for r in answers}, f"{status}: {answers}"

    def quiet(self, *but):
        """Nothing was denied and no handshake failed; but: events and reasons that are as they should be."""
        if DIRECT:
            return
        bad = [r for r in self.result.audit if r["event"].endswith(("_deny", "_error")) and not {r["event"], r["reason"]} & set(but)]
        assert not bad, f"{bad}: {self!r}"


class Client:
    """Runs programs as CMD of a workspace that may reach the names given and nothing else."""

    def __init__(self, sm, world, tmp):
        self.sm, self.world, self.tmp = sm, world, tmp
        self.home = os.path.join(tmp, "home")
        os.mkdir(self.home)
        sm.env = self.environment

    def environment(self, extra=None):
        drop = {*TRUST_VARIABLES, *PROXY_VARIABLES, *(x.upper() for x in PROXY_VARIABLES)}
        e = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SM_", "npm_", "PIP_", "GOFLAGS")) and k not in drop}
        return {**e, "XDG_STATE_HOME": self.sm.state, "HOME": self.home, "LC_ALL": "C.UTF-8", **(extra or {})}

    def run(self, *cmd, allow, env=None, rc=0, timeout=90, mode="strict", flags=(), **kw):
        """One program to its end; with the exit status that is expected (None: any)."""
        if DIRECT:
            seen = self.direct(cmd, env, timeout, **kw)
        else:
            lists = [x for n in allow for x in ("--egress-allow", n)]
            r = self.sm.run("--egress", mode, *lists, *flags, cmd=list(cmd), env=env, timeout=timeout, **kw)
            seen = Seen(r.rc, r.stdout, r.stderr, r)
        assert rc is None or seen.rc == rc, repr(seen)
        return seen

    def agreed(self, mark):
        """The ALPN of the connections to origin.py since the mark, as it saw them: one for all, None when there was none."""
        found = {r["alpn"] for r in self.world.since(mark, "origin", ev="tls")}
        assert len(found) == 1, f"the connections differ: {found}"
        return found.pop()

    def python(self, program, *args, **kw):
        return self.run(PYTHON, "-B", os.path.join(PROGRAMS, program), *args, **kw)

    def direct(self, cmd, env, timeout, **kw):
        store = os.path.join(self.tmp, "trust")
        if not os.path.isdir(store):
            subprocess.run(["sh", "-ec", f"""
mkdir -p {store} {self.home}/.pki/nssdb
cat /etc/ssl/certs/ca-certificates.crt {self.world.ca} >{store}/bundle.pem
keytool -importcert -noprompt -storetype JKS -keystore {store}/trust.jks -storepass changeit -alias world -file {self.world.ca}
certutil -d sql:{self.home}/.pki/nssdb -N --empty-password
certutil -d sql:{self.home}/.pki/nssdb -A -t C,, -n world -i {self.world.ca}
"""], check=True, capture_output=True)
        e = self.environment({**{v: f"{store}/bundle.pem" for v in TRUST_VARIABLES[:11] if v != "SSL_CERT_DIR"},
                              "JAVA_TOOL_OPTIONS": f"-Djavax.net.ssl.trustStore={store}/trust.jks -Djavax.net.ssl.trustStorePassword=changeit",
                              **(env or {})})
        p = subprocess.run(["unshare", "-m", "sh", "-ec", f"mount --bind {store}/bundle.pem /etc/ssl/certs/ca-certificates.crt;"
                            'exec unshare -U --map-user=1000 --map-group=1000 -- "$@"', "sh", *cmd],
                           env=e, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, **kw)
        return Seen(p.returncode, p.stdout, p.stderr, None)


@pytest.fixture
def client(sm, world, tmp_path):
    return Client(sm, world, str(tmp_path))


class Served:
    """Files that nginx serves under a folder of this test's own."""

    def __init__(self, world, name):
        self.folder, self.path = os.path.join(world.www, name), "/" + name
        os.makedirs(self.folder)

    def put(self, name, data):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return path


@pytest.fixture
def served(world, tmp_path):
    return Served(world, tmp_path.name)


@pytest.fixture
def seen_by_nginx(world, mark):
    """What nginx says it was asked since the beginning of the test: rows of "METHOD path HTTP/n status"."""
    def rows(n=1, **match):
        # nginx writes a request down when it has sent the answer, which may be after the client has read it.
        worldlib.wait_for(f"{n} requests in nginx's log", lambda: len(world.since(mark, "nginx", **match)) >= n)
        return [f"{r['line']} {r['status']}" for r in world.since(mark, "nginx", **match)]
    return rows


sys.path.insert(0, HERE)
