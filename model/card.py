"""The page about a detector that a person reads: what it is, what its calibration supports, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping

from model.calibration import Calibration, smallest_sample
from model.config import DetectorConfig

_RATES = (0.1, 0.05, 0.01, 0.001)  # what people ask for; the calibration holds others as well


def detector_card(
    config: DetectorConfig, *, detector_id: str, calibration: Calibration | None, metrics: Mapping[str, object]
) -> str:
    """Returns the card as Markdown.

    Args:
        config: what the detector is.
        detector_id: its content hash.
        calibration: None gives a card that says that there are no p-values.
        metrics: JSON figures and lineage, shown as they are.
    """
    figures = json.dumps(metrics, indent=2, sort_keys=True).splitlines()
    return "\n".join(
        [
            f"# Detector {detector_id}: {config.variant}",
            "",
            "It has seen flawless photos of one kind of asset and scores how unusual a new photo is: higher is more "
            "unusual. Not every unusual photo shows a defect. Method: AttentDifferNet (arXiv 2401.08686) on DifferNet "
            "(arXiv 2008.12577).",
            "",
            *_what_it_is(config),
            "",
            "## Calibration",
            "",
            *_what_it_promises(calibration),
            "",
            "## Figures and lineage",
            "",
            *(f"    {line}" for line in figures),
            "",
            "## Licence",
            "",
            _licence(config),
            "",
        ]
    )


def _what_it_is(config: DetectorConfig) -> list[str]:
    attention = ", ".join(f"{block.kind} after {stage}" for stage, block in config.attention.items())
    return [
        f"- backbone: {config.backbone}, weights {config.weights}, frozen",
        f"- attention: {attention or 'none'}",
        f"- flow: {config.flow.blocks} blocks, {config.flow.hidden_layers} hidden layers of {config.flow.hidden_width}",
        f"- input: {config.image_size} x {config.image_size} px at {config.scales} scales, feature scaling "
        f"{config.feature_scaling}",
        f"- views: {config.views} rotations in scoring; {config.train_views} per photo and epoch in training, angles "
        f"{config.train_angles}",
    ]


def _what_it_promises(calibration: Calibration | None) -> list[str]:
    if calibration is None:
        return ["None: raw scores only, no p-values and no thresholds."]
    return [
        f"{len(calibration.scores)} held-out flawless photos; the lowest false-alarm rate they can hold is "
        f"{calibration.smallest_rate:.2%}.",
        "",
        "| false-alarm rate asked for | report scores above | rate to expect from this calibration (90 % interval) |",
        "|---|---|---|",
        *(_promise(calibration, rate) for rate in _RATES),
        "",
        "This holds for flawless photos taken like these: new cameras, sites or seasons need a new calibration.",
    ]


def _promise(calibration: Calibration, rate: float) -> str:
    threshold = calibration.threshold(rate)
    if threshold is None:
        return f"| {rate:.1%} | not possible, needs {smallest_sample(rate)} photos | |"
    low, high = calibration.false_alarm_interval(rate)
    return f"| {rate:.1%} | {threshold:.6g} | {low:.2%} to {high:.2%} |"


def _licence(config: DetectorConfig) -> str:
    photos = "The flow was fitted to the training photos: whoever owns them decides who may have it."
    if config.weights == "random":
        return f"The backbone's weights are random, no outside weights are in this folder. {photos}"
    if config.weights == "imagenet":
        return (
            "The backbone's weights are torchvision's, trained on ImageNet, whose images are offered for "
            f"non-commercial research and education: check that your use is allowed. {photos}"
        )
    return f"The backbone's weights come from {config.weights}: their licence applies. {photos}"
