"""One video on this machine: the ranks of a worker, and no farm around them.

`python -m worker.alone WISH` takes a wish as JSON, and tells as lines of JSON what is rendered,
each phase and step, and the end. SIGINT stops it cleanly; `wanfarm generate` shows it to people.
"""

import hashlib
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final

from shared.machinery.images import CleanImage, clean
from shared.machinery.logs import configure
from shared.machinery.loras import Loras
from shared.machinery.settings import ConfigurationError, Settings, load_settings
from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.cache_levels import settle
from shared.vocabulary.catalog import BUNDLED, MODELS
from shared.vocabulary.errors import JobFailure, RequestRejected, WanfarmError
from shared.vocabulary.request import VideoRequest
from shared.vocabulary.resolve import Resolved, resolve
from shared.vocabulary.spec import FailureKind, GenerationSpec, Value
from shared.vocabulary.states import Phase
from shared.vocabulary.validation import validate
from worker.checkpoints import find
from worker.inputs import adapters_of
from worker.layout import build_of, group_of, lay_out
from worker.ranks.faults import RankFault, RankStopped
from worker.ranks.group import Progress
from worker.ranks.messages import Done, Generate, Load, PhaseBegan, Step

_JOB: Final = ("video_alone", 1)
# Exit codes are those of the command line.
_ERROR: Final = 1
_USAGE: Final = 2
_FAILED: Final = 3
_REJECTED: Final = 8
_INTERRUPTED: Final = 130


class Wish(Value):
    """What to render, with which settings, to where."""

    request: dict[str, Any]  # fields as the API takes them, but for the image
    image: Path | None = None
    output: Path
    settings: dict[str, Any]  # by field; they beat the environment


class Alone:
    """The ranks of one video, from their start to the finished file."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; `render` starts the processes."""
        self._settings = settings
        self._rendering = False
        self._ranks = group_of(settings)

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Stop at the next forward; what cannot stop so ends at once, as does a second signal."""
        if not self._rendering:
            raise KeyboardInterrupt
        self._rendering = False
        self._ranks.cancel(_JOB)

    def render(self, resolved: Resolved, image: CleanImage | None, scratch: Path) -> Done:
        """Render into the scratch directory.

        Raises:
            RankFault: with what went wrong.
            RankStopped: when it was interrupted.
        """
        spec, settings = resolved.spec, self._settings
        adapters = adapters_of(spec, Loras(settings.lora_dir))
        cache = _cache(spec, settings)
        directory = _checkpoint(spec, settings)
        if image is not None:
            (scratch / "image.png").write_bytes(image.png)
        try:
            _tell("phase", phase=Phase.LOAD.value)
            self._ranks.start()
            layout = lay_out(spec, settings, self._ranks.hellos, cache, 0)
            build = build_of(settings)
            self._ranks.load(
                Load(model=spec.model, directory=str(directory), plan=layout, build=build)
            )
            command = Generate(
                video_id=_JOB[0],
                attempt=_JOB[1],
                spec=spec,
                plan=layout,
                image=str(scratch / "image.png") if image else None,
                out=str(scratch / "video.mp4"),
                cache=cache,
                loras=adapters,
            )
            return self._generate(command)
        finally:
            self._ranks.stop()

    def _generate(self, command: Generate) -> Done:
        self._rendering = True
        closing = self._ranks.generate(command, _hear)
        self._rendering = False
        while self._ranks.close_some():
            pass
        return closing.result()


def main() -> int:
    """Render one wish; returns the exit code."""
    wish = Wish.model_validate_json(sys.argv[1])
    try:
        return _run(wish)
    except ConfigurationError as err:
        return _end(_USAGE, str(err))
    except RequestRejected as err:
        return _end(_REJECTED, err.message, *(fault.message for fault in err.faults[1:]))
    except WanfarmError as err:
        return _end(_REJECTED, err.message)
    except RankStopped as stopped:
        return _end(_INTERRUPTED, f"Stopped after step {stopped.step}. No file was left.")
    except KeyboardInterrupt:
        return _end(_INTERRUPTED, "Stopped. No file was left.")
    except RankFault as fault:
        return _end(_FAILED, fault.failure.message, *fault.trace.splitlines())
    except OSError as err:
        return _end(_ERROR, f"{err.filename or wish.output}: {err.strerror}.")


def _run(wish: Wish) -> int:
    settings = load_settings(**wish.settings)
    configure("WARNING", service="generate")
    alone = Alone(settings)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, alone.interrupt)
    began = time.monotonic()
    image = None
    if wish.image is not None:
        image = clean(wish.image.read_bytes(), limit=settings.max_image_bytes)
    resolved = resolve(
        validate(VideoRequest, wish.request, lax=False),
        default_text_model=settings.default_text_model,
        default_image_model=settings.default_image_model,
        image=image.ref if image else None,
        adapters=Loras(settings.lora_dir),
    )
    _tell("spec", spec=resolved.spec.model_dump(mode="json"), warnings=list(resolved.warnings))
    # beside the output: the finished file is moved there whole
    with tempfile.TemporaryDirectory(dir=wish.output.absolute().parent, prefix=".wanfarm-") as made:
        done = alone.render(resolved, image, Path(made))
        content = Path(done.file.path).read_bytes()
        Path(done.file.path).replace(wish.output)
    _tell(
        "done",
        output=str(wish.output),
        seconds=round(time.monotonic() - began, 3),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        report=done.report.model_dump(mode="json"),
    )
    return 0


def _checkpoint(spec: GenerationSpec, settings: Settings) -> Path:
    directory = find(settings, MODELS[spec.model])
    if directory is not None:
        return directory
    advice = "Put it into WANFARM_MODELS_DIR or the Hugging Face cache."
    if spec.model in BUNDLED:
        build = f"wanfarm-mini --to {settings.models_dir} --model {spec.model}"
        advice = f"Build it: {build}"
    message = f"{spec.model} is not on this machine. Nothing is ever downloaded. {advice}"
    raise RankFault(JobFailure(FailureKind.BAD_CHECKPOINT, message))


def _cache(spec: GenerationSpec, settings: Settings) -> CachePolicies | None:
    settled = settle(spec.cache, settings.cache, spec.card)
    if settled is None:
        return None
    if faults := settled.faults(spec.card):
        raise RequestRejected(list(faults))
    return settled.policies


def _hear(message: Progress) -> None:
    if isinstance(message, PhaseBegan):
        _tell("phase", phase=message.phase.value)
    elif isinstance(message, Step):
        told = message.model_dump(mode="json", include={"step", "steps", "expert"})
        _tell("step", phase=Phase.DENOISE.value, step_s=round(message.seconds, 4), **told)


def _end(code: int, message: str, *more: str) -> int:
    _tell("ended", exit=code, message=message, more=list(more))
    return code


def _tell(kind: str, **facts: object) -> None:
    """Say a line; without a listener there is nobody to render for."""
    try:
        sys.stdout.write(json.dumps({"type": kind} | facts, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise KeyboardInterrupt from None


if __name__ == "__main__":
    sys.exit(main())
