"""From a manifest of video files to batches: manifests, decoding, order, streaming, rendered shapes."""

from mm_config.schema import shown_by_help
from mm_data.bad import Bad, BadClip, Quarantine
from mm_data.clips import Clip, load_clip
from mm_data.content import dataset_input
from mm_data.order import batch_indices
from mm_data.prepare import prepare
from mm_data.records import Dataset, Record
from mm_data.stream import Batch, Stream, resume_step, stream
from mm_data.transforms import to_frames, to_model_range, to_unit_frames
from mm_data.video.writing import read_comment, write_mp4

__all__ = [
    "Bad",
    "BadClip",
    "Batch",
    "Clip",
    "Dataset",
    "Quarantine",
    "Record",
    "Stream",
    "batch_indices",
    "dataset_input",
    "load_clip",
    "prepare",
    "read_comment",
    "resume_step",
    "stream",
    "to_frames",
    "to_model_range",
    "to_unit_frames",
    "write_mp4",
]

for _name in __all__:
    shown_by_help(globals()[_name])
