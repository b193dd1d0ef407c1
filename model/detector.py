"""AttentDifferNet (arXiv 2401.08686): a frozen backbone with attention, and a flow whose latents are scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from model.config import DetectorConfig
from model.localization.gaussians import PositionGaussians
from model.network.alexnet import ALEXNETS
from model.network.backbone import Backbone
from model.network.flow import VECTORS_PER_PASS, Flow, compute_mean_squared_latents, compute_nll
from model.network.libraries import IMAGENET_MEAN, IMAGENET_STD, read_normalization
from model.network.precision import use_precision
from model.network.rotation import list_scoring_angles, rotate_views
from model.network.scaling import Scaling, fit_scaling
from model.pictures.rules import WHOLE, Tiles
from model.tiling import combine_scores, cut_tiles, place_maps


class AttentDifferNet(nn.Module):
    """Backbone and flow of one detector; an anomaly score is the mean squared latent over views and dimensions.

    Attributes:
        config: what it was built from.
        backbone: frozen convolutions and trainable attention.
        flow: normalizing flow over scaled features.
        feature_dim: D, length of a feature vector.
        feature_mean: (D,) subtracted from pooled features, 0 until fitted.
        feature_std: (D,) that divides them then, 1 until fitted.
        feature_rotation: (D, D) that decorrelates them at last, the unit matrix until fitted; only with
            ``feature_scaling="whiten"``.
        positions: tell where a photo deviates; None until `add_positions`, and in detectors of before.
    """

    image_mean: Tensor
    image_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    feature_rotation: Tensor
    positions: PositionGaussians | None

    def __init__(self, config: DetectorConfig) -> None:
        """Builds the detector with random weights from ``config.seed``; it never downloads.

        `model.network.weights` does.
        """
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.feature_dim = self.backbone.feature_dim
        self.flow = Flow(self.feature_dim, config.flow, seed=config.seed, precision=config.precision)
        # An artifact keeps what the library said of a network on the day that the detector was trained.
        is_known = config.backbone in ALEXNETS
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if is_known else read_normalization(config.backbone)
        self.register_buffer("image_mean", torch.tensor(mean).view(3, 1, 1), persistent=not is_known)
        self.register_buffer("image_std", torch.tensor(std).view(3, 1, 1), persistent=not is_known)
        self.register_buffer("feature_mean", torch.zeros(self.feature_dim))
        self.register_buffer("feature_std", torch.ones(self.feature_dim))
        if config.feature_scaling == "whiten":
            # torch.eye imports torch's compiler on the meta device, where artifacts are read: 1.5 s of CPU.
            self.register_buffer("feature_rotation", torch.zeros(self.feature_dim, self.feature_dim).fill_diagonal_(1))
        self.positions = None

    def add_positions(self, *, stages: int | None = None) -> None:
        """Makes room for Gaussians of positions, see `model.localization`; none where maps have a single position.

        Args:
            stages: the last of the mapped ones, of artifacts of before; None: all.
        """
        shapes = self.backbone.trace_map_shapes()
        shapes = shapes if stages is None else shapes[-stages:]
        if any(height * width > 1 for _, height, width in shapes):
            self.positions = (
                PositionGaussians(shapes, precision=self.config.precision).to(self.image_mean.device).eval()
            )

    def pool_features(self, images: Tensor, *, attended: bool = True) -> Tensor:
        """Maps images or tiles, uint8 (N, 3, S, S) RGB, to pooled features before scaling, float32 (N, D).

        Args:
            images: on any device; they are moved to the detector's.
            attended: False leaves all attention out: plain DifferNet's features.

        Raises:
            ValueError: images of another type or shape.
        """
        return self.pool_with_maps(images, attended=attended)[0]

    def pool_with_maps(self, images: Tensor, *, attended: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Maps images to pooled features as `pool_features` does, and to the maps (N, C, h, w) of each mapped stage."""
        check_images(images, side_px=self.config.image_size)
        device = self.image_mean.device
        pixels = images.to(device, torch.float32, memory_format=torch.channels_last)
        normalized = (pixels / 255).sub_(self.image_mean).div_(self.image_std)
        with use_precision(self.config.precision, device):
            return self.backbone.pool_with_maps(normalized, attended=attended)

    def features(self, images: Tensor) -> Tensor:
        """Maps images, uint8 (N, 3, S, S) RGB, to the flow's input, float32 (N, D)."""
        return self.scale_features(self.pool_features(images))

    def scale_features(self, pooled: Tensor) -> Tensor:
        """Scales pooled features (N, D) as fitted; the identity until then."""
        return self.feature_scaling().apply(pooled)

    def feature_scaling(self) -> Scaling:
        """Returns the fitted scaling, whose tensors are the detector's own."""
        rotation = self.feature_rotation if self.config.feature_scaling == "whiten" else None
        return Scaling(self.feature_mean, self.feature_std, rotation)

    def fit_feature_scaling(self, pooled: Tensor) -> None:
        """Fits ``config.feature_scaling`` to pooled features (N, D) of flawless training views.

        See `model.network.scaling.fit_scaling`; ``none`` changes nothing.

        Raises:
            ValueError: fewer than 2 vectors, another length, values not finite, or features that never vary.
        """
        if self.config.feature_scaling == "none":
            return
        if pooled.ndim != 2 or pooled.shape[0] < 2 or pooled.shape[1] != self.feature_dim:
            raise ValueError(f"feature scaling needs (N >= 2, {self.feature_dim}) features, got {tuple(pooled.shape)}")
        scaling = fit_scaling(self.config.feature_scaling, pooled)
        self.feature_mean.copy_(scaling.mean)
        self.feature_std.copy_(scaling.std)
        if scaling.rotation is not None:
            self.feature_rotation.copy_(scaling.rotation)

    def loss(self, features: Tensor) -> Tensor:
        """Returns the flow's negative log-likelihood of scaled features (N, D), a scalar in nats per dimension."""
        return compute_nll(*self.flow(features))

    def score(self, images: Tensor) -> Tensor:
        """Scores photos, uint8 (B, 3, H, W) RGB, in float32; higher is more anomalous.

        H = W = ``config.image_size``, but for photos that are cut into tiles, see `Tiles.measure_photo`.

        `model.inference.detector.build_scorer` gives what scores in either precision, and faster in bf16.

        Args:
            images: on any device; they are moved to the detector's.

        Returns:
            float64 (B,), the mean of z^2 over views and dimensions; without the Jacobian, as in DifferNet. With tiles
            their highest, or as ``config.tile_score`` says.

        Raises:
            ValueError: a bf16 detector, or images of another type or shape.
        """
        if self.config.precision != "fp32":
            raise ValueError(
                f"score computes in fp32, this detector is {self.config.precision}: take "
                "model.inference.detector.build_scorer(detector).score(images): p-values hold for one arithmetic alone"
            )
        return self.score_as_trained(images)

    def score_as_trained(self, images: Tensor, *, conv_batch: int = 16, flow_batch: int = VECTORS_PER_PASS) -> Tensor:
        """Scores images as `score` does, in the detector's precision and the order of operations that training has.

        The backbone sees chunks of exactly ``conv_batch`` views, the last one padded, so that neither a score nor the
        choice of a convolution algorithm depends on the size of the batch. Features are buffered: the flow is memory
        bound below some 256 vectors.

        Args:
            images: uint8 (B, 3, H, W) RGB, on any device; they are moved to the detector's.
            conv_batch: views per pass of the backbone.
            flow_batch: largest number of vectors per pass of the flow.

        Returns:
            float64 (B,).

        Raises:
            ValueError: images of another type or shape, or a batch size below 1.
        """
        return self._inspect(images, None, conv_batch=conv_batch, flow_batch=flow_batch)[0]

    def inspect_as_trained(
        self, images: Tensor, *, conv_batch: int = 16, flow_batch: int = VECTORS_PER_PASS
    ) -> tuple[Tensor, Tensor | None]:
        """Scores images as `score_as_trained` does, and maps where they deviate.

        Returns:
            scores float64 (B,); deviations float32 (B, h, w) as `PositionGaussians.forward` gives them, of the
            unrotated views, or None for a detector without ``positions``. With tiles, see `model.tiling.place_maps`.
        """
        return self._inspect(images, self.positions, conv_batch=conv_batch, flow_batch=flow_batch)

    def _inspect(
        self, images: Tensor, positions: PositionGaussians | None, *, conv_batch: int, flow_batch: int
    ) -> tuple[Tensor, Tensor | None]:
        """Scores images, and maps where they deviate if ``positions`` are given."""
        tiles, side = self.config.tile_grid, self.config.image_size
        check_images(images, side_px=side, tiles=tiles)
        if min(conv_batch, flow_batch) < 1:
            raise ValueError(f"conv_batch and flow_batch must be >= 1, got {conv_batch} and {flow_batch}")
        if len(images) == 0:
            return torch.empty(0, dtype=torch.float64, device=self.image_mean.device), None
        cut = cut_tiles(images.to(self.image_mean.device), tiles, side=side)
        scores, deviations = self._inspect_tiles(cut, positions, conv_batch=conv_batch, flow_batch=flow_batch)
        combined = combine_scores(scores, count=tiles.total, top=self.config.top_tiles)
        return combined, None if deviations is None else place_maps(deviations, scores, tiles)

    def score_tiles(self, tiles: Tensor, *, conv_batch: int = 16, flow_batch: int = VECTORS_PER_PASS) -> Tensor:
        """Scores tiles (N, 3, S, S), N >= 1, each by itself, as `score_as_trained` does; float64 (N,)."""
        return self._inspect_tiles(tiles, None, conv_batch=conv_batch, flow_batch=flow_batch)[0]

    def _inspect_tiles(
        self, tiles: Tensor, positions: PositionGaussians | None, *, conv_batch: int, flow_batch: int
    ) -> tuple[Tensor, Tensor | None]:
        """Scores tiles (N, 3, S, S), N >= 1, and maps where they deviate if ``positions`` are given."""
        with torch.inference_mode(), use_evaluation_mode(self):
            chunks = self._make_view_chunks(tiles, conv_batch)
            found = [
                self._pool_padded(chunk, conv_batch, positions, before=k * conv_batch) for k, chunk in enumerate(chunks)
            ]
            pooled = torch.cat([one for one, _ in found]).view(len(tiles), -1, self.feature_dim)
            deviations = [one for _, one in found if one is not None]
            return self._score_views(pooled, flow_batch=flow_batch), torch.cat(deviations) if deviations else None

    def score_pooled(self, pooled: Tensor, *, flow_batch: int = VECTORS_PER_PASS) -> Tensor:
        """Scores photos by pooled features (B, T, D) of T views each, unscaled; float64 (B,), see `score`.

        For whoever scores the same photos with several flows on one extractor. With tiles T counts the views of all of
        a photo's tiles, tile by tile.
        """
        count = self.config.tile_grid.total
        scores = self._score_views(pooled.reshape(-1, pooled.shape[1] // count, pooled.shape[2]), flow_batch=flow_batch)
        return combine_scores(scores, count=count, top=self.config.top_tiles)

    def _score_views(self, pooled: Tensor, *, flow_batch: int) -> Tensor:
        """Scores photos, or tiles, by pooled features (B, T, D) of T views each; float64 (B,)."""
        with torch.inference_mode(), use_evaluation_mode(self):
            scaled = self.scale_features(pooled.flatten(0, 1))
            squared = compute_mean_squared_latents(self.flow.latents, scaled, vectors_per_pass=flow_batch)
            return squared.view(len(pooled), -1).mean(1)

    def _make_view_chunks(self, images: Tensor, conv_batch: int) -> Iterator[Tensor]:
        """All views, image by image, in chunks of ``conv_batch``, the last one maybe smaller; few exist at a time."""
        angles = list_scoring_angles(self.config.views)
        pending = images.new_empty((0, *images.shape[1:]))
        for group in torch.split(images, max(1, conv_batch // len(angles))):
            pending = torch.cat([pending, rotate_views(group, angles, padding=self.config.rotation_padding)])
            whole = len(pending) // conv_batch * conv_batch
            yield from torch.split(pending[:whole], conv_batch) if whole else ()
            pending = pending[whole:]
        if len(pending):
            yield pending

    def _pool_padded(
        self, views: Tensor, conv_batch: int, positions: PositionGaussians | None, *, before: int
    ) -> tuple[Tensor, Tensor | None]:
        """Pools a chunk of views, of which ``before`` came earlier, and maps the unrotated ones by ``positions``."""
        padding = views.new_zeros((conv_batch - len(views), *views.shape[1:]))
        padded = torch.cat([views, padding]) if len(padding) else views
        pooled, maps = self.pool_with_maps(padded)
        upright = slice(-before % self.config.views, len(views), self.config.views)  # a photo's first view is unrotated
        deviations = None if positions is None else positions.map_last([one[upright] for one in maps])
        return pooled[: len(views)], deviations


def build_detector(config: DetectorConfig, weights: Mapping[str, Tensor] | nn.Module | None) -> AttentDifferNet:
    """Builds an untrained detector on the CPU, in evaluation mode.

    Args:
        config: what to build.
        weights: the backbone's, by name, or a module of the same network; None keeps the random ones of
            ``config.seed``.

    Raises:
        ValueError: the weights do not fit the backbone.
    """
    detector = AttentDifferNet(config).eval()
    if weights is not None:
        detector.backbone.load_features(weights)
    return detector


def check_images(images: Tensor, *, side_px: int, tiles: Tiles = WHOLE) -> None:
    """Raises ValueError unless ``images`` are uint8 (N, 3, H, W) photos whose tiles have the side."""
    height, width = tiles.measure_photo(side_px)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, height, width):
        raise ValueError(
            f"needed uint8 images of shape (N, 3, {height}, {width}), got {images.dtype} {tuple(images.shape)}"
        )


@contextmanager
def use_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Sets evaluation mode inside the block; each submodule gets its own mode back, as they may differ."""
    were_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in were_training:
            part.training = True
