"""The flow against its formulas, its exact Jacobian and its own inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.config import FlowConfig
from model.network.flow import AtanClamp, Flow, compute_nll

_SMALL = FlowConfig(blocks=3, hidden_width=16, hidden_layers=2)


def _vectors(rows: int = 5, dim: int = 6, *, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def _strong(flow: Flow) -> Flow:
    """Weights large enough for the clamp to bend: an untrained flow is nearly linear and would hide errors."""
    with torch.no_grad():
        for parameter in flow.parameters():
            if parameter.is_floating_point():
                parameter.mul_(3)
    return flow


def _layers_by_hand(weights: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    numbers = sorted({int(key.removeprefix(prefix).split(".")[0]) for key in weights if key.startswith(prefix)})
    for number in numbers:
        x = x @ weights[f"{prefix}{number}.weight"].T + weights[f"{prefix}{number}.bias"]
        x = x.clamp_min(0) if number != numbers[-1] else x
    return x


def _flow_by_hand(weights: dict[str, Tensor], x: Tensor, *, blocks: int, clamp: float) -> tuple[Tensor, Tensor]:
    """DifferNet's equations: permute, y1 = x1 exp(s2(x2)) + t2(x2), y2 = x2 exp(s1(y1)) + t1(y1)."""
    log_det = torch.zeros(len(x), dtype=x.dtype)
    dim = x.shape[1]
    half = dim // 2
    for block in range(blocks):
        x = x[:, torch.from_numpy(np.random.RandomState(block).permutation(dim))]
        x1, x2 = x[:, :half], x[:, half:]
        prefix = f"inn.module_list.{2 * block + 1}."
        outputs = _layers_by_hand(weights, prefix + "subnet2.", x2)
        s, t = clamp * 0.636 * torch.atan(outputs[:, :half] / clamp), outputs[:, half:]
        y1 = x1 * torch.exp(s) + t
        log_det = log_det + s.sum(1)
        outputs = _layers_by_hand(weights, prefix + "subnet1.", y1)
        s, t = clamp * 0.636 * torch.atan(outputs[:, : dim - half] / clamp), outputs[:, dim - half :]
        x = torch.cat([y1, x2 * torch.exp(s) + t], dim=1)
        log_det = log_det + s.sum(1)
    return x, log_det


@pytest.mark.parametrize("clamp", [1.0, 3.0])
def test_the_coupling_blocks_equal_differnets_equations(clamp: float) -> None:
    flow = _strong(Flow(6, _SMALL.model_copy(update={"clamp": clamp}), seed=0)).double()
    z, log_det = flow(_vectors().double())
    expected = _flow_by_hand(dict(flow.state_dict()), _vectors().double(), blocks=3, clamp=clamp)
    # float64, the same sums in nearly the same order
    torch.testing.assert_close((z, log_det), expected, rtol=1e-10, atol=1e-10)


@given(seed=st.integers(0, 2**16), dim=st.integers(2, 7))
@settings(max_examples=15, deadline=None)
def test_log_det_is_that_of_the_jacobian(seed: int, dim: int) -> None:
    flow = _strong(Flow(dim, _SMALL, seed=seed)).double()
    x = _vectors(1, dim, seed=seed).double()
    jacobian = torch.autograd.functional.jacobian(lambda row: flow(row.unsqueeze(0))[0][0], x[0])
    # float64, but the Jacobian of so strong a flow has condition numbers up to 1e8
    torch.testing.assert_close(flow(x)[1][0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 2**16), dim=st.integers(2, 9))
@settings(max_examples=15, deadline=None)
def test_inverse_undoes_forward(seed: int, dim: int) -> None:
    flow = Flow(dim, _SMALL, seed=seed).double()
    x = _vectors(4, dim, seed=seed).double()
    # float64 with scales of about 1
    torch.testing.assert_close(flow.inverse(flow(x)[0]), x, rtol=1e-9, atol=1e-9)


def test_latents_are_those_of_forward() -> None:
    flow = Flow(6, _SMALL, seed=0)
    assert torch.equal(flow.latents(_vectors()), flow(_vectors())[0])


def test_the_clamp_saturates_just_below_alpha() -> None:
    clamp = AtanClamp(3.0)
    # 0.636 * pi / 2 = 0.99903
    assert 3 * float(clamp(torch.tensor(1e9))) == pytest.approx(3 * 0.636 * math.pi / 2, abs=1e-6)


def test_the_clamp_has_slope_0636_at_zero_for_every_alpha() -> None:
    u = torch.zeros(1, requires_grad=True)
    (7 * AtanClamp(7.0)(u)).backward()
    assert float(u.grad) == pytest.approx(0.636)


def test_the_loss_equals_the_mean_over_a_plain_loop() -> None:
    z, log_det = _vectors(4, 3), torch.tensor([0.5, -1.0, 2.0, 0.0])
    terms = [0.5 * sum(v * v for v in row) - d for row, d in zip(z.tolist(), log_det.tolist(), strict=True)]
    expected = sum(terms) / 4 / 3
    # float32 against Python's float64
    assert float(compute_nll(z, log_det)) == pytest.approx(expected, rel=1e-6)


def test_a_subnet_has_differnets_layers() -> None:
    with torch.device("meta"):
        flow = Flow(768, FlowConfig(blocks=1), seed=0)
    shapes = [tuple(p.shape) for name, p in flow.named_parameters() if "subnet1" in name and "weight" in name]
    assert shapes == [(2048, 384), (2048, 2048), (2048, 2048), (768, 2048)]


def test_dropout_acts_in_training_only() -> None:
    flow = Flow(6, _SMALL.model_copy(update={"dropout": 0.5}), seed=0)
    trained = [flow.train().latents(_vectors()) for _ in range(2)]
    scored = [flow.eval().latents(_vectors()) for _ in range(2)]
    assert (torch.equal(*trained), torch.equal(*scored)) == (False, True)


@pytest.mark.parametrize(("other_seed", "same"), [(1, True), (2, False)])
def test_the_seed_decides_the_weights(other_seed: int, same: bool) -> None:
    first, second = Flow(6, _SMALL, seed=1), Flow(6, _SMALL, seed=other_seed)
    assert torch.equal(first.latents(_vectors()), second.latents(_vectors())) == same


def test_building_leaves_the_global_generators_untouched() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    Flow(6, _SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state


def test_a_single_value_cannot_flow() -> None:
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        Flow(1, _SMALL, seed=0)


def test_off_its_data_scores_are_huge_and_finite() -> None:
    """A flow that learnt a few scenes stretches others by up to exp(clamp) in each block: it may score over 1e12."""
    flow = Flow(6, config=FlowConfig(blocks=6, hidden_width=16, hidden_layers=1), seed=0)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(1e6)  # all log-scales are at their clamp
    scores = flow.latents(torch.ones(1, 6)).detach().double().square().mean(1)
    assert flow.saturation(torch.ones(1, 6)) == 1
    assert 1e12 < float(scores) < math.inf
