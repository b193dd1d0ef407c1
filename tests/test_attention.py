"""Attention blocks against torchvision and against the papers' formulas written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
import torchvision
from torch import Tensor

from model.attention import (
    CBAM,
    SqueezeExcitation,
    attention_kinds,
    build_attention,
    register_attention,
)
from model.config import AttentionConfig


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


@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_an_untrained_block_changes_no_bit(kind: str) -> None:
    block = build_attention(AttentionConfig(kind=kind), 32)
    assert torch.equal(block(_maps()), _maps())


@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_a_published_gate_starts_at_random(kind: str) -> None:
    block = build_attention(AttentionConfig(kind=kind, gate="sigmoid"), 32)
    assert all(parameter.std() > 0 for name, parameter in block.named_parameters() if "weight" in name)


@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_an_identity_gate_learns_from_the_first_step(kind: str) -> None:
    block = build_attention(AttentionConfig(kind=kind), 32)
    block(_maps()).square().sum().backward()
    assert float(block.get_parameter("fc2.weight").grad.abs().max()) > 0


@pytest.mark.parametrize("block", [SqueezeExcitation(8, reduction=16), CBAM(8, reduction=16)])
def test_the_bottleneck_keeps_at_least_one_unit(block: SqueezeExcitation | CBAM) -> None:
    assert block.fc1.out_channels == 1


def test_the_bottleneck_has_channels_over_reduction_units() -> None:
    assert SqueezeExcitation(256, reduction=16).fc1.out_channels == 16


def test_the_papers_kinds_are_registered() -> None:
    assert {"se", "cbam"} <= set(attention_kinds())


def test_a_new_kind_is_built_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.attention._BUILDERS", {})
    register_attention("none")(lambda config, channels: torch.nn.Identity())
    assert isinstance(build_attention(AttentionConfig(kind="none"), 4), torch.nn.Identity)


def test_a_kind_is_registered_once_only() -> None:
    with pytest.raises(ValueError, match="'se' is registered already"):
        register_attention("se")(lambda config, channels: torch.nn.Identity())
