# SPDX-License-Identifier: BSD-3-Clause
"""Where a benchmark's result goes: the terminal, a JSON file, and the part of a Markdown file that is its own; and where it was measured."""
import json
import os
import platform


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = next((x.split(":", 1)[1].strip() for x in f if x.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {cpu}, Linux {platform.release()}"


def write(doc, text, to_json, to_markdown, begin, end):
    """Prints text. Each file may be None; of a Markdown file with both marks only what is between them changes, and one without gets both at its
    end."""
    print(text, flush=True)
    if to_json:
        with open(to_json, "w") as f:
            f.write(json.dumps(doc, indent=1) + "\n")
    if to_markdown:
        old, block = "", f"{begin}\n{text}{end}"
        if os.path.exists(to_markdown):
            with open(to_markdown) as f:
                old = f.read()
        if begin in old and end in old:
            new = old[:old.index(begin)] + block + old[old.index(end) + len(end):]
        else:
            new = old + ("\n" if old else "") + block + "\n"
        with open(to_markdown, "w") as f:
            f.write(new)
