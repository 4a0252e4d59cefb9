"""Writes the checkpoints that come with wanfarm, in the layout of the published ones.

The trained miniatures are copied. Tiny ones for tests are drawn: their weights are random.
"""

import shutil
import string
import tempfile
from pathlib import Path
from typing import Any, Final

import click
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from mini.weights import give_time, shape_picture
from shared.vocabulary.catalog import BUNDLED, MODELS, Model

TRAINED: Final = Path(__file__).parent / "trained"
LORAS: Final = TRAINED / "loras"
SEED = 22
TEXT_WIDTH = 32


@click.command()
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Models directory.")
@click.option("--model", "names", multiple=True, type=click.Choice(BUNDLED), help="Only these.")
@click.option("--loras", type=click.Path(path_type=Path), help="Copy our adapters here as well.")
@click.option("--force", is_flag=True, help="Build again what is there.")
def main(*, to: Path, names: tuple[str, ...], loras: Path | None, force: bool) -> None:
    """Write miniature checkpoints into a models directory; nothing is downloaded."""
    for name in names or BUNDLED:
        written = build(MODELS[name], to, force=force)
        click.echo(f"{name}: {'built' if written else 'already there'}")
    if loras is not None:
        for ours in LORAS.iterdir():
            written = install(ours, loras, force=force)
            click.echo(f"{ours.name}: {'installed' if written else 'already there'}")


def install(adapter: Path, loras: Path, *, force: bool = False) -> bool:
    """Copy an adapter among others, whole or not at all; tells whether anything was written."""
    goal = loras / adapter.name
    if goal.exists() and not force:
        return False
    loras.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=loras, prefix=f".{adapter.name}-") as scratch:
        fresh = Path(scratch) / "new"
        shutil.copytree(adapter, fresh)
        _replace(goal, fresh, Path(scratch))
    return True


def build(model: Model, models: Path, *, force: bool = False) -> bool:
    """Write one checkpoint, whole or not at all.

    Args:
        model: one that comes with wanfarm; its last repository part names the folder.
        models: the models directory; made when missing.
        force: replace a checkpoint that is there.

    Returns:
        Whether anything was written.
    """
    goal = models / model.directory
    if goal.exists() and not force:
        return False
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=f".{model.directory}-") as scratch:
        fresh = Path(scratch) / "new"
        trained = TRAINED / model.directory
        if trained.is_dir():
            shutil.copytree(trained, fresh)
        else:
            pipeline(model).save_pretrained(fresh)
        _replace(goal, fresh, Path(scratch))
    return True


def _replace(goal: Path, fresh: Path, scratch: Path) -> None:
    if goal.exists():
        goal.rename(scratch / "old")
    fresh.rename(goal)


def pipeline(model: Model) -> WanPipeline | WanImageToVideoPipeline:
    """Draw all parts of a tiny model; the same model gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        vae = _vae(model)
        kind: Any = WanImageToVideoPipeline if model.needs_image else WanPipeline
        return kind(
            tokenizer=tokenizer(),
            text_encoder=_text_encoder(),
            vae=vae,
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=model.shift
            ),
            transformer=_transformer(model, vae),
            transformer_2=_transformer(model, vae) if model.experts > 1 else None,
            boundary_ratio=model.boundary,
            expand_timesteps=model.expand_timesteps,
        )


def tokenizer() -> T5Tokenizer:
    """A vocabulary of single characters: enough for different prompts to differ."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.printable.strip(), *"äöüßéèàçñ，。"]  # noqa: RUF001
    return T5Tokenizer(
        vocab=[(piece, 0.0 if piece[0] == "<" else -4.0) for piece in pieces],
        extra_ids=0,
        model_max_length=512,
    )


def _text_encoder() -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=128,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config).eval()


def _transformer(model: Model, vae: AutoencoderKLWan) -> WanTransformer3DModel:
    latent = vae.config["z_dim"]
    # the image's latents and four mask channels ride beside the noise
    given = 2 * latent + 4 if model.needs_image else latent
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=given,
        out_channels=latent,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=96,
        num_layers=model.blocks,
        rope_max_seq_len=128,
    ).eval()
    give_time(transformer)
    return transformer


def _vae(model: Model) -> AutoencoderKLWan:
    wan22: dict[str, Any] = {
        "z_dim": 48,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    }
    vae = AutoencoderKLWan(
        base_dim=8 if model.size_multiple == 32 else 4,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        **(wan22 if model.size_multiple == 32 else {}),
    ).eval()
    shape_picture(vae)
    return vae


if __name__ == "__main__":
    main()
