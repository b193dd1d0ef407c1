"""Networks by the names that torchvision and timm give them: ``resnet18`` is torchvision's, ``timm/NAME`` timm's."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import fx, nn

from model.network.seeding import seed_cpu_generator

TIMM = "timm/"
"""What the names of timm's networks begin with here."""

_TORCHVISION = "torchvision.models"  # 3 s to import, which detectors on an AlexNet need not spend
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of colours in 0..1, red, green, blue, that most networks were trained with."""


def build_whole_network(name: str) -> nn.Module:
    """Builds a network by name in evaluation mode, with its library's random weights, from torch's generator.

    Raises:
        ValueError: no library has it, or timm is not installed.
    """
    if name.startswith(TIMM):
        timm, short = import_timm(), name.removeprefix(TIMM)
        if not timm.is_model(short):
            raise ValueError(f"timm has no network {short!r}{suggest_name(short, timm.list_models())}")
        built: nn.Module = timm.create_model(short, pretrained=False)
        return built.eval()
    check_torchvision_name(name)
    models = importlib.import_module(_TORCHVISION)
    # Without the first, these two warn of their slow random weights; their ImageNet weights need the second.
    inception = {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    built = models.get_model(name, weights=None, **inception)
    return built.eval()


@lru_cache(maxsize=4)
def build_without_weights(name: str) -> nn.Module:
    """Builds a network whose tensors have shapes alone; raises ValueError as `build_whole_network` does."""
    with seed_cpu_generator(0):  # drawing nothing that anyone sees, it leaves the generator where it was
        try:
            with torch.device("meta"):
                return build_whole_network(name)
        except NotImplementedError:  # a constructor that computes with tensors, as RegNet's does
            with torch.device("cpu"):
                return build_whole_network(name).to("meta")


def list_torchvision_names() -> list[str]:
    """Lists torchvision's classification networks."""
    models = importlib.import_module(_TORCHVISION)
    names: list[str] = models.list_models(module=models)
    return names


def check_torchvision_name(name: str) -> None:
    """Raises ValueError, in one line, unless torchvision has a classification network of this name."""
    if name not in (known := list_torchvision_names()):
        raise ValueError(
            f"torchvision has no classification network {name!r}{suggest_name(name, [*known, 'alexnet_caffe'])}; "
            f"timm's are called {TIMM}NAME"
        )


def import_timm() -> Any:
    """Imports timm.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ValueError("networks of timm need the extra timm: pip install 'attentdiffernet-ray[timm]'") from error


def suggest_name(name: str, known: Sequence[str]) -> str:
    """Says which known names are like ``name``; an empty string where none is."""
    near = difflib.get_close_matches(name, known, n=3)
    return f", did you mean {' or '.join(near)}?" if near else ""


def read_normalization(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Reads the mean and the standard deviation of colours in 0..1 that a network's own weights were trained with.

    Raises:
        ValueError: no library has the network.
    """
    if name.startswith(TIMM):
        known = import_timm().get_pretrained_cfg(name.removeprefix(TIMM))
        return (known.mean, known.std) if known else (IMAGENET_MEAN, IMAGENET_STD)
    transforms = find_torchvision_weights(name).transforms()
    return transforms.mean, transforms.std


def read_licence(name: str) -> str:
    """Reads the licence that a network's library names for its weights.

    Raises:
        ValueError: no library has the network.
    """
    if name.startswith(TIMM):
        known = import_timm().get_pretrained_cfg(name.removeprefix(TIMM))
        return f"{(known and known.license) or 'not named'}, says timm"
    return str(find_torchvision_weights(name).meta.get("license", "BSD-3-Clause, as torchvision's code"))


def find_torchvision_weights(name: str) -> Any:
    """Finds torchvision's ImageNet weights of a network: the first published, or its default where that is missing.

    Raises:
        ValueError: torchvision has no such network.
    """
    check_torchvision_name(name)
    known = importlib.import_module(_TORCHVISION).get_model_weights(name)
    return known["IMAGENET1K_V1"] if "IMAGENET1K_V1" in known.__members__ else known["DEFAULT"]


def choose_tracer(name: str) -> tuple[Callable[..., fx.GraphModule], Callable[..., tuple[list[str], list[str]]]]:
    """Chooses the functions that extract features of a network and that list its nodes: its library's own."""
    if name.startswith(TIMM):
        models = importlib.import_module("timm.models")
        return models.create_feature_extractor, models.get_graph_node_names
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    # Layers that only training has make it warn otherwise, and nothing here trains them.
    quiet = {"suppress_diff_warning": True}
    return partial(extraction.create_feature_extractor, **quiet), partial(extraction.get_graph_node_names, **quiet)


@lru_cache(maxsize=32)
def list_nodes(name: str) -> tuple[str, ...]:
    """Lists the names of all nodes of a network, first to last."""
    with torch.device("meta"):
        return tuple(choose_tracer(name)[1](build_without_weights(name))[1])
