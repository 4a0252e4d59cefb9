"""Sigmas, timesteps and the expert switch of one job, as plain arithmetic."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from shared.vocabulary.spec import FailureKind, GenerationSpec
from worker.engine.faults import EngineFault
from worker.engine.result import Expert

TRAIN_STEPS: Final = 1000
_EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each step stands and which expert takes it; equal to what diffusers computes.

    `timesteps` are int64 with UniPC and float32 with Euler, as the transformer sees them.
    """

    timesteps: tuple[float, ...]
    high_steps: int  # steps of the high-noise expert; all of them on one-expert models

    @classmethod
    def of(cls, spec: GenerationSpec) -> Self:
        """Lay out a job.

        Raises:
            EngineFault: kind `bad_input`, when `sigmas` does not give one value per step.
        """
        if spec.sigmas is not None and len(spec.sigmas) != spec.steps:
            raise EngineFault(
                FailureKind.BAD_INPUT,
                f"sigmas has {len(spec.sigmas)} values for {spec.steps} steps. Give one per step.",
            )
        lay = _unipc if spec.sampler == "unipc" else _euler
        times = lay(spec.steps, spec.shift, spec.sigmas)
        return cls(times, high_steps(times, spec.boundary))

    @property
    def switch_step(self) -> int:
        """First step of the low-noise expert, 1-based; steps + 1 when it never comes."""
        return self.high_steps + 1

    def steps_left(self, expert: Expert, step: int) -> int:
        """Count an expert's steps from a 0-based step of it on."""
        return (self.high_steps if expert == "high" else len(self.timesteps)) - step


def high_steps(timesteps: tuple[float, ...], boundary: float | None) -> int:
    """Count the steps at or above the boundary; without one, all of them."""
    if boundary is None:
        return len(timesteps)
    return sum(t >= boundary * TRAIN_STEPS for t in timesteps)


def _unipc(steps: int, shift: float, base: tuple[float, ...] | None) -> tuple[float, ...]:
    """The flow grid of UniPC in float64; its timesteps are truncated to whole numbers."""
    grid = np.linspace(1, 1 / TRAIN_STEPS, steps + 1)[:-1] if base is None else np.array(base)
    sigmas = shift * grid / (1 + (shift - 1) * grid)
    if abs(sigmas[0] - 1) < _EPSILON:
        sigmas[0] -= _EPSILON  # the solver takes the logarithm of 1 - sigma
    return tuple((sigmas * TRAIN_STEPS).astype(np.int64).tolist())


def _euler(steps: int, shift: float, base: tuple[float, ...] | None) -> tuple[float, ...]:
    """The Euler grid: it ends at the shifted 1/1000, and every point of it is shifted once."""
    if base is None:
        train = np.array([TRAIN_STEPS, 1], dtype=np.float32) / np.float32(TRAIN_STEPS)
        first, last = (shift * train / (1 + (shift - 1) * train)).tolist()
        grid = np.linspace(first * TRAIN_STEPS, last * TRAIN_STEPS, steps) / TRAIN_STEPS
    else:
        grid = np.array(base).astype(np.float32)
    sigmas = (shift * grid / (1 + (shift - 1) * grid)).astype(np.float32)
    return tuple((sigmas * np.float32(TRAIN_STEPS)).tolist())
