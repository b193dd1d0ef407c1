"""The search space: which attention after which stage, how it learns, what is pooled, which flow, how it is trained.

Conditional: a dimension exists only where it has an effect. A stage has a reduction only if its kind of attention has
one, the pretext has steps only if there is attention to learn it, stages behind the pooled one have no attention.
Dimensions whose values depend on another one's (scales on the image size) have a name for each, ``scales@224``, because
a parameter's distribution must never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobs.config import merge
from model.config import ATTENTION_KINDS, BACKBONE_STAGES, MIN_BACKBONE_PX, DetectorConfig, OptimizerConfig
from tuning.space.config import SpaceConfig
from tuning.space.dimensions import Dimension, Range, Value, is_fixed, values

NONE = "none"
"""The kind of attention that stands for no attention."""


@dataclass(frozen=True)
class Configuration:
    """One point of a space: a detector and how it is trained."""

    detector: DetectorConfig
    optimizer: OptimizerConfig


class Pick(Protocol):
    """Who decides a parameter: a sampler, or somebody who reads it from a known point."""

    def __call__(self, name: str, dimension: Dimension, field: str) -> Any:
        """A value for the parameter ``name``, which sets ``field`` of ``{"detector": ..., "optimizer": ...}``."""


def point(pick: Pick, space: SpaceConfig, base: Configuration) -> Configuration:
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
    optimizer = {
        name: pick(name, getattr(space, name), f"optimizer.{name}")
        for name in ("learning_rate", "weight_decay", "batch_size")
    }
    betas = tuple(pick(f"beta{n}", getattr(space, f"beta{n}"), f"optimizer.betas.{n - 1}") for n in (1, 2))
    fields = merge(base.detector.model_dump(mode="json"), detector)
    fields["variant"] = name_variant(fields["attention"])  # type: ignore[arg-type]  # a mapping of blocks
    changed = {**base.optimizer.model_dump(mode="json"), **optimizer, "betas": betas}
    return Configuration(DetectorConfig.model_validate(fields), OptimizerConfig.model_validate(changed))


def _attention(pick: Pick, space: SpaceConfig, base: DetectorConfig) -> dict[str, Any]:
    from model.network.attention import ATTENTION  # torch is only needed once a point is asked for

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
                for name in ATTENTION[kind][1]
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
    return [str(kind) for kind in space.kinds] if space.kinds is not None else [NONE, *ATTENTION_KINDS]


def feature_stages(space: SpaceConfig, base: DetectorConfig) -> Sequence[Value]:
    """The stages to choose the pooled one from; None is the backbone's last pooling layer."""
    return space.feature_stage if space.feature_stage is not None else [None, *BACKBONE_STAGES[base.backbone][-3:]]


def fitting_scales(space: SpaceConfig, base: DetectorConfig, *, size: int) -> list[Value]:
    """The numbers of scales that leave the backbone enough pixels at an image size."""
    smallest = MIN_BACKBONE_PX[base.backbone]
    halvings = [(scales, 2 ** (_int(scales) - 1)) for scales in values(space.scales)]
    return [scales for scales, divisor in halvings if size % divisor == 0 and size // divisor >= smallest]


def _int(value: Value) -> int:
    return int(str(value))


def name_variant(attention: Mapping[str, Mapping[str, Any]]) -> str:
    """Names a placement, such as ``se-pool1.cbam-conv5``; without attention ``plain``. It can be part of an alias."""
    return ".".join(f"{block['kind']}-{stage}" for stage, block in attention.items()) or "plain"


def check_space(space: SpaceConfig, base: Configuration) -> None:
    """Refuses a space with a point that is no detector.

    Raises:
        ValueError: one line: which values do not go together.
    """
    known = {
        "kinds": (kinds(space), [NONE, *ATTENTION_KINDS]),
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


def _check_extremes(space: SpaceConfig, base: Configuration) -> None:
    """Builds the points of all first and of all last values: what a field refuses is refused here, not in a trial."""
    for end in (0, -1):

        def pick(name: str, dimension: Dimension, field: str, *, end: int = end) -> Any:
            if isinstance(dimension, Range):
                return dimension.low if end == 0 else dimension.high
            return values(dimension)[0 if is_fixed(dimension) else end]

        point(pick, space, base)
