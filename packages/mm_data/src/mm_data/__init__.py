"""From a manifest of video files to batches: manifests, decoding, order, streaming, rendered shapes."""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING

from mm_config.schema import lazy

if TYPE_CHECKING:
    from mm_data.bad import Bad, BadClip, file_state, place_of, state_of
    from mm_data.clips import Clip, load_clip
    from mm_data.content import clip_digests, dataset_input
    from mm_data.features.keys import caption_key, clip_key, digest_of, variant_of, with_variant
    from mm_data.features.shards import Damaged
    from mm_data.features.shards import writing as writing_features
    from mm_data.features.store import Store
    from mm_data.looking.sheet import Strip, write_contact_sheet
    from mm_data.looking.strip import write_strip
    from mm_data.manifest import capped
    from mm_data.plan.making import make_plan
    from mm_data.plan.missing import check_files
    from mm_data.plan.order import batch_indices
    from mm_data.plan.plan import Plan, Planned
    from mm_data.plan.training import plan_of
    from mm_data.preparing import prepare
    from mm_data.records import Asked, Dataset, Measured, Record, Shape, ask
    from mm_data.streaming.quarantine import Quarantine
    from mm_data.streaming.stream import Batch, Stream, resume_step, stream
    from mm_data.transforms.captions import caption_of, captions_of
    from mm_data.transforms.grid import Grid
    from mm_data.transforms.pixels import to_frames, to_model_range, to_unit_frames
    from mm_data.video.images import covering, read_image, shown_size
    from mm_data.video.index import index_video
    from mm_data.video.reading import read_frames
    from mm_data.video.writing import read_comment, read_mp4, write_mp4
else:
    __getattr__, __dir__, __all__ = lazy(__name__)
