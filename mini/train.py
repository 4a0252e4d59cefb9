"""Teaches the miniature, one stage a call: `python -m mini.train vae --state FOLDER`.

The stages in order: `text`, `vae`, then `t2v` and `ti2v`, which may run beside each other, and
`style` after `t2v`. A call goes on from what the folder holds, for as many minutes as it is given;
only `style` begins anew, and `vae` after a transformer leaves latents as they are. `mini.ship`
writes the checkpoints.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from mini import lessons, optimizers, parts, whole, world
from mini.lessons import FRAMES, Course
from mini.parts import BOUNDARY, SHIFTS
from mini.recorded import recorded
from mini.state import Clock, State

COURSES: Final = {
    "t2v": {
        "high": Course(SHIFTS["t2v"], lowest=BOUNDARY),
        "low": Course(SHIFTS["t2v"], highest=BOUNDARY),
    },
    "ti2v": {"single": Course(SHIFTS["ti2v"], expands=True)},
}


class View(NamedTuple):
    """What the VAE sees in one part of its time."""

    frames: int
    side: int  # pixels
    batch: int
    rate: float  # of learning, at its peak
    share: float  # of the time


# Pictures come first: what is learnt from them is cheap, and holds for clips. Whole pictures come
# last: edges and the attention over all of a picture are not in parts of it.
_VIEWS: Final = (
    View(frames=1, side=128, batch=64, rate=1e-3, share=0.2),
    View(frames=17, side=64, batch=32, rate=7e-4, share=0.5),
    View(frames=17, side=128, batch=12, rate=4e-4, share=0.3),
)
_HELD_OUT: Final = 10_000_000  # seeds of scenes that nobody is taught
_DROPOUT: Final = 0.1
_AVERAGED: Final = 0.999
_STYLE: Final = LoraConfig(
    r=8,
    lora_alpha=8,
    target_modules=["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"],
)


class Clips(NamedTuple):
    """What transformers are taught from."""

    latents: Tensor  # [N, C, F', h, w]
    first: int  # seed of the first one's scene
    batch: int


@click.command()
@click.argument("stage", type=click.Choice(["text", "vae", "t2v", "ti2v", "style"]))
@click.option("--state", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", default=8.0, show_default=True, help="Of training.")
@click.option("--batch", default=256, show_default=True, help="Clips that a transformer sees.")
@click.option("--clips", default=24_576, show_default=True, help="Clips that are encoded.")
@click.option("--steps", type=click.IntRange(1), help="End a stage after so many.")
def main(
    stage: str, folder: Path, minutes: float, batch: int, clips: int, steps: int | None
) -> None:
    """Teach one stage."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = State(folder, device)
    if stage == "text":
        teach_text(state, Clock(minutes, steps), batch)
    elif stage == "vae":
        views = _VIEWS[-1:] if "vae" in state.progress else _VIEWS
        for view in views:
            share = view.share / sum(one.share for one in views)
            teach_vae(state, Clock(minutes * share, steps), view, min(view.batch, batch))
        measure_latents(state, min(256, clips))
    elif stage == "style":
        teach_style(state, Clock(minutes, steps), batch, clips)
    else:
        teach_flow(state, Clock(minutes, steps), stage, batch, clips)


def teach_text(state: State, clock: Clock, batch: int) -> None:
    """Teach the text encoder to tell what a caption says."""
    words = words_of(state)
    quiz = lessons.Quiz(parts.TEXT_WIDTH).to(state.device)
    weights = [*words.encoder.parameters(), *quiz.parameters()]
    teachers = [optimizers.adamw(weights, 2e-3)]
    done = state.progress.get("text_encoder", {}).get("steps", 0)
    loss = torch.zeros(())
    while clock.tick(teachers):
        seed = done + clock.step
        scenes = lessons.scenes(seed * batch, batch)
        said = [world.caption(one, seed * batch + i) for i, one in enumerate(scenes)]
        truths = [lessons.truth(one, words) for one, words in zip(scenes, said, strict=True)]
        loss = quiz(*words(said), truths)
        optimizers.learn(teachers, loss)
        _tell("text", clock, loss=loss)
    state.keep(
        "text_encoder", words.encoder.state_dict(), steps=done + clock.step, loss=loss.item()
    )


def teach_vae(state: State, clock: Clock, view: View, batch: int) -> None:
    """Teach the VAE one view of clips; once transformers know its latents, the decoder alone."""
    vae = vae_of(state)
    settled = COURSES.keys() & state.progress.keys()
    if settled:
        vae.encoder.requires_grad_(requires_grad=False)
        vae.quant_conv.requires_grad_(requires_grad=False)
    if state.device.type == "cuda":
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)
    weights = [one for one in vae.parameters() if one.requires_grad]
    teachers = [optimizers.adamw(weights, view.rate, beta=0.95)]
    notes = state.progress.get("vae", {})
    done = notes.get("steps", 0)
    psnr = torch.zeros(())
    while clock.tick(teachers):
        first = (done + clock.step) * batch
        start = int(torch.randint(FRAMES - view.frames + 1, ()))
        part = slice(start, start + view.frames)
        clip = world.clip(lessons.scenes(first, batch), FRAMES, state.device, part) * 2 - 1
        clip = _cropped(clip, view.side)
        with _in_bf16(state.device):
            loss, psnr = lessons.reconstruction(vae, clip)
        optimizers.learn(teachers, loss)
        _tell(f"vae, {view.frames} frames of {view.side} pixels", clock, loss=loss, psnr=psnr)
    state.keep("vae", vae.state_dict(), steps=done + clock.step)


def _cropped(clip: Tensor, side: int) -> Tensor:
    """Some part of the pictures, the same in all of them."""
    top, left = torch.randint(world.SIDE - side + 1, (2,)).tolist()
    return clip[..., top : top + side, left : left + side]


def measure_latents(state: State, clips: int) -> None:
    """Find mean and deviation of each latent channel, which the checkpoints carry."""
    latents = torch.cat([*_encoded(state, _HELD_OUT, clips)])
    psnr = lessons.psnr_of(vae_of(state), held_out_clips(state, min(clips, 16)))
    print(f"held-out clips of {FRAMES} frames come back at {psnr:.2f} dB", flush=True)
    over = (0, 2, 3, 4)
    state.keep("latents", {"mean": latents.mean(over), "std": latents.std(over)}, psnr=psnr)


def teach_flow(state: State, clock: Clock, stage: str, batch: int, clips: int) -> None:
    """Teach the transformers of one checkpoint, all of them in each step."""
    notes = state.progress.get(stage, {})
    first = notes.get("scenes", 0)
    models = {name: transformer_of(state, f"{stage}-{name}") for name in COURSES[stage]}
    latents = normalised(state, torch.cat([*_encoded(state, first, clips)]))
    _teach(state, clock, stage, models, Clips(latents, first, batch))
    for name, model in models.items():
        state.keep(f"{stage}-{name}", model.state_dict())
    done = {"steps": notes.get("steps", 0) + clock.step, "scenes": first + clips}
    state.keep(stage, {}, **done)


def teach_style(state: State, clock: Clock, batch: int, clips: int) -> None:
    """Teach a pair of LoRA adapters of the `t2v` checkpoint to draw outlines."""
    models: dict[str, WanTransformer3DModel] = {}
    for name in COURSES["t2v"]:
        model: Any = state.restore(f"t2v-{name}", parts.transformer())
        model.requires_grad_(requires_grad=False)
        model.add_adapter(_STYLE)
        lessons.fold(model)
        models[name] = model.to(state.device)
    latents = normalised(state, torch.cat([*_encoded(state, 0, clips, outlined=True)]))
    _teach(state, clock, "t2v", models, Clips(latents, 0, batch))
    for name, model in models.items():
        state.keep(f"style-{name}", get_peft_model_state_dict(model), steps=clock.step)


def _teach(
    state: State, clock: Clock, stage: str, models: dict[str, WanTransformer3DModel], clips: Clips
) -> None:
    """Teach what of the models can learn, each its part of the noise; it ends as its average."""
    scenes = lessons.scenes(clips.first, len(clips.latents))
    said = words_of(state).all_of(scenes, clips.first)
    learning = [
        (name, one)
        for model in models.values()
        for name, one in model.named_parameters()
        if one.requires_grad
    ]
    weights: list[Tensor] = [one for _, one in learning]
    teachers = optimizers.of_transformers(learning)

    def lesson() -> dict[str, Tensor]:
        for one in weights:
            one.grad = None
        rows = torch.randint(len(scenes), (clips.batch,), device=state.device)
        latents, texts = clips.latents[rows], said.draw(rows, _DROPOUT)
        with _in_bf16(state.device):
            losses = {
                name: lessons.flow(models[name], latents, texts, course)
                for name, course in COURSES[stage].items()
            }
        torch.stack([*losses.values()]).sum().backward()
        return losses

    given = recorded(lesson, state.device)
    means = [one.detach().clone() for one in weights]
    while clock.tick(teachers):
        losses = given()
        optimizers.clipped(teachers)
        share = min(_AVERAGED, 1 - 1 / (clock.step + 1))
        torch._foreach_lerp_(means, [one.detach() for one in weights], 1 - share)  # pyright: ignore[reportPrivateUsage]
        _tell(stage, clock, **losses)
    with torch.no_grad():
        torch._foreach_copy_(weights, means)  # pyright: ignore[reportPrivateUsage]


def words_of(state: State) -> lessons.Words:
    """The tokenizer and the text encoder as it stands."""
    tokenizer = parts.tokenizer()
    encoder: Any = state.restore("text_encoder", parts.text_encoder(len(tokenizer)))
    return lessons.Words(tokenizer, encoder)


def vae_of(state: State) -> Any:  # noqa: ANN401 - its parts have no types
    """The VAE as it stands, for whole clips."""
    vae = parts.vae()
    whole.prepare(vae)
    restored: Any = state.restore("vae", vae)
    for weights in restored.parameters():
        if weights.dim() == 5:  # as GPUs like to multiply them
            weights.data = weights.data.to(memory_format=torch.channels_last_3d)
    return restored


def transformer_of(state: State, name: str) -> WanTransformer3DModel:
    """One expert as it stands, its blocks compiled on a GPU."""
    model: Any = state.restore(name, parts.transformer())
    lessons.fold(model)
    if state.device.type == "cuda":
        model.compile_repeated_blocks(dynamic=False)
    return model


def normalised(state: State, latents: Tensor) -> Tensor:
    """Latents of mean 0 and deviation 1 in each channel."""
    known = state.tensors("latents")
    mean, std = (known[name].to(latents)[:, None, None, None] for name in ("mean", "std"))
    return (latents - mean) / std


def held_out_clips(state: State, count: int) -> Tensor:
    """Clips of scenes that nobody is taught, [count, 3, FRAMES, SIDE, SIDE] in -1 to 1."""
    return world.clip(lessons.scenes(_HELD_OUT, count), FRAMES, state.device) * 2 - 1


@torch.no_grad()
def _encoded(state: State, first: int, clips: int, *, outlined: bool = False) -> Iterator[Tensor]:
    vae, size = vae_of(state), 32
    for seed in range(first, first + clips, size):
        scenes = lessons.scenes(seed, min(size, first + clips - seed))
        clip = world.clip(scenes, FRAMES, state.device, outlined=outlined) * 2 - 1
        with _in_bf16(state.device):
            mean, _ = whole.encode(vae, clip)
        yield mean.float()


def _in_bf16(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _tell(what: str, clock: Clock, **values: Tensor) -> None:
    if clock.step % 100 == 0:
        told = ", ".join(f"{name} {value.detach().item():.4f}" for name, value in values.items())
        print(f"{what}: step {clock.step}, {clock.over:.0%}, {told}", flush=True)


if __name__ == "__main__":
    main()
