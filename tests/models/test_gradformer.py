"""DATransNet's attention against its definition, with every difference map, key and value formed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sam_spl.models import gradformer
from sam_spl.models.gradformer import (
    GradFormer,
    convolve_each,
    correlate,
    correlate_at_once,
    correlate_by_lags,
    lag_sums,
    taps,
)

NEIGHBOURS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def difference_maps(x: Tensor, shift: int) -> Tensor:
    """(B, 8C, H, W): each neighbour at a distance minus the pixel, the border reflected."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    maps = []
    for dy, dx in NEIGHBOURS:
        rows, columns = shift + dy * shift, shift + dx * shift
        maps.append(padded[..., rows : rows + height, columns : columns + width] - x)
    return torch.cat(maps, dim=1)


def attend_as_published(part: GradFormer, x: Tensor) -> Tensor:
    """Section II-B as it stands: 1x1 convolutions of difference maps, heads read from the stacked memory."""

    def stacked(maps: list[Tensor]) -> Tensor:
        return torch.stack(maps, dim=2).reshape(len(x), len(maps), maps[0].shape[1], -1)

    maps = [difference_maps(x, shift) for shift in part.shifts]
    q = F.normalize(stacked([query(x) for query in part.queries]), dim=-1)
    k = F.normalize(stacked([key(one) for key, one in zip(part.keys, maps, strict=True)]), dim=-1)
    v = stacked([value(one) for value, one in zip(part.values, maps, strict=True)])
    score = F.instance_norm(q @ k.transpose(-1, -2) / part.scale).softmax(dim=-1)
    return part.out((score @ v).flatten(1, 2).unflatten(-1, x.shape[-2:]))


@pytest.mark.parametrize("shift", [1, 3])
def test_taps_do_what_the_weights_do_to_difference_maps(shift):
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    weight = torch.randn(5, 24, 1, 1, dtype=torch.float64)
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    expected = F.conv2d(difference_maps(x, shift), weight)
    torch.testing.assert_close(
        F.conv2d(padded, taps(weight), dilation=shift), expected, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("step", [1, 3])
def test_lag_sums_are_sums_of_shifted_products(step):
    x, further = (
        torch.randn(2, 3, 7, 8, dtype=torch.float64),
        torch.randn(2, 4, 7 + 2 * step, 8 + step, dtype=torch.float64),
    )
    found = lag_sums(x, further, (3, 2), step)
    assert found.shape == (2, 3, 4, 3, 2)
    for i in range(3):
        for j in range(2):
            window = further[..., step * i : step * i + 7, step * j : step * j + 8]
            expected = torch.einsum("bcyx,bdyx->bcd", x, window)
            torch.testing.assert_close(found[..., i, j], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shift", "size"), [(1, (5, 9)), (1, (2, 3)), (3, (17, 12)), (3, (4, 7))])
def test_lags_give_what_the_keys_give(shift, size):
    x = 3 + torch.randn(2, 4, *size, dtype=torch.float64)
    query = torch.randn(6, 4, dtype=torch.float64)
    weight = torch.randn(10, 32, 1, 1, dtype=torch.float64)
    padded = F.pad(x - x.mean((2, 3), keepdim=True), (shift,) * 4, mode="reflect")

    keys = F.conv2d(difference_maps(x, shift), weight).flatten(2)
    queries = F.conv2d(x, query[:, :, None, None]).flatten(2)
    for found in (correlate, correlate_by_lags, correlate_at_once):
        products, squares = found(x, padded, query, taps(weight), shift)
        torch.testing.assert_close(products, queries @ keys.mT, rtol=1e-11, atol=1e-10)
        torch.testing.assert_close(squares, keys.square().sum(-1), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("way", ["lags", "keys", "held"])
@pytest.mark.parametrize(
    ("channels", "attention", "shifts"), [(16, 16, (1, 3)), (8, 4, (1, 3)), (8, 8, (1,))]
)
def test_attention_and_its_gradients_equal_the_definition(channels, attention, shifts, way, monkeypatch):
    torch.manual_seed(0)
    part = GradFormer(channels, attention, shifts, scale=32.0).double()
    part.by_lags = way == "lags"
    monkeypatch.setattr(gradformer, "holds_keys", lambda x: way == "held")  # as on a GPU
    x = torch.randn(2, channels, 14, 18, dtype=torch.float64) + 1
    gradients = []
    for attend in (part, lambda x: attend_as_published(part, x)):
        leaf = x.clone().requires_grad_()
        out = attend(leaf)
        part.zero_grad()
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        gradients.append((out.detach(), leaf.grad, *[p.grad.clone() for p in part.parameters()]))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


def test_which_way_a_level_goes_follows_from_its_work():
    by_lags = [GradFormer(c, t, s, 1.0).by_lags for c, t, s in ((16, 16, (1, 3)), (64, 32, (1, 3)))]
    assert by_lags == [True, False]


@pytest.mark.parametrize("side", [128, 512])
@pytest.mark.parametrize("kind", ["smooth", "ramps", "noise", "far from zero"])
def test_single_precision_holds_where_neighbours_hardly_differ(kind, side):
    """Lags of the features themselves would nearly cancel in the lengths of the keys."""
    torch.manual_seed(0)
    part = GradFormer(16, 16, (1, 3), scale=256.0).eval()
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    waves = torch.stack([torch.sin((1 + c % 3) * x + (c / 7) * y + c) for c in range(16)])
    mixed = torch.randn(16, 16, generator=torch.manual_seed(1)) / 4
    slopes = torch.randn(3, 16, 1, 1, generator=torch.manual_seed(2))
    image = {
        "smooth": torch.einsum("cd,dyx->cyx", mixed, waves),
        "ramps": slopes[0] * x + slopes[1] * y + slopes[2],
        "noise": torch.randn(16, side, side, generator=torch.manual_seed(3)),
        "far from zero": 1000 + waves,
    }[kind][None]
    with torch.no_grad():
        single = part(image).double()
        part.by_lags = False
        double = part.double()(image.double())
    assert (single - double).abs().max() < 1e-3 * double.abs().max()


def test_a_constant_image_has_finite_attention_and_gradients():
    part = GradFormer(16, 16, (1, 3), scale=256.0)
    x = torch.full((2, 16, 32, 32), 0.7, requires_grad=True)
    out = part(x)
    out.sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in part.parameters())


def test_every_image_is_convolved_by_its_own_kernel():
    x, kernels = torch.randn(3, 2, 9, 9), torch.randn(3, 4, 2, 3, 3)
    found = convolve_each(x, kernels, 2)
    assert found.shape == (3, 4, 5, 5)
    expected = torch.zeros(3, 4, 25)
    for i in range(3):
        for j in range(3):
            expected += kernels[..., i, j] @ x[:, :, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5].flatten(2)
    torch.testing.assert_close(found, expected.unflatten(2, (5, 5)))


def test_neither_keys_nor_values_are_kept_for_the_backward_pass():
    """The largest saved tensor is a padded feature map: 64 key maps of one head would be four times that."""
    part = GradFormer(16, 16, (1, 3), scale=256.0)
    sizes: list[int] = []

    def note(x):
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        part(torch.randn(1, 16, 64, 64, requires_grad=True))
    assert max(sizes) <= 16 * (64 + 3 * 6) ** 2


@pytest.mark.parametrize(("channels", "attention", "shifts"), [(16, 16, (1, 3)), (8, 8, (1,))])
def test_what_is_exported_equals_the_definition(channels, attention, shifts, monkeypatch):
    torch.manual_seed(0)
    part = GradFormer(channels, attention, shifts, scale=32.0).double().eval()
    x = torch.randn(2, channels, 14, 18, dtype=torch.float64) + 1
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    with torch.no_grad():
        torch.testing.assert_close(part(x), attend_as_published(part, x), rtol=1e-9, atol=1e-11)
