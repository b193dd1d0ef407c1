"""What tests of shell scripts share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def check_bash(script: Path) -> None:
    """Fails unless a script can be executed, bash can parse it, and shellcheck, where there is one, finds no fault."""
    subprocess.run(["bash", "-n", script], check=True, timeout=60)
    assert script.stat().st_mode & 0o111
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True, timeout=60)
