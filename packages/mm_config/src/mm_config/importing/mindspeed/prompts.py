"""What an inference file says beside its networks: sizes, guidance, boundary, prompts, residency."""

from __future__ import annotations

from mm_config.importing.facts import Fact
from mm_config.importing.mindspeed.book import Book
from mm_config.importing.mindspeed.rows import FLAG
from mm_config.importing.mindspeed.schedule import in_words, world_size
from mm_config.importing.values import in_report, real
from mm_config.importing.verdict import Verdict
from mm_config.schema.types import is_tuple
from mm_config.specs.family import Family
from mm_config.specs.weights import RandomWeights, ReleasedWeights

KIND = "inference_model.json"
_RESIDENCY = ("runtime.residency.experts", "runtime.residency.encoders")


def read_generation(book: Book, family: Family) -> None:
    """Puts what several values of the spec are made from into it."""
    _size(book, book.fact(KIND, "pipeline_config.input_size"))
    _guidance(book, book.fact(KIND, "diffusion.guidance_scale"))
    _offload(book, book.fact(KIND, "pipeline_config.cpu_offload"))
    _prompt(book, book.fact(KIND, "prompt"))
    _seed(book)
    _low_noise(book, family)
    _data_parallel(book)


def _size(book: Book, fact: Fact | None) -> None:
    size = book.get(KIND, "pipeline_config.input_size")
    if size is None:
        return
    for name, value in zip(("num_frames", "height", "width"), size, strict=True):
        book.set(name, value, fact)
    text = "num_frames = {}, height = {}, width = {}".format(*size)
    book.mark(fact, Verdict.MAPPED, text)


def _guidance(book: Book, fact: Fact | None) -> None:
    values = book.read(fact, lambda value: list(map(real, value if is_tuple(value) else (value,))))
    if fact is None or values is None:
        return
    if not 1 <= len(values) <= 2:
        book.refuse(fact, "expected a number, or two: high noise, low noise")
        return
    high, low = values[0], values[-1]
    book.set("sampler.guidance_high_noise", high, fact)
    book.set("sampler.guidance_low_noise", low, fact)
    order = "; Wan's own configuration writes (low, high)" if len(values) == 2 else ""
    text = f"sampler.guidance_high_noise = {high}, sampler.guidance_low_noise = {low}{order}"
    book.mark(fact, Verdict.MAPPED, text)


def _offload(book: Book, fact: Fact | None) -> None:
    value = book.get(KIND, "pipeline_config.cpu_offload")
    if value is None:
        return
    for target in _RESIDENCY:
        book.set(target, value, fact)
    book.mark(fact, Verdict.MAPPED, ", ".join(f"{target} = {in_report(value)}" for target in _RESIDENCY))


def _prompt(book: Book, fact: Fact | None) -> None:
    if fact is None:
        return
    if not isinstance(fact.value, str) or not fact.value.strip():
        book.refuse(fact, "expected a prompt, or the name of a file with one prompt per line")
    elif fact.value.endswith(".txt"):
        book.mark(
            fact,
            Verdict.OUTSIDE,
            "the file was not given, and MindSpeed-MM cuts it to 100 lines: put its prompts into "
            "samples.prompts, or give one to `mm generate`",
        )
    else:
        book.map(fact, "samples.prompts", (fact.value,))


def _seed(book: Book) -> None:
    """The pipeline's own seed beats the script's."""
    own, seed = book.fact(KIND, "pipeline_config.seed"), book.get(KIND, "pipeline_config.seed")
    if seed is not None:
        book.map(own, "samples.seeds.0", seed)


def _low_noise(book: Book, family: Family) -> None:
    fact = book.fact(KIND, "low_noise_predictor")
    if not book.conditions["experts"] and book.has(KIND, "predictor."):
        return
    if family.low_noise is not None:
        book.mark(fact, Verdict.MAPPED, f"low_noise: {in_words(family.low_noise)}, before mm-convert")
    elif fact is not None and isinstance(fact.value, str) and fact.value:
        book.set("low_noise", ReleasedWeights(name="low-noise-weights"), fact)
        book.paths["low-noise-weights"] = fact.value
        book.mark(fact, Verdict.MAPPED, f"--location low-noise-weights={fact.value}")
    else:
        book.set("low_noise", RandomWeights())


def _data_parallel(book: Book) -> None:
    ranks = world_size(book)
    if ranks is None:
        return
    together = 1
    for target in ("ulysses", "ring", "tensor"):
        degree = book.changes.get(f"runtime.parallel.{target}", 1)
        together *= degree if isinstance(degree, int) else 1
    if ranks % together == 0 and ranks > together:
        data = ranks // together
        book.set("runtime.parallel.data", data, book.fact(FLAG, "--nproc_per_node"))
        book.say(
            Verdict.DERIVED, "--nproc_per_node", f"runtime.parallel.data = {data}: the ranks that are left"
        )
