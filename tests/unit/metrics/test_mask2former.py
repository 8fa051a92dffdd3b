"""The detector: postprocessing by hand, and a tiny random checkpoint through the real path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from specbench.errors import ModelError
from specbench.metrics import weights
from specbench.metrics.mask2former import COCO, Mask2Former, box_of, candidates


def checkpoint(folder: Path, labels: int = 80) -> Path:
    """Write a random Mask2Former of the published layout, small in every direction."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=6,
        num_labels=labels,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "Mask2FormerImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 96},
        "size_divisor": 32,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_checkpoint_on_disk_detects(tmp_path: Path) -> None:
    detector = Mask2Former(str(checkpoint(tmp_path)))
    detector.prepare("geneval")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    found = detector.detect(pixels)
    assert 0 < len(found) <= 100
    for one in found:
        assert one.label in COCO and 0 < one.score < 1
        assert one.mask is not None and one.mask.shape == (50, 70)
        left, upper, right, lower = one.box
        assert 0 <= left < right <= 70 and 0 <= upper < lower <= 50
        inside = one.mask[int(upper) : int(lower), int(left) : int(right)]
        assert inside.sum() == one.mask.sum()


def test_a_detector_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="80 classes"):
        Mask2Former(str(checkpoint(tmp_path, labels=3))).prepare("geneval")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load its detector") as caught:
        Mask2Former(str(tmp_path)).prepare("geneval")
    assert "metric.geneval.detector_weights" in caught.value.fix


def test_weights_that_cannot_be_fetched_are_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(repository: str, revision: str | None, file: str) -> None:
        raise ModelError("no", "ConnectError: no network, or offline mode is set")

    monkeypatch.setattr(weights, "ask_hub", refuse)
    with pytest.raises(ModelError) as caught:
        Mask2Former().prepare("geneval")
    assert "model.safetensors" in caught.value.what
    assert "facebook/mask2former-swin-small-coco-instance" in caught.value.what
    assert "metric.geneval.detector_weights=PATH" in caught.value.fix


def test_candidates_by_hand() -> None:
    # Two queries over two classes and "nothing": the best pairs are (0, class 1), (1, class 0).
    classes = torch.tensor([[0.0, 3.0, 0.0], [2.0, -9.0, 0.0]])
    masks = torch.full((2, 4, 4), -4.0)
    masks[0, :2, :] = 2.0
    masks[1, 1, 1:3] = 6.0
    best = candidates(classes, masks, (4, 4))
    assert best.labels.tolist()[:2] == [1, 0]
    probabilities = classes.softmax(-1)
    expected = [
        (probabilities[0, 1] * torch.tensor(2.0).sigmoid()).item(),
        (probabilities[1, 0] * torch.tensor(6.0).sigmoid()).item(),
    ]
    assert best.scores[:2].tolist() == pytest.approx(expected, abs=1e-5)
    assert best.masks[0].sum() == 8 and best.masks[1].nonzero().tolist() == [[1, 1], [1, 2]]
    assert len(best.scores) == 4


def test_masks_come_at_the_size_of_the_picture() -> None:
    masks = torch.full((1, 4, 8), -5.0)
    masks[0, :, :4] = 5.0
    best = candidates(torch.tensor([[4.0, 0.0]]), masks, (16, 32))
    mask = best.masks[0].numpy()
    assert mask.shape == (16, 32)
    assert box_of(mask) == (0.0, 0.0, 16.0, 16.0)


def test_boxes_end_one_past_the_mask() -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[2, 3] = mask[4, 7] = True
    assert box_of(mask) == (3.0, 2.0, 8.0, 5.0)


def test_the_classes_are_the_official_ones() -> None:
    assert len(COCO) == len(set(COCO)) == 80
    assert COCO[0] == "person" and COCO[-1] == "toothbrush"
    assert COCO[64:67] == ("computer mouse", "tv remote", "computer keyboard")
