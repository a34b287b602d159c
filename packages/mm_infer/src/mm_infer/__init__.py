"""Generation: videos from prompts, with a spec's networks, its sampler and its size.

    import mm_infer

    pipeline = mm_infer.load(SPEC)
    (video,) = pipeline(["a red circle moving up"])
    video.frames  # uint8 [T, H, W, 3]

`generate` does both at once. `GenerationRequest` says more of a video than a prompt: its seed, what it should
not show.
"""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_config.specs import GenerationRequest
    from mm_infer.encoding import Encoded, denoised, encoded
    from mm_infer.loading import generate, load
    from mm_infer.naming import file_names
    from mm_infer.opening import Generation, open_generation
    from mm_infer.passes import by_networks
    from mm_infer.pipeline import Pipeline, Video
    from mm_infer.previews import Preview
    from mm_infer.requests import Inputs
    from mm_infer.writing import strips_of
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
