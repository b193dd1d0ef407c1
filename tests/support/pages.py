"""What the README and the pages of infra/docs hold: fenced blocks, commands and flags."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support.places import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "infra" / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def names(page: Path) -> str:
    """A page's name below the checkout."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [text for name, text in _FENCED.findall(page.read_text()) if name == language]


def shell_lines(page: Path) -> list[str]:
    """Every command of the ``sh`` blocks as one line; continued lines are joined, ``&&`` parts them."""
    joined = [line for block in blocks(page, "sh") for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return [part.strip() for line in joined for part in line.split(" && ")]


def inline_code(page: Path) -> list[str]:
    """Everything between single backticks outside fenced blocks, line breaks made spaces."""
    spans = re.findall(r"`([^`]+)`", _FENCED.sub("", page.read_text()))
    return [" ".join(span.split()) for span in spans]


def find_command(beginning: str, *, having: str = "") -> list[str]:
    """The arguments of the first command on any page that begins so, and has a flag where several commands do.

    Raises:
        LookupError: no page has one.
    """
    for page in PAGES:
        for line in shell_lines(page):
            if line.startswith(beginning) and having in line:
                return shlex.split(line.removeprefix(beginning))
    raise LookupError(f"no page has a command that begins with {beginning!r} and has {having!r}")
