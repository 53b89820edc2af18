# SPDX-License-Identifier: BSD-3-Clause
"""Where a benchmark's result goes: the terminal, a JSON file, and the part of a Markdown file that is its own."""
import json
import os


def write(doc, text, to_json, to_markdown, begin, end):
    """Prints text. Each file may be None; of a Markdown file with both marks only what is between them changes."""
    print(text)
    if to_json:
        with open(to_json, "w") as f:
            f.write(json.dumps(doc, indent=1) + "\n")
    if to_markdown:
        if os.path.exists(to_markdown):
            with open(to_markdown) as f:
                old = f.read()
            if begin in old and end in old:
                text = old[:old.index(begin)] + begin + "\n" + text + end + old[old.index(end) + len(end):]
        with open(to_markdown, "w") as f:
            f.write(text)
