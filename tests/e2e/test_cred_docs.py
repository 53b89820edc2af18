# SPDX-License-Identifier: BSD-3-Clause
"""docs/CREDENTIALS.md: its examples are swap files, and its list of reasons is the program's."""
import os
import re

from conftest import REPO

with open(os.path.join(REPO, "docs", "CREDENTIALS.md")) as f:
    PAGE = f.read()


def test_every_example_is_a_swap_file(sm, tmp_path):
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    assert len(examples) >= 4
    for i, text in enumerate(examples):
        path = tmp_path / f"{i}.yaml"
        path.write_text(text)
        flags = [f"--egress-allow={h}" for h in (".corp.example", "api.signed.example", "api.exchanged.example", "api.openai.com")]
        p = sm.cli("run", "--egress", "strict", *flags, "--egress-swap-config", str(path), "--dry-run",
                   env={"TEAM": "red", "VAULT_ADDR": "https://vault.corp.example:8200", "VAULT_TOKEN": "t"})
        assert p.returncode == 0 and not p.stderr, (text, p)
        for name in re.findall(r"^  ([a-z-]+):$", text, re.M):
            assert name in p.stdout.decode(), (name, p)


def test_every_reason_is_explained():
    with open(os.path.join(REPO, "slirp-med", "cred", "reason.c")) as f:
        words = set(re.findall(r'\] = "([a-z_]+)"', f.read())) - {"none"}
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \| [^|]+ \| [^|]+ \|$", PAGE, re.M)
    explained = {x.strip("`") for row in rows for x in row.split(", ")}
    assert words and words <= explained, words - explained
    events = {"egress_swap", "egress_swap_error", "egress_swap_fetch", "egress_deny", "egress_http_response"}
    assert explained - words - events == set(), "a reason that is none"


def test_providers_are_the_programs():
    with open(os.path.join(REPO, "slirp-med", "cred", "provider.c")) as f:
        rows = re.findall(r'\{"([a-z]+)", "([^"]+)", "([^"]+)", "([^"]+)", "([^"]+)"\}', f.read())
    assert len(rows) == 6
    for name, host, header, form, ref in rows:
        assert f"| `{name}` | {host} | `{header}: {form}` | `{ref}` |" in PAGE, name
