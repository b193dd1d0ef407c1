"""The search space as data: what a user narrows or fixes in YAML or by flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from jobs.config import JobConfig
from tuning.space.dimensions import Dimension, Range, Value


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
    pretext_steps: Dim = Field(Range(low=20, high=200, step=20), description="optimizer steps of the pretext")
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
