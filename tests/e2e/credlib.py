# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of credential swap share: swap files, keys, what arrived at an origin, and the beginning of the guest's code."""
import json
import os
import subprocess
import uuid

import worldlib as w

STRICT = ("--egress", "strict", "--egress-allow=origin.test", "--egress-allow=alias.test", "--egress-allow=h2.test", "--egress-allow=.swap.test")
# h1() and h2() open a verified connection; ask1() and ask2() make one request each, with one header.
GO = """
import h2lib, httplib as h
def h1(n="origin.test", **kw):
    return h.tls(n, alpn=["http/1.1"], **kw)
def h2(n="h2.test", **kw):
    return h2lib.tls(n, **kw)
def ask1(path, n="origin.test", extra="", c=None):
    return (c or h1(n)).ask(h.get(path, n, extra))
def ask2(path, n="h2.test", extra=(), c=None):
    return (c or h2(n)).ask(n, path, extra=extra)
"""


def canary(what="key"):
    """A secret that nothing else looks like."""
    return f"CANARY-{what}-{uuid.uuid4().hex}"


def swap_file(tmp_path, **entries):
    """Flags for a swap file with these entries; an underscore in a name is a hyphen."""
    path = os.path.join(tmp_path, f"swaps-{uuid.uuid4().hex[:8]}.json")
    with open(path, "w") as f:
        json.dump({"swaps": {n.replace("_", "-"): e for n, e in entries.items()}}, f)
    return "--egress-swap-config", path


def static(*domains, ref="env:API_KEY", **more):
    return {"type": "static", "domains": list(domains), "key_ref": ref, **more}


def oauth(*domains, url, **more):
    return {"type": "oauth2-cc", "domains": list(domains), "token_url": url, "client_id_ref": "env:CLIENT_ID",
            "client_secret_ref": "env:CLIENT_SECRET", **more}


def jwt(*domains, key, algorithm="ES256", **more):
    return {"type": "jwt-bearer", "domains": list(domains), "signing_key_ref": f"file:{key}", "algorithm": algorithm, **more}


def secret_file(tmp_path, name, text, mode=0o600):
    path = os.path.join(tmp_path, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


GENPKEY = {"RS256": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "ES256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "EdDSA": ["ed25519"]}


def signing_key(world, tmp_path, algorithm, name=None):
    """A new private key's file; its public half is what credd.py verifies /jwt/NAME and /token/assert/KEY/NAME against."""
    name = name or f"{algorithm}-{uuid.uuid4().hex[:8]}"
    path = os.path.join(tmp_path, name + ".pem")
    subprocess.run(["openssl", "genpkey", "-algorithm", *GENPKEY[algorithm], "-out", path], check=True, capture_output=True)
    os.chmod(path, 0o600)
    subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-out", os.path.join(world.keys, name + ".pub")], check=True, capture_output=True)
    return path, name


def values(request, name):
    """Every value of a header, as the origin got it."""
    return [v.strip() for k, v in request["headers"] if k.strip().lower() == name.lower()]


def arrived(world, mark, path, name="authorization", **match):
    """The values of a header in the one request for this path that reached the origin."""
    rows = world.requests(mark, path=path, **match)
    assert len(rows) == 1, f"{len(rows)} requests for {path} arrived instead of one"
    return values(rows[0], name)


def swapped(result, entry, n=1):
    """The lines of a request that got a credential: same flow and req as its request and response lines."""
    rows = result.events("egress_swap", name=entry)
    assert len(rows) == n, f"{len(rows)} egress_swap of {entry} instead of {n}; audit:\n{result.text()}"
    for r in rows:
        result.one("egress_http_request", flow=r["flow"], req=r["req"])
        result.one("egress_http_response", flow=r["flow"], req=r["req"])
    return rows
