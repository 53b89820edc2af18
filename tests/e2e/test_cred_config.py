# SPDX-License-Identifier: BSD-3-Clause
"""The configuration of credential swap, as a user sees it: a dry run, and what CMD does not get to see."""
import json
import os

SECRET = "CANARY-5c1f-secret"
VARIABLES = {"OPENAI_API_KEY": SECRET, "CORP_ID": SECRET, "CORP_TEAM": "red", "VAULT_TOKEN": SECRET}


def swap_file(tmp_path):
    folder = tmp_path / "conf"
    folder.mkdir()
    key = folder / "corp.key"
    key.write_text(SECRET)
    key.chmod(0o600)
    path = folder / "swaps.yaml"
    path.write_text("""\
swaps:
  corp:
    type: oauth2-cc
    domains: [api.corp.test]
    token_url: https://id.corp.test/token
    client_id_ref: env:CORP_ID
    client_secret_ref: file:corp.key
  team:
    type: jwt-bearer
    domains: [.team.test]
    signing_key_ref: vault:kv/team#pem
    algorithm: ES256
    claims: {iss: "${CORP_TEAM}"}
""")
    return str(path), str(key)


FLAGS = ("--egress", "strict", "--egress-allow", ".corp.test", "--egress-allow", ".team.test", "--cred-swap", "openai")


def tree(path):
    return sorted(os.path.join(d, f) for d, _, files in os.walk(path) for f in files)


def test_dry_run(sm, tmp_path):
    """Shows where each credential would go and what the host has; no secret; nothing on disk."""
    path, key = swap_file(tmp_path)
    flags = ("run", *FLAGS, "--egress-swap-config", path, "--dry-run")
    before = tree(tmp_path)
    p = sm.cli(*flags, "--", "echo", "never", env=VARIABLES)
    assert p.returncode == 0 and not p.stderr, p
    text = p.stdout.decode()
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "api.openai.com" in rows["openai"] and "Bearer {key}" in rows["openai"] and rows["openai"].endswith("yes")
    assert "env:CORP_ID" in rows["corp"] and f"file:{key}" in text and "vault:kv/team#pem" in rows["team"]
    p = sm.cli(*flags, "--json", env=VARIABLES)  # a dry run needs no command
    assert p.returncode == 0 and not p.stderr, p
    got = json.loads(p.stdout)
    assert [s["name"] for s in got["swaps"]] == ["corp", "team", "openai"]
    assert got["mode"] == "strict" and got["lists"]["allow"] == 3
    assert got["hidden"] == {"variables": ["CORP_ID", "VAULT_TOKEN", "OPENAI_API_KEY", "CORP_TEAM"], "files": [key]}
    assert SECRET not in text and SECRET not in p.stdout.decode() and "never" not in text
    assert tree(tmp_path) == before and not os.path.exists(os.path.join(sm.state, "slirp-med"))


def test_a_literal_is_refused_and_not_shown(sm, tmp_path):
    path = tmp_path / "swaps.json"
    path.write_text('{"swaps": {"a": {"type": "static", "domains": ["a.test"],\n"key_ref": "%s"}}}' % SECRET)
    cases = [("--egress-allow", "a.test", "--egress-swap-config", str(path)), ("--cred-swap", f"openai={SECRET}"),
             ("--cred-swap", SECRET), ("--cred-swap", f"{SECRET}=env:X"), ("--cred-swap", f"openai=env:{SECRET}")]
    for flags in cases:
        for more in ((), ("--dry-run",), ("--dry-run", "--json")):
            p = sm.cli("run", *flags, *more, "--", "true")
            assert p.returncode == 2 and not p.stdout and p.stderr, p
            assert b"CANARY" not in p.stderr and b"5c1f" not in p.stderr, p
    assert not os.path.exists(os.path.join(sm.state, "slirp-med"))


def test_cmd_sees_neither_variable_nor_file(sm, tmp_path):
    path, key = swap_file(tmp_path)
    code = f"""
import os
try:
    text = open({key!r}).read()
except OSError as e:
    text = type(e).__name__
try:
    init = open("/proc/1/environ").read()
except OSError as e:
    init = type(e).__name__
out.update(env=dict(os.environ), key=text, init=init)
"""
    r = sm.guest(code, *FLAGS, "--egress-swap-config", path, env={**VARIABLES, "KEPT": "kept", "VAULT_ADDR": "https://vault.test:8200"})
    assert r.out["env"]["KEPT"] == "kept"
    assert not set(VARIABLES) & set(r.out["env"]), r.out["env"]
    assert SECRET not in json.dumps(r.out), r.out["key"]
    assert r.out["key"] in ("PermissionError", "") and r.out["init"] == "PermissionError"
