"""DATransNet's attention over central differences, without the difference maps (section II-B).

A shift s has 8C difference maps D: each of eight neighbours at distance s, minus the pixel. Attention needs
three things of the keys K = W_k D and the values V = W_v D, and holds neither K, V nor D for them:

- the products of queries and keys, and the keys' lengths, are sums over all pixels of products of two shifted
  maps, so the sums at few lags give them (:func:`correlate_by_lags`). Where keys are few for their channels,
  forming them costs less (:func:`correlate`);
- attention times values is one 3x3 convolution, whose kernel attention makes for each image.

That is for CPUs. A GPU has the memory, and many small operations keep it waiting: there K and V are held.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 32  # whose products are summed at a time
_BAND = 2**20  # key values that are formed at a time: 4 MB, which caches hold


class GradFormer(nn.Module):
    """Dynamic attention over central differences, one head per shift (DATransNet, section II-B).

    Channels attend to channels, so time and memory are linear in the number of pixels.

    Args:
        channels: in and out.
        attention_channels: T, divided among the heads.
        shifts: distance of the neighbours in pixels, one head each.
        scale: what scores are divided by, the training size over the feature's stride.

    Shape:
        - x: (B, channels, H, W), H and W above the largest shift
        - returns: the same
    """

    #: What exported files of half precision and of integers leave in single precision.
    keeps_float32 = True

    def __init__(self, channels: int, attention_channels: int, shifts: tuple[int, ...], scale: float) -> None:
        super().__init__()
        head = attention_channels // len(shifts)
        self.shifts, self.scale = shifts, scale
        self.queries = nn.ModuleList(nn.Conv2d(channels, head, 1, bias=False) for _ in shifts)
        self.keys = nn.ModuleList(nn.Conv2d(8 * channels, 8 * head, 1, bias=False) for _ in shifts)
        self.values = nn.ModuleList(nn.Conv2d(8 * channels, 8 * head, 1, bias=False) for _ in shifts)
        self.out = nn.Sequential(
            nn.Conv2d(attention_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.attention = nn.Softmax(dim=-1)  # a module, so that hooks see it
        # Multiplications of a pixel: 8h keys of 9 taps over C channels, or 27 lags of C x C.
        self.by_lags = 9 * 8 * head * channels > 27 * channels * channels

    def forward(self, x: Tensor) -> Tensor:
        # Variances of the scores are near InstanceNorm's eps: half precision would lose them.
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            return self.out(self._attend(wide))

    def _attend(self, x: Tensor) -> Tensor:
        heads, query = len(self.shifts), _interleave([one.get_parameter("weight") for one in self.queries])
        centred = x - x.mean((2, 3), keepdim=True)  # differences do not see the mean, and rounded sums would
        padded = [F.pad(centred, (shift,) * 4, mode="reflect") for shift in self.shifts]

        measure = correlate_by_lags if self.by_lags else correlate
        if torch.compiler.is_exporting() or holds_keys(x):
            measure = correlate_at_once
        pairs = [
            measure(x, surround, query, taps(key.get_parameter("weight")), shift)
            for surround, key, shift in zip(padded, self.keys, self.shifts, strict=True)
        ]
        products = _interleave_last([product for product, _ in pairs])  # (B, T, 8T), of queries and keys
        key_squares = _interleave_last([squares for _, squares in pairs])  # (B, 8T)
        query_squares = ((query @ _gram(x)) * query).sum(-1)  # (B, T)

        # Unit length over the pixels, divided out after the product.
        squares = query_squares[:, :, None] * key_squares[:, None, :]
        score = _blocks(products / squares.clamp_min(1e-24).sqrt() / self.scale, heads)  # (B, heads, h, 8h)
        score = self.attention(F.instance_norm(score))

        # A row of attention over the values' taps is a row of taps.
        attention = _from_blocks(score).unflatten(-1, (-1, heads))  # (B, T, 8h, heads)
        maps = [
            attend(attention[..., head], surround, taps(value.get_parameter("weight")), shift)
            for head, (surround, value, shift) in enumerate(
                zip(padded, self.values, self.shifts, strict=True)
            )
        ]
        return _total(maps)  # (B, T, H, W)


def holds_keys(x: Tensor) -> bool:
    """Whether keys and values of a feature are held, which is faster on its device."""
    return x.is_cuda


def attend(attention: Tensor, padded: Tensor, value: Tensor, shift: int) -> Tensor:
    """Attention (B, T, N) times values, of taps (N, C, 3, 3) over ``padded``: (B, T, H, W)."""
    if holds_keys(padded) and not torch.compiler.is_exporting():
        values = F.conv2d(padded, value, dilation=shift)
        return (attention @ values.flatten(2)).unflatten(2, values.shape[2:])
    return convolve_each(padded, torch.einsum("btk,kcyx->btcyx", attention, value), shift)


def taps(weight: Tensor) -> Tensor:
    """The 3x3 kernel that does to an image what a 1x1 convolution does to its eight central differences.

    Args:
        weight: (N, 8C, 1, 1), neighbour by neighbour: up-left, up, up-right, left, right, down-left, down,
            down-right.

    Returns:
        (N, C, 3, 3). The centre tap is minus the sum of the others.
    """
    around = weight.reshape(len(weight), 8, -1).transpose(1, 2)  # (N, C, 8)
    centre = -around.sum(-1, keepdim=True)
    return torch.cat([around[..., :4], centre, around[..., 4:]], dim=-1).unflatten(-1, (3, 3))


def correlate(x: Tensor, padded: Tensor, query: Tensor, key: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """What attention needs of the keys, from the keys themselves, some rows at a time.

    Args:
        x: (B, C, H, W), the features.
        padded: (B, C, H + 2 shift, W + 2 shift), features less their mean, the border reflected.
        query: (T, C), the queries' projection.
        key: (N, C, 3, 3), the keys' taps (:func:`taps`).
        shift: dilation of the taps, in pixels.

    Returns:
        products (B, T, N) of queries and keys, summed over the H x W pixels, and squared lengths (B, N) of
        the keys.
    """
    batch, _, height, width = x.shape
    rows = max(1, _BAND // (batch * len(key) * width))
    bands = [
        correlate_at_once(
            x[..., top : top + rows, :], padded[..., top : top + rows + 2 * shift, :], query, key, shift
        )
        for top in range(0, height, rows)
    ]
    return _total([products for products, _ in bands]), _total([squares for _, squares in bands])


def correlate_at_once(
    x: Tensor, padded: Tensor, query: Tensor, key: Tensor, shift: int
) -> tuple[Tensor, Tensor]:
    """What :func:`correlate` gives, every key held. A graph that is exported has no loop over rows."""
    keys = _pixels(F.conv2d(padded, key, dilation=shift))
    queries = _pixels(F.conv2d(x, query[:, :, None, None]))
    return queries.mT @ keys, keys.square().sum(1)


def correlate_by_lags(
    x: Tensor, padded: Tensor, query: Tensor, key: Tensor, shift: int
) -> tuple[Tensor, Tensor]:
    """What :func:`correlate` gives, without a key.

    Taps that sum to zero are taps over steps, ``u`` from a pixel to its right neighbour at the distance and
    ``v`` to the lower one: each row of taps is a sum of steps from its middle, and the rows' sums are one of
    steps down the middle. Steps are as small as keys are, so little cancels in the sums below; of the
    features themselves, most would.

    Over the whole plane, with zeros around, a sum of products of shifted maps depends on the difference of
    their shifts alone. The image's own sum is that, less what lies outside the image, where keys are formed.
    """
    u = padded[..., shift:] - padded[..., :-shift]  # rows from -shift to H + shift, columns from -shift to W
    inner = padded[..., shift:-shift]
    v = inner[..., shift:, :] - inner[..., :-shift, :]  # rows from -shift to H, columns from 0 to W
    key_u = torch.stack([-key[..., 0], key[..., 2]], dim=-1)  # (N, C, 3, 2)
    key_v = torch.stack([-key[..., 0, :].sum(-1), key[..., 2, :].sum(-1)], dim=-1)  # (N, C, 2)
    flat_u, flat_v = key_u.flatten(1), key_v.flatten(1)

    times_u = lag_sums(x, u, (3, 2), shift).flatten(2)  # (B, C, 6C)
    times_v = lag_sums(x, v, (2, 1), shift).flatten(2)  # (B, C, 2C)
    flat_u, flat_v = flat_u.to(times_u.dtype), flat_v.to(times_u.dtype)
    products = query.to(times_u.dtype) @ (times_u @ flat_u.mT + times_v @ flat_v.mT)

    around_u, around_v = (F.pad(step, (shift, shift, 2 * shift, 2 * shift)) for step in (u, v))
    squares = (
        ((flat_u @ _gram_of_u(u, around_u, shift)) * flat_u).sum(-1)
        + 2 * ((flat_u @ _gram_of_u_and_v(u, around_v, shift)) * flat_v).sum(-1)
        + ((flat_v @ _gram_of_v(v, around_v, shift)) * flat_v).sum(-1)
    )
    for keys in _keys_outside(around_u, around_v, key_u, key_v[..., None], shift):
        squares = squares - keys.square().sum((2, 3))
    return products.to(x.dtype), squares.to(x.dtype)


def lag_sums(x: Tensor, further: Tensor, size: tuple[int, int], step: int) -> Tensor:
    """Products of each channel of one map with each of another, some pixels further, summed over the pixels.

    That is the gradient of a convolution by its kernel, which libraries compute well.

    Args:
        x: (B, C, H, W).
        further: (B, D, H + step (rows - 1), W + step (columns - 1)).
        size: rows and columns of lags.
        step: of the lags, in pixels.

    Returns:
        (B, C, D, rows, columns): at [b, c, d, i, j] the sum over p of x[b, c, p] times
        further[b, d, p + step (i, j)]. In float64, where the device has it.
    """
    sums: Tensor = _LagSums.apply(x, further, size, step)
    return sums


class _LagSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, further: Tensor, size: tuple[int, int], step: int) -> Tensor:
        ctx.save_for_backward(x, further)
        ctx.step = step
        # Single precision loses digits with the number of products that it sums: a band of rows at a time.
        wide = x.dtype if x.device.type == "mps" else torch.float64
        bands = [
            _lag_sums(part, further[..., top : top + part.shape[2] + step * (size[0] - 1), :], size, step)
            for top, part in zip(range(0, x.shape[2], _ROWS), x.split(_ROWS, dim=2), strict=True)
        ]
        return _total([band.to(wide) for band in bands])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, further = ctx.saved_tensors
        kernels = gradients[0].to(x.dtype)  # (B, C, D, rows, columns)
        of_x = convolve_each(further, kernels, ctx.step)
        transposed = [
            F.conv_transpose2d(one, kernel, dilation=ctx.step)
            for one, kernel in zip(x.split(1), kernels, strict=True)
        ]
        return of_x, torch.cat(transposed), None, None


def _lag_sums(x: Tensor, further: Tensor, size: tuple[int, int], step: int) -> Tensor:
    """:func:`lag_sums` in the precision of the maps."""
    kernel = x.new_empty(x.shape[1], further.shape[1], *size)
    each = zip(x.split(1), further.split(1), strict=True)
    gradients = [
        torch.ops.aten.convolution_backward(
            *(one, its, kernel, None, [1, 1], [0, 0], [step, step], False, [0, 0], 1), [False, True, False]
        )[1]
        for one, its in each
    ]
    return torch.stack(gradients)


# Gram matrices over the plane. Two shifts differ by a lag, so a window over the lags has the products of one
# shift with all others, and the windows in reverse are the shifts in order.


def _gram_of_u(u: Tensor, around: Tensor, shift: int) -> Tensor:
    """(B, 6C, 6C): products of the steps to the right at 3 x 2 shifts."""
    lag = lag_sums(u, around[..., 2 * shift :, :], (3, 3), shift)  # rows 0 ... 2, columns -1 ... 1
    lag = torch.cat([lag.transpose(1, 2)[..., 1:, :].flip(3, 4), lag], dim=3)  # rows -2 ... 2
    pairs = lag.unfold(3, 3, 1).unfold(4, 2, 1).flip(3, 4)  # (B, C, C, 3, 2, 3, 2)
    return pairs.permute(0, 1, 3, 4, 2, 5, 6).flatten(4).flatten(1, 3)


def _gram_of_u_and_v(u: Tensor, around: Tensor, shift: int) -> Tensor:
    """(B, 6C, 2C): products of the steps to the right, at 3 x 2 shifts, and down, at 2."""
    lag = lag_sums(u, around, (4, 2), shift)  # rows -2 ... 1, columns 0 and 1
    pairs = lag.unfold(3, 2, 1).flip(3, 4)  # (B, C, C, 3, 2, 2)
    return pairs.permute(0, 1, 3, 4, 2, 5).flatten(4).flatten(1, 3)


def _gram_of_v(v: Tensor, around: Tensor, shift: int) -> Tensor:
    """(B, 2C, 2C): products of the steps down at 2 shifts."""
    lag = lag_sums(v, around[..., 2 * shift : -shift, shift:-shift], (2, 1), shift)[..., 0]  # rows 0 and 1
    lag = torch.cat([lag.transpose(1, 2)[..., 1:], lag], dim=3)  # rows -1 ... 1
    pairs = lag.unfold(3, 2, 1).flip(3)  # (B, C, C, 2, 2)
    return pairs.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


def _keys_outside(u: Tensor, v: Tensor, key_u: Tensor, key_v: Tensor, shift: int) -> list[Tensor]:
    """The keys (B, N, h, w) above, below, left and right of the image, from what lies around it."""
    rows = slice(2 * shift, -2 * shift)
    above = (u[..., : 4 * shift, :], v[..., : 3 * shift, :])
    below = (u[..., -4 * shift :, :], v[..., -3 * shift :, :])
    beside = [u[..., rows, : 2 * shift], u[..., rows, -2 * shift :]]  # where v is zero
    return [
        *(
            F.conv2d(of_u, key_u, dilation=shift) + F.conv2d(of_v, key_v, dilation=shift)
            for of_u, of_v in (above, below)
        ),
        *(F.conv2d(of_u, key_u, dilation=shift) for of_u in beside),
    ]


def convolve_each(x: Tensor, kernels: Tensor, dilation: int) -> Tensor:
    """Convolve every image by a kernel of its own, without padding: (B, C, H, W), (B, N, C, 3, 3)."""
    if torch.compiler.is_exporting():  # for any B, which neither groups nor a loop leave open
        height, width = (side - 2 * dilation for side in x.shape[-2:])
        moved = [
            x[..., row * dilation : row * dilation + height, column * dilation : column * dilation + width]
            for row in range(3)
            for column in range(3)
        ]
        by_tap = kernels.permute(0, 1, 3, 4, 2).flatten(2)  # (B, N, 9C)
        return (by_tap @ torch.cat(moved, dim=1).flatten(2)).unflatten(2, (height, width))
    each = zip(x.split(1), kernels, strict=True)
    return torch.cat([F.conv2d(one, kernel, dilation=dilation) for one, kernel in each])


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, HW, C), a view where memory allows."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _total(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def _gram(x: Tensor) -> Tensor:
    """(B, C, C), products of channels summed over the pixels."""
    pixels = _pixels(x)
    return pixels.mT @ pixels


# The published code stacks heads behind the channels and reads the memory as if they were in front, so the
# rows of one "head" interleave the channels of all. Published weights need exactly that order.


def _interleave(weights: list[Tensor]) -> Tensor:
    """(rows, C, 1, 1) of each head to (heads x rows, C), row by row the heads in turn."""
    return torch.stack(weights, dim=1).flatten(0, 1).flatten(1)


def _interleave_last(values: list[Tensor]) -> Tensor:
    """(..., N) of each head to (..., heads x N), the heads in turn."""
    return torch.stack(values, dim=-1).flatten(-2)


def _blocks(score: Tensor, heads: int) -> Tensor:
    """Of all pairs (B, T, 8T) those within a block, (B, heads, T / heads, 8T / heads)."""
    of = score.unflatten(2, (heads, -1)).unflatten(1, (heads, -1))
    return of.diagonal(dim1=1, dim2=3).movedim(-1, 1)


def _from_blocks(score: Tensor) -> Tensor:
    """(B, heads, h, 8h) to all pairs (B, heads x h, heads x 8h), zero outside the blocks."""
    heads = score.shape[1]
    same = torch.eye(heads, dtype=score.dtype, device=score.device)[:, None, :, None]
    return (score[:, :, :, None, :] * same).flatten(3, 4).flatten(1, 2)
