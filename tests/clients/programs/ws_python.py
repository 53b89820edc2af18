# SPDX-License-Identifier: BSD-3-Clause
"""ws_python.py URL: the websockets library (it offers compression): texts, a MiB, a ping, an orderly close."""
import asyncio
import json
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1], max_size=None, open_timeout=20) as ws:
        out = {"echo": []}
        for text in ("one", "", "grüße"):
            await ws.send(text)
            out["echo"].append(await asyncio.wait_for(ws.recv(), 20))
        await ws.send(b"b" * (1 << 20))
        out["size"] = len(await asyncio.wait_for(ws.recv(), 30))
        await asyncio.wait_for(await ws.ping(b"are you there"), 20)
    out["code"] = ws.close_code
    print(json.dumps(out))

asyncio.run(main())
