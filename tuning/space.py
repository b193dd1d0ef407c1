"""The search space: which attention after which stage, how it learns, what is pooled, which flow, how it is trained.

Conditional: a dimension exists only where it has an effect. A stage has a reduction only if its kind of attention has
one, the pretext has steps only if there is attention to learn it, stages behind the pooled one have no attention.
Dimensions whose values depend on another one's (scales on the image size) have a name for each, ``scales@224``, because
a parameter's distribution must never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, Self

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from jobs.config import JobConfig, merge
from model.config import BACKBONE_SMALLEST_PX, BACKBONE_STAGES, DetectorConfig, OptimiserConfig
from tuning.dimensions import Dimension, Range, Value, is_fixed, values

NONE = "none"
"""The kind of attention that stands for no attention."""


def _dimension(given: object, handler: ValidatorFunctionWrapHandler) -> Any:
    """One message for whatever is wrong, where pydantic would give one for each member of the union."""
    value = _from_text(given)
    try:
        return Range.model_validate(value) if isinstance(value, dict) else handler(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(value, dict) else ""
        wanted = problem or "expected one value, a list of values, or low, high, step and log"
        raise ValueError(f"{wanted}, got {given!r}") from error


def _from_text(given: object) -> object:
    """A flag's text as YAML, or values with commas between them."""
    if isinstance(given, list):  # the command line leaves text in it
        return [_yaml(part) if isinstance(part, str) else part for part in given]
    if not isinstance(given, str):
        return given
    is_plain_list = "," in given and given[0] not in "[{"
    found = [_yaml(part) for part in given.split(",")] if is_plain_list else _yaml(given)
    # The command line takes a lone object for a list of one.
    return found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict) else found


def _yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"expected a value, a list or low, high, step and log, got {text!r}") from error


def _as_list(given: object) -> object:
    return given if given is None or isinstance(given, list) else [given]


Dim = Annotated[Dimension, WrapValidator(_dimension)]
Listed = Annotated[Sequence[Value] | None, BeforeValidator(_as_list), BeforeValidator(_from_text)]


class SpaceConfig(JobConfig):
    """What may be chosen: for each dimension a list of values, ``{low, high, step, log}``, or one value to fix it."""

    attended: Listed = Field(default_factory=lambda: [False, True], description="whether there is attention at all")
    kinds: Listed = Field(None, description="kinds of attention after a stage; default: none and every registered one")
    stages: Listed = Field(None, description="stages that attention may follow; default: all of the backbone")
    reduction: Dim = Field([4, 8, 16, 32], description="channel reduction of the kinds that have one")
    spatial_kernel: Dim = Field([3, 5, 7], description="side of the spatial convolution, of the kinds that have one")
    attention_training: Listed = Field(
        default_factory=lambda: ["pretext"], description="how attention learns: pretext, joint, frozen"
    )
    pretext_steps: Dim = Field(Range(low=20, high=200, step=20), description="optimiser steps of the pretext")
    pretext_learning_rate: Dim = Field(Range(low=3e-4, high=1e-2, log=True), description="step size of the pretext")
    feature_stage: Listed = Field(
        None, description="stage that is pooled, null the last pooling layer; default: null and the last three stages"
    )
    pooling: Dim = Field(["average", "average_max"], description="pooling over positions")
    feature_scaling: Listed = Field(
        default_factory=lambda: ["global", "channel", "whiten"], description="scaling of pooled features"
    )
    image_size: Listed = Field(default_factory=lambda: [224, 448], description="side of the network's input in pixels")
    scales: Listed = Field(default_factory=lambda: [1, 2, 3], description="input scales; those that fit the size")
    views: Listed = Field(default_factory=lambda: [1, 4, 16], description="rotated views in scoring")
    train_views: Listed = Field(
        default_factory=lambda: [1, 4], description="rotated views of a photo per epoch; those that fit views"
    )
    flow_blocks: Dim = Field(Range(low=2, high=8), description="coupling blocks")
    flow_hidden_width: Dim = Field([128, 256, 512, 1024, 2048], description="units of a subnet's hidden layers")
    flow_hidden_layers: Dim = Field([1, 2, 3], description="hidden layers of a subnet")
    flow_clamp: Dim = Field(Range(low=1.0, high=4.0, step=0.5), description="soft clamp of the log scale, nats")
    flow_dropout: Dim = Field([0.0, 0.1, 0.3], description="dropout inside the subnets")
    flow_start: Dim = Field(["identity", "random"], description="start of the flow")
    learning_rate: Dim = Field(Range(low=2e-5, high=2e-3, log=True), description="step size of the flow's Adam")
    beta1: Dim = Field([0.5, 0.8, 0.9], description="first beta of Adam")
    beta2: Dim = Field([0.8, 0.95, 0.999], description="second beta of Adam")
    weight_decay: Dim = Field(Range(low=1e-6, high=1e-2, log=True), description="L2 penalty of Adam")
    batch_size: Dim = Field([8, 16, 24, 48], description="photos per step")

    @model_validator(mode="after")
    def _no_list_is_empty(self) -> Self:
        if empty := [name for name in type(self).model_fields if getattr(self, name) == []]:
            raise ValueError(f"expected at least one value for {', '.join(empty)}, got none")
        return self


@dataclass(frozen=True)
class Point:
    """One point of a space: a detector and how it is trained."""

    detector: DetectorConfig
    optimiser: OptimiserConfig


class Pick(Protocol):
    """Who decides a parameter: a sampler, or somebody who reads it from a known point."""

    def __call__(self, name: str, dimension: Dimension, field: str) -> Any:
        """A value for the parameter ``name``, which sets ``field`` of ``{"detector": ..., "optimiser": ...}``."""


def point(pick: Pick, space: SpaceConfig, base: Point) -> Point:
    """Goes through the dimensions, those that depend on others after them, and builds the point that ``pick`` chose.

    Args:
        pick: asked once for each parameter that has an effect.
        space: what there is to choose from, see `check_space`.
        base: everything else.

    Raises:
        pydantic.ValidationError: not from a space that `check_space` has passed.
    """
    detector = {**_attention(pick, space, base.detector), **_pixels(pick, space, base.detector)}
    joint = detector["attention_training"] == "joint"
    scalings = [kind for kind in values(space.feature_scaling) if not (joint and kind == "whiten")]
    suffix = "@joint" if joint else ""
    detector["feature_scaling"] = pick(f"feature_scaling{suffix}", scalings, "detector.feature_scaling")
    detector["flow"] = {
        name: pick(f"flow.{name}", getattr(space, f"flow_{name}"), f"detector.flow.{name}")
        for name in ("blocks", "hidden_width", "hidden_layers", "clamp", "dropout", "start")
    }
    optimiser = {
        name: pick(name, getattr(space, name), f"optimiser.{name}")
        for name in ("learning_rate", "weight_decay", "batch_size")
    }
    betas = tuple(pick(f"beta{n}", getattr(space, f"beta{n}"), f"optimiser.betas.{n - 1}") for n in (1, 2))
    fields = merge(base.detector.model_dump(mode="json"), detector)
    fields["variant"] = variant_name(fields["attention"])  # type: ignore[arg-type]  # a mapping of blocks
    changed = {**base.optimiser.model_dump(mode="json"), **optimiser, "betas": betas}
    return Point(DetectorConfig.model_validate(fields), OptimiserConfig.model_validate(changed))


def _attention(pick: Pick, space: SpaceConfig, base: DetectorConfig) -> dict[str, Any]:
    from model.attention import attention_settings  # torch is only needed once a point is asked for

    stages = BACKBONE_STAGES[base.backbone]
    pooled = pick("feature_stage", feature_stages(space, base), "detector.feature_stage")
    is_attended = pick("attended", values(space.attended), "detector.attended")
    allowed = [name for name in stages if is_attended and (space.stages is None or name in space.stages)]
    found: dict[str, dict[str, Any]] = {}
    for stage in allowed:
        if pooled is not None and stages.index(stage) > stages.index(pooled):
            continue
        field = f"attention.{stage}"
        kind = pick(f"{field}.kind", list(kinds(space)), f"detector.{field}.kind")
        if kind != NONE:
            found[stage] = {"kind": kind} | {
                name: pick(f"{field}.{kind}.{name}", getattr(space, name), f"detector.{field}.{name}")
                for name in attention_settings(kind)
            }
    chosen: dict[str, Any] = {"feature_stage": pooled, "attention": found, "attention_training": "frozen"}
    if found:
        trainings = values(space.attention_training)
        chosen["attention_training"] = pick("attention_training", trainings, "detector.attention_training")
    if chosen["attention_training"] == "pretext":
        chosen["pretext"] = {
            name: pick(f"pretext.{name}", getattr(space, f"pretext_{name}"), f"detector.pretext.{name}")
            for name in ("steps", "learning_rate")
        }
    return chosen


def _pixels(pick: Pick, space: SpaceConfig, base: DetectorConfig) -> dict[str, Any]:
    size = pick("image_size", values(space.image_size), "detector.image_size")
    views = pick("views", values(space.views), "detector.views")
    train_views = [some for some in values(space.train_views) if base.train_angles == "uniform" or _int(some) <= views]
    return {
        "image_size": size,
        "scales": pick(f"scales@{size}", fitting_scales(space, base, size=size), "detector.scales"),
        "pooling": pick("pooling", space.pooling, "detector.pooling"),
        "views": views,
        "train_views": pick(f"train_views@{views}", train_views or [views], "detector.train_views"),
    }


def kinds(space: SpaceConfig) -> Sequence[str]:
    """The kinds of attention to choose from, `NONE` among them by default."""
    from model.attention import attention_kinds

    return [str(kind) for kind in space.kinds] if space.kinds is not None else [NONE, *attention_kinds()]


def feature_stages(space: SpaceConfig, base: DetectorConfig) -> Sequence[Value]:
    """The stages to choose the pooled one from; None is the backbone's last pooling layer."""
    return space.feature_stage if space.feature_stage is not None else [None, *BACKBONE_STAGES[base.backbone][-3:]]


def fitting_scales(space: SpaceConfig, base: DetectorConfig, *, size: int) -> list[Value]:
    """The numbers of scales that leave the backbone enough pixels at an image size."""
    smallest = BACKBONE_SMALLEST_PX[base.backbone]
    halvings = [(scales, 2 ** (_int(scales) - 1)) for scales in values(space.scales)]
    return [scales for scales, divisor in halvings if size % divisor == 0 and size // divisor >= smallest]


def _int(value: Value) -> int:
    return int(str(value))


def variant_name(attention: Mapping[str, Mapping[str, Any]]) -> str:
    """Names a placement, such as ``se-pool1.cbam-conv5``; without attention ``plain``. It can be part of an alias."""
    return ".".join(f"{block['kind']}-{stage}" for stage, block in attention.items()) or "plain"


def check_space(space: SpaceConfig, base: Point) -> None:
    """Refuses a space with a point that is no detector.

    Raises:
        ValueError: one line: which values do not go together.
    """
    from model.attention import attention_kinds

    known = {
        "kinds": (kinds(space), [NONE, *attention_kinds()]),
        "stages": (space.stages or [], BACKBONE_STAGES[base.detector.backbone]),
        "feature_stage": (feature_stages(space, base.detector), [None, *BACKBONE_STAGES[base.detector.backbone]]),
        "attention_training": (space.attention_training or [], ["pretext", "joint", "frozen"]),
        "feature_scaling": (space.feature_scaling or [], ["none", "global", "channel", "whiten"]),
    }
    for name, (asked, allowed) in known.items():
        if unknown := [value for value in asked if value not in allowed]:
            raise ValueError(f"space.{name}: expected some of {', '.join(map(str, allowed))}, got {unknown[0]!r}")
    for size in values(space.image_size):
        if not fitting_scales(space, base.detector, size=_int(size)):
            raise ValueError(
                f"space.scales: none of {space.scales} leaves {base.detector.backbone} enough of {size} px"
            )
    if "joint" in values(space.attention_training) and values(space.feature_scaling) == ["whiten"]:
        raise ValueError("space.feature_scaling: attention_training joint needs another one than whiten")
    _check_extremes(space, base)


def _check_extremes(space: SpaceConfig, base: Point) -> None:
    """Builds the points of all first and of all last values: what a field refuses is refused here, not in a trial."""
    for end in (0, -1):

        def pick(name: str, dimension: Dimension, field: str, *, end: int = end) -> Any:
            if isinstance(dimension, Range):
                return dimension.low if end == 0 else dimension.high
            return values(dimension)[0 if is_fixed(dimension) else end]

        point(pick, space, base)
