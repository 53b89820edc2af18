# SPDX-License-Identifier: BSD-3-Clause
"""The tree keeps its own rules: who may include whom, what may not be called, what may not be committed."""
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]

# design.md, section 3. A file may include its own folder and lower ranks.
RANK = {
    "slirp-med/base": 1,
    "slirp-med/flow": 2, "slirp-med/policy": 2, "slirp-med/audit": 2, "slirp-med/sandbox": 2,
    "slirp-med/dns": 3, "slirp-med/tls": 3, "slirp-med/http": 3, "slirp-med/cred": 3, "slirp-med/nat": 3,
    "slirp-med/core": 4, "slirp-med/supervisor": 4,
    # Rank 5 of the design, in its own order: the command line is on top.
    "vmm-glue/vhost": 4, "vmm-glue/ports": 5, "vmm-glue/guest": 5, "vmm-glue/paths": 6, "vmm-glue/launch": 7, "vmm-glue/embed": 8, "vmm-glue/cli": 8,
}
FOLDER_OF = {name.split("/")[1]: name for name in RANK}


def tracked(*patterns):
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", *patterns], check=True, capture_output=True).stdout
    return [ROOT / p for p in out.decode().split("\0") if p and (ROOT / p).exists()]


def module_of(path):
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if len(parts) > 2 else None


def sources():
    return [p for p in tracked("slirp-med/*.c", "slirp-med/*.h", "vmm-glue/*.c", "vmm-glue/*.h")]


def test_includes_point_downwards():
    wrong = []
    seen = 0
    for path in sources():
        module = module_of(path)
        assert module in RANK, f"{path}: its folder has no rank; see design.md, section 3"
        for include in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.M):
            target = FOLDER_OF.get(include.split("/")[0]) if "/" in include else None
            if target is None:
                continue
            seen += 1
            if target != module and RANK[target] >= RANK[module]:
                wrong.append(f"{path.relative_to(ROOT)} ({module}, rank {RANK[module]}) includes {include} (rank {RANK[target]})")
    assert seen > 50
    assert not wrong, "\n".join(wrong)


def test_no_io_in_pure_modules():
    """policy, dns, tls, http and cred are engines: no descriptor, no clock, no log."""
    banned = re.compile(r"\b(socket|connect|sendto|recvfrom|open|openat|fopen|clock_gettime|time|gettimeofday|sm_log\w*|sm_clock_\w+)\s*\(")
    wrong = []
    for path in sources():
        if module_of(path) in ("slirp-med/policy", "slirp-med/dns", "slirp-med/tls", "slirp-med/http", "slirp-med/cred"):
            text = re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:[^\"\\]|\\.)*\"", "", path.read_text(), flags=re.S)
            wrong += [f"{path.relative_to(ROOT)}: {m.group(0)}" for m in banned.finditer(text)]
    assert not wrong, "\n".join(wrong)


def test_banned_functions():
    banned = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|system|popen|alloca|inet_aton|inet_addr|gethostbyname|tmpnam|mktemp)\s*\(")
    wrong = []
    for path in sources():
        text = re.sub(r"/\*.*?\*/|\"(?:[^\"\\]|\\.)*\"", "", path.read_text(), flags=re.S)
        wrong += [f"{path.relative_to(ROOT)}: {m.group(0)}" for m in banned.finditer(text)]
    assert not wrong, "\n".join(wrong)


def test_licence_lines():
    missing = [str(p.relative_to(ROOT)) for p in sources() + tracked("tests/*.c", "fuzz/*.c")
               if "SPDX-License-Identifier: BSD-3-Clause" not in p.read_text()[:200]]
    assert not missing, missing


def test_nothing_unfinished_and_no_machine_paths():
    # Spelled apart, so that this file does not contain what it looks for.
    unfinished = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    machine = re.compile(r"(/wo" + r"rk/|/ro" + r"ot/\.|deb\.deb" + r"ian\.org|snapshot\.deb" + r"ian)")
    wrong = []
    for path in tracked():
        if path.suffix in (".png", ".bin") or "corpus" in path.parts or "packagefiles" in path.parts:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for pattern in (unfinished, machine):
            wrong += [f"{path.relative_to(ROOT)}: {m.group(0)}" for m in pattern.finditer(text)]
    assert not wrong, "\n".join(wrong)


def test_fuzz_targets_have_corpora():
    for path in tracked("fuzz/fuzz_*.c"):
        corpus = ROOT / "fuzz" / "corpus" / path.stem.removeprefix("fuzz_")
        assert corpus.is_dir() and any(corpus.iterdir()), f"{path.name} has no corpus"


def test_switch_over_enum_has_no_default_in_decisions():
    """The compiler finds a missing verdict only when there is no default (style.md)."""
    for name in ("policy/decide.c", "flow/msg.c", "core/session.c"):
        text = (ROOT / "slirp-med" / name).read_text()
        assert not re.search(r"^\s*default\s*:", text, re.M), name


def test_version_is_one():
    header = (ROOT / "include/slirp-med/version.h").read_text()
    numbers = [re.search(rf"SLIRP_MED_VERSION_{part} (\d+)", header).group(1) for part in ("MAJOR", "MINOR", "PATCH")]
    assert f"version: '{'.'.join(numbers)}'" in (ROOT / "meson.build").read_text()
