# SPDX-License-Identifier: BSD-3-Clause
"""pycurl_h2.py URL FILE: GET, and PUT of a file, on one handle over HTTP/2; libcurl here is the one with GnuTLS."""
import io
import json
import os
import sys

import pycurl

url, path = sys.argv[1:]
c = pycurl.Curl()
c.setopt(c.HTTP_VERSION, c.CURL_HTTP_VERSION_2TLS)
c.setopt(c.TIMEOUT, 60)
rows = []


def go(target):
    out, head = io.BytesIO(), io.BytesIO()
    c.setopt(c.URL, url + target)
    c.setopt(c.WRITEDATA, out)
    c.setopt(c.HEADERFUNCTION, head.write)
    c.perform()
    rows.append([c.getinfo(x) for x in (c.RESPONSE_CODE, c.INFO_HTTP_VERSION, c.NUM_CONNECTS, c.SSL_VERIFYRESULT)] + [len(out.getvalue())])
    return out.getvalue(), head.getvalue().decode()


go("/bytes/1048576")
_, head = go("/trailers")
c.setopt(c.UPLOAD, 1)
with open(path, "rb") as f:
    c.setopt(c.READDATA, f)
    c.setopt(c.INFILESIZE, os.path.getsize(path))
    body, _ = go("/echo/put")
print(json.dumps({"version": pycurl.version, "rows": rows, "trailers": head.strip().splitlines()[-2:], "body": json.loads(body)["sha256"]}))
