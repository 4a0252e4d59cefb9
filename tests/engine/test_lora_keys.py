"""What the check of an upload believes of a transformer is what diffusers builds."""

import pytest
import torch
from diffusers import WanTransformer3DModel

from shared.vocabulary.catalog import MODELS, Model
from shared.vocabulary.transformer import parameters_of


def built(model: Model) -> WanTransformer3DModel:
    """The transformer of a model, without memory for its weights."""
    with torch.device("meta"):
        return WanTransformer3DModel(
            num_attention_heads=model.heads,
            attention_head_dim=model.width // model.heads,
            ffn_dim=model.ffn,
            num_layers=model.blocks,
            in_channels=16,
            out_channels=16,
            text_dim=4096,
            freq_dim=256,
        )


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_every_parameter_is_known_by_its_name_and_shape(model):
    shapes = {name: tuple(one.shape) for name, one in built(model).named_parameters()}

    rooms = parameters_of(model)

    assert rooms.keys() == shapes.keys()
    for name, room in rooms.items():
        sides = zip(room, shapes[name], strict=True)
        assert all(known in {None, side} for known, side in sides), name
