"""The space of attention placements: which kind of block, if any, stands after each stage of a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, product

from model.attention import attention_kinds
from model.config import BACKBONE_STAGES, PAPER_PRESETS, AttentionConfig, DetectorConfig, preset

Placement = dict[str, str]
"""Stage name -> attention kind, in the backbone's order; stages without attention are left out."""


def attention_space(
    base: DetectorConfig,
    *,
    kinds: Sequence[str] | None = None,
    stages: Sequence[str] | None = None,
    max_blocks: int | None = None,
    blocks: Mapping[str, AttentionConfig] | None = None,
) -> Iterator[DetectorConfig]:
    """Enumerates every way to put one of ``kinds``, or nothing, after each of ``stages``.

    The three models of AttentDifferNet (arXiv 2401.08686) come first as far as they lie in the space; the rest follows
    by number of blocks. With S stages, K kinds and at most M blocks there are sum(C(S, b) * K**b for b in 0..M) points,
    (K + 1)**S without a limit. Nothing but ``variant`` and ``attention`` differs from ``base``.

    Args:
        base: the detector to vary; its own attention is replaced.
        kinds: registered attention kinds; default: all.
        stages: stages of the backbone that attention may follow; default: all.
        max_blocks: most blocks in one detector; default: one per stage.
        blocks: settings of a kind's block; default: those of `AttentionConfig`.

    Raises:
        ValueError: an unknown kind or stage, one given twice, or a negative limit.
    """
    kinds = _chosen(kinds, known=attention_kinds(), noun="attention kind")
    stages = _chosen(stages, known=BACKBONE_STAGES[base.backbone], noun=f"{base.backbone} stage")
    most = len(stages) if max_blocks is None else max_blocks
    if most < 0:
        raise ValueError(f"max_blocks must be at least 0, got {most}")
    settings = {kind: (blocks or {}).get(kind, AttentionConfig(kind=kind)) for kind in kinds}
    mislabelled = [kind for kind, block in settings.items() if block.kind != kind]
    if mislabelled:
        raise ValueError(f"blocks must hold settings of each kind under its own name, got another for {mislabelled}")
    placements = _placements(kinds, stages=stages, max_blocks=most)
    return (_variant(base, {stage: settings[kind] for stage, kind in placement.items()}) for placement in placements)


def variant_name(attention: Mapping[str, AttentionConfig]) -> str:
    """Names a placement, such as ``se@pool1+cbam-r8@conv5``; without attention ``plain``.

    Settings appear where they differ from the defaults of `AttentionConfig`: r is the reduction, k the spatial kernel.
    """
    return "+".join(f"{_block_name(block)}@{stage}" for stage, block in attention.items()) or "plain"


def _block_name(block: AttentionConfig) -> str:
    usual = AttentionConfig(kind=block.kind)
    reduction = f"-r{block.reduction}" if block.reduction != usual.reduction else ""
    gate = f"-{block.gate}" if block.gate != usual.gate else ""
    kernel = f"-k{block.spatial_kernel}" if block.spatial_kernel != usual.spatial_kernel else ""
    return f"{block.kind}{reduction}{gate}{kernel}"


def _chosen(names: Sequence[str] | None, *, known: Sequence[str], noun: str) -> list[str]:
    """Returns ``names``, or all known ones, in the order of ``known``, so that names of variants are stable."""
    if names is None:
        return list(known)
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        raise ValueError(f"expected each {noun} once and of {', '.join(known)}, got {', '.join(names)}")
    return [name for name in known if name in names]


def _placements(kinds: Sequence[str], *, stages: Sequence[str], max_blocks: int) -> Iterator[Placement]:
    """The paper's placements that lie in the space, then all others by number of blocks."""
    paper = [{stage: block.kind for stage, block in preset(name).attention.items()} for name in PAPER_PRESETS]
    first = [
        placement
        for placement in paper
        if set(placement) <= set(stages) and set(placement.values()) <= set(kinds) and len(placement) <= max_blocks
    ]
    every = (
        dict(zip(places, choice, strict=True))
        for count in range(min(max_blocks, len(stages)) + 1)
        for places in combinations(stages, count)
        for choice in product(kinds, repeat=count)
    )
    return chain(first, (placement for placement in every if placement not in first))


def _variant(base: DetectorConfig, attention: Mapping[str, AttentionConfig]) -> DetectorConfig:
    fields = base.model_dump() | {"variant": variant_name(attention), "attention": dict(attention)}
    return DetectorConfig.model_validate(fields)
