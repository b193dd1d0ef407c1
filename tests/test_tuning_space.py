"""The space of attention placements: complete, valid, in a known order, with names that stay."""

from __future__ import annotations

from itertools import islice
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import BACKBONE_STAGES, PAPER_PRESETS, AttentionConfig, BackboneName, DetectorConfig, preset
from tuning.space import attention_space, variant_name

ALEXNET = DetectorConfig(weights="random")
KINDS = ["se", "cbam"]


@st.composite
def spaces(draw: st.DrawFn) -> tuple[DetectorConfig, list[str], list[str], int]:
    """A backbone with some of its stages, some kinds and a limit that keeps the space below a thousand points."""
    backbone: BackboneName = draw(st.sampled_from(["alexnet", "alexnet_caffe", "squeezenet1_0"]))
    stages = draw(st.lists(st.sampled_from(BACKBONE_STAGES[backbone]), unique=True))
    kinds = draw(st.lists(st.sampled_from(KINDS), unique=True))
    return DetectorConfig(backbone=backbone), stages, kinds, draw(st.integers(0, 3))


def test_the_papers_three_models_come_first() -> None:
    first = list(islice(attention_space(ALEXNET, kinds=KINDS), 3))
    assert [point.attention for point in first] == [preset(name).attention for name in PAPER_PRESETS]


def test_every_kind_or_none_stands_after_every_stage() -> None:
    assert len(list(attention_space(ALEXNET, kinds=KINDS))) == 3**5


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_the_number_of_points_follows_the_binomial_law(space: tuple[DetectorConfig, list[str], list[str], int]) -> None:
    base, stages, kinds, limit = space
    points = list(attention_space(base, kinds=kinds, stages=stages, max_blocks=limit))
    assert len(points) == sum(comb(len(stages), blocks) * len(kinds) ** blocks for blocks in range(limit + 1))


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_points_are_unique_in_attention_and_in_name(space: tuple[DetectorConfig, list[str], list[str], int]) -> None:
    base, stages, kinds, limit = space
    points = list(attention_space(base, kinds=kinds, stages=stages, max_blocks=limit))
    placements = {tuple((stage, block.kind) for stage, block in point.attention.items()) for point in points}
    assert len(placements) == len({point.variant for point in points}) == len(points)


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_every_point_survives_json(space: tuple[DetectorConfig, list[str], list[str], int]) -> None:
    base, stages, kinds, limit = space
    for point in attention_space(base, kinds=kinds, stages=stages, max_blocks=limit):
        assert DetectorConfig.model_validate_json(point.model_dump_json()) == point


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3**9 - 1))
def test_any_point_of_squeezenet_changes_nothing_but_name_and_attention(index: int) -> None:
    base = DetectorConfig(backbone="squeezenet1_0", views=8)
    point = next(islice(attention_space(base, kinds=KINDS), index, None))
    assert point.model_copy(update={"variant": base.variant, "attention": {}}) == base
    assert set(point.attention) <= set(BACKBONE_STAGES["squeezenet1_0"])


def test_without_the_papers_stages_the_space_starts_with_no_attention_and_single_blocks() -> None:
    names = [point.variant for point in attention_space(ALEXNET, kinds=KINDS, stages=["conv3", "conv4"])]
    assert names[:5] == ["plain", "se@conv3", "cbam@conv3", "se@conv4", "cbam@conv4"]


def test_names_do_not_depend_on_the_order_in_which_stages_and_kinds_are_given() -> None:
    given_order = [point.variant for point in attention_space(ALEXNET, kinds=KINDS, stages=["pool1", "conv5"])]
    other_order = [point.variant for point in attention_space(ALEXNET, kinds=KINDS[::-1], stages=["conv5", "pool1"])]
    assert given_order == other_order
    assert "se@pool1+cbam@conv5" in given_order


def test_settings_of_a_kind_reach_its_blocks_and_names() -> None:
    blocks = {"cbam": AttentionConfig(kind="cbam", reduction=8, gate="sigmoid", spatial_kernel=3)}
    points = list(attention_space(ALEXNET, kinds=["cbam"], stages=["conv5"], blocks=blocks))
    assert [point.variant for point in points] == ["plain", "cbam-r8-sigmoid-k3@conv5"]
    assert points[1].attention == {"conv5": blocks["cbam"]}


def test_the_attention_of_the_base_is_replaced() -> None:
    points = attention_space(preset("attentdiffernet_se"), kinds=["cbam"], stages=["conv5"])
    assert [list(point.attention) for point in points] == [[], ["conv5"]]


def test_a_detector_without_attention_is_named_plain() -> None:
    assert variant_name({}) == "plain"


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"attention kind once and of se, cbam.*got eca"):
        attention_space(ALEXNET, kinds=["eca"])


def test_a_stage_of_another_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alexnet stage once and of pool1.*got fire2"):
        attention_space(ALEXNET, stages=["fire2"])


def test_a_stage_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="each alexnet stage once"):
        attention_space(ALEXNET, stages=["pool1", "pool1"])


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        attention_space(ALEXNET, max_blocks=-1)


def test_settings_under_another_kinds_name_are_refused() -> None:
    with pytest.raises(ValueError, match="under its own name"):
        attention_space(ALEXNET, kinds=["se"], blocks={"se": AttentionConfig(kind="cbam")})
