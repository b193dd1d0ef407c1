"""The page about a detector that a person reads: what it is, what its calibration supports, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping

from model.config import DetectorConfig
from model.statistics.calibration import Calibration, describe_guarantee, find_min_sample_size

_RATES = (0.1, 0.05, 0.01, 0.001)  # what people ask for; the calibration holds others as well
_CONFIDENCE = 0.9

WEIGHTS_LICENCE = "weights_licence"
"""Key of the metrics under which the licence stands that a library names for its weights."""


def render_model_card(
    config: DetectorConfig,
    *,
    detector_id: str,
    calibration: Calibration | None,
    metrics: Mapping[str, object],
    with_figures: bool = True,
) -> str:
    """Returns the card as Markdown.

    Args:
        config: what the detector is.
        detector_id: its content hash.
        calibration: None gives a card that says that there are no p-values.
        metrics: JSON figures, and under ``lineage`` where the detector comes from (see jobs.detectors.lineage);
            shown as they are, but for the hashes under ``training_photos`` and ``training_pixels``, which are
            counted.
        with_figures: False leaves out the JSON figures, 150 lines that are for programs.
    """
    figures = json.dumps(count_training_photos(metrics), indent=2, sort_keys=True).splitlines()
    return "\n".join(
        [
            f"# Detector {detector_id}: {config.variant}",
            "",
            "It has seen flawless photos of one kind of asset and scores how unusual a new photo is: higher is more "
            "unusual. Not every unusual photo shows a defect. Method: AttentDifferNet (arXiv 2401.08686) on DifferNet "
            "(arXiv 2008.12577).",
            "",
            *describe_config(config),
            "",
            "## Calibration",
            "",
            *describe_calibration(calibration),
            *describe_asked_promise(calibration, metrics),
            "",
            "## Lineage",
            "",
            *describe_lineage(metrics),
            "",
            *(["## Figures and configuration", "", *(f"    {line}" for line in figures), ""] if with_figures else []),
            "## Licence",
            "",
            describe_licence(config, licence=metrics.get(WEIGHTS_LICENCE)),
            "",
        ]
    )


def describe_lineage(metrics: Mapping[str, object]) -> list[str]:
    """Returns the lines about how, when and from what photos and code the detector was made."""
    known = metrics.get("lineage")
    if not isinstance(known, Mapping):
        return ["Not recorded."]
    parent = known.get("parent")
    made = f"by recalibrating {parent}, whose weights it has" if parent else "by training"
    photos = metrics.get("photos")
    counts = f"{json.dumps(photos, sort_keys=True)}, " if photos else ""
    return [
        f"- made {made}, {known.get('created_at')}",
        f"- photos: {counts}manifest {known.get('manifest_hash')}",
        f"- code: commit {known.get('git_commit') or 'unknown'}",
    ]


def count_training_photos(metrics: Mapping[str, object]) -> dict[str, object]:
    """Returns the metrics with the number of the training photos' hashes in place of the hashes."""
    known = {name: metrics[name] for name in ("training_photos", "training_pixels") if name in metrics}
    counts = {name: f"{len(hashes)} hashes" for name, hashes in known.items() if isinstance(hashes, list)}
    return {**metrics, **counts}


def describe_config(config: DetectorConfig) -> list[str]:
    """Returns the lines about backbone, attention, flow, input and views."""
    attention = ", ".join(f"{block.kind} after {stage}" for stage, block in config.attention.items())
    trained = f", trained: {config.attention_training}" if attention else ""
    return [
        f"- backbone: {config.backbone}, weights {config.weights}, frozen; pooling {config.pooling}",
        f"- attention: {attention or 'none'}{trained}",
        f"- flow: {describe_flow(config)}",
        f"- input: {describe_input(config)} at {config.scales} scales, feature "
        f"scaling {config.feature_scaling}, {config.precision}",
        f"- views: {config.views} rotations in scoring; {config.train_views} per photo and epoch in training, angles "
        f"{config.train_angles}, padding {config.rotation_padding}",
    ]


def describe_input(config: DetectorConfig) -> str:
    """Returns the size of what the network sees, how a photo comes to it, and its tiles if there are any."""
    square = f"{config.image_size} x {config.image_size} px ({config.resize})"
    if config.tile_grid.total == 1:
        return square
    tiles = f"{config.tiles} tiles (rows x columns, overlap {config.tile_overlap:g}, score {config.tile_score})"
    return f"{tiles} of {square}"


def describe_flow(config: DetectorConfig) -> str:
    """Returns the flow's size; a Gaussian where it has no blocks."""
    flow = config.flow
    if flow.blocks == 0:
        return "none: a Gaussian, fitted to the features of flawless photos"
    return f"{flow.blocks} blocks, {flow.hidden_layers} hidden layers of {flow.hidden_width}"


def describe_calibration(calibration: Calibration | None) -> list[str]:
    """Returns the lines about what the calibration promises; None promises nothing."""
    if calibration is None:
        return ["None: raw scores only, no p-values and no thresholds."]
    return [
        *tabulate_thresholds(calibration),
        "",
        "This holds for flawless photos taken like these: new cameras, sites or seasons need a new calibration.",
    ]


def describe_asked_promise(calibration: Calibration | None, metrics: Mapping[str, object]) -> list[str]:
    """Returns the lines about the rate and confidence that the calibration was made for; none if nobody asked."""
    asked = metrics.get("promise")
    if calibration is None or not isinstance(asked, Mapping):
        return []
    rate, confidence = asked["false_alarm_rate"], asked["confidence"]
    said = describe_guarantee(len(calibration.scores), false_alarm_rate=rate, confidence=confidence)
    threshold = calibration.find_threshold(rate, confidence=confidence)
    how = "" if threshold is None else f" Report scores above {threshold:.6g}."
    return ["", f"Made for a false-alarm rate of {rate:g}: {said}.{how}"]


def tabulate_thresholds(calibration: Calibration) -> list[str]:
    """Returns the table of thresholds by false-alarm rate, after a paragraph on how to read it."""
    return [
        f"{len(calibration.scores)} flawless photos that this detector was not trained on, one of each group of photos "
        "that belong together (split-conformal); the "
        f"lowest false-alarm rate they can hold is {calibration.min_rate:.2%}. The rate asked for holds on "
        "average over calibration sets; the last column holds it for this very set.",
        "",
        "| false-alarm rate asked for | report scores above | rate to expect from this calibration (90 % interval) "
        f"| to stay below the rate with {_CONFIDENCE:.0%} probability, report scores above |",
        "|---|---|---|---|",
        *(format_rate_row(calibration, rate) for rate in _RATES),
    ]


def format_rate_row(calibration: Calibration, rate: float) -> str:
    """Formats one false-alarm rate's row of the table; says how many photos it would need if too few."""
    threshold, safe = calibration.find_threshold(rate), calibration.find_threshold(rate, confidence=_CONFIDENCE)
    needs = f"not possible, needs {find_min_sample_size(rate, confidence=_CONFIDENCE)} photos"
    last = needs if safe is None else f"{safe:.6g}"
    if threshold is None:
        return f"| {rate:.1%} | not possible, needs {find_min_sample_size(rate)} photos | | {last} |"
    low, high = calibration.estimate_false_alarm_interval(rate)
    return f"| {rate:.1%} | {threshold:.6g} | {low:.2%} to {high:.2%} | {last} |"


def describe_licence(config: DetectorConfig, *, licence: object = None) -> str:
    """Returns the paragraph about who may use the weights; ``licence``: what the backbone's library names."""
    photos = "The flow was fitted to the training photos: whoever owns them decides who may have it."
    if config.weights == "random":
        return f"The backbone's weights are random, no outside weights are in this folder. {photos}"
    if config.weights == "imagenet":
        library = "timm" if config.backbone.startswith("timm/") else "torchvision"
        named = f" (licence: {licence})" if licence else ""
        return (
            f"The backbone's weights are {library}'s{named}, trained on ImageNet, whose images are offered for "
            f"non-commercial research and education: check that your use is allowed. {photos}"
        )
    return f"The backbone's weights come from {config.weights}: their licence applies. {photos}"
