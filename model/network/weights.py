"""Where backbone weights come from: torchvision's download, or the bytes of a local or stored file.

Bytes are hostile until parsed: safetensors holds no code, torch's own format is only read with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from uuid import uuid4

import safetensors.torch
import torch
from torch import Tensor

from model.config import DetectorConfig
from model.network.libraries import (
    TIMM,
    build_without_weights,
    find_torchvision_weights,
    import_timm,
    list_torchvision_names,
)

_WAY_OUT = "set detector.weights to the path or URI of a .safetensors or .pth file"
_CHUNK_BYTES = 1 << 20


class WeightsUnavailableError(RuntimeError):  # the name is part of the public interface
    """Pretrained weights cannot be had; the message says what to do instead."""


def resolve_backbone_weights(config: DetectorConfig, *, read: Callable[[str], bytes]) -> dict[str, Tensor] | None:
    """Returns what ``Backbone.load_features`` should get for ``config.weights``; None for random weights.

    Args:
        config: its ``weights`` is ``imagenet``, ``random`` or a URI.
        read: returns the bytes at a URI; its errors pass through.

    Raises:
        WeightsUnavailableError: ImageNet weights do not exist or could not be fetched.
        ValueError: the file holds no readable weights.
    """
    if config.weights == "random":
        return None
    if config.weights == "imagenet":
        is_timm = config.backbone.startswith(TIMM)
        return fetch_timm_weights(config.backbone) if is_timm else fetch_imagenet_weights(config.backbone)
    return parse_weights(read(config.weights), name=config.weights)


def fetch_imagenet_weights(backbone: str, *, timeout_s: float = 60, total_s: float = 3600) -> dict[str, Tensor]:
    """Returns torchvision's ImageNet weights of ``backbone`` from torch.hub's cache, downloading them at first use.

    Args:
        backbone: name of the network.
        timeout_s: longest silence of the network that is waited for, at connection and at each read.
        total_s: longest whole download (AlexNet's file has 233 MiB).

    Raises:
        WeightsUnavailableError: torchvision has none, or the download failed.
    """
    urls = list_imagenet_urls()
    if backbone not in urls:
        raise WeightsUnavailableError(f"torchvision has no ImageNet weights of {backbone}: {_WAY_OUT}")
    url = urls[backbone]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        if not cached.exists():
            download_file(url, cached, timeout_s=timeout_s, total_s=total_s)
        data = cached.read_bytes()
    except (OSError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsUnavailableError(
            f"ImageNet weights of {backbone} could not be fetched from {url} ({reason}): copy that file, whose "
            f"SHA-256 is in its name, to {cached}, or {_WAY_OUT}"
        ) from error
    return parse_weights(data, name=str(cached))


def list_imagenet_urls() -> dict[str, str]:
    """Returns the URL of torchvision's ImageNet weights by backbone."""
    return {name: find_torchvision_weights(name).url for name in list_torchvision_names()}


def fetch_timm_weights(backbone: str) -> dict[str, Tensor]:
    """Returns timm's own weights of ``timm/NAME`` from the cache of its hub, downloading them at first use.

    Raises:
        WeightsUnavailableError: there are none, or the download failed.
        ValueError: timm is not installed, or has no such network.
    """
    network = build_without_weights(backbone)
    try:
        filled = import_timm().create_model(backbone.removeprefix(TIMM), pretrained=True)
    except Exception as error:  # what a hub's client raises is its own affair
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsUnavailableError(f"weights of {backbone} could not be fetched ({reason}): {_WAY_OUT}") from error
    return {key: value for key, value in filled.state_dict().items() if key in network.state_dict()}


def parse_weights(data: bytes, *, name: str) -> dict[str, Tensor]:
    """Parses a safetensors or torch file into named tensors on the CPU, executing nothing of it.

    Args:
        data: the whole file.
        name: its path or URI, for the extension and for messages.

    Raises:
        ValueError: in one line, that the file is broken, holds code, or is no flat dictionary of tensors.
    """
    is_safetensors = name.endswith(".safetensors") or data[8:9] == b"{"
    try:
        if is_safetensors:
            state = safetensors.torch.load(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # broken bytes make the parsers raise nearly every built-in error
        raise ValueError(
            f"{name!r} holds no readable weights ({type(error).__name__}): needed a .safetensors file, "
            f"or a .pth file of a plain state dict, got {len(data)} bytes"
        ) from error
    if not isinstance(state, dict) or not all(_is_named_tensor(key, value) for key, value in state.items()):
        raise ValueError(
            f"{name!r} is no flat dictionary of named dense tensors: save it with torch.save(state_dict())"
        )
    return dict(state)


def _is_named_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def download_file(url: str, target: Path, *, timeout_s: float, total_s: float) -> None:
    """Downloads to ``target`` atomically, so that workers of one host may race; OSError or HTTPException on failure.

    torch.hub's own download has no timeout and would wait for ever on a network that drops packets.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{uuid4().hex}.partial")
    digest, deadline = hashlib.sha256(), time.monotonic() + total_s
    try:
        with (
            urllib.request.urlopen(url, timeout=timeout_s) as response,  # noqa: S310  # only torchvision's own https URLs
            partial.open("wb") as file,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done after {total_s:g} s")
        check_digest(digest.hexdigest(), url)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_digest(digest: str, url: str) -> None:
    """Raises OSError unless ``digest``, in hex, begins with the digits of SHA-256 in the URL's file name."""
    expected = re.search(r"-([0-9a-f]{8,})\.", url)
    if expected and not digest.startswith(expected[1]):
        raise OSError(f"SHA-256 of the download is {digest[:8]}, expected {expected[1]}")
