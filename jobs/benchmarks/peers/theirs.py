"""The peers' side of the benchmark: anomalib's detectors through its Engine, as its users run them.

Nothing is written or drawn while it predicts: no visualiser, no logger, no progress bar, no summary. Photos are read by
its PredictDataset in batches, in the same process (no workers), because the threads of both sides are to be the same.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader

from jobs.benchmarks.peers.config import AnomalibSettings, PeerName
from jobs.benchmarks.peers.measurement import LabelledFolder, Score
from jobs.benchmarks.peers.models import MAPS, PeerBackbone, build_model, fill_memory, keep_at_random, keep_greedily

_OWN = {
    "patchcore": {"coreset_ratio", "coreset"},
    "padim": set[str](),
    "fastflow": {"fastflow_epochs"},
    "cflow": {"cflow_epochs"},
}
"""Kind -> the settings that it alone has."""
_SEEN = 2
"""Photos that a model is fitted on where its speed alone counts."""


class AnomalibPeer:
    """A model of anomalib on one backbone; see `jobs.benchmarks.peers.measurement.Contestant`."""

    side: Literal["anomalib"] = "anomalib"

    def __init__(
        self, name: PeerName, settings: AnomalibSettings, backbone: PeerBackbone, *, batch_photos: int, scratch: Path
    ) -> None:
        """Builds and downloads nothing yet.

        Args:
            name: which model on which backbone.
            settings: how it is built.
            backbone: which fits the name.
            batch_photos: photos of a batch.
            scratch: folder for the checkpoints that anomalib writes after a fit.
        """
        self.name: str = name
        self._kind = name.split("_", 1)[0]
        # Epochs of the models that learn by gradients; the others look at each photo once.
        self._epochs = {"fastflow": settings.fastflow_epochs, "cflow": settings.cflow_epochs}.get(self._kind)
        self.has_auroc = backbone.weights != "random" and self._epochs != 0
        self.about: dict[str, Any] = {
            "backbone": backbone.name,
            "weights": backbone.weights,
            "image_size": settings.image_size,
            "views": 1,
            "precision": "fp32",
        }
        maps = MAPS.get(backbone.name)
        own = settings.model_dump_json(include=_OWN[self._kind])
        self.identity = f"{name} {self.about} {own} {maps} batches of {batch_photos}"
        self._settings, self._backbone = settings, backbone
        self._batch_photos, self._scratch = batch_photos, scratch

    def fit(self, photos: LabelledFolder, *, seed: int) -> Score:
        """Fits the model by Engine.fit on the flawless photos; two do where its speed alone counts."""
        silence_logs()
        seed_everything(seed, verbose=False)
        model = self.build(photos=len(list(photos.train.iterdir())))
        engine = self._make_engine(epochs=self._epochs if self.has_auroc and self._epochs else 1)
        max_photos = None if self.has_auroc else _SEEN
        engine.fit(model=model, train_dataloaders=self._load_photos(photos.train, shuffles=True, max_photos=max_photos))
        if self._kind == "patchcore":
            self.about["memory_patches"] = len(model.model.memory_bank)
            self.about["memory"] = self._settings.coreset if self.has_auroc else "noise"
        if self._epochs is not None:
            self.about["epochs"] = self._epochs if self.has_auroc else 0
        return self._make_score(model)

    def build(self, *, photos: int) -> AnomalibModule:
        """Builds the model for so many training photos, without fitting it."""
        model = build_model(self._kind, self._settings, self._backbone)
        if self._kind == "patchcore" and not self.has_auroc:
            model.model.subsample_embedding = lambda ratio: fill_memory(model.model, ratio * photos / _SEEN)
        elif self._kind == "patchcore":
            keep = {"greedy": keep_greedily, "random": keep_at_random}[self._settings.coreset]
            model.model.subsample_embedding = lambda ratio: keep(model.model, ratio)
        return model

    def _make_score(self, model: AnomalibModule) -> Score:
        engine = self._make_engine(epochs=1)

        def score(folder: Path) -> npt.NDArray[np.float64]:
            batches = engine.predict(model=model, dataloaders=self._load_photos(folder))
            scores: npt.NDArray[np.float64] = (
                torch.cat([batch.pred_score.flatten() for batch in batches]).double().numpy()
            )
            return scores

        return score

    def _make_engine(self, *, epochs: int) -> Engine:
        return Engine(
            default_root_dir=self._scratch,
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def _load_photos(self, folder: Path, *, shuffles: bool = False, max_photos: int | None = None) -> Any:
        photos = PredictDataset(folder)
        photos.image_filenames = photos.image_filenames[:max_photos]
        return DataLoader(photos, batch_size=self._batch_photos, shuffle=shuffles, collate_fn=photos.collate_fn)


def silence_logs() -> None:
    """Silences Lightning and anomalib, which tell of devices and missing workers at every call."""
    for name in (
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
        "lightning_fabric",
        "pytorch_lightning",
        "anomalib",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|timm|anomalib")
