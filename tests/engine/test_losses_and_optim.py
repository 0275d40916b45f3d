from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import nn

from sam_spl.engine.config import LossConfig, OptimizerConfig
from sam_spl.engine.losses import (
    SLS,
    SegmentationLoss,
    build_loss,
    location_loss,
    mask_of_size,
    soft_iou_loss,
)
from sam_spl.engine.optim import Average, build_optimizer, learning_rate, set_learning_rate
from sam_spl.errors import ConfigError
from tests.conftest import GOLDEN, fill


def test_cross_entropy_is_the_mean_over_pixels_summed_over_maps():
    logits = [torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[-1.0, 1.0]]]])]
    mask = torch.tensor([[[[0.0, 1.0]]]])

    def bce(x, y):
        p = 1 / (1 + math.exp(-x))
        return -math.log(p if y else 1 - p)

    expected = (bce(0, 0) + bce(2, 1)) / 2 + (bce(-1, 0) + bce(1, 1)) / 2
    assert SegmentationLoss(bce=1)(logits, mask).item() == pytest.approx(expected, rel=1e-6)
    assert SegmentationLoss(bce=3)(logits, mask).item() == pytest.approx(3 * expected, rel=1e-6)


def test_soft_iou_over_images_and_over_the_batch():
    prob = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).view(2, 1, 1, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    first, second = 1 - 1.5 / 2.5, 1 - 1 / 2  # (intersection + 1) / (union + 1)
    assert soft_iou_loss(prob, mask, over="image").item() == pytest.approx((first + second) / 2)
    assert soft_iou_loss(prob, mask, over="batch").item() == pytest.approx(1 - 1.5 / 3.5)


def test_losses_are_computed_in_float32_under_autocast():
    logits = torch.full((1, 1, 64, 64), -9.0, dtype=torch.bfloat16)
    loss = SegmentationLoss(bce=1, iou=1)([logits], torch.zeros(1, 1, 64, 64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        math.log1p(math.exp(-9)) + 1 - 1 / (4096 / (1 + math.exp(9)) + 1), rel=1e-4
    )


def test_a_coarser_map_is_compared_with_a_mask_that_keeps_every_target():
    mask = torch.zeros(1, 1, 5, 6)
    mask[0, 0, 4, 3] = mask[0, 0, 1, 1] = 1  # the last row is alone in its pairs
    half = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert torch.equal(mask_of_size(mask, (3, 3))[0, 0], half)
    assert torch.equal(mask_of_size(mask, (2, 2))[0, 0], torch.tensor([[1.0, 0], [1, 0]]))
    assert mask_of_size(mask, (5, 6)) is mask
    fine, coarse = torch.randn(1, 1, 5, 6), torch.randn(1, 1, 3, 3)
    loss = SegmentationLoss(bce=1, iou=1)
    both = loss([fine], mask) + loss([coarse], half[None, None])
    torch.testing.assert_close(loss([fine, coarse], mask), both)


@pytest.mark.parametrize("case", ["dense", "low", "second_empty", "all_empty"])
@pytest.mark.parametrize("phase", ["warm", "full"])
def test_sls_of_one_map_equals_the_published_one(case, phase):
    golden = json.loads((GOLDEN / "mshnet_train.json").read_text())["sls"][case]
    logits = 4 * torch.from_numpy(fill.image("mshnet/loss", (2, 1, 24, 40))).double()
    logits = (logits - (0 if case == "dense" else 6)).requires_grad_()
    mask = torch.from_numpy(fill.mask("mshnet/loss", (2, 1, 24, 40))).double()
    mask[1 if case == "second_empty" else slice(0, 2 if case == "all_empty" else 0)] = 0
    loss = build_loss(LossConfig("sls", {"warm_epochs": 2}))
    loss.set_epoch({"warm": 1, "full": 2}[phase])
    value = loss([logits], mask)
    value.backward()
    assert value.item() == pytest.approx(golden[phase]["loss"], rel=1e-12)
    assert logits.grad.norm().item() == pytest.approx(golden[phase]["grad_norm"], rel=1e-9)
    assert location_loss(logits.sigmoid(), mask).mean().item() == pytest.approx(golden["location"], rel=1e-12)


def test_sls_is_the_mean_over_maps_of_any_network_and_past_its_warm_up_unless_told():
    torch.manual_seed(0)
    mask = (torch.rand(2, 1, 16, 16) > 0.8).float()
    maps = [torch.randn(2, 1, 16, 16), torch.randn(2, 1, 8, 8)]
    loss = SLS()
    single = [loss(maps[:1], mask), loss(maps[1:], F.max_pool2d(mask, 2))]
    torch.testing.assert_close(loss(maps, mask), sum(single) / 2)
    loss.set_epoch(5)
    iou = 1 - loss(maps[:1], mask)
    assert 0 < iou < 1
    assert not torch.isclose(1 - iou, single[0])
    loss.set_epoch(6)
    torch.testing.assert_close(loss(maps[:1], mask), single[0], rtol=0, atol=0)


@pytest.mark.parametrize("phase", [0, 6])
def test_sls_of_nothing_is_finite_and_so_is_its_gradient(phase):
    logits = torch.full((1, 1, 8, 8), -200.0, requires_grad=True)  # a probability of exactly 0
    loss = SLS()
    loss.set_epoch(phase)
    value = loss([logits], torch.zeros(1, 1, 8, 8))
    value.backward()
    assert value.item() == pytest.approx(1, abs=1e-3)  # length = s / (s + e) with s = 1e-4
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("warm_epochs", [-1, 2.5, "many"])
def test_a_warm_up_that_is_no_number_of_epochs_is_refused(warm_epochs):
    with pytest.raises(ConfigError, match=r"loss\.warm_epochs: .* give a number of epochs"):
        build_loss(LossConfig("sls", {"warm_epochs": warm_epochs}))


@pytest.mark.parametrize("size", [(2, 3), (6, 6), (10, 12), (0, 0)])
def test_a_map_of_another_size_is_refused(size):
    with pytest.raises(ConfigError, match=rf"\({size[0]}, {size[1]}\), for images \(5, 6\)"):
        mask_of_size(torch.zeros(1, 1, 5, 6), size)


@pytest.mark.parametrize(
    "weights",
    [{"bce": "abc"}, {"bce": None}, {"iou": math.nan}, {"bce": math.inf}, {"bce": -1.0}, {"bce": 0}],
)
def test_weights_that_no_loss_can_have_are_refused(weights):
    with pytest.raises(ConfigError, match=r"loss\.bce, loss\.iou: .* are not valid, give numbers >= 0"):
        build_loss(LossConfig(arguments=weights))


def test_cosine_per_epoch_equals_pytorchs():
    config = OptimizerConfig(lr=1e-2, eta_min=1e-6)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30, eta_min=1e-6)
    for epoch in range(30):
        assert learning_rate(epoch, 30, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_warmup_rises_linearly_and_joins_the_cosine():
    config = OptimizerConfig(lr=1.0, eta_min=0.0, warmup_epochs=2, per_step=True)
    rates = [learning_rate(epoch, 10, config) for epoch in (0.0, 1.0, 2.0, 6.0, 10.0)]
    assert rates == pytest.approx([0, 0.5, 1.0, 0.5, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("warmup", "rates"),
    [
        (1, [1 / 2, 1.0]),
        (2, [1 / 4, 3 / 4, 1.0]),
        (4, [1 / 8, 3 / 8, 5 / 8, 7 / 8, 1.0]),
        (0.25, [1.0]),  # over before the middle of the first epoch
        (1.25, [0.4, 1.0]),
        (0, [1.0]),
    ],
)
@pytest.mark.parametrize("schedule", ["cosine", "multistep"])
def test_a_warmup_per_epoch_has_the_mean_of_one_per_step_and_begins_above_zero(warmup, rates, schedule):
    config = OptimizerConfig(lr=1.0, warmup_epochs=warmup, schedule=schedule)
    got = [learning_rate(epoch, 1000, config) for epoch in range(len(rates))]
    assert got == pytest.approx(rates, abs=1e-5)  # the cosine has moved by 1e-6 after a fraction of an epoch
    for epoch, rate in enumerate(rates[: int(warmup)]):
        steps = [learning_rate(epoch + (k + 0.5) / 8, 1000, replace(config, per_step=True)) for k in range(8)]
        assert sum(steps) / 8 == pytest.approx(rate)


def test_schedules_without_a_warmup_and_warmups_per_step_are_as_they_were():
    config = OptimizerConfig(lr=3e-3, eta_min=1e-6, warmup_epochs=3.0, per_step=True)
    assert [learning_rate(x, 9, config) for x in (0.05, 1.7, 2.9)] == [
        3e-3 * x / 3.0 for x in (0.05, 1.7, 2.9)
    ]
    published = OptimizerConfig(lr=1e-2, eta_min=1e-6)
    for epoch in (0, 1, 77, 299):
        cosine = 1e-6 + (1e-2 - 1e-6) * (1 + math.cos(math.pi * (epoch / 300))) / 2
        assert learning_rate(epoch, 300, published) == cosine


class _Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"trunk": nn.Linear(1, 1)})
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.head = nn.Linear(1, 1)


def test_the_trunk_has_its_own_learning_rate_and_frozen_parts_none():
    model = _Two()
    optimizer = build_optimizer(model, OptimizerConfig(lr=1.0, trunk_lr_scale=0.1))
    set_learning_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.encoder["trunk"].weight)] == pytest.approx(0.05)
    assert rates[id(model.head.weight)] == pytest.approx(0.5)
    assert id(model.frozen.weight) not in rates


def test_the_first_adan_step_has_its_closed_form():
    # First step: m = g, v = 0 and n = g^2 after bias correction, then p / (1 + lr * decay).
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    model = nn.Module()
    model.p = parameter
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5))
    parameter.grad = torch.tensor([3.0], dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx((2.0 - 0.1 * 3.0 / (3.0 + 1e-8)) / (1 + 0.1 * 0.5), rel=1e-9)


@pytest.mark.parametrize(("name", "args"), [("no_such", {}), ("adamw", {"no_such": 1})])
def test_unknown_optimizers_and_arguments(name, args):
    with pytest.raises(ConfigError, match=f"optimizer: {name}"):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(name=name, args=args))


def test_the_average_follows_its_recursion_and_keeps_integer_buffers():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = Average(model, decay=0.5)
    expected = None
    for step in range(6):
        model[0].weight.data.fill_(float(step))
        model[1].num_batches_tracked.fill_(step)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
        assert average.module[0].weight.item() == pytest.approx(expected, rel=1e-6)
        assert average.module[1].num_batches_tracked.item() == step


def test_the_average_is_timms_and_shares_what_is_frozen():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    model[0].requires_grad_(False)
    model[2].register_buffer("cache", torch.full((1,), -math.inf), persistent=False)
    average = Average(model, decay=0.8)
    reference = ModelEmaV3(model, 0.8, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0)
    for step in range(60):
        model(torch.randn(8, 3))  # moves the statistics
        for parameter in model[1:].parameters():
            parameter.data.add_(torch.randn_like(parameter))
        model[1].running_var = model[1].running_var.clone()  # a new tensor in its place
        average.update(model)
        reference.update(model, step=step + 2 if step else 0)
        for name, value in reference.module.state_dict().items():
            assert torch.equal(average.module.state_dict()[name], value), (step, name)
    assert average.module[0].weight is model[0].weight
    assert average.module[2].weight is not model[2].weight
    assert not average.module.training
