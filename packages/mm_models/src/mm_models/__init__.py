"""Networks, autoencoders, encoders, flow matching and checkpoints."""

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_models.autoencoders import Autoencoder, build_autoencoder
    from mm_models.autoencoders.colours import Colours, colours_of
    from mm_models.autoencoders.kept import kept_of, latents_of
    from mm_models.autoencoders.slices import decoded_slices, share_autoencoder
    from mm_models.carried_out import PART_FIELDS, determinism_problems, quantization_refusals, ring_problems
    from mm_models.collectives import gather_json
    from mm_models.compiling import (
        BLOCKS,
        compile_autoencoder,
        compile_blocks,
        compiled_graphs,
        compiled_shapes,
        told_compilations,
    )
    from mm_models.contents import encoder_inputs, files_digest, weights_input
    from mm_models.device_profiler import profiled
    from mm_models.device_report import device_names, free_bytes, peak_gib
    from mm_models.dtypes import torch_dtype
    from mm_models.exporting import Part, part_problems, write_encoders, write_network
    from mm_models.given import (
        NOTHING,
        Given,
        condition_latents,
        given_frames,
        given_latents,
        has_loss,
        image_features,
        mode_latents,
        network_inputs,
        own_frames,
        with_clean_frame,
        without_frames,
    )
    from mm_models.images import ImageEncoder, build_image_encoder
    from mm_models.loading import check as check_weights
    from mm_models.loading import load, load_by_parts, load_group
    from mm_models.networks import build, draw, initialize, register_network
    from mm_models.quantizing import quantize, require_quantization
    from mm_models.registered import builder_of, tags_of
    from mm_models.releases import require_releases
    from mm_models.repeatable import deterministic
    from mm_models.said import Use, check_said, named_otherwise, said_otherwise
    from mm_models.shards import Shard, own_shards
    from mm_models.sparse import SparseAttention, with_sparse_attention
    from mm_models.stopping import stop_requests
    from mm_models.streams import require_stream, stream_carried, stream_seen
    from mm_models.text import (
        TextEncoder,
        WaitingTextEncoder,
        build_text_encoder,
        too_long,
        waiting_text_encoder,
    )
    from mm_models.text.shown import shown_caption
    from mm_models.waiting import Memory, without_memory
    from mm_models.weights.layouts import stored_spec
    from mm_models.weights.staging import require_free, staged
    from mm_models.weights.writing import write_json
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
