"""BatchNorm whose statistics are those of the images of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam_spl.runtime import sum_of_processes


def over_all_processes(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm by one over all processes, with the same parameters and names.

    On CUDA that is PyTorch's SyncBatchNorm, which refuses other devices: :class:`GlobalBatchNorm` on those.
    """
    if device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return synchronised
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, GlobalBatchNorm.like(child))
    return model


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the images of all processes, as if they were one batch.

    Every process has to have as many values as the others.

    Shape:
        - x: (B, C, ...)
        - returns: the same
    """

    @classmethod
    def like(cls, norm: nn.modules.batchnorm._BatchNorm) -> GlobalBatchNorm:
        """One with the parameters and buffers of another norm."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made._parameters, made._buffers = norm._parameters, norm._buffers
        return made.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = sum_of_processes(wide.new_tensor(x.numel() / x.shape[1]))
        mean = sum_of_processes(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        variance = sum_of_processes(centred.square().sum(dims)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, of the unbiased variance, as PyTorch does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)
