"""Returns the request of a search whose trials take a second each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.detectors import TINY

DIVERGING = 1e12
"""A learning rate that ends every training with a loss that is not finite."""


SMALL_SPACE = {
    "image_size": 128,
    "scales": 2,
    "views": 1,
    "train_views": 1,
    "pretext_steps": 2,
    "flow_hidden_width": [16, 32],
    "flow_blocks": [1, 2],
    "flow_hidden_layers": 1,
    "batch_size": 24,
    "learning_rate": [1e-3, DIVERGING],
}


UNGUARDED = {**TINY, "collapse_guard": False}
"""On random weights the tiny CBAM loses rank, which is not what these tests are about."""


def request_search(drawn: Path, results: Path, **more: Any) -> dict[str, Any]:
    """Returns the request of a search whose trials take a second each.

    Half of the trials that the sampler chooses diverge.
    """
    return {
        "data": str(drawn / "data"),
        "category": "insulator",
        "results": str(results),
        "trials": 8,
        "validation_share": 0.5,
        "finalists": 2,
        "finalist_seeds": 2,
        "seeds": 2,
        "concurrent": 1,
        "grace_epochs": 1,
        "detector": UNGUARDED,
        "optimizer": {"epochs": 4, "learning_rate": 1e-3},
        "space": SMALL_SPACE,
        **more,
    }
