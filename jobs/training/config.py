"""Configuration of a training, of one detector or of a fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs.config import (
    BOXES,
    EXCLUSION,
    GROUP_BY_DEFAULT,
    GROUP_BY_HELP,
    INCLUDE,
    KEY_PATTERN,
    Confidence,
    Exclusion,
    JobConfig,
    Name,
    Patterns,
    Texts,
    Trackers,
    Uri,
    as_name,
    check_group_names,
    merge,
    split_at_commas,
)
from model.config import MAX_PIXELS, DetectorConfig, OptimizerConfig
from model.presets import DEFAULT_VARIANT, PRESET_OPTIMIZERS, TRAINING_PRESETS, get_preset, settle_attention


class TrainConfig(JobConfig):
    """Train detectors of one or more categories on their flawless photos, calibrate and register them.

    Every combination of category, variant and seed is a unit: trained on its own, resumed and retried on its own.
    """

    data: Uri | None = Field(
        None, description="data in MVTec layout: <category>/train/good, <category>/test/<good or defect>"
    )
    good: Uri | None = Field(
        None,
        description="instead of data: the flawless photos of one category: a folder in any layout, an S3 Inventory, or "
        "a list",
    )
    boxes: Uri | None = BOXES
    category: str = Field(description="asset category to train; several with commas between them; all: every one there")
    detectors: Uri = Field(description="registry to put the detectors into")
    variant: str = Field(
        DEFAULT_VARIANT,
        description=f"preset to start from: {', '.join(TRAINING_PRESETS)}; the paper's three take hours on a CPU",
    )
    variants: Texts = Field(
        default_factory=list,
        description="several presets to train, with commas between them, the preferred one first; default: variant",
    )
    seeds: int = Field(1, ge=1, le=1000, description="detectors per variant, of detector.seed and the seeds after it")
    alias: Name | None = Field("champion", description="alias to set to a category's best detector; null sets none")
    retrain: bool = Field(False, description="train again what this configuration has already trained on this data")
    concurrent: int | None = Field(None, ge=1, description="units at a time; default: what the cluster has room for")
    workers: int = Field(1, ge=1, description="data-parallel training workers of a unit")
    use_gpu: bool = Field(False, description="give each worker one GPU")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of a worker; default: its machine's cores, divided by the workers there"
    )
    calibration_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the flawless photos held out to calibrate"
    )
    validation_fraction: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the flawless photos held out to stop early and to compare seeds; default: 0.1 where "
        "optimizer.patience or seeds ask for it, else 0",
    )
    split_seed: int = Field(
        0, ge=0, lt=2**63, description="decides which photos are held out: the same for all variants and seeds"
    )
    group_by: Texts = Field(
        default_factory=list,
        description=f"{GROUP_BY_HELP}; group for the column of that name of a list given as good; {GROUP_BY_DEFAULT}",
    )
    key_pattern: str | None = KEY_PATTERN
    false_alarm_rate: float = Field(
        0.05, gt=0, lt=1, description="rate that the calibration set must be able to support"
    )
    confidence: Confidence = None
    include: Patterns = INCLUDE
    exclude: Exclusion | None = EXCLUSION
    verdicts: Uri | None = Field(
        None,
        description="results of jobs.score: photos that people confirmed there as defects, and copies of them, do not "
        "train",
    )
    checkpoint_every_s: float = Field(
        120,
        ge=0,
        description="least seconds between two checkpoints, more where they would take over 5 % of the time; 0: one "
        "after every epoch whatever it takes",
    )
    trackers: Trackers = Field(
        default_factory=list, description="also log each epoch to mlflow and wandb (extra tracking)"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels; larger headers are refused unread")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="training procedure")
    detector: DetectorConfig = Field(default_factory=DetectorConfig, description="changes to the preset")
    _changes: object = PrivateAttr(default_factory=dict)
    _optimizer_changes: object = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _start_from_the_presets(cls, given: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, dict):
            return handler(given)
        asked = split_at_commas(given.get("variants")) or [given.get("variant", cls.model_fields["variant"].default)]
        changes, optimizer = given.get("detector", {}), given.get("optimizer", {})
        variants = [str(name) for name in asked] if isinstance(asked, list) else []
        bases = {name: merge_preset(name, changes) for name in variants}
        check_attention_training(changes, bases)
        first = next(iter(bases), "")
        config = handler(
            {**given, "detector": bases.get(first, changes), "optimizer": merge_optimizer(first, optimizer)}
        )
        config._changes, config._optimizer_changes = changes, optimizer
        for name in bases:
            config.make_detector_config(name, seed=config.detector.seed)
        return config

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.group_by != ["group"] or self.good is None:
            check_group_names(self.group_by, self.key_pattern)
        return self

    @field_validator("category")
    @classmethod
    def _check_category_names(cls, category: str) -> str:
        names = [as_name(name.strip()) for name in category.split(",")]
        if len(set(names)) < len(names) or ("all" in names and len(names) > 1):
            raise ValueError(f"expected different names, or all, got {category!r}")
        return ",".join(names)

    @model_validator(mode="after")
    def _check_where_the_photos_are(self) -> Self:
        if (self.data is None) == (self.good is None):
            raise ValueError("needed --data FOLDER in MVTec layout, or --good FOLDER of one category: give one of them")
        if self.boxes is not None and self.good is None:
            raise ValueError("--boxes needs --good FOLDER, which its file names are below")
        if self.good is not None and (self.categories is None or len(self.categories) > 1):
            raise ValueError(f"--good has photos of one category: name it with --category, got {self.category!r}")
        return self

    @model_validator(mode="after")
    def _check_batch_size(self) -> Self:
        if self.optimizer.count_batch(self.workers) < self.workers:
            raise ValueError(f"optimizer.batch_size {self.optimizer.batch_size} is less than {self.workers} workers")
        return self

    @model_validator(mode="after")
    def _check_held_out_photos(self) -> Self:
        held_out = self.calibration_fraction + self.validation_share
        if held_out >= 1:
            raise ValueError(f"calibration_fraction and validation_fraction must be below 1 together, got {held_out:g}")
        if self.optimizer.patience is not None and self.validation_share == 0:
            raise ValueError("optimizer.patience needs photos to look at: give validation_fraction above 0")
        if len(set(self.variants)) < len(self.variants):
            raise ValueError(f"variants must differ, got {', '.join(self.variants)}")
        return self

    @property
    def categories(self) -> list[str] | None:
        """Returns the categories to train; None: every one in the data."""
        return None if self.category == "all" else self.category.split(",")

    @property
    def asked_variants(self) -> list[str]:
        """Returns the presets to train, the preferred one first."""
        return self.variants or [self.variant]

    @property
    def validation_share(self) -> float:
        """Returns ``validation_fraction`` with its default put in."""
        if self.validation_fraction is not None:
            return self.validation_fraction
        return 0.1 if self.optimizer.patience is not None or self.seeds > 1 else 0.0

    def make_detector_config(self, variant: str, *, seed: int) -> DetectorConfig:
        """Returns the detector of one unit: the preset ``variant`` with this configuration's changes, and its seed.

        Raises:
            ValueError: they do not go together; one line.
        """
        try:
            return DetectorConfig.model_validate({**merge_preset(variant, self._changes), "seed": seed})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in ("detector", *first["loc"]))
            raise ValueError(f"{field} of variant {variant}: {first['msg'].removeprefix('Value error, ')}") from error

    def make_optimizer_config(self, variant: str) -> OptimizerConfig:
        """Returns the training procedure of one unit: the preset's with this configuration's changes."""
        return OptimizerConfig.model_validate(merge_optimizer(variant, self._optimizer_changes))


def merge_preset(name: str, changes: object) -> dict[str, object]:
    """Returns a preset's detector fields with changes laid on top; attention that they bring learns.

    Raises:
        ValueError: no such preset, or changes that cannot be laid on it.
    """
    try:
        preset = get_preset(name).model_dump()
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    return settle_attention(merge(preset, changes), given=changes if isinstance(changes, dict) else {})


def merge_optimizer(name: str, changes: object) -> object:
    """Returns a preset's optimizer fields with changes laid on top; what is no mapping stays, to be refused."""
    return merge(PRESET_OPTIMIZERS.get(name, {}), changes) if isinstance(changes, dict) else changes


def check_attention_training(changes: object, detectors: Mapping[str, Mapping[str, object]]) -> None:
    """Refuses a way for attention to learn where no detector has any.

    Args:
        changes: detector fields as given.
        detectors: variant -> its detector fields, the changes included.

    Raises:
        ValueError: one line.
    """
    asked = changes.get("attention_training", "frozen") if isinstance(changes, dict) else "frozen"
    if asked != "frozen" and detectors and not any(fields.get("attention") for fields in detectors.values()):
        raise ValueError(
            f"detector.attention_training {asked} needs attention, which {', '.join(detectors)} has not: give "
            "detector.attention or another variant"
        )
