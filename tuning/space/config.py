"""The search space as data: what a user narrows or fixes in YAML or by flags.

A dimension is a list of values, a range, or one value, which fixes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeAlias

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

Value: TypeAlias = str | int | float | bool | None


class Range(JobConfig):
    """Numbers from ``low`` to ``high``, both included: whole ones if both ends and the step are."""

    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="largest value")
    step: int | float | None = Field(None, gt=0, description="distance of neighbouring values; default: 1, or none")
    log: bool = Field(False, description="spread evenly over magnitudes; needs low > 0 and no step")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}: one value alone fixes it")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log needs low > 0 and no step, got low {self.low:g} and step {self.step}")
        if self.step is not None and not math.isclose((self.high - self.low) / self.step % 1, 0, abs_tol=1e-9):
            raise ValueError(f"steps of {self.step:g} from {self.low:g} do not end at {self.high:g}")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(part, int) for part in (self.low, self.high, self.step or 1))


Dimension: TypeAlias = Range | Sequence[Value] | Value
"""What one choice may be: a Range, a list of values, or the only value."""


def list_values(dimension: Dimension) -> list[Value]:
    """Lists all values of a dimension.

    Raises:
        ValueError: it is a Range.
    """
    if isinstance(dimension, Range):
        raise ValueError(f"a range of {dimension.low:g} to {dimension.high:g} has no list of values")
    if dimension is None or isinstance(dimension, str | int | float):
        return [dimension]
    return list(dimension)


def contains(dimension: Dimension, value: Any) -> bool:
    """Tells whether ``value`` can be chosen."""
    if not isinstance(dimension, Range):
        return any(
            value == known and isinstance(value, bool) == isinstance(known, bool) for known in list_values(dimension)
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or not dimension.low <= value <= dimension.high:
        return False
    step = dimension.step or (1 if dimension.is_whole else None)
    return step is None or math.isclose((value - dimension.low) / step, round((value - dimension.low) / step))


def is_fixed(dimension: Dimension) -> bool:
    """Tells whether there is nothing to choose."""
    return not isinstance(dimension, Range) and len(list_values(dimension)) == 1


def parse_dimension(given: object, handler: ValidatorFunctionWrapHandler) -> Any:
    """Parses a dimension; says one thing where pydantic would say one for each member of the union.

    Raises:
        ValueError: it is no dimension; one line.
    """
    value = parse_text(given)
    try:
        return Range.model_validate(value) if isinstance(value, dict) else handler(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(value, dict) else ""
        wanted = problem or "expected one value, a list of values, or low, high, step and log"
        raise ValueError(f"{wanted}, got {given!r}") from error


def parse_text(given: object) -> object:
    """Parses a flag's text as YAML, or as values with commas between them."""
    if isinstance(given, list):  # the command line leaves text in it
        return [load_yaml(part) if isinstance(part, str) else part for part in given]
    if not isinstance(given, str):
        return given
    is_plain_list = "," in given and given[0] not in "[{"
    found = [load_yaml(part) for part in given.split(",")] if is_plain_list else load_yaml(given)
    # The command line takes a lone object for a list of one.
    return found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict) else found


def load_yaml(text: str) -> object:
    """Reads YAML.

    Raises:
        ValueError: it is none.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"expected a value, a list or low, high, step and log, got {text!r}") from error


def wrap_in_list(given: object) -> object:
    """Makes a list of one value; null and lists stay as they are."""
    return given if given is None or isinstance(given, list) else [given]


Choice = Annotated[Dimension, WrapValidator(parse_dimension)]
Choices = Annotated[Sequence[Value] | None, BeforeValidator(wrap_in_list), BeforeValidator(parse_text)]


class SpaceConfig(JobConfig):
    """What may be chosen: for each dimension a list of values, ``{low, high, step, log}``, or one value to fix it."""

    attended: Choices = Field(default_factory=lambda: [False, True], description="whether there is attention at all")
    kinds: Choices = Field(None, description="kinds of attention after a stage; default: none and all that there are")
    stages: Choices = Field(None, description="stages that attention may follow; default: all of the backbone")
    reduction: Choice = Field([4, 8, 16, 32], description="channel reduction of the kinds that have one")
    spatial_kernel: Choice = Field([3, 5, 7], description="side of the spatial convolution, of the kinds that have one")
    attention_training: Choices = Field(
        default_factory=lambda: ["pretext"], description="how attention learns: pretext, joint, frozen"
    )
    pretext_steps: Choice = Field(Range(low=20, high=200, step=20), description="optimizer steps of the pretext")
    pretext_learning_rate: Choice = Field(Range(low=3e-4, high=1e-2, log=True), description="step size of the pretext")
    feature_stage: Choices = Field(
        None, description="stage that is pooled, null the last pooling layer; default: null and the last three stages"
    )
    pooling: Choice = Field(["average", "average_max"], description="pooling over positions")
    feature_scaling: Choices = Field(
        default_factory=lambda: ["global", "channel", "whiten"], description="scaling of pooled features"
    )
    image_size: Choices = Field(default_factory=lambda: [224, 448], description="side of the network's input in pixels")
    scales: Choices = Field(default_factory=lambda: [1, 2, 3], description="input scales; those that fit the size")
    views: Choices = Field(default_factory=lambda: [1, 4, 16], description="rotated views in scoring")
    train_views: Choices = Field(
        default_factory=lambda: [1, 4], description="rotated views of a photo per epoch; those that fit views"
    )
    flow_blocks: Choice = Field(Range(low=2, high=8), description="coupling blocks")
    flow_hidden_width: Choice = Field([128, 256, 512, 1024, 2048], description="units of a subnet's hidden layers")
    flow_hidden_layers: Choice = Field([1, 2, 3], description="hidden layers of a subnet")
    flow_clamp: Choice = Field(Range(low=1.0, high=4.0, step=0.5), description="soft clamp of the log scale, nats")
    flow_dropout: Choice = Field([0.0, 0.1, 0.3], description="dropout inside the subnets")
    flow_start: Choice = Field(["identity", "random"], description="start of the flow")
    learning_rate: Choice = Field(Range(low=2e-5, high=2e-3, log=True), description="step size of the flow's Adam")
    beta1: Choice = Field([0.5, 0.8, 0.9], description="first beta of Adam")
    beta2: Choice = Field([0.8, 0.95, 0.999], description="second beta of Adam")
    weight_decay: Choice = Field(Range(low=1e-6, high=1e-2, log=True), description="L2 penalty of Adam")
    batch_size: Choice = Field([8, 16, 24, 48], description="photos per step")

    @model_validator(mode="after")
    def _no_list_is_empty(self) -> Self:
        if empty := [name for name in type(self).model_fields if getattr(self, name) == []]:
            raise ValueError(f"expected at least one value for {', '.join(empty)}, got none")
        return self
