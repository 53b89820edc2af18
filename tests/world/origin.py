# SPDX-License-Identifier: BSD-3-Clause
"""Which endpoint of the private internet is what: TLS good and bad, HTTP before or inside it, and what is no HTTP at all.

The servers themselves are http1d.py, http2d.py and the functions here; peer.py is one connection of theirs.
"""
import os
import resource
import select
import socket
import ssl
import sys
import threading
import time
import warnings

import credd
import forge
import peer
import worldlib as w
from http2d import h2, http_serve
from peer import Gone, Peer, log, peek_hello


def line_serve(p, banner=b""):
    """Lines come back; at the end of the input a count is said before our own end."""
    if banner:
        p.say(banner)
    n = 0
    while True:
        line = p.until(b"\n")
        if line is None:
            break
        n += 1
        p.say(b"echo: " + line)
    p.say(b"lines: %d, end: %s\n" % (n, (p.how or "").encode()))


def smtp_serve(p, ctx):
    p.say(w.BANNER_SMTP)
    while True:
        line = p.until(b"\r\n")
        if line is None:
            return
        verb = line[:-2].decode("latin-1").upper().split(" ")[0]
        log(ev="smtp", id=p.id, verb=verb, tls=bool(p.tls))
        if verb in ("EHLO", "HELO"):
            p.say(b"250-mail.test\r\n" + (b"" if p.tls else b"250-STARTTLS\r\n") + b"250 8BITMIME\r\n")
        elif verb == "STARTTLS":
            p.say(b"220 go ahead\r\n")
            p.start_tls(ctx)
        elif verb == "QUIT":
            return p.say(b"221 bye\r\n")
        else:
            p.say(b"250 ok\r\n")


def odd_serve(p, what):
    """Servers that never complete a handshake."""
    p.sock.setblocking(True)
    hello = peek_hello(p.sock)
    p.sock.setblocking(False)
    log(ev="hello", id=p.id, local=p.local[0], port=p.local[1], site=p.site, **(hello or {"sni": None}))
    if what == "rsthello.test":
        p.reset()
    elif what == "finhello.test":
        p.recv()
    elif what == "nottls.test":
        p.recv()
        p.say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nplain HTTP here\n")
    elif what == "alert.test":
        p.recv()
        p.say(b"\x15\x03\x03\x00\x02\x02\x28")
    elif what == "trickle.test":  # the beginning of a record that never becomes whole
        p.recv()
        for byte in b"\x16\x03\x03\x40\x00\x02" + b"x" * 300:
            p.say(bytes([byte]))
            time.sleep(0.1)
    else:  # stall: reads all, says nothing
        while p.more():
            pass


def flood_serve(p):
    """Inside TLS 1.3: "GET /KIND" is answered with records of that kind (forge.py) until the client ends the connection."""
    ctx = forge.context(True, os.path.join(peer.D[0], "certs", "good.pem"))
    p.start_tls(ctx)
    line = p.until(b"\r\n\r\n")
    if line is None:
        return
    kind = line.split(b" ")[1][1:].decode()
    f = forge.Forge(ctx, p.sock)
    raw = socket.socket(fileno=os.dup(p.sock.fileno()))
    raw.setblocking(True)
    raw.settimeout(20)
    try:
        if kind.startswith("onebyte"):
            raw.sendall(f.record(forge.DATA, b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"))
        data = f.make(kind, forge.FLOOD)
        log(ev="flood", id=p.id, kind=kind)
        raw.sendall(data)
        while p.more():  # all of it was taken: the client decides how long this lasts
            pass
    except OSError as e:
        log(ev="flood_end", id=p.id, kind=kind, error=str(e))
    finally:
        raw.close()


def context(pem, versions=(None, None), alpn=(), client_ca=None, weak=False):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if weak:
        c.set_ciphers("ALL:@SECLEVEL=0")
    c.load_cert_chain(os.path.join(peer.D[0], "certs", pem))
    if versions[0]:
        c.minimum_version = versions[0]
    if versions[1]:
        c.maximum_version = versions[1]
    if alpn:
        c.set_alpn_protocols(list(alpn))
    if client_ca:
        c.verify_mode = ssl.CERT_REQUIRED
        c.load_verify_locations(client_ca)
    return c


def endpoints():
    """(ip, port) -> (site, server): each server is a function of a Peer."""
    warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what one endpoint is for
    V, e, ca = ssl.TLSVersion, {}, os.path.join(peer.D[0], "ca.pem")
    h1, both = ("http/1.1",), ("h2", "http/1.1") if h2 else ("http/1.1",)

    def tls(ctx, serve):
        def run(p):
            p.start_tls(ctx)
            serve(p)
        return run

    good = context("good.pem")
    S = w.SITES
    for site, alpn, kw in (("origin.test", h1, {}), ("h2.test", both, {}), ("tls12.test", both, {"versions": (V.TLSv1_2, V.TLSv1_2)})):
        e[S[site], 443] = site, tls(context("good.pem", alpn=alpn, **kw), http_serve)
        e[S[site], 80] = site, http_serve
        e[S[site], 8443] = site, tls(context("good.pem", alpn=alpn, **kw), http_serve)
    for site, ip in {**w.CRED_PUBLIC, **w.CRED_INSIDE}.items():
        port = w.VAULT if site == "vault.test" else 443
        e[ip, port] = site, tls(context("good.pem", alpn=both if site in w.PROVIDERS else h1), http_serve)
    for site in ("inter.test", "ipsan.test"):
        e[S[site], 443] = site, tls(context(site + ".pem", alpn=h1), http_serve)
        e[S[site], 80] = site, http_serve
    e[S["line.test"], 443] = e[S["line.test"], w.TLS_LINE] = "line.test", tls(good, line_serve)
    e[S["line.test"], w.IMAPS] = "line.test", tls(good, lambda p: line_serve(p, w.BANNER_IMAPS))
    e[S["mail.test"], w.SUBMISSION] = "mail.test", lambda p: smtp_serve(p, good)
    e[S["line.test"], 80] = "line.test", http_serve
    for site, (ip, _) in w.BAD_CERT.items():
        weak = site in ("sha1.test", "rsa1024.test")
        e[ip, 443] = site, tls(context(site + ".pem", alpn=h1, weak=weak), http_serve)
    for site, v in (("clientcert12.test", V.TLSv1_2), ("clientcert13.test", V.TLSv1_3)):
        e[w.TLS_BAD[site], 443] = site, tls(context("good.pem", versions=(v, v), alpn=h1, client_ca=ca), http_serve)
    e[w.TLS_BAD["tls10.test"], 443] = "tls10.test", tls(context("good.pem", versions=(V.TLSv1, V.TLSv1_1), weak=True), http_serve)
    for site in ("rsthello.test", "finhello.test", "nottls.test", "alert.test", "stall.test", "trickle.test"):
        e[w.TLS_BAD[site], 443] = site, lambda p, site=site: odd_serve(p, site)
    e[S["flood.test"], 443] = "flood.test", flood_serve
    for ip in w.TLS_BAD.values():
        e[ip, 80] = "bad", http_serve
    return e


def run(serve, site, srv, sock):
    p = Peer(srv, sock, site)
    try:
        serve(p)
        p.close()
    except Gone:
        p.close()
    except Exception as e:  # noqa: B902 - a server that met something odd says so in the log and lives on
        log(ev="error", id=p.id, error=f"{type(e).__name__}: {e}")
        p.sock.close()
    log(ev="close", id=p.id, srv=srv, site=site, local=p.local[0], port=p.local[1], bytes=p.n_in, out=p.n_out, how=p.how or "closed by us")
    p.raw.close()


def main(folder, path):
    peer.D[0] = folder
    peer.LOG[0] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.stack_size(1 << 20)
    credd.install()
    ep = select.epoll()
    listeners = {}
    for (ip, port), (site, serve) in endpoints().items():
        s = socket.create_server((ip, port), backlog=1024)
        listeners[s.fileno()] = s, site, serve
        ep.register(s.fileno(), select.EPOLLIN)
    os.write(1, b"ready\n")
    while True:
        for fd, _ in ep.poll():
            s, site, serve = listeners[fd]
            c = s.accept()[0]
            srv = "tls" if s.getsockname()[1] != 80 else "http"
            threading.Thread(target=run, args=(serve, site, srv, c), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
