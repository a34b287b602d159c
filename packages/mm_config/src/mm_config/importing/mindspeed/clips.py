"""What a data.json says of clips, their size and their order."""

from __future__ import annotations

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.data_rows import CLIP_CHAINS, PRE
from mm_config.importing.mindspeed.words import ORDER
from mm_config.importing.nodes import as_in_file
from mm_config.importing.values import real, switch, whole
from mm_config.importing.verdict import Verdict
from mm_config.specs.data import CaptionSpec, Cleaning, ClipStart, Interpolation, Order, Resize

DATA = "data.json"
METHODS = "dataset_param.text_preprocess_methods"
_PLAIN = ("ToTensorVideo", "norm_fun", "ae_norm", "ToTensorAfterResize")
_MODES = {"shortside": Resize.CENTER_CROP, "resize": Resize.STRETCH, "hxw": Resize.STRETCH}


def read_clips(book: Book, cell: int) -> None:
    """Puts size, frames and order of clips into the spec.

    Args:
        book: The facts.
        cell: Pixels of one token along height and width.
    """
    _order(book)
    _captions(book)
    if not book.conditions["raw"]:
        return
    _frames(book)
    _interval(book)
    dynamic = book.conditions["dynamic"]
    _transforms(book, dynamic)
    force = book.fact(DATA, f"{PRE}.force_resolution")
    if dynamic:
        book.map(force, "data.resize", Resize.AREA)
        _area(book, cell)
    elif force is not None:
        book.mark(
            force,
            Verdict.MAPPED,
            "data.height x data.width for all clips; those whose height / width is outside 0.5 to 1.0625 are "
            "left out there, and only data.max_aspect_ratio leaves some out here",
        )


def _order(book: Book) -> None:
    sampler = book.fact(DATA, "dataloader_param.sampler_type")
    shuffle = book.fact(DATA, "dataloader_param.shuffle")
    again = "; MindSpeed-MM repeats its order in each epoch, here each epoch has its own"
    fact = sampler
    if book.conditions["plain_sampler"]:
        fact = shuffle or sampler
        order = Order.SHUFFLED if book.read(shuffle, switch) else Order.SEQUENTIAL
        book.mark(sampler, Verdict.DERIVED, "the order is that of `shuffle`")
    else:
        order = book.read(sampler, ORDER)
    if fact is not None and order is not None:
        book.set("data.order", order, fact)
        if fact is shuffle or not book.conditions["plain_sampler"]:
            text = f"data.order = {order.value}" + again * (order is Order.SHUFFLED)
            book.mark(fact, Verdict.MAPPED, text)


def cleans_web_texts(book: Book) -> bool:
    """Whether captions go through `clean_caption`, which is MindSpeed-MM's default."""
    named = [book.fact(DATA, f"{METHODS}.method"), *book.all_of(DATA, f"{METHODS}[].method")]
    words = [fact.value for fact in named if fact is not None]
    return book.conditions["text"] and ("clean_caption" in words or (_has_own(book) and not words))


def _has_own(book: Book) -> bool:
    """Whether clips are read by MindSpeed-MM's own dataset."""
    return book.has(DATA, PRE) and not book.has("native.yaml")


def _captions(book: Book) -> None:
    if cleans_web_texts(book):
        book.set("data.captions", CaptionSpec(cleaning=Cleaning.WEB_WITHOUT_CJK))


def _frames(book: Book) -> None:
    """Shorter clips keep as many frames as fill latent frames; the least number is one of those."""
    if _has_own(book):
        book.set("data.start", ClipStart.RANDOM)
        fact = book.fact(DATA, f"{PRE}.num_frames")
        text = "data.num_frames; of a longer clip a random part, data.start = random"
        book.mark(fact, Verdict.MAPPED, text)
    fact = book.fact(DATA, f"{PRE}.min_num_frames")
    least = book.changes.get("data.min_num_frames")
    if isinstance(least, int) and least > 0 and (least - 1) % 4:
        up = least + (1 - least) % 4
        book.set("data.min_num_frames", up, fact)
        book.mark(
            fact, Verdict.DERIVED, f"data.min_num_frames = {up}, the next number that fills latent frames"
        )
    truncate = book.fact(DATA, f"{PRE}.truncate_t_by_sp")
    if truncate is not None and truncate.value is not False and book.conditions["cp"]:
        book.refuse(truncate, "cutting clips to a multiple of the ranks is not in our specs; set it to false")


def _interval(book: Book) -> None:
    fact = book.fact(DATA, f"{PRE}.auto_interval")
    by_rate = book.read(fact, switch)
    if by_rate is not None:
        text = (
            "fps: clips are sampled at train_fps" if by_rate else "frame_interval: every n-th frame is taken"
        )
        book.mark(fact, Verdict.MAPPED, f"data.{text}")


def _area(book: Book, cell: int) -> None:
    height, width = (book.get(DATA, f"{PRE}.{name}") for name in ("max_height", "max_width"))
    most = book.fact(DATA, f"{PRE}.max_hxw")
    if most is not None and most.value is not None and (height is None or most.value != height * width):
        book.refuse(
            most,
            f"is not max_height x max_width ({as_in_file(height)} x {as_in_file(width)}), and data.height x "
            "data.width is the most that a clip may have; make them equal",
        )
    _least(book, height, width)
    _stride(book, cell)
    aspect = book.fact(DATA, f"{PRE}.hw_aspect_thr")
    if aspect is None:
        book.set("data.max_aspect_ratio", 1.5)
        return
    ratio = book.read(aspect, real)
    if ratio is not None:
        book.map(aspect, "data.max_aspect_ratio", ratio or 1.5)
    if ratio == 0:
        book.mark(aspect, Verdict.DERIVED, "data.max_aspect_ratio = 1.5, which 0 means")


def _least(book: Book, height: object, width: object) -> None:
    """The least pixels of a clip as it is cut: a quarter of the most where the file does not say."""
    fact = book.fact(DATA, f"{PRE}.min_hxw")
    if fact is not None and fact.value is not None:
        if (least := book.read(fact, whole)) is not None and least > 0:
            book.map(fact, "data.min_pixels", least)
    elif isinstance(height, int) and isinstance(width, int) and height * width >= 4:
        book.set("data.min_pixels", height * width // 4, fact)
        book.mark(fact, Verdict.DERIVED, "data.min_pixels, a quarter of data.height x data.width")


def _stride(book: Book, cell: int) -> None:
    fact = book.fact(DATA, f"{PRE}.hw_stride")
    stride = 32 if fact is None else book.read(fact, whole)
    if stride is None:
        return
    if 0 < stride < cell and cell % stride == 0:
        book.set("data.size_multiple", None, fact)
        book.mark(
            fact,
            Verdict.DERIVED,
            f"sizes are multiples of {cell} pixels, one token; of a size in between MindSpeed-MM's network "
            "drops the last half token",
        )
    elif fact is None:
        book.set("data.size_multiple", stride)
    else:
        book.map(fact, "data.size_multiple", stride)


def _transforms(book: Book, dynamic: bool) -> None:
    """The resizing that a chain of transforms amounts to."""
    cropped: Fact | None = None
    resized: Fact | None = None
    for name in CLIP_CHAINS:
        path = f"{PRE}.train_pipeline.{name}[]"
        for fact in book.all_of(DATA, f"{path}.trans_type"):
            word = fact.value
            if word == "CenterCropResizeVideo":
                cropped = fact
            elif word == "ResizeVideo":
                resized = fact
            elif word == "RandomHorizontalFlipVideo" or word in _PLAIN:
                pass
            else:
                book.refuse(
                    fact, f"can't be said here: only ResizeVideo, CenterCropResizeVideo, {', '.join(_PLAIN)}"
                )
                continue
            book.mark(fact, Verdict.DERIVED, "a step of data.resize, or holds always")
        for fact in book.all_of(DATA, f"{path}.param.p"):
            share = book.read(fact, real)
            if share is not None:
                book.map(fact, "data.flip_share", share)
    modes = [
        fact
        for name in CLIP_CHAINS
        for fact in book.all_of(DATA, f"{PRE}.train_pipeline.{name}[].param.mode")
    ]
    if (first := resized or cropped) is not None:
        _interpolation(book, first)
    resize = _resize_of(book, modes)
    for fact in modes:
        book.mark(fact, Verdict.DERIVED, "a step of data.resize")
    if dynamic or (cropped is None and resized is None):
        return
    if cropped is not None:
        book.map(cropped, "data.resize", Resize.CENTER_CROP)
    elif resize is Resize.STRETCH and modes:
        book.map(modes[0], "data.resize", Resize.STRETCH)
    elif resized is not None:
        book.refuse(
            resized, "leaves clips of different sizes in one batch; CenterCropResizeVideo has to follow"
        )


def _interpolation(book: Book, resized: Fact) -> None:
    """How the transform that resizes makes pixels; a later one finds clips of the right size."""
    step = resized.path.rpartition(".")[0]
    smooth = Interpolation.BILINEAR
    for name in CLIP_CHAINS:
        path = f"{PRE}.train_pipeline.{name}[].param"
        for fact in book.all_of(DATA, f"{path}.interpolation_mode"):
            if fact.value != "bilinear":
                book.refuse(fact, "can't be said here: only bilinear")
        for fact in book.all_of(DATA, f"{path}.align_corners"):
            if book.read(fact, switch):
                book.refuse(fact, "can't be said here: only false")
        for fact in book.all_of(DATA, f"{path}.antialias"):
            if book.read(fact, switch) and fact.path.startswith(f"{step}."):
                smooth = Interpolation.BILINEAR_ANTIALIASED
                book.set("data.interpolation", smooth, fact)
    book.changes.setdefault("data.interpolation", smooth)


def _resize_of(book: Book, modes: list[Fact]) -> Resize | None:
    """What the last of the modes amounts to."""
    resize: Resize | None = None
    for fact in modes:
        found = _MODES.get(fact.value) if isinstance(fact.value, str) else None
        if found is None:
            book.refuse(fact, f"can't be said here: only {', '.join(_MODES)}")
        resize = found or resize
    return resize
