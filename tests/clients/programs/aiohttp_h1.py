# SPDX-License-Identifier: BSD-3-Clause
"""aiohttp_h1.py HOST: 20 requests over a pool of 4 connections, a streamed upload, and a WebSocket."""
import asyncio
import json
import sys

import aiohttp

host = sys.argv[1]


async def pieces():
    for i in range(10):
        yield b"%d" % i * 10000
        await asyncio.sleep(0)


async def main():
    async with aiohttp.ClientSession(f"https://{host}", connector=aiohttp.TCPConnector(limit=4), timeout=aiohttp.ClientTimeout(30)) as s:
        async def one(i):
            async with s.get(f"/echo/{i}") as r:
                return (await r.json())["path"]
        paths = await asyncio.gather(*[one(i) for i in range(20)])
        async with s.put("/echo/up", data=pieces()) as r:
            up = await r.json()
        async with s.ws_connect("/ws") as ws:
            await ws.send_str("grüße")
            text = (await ws.receive()).data
            await ws.send_bytes(b"\0" * 100000)
            size = len((await ws.receive()).data)
            await ws.ping(b"p")
            await ws.close(code=4000)
        return {"paths": paths, "up": up["body"], "text": text, "size": size, "code": ws.close_code}

print(json.dumps(asyncio.run(main())))
