"""Versions of what decides a score, for artifacts, run records and reports."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

_LIBRARIES = (
    "attentdiffernet-ray",
    "ray",
    "torch",
    "torchvision",
    "timm",
    "FrEIA",
    "openvino",
    "numpy",
    "safetensors",
    "pyarrow",
    "simplejpeg",
    "Pillow",
)


def read_versions() -> dict[str, str]:
    """Reads the versions of Python and of the libraries that decide a score, by name."""
    found = {"python": platform.python_version(), **{name: _read_version(name) for name in _LIBRARIES}}
    if torch := sys.modules.get("torch"):
        found["torch"] = str(torch.__version__)  # names the CUDA build, which the wheel's own version leaves out
    return found


def read_program_version() -> str:
    """Reads the version of this program."""
    return _read_version(_LIBRARIES[0])


def _read_version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # a checkout run in place, as `ray job submit --working-dir` does
