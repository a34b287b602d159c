"""Wan2.1's image encoder: transformers' `CLIPVisionModel`, without its last layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.activations import GELUActivation

from mm_config.schema import Problem, UserError
from mm_config.specs import ClipImageEncoderSpec
from mm_models.dtypes import torch_dtype
from mm_models.ops.gelu import ExactGelu
from mm_models.released_json import read_release_json
from mm_models.releases import read_pretrained, reading, release_folder, require_equal

if TYPE_CHECKING:
    from mm_config.options import Locations

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue in [0, 1], over the images that CLIP was trained on."""


class ClipImageEncoder:
    """Frames to the output of the last layer but one: a class token, then a token per patch."""

    def __init__(
        self,
        spec: ClipImageEncoderSpec,
        device: torch.device | str = "cpu",
        locations: Locations | None = None,
    ) -> None:
        """Reads the encoder.

        Raises:
            UserError: The weights can't be found or read, or belong to another architecture.
        """
        folder = release_folder(spec.weights, locations, "spec.image_encoder.weights")
        with reading(folder, "spec.image_encoder.weights"):
            network: Any = _read(spec, folder)
        self.spec = spec
        self.network = network.to(device).requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, frames_BCHW: Tensor) -> Tensor:
        """`[B, 3, H, W]` in [-1, 1], of any size -> `[B, image_tokens, image_dim]` float32."""
        pixels = prepare(frames_BCHW.to(self.network.device), self.spec.image_size)
        outputs = self.network(pixels.to(self.network.dtype), output_hidden_states=True)
        return outputs.hidden_states[-2].float()


def prepare(frames_BCHW: Tensor, size: int) -> Tensor:
    """What CLIP sees of frames in [-1, 1]: `[B, 3, size, size]` float32, normalised.

    As Wan's authors do, the whole frame is squeezed to a square by bicubic interpolation without
    antialiasing, where CLIP's own processor crops the middle and smooths.
    """
    square = F.interpolate(frames_BCHW.float(), size=(size, size), mode="bicubic", align_corners=False)
    mean_C11 = torch.tensor(MEAN, device=square.device).view(3, 1, 1)
    std_C11 = torch.tensor(STD, device=square.device).view(3, 1, 1)
    return (square / 2 + 0.5 - mean_C11) / std_C11


def processor_config(spec: ClipImageEncoderSpec) -> dict[str, Any]:
    """`preprocessor_config.json` of transformers' processor that does the most like `prepare`: it smooths."""
    square = {"height": spec.image_size, "width": spec.image_size}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": square,
        "resample": 3,
        "do_center_crop": False,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "do_convert_rgb": True,
    }


def _read(spec: ClipImageEncoderSpec, folder: Path) -> CLIPVisionModel:
    wanted = {
        "hidden_size": spec.image_dim,
        "image_size": spec.image_size,
        "patch_size": spec.patch_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "intermediate_size": spec.d_ff,
    }
    config = read_release_json(folder / "config.json")
    # The configuration of a whole CLIP holds that of its half for images.
    own = config["vision_config"] if isinstance(config.get("vision_config"), dict) else config
    stored = CLIPVisionConfig().to_dict() | own
    require_equal(folder, stored, wanted, "spec.image_encoder")
    taken = {name: _checked(name, stored[name], allowed, folder) for name, allowed in _TAKEN.items()}
    network = read_pretrained(
        CLIPVisionModel,
        CLIPVisionConfig(**wanted, **taken),
        folder,
        torch_dtype(spec.dtype),
        "spec.image_encoder.weights",
    )
    for module in network.modules():
        if isinstance(getattr(module, "activation_fn", None), GELUActivation):
            module.activation_fn = ExactGelu()
    return network


_TAKEN = {"hidden_act": ("gelu", "quick_gelu"), "layer_norm_eps": (1e-5, 1e-6)}
"""What the spec leaves to the release, and the values that CLIPs have."""


def _checked(name: str, value: Any, allowed: tuple[Any, ...], folder: Path) -> Any:
    if value not in allowed:
        problem = f"{name} must be {' or '.join(map(str, allowed))}, got {value!r}"
        raise UserError(Problem(str(folder / "config.json"), problem))
    return value
