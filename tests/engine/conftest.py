"""Tiny checkpoints of all three families, and an engine in this process to render with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mini.build import build
from shared.vocabulary.catalog import MODELS
from tests.conftest import TINY
from tests.engine.rendering import SIDE, Render


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with every miniature."""
    models = tmp_path_factory.mktemp("models")
    for name in TINY:
        build(MODELS[name], models)
    return models


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square PNG with a slope and a corner."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, SIDE)
    pixels[: SIDE // 2, : SIDE // 2, 1] = 200
    path = tmp_path_factory.mktemp("inputs") / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def render(models: Path, picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render specs on one rank in this process."""
    scratch = tmp_path_factory.mktemp("render")
    return Render(models, picture, scratch)
