"""The peers' side of the benchmark: anomalib's PatchCore and FastFlow through its Engine, as its users run them.

Nothing is written or drawn while it predicts: no visualiser, no logger, no progress bar, no summary. Photos are read by
its PredictDataset in batches, in the same process (no workers), because the threads of both sides are to be the same.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.models import Fastflow, Patchcore
from anomalib.models.components import AnomalibModule
from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.feature_extraction import create_feature_extractor

from jobs.benchmarks.peers.config import AnomalibSettings, PeerName
from jobs.benchmarks.peers.measurement import LabelledFolder, Score
from model.network.backbone import Backbone

_MAPS = {"alexnet": ("1", "4", "9"), "alexnet_caffe": ("2", "6", "11")}
"""Layers of AlexNet at strides 4, 8 and 16, as wide ResNet's layer1 to layer3; the last is conv4, which ours pools."""
_SEEN = 2
"""Photos that a model is fitted on where its speed alone counts."""
_WIDE_RESNET = "wide_resnet50_2"


class AnomalibPeer:
    """PatchCore or FastFlow on one backbone; see `jobs.benchmarks.peers.measurement.Contestant`."""

    side: Literal["anomalib"] = "anomalib"

    def __init__(
        self,
        name: PeerName,
        settings: AnomalibSettings,
        *,
        alexnet: Backbone,
        alexnet_name: str,
        alexnet_is_random: bool,
        batch_photos: int,
        scratch: Path,
    ) -> None:
        """Builds and downloads nothing yet.

        Args:
            name: which model on which backbone.
            settings: how it is built.
            alexnet: the backbone of our detectors, with its weights.
            alexnet_name: key of BACKBONE_STAGES.
            alexnet_is_random: whether its weights are.
            batch_photos: photos of a batch.
            scratch: folder for the checkpoints that anomalib writes after a fit.
        """
        self.name: str = name
        self._kind, backbone = name.split("_", 1)
        self._alexnet = None if backbone.startswith("wide_resnet") else alexnet
        self._maps = _MAPS[alexnet_name]
        is_random = settings.wide_resnet_weights == "random" if self._alexnet is None else alexnet_is_random
        self._is_pretrained = not is_random
        self.has_auroc = self._is_pretrained and (self._kind == "patchcore" or settings.fastflow_epochs > 0)
        self.about: dict[str, Any] = {
            "backbone": _WIDE_RESNET if self._alexnet is None else alexnet_name,
            "weights": "random" if is_random else "imagenet",
            "image_size": settings.image_size,
            "views": 1,
            "precision": "fp32",
        }
        self.identity = f"{name} {self.about} {settings.model_dump_json()} {self._maps} batches of {batch_photos}"
        self._settings, self._batch_photos, self._scratch = settings, batch_photos, scratch

    def fit(self, photos: LabelledFolder, *, seed: int) -> Score:
        """Fits the model by Engine.fit on the flawless photos; two do where its speed alone counts."""
        silence_logs()
        seed_everything(seed, verbose=False)
        is_patchcore = self._kind == "patchcore"
        model = (
            self._build_patchcore(photos=len(list(photos.train.iterdir()))) if is_patchcore else self._build_fastflow()
        )
        engine = self._make_engine(epochs=1 if is_patchcore or not self.has_auroc else self._settings.fastflow_epochs)
        max_photos = None if self.has_auroc else _SEEN
        engine.fit(model=model, train_dataloaders=self._load_photos(photos.train, shuffles=True, max_photos=max_photos))
        if is_patchcore:
            self.about["memory_patches"] = len(model.model.memory_bank)
            self.about["memory"] = self._settings.coreset if self.has_auroc else "noise"
        else:
            self.about["epochs"] = self._settings.fastflow_epochs if self.has_auroc else 0
        return self._make_score(model)

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

    def _build_patchcore(self, *, photos: int) -> Patchcore:
        settings = self._settings
        side = (settings.image_size, settings.image_size)
        model = Patchcore(
            backbone=_WIDE_RESNET if self._alexnet is None else self._alexnet.layers,
            layers=("layer2", "layer3") if self._alexnet is None else self._maps[1:],
            pre_trained=self._is_pretrained,
            coreset_sampling_ratio=settings.coreset_ratio,
            pre_processor=Patchcore.configure_pre_processor(image_size=side),
            visualizer=False,
            evaluator=False,
        )
        if not self.has_auroc:
            model.model.subsample_embedding = lambda ratio: fill_memory(model.model, ratio * photos / _SEEN)
        elif settings.coreset == "random":
            model.model.subsample_embedding = lambda ratio: keep_at_random(model.model, ratio)
        return model

    def _build_fastflow(self) -> Fastflow:
        """Builds FastFlow. anomalib has no AlexNet for it, so its own blocks are put onto our backbone's maps."""
        side = (self._settings.image_size, self._settings.image_size)
        model = Fastflow(
            backbone="resnet18" if self._alexnet is not None else _WIDE_RESNET,
            pre_trained=self._alexnet is None and self._is_pretrained,
            pre_processor=Fastflow.configure_pre_processor(image_size=side),
            visualizer=False,
            evaluator=False,
        )
        if self._alexnet is not None:
            maps = _Maps(self._alexnet.layers, self._maps).eval()
            with torch.no_grad():
                shapes = [list(one.shape[1:]) for one in maps(torch.zeros(1, 3, *side))]
            blocks = [create_fast_flow_block(shape, False, hidden_ratio=1.0, flow_steps=8) for shape in shapes]
            model.model.feature_extractor = maps
            model.model.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
            model.model.fast_flow_blocks = nn.ModuleList(blocks)
        return model


class _Maps(nn.Module):
    """Some maps of a sequence of layers, as the list that FastFlow expects."""

    def __init__(self, layers: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self._extractor = create_feature_extractor(layers, return_nodes={name: name for name in names})

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self._extractor(images).values())


def keep_at_random(model: Any, ratio: float) -> None:
    """Takes the place of PatchcoreModel.subsample_embedding: as many patches, but drawn evenly."""
    patches = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = patches[torch.randperm(len(patches))[: int(len(patches) * ratio)]]


def fill_memory(model: Any, ratio: float) -> None:
    """Does the same with noise, as many patches as all photos leave: the search looks at every one."""
    patches = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = torch.randn(int(len(patches) * ratio), patches.shape[1])


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
