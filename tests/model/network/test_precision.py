"""bf16 on a CPU that is slow at it: the rounding of bf16 by the kernels of float32."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import nn

from model.config import BF16_VARIABLE, DetectorConfig, OptimizerConfig, Precision
from model.detector import AttentDifferNet
from model.hardware import has_fast_bf16
from model.inference.detector import EagerScorer, build_scorer
from model.network import precision
from model.network.precision import RoundToBf16, use_precision
from model.processor import read_cpu_name
from model.training.loop import train
from model.training.photos import InMemory
from tests.support.detectors import build_config, draw_images
from tests.support.training import build_training_config, draw_photos

CPU = torch.device("cpu")


@pytest.fixture
def slow_at_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BF16_VARIABLE, "off")
    precision.warn_of_slow_bf16.cache_clear()


def test_sums_are_of_rounded_products_and_rounded_once() -> None:
    layer, x = nn.Linear(50, 7), torch.randn(5, 50)
    with RoundToBf16():
        got = layer(x)
    exact = F.linear(x.bfloat16().double(), layer.weight.bfloat16().double(), layer.bias.bfloat16().double())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=1e-6)  # one rounding to 8 bits


def test_gradients_come_in_the_type_of_the_weights() -> None:
    layer = nn.Conv2d(3, 4, 3)
    with RoundToBf16():
        layer(torch.randn(2, 3, 8, 8)).float().square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert float(layer.weight.grad.abs().max()) > 0


def test_other_functions_keep_their_type() -> None:
    with RoundToBf16():
        assert torch.relu(torch.randn(3)).dtype == torch.float32


@pytest.mark.skipif(not has_fast_bf16("cpu"), reason="compares with the kernels of a CPU that is fast at bf16")
def test_rounding_agrees_with_the_kernels_of_a_fast_cpu() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU())
    x = torch.randn(2, 3, 40, 40)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            expected = layers(x).float()
        with RoundToBf16():
            got = layers(x).float()
    # the same roundings, of sums in another order: a few values fall on the other side
    assert float((got - expected).norm() / expected.norm()) < 2e-3


@pytest.mark.usefixtures("slow_at_bf16")
def test_a_slow_cpu_is_warned_of_once_by_its_name() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(3):
            use_precision("bf16", CPU)
    assert len(heard) == 1
    assert "has no fast bf16" in str(heard[0].message)
    assert read_cpu_name() in str(heard[0].message)


@pytest.mark.usefixtures("slow_at_bf16")
def test_float32_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_precision("fp32", CPU)


@pytest.mark.usefixtures("slow_at_bf16")
def test_a_bf16_detector_scores_without_bf16_kernels_up_to_its_rounding() -> None:
    config = DetectorConfig.model_validate(build_config(precision="bf16").model_dump())
    detector = AttentDifferNet(config).eval()
    exact = AttentDifferNet(config.model_copy(update={"precision": "fp32"})).eval()
    scorer = build_scorer(detector)
    assert isinstance(scorer, EagerScorer)
    got, expected = scorer.score(draw_images(8)), exact.score(draw_images(8))
    assert not torch.equal(got, expected)
    torch.testing.assert_close(got, expected, rtol=0.03, atol=0)


@pytest.mark.usefixtures("slow_at_bf16")
def test_scorers_without_bf16_kernels_may_share_a_backbone() -> None:
    first, second = (AttentDifferNet(build_config(precision="bf16")).eval() for _ in range(2))
    shared = build_scorer(first)
    assert build_scorer(second, sharing=shared).backbone is shared.backbone


def _losses(precision: Precision) -> list[float]:
    detector = AttentDifferNet(build_training_config(precision=precision))
    losses: list[float] = []
    settings = OptimizerConfig(epochs=4, learning_rate=1e-3)
    train(
        detector,
        InMemory(draw_photos(12)),
        optimizer=settings,
        on_epoch=lambda epoch, _: losses.append(epoch.loss),
    )
    return losses


@pytest.mark.usefixtures("slow_at_bf16")
def test_a_bf16_flow_trains_without_bf16_kernels_as_it_does_in_float32() -> None:
    half, full = _losses("bf16"), _losses("fp32")
    assert half != full
    # bf16's own rounding: kernels of bf16 give 1.335 in the second epoch, this way 1.333, float32 1.409.
    assert half == pytest.approx(full, rel=0.1)
