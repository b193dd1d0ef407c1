"""The detectors that a training starts from, by name: the paper's three, what a search found, and a fast one.

The papers are AttentDifferNet (arXiv 2401.08686, arXiv 2311.02747) and DifferNet (arXiv 2008.12577).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.config import DetectorConfig, Precision

_PAPER_STAGES = ("pool1", "pool2", "conv5")


def _attend_paper_stages(kind: str) -> dict[str, dict[str, str]]:
    # Plain data, not an AttentionConfig, whose check imports torch: a command line's --help must not wait for that.
    return {stage: {"kind": kind} for stage in _PAPER_STAGES}


PRESETS: dict[str, dict[str, Any]] = {
    "differnet": {},
    "attentdiffernet_se": {"attention": _attend_paper_stages("se"), "attention_training": "pretext"},
    "attentdiffernet_cbam": {"attention": _attend_paper_stages("cbam"), "attention_training": "pretext"},
    "attentdiffernet_best": {
        "attention": {stage: {"kind": "se"} for stage in ("pool1", "pool2")},
        "attention_training": "pretext",
        "feature_stage": "conv4",
        "pooling": "average_max",
        "feature_scaling": "whiten",
        "views": 1,
        "train_views": 1,
        "train_angles": "scoring",
        "flow": {"blocks": 6, "hidden_width": 256, "start": "identity"},
    },
}
"""Preset name -> what differs from plain DifferNet (arXiv 2008.12577), at an image size that all share.

The two of the paper have attention after pool1, pool2 and conv5 (arXiv 2401.08686, figure 2). ``attentdiffernet_best``
is what our evidence said on three sets (infra/decisions/0016-what-best-is-made-of.md). Comparisons and searches take
these, because they show all detectors photos of one size.
"""

PAPER_PRESETS = ("differnet", "attentdiffernet_se", "attentdiffernet_cbam")
"""The presets that differ in attention alone."""

DEFAULT_VARIANT = "gaussian_resnet18"
"""What a training takes where nothing else is asked for."""

TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT_VARIANT: {
        "backbone": "resnet18",
        "image_size": 224,
        "scales": 1,
        "pooling": "generalized_mean",
        "feature_scaling": "whiten",
        "views": 1,
        "train_views": 1,
        "train_angles": "scoring",
        "flow": {"blocks": 0},
    },
    "differnet_fast": {
        "image_size": 224,
        "scales": 2,
        "feature_scaling": "whiten",
        "views": 4,
        "train_views": 4,
        "train_angles": "scoring",
        "flow": {"blocks": 6, "hidden_width": 256, "start": "identity"},
    },
    **PRESETS,
}
"""Preset name -> what differs from plain DifferNet, for trainings. The first two have smaller photos, too.

``gaussian_resnet18`` is what leaving one set out chose (infra/decisions/0076-chosen-by-leaving-one-out.md).
"""

PRESET_OPTIMIZERS: dict[str, dict[str, Any]] = {DEFAULT_VARIANT: {"epochs": 1}, "differnet_fast": {"epochs": 12}}
"""Preset name -> what differs from DifferNet's training procedure; a flow that starts as the identity learns sooner."""


def get_preset(name: str) -> DetectorConfig:
    """Returns the preset ``name``.

    Raises:
        KeyError: unknown name; the message lists the known ones.
    """
    if name not in TRAINING_PRESETS:
        raise KeyError(f"unknown variant {name!r}, expected one of {', '.join(TRAINING_PRESETS)}")
    return DetectorConfig.model_validate({"variant": name, **TRAINING_PRESETS[name]})


def get_random_preset(name: str, *, precision: Precision, views: int | None = None) -> DetectorConfig:
    """Returns the preset ``name`` with random weights, to measure its speed, which does not depend on them.

    Args:
        name: of the preset.
        precision: of its arithmetic.
        views: of each photo; None for the preset's own.

    Raises:
        KeyError: unknown name.
    """
    fields = get_preset(name).model_dump() | {"weights": "random", "precision": precision}
    if views is not None:  # such a detector trains with no more views than it scores with
        fields |= {"views": views, "train_views": min(views, fields["train_views"])}
    return DetectorConfig.model_validate(fields)


def settle_attention(fields: Mapping[str, Any], *, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns detector fields in which attention that was asked for also learns.

    Identity gates that stay frozen change nothing, so attention without a word on how it learns takes the pretext.

    Args:
        fields: of a detector, complete.
        given: those of them that a person gave, beside a preset's.

    Raises:
        ValueError: published gates, which start at random, without a word on how they learn.
    """
    attention = fields.get("attention")
    if isinstance(attention, Mapping) and not attention:
        return {**fields, "attention_training": "frozen"}
    if "attention_training" in given or not isinstance(attention, Mapping):
        return dict(fields)
    if not given.get("attention") or fields["attention_training"] != "frozen":
        return dict(fields)
    if published := [stage for stage, block in attention.items() if _read_gate(block) != "identity"]:
        raise ValueError(
            f"attention with sigmoid gates ({', '.join(published)}) needs detector.attention_training beside it: joint "
            "trains them, frozen leaves them at random"
        )
    return {**fields, "attention_training": "pretext"}


def _read_gate(block: object) -> object:
    return block.get("gate", "identity") if isinstance(block, Mapping) else "identity"
