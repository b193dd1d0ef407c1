"""MLflow and Weights & Biases, for those who have one: whether their clients are there, and how W&B's is reached.

The extra ``tracking`` installs the clients.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.errors import RequestError

_NO_SERVER = ("offline", "disabled")


def check_trackers(trackers: Sequence[str]) -> None:
    """Checks that the client of every tracker is installed and has its key.

    Raises:
        RequestError: it is not, or has none; says what to do.
    """
    if missing := [name for name in trackers if find_spec(name) is None]:
        raise RequestError(
            f"--trackers {', '.join(missing)}: not installed here, install attentdiffernet-ray[tracking] or leave it "
            "out"
        )
    if "wandb" in trackers and os.environ.get("WANDB_MODE") not in _NO_SERVER:
        import wandb  # of the extra ``tracking``: maybe not installed

        if not wandb.api.api_key:
            raise RequestError(
                "--trackers wandb needs a key and found none: set WANDB_API_KEY, run `wandb login`, or set "
                "WANDB_MODE=offline"
            )


def name_project(category: str) -> str:
    """Names the experiment of MLflow, or the project of W&B, that a category's runs go to."""
    return f"attentdiffernet-{category}"


def read_wandb_settings() -> dict[str, Any]:
    """Reads what ``wandb.init`` needs in a process that knows nothing of this one's environment but the key."""
    found: dict[str, Any] = {"dir": str(Path(os.environ.get("WANDB_DIR", ".")).resolve())}
    for name in ("mode", "entity"):
        if value := os.environ.get(f"WANDB_{name.upper()}"):
            found[name] = value
    if server := os.environ.get("WANDB_BASE_URL"):
        found["settings"] = {"base_url": server}
    return found
