"""The presets as trials of a search, which are tried first: the paper's three models and attentdiffernet_best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from model.config import AttentionConfig
from model.network.attention import ATTENTION
from model.presets import PRESETS
from tuning.space.config import SpaceConfig, Value, contains, is_fixed, list_values
from tuning.space.space import NONE, OPTIMIZER, Configuration, SearchSpace, suggest

Blocks = Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True)
class Preset:
    """A preset as a trial.

    Attributes:
        name: the preset's.
        space: the space of the search, where what it has not of the preset is fixed to the preset's value.
        parameters: the preset's values of all that can be chosen there: what is enqueued in a study.
    """

    name: str
    space: SearchSpace
    parameters: Mapping[str, Value]

    def suggest(self, trial: BaseTrial) -> Configuration:
        """Suggests the preset to a trial that holds its parameters."""
        found = suggest(trial, self.space)
        return replace(found, detector=found.detector.model_copy(update={"variant": self.name}))

    @property
    def configuration(self) -> Configuration:
        """What is trained."""
        return self.suggest(FixedTrial(dict(self.parameters)))


def build_presets(space: SearchSpace) -> list[Preset]:
    """Builds every preset: what it sets itself holds, also where the space was narrowed to leave it out.

    Where a preset sets nothing, a fixed dimension's value holds, else the base's.

    Raises:
        ValueError: a preset that does not fit the image size or the views.
    """
    return [build_preset(name, space) for name in PRESETS]


def build_preset(name: str, space: SearchSpace) -> Preset:
    """Builds one preset, see `build_presets`."""
    blocks: Blocks = {
        stage: AttentionConfig.model_validate(block).model_dump(mode="json")
        for stage, block in PRESETS[name].get("attention", {}).items()
    }
    own = {**read_dimensions(PRESETS[name]), "attended": bool(blocks)}
    base = read_dimensions(space.base.detector.model_dump(mode="json")) | {"attention_training": "frozen"}
    optimizer = space.base.optimizer.model_dump(mode="json")
    base |= {field: optimizer[field] for field in OPTIMIZER}
    base |= {f"beta{n}": optimizer["betas"][n - 1] for n in (1, 2)}
    fixed = {name: list_values(only)[0] for name in base if is_fixed(only := getattr(space.choices, name))}
    wanted = {**base, **fixed, **own}
    outside = {name: [one] for name, one in wanted.items() if not contains(getattr(space.choices, name), one)}
    narrowed = replace(
        space,
        choices=space.choices.model_copy(update=outside),
        attention=None if has_blocks(space.choices, blocks) else blocks,
    )
    trial = FixedTrial(name_parameters(wanted, narrowed, blocks))
    try:
        suggest(trial, narrowed)
    except ValueError as error:
        raise ValueError(f"preset {name} does not fit the space: {error}") from error
    return Preset(name, narrowed, trial.params)


def read_dimensions(detector: Mapping[str, Any]) -> dict[str, Value]:
    """Reads a detector's fields, some or all, under the names of the space's dimensions."""
    nested = {f"{part}_{name}": one for part in ("flow", "pretext") for name, one in detector.get(part, {}).items()}
    return {name: one for name, one in {**detector, **nested}.items() if name in SpaceConfig.model_fields}


def has_blocks(choices: SpaceConfig, blocks: Blocks) -> bool:
    """Tells whether a trial can choose these attention blocks, and no other ones."""
    return not blocks or all(
        contains(choices.kinds, NONE)
        and contains(choices.stages, stage)
        and contains(choices.kinds, block["kind"])
        and all(contains(getattr(choices, name), block[name]) for name in read_settings(block))
        for stage, block in blocks.items()
    )


def read_settings(block: Mapping[str, Value]) -> tuple[str, ...]:
    """Reads which fields a block's kind of attention has."""
    return next(settings for kind, (_, settings) in ATTENTION.items() if kind == block["kind"])


def name_parameters(wanted: Mapping[str, Value], space: SearchSpace, blocks: Blocks) -> dict[str, Value]:
    """Gives values the names of all parameters that `suggest` may ask for."""
    found = dict(wanted)
    found |= {f"scales@{size}": wanted["scales"] for size in list_values(space.choices.image_size)}
    found |= {f"train_views@{views}": wanted["train_views"] for views in list_values(space.choices.views)}
    found |= {f"attention.{stage}.kind": NONE for stage in space.stages}
    for stage, block in blocks.items():
        found[f"attention.{stage}.kind"] = block["kind"]
        found |= {f"attention.{stage}.{block['kind']}.{name}": block[name] for name in read_settings(block)}
    return found
