"""The parts of a detector and its training procedure, as data; `model.config` has the detector as a whole.

The papers are AttentDifferNet (arXiv 2401.08686, arXiv 2311.02747) and DifferNet (arXiv 2008.12577).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

AttentionKind = Literal["se", "cbam", "eca"]

ATTENTION_KINDS: tuple[AttentionKind, ...] = get_args(AttentionKind)
"""Kinds of attention; `model.network.attention` builds each."""


_WHOLE_NUMBERS_END = 2**63
"""What no number of a machine reaches."""


class FrozenModel(BaseModel):
    """Refuses fields that it does not know, changes, and numbers that no machine can count to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _check_size(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) >= _WHOLE_NUMBERS_END:
            raise ValueError(f"expected a whole number below 2^63, got {value}")
        return value


class AttentionConfig(FrozenModel):
    """One attention block after one stage."""

    kind: AttentionKind = Field(description="which attention")
    reduction: int = Field(16, ge=1, description="channel reduction ratio r of the gate's bottleneck (C/r units, >= 1)")
    gate: Literal["identity", "sigmoid"] = Field(
        "identity",
        description="identity: 2*sigmoid starting at exactly 1, so an untrained block changes nothing; "
        "sigmoid: the published gate at seeded random initialisation",
    )
    spatial_kernel: int = Field(7, ge=1, le=31, description="side in pixels of CBAM's spatial convolution, odd")

    @field_validator("spatial_kernel")
    @classmethod
    def _kernel_is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"spatial_kernel must be odd so that the map keeps its size, got {kernel}")
        return kernel


class FlowConfig(FrozenModel):
    """DifferNet's normalizing flow: permutation + GLOW coupling blocks (arXiv 2008.12577, section 3.2)."""

    blocks: int = Field(
        8,
        ge=0,
        description="number of coupling blocks; 0 with feature_scaling whiten is a Gaussian: nothing is trained, a "
        "photo's score is its mean squared Mahalanobis distance over views",
    )
    hidden_width: int = Field(2048, ge=1, description="units of each hidden layer of a coupling subnet")
    hidden_layers: int = Field(3, ge=1, description="hidden layers of a coupling subnet")
    clamp: float = Field(3.0, gt=0, description="soft clamp alpha of the log scale, in nats")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout probability inside the coupling subnets, training only"
    )
    start: Literal["random", "identity"] = Field(
        "random",
        description="random: seeded random subnets (the paper); identity: last layers at zero, so that the untrained "
        "flow's score is the mean squared scaled feature",
    )


class PretextConfig(FrozenModel):
    """How attention learns to make synthetic defects stand out (model.training.attention_pretext)."""

    steps: int = Field(80, ge=1, description="optimizer steps")
    pairs: int = Field(12, ge=1, description="pairs of a flawless photo and the same with a defect per step")
    learning_rate: float = Field(2e-3, gt=0, description="Adam step size")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Adam betas")
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty added to the gradient")
    sharpness: float = Field(4.0, gt=0, description="factor on the difference of log scores in the ranking loss")
    identity_weight: float = Field(3.0, ge=0, description="weight of mean (gate - 1)^2 on flawless photos")
    defects: int = Field(3, ge=1, description="synthetic defects in one photo")
    area: tuple[float, float] = Field((0.002, 0.06), description="smallest and largest share of the photo of a defect")

    @field_validator("area")
    @classmethod
    def _area_is_a_range_of_shares(cls, area: tuple[float, float]) -> tuple[float, float]:
        if not 0 < area[0] <= area[1] < 1:
            raise ValueError(f"area needs 0 < smallest <= largest < 1, got {area[0]:g} and {area[1]:g}")
        return area


class OptimizerConfig(FrozenModel):
    """DifferNet's training procedure: Adam on the flow, a fixed number of epochs, the last one kept."""

    epochs: int = Field(
        192,
        ge=1,
        description="passes over the training photos (DifferNet: 24 x 8); differnet_fast: 12, gaussian_resnet18: 1",
    )
    batch_size: int = Field(24, ge=1, description="photos per step, as batch_of says")
    batch_of: Literal["all", "worker"] = Field(
        "all",
        description="whose photos batch_size counts: all workers' together, and any number of them trains the same; or "
        "each worker's, and a step grows with them",
    )
    shuffle: Literal["auto", "photos", "blocks"] = Field(
        "auto",
        description="order of an epoch: all photos mixed, or blocks of photos mixed, a few at a time, which reads each "
        "block once (for sets larger than memory); auto: blocks for sets of over 2 GB of decoded photos",
    )
    accumulate: int = Field(1, ge=1, description="parts that a worker's share of a step is cut into, to save memory")
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many epochs without a better loss on held-out flawless photos and keep the best "
        "epoch; null runs all epochs and keeps the last",
    )
    learning_rate: float = Field(2e-4, gt=0, description="Adam step size")
    betas: tuple[float, float] = Field((0.8, 0.8), description="Adam betas")
    eps: float = Field(1e-4, gt=0, description="Adam epsilon")
    weight_decay: float = Field(1e-5, ge=0, description="L2 penalty added to the gradient, as torch.optim.Adam does")

    def count_batch(self, workers: int) -> int:
        """Counts the photos of a step over so many workers."""
        return self.batch_size * (workers if self.batch_of == "worker" else 1)
