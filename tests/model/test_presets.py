"""Presets fit every backbone, and attention that is asked for learns or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from model.config import BACKBONE_STAGES, DetectorConfig
from model.detector import AttentDifferNet
from model.presets import (
    DEFAULT_VARIANT,
    PRESET_OPTIMIZERS,
    TRAINING_PRESETS,
    get_preset,
    get_random_preset,
    settle_attention,
)


def _settle(**given: Any) -> dict[str, Any]:
    return settle_attention({**get_preset(DEFAULT_VARIANT).model_dump(), **given}, given=given)


@pytest.mark.parametrize("backbone", BACKBONE_STAGES)
@pytest.mark.parametrize("name", TRAINING_PRESETS)
def test_every_preset_fits_every_backbone(name: str, backbone: str) -> None:
    fields = get_preset(name).model_dump() | {"backbone": backbone}
    assert DetectorConfig.model_validate(fields).backbone == backbone


def test_the_fast_preset_looks_at_a_photo_from_few_sides_and_trains_for_few_epochs() -> None:
    fast = get_preset("differnet_fast")
    slow = get_preset("differnet")
    assert fast.views * fast.image_size**2 * 50 < slow.views * slow.image_size**2
    assert PRESET_OPTIMIZERS["differnet_fast"]["epochs"] < 20


def test_the_default_preset_looks_once_and_trains_nothing() -> None:
    gaussian = get_preset(DEFAULT_VARIANT)
    assert gaussian.views == gaussian.train_views == PRESET_OPTIMIZERS[DEFAULT_VARIANT]["epochs"] == 1
    detector = AttentDifferNet(gaussian.model_copy(update={"weights": "random"}))
    assert detector.backbone.pooled_stages == ("stride8", "stride16")  # layer2 and layer3
    assert not [name for name, weight in detector.named_parameters() if weight.requires_grad]


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="expected one of gaussian_resnet18, differnet_fast, differnet"):
        get_preset("differnet_slow")


def test_attention_beside_a_preset_without_any_learns_the_pretext() -> None:
    assert _settle(attention={"conv3": {"kind": "cbam"}})["attention_training"] == "pretext"


def test_attention_that_is_asked_to_stay_frozen_stays_frozen() -> None:
    given = {"attention": {"conv3": {"kind": "cbam"}}, "attention_training": "frozen"}
    assert _settle(**given)["attention_training"] == "frozen"


def test_published_gates_need_a_word_on_how_they_learn() -> None:
    with pytest.raises(ValueError, match=r"sigmoid gates \(conv3\) needs detector.attention_training beside it"):
        _settle(attention={"conv3": {"kind": "cbam", "gate": "sigmoid"}})


def test_attention_that_is_taken_away_leaves_nothing_to_learn() -> None:
    fields = get_preset("attentdiffernet_se").model_dump() | {"attention": {}}
    assert settle_attention(fields, given={"attention": {}})["attention_training"] == "frozen"


def test_a_preset_with_random_weights_is_the_preset_in_all_else() -> None:
    expected = get_preset("differnet_fast").model_copy(update={"weights": "random", "precision": "bf16"})
    assert get_random_preset("differnet_fast", precision="bf16") == expected


@pytest.mark.parametrize("views", [1, 2, 64])
def test_a_preset_is_measured_with_any_number_of_views(views: int) -> None:
    assert get_random_preset("differnet_fast", precision="fp32", views=views).views == views
