"""Photos as tiles: cut before the network, one score and one map per photo after it. Without tiles nothing changes."""

from __future__ import annotations

import torch
from torch import Tensor

from model.pictures.rules import Tiles


def cut_tiles(images: Tensor, tiles: Tiles, *, side: int) -> Tensor:
    """Cuts photos (B, 3, H, W) into tiles (B * T, 3, side, side), photo by photo and row by row.

    Args:
        images: of the size that `Tiles.measure_photo` gives.
        tiles: T of them.
        side: of a tile, in pixels.
    """
    if tiles.total == 1:
        return images
    cut = [images[:, :, top : top + side, left : left + side] for top, left in tiles.list_corners(side)]
    return torch.stack(cut, dim=1).flatten(0, 1)


def combine_scores(scores: Tensor, *, count: int, top: int) -> Tensor:
    """Returns the mean of each photo's ``top`` highest scores, (B,), of its ``count`` tiles' scores, (B * count,)."""
    if count == 1:
        return scores
    return scores.view(-1, count).topk(top, dim=1).values.mean(1)


def select_highest(values: Tensor, scores: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """Selects what belongs to each photo's highest tile.

    Args:
        values: (B * count, ...) of tiles, photo by photo.
        scores: (B * count,) of the tiles.
        count: tiles of a photo.

    Returns:
        (B, ...) the values, and (B,) the numbers of the tiles, int64.
    """
    highest = scores.view(-1, count).argmax(1)
    return values[torch.arange(len(highest), device=highest.device) * count + highest], highest


def lay_maps(chosen: Tensor, highest: Tensor, tiles: Tiles) -> Tensor:
    """Lays the map of a tile of each photo at its place in the photo.

    Around it the map has the tile's own median: to `model.localization.places` nothing deviates there, so peak, region
    and share are those of the tile.

    Args:
        chosen: (B, h, w) maps.
        highest: (B,) number of each photo's tile.
        tiles: of a photo.

    Returns:
        (B, H, W), to the nearest position of the map's grid.
    """
    if tiles.total == 1:
        return chosen
    height, width = chosen.shape[1:]
    lines = [round(row * height * (1 - tiles.overlap)) for row in range(tiles.rows)]
    columns = [round(column * width * (1 - tiles.overlap)) for column in range(tiles.columns)]
    background = chosen.flatten(1).quantile(0.5, dim=1)
    placed = background.view(-1, 1, 1).repeat(1, lines[-1] + height, columns[-1] + width)
    for tile in range(tiles.total):  # no value is looked at, for a GPU may not be that far yet
        top, left = lines[tile // tiles.columns], columns[tile % tiles.columns]
        window = placed[:, top : top + height, left : left + width]
        window.copy_(torch.where((highest == tile).view(-1, 1, 1), chosen, window))
    return placed


def place_maps(deviations: Tensor, scores: Tensor, tiles: Tiles) -> Tensor:
    """Returns the map (B, H, W) of each photo's highest tile at its place, of the tiles' maps (B * T, h, w)."""
    return lay_maps(*select_highest(deviations, scores, count=tiles.total), tiles)
