"""Weights from a file or a library, held against the layers that they are for."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx, nn

from model.network.graph import StagedNetwork, copy_graph, fold_batch_norms, list_foldable
from model.network.libraries import build_without_weights, list_torchvision_names

_COUNTER = "num_batches_tracked"  # of a batch norm; nothing that is frozen reads it


def fit_alexnet(layers: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns an AlexNet's weights by the names of its layers; keys of the classifier are left out.

    Args:
        layers: what they are for.
        state: with or without torchvision's ``features.`` prefix.

    Raises:
        ValueError: in one line, which weights are missing, unexpected, of another shape or not finite numbers.
    """
    kept = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    given = {key.removeprefix("features."): value for key, value in kept.items()}
    check_weights(layers.state_dict(), given)
    return given


def fit_network(plan: StagedNetwork, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a library network's weights up to its pooled stages, its batch norms folded.

    Args:
        plan: of the network, before batch norms are folded; its tensors may have shapes alone.
        state: of the whole network, or up to the pooled stages. Batch norms that were folded into the convolutions
            before them are missing or neutral.

    Raises:
        ValueError: as `fit_alexnet` does.
    """
    layers = fx.GraphModule(copy.deepcopy(plan.layers), copy_graph(plan.graph))
    whole, needed = plan.layers.state_dict(), layers.state_dict()
    given = {key: value for key, value in state.items() if not key.endswith(_COUNTER)}
    given = complete_folded(layers, given)
    behind = whole.keys() - needed.keys()
    given = {key: value for key, value in given.items() if key not in behind}
    counters = {key: torch.tensor(0) for key in needed if key.endswith(_COUNTER)}
    check_weights({key: value for key, value in needed.items() if key not in counters}, given)
    real = {key: value.to("cpu", needed[key].dtype) for key, value in given.items()}
    layers.load_state_dict(real | counters, strict=True, assign=True)
    return fold_batch_norms(layers, layers.graph).state_dict()


def find_network_of(state: Mapping[str, Tensor]) -> str | None:
    """Finds torchvision's network that has all of these weights, in these shapes; takes some 10 seconds."""
    given = {key: value.shape for key, value in state.items() if not key.endswith(_COUNTER)}
    for name in list_torchvision_names():
        known = {key: value.shape for key, value in build_without_weights(name).state_dict().items()}
        if given and given.items() <= known.items():
            return name
    return None


def complete_folded(layers: fx.GraphModule, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds neutral batch norms to weights that have none at all, because they are in the convolutions already."""
    pairs = [(str(first.target), str(norm.target)) for first, norm in list_foldable(layers, layers.graph)]
    if not pairs or any(f"{norm}.running_var" in given for _, norm in pairs):
        return dict(given)
    found = dict(given)
    for convolution, norm in pairs:
        weight = given.get(f"{convolution}.weight")
        if weight is None:
            continue
        ones = torch.ones(len(weight))
        epsilon = float(layers.get_submodule(norm).eps)  # type: ignore[arg-type]
        bias = found.pop(f"{convolution}.bias", torch.zeros(len(weight)))
        found |= {f"{norm}.weight": ones, f"{norm}.bias": bias, f"{norm}.running_mean": torch.zeros(len(weight))}
        found[f"{norm}.running_var"] = ones - epsilon
    return found


def check_weights(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises ValueError, in one line, unless the given weights are those that are needed."""
    if problems := list_weight_problems(needed, given):
        raise ValueError(f"backbone weights do not fit: {'; '.join(problems)}")


def list_weight_problems(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Lists in what the given weights differ from the needed ones, one entry per kind; empty if they fit."""
    shared = needed.keys() & given.keys()
    misfits = [key for key in shared if given[key].shape != needed[key].shape]
    numbers = [key for key in shared - set(misfits) if needed[key].is_floating_point()]
    found = {
        "missing": shorten_names(needed.keys() - shared),
        "unexpected": shorten_names(given.keys() - shared),
        "of another shape": shorten_names(
            f"{key} needs {tuple(needed[key].shape)} got {tuple(given[key].shape)}" for key in misfits
        ),
        "not finite floating-point numbers": shorten_names(key for key in numbers if not _is_finite(given[key])),
    }
    return [f"{what}: {names}" for what, names in found.items() if names]


def shorten_names(names: Iterable[str], *, shown: int = 3) -> str:
    """Joins the first names, cut and escaped: they may come from a hostile file and must stay one short line."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ascii(name)[1:-1][:80] for name in ordered[:shown]) + more


def _is_finite(weights: Tensor) -> bool:
    return weights.is_floating_point() and bool(torch.isfinite(weights).all())
