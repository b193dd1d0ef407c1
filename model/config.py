"""What a detector is, as data: one frozen pydantic model per part; `model.presets` has the ones with names.

The papers are AttentDifferNet (arXiv 2401.08686, arXiv 2311.02747) and DifferNet (arXiv 2008.12577).
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

BACKBONE_STAGES: dict[str, tuple[str, ...]] = {
    "alexnet": ("pool1", "pool2", "conv3", "conv4", "conv5"),
    "alexnet_caffe": ("pool1", "pool2", "conv3", "conv4", "conv5"),
}
"""Named stages of the backbones that are built here, in order: the places after which attention can stand.

Those of other networks are the nodes of their graphs, which `model.network.libraries` knows.
"""

MIN_BACKBONE_PX = {"alexnet": 63, "alexnet_caffe": 39}
"""Smallest side in pixels that the pooling of each of them leaves something of."""

MIN_IMAGE_PX = 64
"""Smallest side in pixels of a detector's input."""

MAX_PIXELS = 160_000_000
"""Largest photo decoded by default, in pixels: aerial cameras reach 151 MP. A 160 MP PNG takes 1.6 GB, RGBA 2.4 GB."""

Precision = Literal["fp32", "bf16"]

Resize = Literal["stretch", "letterbox", "crop"]


class PixelRules(NamedTuple):
    """How photos become the squares that a detector sees; training and scoring share them.

    Attributes:
        black: sample value that is shown as black; None where the file's own declaration holds.
        white: the same of white.
        resize: what becomes of a photo that is no square.
    """

    black: float | None = None
    white: float | None = None
    resize: Resize = "stretch"


DEFAULT_RULES = PixelRules()

BF16_VARIABLE = "ATTENTDIFFERNET_BF16"
"""Environment variable: ``off`` treats a machine as one that is slow at bf16, ``auto`` (the default) asks it."""

BackboneName = Annotated[str, Field(pattern=r"^(timm/)?[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A classification network of torchvision, alexnet_caffe, or timm/NAME for one of timm."""

PoolingKind = Literal["average", "maximum", "generalized_mean"]

_OLD_POOLINGS = {"average_max": "average+maximum"}
"""Names that stored detectors and presets have for combinations."""

REMOVED_BACKBONES = ("squeezenet1_0",)
"""Backbones of earlier versions: a detector that names one is refused by this reason, not as a misspelt name."""

AttentionKind = Literal["se", "cbam", "eca"]

ATTENTION_KINDS: tuple[AttentionKind, ...] = get_args(AttentionKind)
"""Kinds of attention; `model.network.attention` builds each."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AttentionConfig(_Frozen):
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


class FlowConfig(_Frozen):
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


class PretextConfig(_Frozen):
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


class DetectorConfig(_Frozen):
    """Everything that decides a score, so two equal configs with equal weights give equal scores."""

    variant: str = Field("custom", min_length=1, description="name of this configuration in result tables")
    backbone: BackboneName = Field(
        "alexnet",
        description="feature extractor: alexnet, resnet18 or another classification network of torchvision, "
        "alexnet_caffe, or timm/NAME (extra timm)",
    )
    weights: str = Field(
        "imagenet",
        min_length=1,
        description="backbone weights: imagenet (the library's), random (from seed), or the URI of a .safetensors/.pth",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of random weights, attention and flow initialisation")
    image_size: int = Field(448, ge=MIN_IMAGE_PX, le=4096, description="side in pixels of the square network input")
    black: float | None = Field(
        None,
        allow_inf_nan=False,
        description="sample value that is shown as black, in the units of the photos' files; null is 0",
    )
    white: float | None = Field(
        None,
        allow_inf_nan=False,
        description="sample value that is shown as white, as 4095 of a 12-bit camera; null is what a file declares, or "
        "the most that its samples can hold; photos whose samples cannot reach it are refused",
    )
    resize: Resize = Field(
        "stretch",
        description="what becomes of a photo that is no square: stretch (the paper: each side by itself), "
        "letterbox (scaled as a whole, black beside it), crop (its middle; what lies beside it is not looked at)",
    )
    feature_stage: str | None = Field(
        None,
        description="stage whose maps are pooled, or several as layer2+layer3: a node of the network, a part of it, or "
        "stride8 for the last block at an eighth of the photo's side; null is an AlexNet's last pooling layer (the "
        "paper), stride8+stride16 of other networks",
    )
    scales: int = Field(3, ge=1, le=5, description="number of input scales; scale k is image_size / 2**k")
    attention: dict[str, AttentionConfig] = Field(
        default_factory=dict, description="stage name -> attention block after it"
    )
    attention_training: Literal["frozen", "joint", "pretext"] = Field(
        "frozen",
        description="how attention learns before or while the flow does: frozen (not at all), joint (with the flow's "
        "likelihood), pretext (beforehand, to make synthetic defects stand out)",
    )
    pretext: PretextConfig = Field(default_factory=PretextConfig, description="settings of attention_training pretext")
    collapse_guard: bool = Field(True, description="stop a training whose attention collapses the features")
    pooling: str = Field(
        "average",
        description="pooling of maps over positions: average (the paper), maximum, generalized_mean (p = 3), or "
        "several as average+maximum, one after the other; average_max is that one's older name",
    )
    feature_scaling: Literal["none", "global", "channel", "whiten"] = Field(
        "none",
        description="scaling of pooled features before the flow, from flawless training photos: none (the paper), "
        "global (one scalar: mean channel standard deviation), channel ((x - mean) / std of each channel), whiten "
        "(decorrelated by a Ledoit-Wolf covariance)",
    )
    flow: FlowConfig = Field(default_factory=FlowConfig, description="normalizing flow")
    views: int = Field(
        64, ge=1, le=360, description="rotated views per photo in scoring, at multiples of 360/views degrees"
    )
    train_views: int = Field(4, ge=1, description="rotated views per photo and epoch in training")
    train_angles: Literal["uniform", "scoring"] = Field(
        "uniform",
        description="training rotations: uniform in 0-360 degrees (the paper), or drawn from the scoring angles",
    )
    rotation_padding: Literal["black", "reflect"] = Field(
        "black", description="what a rotation shows outside the photo: black (the paper), or the photo mirrored"
    )
    precision: Precision = Field(
        "fp32",
        description="arithmetic of convolutions and coupling subnets, in training and scoring: fp32 (the paper), bf16 "
        "(faster with AMX, AVX512-BF16 or a GPU; features, latents and loss stay fp32)",
    )

    @field_validator("backbone", mode="before")
    @classmethod
    def _backbone_is_still_there(cls, backbone: object) -> object:
        if backbone in REMOVED_BACKBONES:
            known = ", ".join(BACKBONE_STAGES)
            raise ValueError(f"{backbone} was removed: train again with one of {known}, or use an older version")
        return backbone

    @field_validator("pooling")
    @classmethod
    def _poolings_exist(cls, pooling: str) -> str:
        known, kinds = get_args(PoolingKind), _OLD_POOLINGS.get(pooling, pooling).split("+")
        if not set(kinds) <= set(known) or len(set(kinds)) < len(kinds):
            raise ValueError(f"pooling needs some of {', '.join(known)} with + between them, got {pooling!r}")
        return pooling

    @property
    def poolings(self) -> tuple[PoolingKind, ...]:
        """Returns the ways in which each map is pooled."""
        return cast("tuple[PoolingKind, ...]", tuple(_OLD_POOLINGS.get(self.pooling, self.pooling).split("+")))

    @property
    def feature_stages(self) -> tuple[str, ...]:
        """Returns the stages whose maps are pooled; none stands for what the backbone has as its own."""
        return tuple(self.feature_stage.split("+")) if self.feature_stage else ()

    @property
    def pixel_rules(self) -> PixelRules:
        """Returns how photos become pixels."""
        return PixelRules(self.black, self.white, self.resize)

    @model_validator(mode="after")
    def _black_is_below_white(self) -> Self:
        if self.white is not None and not (self.black or 0.0) < self.white:
            raise ValueError(f"needed black below white, got black {self.black or 0.0:g} and white {self.white:g}")
        return self

    @model_validator(mode="after")
    def _stages_exist(self) -> Self:
        if len(set(self.feature_stages)) < len(self.feature_stages):
            raise ValueError(f"feature_stage needs different stages, got {self.feature_stage}")
        if self.backbone not in BACKBONE_STAGES:
            return self  # nodes of a network, which nothing here can name: building the backbone checks them
        stages = BACKBONE_STAGES[self.backbone]
        for stage in (*self.feature_stages, *self.attention):
            if stage not in stages:
                raise ValueError(f"{self.backbone} has no stage {stage!r}, expected one of {', '.join(stages)}")
        last = max(self.feature_stages or stages, key=stages.index)
        unused = [stage for stage in self.attention if stages.index(stage) > stages.index(last)]
        if unused:
            raise ValueError(f"attention after {', '.join(unused)} has no effect: features are pooled after {last}")
        return self

    @model_validator(mode="after")
    def _smallest_scale_is_large_enough(self) -> Self:
        shrinking, needed_px = 2 ** (self.scales - 1), MIN_BACKBONE_PX.get(self.backbone, 1)
        if self.image_size % shrinking or self.image_size // shrinking < needed_px:
            raise ValueError(
                f"{self.backbone} needs at least {needed_px} px at its smallest scale and an image_size that is a "
                f"multiple of {shrinking}, got image_size {self.image_size} with {self.scales} scales: the smallest is "
                f"{max(MIN_IMAGE_PX, needed_px * shrinking)}"
            )
        return self

    @model_validator(mode="after")
    def _attention_can_be_trained_so(self) -> Self:
        if self.attention_training == "joint" and self.feature_scaling == "whiten":
            raise ValueError("attention_training joint needs feature_scaling channel, global or none, got whiten")
        published = [stage for stage, block in self.attention.items() if block.gate != "identity"]
        if self.attention_training == "pretext" and published:
            raise ValueError(
                f"attention_training pretext starts from gates that are the identity, got sigmoid: {published}"
            )
        return self

    @model_validator(mode="after")
    def _something_is_fitted(self) -> Self:
        if self.flow.blocks == 0 and self.feature_scaling == "none":
            raise ValueError("flow.blocks 0 fits nothing without feature_scaling: whiten makes it a Gaussian")
        if self.flow.blocks == 0 and self.attention_training == "joint" and self.attention:
            raise ValueError("attention_training joint needs a flow, whose likelihood it follows: got flow.blocks 0")
        return self

    @model_validator(mode="after")
    def _training_views_can_be_drawn(self) -> Self:
        if self.train_angles == "scoring" and self.train_views > self.views:
            raise ValueError(f"train_views {self.train_views} cannot be drawn from {self.views} scoring views")
        return self


class OptimizerConfig(_Frozen):
    """DifferNet's training procedure: Adam on the flow, a fixed number of epochs, the last one kept."""

    epochs: int = Field(
        192,
        ge=1,
        description="passes over the training photos (DifferNet: 24 x 8); the variant differnet_fast: 12",
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
