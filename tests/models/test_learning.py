"""Every network learns: by its own recipe it fits four images, in training and in testing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam_spl.data.normalise import normalise_of
from sam_spl.data.synthetic import SyntheticSource
from sam_spl.engine.losses import build_loss
from sam_spl.engine.optim import build_optimizer, learning_rate, set_learning_rate
from sam_spl.models.registry import build
from tests.conftest import NETWORKS, TINY_OVERRIDES, config_of

STEPS_OF_AN_EPOCH = 8  # so that warm-ups end


def _iou(model: torch.nn.Module, image: torch.Tensor, mask: torch.Tensor) -> float:
    """Of the answers as they are tested."""
    with torch.no_grad():
        pred = model.eval()(image)[0] > 0
    return ((pred & mask).sum() / (pred | mask).sum()).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_fits_four_images(name):
    tiny = TINY_OVERRIDES if name == "sam_spl_t" else []
    config = config_of("train", [f"model={name}", "dataset.image_size=64", *tiny])
    source = SyntheticSource(4, 64, areas=(16.0, 64.0), scr=(8.0, 12.0), empty=0.0)
    images, masks = zip(*(source.load(index) for index in range(4)), strict=True)
    mask = torch.from_numpy(np.stack(masks))[:, None]
    torch.manual_seed(0)
    model, loss = build(config.model), build_loss(config.loss)
    image = normalise_of(config.dataset, model.in_channels).batch(torch.from_numpy(np.stack(images)))
    optimizer = build_optimizer(model, config.optimizer)
    losses, iou = [], 0.0
    for step in range(400):
        epoch = step // STEPS_OF_AN_EPOCH
        for part in (model, loss):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        set_learning_rate(optimizer, learning_rate(epoch, config.trainer.epochs, config.optimizer))
        value = loss(model.train()(image), mask.float())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        if step % 20 == 19:
            iou = _iou(model, image, mask)
            if iou > 0.6 and losses[-1] < 0.7 * max(losses):  # MSHNet's grows as its warm-up ends
                break
    else:
        pytest.fail(f"IoU {iou:.3f}, loss {losses[0]:.4f}, then {losses[-1]:.4f}, after {len(losses)} steps")
