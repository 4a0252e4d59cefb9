"""The denoising loop: two experts, guidance, and a scheduler of our own making."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from shared.vocabulary.spec import GenerationSpec
from worker.engine.cache.job_cache import JobCache
from worker.engine.contract import Cancelled, Hooks, StepDone, Word
from worker.engine.denoise.pace import pace_of
from worker.engine.denoise.resume import Saves
from worker.engine.denoise.schedule import TRAIN_STEPS, Schedule
from worker.engine.parallel.ranks import Mesh
from worker.engine.result import Branch, Decision, Expert


@dataclass(frozen=True, slots=True)
class Scene:
    """What one video starts from, on the device of its rank."""

    noise: Tensor  # [1, C, F', h, w] fp32
    texts: dict[
        Branch, Tensor
    ]  # [1, 512, D] in the transformer's dtype; cond, and uncond if guided
    image: Tensor | None  # as `conditioning.condition` gives it
    resumed: Tensor | None  # what an earlier attempt saved, as `Saves.restore` takes it


@dataclass(frozen=True, slots=True)
class Experts:
    """The transformers of one model, who takes which step, and what they may reuse."""

    high: WanTransformer3DModel
    low: WanTransformer3DModel | None
    schedule: Schedule
    cache: JobCache
    turn: Callable[[Expert], None]  # brings an expert to the device

    def at(self, step: int) -> tuple[WanTransformer3DModel, Expert]:
        """The transformer of a 0-based step, on its device, with its name."""
        expert, name = self._whose(step)
        left = self.schedule.steps_left(name, step)
        self.cache.turn_to(name, expert, left)  # frees what the other expert kept
        self.turn(name)
        return expert, name

    def _whose(self, step: int) -> tuple[WanTransformer3DModel, Expert]:
        if self.low is None:
            return self.high, "single"
        return (self.high, "high") if step < self.schedule.high_steps else (self.low, "low")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the loop is, and what the transformer sees there."""

    step: int  # 0-based
    sigma: float
    expert: WanTransformer3DModel
    hidden: Tensor  # [1, C_in, F', h, w]
    timestep: Tensor  # [1] or [1, tokens]


@torch.no_grad()
def denoise(
    experts: Experts, scene: Scene, spec: GenerationSpec, mesh: Mesh, hooks: Hooks, saves: Saves
) -> Tensor:
    """Turn noise into latents; equal to diffusers' own pipelines bit for bit.

    Returns:
        [1, C, F', h, w] fp32, equal on all active ranks.

    Raises:
        Cancelled: when the hook said so before a forward.
        EngineFault: kind `non_finite`, after the first step that left the numbers.
    """
    scheduler = _scheduler(spec, scene.noise.device)
    mask = _free_tokens(scene, spec)
    start, latents = 0, scene.noise
    if scene.resumed is not None:
        start, latents = saves.restore(scene.resumed, scheduler)
    pace = pace_of(latents.device, hooks.step)

    def predict(at: _Place, branch: Branch) -> Tensor:
        pace.hold()
        word = mesh.agree(hooks.word)
        if word is Word.SAVE_AND_STOP:
            saves.keep()
        if word is not Word.GO:
            raise Cancelled(at.step)
        with at.expert.cache_context(
            branch, step_index=at.step, sigma=at.sigma, num_inference_steps=spec.steps
        ):
            output = at.expert(
                hidden_states=at.hidden,
                timestep=at.timestep,
                encoder_hidden_states=scene.texts[branch],
                return_dict=False,
            )[0]
        pace.launched()
        return output

    for i, t in islice(enumerate(scheduler.timesteps), start, None):
        pace.begin()
        expert, name = experts.at(i)
        hidden, timestep = _inputs(latents, t, scene, mask)
        sigma = float(scheduler.sigmas[i])
        at = _Place(i, sigma, expert, hidden.to(expert.dtype), timestep)
        if spec.guided:
            cond, uncond = mesh.branches(partial(predict, at))
            noise = uncond + _guidance(spec, name) * (cond - uncond)
        else:
            noise = predict(at, "cond")
        latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        done = StepDone(
            step=i + 1,
            steps=spec.steps,
            expert=name,
            switch_step=experts.schedule.switch_step,
            branches=dict.fromkeys(scene.texts, Decision()) | mesh.both(experts.cache.decisions()),
            seconds=0.0,  # the pace knows
        )
        turn = i + 1 == experts.schedule.high_steps < spec.steps
        saves.reached(done, latents, scheduler, turn=turn)
        pace.finish(latents, done)
    pace.drain()
    return latents if mask is None else _with_image(latents, scene, mask)


def _scheduler(spec: GenerationSpec, device: torch.device) -> Any:  # noqa: ANN401 - badly typed there
    """A scheduler with the job's own shift: the one inside a checkpoint is not to be trusted."""
    if spec.sampler == "unipc":
        scheduler = UniPCMultistepScheduler(
            num_train_timesteps=TRAIN_STEPS,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=spec.shift,
        )
    else:
        scheduler = FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=TRAIN_STEPS, shift=spec.shift
        )
    sigmas = None if spec.sigmas is None else list(spec.sigmas)
    scheduler.set_timesteps(spec.steps, device=device, sigmas=sigmas)
    scheduler.set_begin_index(0)  # a search by timestep would skip the first of two equal ones
    return scheduler


def _guidance(spec: GenerationSpec, expert: Expert) -> float:
    if expert != "low":
        return spec.guidance_high
    assert spec.guidance_low is not None  # the spec has one wherever the model has two experts
    return spec.guidance_low


def _free_tokens(scene: Scene, spec: GenerationSpec) -> Tensor | None:
    """Mark what is to be made, [1, 1, F', h, w], in models with one timestep per token."""
    if not spec.card.expand_timesteps:
        return None
    mask = torch.ones_like(scene.noise[:, :1])
    if scene.image is not None:
        mask[:, :, 0] = 0
    return mask


def _inputs(latents: Tensor, t: Tensor, scene: Scene, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The transformer's input [1, C_in, F', h, w] and its timesteps, [1] or [1, tokens]."""
    if mask is None:
        given = [] if scene.image is None else [scene.image]
        return torch.cat([latents, *given], dim=1), t.expand(1)
    timestep = (mask[0, 0, :, ::2, ::2] * t).flatten().unsqueeze(0)  # one value per 2x2 patch
    return _with_image(latents, scene, mask), timestep


def _with_image(latents: Tensor, scene: Scene, mask: Tensor) -> Tensor:
    """Put the image's latents over the first latent frame."""
    if scene.image is None:
        return latents
    return (1 - mask) * scene.image + mask * latents
