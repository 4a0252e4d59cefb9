"""Teaches the miniature: `python -m mini.train --state FOLDER`, again until it says all is taught.

A call goes on where the folder says the one before ended, for as many minutes as it is given, so
that a GPU may be had for minutes at a time. Stages that learn transformers may run beside each
other, each on a GPU of its own: name them. `mini.ship` writes the checkpoints.
"""

from collections.abc import Iterator, Sequence
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
from mini.recorded import Work, recorded
from mini.state import Clock, State

RECIPE: Final[dict[str, float]] = {  # minutes of each stage, in their order
    "text": 0.5,
    "vae-pictures": 2.5,
    "vae-parts": 6,
    "vae-clips": 4,
    "t2v-high": 12,
    "t2v-low": 12,
    "ti2v": 12,
    "style-high": 1,
    "style-low": 1,
}
COURSES: Final = {
    "t2v-high": Course(SHIFTS["t2v"], lowest=BOUNDARY),
    "t2v-low": Course(SHIFTS["t2v"], highest=BOUNDARY),
    "ti2v": Course(SHIFTS["ti2v"], expands=True),
}


class View(NamedTuple):
    """What the VAE sees in a stage."""

    frames: int
    side: int  # pixels
    batch: int
    rate: float  # of learning, at its peak


# Pictures come first: what is learnt from them is cheap, and holds for clips. Whole pictures come
# last: edges and the attention over all of a picture are not in parts of it.
VIEWS: Final = {
    "vae-pictures": View(frames=1, side=128, batch=64, rate=1e-3),
    "vae-parts": View(frames=17, side=64, batch=32, rate=7e-4),
    "vae-clips": View(frames=17, side=128, batch=12, rate=4e-4),
}
_LEAST: Final = 0.3  # minutes; less is not worth the preparation
_HELD_OUT: Final = 10_000_000  # seeds of scenes that nobody is taught
_DROPOUT: Final = 0.1
_AVERAGED: Final = 0.999
_STYLE: Final = LoraConfig(
    r=8,
    lora_alpha=8,
    target_modules=["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"],
)


class Amount(NamedTuple):
    """How much a stage takes at once."""

    batch: int
    clips: int


@click.command()
@click.argument("stage", type=click.Choice([*RECIPE]), required=False)
@click.option("--state", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", default=8.0, show_default=True, help="That this call may take.")
@click.option("--batch", default=256, show_default=True, help="Clips that a transformer sees.")
@click.option("--clips", default=24_576, show_default=True, help="Clips drawn for one stage.")
@click.option("--steps", type=click.IntRange(1), help="End a stage after so many.")
def main(
    stage: str | None, folder: Path, minutes: float, batch: int, clips: int, steps: int | None
) -> None:
    """Go on with the recipe; or with STAGE alone, for as long as it is told."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state, amount = State(folder, device), Amount(batch, clips)
    call = Clock(minutes)
    for name in [stage] if stage else RECIPE:
        left = minutes - call.minutes
        due = left if stage else min(left, RECIPE[name] - state.noted(name, "minutes"))
        if due >= _LEAST:
            clock = Clock(due, steps)
            teach(state, clock, name, amount)
            state.note(name, steps=clock.step, minutes=clock.minutes)
    for name, whole_time in RECIPE.items():
        print(f"{name}: {state.noted(name, 'minutes'):.1f} of {whole_time} minutes", flush=True)


def teach(state: State, clock: Clock, stage: str, amount: Amount) -> None:
    """Teach one stage until its time is over."""
    if stage == "text":
        teach_text(state, clock, amount.batch)
    elif stage in VIEWS:
        teach_vae(state, clock, stage, amount)
        measure_latents(state, min(256, amount.clips))
    elif stage in COURSES:
        teach_flow(state, clock, stage, amount)
    else:
        teach_style(state, clock, stage, amount)


def teach_text(state: State, clock: Clock, batch: int) -> None:
    """Teach the text encoder to tell what a caption says."""
    words = words_of(state)
    quiz = lessons.Quiz(parts.TEXT_WIDTH).to(state.device)
    weights = [*words.encoder.parameters(), *quiz.parameters()]
    done = int(state.noted("text", "steps"))

    def lesson() -> dict[str, Tensor]:
        seed = (done + clock.step) * batch
        scenes = lessons.scenes(seed, batch)
        said = [world.caption(one, seed + i) for i, one in enumerate(scenes)]
        truths = [lessons.truth(one, words) for one, words in zip(scenes, said, strict=True)]
        return {"loss": quiz(*words(said), truths)}

    _follow(clock, "text", _with_slopes(lesson, weights), [optimizers.adamw(weights, 2e-3)])
    state.keep("text", words.encoder.state_dict())


def teach_vae(state: State, clock: Clock, stage: str, amount: Amount) -> None:
    """Teach the VAE a view of clips; once a transformer knows its latents, the decoder alone."""
    vae, view = vae_of(state), VIEWS[stage]
    if COURSES.keys() & state.progress.keys():
        vae.encoder.requires_grad_(requires_grad=False)
        vae.quant_conv.requires_grad_(requires_grad=False)
    if state.device.type == "cuda":
        vae.encoder.compile(dynamic=False)
        vae.decoder.compile(dynamic=False)
    weights = [one for one in vae.parameters() if one.requires_grad]
    clips = _drawn(state, int(state.noted(stage, "scenes")), amount.clips)
    batch = min(view.batch, amount.batch)

    def lesson() -> dict[str, Tensor]:
        clip = _seen(clips, view, batch)
        with _in_bf16(state.device):
            loss, psnr = lessons.reconstruction(vae, clip)
        return {"loss": loss, "psnr": psnr}

    given = recorded(_with_slopes(lesson, weights), state.device)
    _follow(clock, stage, given, [optimizers.adamw(weights, view.rate, beta=0.95)])
    state.keep("vae", vae.state_dict())
    state.note(stage, scenes=amount.clips)


def _drawn(state: State, first: int, count: int) -> Tensor:
    """Clips of some scenes, [count, 3, FRAMES, SIDE, SIDE] in bytes."""
    size = 64
    some = (
        world.clip(lessons.scenes(seed, min(size, first + count - seed)), FRAMES, state.device)
        for seed in range(first, first + count, size)
    )
    return torch.cat([(clip * 255).round().byte() for clip in some])


def _seen(clips: Tensor, view: View, batch: int) -> Tensor:
    """What a view shows of some clips, the same part of each, in -1 to 1."""
    shown = clips[torch.randint(len(clips), (batch,), device=clips.device)]
    for dim, length in ((2, view.frames), (3, view.side), (4, view.side)):
        start = torch.randint(shown.shape[dim] - length + 1, (1,), device=clips.device)
        shown = shown.index_select(dim, start + torch.arange(length, device=clips.device))
    return shown / 127.5 - 1


def measure_latents(state: State, clips: int) -> None:
    """Find mean and deviation of each latent channel, which the checkpoints carry."""
    latents = torch.cat([*_encoded(state, _HELD_OUT, clips)])
    psnr = lessons.psnr_of(vae_of(state), held_out_clips(state, min(clips, 64)))
    print(f"held-out clips of {FRAMES} frames come back at {psnr:.2f} dB", flush=True)
    over = (0, 2, 3, 4)
    state.keep("latents", {"mean": latents.mean(over), "std": latents.std(over)})


def teach_flow(state: State, clock: Clock, stage: str, amount: Amount) -> None:
    """Teach one transformer its part of the noise."""
    first = int(state.noted(stage, "scenes"))
    model = transformer_of(state, stage)
    latents = normalised(state, torch.cat([*_encoded(state, first, amount.clips)]))
    _teach(state, clock, model, COURSES[stage], Clips(stage, latents, first, amount.batch))
    state.keep(stage, model.state_dict())
    state.note(stage, scenes=amount.clips)


def teach_style(state: State, clock: Clock, stage: str, amount: Amount) -> None:
    """Teach a LoRA adapter of one expert of `t2v` to draw outlines."""
    expert = stage.replace("style", "t2v")
    model: Any = state.restore(expert, parts.transformer())
    model.requires_grad_(requires_grad=False)
    model.add_adapter(_STYLE)
    lessons.fold(model)
    latents = normalised(state, torch.cat([*_encoded(state, 0, amount.clips, outlined=True)]))
    clips = Clips(stage, latents, 0, amount.batch)
    _teach(state, clock, model.to(state.device), COURSES[expert], clips)
    state.keep(stage, get_peft_model_state_dict(model))


class Clips(NamedTuple):
    """What a transformer is taught from."""

    stage: str
    latents: Tensor  # [N, C, F', h, w]
    first: int  # seed of the first one's scene
    batch: int


def _teach(
    state: State, clock: Clock, model: WanTransformer3DModel, course: Course, clips: Clips
) -> None:
    """Teach what of a model can learn."""
    scenes = lessons.scenes(clips.first, len(clips.latents))
    said = words_of(state).all_of(scenes, clips.first)
    learning = [(name, one) for name, one in model.named_parameters() if one.requires_grad]

    def lesson() -> dict[str, Tensor]:
        rows = torch.randint(len(scenes), (clips.batch,), device=state.device)
        latents, texts = clips.latents[rows], said.draw(rows, _DROPOUT)
        with _in_bf16(state.device):
            return {"loss": lessons.flow(model, latents, texts, course)}

    weights: list[Tensor] = [one for _, one in learning]
    given = recorded(_with_slopes(lesson, weights), state.device)
    _follow(clock, clips.stage, given, optimizers.of_transformers(learning))


def _with_slopes(lesson: Work, weights: Sequence[Tensor]) -> Work:
    """A lesson that leaves the gradients of its loss with the weights."""

    def given() -> dict[str, Tensor]:
        for one in weights:
            one.grad = None
        values = lesson()
        values["loss"].backward()
        return values

    return given


def _follow(clock: Clock, stage: str, given: Work, teachers: list[torch.optim.Optimizer]) -> None:
    """Go down from the losses of lessons until the time is over; weights end as their average."""
    weights: list[Tensor] = [
        one for teacher in teachers for group in teacher.param_groups for one in group["params"]
    ]
    means = [one.detach().clone() for one in weights]
    while clock.tick(teachers):
        values = given()
        optimizers.clipped(teachers)
        share = min(_AVERAGED, 1 - 10 / (clock.step + 10))  # the last tenth, or thousand steps
        torch._foreach_lerp_(means, [one.detach() for one in weights], 1 - share)  # pyright: ignore[reportPrivateUsage]
        _tell(stage, clock, **values)
    with torch.no_grad():
        torch._foreach_copy_(weights, means)  # pyright: ignore[reportPrivateUsage]


def words_of(state: State) -> lessons.Words:
    """The tokenizer and the text encoder as it stands."""
    tokenizer = parts.tokenizer()
    encoder: Any = state.restore("text", parts.text_encoder(len(tokenizer)))
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
