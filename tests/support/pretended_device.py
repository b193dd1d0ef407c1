"""A GPU that is none: tensors know on which device they would lie, and refuse to meet those of another one.

The numbers lie in the CPU's memory. Which storages stand for the GPU's is kept here; views share a storage, so they
stand where their base does. Every call of torch from Python passes here and is held to CUDA's rules: all tensors on one
device, but for scalars, for copies from one device to the other, and for indices on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from model.network.rotation import _compute_oblique_index

CUDA = torch.device("cuda:0")
_CPU = torch.device("cpu")
_COPIES = (Tensor.copy_, Tensor.data.__set__, torch._has_compatible_shallow_copy_type)  # type: ignore[attr-defined]
"""What takes tensors of two devices; the first one says where the outcome stands."""


class DeviceMismatchError(RuntimeError):
    """What CUDA would say of tensors on two devices."""


class PretendedGpu(TorchFunctionMode):
    """Inside it, ``cuda`` is a device."""

    def __init__(self) -> None:
        """Starts with no tensor on the device."""
        super().__init__()
        self._storages: dict[int, object] = {}  # kept alive, so that no address is used again

    def holds(self, tensor: Tensor) -> bool:
        """Tells whether a tensor stands on the GPU."""
        return tensor.untyped_storage()._cdata in self._storages

    def put(self, value: object) -> None:
        """Puts every tensor in ``value`` on the GPU."""
        for tensor in _list_tensors(value):
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = storage

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Computes one function of torch on the CPU, by the rules of the GPU."""
        given = dict(kwargs or {})
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]  # a getter of C
            return CUDA if self.holds(args[0]) else _CPU
        if func == Tensor.grad.__get__:  # type: ignore[attr-defined]
            return self._read_gradient(args[0])
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.pin_memory):
            return self._move(func, args, given)
        if func is Tensor.numpy and self.holds(args[0]):
            raise DeviceMismatchError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")
        asked = given.pop("device", None)
        on_gpu = self._check(func, args, given)
        outcome = func(*args, **given) if asked is None else func(*args, **given, device=_CPU)
        if (on_gpu if asked is None else torch.device(asked).type == "cuda") and func is not Tensor.tolist:
            self.put(outcome)
        return outcome

    def _read_gradient(self, tensor: Tensor) -> Tensor | None:
        gradient = tensor.grad
        if gradient is not None and self.holds(tensor):
            self.put(gradient)
        return gradient

    def _move(self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
        if func is Tensor.pin_memory:
            return args[0].clone()
        targets = [one for one in (*args[1:], *given.values()) if isinstance(one, torch.device | str | Tensor)]
        stays = not targets and func is Tensor.to
        to_gpu = self.holds(args[0]) if stays else func is Tensor.cuda or any(self._is_gpu(one) for one in targets)
        kept = [_CPU if isinstance(one, torch.device | str) else one for one in args[1:]]
        others = {name: _CPU if name == "device" else one for name, one in given.items()}
        outcome: Tensor = args[0].to(*kept, **others) if func is Tensor.to else args[0]
        if to_gpu != self.holds(args[0]) and outcome.untyped_storage()._cdata == args[0].untyped_storage()._cdata:
            outcome = outcome.clone()
        if to_gpu:
            self.put(outcome)
        return outcome

    def _is_gpu(self, target: torch.device | str | Tensor) -> bool:
        return self.holds(target) if isinstance(target, Tensor) else torch.device(target).type == "cuda"

    def _check(self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> bool:
        """Returns whether the outcome stands on the GPU.

        Raises:
            DeviceMismatchError: tensors on two devices.
        """
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            return self._check_index(func, args)
        # A scalar of the CPU goes with tensors of any device, one of the GPU does not.
        places = {self.holds(one) for one in _list_tensors((args, given)) if one.ndim or self.holds(one)}
        if len(places) > 1 and func not in _COPIES:
            name = getattr(func, "__name__", str(func))
            raise DeviceMismatchError(f"{name}: expected all tensors to be on the same device, got cuda:0 and cpu")
        return self.holds(args[0]) if func in _COPIES else True in places

    def _check_index(self, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        here = self.holds(args[0])
        if any(self.holds(index) and not here for index in _list_tensors(args[1])):
            raise DeviceMismatchError("indices should be either on cpu or on the same device as the indexed tensor")
        is_scattered = func is Tensor.__setitem__ and bool(_list_tensors(args[1]))
        if is_scattered and any(value.ndim and self.holds(value) != here for value in _list_tensors(args[2:])):
            raise DeviceMismatchError("expected all tensors to be on the same device, got cuda:0 and cpu")
        return here


def _list_tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


@contextmanager
def pretend_gpu() -> Iterator[PretendedGpu]:
    """Makes ``cuda`` a device inside the block, one whose memory takes few views at a time."""

    def seed_nothing(device: torch.device, *, seed: int) -> Any:
        return torch.random.fork_rng(devices=[])

    # What an earlier block has kept for the device stands on no GPU of this one.
    _compute_oblique_index.cache_clear()
    with (
        patch("torch.cuda.mem_get_info", lambda device: (1 << 24, 1 << 24)),
        patch("model.training.loop.seed_device_generator", seed_nothing),
        PretendedGpu() as gpu,
    ):
        yield gpu
