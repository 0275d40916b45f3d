"""``sam-spl profile``: costs are their closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sam_spl.cli.main import execute
from sam_spl.cli.profile import ProfileConfig
from sam_spl.errors import ConfigError, InputError
from sam_spl.models.registry import build_model
from sam_spl.predict.cost import cost_of, macs_of, used_parameters
from sam_spl.runtime import World
from sam_spl.weights.formats import save_weights
from tests.conftest import TINY

CPU = World(0, 1, torch.device("cpu"))


class TwoHeads(nn.Module):
    """A convolution and two heads, of which the second is for training alone."""

    in_channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(8, 1, 1) for _ in range(2))
        self.heads[1].requires_grad_(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = self.conv(image)
        return [head(x) for head in self.heads]


def test_costs_are_their_closed_forms():
    cost = cost_of(TwoHeads(), (40, 32), CPU, repeat=1)
    conv, head = 8 * 3 * 9 + 8, 8 + 1
    assert (cost.parameters, cost.trained, cost.used) == (conv + 2 * head, conv + head, conv + head)
    assert cost.macs == 40 * 32 * (8 * 3 * 9 + 2 * 8)
    assert cost.seconds > 0


def test_the_memory_of_a_pass_is_what_it_holds_at_once():
    class Holds(TwoHeads):
        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            torch.ones(2**26)  # 256 MB
            return super().forward(image)

    memory = cost_of(Holds(), (32, 32), CPU, repeat=1).memory
    if memory is None:
        pytest.skip("the system does not tell the peak of a process")
    assert 0.9 * 2**28 < memory < 1.3 * 2**28


def test_the_coarse_heads_of_sam_spl_are_not_used():
    model = build_model("sam_spl_t", **TINY)
    coarse = sum(p.numel() for head in list(model.decoder.heads)[:2] for p in head.parameters())
    assert used_parameters(model) == sum(p.numel() for p in model.parameters()) - coarse
    without = build_model("sam_spl_t", **TINY, use_sam_decoder=False)
    assert macs_of(model, (64, 64)) > macs_of(without, (64, 64)) > 0


def test_a_table_has_a_line_for_each_network(tmp_path, capsys):
    model = build_model("sam_spl_t", **TINY)
    about = {**model.built_from, "mean": [0.4], "std": [0.2], "image_size": 64, "resize": "pillow"}
    file = save_weights(tmp_path / "w.safetensors", model.state_dict(), about)
    execute(["profile", "DATransNet", str(file), "--repeat", "1", "--device", "cpu"])
    head, first, second, note = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["DATransNet", "256x256", "2.175"]
    assert second.split()[:2] == [str(file), "64x64"]
    assert len(head) == len(first) == len(second)
    assert "float32" in note


def test_a_profile_without_a_network_and_with_a_wrong_one_is_refused():
    with pytest.raises(ConfigError, match=r"^profile: no network is named"):
        execute(["profile"])
    with pytest.raises(InputError, match="no file datransmet"):
        execute(["profile", "datransmet"])
    with pytest.raises(ConfigError, match="image_size: 8 is not valid"):
        ProfileConfig(["datransnet"], image_size=8)
