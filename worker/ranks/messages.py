"""The words parent and ranks exchange: frozen models as JSON bytes, one tagged union each way."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.plan import Build, ParallelPlan
from shared.vocabulary.spec import FailureKind, GenerationSpec, LoraRef, Value
from shared.vocabulary.states import Phase
from worker.engine.result import Branch, Decision, Expert, Report, VideoFile

# --- parent to rank ---------------------------------------------------------------------------


class Load(Value):
    """Bring a model's weights to this rank's device and drop the one before."""

    type: Literal["load"] = "load"
    model: str
    directory: str
    plan: ParallelPlan
    build: Build = Build()


class Lora(Value):
    """An adapter of a job and its files on this host, one per expert."""

    ref: LoraRef
    high: str | None = None
    low: str | None = None


class Generate(Value):
    """Render one video; sent to every rank, after `Released` of the one before."""

    type: Literal["generate"] = "generate"
    video_id: str
    attempt: int
    spec: GenerationSpec
    plan: ParallelPlan
    image: str | None = None  # path of the cleaned PNG in the group's scratch directory
    out: str  # path of the MP4 that rank 0 writes
    cache: CachePolicies | None = None
    loras: tuple[Lora, ...] = ()
    resume: str | None = None  # latents saved by an earlier attempt
    save_to: str | None = None  # directory for saved latents
    save_every_s: float = 30.0


class Cancel(Value):
    """Stop the attempt before the next forward; sent to rank 0, agreed by all."""

    type: Literal["cancel"] = "cancel"
    attempt: int
    video_id: str
    save: bool = False  # save the latents first: another attempt goes on from there


class Probe(Value):
    """Try the device and the way to the other ranks."""

    type: Literal["probe"] = "probe"


class Stop(Value):
    """Leave politely."""

    type: Literal["stop"] = "stop"


# --- rank to parent ---------------------------------------------------------------------------


class Hello(Value):
    """First word of each rank, when its process group stands."""

    type: Literal["hello"] = "hello"
    rank: int
    pid: int
    device: str  # "cpu" or the GPU's name
    device_uuid: str | None = None
    memory_total_bytes: int | None = None
    software: dict[str, str] = Field(default_factory=dict)


class Loaded(Value):
    """The model is on the device."""

    type: Literal["loaded"] = "loaded"
    rank: int
    model: str
    seconds: float


class Probed(Value):
    """The device computes rightly, and the other ranks are reached."""

    type: Literal["probed"] = "probed"
    rank: int


class Step(Value):
    """One denoising step, told by rank 0 after the device has finished it; step is 1-based."""

    type: Literal["step"] = "step"
    video_id: str
    attempt: int
    step: int
    steps: int
    expert: Expert
    switch_step: int  # first step of the low-noise expert, 1-based; steps + 1 when it never comes
    branches: dict[Branch, Decision]
    seconds: float


class PhaseBegan(Value):
    """Rank 0 has turned to another phase."""

    type: Literal["phase"] = "phase"
    video_id: str
    attempt: int
    phase: Phase


class Saved(Value):
    """The latents after a step are on disk; an attempt may go on from there."""

    type: Literal["saved"] = "saved"
    video_id: str
    attempt: int
    step: int  # steps done
    steps: int
    path: str


class Beat(Value):
    """Every rank, each second, from a thread of its own."""

    type: Literal["beat"] = "beat"
    rank: int
    memory_bytes: int  # device memory in use, or resident memory on the CPU


class Released(Value):
    """The last picture has left the device, which is free; the file may still be closing."""

    type: Literal["released"] = "released"
    video_id: str
    attempt: int


class Done(Value):
    """The file is written; from rank 0."""

    type: Literal["done"] = "done"
    video_id: str
    attempt: int
    file: VideoFile
    report: Report


class Stopped(Value):
    """The cancel was obeyed and every trace of the job dropped; from rank 0."""

    type: Literal["stopped"] = "stopped"
    video_id: str
    attempt: int
    step: int


class Failed(Value):
    """The command could not be carried out, or a released video's file not be closed; any rank."""

    type: Literal["failed"] = "failed"
    rank: int
    kind: FailureKind
    message: str
    trace: str = ""
    video_id: str | None = None  # of the file that could not be closed
    attempt: int | None = None


ParentWord = Load | Generate | Cancel | Probe | Stop
RankWord = (
    Hello | Loaded | Probed | Step | PhaseBegan | Saved | Beat | Released | Done | Stopped | Failed
)
TO_RANK: TypeAdapter[ParentWord] = TypeAdapter(Annotated[ParentWord, Field(discriminator="type")])
FROM_RANK: TypeAdapter[RankWord] = TypeAdapter(Annotated[RankWord, Field(discriminator="type")])
