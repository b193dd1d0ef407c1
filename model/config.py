"""What a detector is, as data: one frozen pydantic model per part; `model.presets` has the ones with names.

The papers are AttentDifferNet (arXiv 2401.08686, arXiv 2311.02747) and DifferNet (arXiv 2008.12577).
"""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self, cast, get_args

from pydantic import Field, field_validator, model_validator

from model.parts import (
    ATTENTION_KINDS,
    AttentionConfig,
    AttentionKind,
    FlowConfig,
    FrozenModel,
    OptimizerConfig,
    PretextConfig,
)
from model.pictures.rules import DEFAULT_RULES, MAX_PIXELS, PixelRules, Resize, Tiles, parse_tiles

__all__ = [
    "ATTENTION_KINDS",
    "BACKBONE_STAGES",
    "BF16_VARIABLE",
    "DEFAULT_RULES",
    "MAX_PIXELS",
    "MIN_BACKBONE_PX",
    "MIN_IMAGE_PX",
    "REMOVED_BACKBONES",
    "AttentionConfig",
    "AttentionKind",
    "BackboneName",
    "DetectorConfig",
    "FlowConfig",
    "OptimizerConfig",
    "PixelRules",
    "PoolingKind",
    "Precision",
    "PretextConfig",
    "Resize",
    "is_bf16_allowed",
]

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

Precision = Literal["fp32", "bf16"]

BF16_VARIABLE = "ATTENTDIFFERNET_BF16"
"""Environment variable: ``off`` treats a machine as one that is slow at bf16, ``auto`` (the default) asks it."""


def is_bf16_allowed() -> bool:
    """Tells whether `BF16_VARIABLE` leaves it to the machine how bf16 is computed.

    Raises:
        ValueError: it is neither auto nor off.
    """
    asked = os.environ.get(BF16_VARIABLE, "auto")
    if asked not in ("auto", "off"):
        raise ValueError(f"{BF16_VARIABLE} needs auto or off, got {asked!r}")
    return asked == "auto"


BackboneName = Annotated[str, Field(pattern=r"^(timm/)?[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""A classification network of torchvision, alexnet_caffe, or timm/NAME for one of timm."""

PoolingKind = Literal["average", "maximum", "generalized_mean"]

_OLD_POOLINGS = {"average_max": "average+maximum"}
"""Names that stored detectors and presets have for combinations."""

REMOVED_BACKBONES = ("squeezenet1_0",)
"""Backbones of earlier versions: a detector that names one is refused by this reason, not as a misspelt name."""


class DetectorConfig(FrozenModel):
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
    tiles: str = Field(
        "1x1",
        pattern=r"^([1-9]|1[0-6])x([1-9]|1[0-6])$",
        description="rows x columns of square tiles that a photo is cut into, each seen at image_size, so that small "
        "defects are seen larger: 2x3 is two rows of three tiles; 1x1 looks at the photo as a whole",
    )
    tile_overlap: float = Field(
        0.1, ge=0, le=0.5, description="share of a tile's side that neighbouring tiles have in common"
    )
    tile_score: str = Field(
        "max",
        pattern=r"^(max|top[1-9][0-9]{0,2})$",
        description="a photo's score from its tiles' scores: max (the highest), or top2, top3 ... (the mean of so many "
        "highest)",
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
        return PixelRules(self.black, self.white, self.resize, self.tile_grid)

    @property
    def tile_grid(self) -> Tiles:
        """Returns the tiles that photos are cut into."""
        return parse_tiles(self.tiles, self.tile_overlap)

    @property
    def top_tiles(self) -> int:
        """Returns how many of a photo's tiles, the highest, its score is the mean of."""
        return 1 if self.tile_score == "max" else int(self.tile_score.removeprefix("top"))

    @model_validator(mode="after")
    def _tiles_fit(self) -> Self:
        grid = self.tile_grid
        if grid.total > 1 and self.resize == "letterbox":
            raise ValueError("tiles need resize stretch or crop, got letterbox: whole tiles could be black")
        if self.top_tiles > grid.total:
            raise ValueError(f"tile_score {self.tile_score} needs as many tiles, got tiles {self.tiles}")
        height, width = grid.measure_photo(self.image_size)
        if height * width > MAX_PIXELS:
            raise ValueError(f"tiles {self.tiles} of {self.image_size} px are {width} x {height}, over {MAX_PIXELS} px")
        return self

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
