"""The engine's tiny checkpoints and picture, for the same tests on a GPU."""

from tests.engine.conftest import models, picture

__all__ = ["models", "picture"]
