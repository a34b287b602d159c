"""What a data.json says of clips, their size and their order."""

from __future__ import annotations

from collections.abc import Iterator

from mm_config.importing.facts import Fact, typed
from mm_config.importing.mindspeed.files import Files, Known, is_count
from mm_config.importing.mindspeed.keys import CLIP_CHAINS, DATA, METHODS, NATIVE, PRE
from mm_config.importing.mindspeed.words import ORDER
from mm_config.importing.nodes import as_in_file
from mm_config.importing.readings import Reading, follows, given, refused, said, silent, tried
from mm_config.importing.values import real, switch, whole
from mm_config.importing.verdict import Verdict
from mm_config.rules.sizes import cells
from mm_config.specs.data import CaptionSpec, Cleaning, ClipStart, Interpolation, Order, Resize

_PLAIN = ("ToTensorVideo", "norm_fun", "ae_norm", "ToTensorAfterResize")
_MODES = {"shortside": Resize.CENTER_CROP, "resize": Resize.STRETCH, "hxw": Resize.STRETCH}
_AGAIN = "; MindSpeed-MM repeats its order in each epoch, here each epoch has its own"
_STEP = "a step of data.resize, or holds always"
_FEATURES = (("num_frames", "num_frames"), ("max_height", "height"), ("max_width", "width"))


def order(files: Files, known: Known) -> Iterator[Reading]:
    """`data.order`: samplers that group clips by their size shuffle as `shuffle` says, within the groups."""
    sampler = files.fact(DATA, "dataloader_param.sampler_type")
    shuffle = files.fact(DATA, "dataloader_param.shuffle")
    if sampler is None and shuffle is None:
        return
    word = "stateful_distributed_sampler" if sampler is None else sampler.value
    own, wrong = (
        (None, ()) if sampler is None or word == "stateful_distributed_sampler" else tried(sampler, ORDER)
    )
    shuffled, unread = (False, ()) if shuffle is None else tried(shuffle, switch)
    yield from (*wrong, *unread)
    if wrong or unread:
        return
    if sampler is not None and own is not None and word != "LengthGroupedSampler":
        yield given(
            sampler, "data.order", own, f"data.order = {own.value}" + _AGAIN * (own is Order.SHUFFLED)
        )
        if shuffle is not None:
            yield said(Verdict.DEAD, shuffle, "this sampler has its own order")
        return
    found = Order.SHUFFLED if shuffled else Order.SEQUENTIAL
    within = " within each group of one size" if word == "LengthGroupedSampler" else ""
    text = f"data.order = {found.value}{within}" + _AGAIN * shuffled
    if shuffle is not None:
        yield given(shuffle, "data.order", found, text)
    else:
        yield given("dataloader_param.shuffle", "data.order", found, text)
    if sampler is not None:
        yield said(Verdict.DERIVED, sampler, "the order is that of `shuffle`")


def captions(files: Files, known: Known) -> Iterator[Reading]:
    """`data.captions`: without methods MindSpeed-MM's own dataset cleans captions by `clean_caption`."""
    named = [files.fact(DATA, f"{METHODS}.method"), *files.all_of(DATA, f"{METHODS}[].method")]
    words = [fact.value for fact in named if fact is not None]
    own = _has_own(files)
    if not files.holds("text") or not ("clean_caption" in words or (own and not words)):
        return
    web = CaptionSpec(cleaning=Cleaning.WEB_WITHOUT_CJK)
    fact = next((one for one in named if one is not None and one.value == "clean_caption"), None)
    if fact is not None:
        yield follows(fact, "data.captions", web, "is what data.captions or the text encoder does")
        return
    about = files.fact(DATA, METHODS) or METHODS
    text = (
        "clean_caption is MindSpeed-MM's default, which lower-cases captions and strips Chinese ones, and "
        "so "
        "does data.captions.cleaning = web_without_cjk; web keeps them, and None cleans as Wan's code"
    )
    told = f"is missing: {text}" if isinstance(about, str) else text
    yield Reading(about, Verdict.CONFLICT, told, "data.captions", web)


def frames(files: Files, known: Known) -> Iterator[Reading]:
    """`data.start`, `data.min_num_frames` and how frames are taken."""
    if not files.holds("raw"):
        return
    if _has_own(files):
        fact = files.fact(DATA, f"{PRE}.num_frames")
        value, wrong = (None, ()) if fact is None else tried(fact, whole)
        yield from wrong
        if fact is not None and value is not None:
            yield given(fact, "data.num_frames", value, "data.num_frames; of a longer clip a random part")
        yield given(fact or f"{PRE}.num_frames", "data.start", ClipStart.RANDOM)
    yield from _least_frames(files)
    truncate = files.fact(DATA, f"{PRE}.truncate_t_by_sp")
    if truncate is not None and truncate.value is not False and files.holds("cp"):
        text = "cutting clips to a multiple of the ranks is not in our specs; set it to false"
        yield refused(truncate, text)
    fact = files.fact(DATA, f"{PRE}.auto_interval")
    by_rate, wrong = (None, ()) if fact is None else tried(fact, switch)
    yield from wrong
    if fact is not None and by_rate is not None:
        how = (
            "fps: clips are sampled at train_fps" if by_rate else "frame_interval: every n-th frame is taken"
        )
        yield said(Verdict.MAPPED, fact, f"data.{how}")


def features(files: Files, known: Known) -> Iterator[Reading]:
    """The size of what features were made of, where the file still tells it."""
    if files.holds("raw"):
        return
    for name, ours in _FEATURES:
        fact = files.fact(DATA, f"{PRE}.{name}")
        if fact is not None and is_count(typed(fact)):
            yield given(
                fact, f"data.{ours}", typed(fact), f"data.{ours} = {fact.value}, that features were made of"
            )
    if files.has(DATA) and files.fact(DATA, f"{PRE}.num_frames") is None:
        text = "is not told: data.num_frames is that of experiments/wan22_high.py, for plans alone"
        yield said(Verdict.DEFAULT, f"{PRE}.num_frames", text)


def _has_own(files: Files) -> bool:
    """Whether clips are read by MindSpeed-MM's own dataset."""
    return files.has(DATA, PRE) and not files.has(NATIVE)


def _least_frames(files: Files) -> Iterator[Reading]:
    """Shorter clips keep as many frames as fill latent frames; the least number is one of those."""
    fact = files.fact(DATA, f"{PRE}.min_num_frames")
    least = files.get(DATA, f"{PRE}.min_num_frames")
    if files.holds("short") and is_count(least) and (least - 1) % 4:
        up = least + (1 - least) % 4
        text = f"data.min_num_frames = {up}, the next number that fills latent frames"
        yield follows(fact or f"{PRE}.min_num_frames", "data.min_num_frames", up, text)


def sizes(files: Files, known: Known) -> Iterator[Reading]:
    """`data.resize` and which clips are left out: a crop at the end of the chain gives all clips one size."""
    if not files.holds("raw"):
        return
    cropped, resized, unknown = _transforms(files)
    yield from unknown
    yield from _filter(files, resized or cropped)
    force = files.fact(DATA, f"{PRE}.force_resolution")
    dynamic = files.holds("dynamic")
    if cropped is not None:
        yield given(cropped, "data.resize", Resize.CENTER_CROP)
    else:
        yield from _uncropped(files, resized, dynamic)
    if dynamic and force is not None:
        text = (
            "only leaves clips out, by their size; the chain of transforms cuts all to max_height x max_width"
        )
        yield (
            given(force, "data.resize", Resize.AREA)
            if cropped is None
            else said(Verdict.DERIVED, force, text)
        )
        yield from _area(files, max(cells(known.family.model, known.family.autoencoder)), cropped is None)
    elif force is not None:
        text = (
            "data.height x data.width for all clips; those whose height / width is outside 0.5 to 1.0625 "
            "are "
            "left out there, and only data.max_aspect_ratio leaves some out here"
        )
        yield said(Verdict.MAPPED, force, text)


def _steps(files: Files, key: str) -> list[Fact]:
    paths = [f"{PRE}.train_pipeline.{name}[].{key}" for name in CLIP_CHAINS]
    return [fact for path in paths for fact in files.all_of(DATA, path)]


def _transforms(files: Files) -> tuple[Fact | None, Fact | None, list[Reading]]:
    """The last step that crops, the last that only resizes, and what is told of all steps."""
    last: dict[str, Fact] = {}
    told: list[Reading] = []
    for fact in _steps(files, "trans_type"):
        word = str(fact.value)
        if word not in ("CenterCropResizeVideo", "ResizeVideo", "RandomHorizontalFlipVideo", *_PLAIN):
            allowed = f"ResizeVideo, CenterCropResizeVideo, {', '.join(_PLAIN)}"
            told.append(refused(fact, f"can't be said here: only {allowed}"))
            continue
        told.append(said(Verdict.DERIVED, fact, _STEP))
        last[word] = fact
    for fact in _steps(files, "param.p"):
        share, wrong = tried(fact, real)
        told += wrong or (given(fact, "data.flip_share", share),)
    for fact in _steps(files, "param.mode"):
        if fact.value not in _MODES:
            told.append(refused(fact, f"can't be said here: only {', '.join(_MODES)}"))
        else:
            told.append(said(Verdict.DERIVED, fact, "a step of data.resize"))
    return last.get("CenterCropResizeVideo"), last.get("ResizeVideo"), told


def _uncropped(files: Files, resized: Fact | None, dynamic: bool) -> Iterator[Reading]:
    modes = [fact for fact in _steps(files, "param.mode") if fact.value in _MODES]
    if dynamic or resized is None:
        return
    if modes and _MODES[str(modes[-1].value)] is Resize.STRETCH:
        yield given(modes[0], "data.resize", Resize.STRETCH)
    else:
        yield refused(
            resized, "leaves clips of different sizes in one batch; CenterCropResizeVideo has to follow"
        )


def _filter(files: Files, resized: Fact | None) -> Iterator[Reading]:
    """How the transform that resizes makes pixels; a later one finds clips of the right size."""
    if resized is None:
        return
    for fact in _steps(files, "param.interpolation_mode"):
        if fact.value != "bilinear":
            yield refused(fact, "can't be said here: only bilinear")
    for fact in _steps(files, "param.align_corners"):
        value, wrong = tried(fact, switch)
        yield from wrong
        if value:
            yield refused(fact, "can't be said here: only false")
    smooth = Interpolation.BILINEAR
    for fact in _steps(files, "param.antialias"):
        value, wrong = tried(fact, switch)
        yield from wrong
        if value and fact.path.startswith(f"{resized.path.rpartition('.')[0]}."):
            smooth = Interpolation.BILINEAR_ANTIALIASED
    yield silent(resized, "data.interpolation", smooth)


def _area(files: Files, cell: int, follows_clip: bool) -> Iterator[Reading]:
    height, width = (files.get(DATA, f"{PRE}.{name}") for name in ("max_height", "max_width"))
    most = files.fact(DATA, f"{PRE}.max_hxw")
    fits = is_count(height) and is_count(width) and most is not None and most.value == height * width
    if follows_clip and most is not None and most.value is not None and not fits:
        sides = f"{as_in_file(height)} x {as_in_file(width)}"
        text = (
            f"is not max_height x max_width ({sides}), and data.height x data.width is the most that a "
            "clip "
            "may have; make them equal"
        )
        yield refused(most, text)
    area = most.value if most is not None and most.value is not None else None
    if area is None and is_count(height) and is_count(width):
        area = height * width
    yield from _least_pixels(files, area)
    yield from _stride(files, cell, follows_clip)
    aspect = files.fact(DATA, f"{PRE}.hw_aspect_thr")
    ratio, wrong = (0.0, ()) if aspect is None else tried(aspect, real)
    yield from wrong
    if aspect is None or ratio == 0:
        text = "data.max_aspect_ratio = 1.5, which 0 means" if aspect else "data.max_aspect_ratio = 1.5"
        make = follows if aspect else given
        yield make(aspect or f"{PRE}.hw_aspect_thr", "data.max_aspect_ratio", 1.5, text)
    elif not wrong:
        yield given(aspect, "data.max_aspect_ratio", ratio)


def _least_pixels(files: Files, area: object) -> Iterator[Reading]:
    """The least pixels of a clip: a quarter of the most where the file does not say."""
    fact = files.fact(DATA, f"{PRE}.min_hxw")
    if fact is not None and fact.value is not None:
        least, wrong = tried(fact, whole)
        yield from wrong
        if least is not None and least > 0:
            yield given(fact, "data.min_pixels", least)
    elif isinstance(area, int) and area >= 4:
        quarter = f"data.min_pixels = {area // 4}: max_hxw // 4, and smaller clips are left out"
        yield given(fact or f"{PRE}.min_hxw", "data.min_pixels", area // 4, quarter)


def _stride(files: Files, cell: int, follows_clip: bool) -> Iterator[Reading]:
    fact = files.fact(DATA, f"{PRE}.hw_stride")
    stride, wrong = (32, ()) if fact is None else tried(fact, whole)
    yield from wrong
    about = fact or f"{PRE}.hw_stride"
    if wrong:
        return
    if not follows_clip:
        if fact is not None:
            text = "only rounds the sizes by which clips are left out; the chain cuts all to one size"
            yield said(Verdict.DERIVED, fact, text)
    elif 0 < stride < cell and cell % stride == 0:
        text = (
            f"sizes are multiples of {cell} pixels, one token; of a size in between MindSpeed-MM's network "
            "drops the last half token"
        )
        yield follows(about, "data.size_multiple", None, text)
    else:
        yield given(about, "data.size_multiple", stride)
