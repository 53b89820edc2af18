# SPDX-License-Identifier: BSD-3-Clause
"""Workspaces that persist: create, start, stop, delete, list, status, network; and docs/JSON.md held against what is printed."""
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest
import worldlib as w
from conftest import REPO, USER, alive, read_audit

ISOLATED = ("--network", "isolated")


# ---- docs/JSON.md ----

def tables():
    """{section: {key: (type, optional)}}"""
    found, section = {}, None
    with open(os.path.join(REPO, "docs", "JSON.md")) as f:
        for line in f:
            if m := re.fullmatch(r"### (\w+)\n", line):
                section = found.setdefault(m[1], {})
            elif line.startswith("#"):
                section = None
            elif section is not None and (m := re.match(r"\| `(\w+)` \| ([^|]+) \|", line)):
                kind = m[2].strip()
                section[m[1]] = (kind.removesuffix(", optional"), kind.endswith(", optional"))
    return found


TABLES = tables()
PLAIN = {"string": str, "integer": int, "boolean": bool, "object": dict, "null": type(None)}


def matches(value, kind, at):
    """Raises AssertionError with the place."""
    alternatives = kind.split(" or ")
    if value is None:
        assert "null" in alternatives, f"{at} is null, which is not in the table"
        return
    (kind,) = [k for k in alternatives if k != "null"]
    if kind.endswith("[]"):
        assert isinstance(value, list), f"{at}: {value!r} is no array"
        for i, item in enumerate(value):
            matches(item, kind[:-2], f"{at}[{i}]")
    elif kind in PLAIN:
        assert type(value) is PLAIN[kind], f"{at}: {value!r} is not {kind}"
    else:
        documented(value, kind, at)


def documented(value, section, at=None):
    """Is all that was printed in the table, and all of the table that must be there in what was printed?"""
    at, table = at or section, TABLES[section]
    assert set(value) <= set(table), f"{at}: not in docs/JSON.md: {set(value) - set(table)}"
    for key, (kind, optional) in table.items():
        assert optional or key in value, f"{at}.{key} is missing"
        if key in value:
            matches(value[key], kind, f"{at}.{key}")
    return value


def test_the_tables_are_read():
    assert {"List", "Workspace", "Record", "Status", "Deleted", "Published", "Network", "Exit", "Flow"} <= set(TABLES)
    assert TABLES["Workspace"]["pid"] == ("integer or null", False) and TABLES["Status"]["flows"] == ("Flow[] or null", True)
    for section in TABLES.values():
        for kind, _ in section.values():
            for k in kind.split(" or "):
                assert k.removesuffix("[]") in PLAIN or k.removesuffix("[]") in TABLES, k
    with pytest.raises(AssertionError):
        documented({"schema": 1, "workspaces": [], "more": 1}, "List")
    with pytest.raises(AssertionError):
        documented({"schema": "1", "workspaces": []}, "List")
    with pytest.raises(AssertionError):
        documented({"schema": 1}, "List")


# ---- helpers ----

def ok(sm, *args, section=None, **kw):
    p = sm.cli(*args, **kw)
    assert p.returncode == 0, (args, p)
    return documented(json.loads(p.stdout), section) if section else p.stdout.decode()


def fails(sm, rc, words, *args, **kw):
    p = sm.cli(*args, **kw)
    assert p.returncode == rc, (args, p)
    for word in words:
        assert word in p.stderr.decode(), (args, p)
    return p


def folder(sm, name, *more):
    return os.path.join(sm.state, "slirp-med", name, *more)


def row(sm, name):
    rows = [r for r in ok(sm, "list", "--json", section="List")["workspaces"] if r["name"] == name]
    return rows[0] if rows else None


@pytest.fixture
def life(sm):
    """Whatever a test leaves running in the background ends with it."""
    yield sm
    for r in json.loads(sm.cli("list", "--json").stdout)["workspaces"]:
        sm.cli("delete", r["name"], "--force", timeout=40)
    w.wait_for(f"the processes to end: {sm.left()}", lambda: not sm.left(), 10)


# ---- the whole life ----

@pytest.mark.core
def test_a_life(life):
    sm = life
    policy = os.path.join(sm.tmp, "p.yaml")
    with open(policy, "w") as f:
        f.write("allow: [ok.test]\n")
    made = ok(sm, "--json", "create", "web", "--egress", "strict", "--egress-policy", "p.yaml", "--egress-ca-file", sm.world.ca, "--publish", "0:80",
              "--egress-max-total-bytes", "1M", "--", *sm.guest_cmd("out['r'] = http('ok.test')"), section="Record", cwd=sm.tmp)
    assert made["state"] == "created" and made["network"]["publishes"][0]["hostPort"] == 0
    assert os.stat(folder(sm, "web")).st_mode & 0o777 == 0o700
    settings = json.load(open(folder(sm, "web", "settings.json")))
    assert f"--egress-policy={policy}" in settings["args"], "a path means the same from any folder"
    assert row(sm, "web")["state"] == "created" and row(sm, "web")["last_exit"] is None

    p = sm.cli("start", "web", cwd="/")
    assert p.returncode == 0 and b'200' in p.stdout, p
    r = row(sm, "web")
    assert r["state"] == "stopped" and r["last_exit"]["how"] == "exited" and r["last_exit"]["status"] == 0
    assert r["since"] == r["last_exit"]["ended"]

    # Files of policy are read again.
    with open(policy, "w") as f:
        f.write("allow: [other.test]\n")
    assert b'"EAI"' in sm.cli("start", "web").stdout
    status = ok(sm, "status", "web", "--json", section="Status")
    assert status["state"] == "stopped" and status["counters"]["bytes_down"] > 0 and status["audit"]["seq"] == read_audit(sm.state, "web")[-1]["seq"]
    assert [e["event"] for e in read_audit(sm.state, "web")].count("egress_start") == 2, "the record goes on"

    gone = ok(sm, "delete", "web", "--json", section="Deleted")
    assert {"settings.json", "egress.jsonl"} <= set(gone["removed"]) and not os.path.exists(folder(sm, "web"))
    fails(sm, 2, ["no workspace 'web'"], "status", "web")


@pytest.mark.core
def test_detached(life):
    sm = life
    ok(sm, "create", "bg", "--egress", "guarded", "--egress-ca-file", sm.world.ca, "--publish", "0:8080", "--",
       *sm.guest_cmd("import socket, time\ns = socket.create_server(('', 8080))\nprint('CMD speaks', flush=True)\nwhile True: c, _ = s.accept(); c.sendall(b'hello'); time.sleep(60)"))
    log = os.path.join(sm.tmp, "log")
    record = ok(sm, "start", "bg", "--detach", "--log", "log", "--json", section="Record", cwd=sm.tmp)
    assert record["state"] == "running"
    port = record["network"]["publishes"][0]["hostPort"]
    assert port > 0
    w.wait_for("the command's word in the log", lambda: "CMD speaks" in open(log).read(), 10)
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        assert s.recv(5) == b"hello"
        flows = ok(sm, "status", "bg", "--flows", "--json", section="Status")["flows"]
        assert [f["inbound"] for f in flows] == [True] and flows[0]["state"] == "ATTACHED", flows
    r = row(sm, "bg")
    assert r["state"] == "running" and r["responding"] is True and r["network"]["publishes"][0]["hostPort"] == port
    status = ok(sm, "status", "bg", "--json", section="Status")
    assert set(status["processes"]) == {"supervisor", "core", "front", "guest"}
    assert all(p["rss_bytes"] > 0 for p in status["processes"].values()) and status["audit"]["healthy"] is True
    assert status["pids"]["supervisor"] == r["pid"] and os.getsid(r["pid"]) == r["pid"], "a session of its own"

    fails(sm, 125, [f"pid {r['pid']}"], "start", "bg", "--detach")
    fails(sm, 125, [f"pid {r['pid']}"], "start", "bg")
    fails(sm, 2, ["slirp-med start bg"], "run", "--name", "bg", "--", "true")
    fails(sm, 1, ["runs", "--force"], "delete", "bg")

    ended = ok(sm, "stop", "bg", "--json", section="Workspace")
    assert ended["state"] == "stopped" and ended["last_exit"]["how"] == "stopped"
    assert not alive(r["pid"])
    fails(sm, 1, ["does not run"], "stop", "bg")
    ok(sm, "start", "bg", "--detach")
    ok(sm, "delete", "bg", "--force")
    assert row(sm, "bg") is None


def test_what_a_detached_start_says_of_its_failure(life):
    sm = life
    with socket.create_server(("127.0.0.1", 0)) as s:
        ok(sm, "create", "busy", "--publish", f"{s.getsockname()[1]}:80", "--", "true")
        fails(sm, 125, ["--publish=127.0.0.1", "use"], "start", "busy", "--detach")
    r = row(sm, "busy")
    assert r["state"] == "stopped" and r["last_exit"]["how"] == "failed" and "--publish" in r["last_exit"]["reason"]
    ok(sm, "create", "none", *ISOLATED, "--", "/nonexistent/x")
    assert sm.cli("start", "none").returncode == 127
    fails(sm, 2, ["--log"], "start", "none", "--log", "x")
    fails(sm, 2, ["/nonexistent/log"], "start", "none", "--detach", "--log", "/nonexistent/log")


def test_a_caller_that_leaves_takes_a_detached_start_with_it(life):
    sm = life
    ok(sm, "create", "left", *ISOLATED, "--", "sleep", "100")

    def supervisors():
        return [pid for pid, role in sm.left() if role == "detached"]

    def attempt():
        """The supervisor is stopped before it is ready, if we are quick enough, and the caller is gone when it goes on."""
        p = subprocess.Popen(USER + [sm.bin, "start", "left", "--detach"], env=sm.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        w.wait_for("the supervisor", lambda: supervisors() or p.poll() is not None, 10)
        for pid in supervisors():
            os.kill(pid, signal.SIGSTOP)
        p.kill()
        p.wait()
        for pid in supervisors():
            os.kill(pid, signal.SIGCONT)
        w.wait_for("it to run or to end", lambda: not sm.left() or row(sm, "left")["state"] == "running", 10)
        if sm.left():
            sm.cli("stop", "left")
            return False
        return True
    assert any(attempt() for _ in range(20))
    r = row(sm, "left")
    assert r["state"] == "stopped" and r["last_exit"]["how"] == "stopped"


@pytest.mark.core
def test_crash(life):
    sm = life
    ok(sm, "create", "c", "--egress", "guarded", "--egress-ca-file", sm.world.ca, "--", "sleep", "100")
    ok(sm, "start", "c", "--detach")
    pid = row(sm, "c")["pid"]
    os.kill(pid, signal.SIGKILL)
    w.wait_for("all to end", lambda: not sm.left(), 10)
    assert {"ca.key", "control.sock"} <= set(os.listdir(folder(sm, "c"))), "what a killed supervisor leaves"
    r = row(sm, "c")
    assert r["state"] == "crashed" and r["pid"] == pid and r["since"]
    status = ok(sm, "status", "c", "--json", section="Status")
    assert status["state"] == "crashed" and status["started"] and status["last_seen"]
    fails(sm, 1, ["does not run"], "stop", "c")
    p = sm.cli("start", "c", "--", "true")
    assert p.returncode == 0 and str(pid) in p.stderr.decode() and "killed or crashed" in p.stderr.decode()
    assert not {"ca.key", "control.sock"} & set(os.listdir(folder(sm, "c")))
    assert row(sm, "c")["state"] == "stopped"

    ok(sm, "start", "c", "--detach")
    os.kill(row(sm, "c")["pid"], signal.SIGKILL)
    w.wait_for("all to end", lambda: not sm.left(), 10)
    ok(sm, "delete", "c")
    assert not os.path.exists(folder(sm, "c"))


@pytest.mark.core
def test_list_never_waits_for_one_that_hangs(life):
    sm = life
    for name in ("a", "b"):
        ok(sm, "create", name, *ISOLATED, "--", "sleep", "100")
        ok(sm, "start", name, "--detach")
    pid = row(sm, "a")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        rows = {r["name"]: r for r in ok(sm, "list", "--json", section="List")["workspaces"]}
        assert time.monotonic() - began < 4
        assert rows["a"]["state"] == "running" and rows["a"]["responding"] is False and rows["a"]["pid"] == pid
        assert rows["b"]["responding"] is True
    finally:
        os.kill(pid, signal.SIGCONT)


def test_many_are_listed_quickly(life):
    sm = life
    script = "for i in $(seq 100); do \"$0\" create w$i --network isolated -- true >/dev/null || exit 1; done"
    subprocess.run(USER + ["sh", "-c", script, sm.bin], env=sm.env(), check=True, timeout=100)
    began = time.monotonic()
    assert len(ok(sm, "list", "--json", section="List")["workspaces"]) == 100
    assert time.monotonic() - began < 3


# ---- what is refused ----

@pytest.mark.core
@pytest.mark.parametrize("args,words", [
    (["x", "--no-such-flag"], ["--no-such-flag"]),
    (["x", "--egress-policy", "/nonexistent"], ["--egress-policy=/nonexistent"]),
    (["x", *ISOLATED, "--publish", "80:80"], ["--publish"]),
    (["x", "--dry-run"], ["--dry-run", "one start"]),
    (["x", "--attach", "--fd", "0"], ["--fd"]),
    (["x", "--attach"], ["--stream"]),
    (["x", "--vm"], ["--kernel"]),
    (["x", "--vm", "--attach"], ["--vm"]),
    (["x", "true"], ["behind --"]),
    (["--egress", "strict"], ["NAME"]),
    (["../x"], ["../x"]),
    (["a/b"], ["a/b"]),
    ([], ["NAME"]),
])
def test_create_that_fails_leaves_nothing(life, args, words):
    fails(life, 2, words, "create", *args)
    assert not os.path.isdir(os.path.join(life.state, "slirp-med")) or os.listdir(os.path.join(life.state, "slirp-med")) == []


def test_names_are_used_once(life):
    sm = life
    ok(sm, "create", "one", *ISOLATED, "--", "true")
    before = open(folder(sm, "one", "settings.json")).read()
    fails(sm, 2, ["already", "slirp-med delete one"], "create", "one", "--", "false")
    assert open(folder(sm, "one", "settings.json")).read() == before
    assert sm.cli("run", *ISOLATED, "--name", "of-run", "--", "true").returncode == 0
    fails(sm, 2, ["already"], "create", "of-run")
    fails(sm, 2, ["not made by 'create'"], "start", "of-run")
    ok(sm, "delete", "of-run")
    ok(sm, "create", "of-run", *ISOLATED)
    fails(sm, 2, ["slirp-med start of-run -- CMD"], "start", "of-run")


def test_settings_that_were_damaged(life):
    sm = life
    ok(sm, "create", "d", *ISOLATED, "--", "true")
    path = folder(sm, "d", "settings.json")
    good = json.load(open(path))
    for change, words in (({"version": 2}, ["settings.json", "version"]), ({"more": 1}, ["settings.json", "more"]),
                          ({"args": ["--egress=wide"]}, ["settings.json", "--egress=wide"]), ({"args": ["--name=x"]}, ["args[0]"])):
        with open(path, "w") as f:
            json.dump({**good, **change}, f)
        fails(sm, 2, words, "start", "d")
        assert row(sm, "d")["state"] == "created", "a start that found nothing to start changes nothing"


def test_delete_takes_what_is_ours(life):
    sm = life
    outside = os.path.join(sm.tmp, "outside")
    with open(outside, "w") as f:
        f.write("kept")
    ok(sm, "create", "x", "--egress", "guarded", "--egress-ca-file", sm.world.ca, "--", "true")
    ok(sm, "start", "x")
    with open(folder(sm, "x", "notes.txt"), "w") as f:
        f.write("mine")
    fails(sm, 1, ["notes.txt", "nothing was removed"], "delete", "x")
    assert os.path.exists(folder(sm, "x", "egress.jsonl"))
    os.unlink(folder(sm, "x", "notes.txt"))
    os.unlink(folder(sm, "x", "ca.pem"))
    os.symlink(outside, folder(sm, "x", "ca.pem"))
    seq = read_audit(sm.state, "x")[-1]["seq"]
    ok(sm, "delete", "x", "--keep-audit")
    assert open(outside).read() == "kept"
    assert row(sm, "x") is None and read_audit(sm.state, "x")[-1]["seq"] == seq
    ok(sm, "create", "x", "--egress", "guarded", "--egress-ca-file", sm.world.ca, "--", "true")
    ok(sm, "start", "x")
    assert read_audit(sm.state, "x")[-1]["seq"] > seq, "the record goes on"


# ---- what changes while it runs ----

def test_changes_at_run_time_are_shown_and_end_with_the_run(life):
    sm = life
    for name in ("one", "two"):
        with open(os.path.join(sm.tmp, name + ".yaml"), "w") as f:
            f.write("allow: [ok.test]\n")
    one, two = (os.path.join(sm.tmp, n + ".yaml") for n in ("one", "two"))
    ok(sm, "create", "r", "--egress", "strict", "--egress-policy", one, "--egress-ca-file", sm.world.ca, "--", "sleep", "100")
    ok(sm, "start", "r", "--detach")
    port = ok(sm, "publish", "r", "0:80", "--json", section="Published")["publish"]["hostPort"]
    counts = ok(sm, "reload", "r", "--egress-policy", two, "--json", section="Reloaded")
    assert counts == {"allow": 1, "passthrough": 0, "deny": 0}
    told = json.load(open(folder(sm, "r", "workspace.json")))
    assert told["network"]["publishes"][0]["hostPort"] == port and told["policy_files"] == [two]
    os.kill(row(sm, "r")["pid"], signal.SIGKILL)
    w.wait_for("all to end", lambda: not sm.left(), 10)
    assert row(sm, "r")["network"]["publishes"][0]["hostPort"] == port, "as it last was"
    ok(sm, "start", "r", "--detach")
    status = ok(sm, "status", "r", "--json", section="Status")
    assert status["network"]["publishes"] == [] and status["policy_files"] == [one]
    ok(sm, "publish", "r", "0:80")
    port = row(sm, "r")["network"]["publishes"][0]["hostPort"]
    ok(sm, "unpublish", "r", f"{port}:80", "--json", section="Published")
    assert row(sm, "r")["network"]["publishes"] == []


def test_stop_waits_no_longer_than_told(life):
    sm = life
    log = os.path.join(sm.tmp, "log")
    ok(sm, "create", "deaf", *ISOLATED, "--", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
    ok(sm, "start", "deaf", "--detach", "--log", log)
    w.wait_for("it to be deaf", lambda: "deaf" in open(log).read(), 10)
    fails(sm, 1, ["has not ended within 1 seconds"], "stop", "deaf", "--timeout", "1")
    assert row(sm, "deaf")["state"] == "ending"
    fails(sm, 2, ["--timeout=never"], "stop", "deaf", "--timeout", "never")


def test_help_and_json_before_the_command(life):
    sm = life
    for command in ("create", "start", "stop", "delete", "list", "status", "network"):
        assert f"usage: slirp-med {command}" in ok(sm, command, "--help")
    assert ok(sm, "--json", "list", section="List") == ok(sm, "list", "--json", section="List")
    ok(sm, "create", "t", *ISOLATED, "--", "sh", "-c", "echo --json")
    assert "isolated" in ok(sm, "network", "t") and "created" in ok(sm, "list") and "settings" in ok(sm, "status", "t")
    assert sm.cli("start", "t").stdout == b"--json\n"
