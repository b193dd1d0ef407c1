"""The search space: which attention after which stage, how it learns, what is pooled, which flow, how it is trained.

`suggest` asks a trial for one value after the other. A dimension exists only where it has an effect: the pretext has
steps only if there is attention, stages behind the pooled one have no attention. Dimensions whose values depend on
another one's have a name for each, such as ``scales@224``, because Optuna wants a parameter's values never to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from jobs.config import merge
from model.config import ATTENTION_KINDS, MIN_BACKBONE_PX, DetectorConfig, OptimizerConfig
from model.network.attention import ATTENTION
from model.network.backbone import list_stages
from tuning.config import SearchConfig
from tuning.space.config import Dimension, Range, SpaceConfig, Value, is_fixed, list_values

NONE = "none"
"""The kind of attention that stands for no attention."""
FLOW = ("blocks", "hidden_width", "hidden_layers", "clamp", "dropout", "start")
PRETEXT = ("steps", "learning_rate")
OPTIMIZER = ("learning_rate", "weight_decay", "batch_size")


@dataclass(frozen=True)
class Configuration:
    """What a trial trains: a detector, and how."""

    detector: DetectorConfig
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class SearchSpace:
    """What varies and what does not; made by `build_space`.

    Attributes:
        choices: values of every dimension, none of them left to a default.
        base: everything that no dimension varies.
        attention: stage -> attention block, where the blocks are given; None where the trial chooses them.
    """

    choices: SpaceConfig
    base: Configuration
    attention: Mapping[str, Mapping[str, Value]] | None = None

    @property
    def stages(self) -> Sequence[str]:
        """All stages of the backbone, first to last."""
        return list_stages(self.base.detector.backbone)


def read_space(config: SearchConfig) -> SearchSpace:
    """Reads the space of a search."""
    detector = config.detector.model_copy(update={"seed": config.seed})
    return build_space(config.space, Configuration(detector, config.optimizer))


def build_space(choices: SpaceConfig, base: Configuration) -> SearchSpace:
    """Builds a space; what was left to a default gets the values that the backbone has."""
    stages = list_stages(base.detector.backbone)
    defaults = {"kinds": [NONE, *ATTENTION_KINDS], "stages": list(stages), "feature_stage": [None, *stages[-3:]]}
    missing = {name: default for name, default in defaults.items() if getattr(choices, name) is None}
    return SearchSpace(choices.model_copy(update=missing), base)


def suggest(trial: BaseTrial, space: SearchSpace) -> Configuration:
    """Suggests a configuration: asks ``trial`` for each parameter that has an effect and is not fixed.

    Raises:
        ValueError: a FixedTrial has a value that the space has not, or the space fails `check_space`.
    """
    choices, base = space.choices, space.base
    detector = {**suggest_attention(trial, space), **suggest_views(trial, space)}
    is_joint = detector["attention_training"] == "joint"
    scalings = [scaling for scaling in list_values(choices.feature_scaling) if not (is_joint and scaling == "whiten")]
    detector["feature_scaling"] = choose(trial, "feature_scaling@joint" if is_joint else "feature_scaling", scalings)
    detector["flow"] = choose_each(trial, choices, FLOW, prefix="flow_")
    optimizer = choose_each(trial, choices, OPTIMIZER)
    optimizer["betas"] = (choose(trial, "beta1", choices.beta1), choose(trial, "beta2", choices.beta2))
    fields = merge(base.detector.model_dump(mode="json"), detector)
    fields["variant"] = name_variant(detector["attention"])
    return Configuration(
        DetectorConfig.model_validate(fields),
        OptimizerConfig.model_validate({**base.optimizer.model_dump(mode="json"), **optimizer}),
    )


def choose(trial: BaseTrial, name: str, dimension: Dimension) -> Any:
    """Asks a trial for a value of the dimension; one that is fixed is not asked for.

    Args:
        trial: Optuna's.
        name: of the parameter. One name must always come with the same dimension.
        dimension: what there is to choose from.
    """
    if is_fixed(dimension):
        return list_values(dimension)[0]
    if not isinstance(dimension, Range):
        return trial.suggest_categorical(name, list_values(dimension))
    if dimension.is_whole:
        low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
        return trial.suggest_int(name, low, high, step=step, log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def choose_each(trial: BaseTrial, choices: SpaceConfig, names: Sequence[str], *, prefix: str = "") -> dict[str, Any]:
    """Asks a trial for several fields; each parameter is called as its dimension is, ``prefix`` included."""
    return {name: choose(trial, prefix + name, getattr(choices, prefix + name)) for name in names}


def suggest_attention(trial: BaseTrial, space: SearchSpace) -> dict[str, Any]:
    """Suggests the pooled stage, the attention up to it, and how attention learns."""
    choices = space.choices
    pooled = choose(trial, "feature_stage", choices.feature_stage)
    blocks = suggest_blocks(trial, space, pooled) if choose(trial, "attended", choices.attended) else {}
    found: dict[str, Any] = {"feature_stage": pooled, "attention": blocks, "attention_training": "frozen"}
    if blocks:
        found["attention_training"] = choose(trial, "attention_training", choices.attention_training)
    if found["attention_training"] == "pretext":
        found["pretext"] = choose_each(trial, choices, PRETEXT, prefix="pretext_")
    return found


def suggest_blocks(trial: BaseTrial, space: SearchSpace, pooled: str | None) -> dict[str, Mapping[str, Any]]:
    """Suggests the attention block after each stage up to the pooled one; None is the last."""
    choices, found = space.choices, dict[str, Mapping[str, Any]]()
    last = max(map(space.stages.index, pooled.split("+"))) if pooled is not None else len(space.stages)
    reached = space.stages[: last + 1]
    if space.attention is not None:
        return {stage: block for stage, block in space.attention.items() if stage in reached}
    for stage in (stage for stage in reached if stage in list_values(choices.stages)):
        kind = choose(trial, f"attention.{stage}.kind", choices.kinds)
        if kind != NONE:
            settings: Sequence[str] = ATTENTION[kind][1]
            chosen = {
                name: choose(trial, f"attention.{stage}.{kind}.{name}", getattr(choices, name)) for name in settings
            }
            found[stage] = {"kind": kind, **chosen}
    return found


def suggest_views(trial: BaseTrial, space: SearchSpace) -> dict[str, Any]:
    """Suggests what the network sees of a photo, and how its maps are pooled."""
    choices, angles = space.choices, space.base.detector.train_angles
    size = choose(trial, "image_size", choices.image_size)
    views = choose(trial, "views", choices.views)
    train_views = [some for some in list_values(choices.train_views) if angles == "uniform" or int(str(some)) <= views]
    return {
        "image_size": size,
        "scales": choose(trial, f"scales@{size}", list_fitting_scales(space, size=size)),
        "pooling": choose(trial, "pooling", choices.pooling),
        "views": views,
        "train_views": choose(trial, f"train_views@{views}", train_views or [views]),
    }


def list_fitting_scales(space: SearchSpace, *, size: int) -> list[Value]:
    """Lists the numbers of scales that leave the backbone enough pixels at an image size."""
    min_px = MIN_BACKBONE_PX.get(space.base.detector.backbone, 1)
    halvings = [(scales, 2 ** (int(str(scales)) - 1)) for scales in list_values(space.choices.scales)]
    return [scales for scales, divisor in halvings if size % divisor == 0 and size // divisor >= min_px]


def name_variant(attention: Mapping[str, Mapping[str, Any]]) -> str:
    """Names a placement, such as ``se-pool1.cbam-conv5``; without attention ``plain``. It can be part of an alias."""
    return ".".join(f"{block['kind']}-{stage}" for stage, block in attention.items()) or "plain"


def check_space(space: SearchSpace) -> None:
    """Refuses a space with a configuration that is no detector.

    Raises:
        ValueError: one line: which values do not go together.
    """
    choices, backbone = space.choices, space.base.detector.backbone
    known = {
        "kinds": [NONE, *ATTENTION_KINDS],
        "stages": space.stages,
        "attention_training": ["pretext", "joint", "frozen"],
        "feature_scaling": ["none", "global", "channel", "whiten"],
    }
    for name, allowed in known.items():
        if unknown := [value for value in list_values(getattr(choices, name)) if value not in allowed]:
            raise ValueError(f"space.{name}: expected some of {', '.join(map(str, allowed))}, got {unknown[0]!r}")
    pooled = [stage for value in list_values(choices.feature_stage) if value for stage in str(value).split("+")]
    if unknown := [stage for stage in pooled if stage not in space.stages]:
        raise ValueError(f"space.feature_stage: expected some of {', '.join(space.stages)}, got {unknown[0]!r}")
    for size in list_values(choices.image_size):
        if not list_fitting_scales(space, size=int(str(size))):
            raise ValueError(f"space.scales: none of {choices.scales} leaves {backbone} enough of {size} px")
    if "joint" in list_values(choices.attention_training) and list_values(choices.feature_scaling) == ["whiten"]:
        raise ValueError("space.feature_scaling: attention_training joint needs another one than whiten")
    for end in (0, -1):
        suggest(EndTrial(end), space)  # what a field refuses is refused here, not in a trial


class EndTrial(FixedTrial):
    """A trial that takes the first, or the last, value of everything."""

    def __init__(self, end: int) -> None:
        """Takes the first values if ``end`` is 0, the last ones if it is -1."""
        super().__init__({})
        self._end = end

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Returns the first or the last choice."""
        return choices[self._end]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Returns one of the ends."""
        return (low, high)[self._end]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Returns one of the ends."""
        return (low, high)[self._end]
