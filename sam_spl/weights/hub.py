"""Weights on Hugging Face's hub, in this toolkit's own file (extra ``hub``). Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sam_spl.errors import ConfigError
from sam_spl.weights.formats import save_weights
from sam_spl.weights.loading import load_model

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
except ModuleNotFoundError as error:
    raise ConfigError(
        'sam_spl.weights.hub: huggingface_hub is not installed. Run: pip install "sam-spl[hub]"'
    ) from error

#: The one file of a repository that is read: weights that describe themselves.
FILE = "model.safetensors"

_CARD = """---
{{ card_data }}
---

# {{ model }}

Finds small targets in infrared images. `model.safetensors` states all that is needed:

```python
import sam_spl
from huggingface_hub import hf_hub_download

predict = sam_spl.load(hf_hub_download("USER/REPOSITORY", "model.safetensors"))
targets = predict("frame.png").detections
```

What it states:

```json
{{ description }}
```
"""


class HubNetwork(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="sam-spl",
    pipeline_tag="image-segmentation",
    tags=["infrared-small-target-detection"],
    model_card_template=_CARD,
):
    """A network and its description, which goes to the hub and comes from there.

    ``HubNetwork(*load_model(file)).push_to_hub("user/name")``, ``HubNetwork.from_pretrained("user/name")``;
    both also with a folder: ``save_pretrained(folder)``, ``from_pretrained(folder)``. The repository holds
    ``model.safetensors``, which :func:`sam_spl.load` reads as any weights file; ``config.json``, which
    repeats the description for the hub's pages and decides nothing; and a model card. The class of a network
    of your own is ``from_pretrained(..., network=...)``, as of
    :func:`~sam_spl.weights.loading.load_model`, whose errors it raises.

    Args:
        model: the network.
        description: as :func:`~sam_spl.weights.formats.save_weights` takes it.

    Shape:
        as ``model``.
    """

    def __init__(self, model: nn.Module, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.description = model, dict(description)

    def forward(self, image: Tensor) -> list[Tensor]:
        logits: list[Tensor] = self.model(image)
        return logits

    def generate_model_card(self, **more: Any) -> ModelCard:
        """The card of a repository that has none yet."""
        about = json.dumps(self.description, indent=1, sort_keys=True)
        return super().generate_model_card(model=self.description["model"], description=about, **more)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(save_directory / FILE, self.model.state_dict(), self.description)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        network: str | type[nn.Module] | None = None,
        **of_config: Any,  # of config.json, which anybody may have written: the weights say the same
    ) -> HubNetwork:
        """The network of a folder or a repository, in evaluation mode."""
        if Path(model_id).is_dir():
            file = str(Path(model_id) / FILE)
        else:
            file = hf_hub_download(
                model_id,
                FILE,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        return cls(*load_model(file, network=network)).eval()
