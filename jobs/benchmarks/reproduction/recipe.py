"""DifferNet as its authors' code runs it, and the deviations whose cost is measured.

The values are those of the authors' code (github.com/marco-rudolph/differnet, config.py). Two things are easily missed
there: while it trains, its test views are random rotations as well, and it can vary brightness and contrast of every
view (``transf_brightness``, ``transf_contrast``), which is switched off. Whether the published figure of the magnetic
tiles was made with that is not said in the code; ``varied_light`` shows what it is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from model.config import DetectorConfig, FlowConfig, Precision

Angles = Literal["random", "even"]


@dataclass(frozen=True)
class Recipe:
    """One way to train and test DifferNet.

    Attributes:
        image_size: side in pixels of the largest scale; the others have a half and a quarter of it.
        light: brightness and contrast of each view are multiplied by factors in 1 - light to 1 + light.
        training: angles random in 0 to 360 degrees, or evenly spread ones, the same for every photo.
        testing: the same of the test photos.
        train_angles: how many of them the features of a training photo are computed at.
        test_angles: the same of a test photo.
        scored_views: views of a test photo whose mean is its score, the first ones.
        resize: photos are made square by Pillow (bilinear, as torchvision does), or by the product's decoder.
        scaling: of the features before the flow.
        flow: coupling blocks and their subnets.
    """

    image_size: int = 448
    light: float = 0.0
    training: Angles = "random"
    testing: Angles = "random"
    train_angles: int = 64
    test_angles: int = 64
    scored_views: int = 64
    resize: Literal["pillow", "product"] = "pillow"
    scaling: Literal["none", "global", "channel", "whiten"] = "none"
    flow: FlowConfig = field(default_factory=FlowConfig)

    def make_detector_config(self, *, weights: str, seed: int, precision: Precision) -> DetectorConfig:
        """Returns the detector that has the features and the flow of this recipe."""
        return DetectorConfig(
            variant="differnet",
            weights=weights,
            seed=seed,
            image_size=self.image_size,
            views=self.test_angles,
            train_views=min(4, self.train_angles),
            feature_scaling=self.scaling,
            flow=self.flow,
            precision=precision,
        )


_SMALL_PX = 256
"""The smallest usual size whose quarter, the third scale, AlexNet can still see."""


def list_deviations(published: Recipe) -> Mapping[str, Recipe]:
    """Returns recipes by name: the published one, then each with one thing changed, or what its name says.

    Args:
        published: with as many angles as are to be measured.
    """
    small = published.flow.model_copy(update={"blocks": 6, "hidden_width": 256})
    even = replace(published, training="even", testing="even", train_angles=4, test_angles=4, scored_views=4)
    return {
        "published": published,
        "varied_light": replace(published, light=0.15),
        "even_test_angles": replace(published, testing="even"),
        "4_even_angles": even,
        "4_test_views": replace(published, scored_views=4),
        "1_test_view": replace(published, scored_views=1),
        "256_px": replace(published, image_size=_SMALL_PX),
        "product_resize": replace(published, resize="product"),
        "scaled": replace(published, scaling="channel"),
        "whitened": replace(published, scaling="whiten"),
        "small_flow": replace(published, flow=small),
        "small_flow_whitened": replace(
            published, scaling="whiten", flow=small.model_copy(update={"start": "identity"})
        ),
    }


DEVIATIONS = tuple(list_deviations(Recipe()))
"""Names of all recipes, in the order of the table."""
