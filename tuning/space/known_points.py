"""Known points of a space: the paper's models and the one our evidence speaks for, which are always tried first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from jobs.config import merge
from model.config import PRESETS, AttentionConfig, DetectorConfig
from tuning.space.config import SpaceConfig
from tuning.space.dimensions import Chooser, Dimension, Value, choose, contains, is_fixed, values
from tuning.space.space import NONE, Configuration, kinds, point


@dataclass(frozen=True)
class Known:
    """A known point.

    Attributes:
        name: the preset's.
        point: what is trained.
        told: parameter -> dimension and value, as far as the space has them: what a sampler learns from it.
    """

    name: str
    point: Configuration
    told: Mapping[str, tuple[Dimension, Value]]

    def told_to(self, chooser: Chooser) -> None:
        """Asks for every parameter that was told, which gives back what was enqueued."""
        for name, (dimension, _) in self.told.items():
            choose(chooser, name, dimension)

    @property
    def enqueued(self) -> dict[str, Value]:
        """Parameter -> value, as far as the space has them."""
        return {name: value for name, (_, value) in self.told.items()}


def known_points(space: SpaceConfig, base: Configuration) -> list[Known]:
    """Every preset laid on ``base``: what it sets itself holds, whether or not the space was narrowed to leave it out.

    Where a preset sets nothing, a fixed dimension's value holds, else the base's.
    """
    return [_known(name, space, base) for name in PRESETS]


def _known(preset: str, space: SpaceConfig, base: Configuration) -> Known:
    given = DetectorConfig.model_validate(PRESETS[preset]).model_dump(mode="json", exclude_unset=True)
    own = {"detector": {**given, "attended": "attention" in given}}
    common = base.detector.model_dump(mode="json") | {"attention": {}, "attention_training": "frozen"}
    wanted = {
        "detector": merge(common, own["detector"]),
        "optimizer": base.optimizer.model_dump(mode="json"),
    }
    read: dict[str, tuple[Dimension, Value]] = {}

    def pick(name: str, dimension: Dimension, field: str) -> Any:
        is_own = field.startswith("detector.attention.") or _found(own, field) is not None
        value = values(dimension)[0] if is_fixed(dimension) and not is_own else _found(wanted, field)
        read[name] = (dimension, value)
        return value

    # A preset's attention stands where it stands, also where the space would not have it.
    found = point(pick, space.model_copy(update={"stages": None, "kinds": None}), base)
    told = {
        parameter: (_narrowed(space, parameter, dimension), value) for parameter, (dimension, value) in read.items()
    }
    return Known(
        preset,
        Configuration(found.detector.model_copy(update={"variant": preset}), found.optimizer),
        {key: (of, value) for key, (of, value) in told.items() if not is_fixed(of) and contains(of, value)},
    )


def _narrowed(space: SpaceConfig, parameter: str, dimension: Dimension) -> Dimension:
    """The dimension of a parameter in the space as it was narrowed; of one that it has not, one fixed to nothing."""
    if not parameter.startswith("attention."):
        return dimension
    _, stage, last, *_ = parameter.split(".")
    if space.stages is not None and stage not in space.stages:
        return None
    if last == "kind":
        return list(kinds(space))
    return dimension if last in kinds(space) else None


def _found(tree: Mapping[str, Any], field: str) -> Any:
    """What a dotted path leads to; None where it leads nowhere, and `NONE` for the kind of an empty place."""

    def below(node: Any, key: str) -> Any:
        if isinstance(node, list | tuple):
            return node[int(key)]
        return node.get(key) if isinstance(node, Mapping) else None

    found = reduce(below, field.split("."), tree)
    if found is None and ".attention." in field:
        block = AttentionConfig.model_construct(kind=NONE)
        return getattr(block, field.rpartition(".")[2])
    return found


def sampled_point(chooser: Chooser, space: SpaceConfig, base: Configuration) -> Configuration:
    """The point that a sampler chooses."""

    def pick(name: str, dimension: Dimension, field: str) -> Any:
        return choose(chooser, name, dimension)

    return point(pick, space, base)
