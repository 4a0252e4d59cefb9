"""The miniature checkpoints: whole, repeatable, small, and worth looking at."""

import numpy as np
import pytest
from click.testing import CliRunner

from mini.build import main
from shared.machinery.loras import Loras
from shared.vocabulary.catalog import MODELS
from tests.conftest import TINY
from tests.engine.rendering import REF, SIDE, Render, decoded, small


def files(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def build(tmp_path):
    """The command, on one small model and an empty models directory."""

    def run(*options):
        argv = ["--to", str(tmp_path), "--model", "wan-tiny-ti2v", *options]
        return CliRunner().invoke(main, argv, catch_exceptions=False).output

    return run


def test_a_second_build_gives_the_same_bytes_and_only_when_forced(build, tmp_path):
    assert "built" in build()
    first = {name: path.read_bytes() for name, path in files(tmp_path).items()}

    assert "already there" in build()
    assert "built" in build("--force")

    assert {name: path.read_bytes() for name, path in files(tmp_path).items()} == first


def test_our_adapter_is_installed_and_never_over_another_of_its_name(build, tmp_path):
    loras = tmp_path / "loras"
    assert "outlined: installed" in build("--loras", str(loras))
    found = Loras(loras).find("outlined")
    assert (found.card.family, found.facts.experts) == ("wan-mini-t2v", {"high", "low"})
    (loras / "outlined" / "high.safetensors").write_bytes(b"somebody's own")

    assert "outlined: already there" in build("--loras", str(loras))

    assert (loras / "outlined" / "high.safetensors").read_bytes() == b"somebody's own"


@pytest.mark.parametrize("model", TINY)
def test_a_miniature_is_a_few_megabytes_in_the_published_layout(models, model):
    found = files(models / MODELS[model].directory)

    parts = {name.partition("/")[0] for name in found}
    assert parts >= {"model_index.json", "scheduler", "text_encoder", "tokenizer", "vae"}
    assert ("transformer_2" in parts) == (MODELS[model].experts == 2)
    assert sum(path.stat().st_size for path in found.values()) < 5_000_000


@pytest.mark.parametrize("model", TINY)
def test_its_pictures_have_colour_and_shape(render: Render, model):
    render(small(model, image=REF if MODELS[model].needs_image else None, steps=8))

    video = decoded(render.scratch / "video.mp4", SIDE, SIDE).astype(int)
    assert video.std() > 30
    assert np.abs(video[..., 0] - video[..., 1]).mean() > 15  # not grey
    assert np.abs(np.diff(video, axis=2)).mean() < 15  # neighbours agree: no grain
