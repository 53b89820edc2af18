# SPDX-License-Identifier: BSD-3-Clause
"""strict.py HOST PATH: what Python 3.13 does by default, on any Python: every rule of RFC 5280 that OpenSSL knows is held."""
import http.client
import json
import ssl
import sys

host, path = sys.argv[1:]
c = ssl.create_default_context()
c.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
c.set_alpn_protocols(["http/1.1"])
h = http.client.HTTPSConnection(host, context=c, timeout=20)
h.request("GET", path)
r = h.getresponse()
body = r.read()
h.request("POST", path + "/post", body=iter([b"x" * 1000, b"y" * 1000]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
second = h.getresponse()
second.read()
cert = h.sock.getpeercert()
print(json.dumps({"status": r.status, "again": second.status, "body": json.loads(body), "names": cert["subjectAltName"], "tls": h.sock.version(),
                  "issuer": cert["issuer"], "alpn": h.sock.selected_alpn_protocol()}))
