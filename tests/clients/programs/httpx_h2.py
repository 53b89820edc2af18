# SPDX-License-Identifier: BSD-3-Clause
"""httpx_h2.py HOST: 30 requests at the same time on one HTTP/2 connection, one of them with a MiB each way."""
import asyncio
import hashlib
import json
import sys

import httpx

host = sys.argv[1]


async def main():
    async with httpx.AsyncClient(http2=True, base_url="https://" + host, timeout=30, limits=httpx.Limits(max_connections=1)) as c:
        rs = await asyncio.gather(c.post("/echo/big", content=b"m" * (1 << 20)), c.get("/bytes/1048576"),
                                  *[c.get(f"/echo/{i}", headers={"x-i": str(i)}) for i in range(28)])
        return {"versions": sorted({r.http_version for r in rs}), "status": sorted({r.status_code for r in rs}), "up": rs[0].json()["sha256"],
                "down": hashlib.sha256(rs[1].content).hexdigest(), "order": [dict(r.json()["headers"])["x-i"] for r in rs[2:]]}

print(json.dumps(asyncio.run(main())))
