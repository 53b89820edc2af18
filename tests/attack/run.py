# SPDX-License-Identifier: BSD-3-Clause
"""Runs inside a workspace: each varnishtest script against the origin, in clear and inside TLS. run.py NAME SCRIPT...

varnishtest's clients speak plain TCP; towards TLS a relay here gives each of them a connection of its own. What the scripts assert is
what the client got; what reached the origin is asserted outside (tests/e2e/test_smuggling.py). Prints one JSON line a script and way.
"""
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "e2e"))
import httplib  # noqa: E402


def relay(plain, name):
    """Both directions in one thread; an orderly end of the far side reaches the client as FIN, any other end as RST."""
    try:
        far = httplib.tls(name, alpn=["http/1.1"], timeout=20)
        ears, open_ = [plain, far.s], True
        while open_:
            for s in select.select(ears, [], [])[0]:
                if s is plain:
                    d = plain.recv(65536)
                    if d:
                        far.send(d)
                    else:
                        ears.remove(plain)
                        far.shut()
                    continue
                d = far.s.recv(65536)
                if d:
                    far.i.write(d)
                else:
                    far.i.write_eof()
                while open_:
                    try:
                        d = far.o.read(65536)
                    except ssl.SSLWantReadError:
                        break
                    except ssl.SSLZeroReturnError:
                        d = b""
                    if d:
                        plain.sendall(d)
                    else:
                        open_ = False
        plain.shutdown(socket.SHUT_WR)
        while plain in ears and plain.recv(65536):
            pass
        far.close()
    except OSError:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()


def listen(name):
    s = socket.create_server(("127.0.0.1", 0), backlog=100)

    def accept():
        while True:
            threading.Thread(target=relay, args=(s.accept()[0], name), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return s.getsockname()[1]


def main(name, *scripts):
    address = socket.gethostbyname(name)  # the pin that a strict workspace asks for
    ways = {"clear": (f"{address}:80", "80"), "tls": (f"127.0.0.1:{listen(name)}", "443")}
    tmp = tempfile.mkdtemp(prefix="vtc.")

    def one(how, script):
        origin, port = ways[how]
        p = subprocess.run(["varnishtest", "-t", "40", f"-Dorigin={origin}", f"-Dhost={name}", f"-Dport={port}", f"-Dhow={how}", script],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": tmp})
        return {"script": os.path.basename(script), "how": how, "rc": p.returncode, "log": p.stdout.decode("latin-1")[-6000:] if p.returncode else ""}
    for script in scripts:
        for how in ways:
            print(json.dumps(one(how, script)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
