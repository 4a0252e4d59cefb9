"""The doctor's look at what renders: ffmpeg, torch and its GPUs, the weights."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cli.checkpoints import find
from cli.findings import Check
from shared.machinery.settings import Settings
from shared.vocabulary.catalog import BUNDLED, MINIATURES, MODELS

_FRAMES: Final = 9
_FFMPEG_S: Final = 30
_TORCH_S: Final = 120  # the first import after an installation reads gigabytes
_ONLY_WORKERS: Final = "Only workers need it: `make setup` installs it."
# torch is never imported here: it would cost seconds and claim a GPU
_ASK_TORCH: Final = (
    "import json, torch; print(json.dumps({'cuda': torch.version.cuda, "
    "'available': torch.cuda.is_available(), 'gpus': torch.cuda.device_count()}))"
)


def ffmpeg(_settings: Settings) -> Iterator[Check]:
    """Encode a few frames to H.264 and decode them again."""
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:
        yield Check("engine", "ffmpeg", "warn", "imageio-ffmpeg is not installed", _ONLY_WORKERS)
        return
    program = imageio_ffmpeg.get_ffmpeg_exe()
    with tempfile.TemporaryDirectory() as folder:
        counted = _round_trip(program, Path(folder) / "probe.mp4")
    if counted == _FRAMES:
        text = f"h264 round trip of {_FRAMES} frames"
        yield Check("engine", "ffmpeg", "ok", text)
    else:
        text = f"{counted} of {_FRAMES} frames survived an h264 round trip"
        fix = "Reinstall imageio-ffmpeg: `pip install --force-reinstall imageio-ffmpeg`."
        yield Check("engine", "ffmpeg", "FAIL", text, fix)


def _round_trip(program: str, path: Path) -> int:
    picture = f"testsrc=size=64x64:rate=16:duration={_FRAMES / 16}"
    encode = [program, "-v", "error", "-f", "lavfi", "-i", picture, "-c:v", "libx264"]
    encode += ["-pix_fmt", "yuv420p", str(path)]
    decode = [program, "-hide_banner", "-i", str(path), "-f", "null", "-"]
    said = ""
    for command in (encode, decode):
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_FFMPEG_S
        )
        said = ran.stderr
    counted = re.findall(r"frame=\s*(\d+)", said)
    return int(counted[-1]) if counted else 0


def torch(_settings: Settings) -> Iterator[Check]:
    """Compare what torch was built for with the driver that is here."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        yield Check("engine", "torch", "warn", "not installed", _ONLY_WORKERS)
        return
    ran = subprocess.run(
        [sys.executable, "-c", _ASK_TORCH],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TORCH_S,
    )
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        fix = "Install it anew: `make clean`, then `make setup`."
        yield Check("engine", "torch", "FAIL", f"{version} cannot be imported: {said[:120]}", fix)
        return
    facts: dict[str, object] = json.loads(ran.stdout.strip().splitlines()[-1])
    built = f"CUDA {facts['cuda']}" if facts["cuda"] else "CPU only"
    yield Check("engine", "torch", "ok", f"{version}, {built}")
    yield _gpu(facts, gpus())


def gpus() -> list[str]:
    """Ask the driver which GPUs there are: `name, driver, memory`, or nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=name,driver_version,memory.total"
    ran = subprocess.run(
        [program, query, "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_FFMPEG_S,
    )
    return [line.strip() for line in ran.stdout.splitlines() if line.strip()]


def _gpu(facts: dict[str, object], found: list[str]) -> Check:
    if facts["available"]:
        return Check("engine", "gpu", "ok", "; ".join(found) or f"{facts['gpus']} seen by torch")
    if not found:
        fix = "The miniature models render on CPU. Wan2.2 itself needs an NVIDIA GPU."
        return Check("engine", "gpu", "warn", "none", fix)
    if not facts["cuda"]:
        fix = "Install a CUDA build: unset TORCH_WHEELS, `make clean`, then `make setup`."
        return Check("engine", "gpu", "FAIL", f"{found[0]}, but torch is a CPU build", fix)
    fix = f"Update the driver to one for CUDA {facts['cuda']}, or install an older torch."
    return Check("engine", "gpu", "FAIL", f"{found[0]}, but torch cannot use it", fix)


def weights(settings: Settings) -> Iterator[Check]:
    """Look for the checkpoint of every model that a worker here would take."""
    asked = "models" in settings.model_fields_set
    for name in settings.models if asked else MINIATURES:
        folder = settings.models_dir / MODELS[name].directory
        found = find(settings.models_dir, MODELS[name])
        if found is not None:
            yield Check("weights", name, "ok", str(found))
        elif name in BUNDLED:
            fix = "`wanfarm up` and `make demo` make it."
            yield Check("weights", name, "warn", f"not in {settings.models_dir}", fix)
        else:
            fix = f"Download {MODELS[name].repo} into {folder}, or set WANFARM_MODELS_DIR."
            yield Check("weights", name, "FAIL", f"not in {settings.models_dir}", fix)
