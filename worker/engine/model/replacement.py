"""A VAE that takes the place of the checkpoint's, if it speaks of the same latents."""

import inspect
import json
from pathlib import Path
from typing import Any, Final

from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from shared.vocabulary.spec import FailureKind
from worker.engine.faults import EngineFault

_SAME: Final = ("_class_name", "z_dim", "scale_factor_temporal", "scale_factor_spatial")
_GIVEN: Final = ("latents_mean", "latents_std")  # the class has some, of other latents


def check(own: Path, other: Path) -> None:
    """Compare the folder of a replacement with that of the checkpoint's VAE.

    Raises:
        EngineFault: kind `bad_checkpoint`, when its latents would mean something else.
    """
    ours, theirs = _config(own), _config(other)
    for key in _SAME:
        if ours[key] != theirs[key]:
            raise _refused(f"has {key.strip('_')} {theirs[key]}, not {ours[key]}")
    for key in _GIVEN:
        found = len(theirs["given"].get(key) or ())
        if found != ours["z_dim"]:
            raise _refused(f"has {found} values of {key}, not {ours['z_dim']}")


def _config(folder: Path) -> dict[str, Any]:
    """What a config says, with the class's defaults; and, as `given`, without them."""
    try:
        given = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise _refused("has no readable config.json") from error
    parameters = inspect.signature(AutoencoderKLWan.__init__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return defaults | {"_class_name": None} | given | {"given": given}


def _refused(trouble: str) -> EngineFault:
    return EngineFault(
        FailureKind.BAD_CHECKPOINT,
        f"The VAE that is to replace the checkpoint's {trouble}. Name one that fits, or none.",
    )
