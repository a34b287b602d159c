"""A second network with published weights joins without a change to what reads and converts them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import mm_models
from mm_config.schema.decorator import spec
from mm_config.schema.errors import UserError
from mm_config.specs.kinds import ModelSpec
from mm_models import checkpoint
from mm_models.weights.converting import convert
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.names import Dialect
from mm_models.weights.published import Guess, Published, Shapes, published


@spec("test-published-model")
class LinearSpec(ModelSpec):
    """One linear layer."""

    in_channels: int = 4
    """Features."""
    out_channels: int = 4
    """Features."""
    patch_size: tuple[int, int, int] = (1, 1, 1)
    """Not used."""
    text_dim: int = 4
    """Not used."""
    num_layers: int = 1
    """Not used."""

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """A weight."""
        return {"proj.weight": (self.out_channels, self.in_channels)}


class Linear(torch.nn.Module):
    """The network."""

    def __init__(self, model: LinearSpec, ops: object) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(model.in_channels, model.out_channels, bias=False)

    def init_buffers(self, device: object) -> None:
        """Has none."""


def guess(shapes: Shapes, config: Mapping[str, Any]) -> Guess | None:
    if "proj.weight" not in shapes:
        return None
    out, width = shapes["proj.weight"]
    return Guess(LinearSpec(in_channels=width, out_channels=out), "configuration", frozenset())


OURS, THEIRS = (
    Dialect(name, name, {"proj": module}) for name, module in (("ours", "proj"), ("theirs", "fc"))
)
PUBLISHED = Published(
    about="a linear layer",
    spec=LinearSpec,
    dialects=(OURS, THEIRS),
    anchor="proj.weight",
    unused=frozenset(("ignored",)),
    families=lambda: {"linear.FOUR": LinearSpec()},
    guess=guess,
    configs={"ours": lambda model: {"in": model.in_channels}},
)


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs a package that declares the network, as any package does."""
    site = tmp_path / "site"
    metadata = site / "linear-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: linear\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[mm.published]\nlinear = {__name__}:PUBLISHED\n")
    monkeypatch.syspath_prepend(site)
    published.cache_clear()
    yield
    published.cache_clear()


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    weights = {"fc.weight": torch.randn(4, 4), "ignored.weight": torch.ones(1)}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.usefixtures("joined")
def test_its_weights_are_recognised_and_loaded(theirs: Path) -> None:
    found = inspect_weights(theirs)
    assert (found.families, found.weights.kind, bool(found.differences)) == (
        ("linear.FOUR",),
        "theirs",
        False,
    )
    assert found.weights.left_out == ("ignored.weight",)
    mm_models.register_network("test-published-model", Linear)
    network = mm_models.build(LinearSpec(), "cpu")
    mm_models.load(network, theirs)
    assert torch.equal(network.get_parameter("proj.weight"), found.weights.tensors["proj.weight"].read())


@pytest.mark.usefixtures("joined")
def test_a_kind_that_it_is_not_published_in_is_refused(theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a linear layer has no weights of kind mindspeed; it has ours, theirs"
    ):
        convert(theirs, tmp_path / "out", "mindspeed")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("joined")
def test_it_is_written_in_its_own_dialects_and_as_a_checkpoint(theirs: Path, tmp_path: Path) -> None:
    convert(theirs, tmp_path / "ours", "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text()) == {"in": 4}
    convert(tmp_path / "ours", tmp_path / "checkpoint", "dcp")
    assert checkpoint.verify(tmp_path / "checkpoint") == []
    convert(tmp_path / "checkpoint", tmp_path / "back", "theirs")
    assert not (tmp_path / "back" / "config.json").exists()
    digests = {inspect_weights(tmp_path / name).digest for name in ("theirs", "ours", "checkpoint", "back")}
    assert len(digests) == 1
    assert any("linear.FOUR" in line for line in inspect_weights(theirs).lines())
    assert json.dumps(inspect_weights(theirs).to_json())


def test_without_it_its_weights_are_no_known_network_s(theirs: Path) -> None:
    with pytest.raises(UserError, match=r"no tensor has a name of a known network \(.*\); it holds "):
        inspect_weights(theirs)
