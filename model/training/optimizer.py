"""The optimizer of one worker: steps of Adam over its share of every batch."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from model.config import OptimizerConfig
from model.training.likelihood import Likelihood, skip_exchange
from model.training.workers import sum_over_workers, take_share

_PREFIX = "adam."


class WorkerOptimizer:
    """Adam on what a likelihood trains; the outcome is the same for any number of workers, see model.training.loop.

    Attributes:
        weights: what is trained.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        settings: OptimizerConfig,
        *,
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        """Creates Adam for the trainable weights of ``likelihood.module``, if it has any, on their device."""
        self._device = device
        self._likelihood, self._settings = likelihood, settings
        self._rank, self._world_size = rank, world_size
        self.weights = [weight for weight in likelihood.module.parameters() if weight.requires_grad]
        self._adam = self._build_adam() if self.weights else None

    def _build_adam(self) -> torch.optim.Adam:
        return torch.optim.Adam(
            self.weights,
            lr=self._settings.learning_rate,
            betas=self._settings.betas,
            eps=self._settings.eps,
            weight_decay=self._settings.weight_decay,
            fused=True,  # one pass over 172 million weights and their two moments, instead of a dozen
        )

    def train_epoch(self, order: Tensor, drawn: Tensor) -> float:
        """Trains one pass over the photos (N,) in ``order``, in their drawn views (N, T).

        The loss is not looked at before the end: at every step that would stall the device, and leave other workers
        waiting for this one.

        Returns:
            The mean loss of all workers, in nats per dimension.
        """
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        for batch in torch.split(order, self._settings.count_batch(self._world_size)):
            photos, weight = take_share(batch, rank=self._rank, world_size=self._world_size)
            loss = self._take_step(photos, drawn[photos], weight=weight)
            if weight > 0:
                sums += torch.stack([loss * len(photos), torch.full_like(loss, len(photos))])
        loss_sum, photos_seen = (float(value) for value in sum_over_workers(sums))
        return loss_sum / max(photos_seen, 1)  # 0 where a lone worker of several was left without photos

    def _take_step(self, photos: Tensor, drawn: Tensor, *, weight: float) -> Tensor:
        """Takes one step; returns the mean loss of this worker's share, float64."""
        if self._adam is None:  # a Gaussian, fitted before: only its loss is asked for
            return self._likelihood.compute_loss(photos, drawn).detach().double()
        self._adam.zero_grad()
        parts = min(self._settings.accumulate, len(photos))
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for number, some in enumerate(torch.arange(len(photos)).tensor_split(parts), start=1):
            is_last = number == parts
            with nullcontext() if is_last else skip_exchange(self._likelihood.module):
                total += self._backward(photos[some], drawn[some], weight=weight, share=len(some) / len(photos))
        self._adam.step()
        return total

    def _backward(self, photos: Tensor, drawn: Tensor, *, weight: float, share: float) -> Tensor:
        loss = self._likelihood.compute_loss(photos, drawn) * share
        torch.autograd.backward(loss * weight)
        return loss.detach().double()

    def is_finite(self) -> bool:
        """Tells whether every weight is finite: the last step may ruin them while its loss still was."""
        return all(bool(weight.isfinite().all()) for weight in self.weights)

    def copy_state(self) -> dict[str, Tensor]:
        """Copies Adam's moments and step counts to the CPU, by name."""
        kept = {} if self._adam is None else self._adam.state_dict()["state"]
        return {
            f"{_PREFIX}{number}.{name}": value.detach().cpu().clone()
            for number, values in kept.items()
            for name, value in values.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Loads what `copy_state` gave, out of ``tensors``, which may hold more."""
        kept: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in tensors if key.startswith(_PREFIX)):
            number, name = key.removeprefix(_PREFIX).split(".")
            kept.setdefault(int(number), {})[name] = tensors[key]
        if self._adam is not None:
            self._adam.load_state_dict({**self._adam.state_dict(), "state": kept})
