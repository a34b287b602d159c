"""Weights of other programs, held against their own code: what is loaded computes what they compute."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers import AutoencoderKLWan  # type: ignore[attr-defined]
from diffusers.loaders.single_file_utils import (
    convert_wan_transformer_to_diffusers,
    convert_wan_vae_to_diffusers,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import UMT5EncoderModel

import mm_models
from mm_config.cli.app import app
from mm_config.families import wan21, wan22
from mm_config.options.locations import Location, Locations
from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import Umt5TextEncoderSpec, WanAutoencoderSpec
from mm_config.specs.weights import ReleasedWeights
from mm_models.autoencoders.wan_names import WAN21, WAN22, architecture
from mm_models.text.umt5_names import UMT5
from mm_models.wan.names import WAN
from mm_models.weights.converting import convert
from mm_models.weights.inspecting import inspect_weights
from mm_models.weights.opening import open_weights
from tests.fidelity.official_encoders import decode, encode, t5
from tests.mm_models.parity import fill
from tests.mm_models.test_umt5 import SPEC as TEXT
from tests.mm_models.test_umt5 import release  # noqa: F401
from tests.mm_models.weight_files import SPECS, values

VAE21 = WanAutoencoderSpec(weights=ReleasedWeights(name="official", subfolder="Wan2.1_VAE.pth"), base_dim=4)
VAE22 = WanAutoencoderSpec(
    weights=ReleasedWeights(name="official", subfolder="Wan2.2_VAE.pth"),
    latent_channels=48,
    spatial_stride=16,
    base_dim=4,
    decoder_base_dim=8,
    patch_size=2,
    is_residual=True,
)
VAES = {"wan21": (VAE21, WAN21), "wan22": (VAE22, WAN22)}


@pytest.fixture
def place(tmp_path: Path) -> Locations:
    """A folder like an original release's: its `config.json` is of the transformer."""
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel", "num_heads": 12}))
    return Locations((Location("official", tmp_path, "test"),))


def official(shapes: Mapping[str, tuple[int, ...]], dialect: Any) -> dict[str, Tensor]:
    """Random values under the official names."""
    return {dialect.theirs(name): fill(shape, name) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", SPECS)
def test_the_transformers_names_are_those_of_diffusers_converter(kind: str) -> None:
    stored = {WAN.theirs(name): value for name, value in values(SPECS[kind]).items()}
    theirs = convert_wan_transformer_to_diffusers(dict(stored))
    if "img_emb.emb_pos" in stored:  # Their converter leaves it as it is.
        theirs["condition_embedder.image_embedder.pos_embed"] = theirs.pop("img_emb.emb_pos")
    ours = {str(WAN.ours(name)): value for name, value in stored.items()}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_the_autoencoders_names_are_those_of_diffusers_converter() -> None:
    stored = official(WAN21.shapes(VAE21), WAN21.dialects[1])
    theirs = convert_wan_vae_to_diffusers(dict(stored))
    ours = {str(WAN21.dialects[1].ours(name)): value for name, value in stored.items()}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


@pytest.mark.parametrize("version", VAES)
def test_an_original_autoencoder_computes_what_the_official_code_does(
    version: str, place: Locations, tmp_path: Path
) -> None:
    spec, published = VAES[version]
    assert isinstance(spec.weights, ReleasedWeights)
    state = official(published.shapes(spec), published.dialects[1])
    torch.save(state, tmp_path / spec.weights.subfolder)
    ours = mm_models.build_autoencoder(spec, locations=place)
    frame = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        mean = encode(state, frame)
        latents = ours.encode(frame[:, :, None])
        statistics: Any = ours
        raw = latents * statistics.std_C111 + statistics.mean_C111
        torch.testing.assert_close(raw, mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            ours.decode(latents), decode(state, mean).clamp(-1, 1), atol=1e-5, rtol=1e-5
        )


def test_an_original_text_encoder_computes_what_the_official_code_does(
    release: Path,  # noqa: F811
    place: Locations,
    tmp_path: Path,
) -> None:
    name = "models_t5_umt5-xxl-enc-bf16.pth"
    spec = Umt5TextEncoderSpec(
        weights=ReleasedWeights(name="official", subfolder=name),
        text_dim=16,
        max_tokens=64,
        vocab_size=13,
        num_layers=3,
        num_heads=2,
        d_kv=8,
        d_ff=24,
        dtype=Dtype.FLOAT32,
    )
    state = official(UMT5.shapes(spec), UMT5.dialects[1])
    torch.save(state, tmp_path / name)
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "umt5-xxl").symlink_to(release / "tokenizer")
    encoder: Any = mm_models.build_text_encoder(spec, locations=place)
    caption = "a red circle moving right & blue square " * 4
    ids = torch.tensor([encoder.tokenizer(caption).input_ids])
    expected = t5(state, ids, heads=2)
    features = encoder.encode([caption])
    assert ids.shape[1] > 32
    torch.testing.assert_close(features[:, : ids.shape[1]], expected, atol=1e-5, rtol=1e-5)
    assert not features[:, ids.shape[1] :].any()


def test_text_encoders_are_told_by_their_shapes_and_converted_for_transformers(tmp_path: Path) -> None:
    state = official(UMT5.shapes(TEXT), UMT5.dialects[1])
    torch.save(state, tmp_path / "t5.pth")
    convert(tmp_path / "t5.pth", tmp_path / "text_encoder")
    pretrained: Any = UMT5EncoderModel.from_pretrained
    theirs, report = pretrained(tmp_path / "text_encoder", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = torch.tensor([[3, 4, 6, 8, 1]])
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(ids).last_hidden_state, t5(state, ids, heads=2))


@pytest.mark.parametrize("version", VAES)
def test_autoencoders_are_told_by_their_shapes_and_converted_for_diffusers(
    version: str, tmp_path: Path
) -> None:
    spec, published = VAES[version]
    state = official(published.shapes(spec), published.dialects[1])
    torch.save(state, tmp_path / "vae.pth")
    convert(tmp_path / "vae.pth", tmp_path / "vae")
    theirs: Any = AutoencoderKLWan.from_pretrained(tmp_path / "vae").eval()
    assert (theirs.config.base_dim, theirs.config.z_dim) == (4, spec.latent_channels)
    frame = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        latents = theirs.encode(frame[:, :, None]).latent_dist.mode()
        torch.testing.assert_close(latents, encode(state, frame), atol=1e-5, rtol=1e-5)
    convert(tmp_path / "vae", tmp_path / "again", "wan")
    assert open_weights(tmp_path / "again").dialect.name == "wan"


def test_original_files_are_inspected_and_a_conversion_leaves_their_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for (spec, published), told in (
        (VAES["wan22"], "latent_channels 48, temporal_stride 4, spatial_stride 16, base_dim 4"),
        ((TEXT, UMT5), "text_dim 16, vocab_size 13, num_layers 2, num_heads 2, d_kv 8, d_ff 24\n"),
    ):
        file, out = tmp_path / f"{published.part}.pth", tmp_path / published.part
        torch.save(official(published.shapes(spec), published.dialects[1]), file)
        assert app(["inspect", str(file)]) == 0
        page = capsys.readouterr().out
        assert f"torch.save, names of {published.dialects[1].about}\n" in page and told in page
        assert "fits          its own architecture\n" in page
        convert(file, out)
        assert inspect_weights(out).digest == inspect_weights(file).digest


def test_an_encoder_of_another_spec_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(official(UMT5.shapes(TEXT), UMT5.dialects[1]), tmp_path / "t5.pth")
    assert app(["inspect", str(tmp_path / "t5.pth"), "--spec", "experiments.wan22_t2v"]) == 1
    page = capsys.readouterr().out
    assert "shared.weight is (13, 16), (256384, 4096) is wanted\n" in page
    assert "text_dim 16 instead of 4096, vocab_size 13 instead of 256384, num_layers 2 instead of 24" in page
    assert app(["inspect", str(tmp_path / "t5.pth"), "--spec", "experiments.tiny"]) == 2
    told = "experiments.tiny: these are weights of Wan's text encoder; this is of HashedTextEncoderSpec\n"
    assert capsys.readouterr().err == told


def test_the_statistics_of_a_fine_tuned_autoencoder_stay_in_its_configuration(tmp_path: Path) -> None:
    own = {"latents_mean": [0.5] * 16, "latents_std": [2.0] * 16}
    network: Any = AutoencoderKLWan(**{**architecture(VAE21), **own})
    network.save_pretrained(tmp_path / "own")
    convert(tmp_path / "own", tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: written[name] for name in own} == own


@pytest.mark.parametrize("family", [wan21.T2V_14B, wan22.TI2V_5B])
def test_the_published_encoders_are_known_by_their_shapes(family: Any) -> None:
    autoencoder = WAN22 if family is wan22.TI2V_5B else WAN21
    for one, spec in ((UMT5, family.text_encoder), (autoencoder, family.autoencoder)):
        found = one.guess(one.shapes(spec), {})
        assert found is not None
        assert attrs.evolve(found.spec, weights=spec.weights, dtype=spec.dtype) == spec


def test_scaled_8_bit_floats_are_the_products_that_their_programs_form(tmp_path: Path) -> None:
    spec = SPECS["t2v"]
    stored: dict[str, Tensor] = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    expected: dict[str, Tensor] = {}
    for index, (name, value) in enumerate(values(spec).items()):
        theirs = WAN.theirs(name)
        if value.ndim != 2 or "blocks" not in name:
            stored[theirs], expected[name] = value, value
            continue
        scale = torch.tensor([0.01 * (index + 1)])
        stored[theirs] = (value / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        stored[theirs.removesuffix("weight") + "scale_weight"] = scale
        expected[name] = stored[theirs].float() * scale
    save_file(stored, tmp_path / "kijai.safetensors")
    network = mm_models.build(spec, "cpu")
    mm_models.load(network, tmp_path / "kijai.safetensors")
    assert all(torch.equal(network.get_parameter(name), value) for name, value in expected.items())
