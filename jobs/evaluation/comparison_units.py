"""The units of a comparison: one detector or baseline on one category. Each is trained and tested in one Ray task.

A finished unit is one JSON object, ``<output>/units/<category>.<variant>.seed<k>.<hash>.json``, where the hash names
everything that was asked for: settings and photos. A rerun that asks for the same finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from jobs.detectors.backbone_weights import WeightsFiles, hash_backbone_weights
from jobs.detectors.lineage import hash_json, hash_manifest
from jobs.errors import RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.evaluation.metrics import Seed
from jobs.storage import uris
from model.baselines import BASELINES
from model.config import DetectorConfig, OptimizerConfig, PixelRules
from model.versions import read_program_version

_OUTCOME_FORMAT = 2
"""Of the outcomes that are kept: 2 has what a unit cost, and baselines see all views."""


@dataclass(frozen=True)
class ComparisonUnit:
    """What one task does.

    Attributes:
        category: ``<data set>/<category>``.
        variant: name in tables; a baseline's name for a baseline.
        seed: None where chance plays no part.
        detector: of the variant; for a baseline, whose backbone and image size it shares.
        optimizer: None for a baseline, which trains nothing.
        photos_hash: names the photos of the category, and those of the pretext if they are others.
        sees_all: its attention learns from the photos of all categories.
        weights_hash: names the bytes of the backbone's weights.
    """

    category: str
    variant: str
    seed: Seed
    detector: DetectorConfig
    optimizer: OptimizerConfig | None
    photos_hash: str
    sees_all: bool = False
    weights_hash: str = ""

    @property
    def weights_key(self) -> tuple[str, str]:
        """Units with the same backbone and weights share them."""
        return self.detector.backbone, self.detector.weights

    @property
    def photos_key(self) -> tuple[str, int, PixelRules]:
        """Units with the same category, side in pixels, black and white share decoded photos."""
        return self.category, self.detector.image_size, self.detector.pixel_rules

    def __str__(self) -> str:
        """Names the unit in messages."""
        return f"{self.variant} on {self.category}" + ("" if self.seed is None else f", seed {self.seed}")

    def locate_outcome(self, output: str) -> str:
        """Returns where its outcome is kept."""
        asked = {
            "detector": self.detector.model_dump(mode="json"),
            "optimizer": self.optimizer and self.optimizer.model_dump(mode="json"),
            "photos": self.photos_hash,
            "weights": self.weights_hash,
            "program": read_program_version(),
            "format": _OUTCOME_FORMAT,
        }
        seed = "" if self.seed is None else f".seed{self.seed}"
        name = f"{self.category.replace('/', '-')}.{self.variant}{seed}.{hash_json(asked)}.json"
        return uris.join(output, "units", name)

    def locate_attention(self, output: str) -> str:
        """Returns where the attention is kept that this unit shares with those of other categories."""
        asked = {
            "detector": self.detector.model_dump(mode="json"),
            "photos": self.photos_hash,
            "weights": self.weights_hash,
            "program": read_program_version(),
        }
        return uris.join(output, "attention", f"{self.variant}.seed{self.seed}.{hash_json(asked)}.safetensors")


def plan_units(
    config: ComparisonConfig, manifests: Mapping[str, pa.Table], files: WeightsFiles | None = None
) -> list[ComparisonUnit]:
    """Returns all units: baselines first, then seed by seed, so that a comparison of fewer seeds is there early.

    Args:
        config: what is asked for.
        manifests: category -> MANIFEST rows.
        files: of weights; whoever loads the weights afterwards takes the same.

    Raises:
        RequestError: a variant of --custom has the name of a baseline, or a weights file is not there.
    """
    if shared := BASELINES.keys() & set(config.variants):
        raise RequestError(f"custom: {', '.join(shared)} is the name of a baseline, take another")
    held_out = ""
    if config.calibration_fraction:
        groups = f"groups {','.join(config.group_by)} {config.key_pattern or ''}"
        held_out = f"+calibration {config.calibration_fraction:g} of {groups}"
    hashes = {category: hash_manifest(manifest) + held_out for category, manifest in manifests.items()}
    baselines = plan_baselines(config, hashes) if config.baselines else []
    units = baselines + [
        unit
        for seed in range(config.seeds)
        for variant in config.variants
        for unit in plan_variant(config, hashes, variant=variant, seed=seed)
        if seed == 0 or unit.seed is not None
    ]
    files = files or WeightsFiles()
    by_weights = {unit.detector.weights: unit.detector for unit in units}
    weights = {
        name: hash_backbone_weights(detector, files, asked_as=f"weights {name} of {detector.backbone}")
        for name, detector in by_weights.items()
    }
    return [replace(unit, weights_hash=weights[unit.detector.weights]) for unit in units]


def plan_baselines(config: ComparisonConfig, hashes: Mapping[str, str]) -> list[ComparisonUnit]:
    """Returns the units of all baselines; ``hashes`` name the photos of each category."""
    shared = config.detector.model_dump(exclude_unset=True)
    return [
        ComparisonUnit(category, name, seed, DetectorConfig.model_validate({**shared, "variant": name}), None, photos)
        for name, baseline in BASELINES.items()
        for category, photos in hashes.items()
        for seed in (range(config.seeds) if baseline.is_seeded else [None])
    ]


def plan_variant(
    config: ComparisonConfig, hashes: Mapping[str, str], *, variant: str, seed: int
) -> list[ComparisonUnit]:
    """Returns the units of one variant and seed, without a seed where it decides nothing.

    Args:
        config: what is asked for.
        hashes: category -> what names its photos.
        variant: name.
        seed: of the detector.
    """
    detector = config.make_detector_config(variant, seed=seed)
    sees_all = config.pretext_on == "all" and detector.attention_training == "pretext" and bool(detector.attention)
    drawn = seed if is_drawn(detector) else None
    every_hash = "+".join(hashes[category] for category in sorted(hashes))
    return [
        ComparisonUnit(category, variant, drawn, detector, config.optimizer, every_hash if sees_all else own, sees_all)
        for category, own in hashes.items()
    ]


def is_drawn(detector: DetectorConfig) -> bool:
    """Tells whether a detector depends on its seed: all do but a Gaussian of plain features at the scoring angles."""
    is_gaussian = detector.flow.blocks == 0 and detector.train_angles == "scoring"
    return not is_gaussian or bool(detector.attention) or detector.weights == "random"
