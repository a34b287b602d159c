"""Rows of data.json."""

from __future__ import annotations

from mm_config.importing.mindspeed.keys import CLIP_CHAINS, PRE
from mm_config.importing.mindspeed.words import READER
from mm_config.importing.rows import Row, dead, derived, group, mapped, of_kind, outside
from mm_config.importing.values import COUNT, real, switch, whole

_CHAIN = f"{PRE}.train_pipeline"
_RAW = "raw"
_RANGE = "pixels always become -1 to 1"
_KERNEL = "data.interpolation, of the transform that resizes"
_FRAMES = "given frames are frames of the clip, and get its size"
_SAMPLER_ONLY = "clips of one batch have one size"

CHAINS = ("video", "first_frame_vae", "first_frame_clip", "video_and_first_frame", "video_only")
"""Lists of transforms in `train_pipeline`."""


def _chain_rows(name: str) -> tuple[Row, ...]:
    path = f"{_CHAIN}.{name}[]"
    if name in CLIP_CHAINS:
        transform = mapped(f"{path}.trans_type", "data.resize", None, when=_RAW)
        mode = mapped(f"{path}.param.mode", "data.resize", None, when=_RAW)
    else:
        transform = derived(f"{path}.trans_type", _FRAMES, when=_RAW)
        mode = derived(f"{path}.param.mode", _FRAMES, when=_RAW)
    size = f"{path}.param.transform_size"
    return (
        *group(f"{_CHAIN}.{name}", f"{path}.param"),
        transform,
        mode,
        derived(size, "`auto` is data.height x data.width, or the clip's own size", when=_RAW),
        derived(f"{size}.max_height", "is data.height", when=_RAW),
        derived(f"{size}.max_width", "is data.width", when=_RAW),
        derived(f"{path}.param.interpolation_mode", _KERNEL, when=_RAW),
        derived(f"{path}.param.align_corners", _KERNEL, when=_RAW),
        derived(f"{path}.param.antialias", _KERNEL, when=_RAW),
        derived(f"{path}.param.mean", _RANGE, when=_RAW),
        derived(f"{path}.param.std", _RANGE, when=_RAW),
        derived(f"{path}.param.use_short_edge", "a crop covers height x width", when=_RAW),
        derived(f"{path}.param.top_crop", "the middle is kept", when=_RAW),
        mapped(f"{path}.param.p", "data.flip_share", None, when=_RAW),
    )


def _tokenizer_rows(path: str) -> tuple[Row, ...]:
    return (
        derived(
            f"{path}.autotokenizer_name",
            "UMT5's tokenizer comes with its weights",
            "AutoTokenizer",
            when="text",
        ),
        mapped(f"{path}.from_pretrained", "--location", None, when="text"),
        dead(f"{path}.hub_backend", "is removed and never checked"),
        mapped(f"{path}.model_max_length", "text_encoder.max_tokens", whole, when="text"),
    )


PREPROCESSING: tuple[Row, ...] = (
    *group(PRE, _CHAIN),
    derived(
        f"{PRE}.video_processor_type",
        "clips are read by the spec's own rules",
        "OpensoraplanVideoProcessor",
        when=_RAW,
    ),
    mapped(f"{PRE}.video_reader_type", "data.reader", READER, when=_RAW),
    dead(f"{PRE}.image_processer_type", "is read for pictures, and these are videos"),
    derived(f"{PRE}.use_aesthetic", "captions get no sentence about looks", False),
    mapped(f"{PRE}.min_hxw", "data.min_pixels", None, when="raw dynamic"),
    derived(f"{PRE}.train_sp_batch_size", "context parallelism splits one clip", 1),
    dead(f"{PRE}.skip_frame_num", "another model's clips are read by it"),
    dead(f"{PRE}.image_reader_type", "is read for pictures, and these are videos"),
    mapped(f"{PRE}.cfg", "data.caption_dropout", real, when=_RAW, default=0.1),
    mapped(f"{PRE}.num_frames", "data.num_frames", whole, when=_RAW, default=16),
    mapped(f"{PRE}.min_num_frames", "data.min_num_frames", whole, when="raw short", default=29),
    mapped(f"{PRE}.drop_short_ratio", "data.drop_short_share", real, when=_RAW, default=1.0),
    mapped(f"{PRE}.auto_interval", "data.frame_interval, data.fps", None, when=_RAW, default=True),
    mapped(f"{PRE}.frame_interval", "data.frame_interval", COUNT, when="raw interval", default=1),
    mapped(f"{PRE}.train_fps", "data.fps", real, when="raw rate", default=24),
    mapped(f"{PRE}.speed_factor", "data.speed_factor", real, when=_RAW, default=1.0),
    mapped(f"{PRE}.force_resolution", "data.resize", None, when=_RAW, default=True),
    mapped(f"{PRE}.max_height", "data.height", whole, when=_RAW, default=480),
    mapped(f"{PRE}.max_width", "data.width", whole, when=_RAW, default=640),
    derived(f"{PRE}.max_hxw", "is data.height x data.width", when="raw dynamic"),
    mapped(f"{PRE}.hw_stride", "data.size_multiple", None, when="raw dynamic", default=32),
    mapped(f"{PRE}.hw_aspect_thr", "data.max_aspect_ratio", None, when="raw dynamic", default=1.5),
    derived(
        f"{PRE}.truncate_t_by_sp",
        "without context parallelism a clip keeps the frames that fill latent frames",
        when=_RAW,
    ),
    derived(f"{PRE}.seed", "only draws which short clips are left out; the spec has one seed", when=_RAW),
    *(row for name in CHAINS for row in _chain_rows(name)),
)

_CLEANING = "is what data.captions or the text encoder does"

_DATASET: tuple[Row, ...] = (
    *group("dataset_param", "dataset_param.basic_parameters"),
    mapped("dataset_param.dataset_type", "data.precomputed", None),
    mapped("dataset_param.basic_parameters.data_path", "--location", None),
    mapped("dataset_param.basic_parameters.data_folder", "--location", None),
    derived(
        "dataset_param.basic_parameters.data_storage_mode",
        "the spec reads a manifest: one JSON object with `path` and `caption` per line",
        "standard",
        "combine",
        "sorafeatured",
    ),
    derived("dataset_param.enable_text_preprocessing", _CLEANING, True, when="text"),
    derived("dataset_param.use_text_processer", "captions are always tokenised", True, when="text"),
    *group("dataset_param.text_preprocess_methods", "dataset_param.tokenizer_config"),
    derived(
        "dataset_param.text_preprocess_methods.method",
        _CLEANING,
        "basic_clean",
        "whitespace_clean",
        "clean_caption",
        when="text",
    ),
    derived(
        "dataset_param.text_preprocess_methods[].method",
        _CLEANING,
        "basic_clean",
        "whitespace_clean",
        "clean_caption",
        when="text",
    ),
    *_tokenizer_rows("dataset_param.tokenizer_config"),
    *_tokenizer_rows("dataset_param.tokenizer_config[]"),
    # The developer guide's own dataset.
    mapped("dataset_param.data_folder", "--location", None),
    mapped("dataset_param.json_path", "--location", None),
    mapped("dataset_param.num_frames", "data.num_frames", whole),
    mapped("dataset_param.max_height", "data.height", whole),
    mapped("dataset_param.max_width", "data.width", whole),
    mapped("dataset_param.tokenizer_config.pretrained_model_name_or_path", "--location", None),
)

_ARGV = "the script's flag always replaces it:"

_LOADER: tuple[Row, ...] = (
    *group("dataloader_param"),
    derived("dataloader_param.dataloader_mode", "batches are drawn by a sampler", "sampler", "base"),
    mapped("dataloader_param.sampler_type", "data.order", None),
    mapped("dataloader_param.shuffle", "data.order", None, default=False),
    derived("dataloader_param.drop_last", "every batch is whole here", True, False),
    mapped("dataloader_param.pin_memory", "data.pin_memory", switch, default=False),
    derived("dataloader_param.group_data", _SAMPLER_ONLY, True, False),
    derived("dataloader_param.group_frame", "sorting by length is not in our specs", False),
    derived("dataloader_param.group_resolution", "MindSpeed-MM itself raises NotImplementedError", False),
    derived("dataloader_param.initial_global_step_for_sampler", "a run begins with its first batch", 0),
    derived("dataloader_param.persistent_workers", "workers live as long as the run", True, False, None),
    derived("dataloader_param.data_sharding", "each rank reads its own clips of one order", False),
    dead("dataloader_param.batch_size", f"{_ARGV} --micro-batch-size"),
    dead("dataloader_param.num_workers", f"{_ARGV} --num-workers"),
    dead("dataloader_param.seed", f"{_ARGV} --seed"),
    outside("dataloader_param.prefetch_factor", "data.prefetch counts batches of the whole run"),
)

DATA: tuple[Row, ...] = of_kind("data.json", *_DATASET, *PREPROCESSING, *_LOADER)
