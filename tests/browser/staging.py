"""Plays a worker's part by the very functions a worker calls, so that pages have life."""

import subprocess
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import imageio_ffmpeg

from shared.jobs import groups, intake, lifecycle, orders, running
from shared.jobs.ledger import Fence
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.request import Overrides
from shared.vocabulary.resolve import resolve
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState

HIGH, STEPS = 9, 20  # the switch of the 20-step miniature
_LANES = {"cond": "XXXXccXccXXXccXccXcc", "uncond": "XXXXccXccXXXccXXcXcc"}


@dataclass(frozen=True)
class Clip:
    """The file that a job ends with: a moving test picture, by default in the miniature's shape."""

    width: int = 128
    height: int = 128
    frames: int = 33
    fps: int = 16


CLIP = Clip()


@dataclass
class Stage:
    """A farm with one group that does what it is told."""

    farm: Farm
    key_id: str
    group: str = "g0"

    def submit(self, prompt: str, **fields: object) -> str:
        wanted = Overrides.model_validate({"prompt": prompt, "seed": 7} | fields)
        resolved = resolve(
            wanted, default_text_model="wan-tiny-t2v", default_image_model="wan-tiny-i2v"
        )
        order = orders.Order(
            tenant="default",
            key_id=self.key_id,
            key_name="ops-laptop",
            spec=resolved.spec,
            delivery=resolved.delivery,
            asked=resolved.asked,
            warnings=resolved.warnings,
        )
        return intake.submit(self.farm, order).video_id

    def claim(self) -> lifecycle.Claim:
        models = ("wan-tiny-t2v", "wan-tiny-i2v", "wan-tiny-ti2v")
        claimed = lifecycle.claim(self.farm, Offer(self.group, "life-1", 2, models))
        assert claimed is not None
        running.record_plan(self.farm, claimed.fence, {"ranks": 2, "cfg": 2}, {"high": None})
        return claimed

    def phase(self, fence: Fence, name: str, progress: int, detail: dict | None = None) -> None:
        columns = {"progress": progress, "detail": (detail or {}) | {"phase": name}}
        running.report(self.farm, fence, "phase", {"name": name, "progress": progress}, columns)

    def step(self, fence: Fence, step: int) -> None:
        detail = detail_at(step)
        told = {name: detail[name] for name in ("step", "steps", "expert", "cached", "step_s")}
        columns = {"progress": 5 + 85 * step // STEPS, "detail": detail}
        running.report(self.farm, fence, "step", told, columns)

    def denoise(self, fence: Fence, upto: int) -> None:
        self.phase(fence, "text_encode", 2)
        self.phase(fence, "denoise", 5)
        for step in range(1, upto + 1):
            self.step(fence, step)

    def complete(
        self, fence: Fence, *, pattern: dict | None = None, clip: Clip = CLIP, steps: int = STEPS
    ) -> None:
        for name, progress in (("decode", 90), ("encode", 96), ("store", 98)):
            self.phase(fence, name, progress, detail_at(steps))
        files = self._files(fence, clip)
        video = files["video"]
        result = {
            "attempt": fence.attempt, "codec": "h264", "files": files, "bytes": video["bytes"],
            "sha256": video["sha256"],
        } | asdict(clip)  # fmt: skip
        report = {
            "phase_seconds": {"text_encode": 0.2, "denoise": 6.1, "decode": 0.6, "encode": 0.2},
            "switch_step": HIGH,
            "steps": [step_cost(step) for step in range(1, steps + 1)],
            "peak_memory_bytes": 412_000_000,
            "pattern": pattern or pattern_at(steps),
        }
        lifecycle.complete(self.farm, fence, result, report)

    def give_back(self, claimed: lifecycle.Claim, kind: FailureKind, message: str) -> None:
        lifecycle.give_back(self.farm, claimed, JobFailure(kind, message))

    def beat(
        self, condition: GroupState, video_id: str | None = None, name: str = "", **told: object
    ) -> None:
        models = ("wan-tiny-t2v", "wan-tiny-i2v")
        who = groups.Identity(name or self.group, "life-1", "gpu-box", 2, "cpu", models)
        groups.register(self.farm, who)
        devices = [
            {"rank": rank, "pid": 100 + rank, "device": "cpu", "memory_bytes": used}
            for rank, used in enumerate((702_000_000, 689_000_000))
        ]
        reading = groups.Reading(condition, "wan-tiny-t2v", video_id, devices=devices)
        groups.beat(self.farm, who, replace(reading, **told))

    def _files(self, fence: Fence, clip: Clip) -> dict[str, dict]:
        folder = f"videos/{fence.video_id}/{fence.attempt}"
        made = self.farm.settings.data_dir / "staged" / "-".join(map(str, astuple(clip)))
        made.mkdir(parents=True, exist_ok=True)
        sources = {"video": made / "video.mp4", "thumbnail": made / "thumbnail.webp"}
        if not sources["video"].exists():
            test_video(sources["video"], clip)
            _ffmpeg("-i", sources["video"], "-frames:v", "1", sources["thumbnail"])
        stored = {
            name: self.farm.storage.put(path, f"{folder}/{path.name}")
            for name, path in sources.items()
        }
        return {
            name: {"key": one.key, "bytes": one.bytes, "sha256": one.sha256}
            for name, one in stored.items()
        }


def expert_at(step: int) -> str:
    return "high" if step < HIGH else "low"


def pattern_at(step: int) -> dict[str, dict[str, str]]:
    done = {branch: lane[:step] for branch, lane in _LANES.items()}
    split = {
        "high": {branch: lane[: HIGH - 1] for branch, lane in done.items()},
        "low": {branch: lane[HIGH - 1 :] for branch, lane in done.items()},
    }
    return {expert: lanes for expert, lanes in split.items() if lanes["cond"]}


def detail_at(step: int) -> dict:
    cached = {branch: lane[step - 1] == "c" for branch, lane in _LANES.items()}
    return {
        "phase": "denoise", "step": step, "steps": STEPS, "switch_step": HIGH,
        "expert": expert_at(step), "cached": cached, "step_s": step_cost(step)["seconds"],
        "pattern": pattern_at(step), "updated_at": 0,
    }  # fmt: skip


def step_cost(step: int) -> dict:
    cached = all(lane[step - 1] == "c" for lane in _LANES.values())
    return {"step": step, "expert": expert_at(step), "seconds": 0.12 if cached else 0.44}


def test_video(path: Path, clip: Clip) -> None:
    """A moving test picture of that shape."""
    source = f"testsrc2=size={clip.width}x{clip.height}:rate={clip.fps}"
    _ffmpeg("-f", "lavfi", "-i", source, "-frames:v", clip.frames, "-pix_fmt", "yuv420p", path)


test_video.__test__ = False


def _ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)
