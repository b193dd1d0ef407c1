"""Attention blocks against torchvision and against the papers' formulas written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
import torchvision
from pydantic import ValidationError
from torch import Tensor

from model.config import ATTENTION_KINDS, AttentionConfig, AttentionKind
from model.network.attention import (
    ATTENTION,
    CBAM,
    EfficientChannelAttention,
    SqueezeExcitation,
    build_attention,
    compute_eca_kernel,
)


def _maps(channels: int = 32) -> Tensor:
    return torch.randn(3, channels, 9, 7, generator=torch.Generator().manual_seed(0)) * 2


def _cbam_by_formula(maps: Tensor, weights: dict[str, Tensor], *, scale: float) -> Tensor:
    """Equations 2 and 3 of arXiv 1807.06521 in matrix form, position by position for the spatial convolution."""
    first, second = weights["fc1.weight"].flatten(1), weights["fc2.weight"].flatten(1)

    def mlp(vectors: Tensor) -> Tensor:
        return (vectors @ first.T + weights["fc1.bias"]).clamp_min(0) @ second.T + weights["fc2.bias"]

    n, channels, height, width = maps.shape

    def standardised(vectors: Tensor, name: str) -> Tensor:
        mean, std = (weights[f"{name}.{which}"].view(1, -1, *[1] * (vectors.ndim - 2)) for which in ("mean", "std"))
        return (vectors - mean) / std

    flat = maps.flatten(2)
    average = mlp(standardised(flat.sum(2) / flat.shape[2], "average"))
    channel_gate = scale / (1 + torch.exp(-(average + mlp(standardised(flat.max(2).values, "maximum")))))
    maps = maps * channel_gate.view(n, channels, 1, 1)
    pair = standardised(torch.stack([maps.sum(1) / channels, maps.max(1).values], dim=1), "position")
    kernel = weights["conv.weight"][0]
    half = kernel.shape[-1] // 2
    padded = F.pad(pair, (half, half, half, half))
    spatial = torch.stack(
        [
            torch.stack(
                [
                    (padded[:, :, y : y + 2 * half + 1, x : x + 2 * half + 1] * kernel).sum((1, 2, 3))
                    for x in range(width)
                ],
                dim=1,
            )
            for y in range(height)
        ],
        dim=1,
    )
    return maps * (scale / (1 + torch.exp(-(spatial + weights["conv.bias"])))).unsqueeze(1)


@pytest.mark.parametrize(("channels", "reduction"), [(32, 16), (64, 4), (8, 16)])
def test_se_with_the_published_gate_equals_torchvision(channels: int, reduction: int) -> None:
    ours = SqueezeExcitation(channels, reduction=reduction, gate="sigmoid")
    theirs = torchvision.ops.SqueezeExcitation(channels, max(1, channels // reduction))
    left = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["average.mean", "average.std"], [])
    # the two take the spatial mean with different kernels: a few units in the last place
    torch.testing.assert_close(ours(_maps(channels)), theirs(_maps(channels)), rtol=1e-6, atol=1e-6)


def test_the_identity_gate_is_twice_the_published_one_with_equal_weights() -> None:
    published = SqueezeExcitation(32, gate="sigmoid")
    identity = SqueezeExcitation(32, gate="identity")
    identity.load_state_dict(published.state_dict())
    assert torch.equal(identity(_maps()), 2 * published(_maps()))


@pytest.mark.parametrize(("gate", "scale"), [("sigmoid", 1.0), ("identity", 2.0)])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_cbam_equals_its_papers_formula(gate: str, scale: float, kernel: int) -> None:
    torch.manual_seed(1)
    config = AttentionConfig(kind="cbam", reduction=4, spatial_kernel=kernel, gate=gate)
    block = build_attention(config, 32)
    weights = {name: torch.randn_like(value) * 0.3 for name, value in block.state_dict().items()}
    weights |= {name: value.abs() + 0.5 for name, value in weights.items() if name.endswith(".std")}
    block.load_state_dict(weights)
    expected = _cbam_by_formula(_maps(), weights, scale=scale)
    # sums in another order, float32: relative 1e-5
    torch.testing.assert_close(block(_maps()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (64, 3), (96, 3), (192, 5), (256, 5), (384, 5), (512, 5)])
def test_eca_s_kernel_is_the_papers(channels: int, kernel: int) -> None:
    """Its public code: t = int(abs((log(C, 2) + 1) / 2)), k = t if t is odd, else t + 1."""
    assert compute_eca_kernel(channels) == kernel
    assert EfficientChannelAttention(channels).conv.weight.shape == (1, 1, kernel)


@pytest.mark.parametrize(("gate", "scale"), [("sigmoid", 1.0), ("identity", 2.0)])
def test_eca_equals_its_papers_formula(gate: str, scale: float) -> None:
    """Equation 9 of arXiv 1910.03151, channel by channel: each gate sees its neighbours, zeros beyond the ends."""
    block = build_attention(AttentionConfig(kind="eca", gate=gate), 32)
    weights = torch.randn(3, generator=torch.Generator().manual_seed(1))
    block.get_parameter("conv.weight").data = weights.view(1, 1, 3)
    maps = _maps()
    average = maps.flatten(2).sum(2) / (9 * 7)
    expected = maps.clone()
    for channel in range(32):
        near = [
            weights[k] * average[:, channel + k - 1] if 0 <= channel + k - 1 < 32 else torch.zeros(3) for k in range(3)
        ]
        gated = scale / (1 + torch.exp(-torch.stack(near).sum(0)))
        expected[:, channel] = maps[:, channel] * gated.view(-1, 1, 1)
    torch.testing.assert_close(block(maps), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["se", "cbam", "eca"])
def test_an_untrained_block_changes_no_bit(kind: str) -> None:
    block = build_attention(AttentionConfig(kind=kind), 32)
    assert torch.equal(block(_maps()), _maps())


@pytest.mark.parametrize("kind", ["se", "cbam", "eca"])
def test_a_published_gate_starts_at_random(kind: str) -> None:
    block = build_attention(AttentionConfig(kind=kind, gate="sigmoid"), 32)
    assert all(parameter.std() > 0 for name, parameter in block.named_parameters() if "weight" in name)


@pytest.mark.parametrize(("kind", "last"), [("se", "fc2.weight"), ("cbam", "fc2.weight"), ("eca", "conv.weight")])
def test_an_identity_gate_learns_from_the_first_step(kind: str, last: str) -> None:
    block = build_attention(AttentionConfig(kind=kind), 32)
    block(_maps()).square().sum().backward()
    assert float(block.get_parameter(last).grad.abs().max()) > 0


@pytest.mark.parametrize("kind", ["se", "cbam", "eca"])
def test_a_kind_depends_on_the_settings_that_it_names_and_on_no_other(kind: str) -> None:
    """A search varies what is named: a setting without effect would be a dimension that only costs trials."""

    def shapes(**settings: int) -> list[tuple[int, ...]]:
        block = build_attention(AttentionConfig.model_validate({"kind": kind, **settings}), 64)
        return [tuple(parameter.shape) for parameter in block.parameters()]

    plain = shapes()
    changed = {
        name for name, value in {"reduction": 4, "spatial_kernel": 3}.items() if shapes(**{name: value}) != plain
    }
    assert changed == set(ATTENTION[kind][1])


@pytest.mark.parametrize("block", [SqueezeExcitation(8, reduction=16), CBAM(8, reduction=16)])
def test_the_bottleneck_keeps_at_least_one_unit(block: SqueezeExcitation | CBAM) -> None:
    assert block.fc1.out_channels == 1


def test_the_bottleneck_has_channels_over_reduction_units() -> None:
    assert SqueezeExcitation(256, reduction=16).fc1.out_channels == 16


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_every_kind_of_a_configuration_is_built(kind: AttentionKind) -> None:
    assert isinstance(build_attention(AttentionConfig(kind=kind), 4), ATTENTION[kind][0])


def test_nothing_is_built_that_no_configuration_can_name() -> None:
    assert tuple(ATTENTION) == ATTENTION_KINDS


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="'se', 'cbam' or 'eca'"):
        AttentionConfig.model_validate({"kind": "none"})
