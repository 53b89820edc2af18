# SPDX-License-Identifier: BSD-3-Clause
"""A guest that wants the credential itself, or that wants the core to lose count of what it asked for."""
from credlib import GO, STRICT, arrived, canary, static, swap_file

KEY = canary("attack")
ENV = {"API_KEY": KEY}


def test_no_piece_of_an_answer_can_be_asked_for(sm, world, mark, tmp_path):
    """A range that the guest chooses would cut the secret out of an echo in pieces that no scrub knows. Where nothing is scrubbed ranges go through."""
    code = GO + """
out["h1"] = ask1("/r/1", extra="Range: bytes=0-3\\r\\nrequest-range: bytes=0-3\\r\\nA-IM: vcdiff\\r\\nConnection: range, x-other\\r\\nX-Other: 1\\r\\n").status
out["h2"] = ask2("/r/2", extra=[("range", "bytes=0-3"), ("request-range", "bytes=0-3"), ("a-im", "vcdiff"), ("x-other", "1")]).status
"""
    for scrub in (True, False):
        world.sync()
        at = world.mark()
        r = sm.guest(code, *STRICT, *swap_file(tmp_path, api=static("origin.test", "h2.test", scrub=scrub)), env=ENV)
        assert r.out == {"h1": 200, "h2": 200}
        for path in ("/r/1", "/r/2"):
            for name in ("range", "request-range", "a-im"):
                assert len(arrived(world, at, path, name)) == (0 if scrub else 1), (path, name, scrub)
            assert arrived(world, at, path, "x-other") == ["1"]
        if scrub:
            assert arrived(world, at, "/r/1", "connection") == ["x-other"]
