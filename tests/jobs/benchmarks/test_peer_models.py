"""anomalib's detectors on our backbone: the same maps, raw scores; skipped where anomalib is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from jobs import benchmark
from jobs.benchmarks.peers.config import AnomalibSettings
from jobs.benchmarks.peers.measurement import LabelledFolder
from jobs.errors import RequestError
from model.network.seeding import seed_cpu_generator
from model.presets import get_random_preset

pytest.importorskip("anomalib", reason="anomalib is not installed: make bench-peers")

from anomalib.models.components import KCenterGreedy

from jobs.benchmarks.peers.models import PeerBackbone, ProductsCoreset, build_model, share_backbone
from jobs.benchmarks.peers.theirs import AnomalibPeer

SIDE = 64
STAGES = ("layer1", "layer2", "layer3")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """torchvision's ResNet-18 whose batch norms are not neutral."""
    with seed_cpu_generator(3):
        built = resnet18(weights=None)
        for module in built.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 2)
    return built.eval()


@pytest.fixture(scope="module")
def backbone(network: torch.nn.Module) -> PeerBackbone:
    shared = share_backbone(get_random_preset("gaussian_resnet18", precision="fp32"), network.state_dict())
    return PeerBackbone(shared.name, "tested", shared.ours)


@pytest.fixture
def photos(drawn: Path) -> LabelledFolder:
    train = drawn / "data" / "insulator" / "train" / "good"
    return LabelledFolder("drawn", train, train, np.zeros(0, bool))


@pytest.mark.parametrize(
    ("kind", "extractor", "stages"),
    [
        ("patchcore", "feature_extractor", STAGES[1:]),
        ("padim", "feature_extractor", STAGES),
        ("fastflow", "feature_extractor", STAGES),
        ("cflow", "encoder", STAGES[1:]),
    ],
)
def test_a_peer_sees_the_maps_of_our_network(
    network: torch.nn.Module, backbone: PeerBackbone, kind: str, extractor: str, stages: tuple[str, ...]
) -> None:
    images = torch.rand(2, 3, SIDE, SIDE)
    model = build_model(kind, AnomalibSettings(image_size=SIDE), backbone).model.eval()
    found = getattr(model, extractor)(images)
    with torch.no_grad():
        expected = create_feature_extractor(network, list(STAGES))(images)
    found = dict(zip(STAGES, found, strict=True)) if isinstance(found, list) else found
    for stage in stages:
        torch.testing.assert_close(found[stage], expected[stage], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["patchcore_resnet18", "padim_resnet18", "fastflow_resnet18", "cflow_resnet18"])
def test_scores_are_what_the_model_gives_and_not_clamped(
    backbone: PeerBackbone, photos: LabelledFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = AnomalibSettings(image_size=SIDE, coreset_ratio=0.05, fastflow_epochs=1, cflow_epochs=1)
    peer = AnomalibPeer(name, settings, backbone, batch_photos=4, scratch=tmp_path)  # type: ignore[arg-type]
    built = []
    build = peer.build
    monkeypatch.setattr(peer, "build", lambda **given: built.append(build(**given)) or built[0])
    scores = peer.fit(photos, seed=0)(photos.test)
    (model,) = built
    raw = [
        model.model.eval()(model.pre_processor.transform(batch.image)).pred_score.flatten()
        for batch in peer._load_photos(photos.test)
    ]
    np.testing.assert_allclose(scores, torch.cat(raw).detach().numpy(), rtol=1e-5)
    assert len(np.unique(scores)) == len(scores)
    assert model.post_processor is None


def test_the_coreset_from_products_is_anomalibs(tmp_path: Path) -> None:
    patches = torch.rand(1000, 384)
    chosen = []
    for sampler in (KCenterGreedy, ProductsCoreset):
        torch.manual_seed(1)
        np.random.seed(1)  # scikit-learn's random projection draws from it
        chosen.append(sampler(patches, 0.1).select_coreset_idxs())
    assert chosen[0] == chosen[1]


def test_a_peer_of_another_backbone_is_refused_by_name(drawn: Path, tmp_path: Path) -> None:
    flags = [f"--data={drawn / 'data'}", "--variants=differnet", f"--output={tmp_path / 'peers.json'}"]
    with pytest.raises(RequestError, match=r"--peers padim_resnet18 needs settings of its backbone.* alexnet_caffe"):
        benchmark.main(["peers", *flags, "--peers=padim_resnet18"])
