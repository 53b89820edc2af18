# SPDX-License-Identifier: BSD-3-Clause
"""Runs inside a workspace: each varnishtest script against the origin, in clear and inside TLS. run.py NAME SCRIPT...

varnishtest's clients speak plain TCP; towards TLS a relay here gives each of them a connection of its own. What the scripts assert is
what the client got; what reached the origin is asserted outside (tests/e2e/test_smuggling.py). Prints one JSON line a script and way.
"""
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading


def pump(src, dst, end):
    try:
        while True:
            d = src(65536)
            if not d:
                break
            dst(d)
    except OSError as e:
        if not isinstance(e, ssl.SSLEOFError):
            end.append("rst")
        else:
            end.append("cut")


def relay(plain, name):
    """Both directions; how the far side ended reaches the client: an orderly end as FIN, anything else as RST."""
    end = []
    try:
        ctx = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
        ctx.set_alpn_protocols(["http/1.1"])
        far = ctx.wrap_socket(socket.create_connection((name, 443), timeout=20), server_hostname=name, suppress_ragged_eofs=False)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return plain.close()

    def up():
        pump(plain.recv, far.sendall, [])
        # The scripts never end their half before they have read the answer, so nothing is lost by ending both here.
        try:
            far.unwrap()
        except (OSError, ValueError):
            pass
        far.close()
    threading.Thread(target=up, daemon=True).start()
    pump(far.recv, plain.sendall, end)
    try:
        if end:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            plain.close()
        else:
            plain.shutdown(socket.SHUT_WR)
    except OSError:
        pass


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
