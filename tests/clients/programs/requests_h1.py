# SPDX-License-Identifier: BSD-3-Clause
"""requests_h1.py HOST: a session: JSON there and back, a generator as a chunked body, gzip, a stream read in pieces, 403 and 204."""
import hashlib
import json
import sys

import requests

url = "https://" + sys.argv[1]
s = requests.Session()
s.headers["User-Agent"] = "requests-matrix"
one = s.post(url + "/echo/json?a=%20b", json={"k": "v"}, timeout=20)
two = s.put(url + "/echo/gen", data=(b"z" * 5000 for _ in range(20)), timeout=20)
gz = s.get(url + "/gzip", timeout=20)
sha = hashlib.sha256()
with s.get(url + "/chunked/300000/7777", stream=True, timeout=20) as r:
    for d in r.iter_content(1000):
        sha.update(d)
status = [s.get(f"{url}/status/{n}", timeout=20).status_code for n in (204, 304, 403, 500)]
head = s.head(url + "/bytes/777", timeout=20).headers["content-length"]
print(json.dumps({"one": one.json(), "two": two.json(), "gzip": hashlib.sha256(gz.content).hexdigest(), "stream": sha.hexdigest(),
                  "status": status, "head": head}))
