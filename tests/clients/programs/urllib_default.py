# SPDX-License-Identifier: BSD-3-Clause
"""urllib_default.py URL: the standard library with nothing said about trust; no ALPN is offered."""
import sys
import urllib.request

sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=20).read())
