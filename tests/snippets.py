"""Runs the Python blocks of a page one after another: `python -m tests.snippets PAGE FOLDER`."""

import os
import re
import sys
from pathlib import Path


def snippets(page: Path) -> list[str]:
    """The Python blocks of a page."""
    text = page.read_text()
    found = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(found) == text.count("```python"), f"{page}: a block that is not at a line's start"
    return found


def _main(page: str, folder: str) -> None:
    blocks = snippets(Path(page).resolve())
    os.chdir(folder)
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


if __name__ == "__main__":
    _main(*sys.argv[1:])
