"""Features of the views of a recipe, computed once and kept: the convolutions are frozen, and are most of the work.

The authors' code draws new angles in every epoch. Here an epoch draws from angles that were drawn once, see
`jobs.benchmarks.reproduction.recipe.Recipe.train_angles`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from jobs import storage
from jobs.archive.mvtec import FLAWLESS, select_split
from jobs.benchmarks.reproduction.recipe import Angles, Recipe
from jobs.decoding.photos import decode_images
from jobs.detectors.lineage import hash_json, hash_manifest
from model.config import FlowConfig, Precision
from model.detector import AttentDifferNet, build_detector
from model.inference.detector import CompiledDetector, build_scorer
from model.network.rotation import list_scoring_angles

_REPORT_SECONDS = 60


@dataclass(frozen=True)
class ViewFeatures:
    """Pooled features of a data set under one recipe.

    Attributes:
        train: (N, K, D) float32, unscaled, of K views of each flawless training photo.
        test: (M, T, D) of T views of each test photo.
        is_defective: (M,) bool.
    """

    train: Tensor
    test: Tensor
    is_defective: Tensor


class FeatureStore:
    """Computes the features of recipes, or reads what was kept.

    Attributes:
        folder: where they are kept, a file for each split and way of making views.
    """

    def __init__(
        self,
        rows: pa.Table,
        folder: Path,
        *,
        weights_uri: str,
        weights: Mapping[str, Tensor] | None,
        precision: Precision,
    ) -> None:
        """Takes LABELLED rows of one category, and the backbone's weights with the name they were asked for by."""
        self._rows, self.folder = rows, folder
        self._weights_uri, self._weights, self._precision = weights_uri, weights, precision

    def read_or_compute(self, recipe: Recipe) -> ViewFeatures:
        """Returns the features of a recipe."""
        test = select_split(self._rows, "test")
        labels = [label != FLAWLESS for label in test["label"].to_pylist()]
        return ViewFeatures(
            train=self._read_split(recipe, select_split(self._rows, "train"), recipe.training, recipe.train_angles),
            test=self._read_split(recipe, test, recipe.testing, recipe.test_angles)[:, : recipe.scored_views],
            is_defective=torch.tensor(labels),
        )

    def _read_split(self, recipe: Recipe, photos: pa.Table, kind: Angles, angles: int) -> Tensor:
        path = self.folder / f"{self._name_views(recipe, photos, kind, angles)}.safetensors"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            computed = self._compute(recipe, photos["image_uri"].to_pylist(), kind, angles)
            part = path.with_suffix(".part")
            safetensors.torch.save_file({"features": computed}, part)
            part.rename(path)
        return safetensors.torch.load_file(path)["features"]

    def _name_views(self, recipe: Recipe, photos: pa.Table, kind: Angles, angles: int) -> str:
        made_by = [recipe.image_size, recipe.light, kind, recipe.resize]
        asked = {"views": made_by, "weights": self._weights_uri, "precision": self._precision}
        return hash_json({**asked, "angles": angles, "photos": hash_manifest(photos)})

    def _compute(self, recipe: Recipe, uris: Sequence[str], kind: Angles, angles: int) -> Tensor:
        pool = self._build_pooling(recipe)
        found = []
        began_s = reported_s = time.monotonic()
        for number, uri in enumerate(uris):
            found.append(pool(draw_views(storage.read(uri), recipe, kind, angles=angles, seed=number)))
            if time.monotonic() - reported_s > _REPORT_SECONDS:
                reported_s = time.monotonic()
                print(f"features of {number + 1} of {len(uris)} photos, {reported_s - began_s:.0f} s", flush=True)
        return torch.stack(found)

    def _build_pooling(self, recipe: Recipe) -> Callable[[Tensor], Tensor]:
        """Builds what pools views, uint8 (T, 3, S, S), in the arithmetic asked for, as scoring does: (T, D)."""
        detector = self._build_extractor(recipe)
        scorer = build_scorer(detector)

        @torch.inference_mode()
        def pool(views: Tensor) -> Tensor:
            if isinstance(scorer, CompiledDetector):
                return scorer.backbone.pool(views, (0.0,)).clone()
            return detector.pool_features(views).cpu()

        return pool

    def _build_extractor(self, recipe: Recipe) -> AttentDifferNet:
        config = recipe.make_detector_config(weights=self._weights_uri, seed=0, precision=self._precision)
        unused = FlowConfig(blocks=1, hidden_width=1, hidden_layers=1)
        plain = config.model_copy(update={"flow": unused, "feature_scaling": "none"})
        return build_detector(plain, self._weights).to("cuda" if torch.cuda.is_available() else "cpu")


def draw_views(data: bytes, recipe: Recipe, kind: Angles, *, angles: int, seed: int) -> Tensor:
    """Draws the views of one photo, uint8 (angles, 3, S, S), as the authors' transforms do before normalization.

    Args:
        data: bytes of the photo.
        recipe: size, resize and light.
        kind: random or even angles.
        angles: how many views.
        seed: of the angles and the light.
    """
    side = recipe.image_size
    if recipe.resize == "product":
        photo = functional.to_pil_image(decode_images([data], size=side)[0])
    else:
        opened = Image.open(io.BytesIO(data))
        photo = functional.resize(opened if opened.mode == "L" else opened.convert("RGB"), [side, side])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        degrees = list_scoring_angles(angles) if kind == "even" else (torch.rand(angles) * 360).tolist()
        vary = transforms.ColorJitter(brightness=recipe.light, contrast=recipe.light)
        views = [vary(functional.rotate(photo, angle)) for angle in degrees]
    return torch.stack([functional.pil_to_tensor(view.convert("RGB")) for view in views])
