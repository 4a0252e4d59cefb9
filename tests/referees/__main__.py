"""Programs from outside judge a farm that renders: `make referees`, or one by its name.

Each is pinned, unmodified, and kept apart from the farm's own packages.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from standardwebhooks import Webhook

from bench.service import running
from mini.build import TRAINED
from shared.machinery.settings import child_environment
from tests.conftest import wait_for
from tests.referees.mutated import storm
from tests.services.receiver import Receiver

HERE = Path(__file__).parent
OUTSIDE = HERE / "outside"
INSTALLED = Path(sys.prefix) / "referees"
MOST_S = 1200.0
OPEN = {  # what judges a program is not how often it may ask
    "WANFARM_SUBMIT_PER_MIN": "0",
    "WANFARM_UPLOADS_PER_MIN": "0",
    "WANFARM_REQUESTS_PER_S": "0",
    "WANFARM_MAX_QUEUED": "100000",
    "WANFARM_MAX_QUEUED_PER_KEY": "100000",
    "WANFARM_DEFAULT_TEXT_MODEL": "wan-mini-t2v",
    "WANFARM_DEFAULT_IMAGE_MODEL": "wan-mini-ti2v",
    "WANFARM_WEBHOOK_ALLOW_PRIVATE": "true",
}


AIPERF_FIGURES = {"request_count", "video_inference_time", "video_peak_memory"}


# it finds its own key in the list, and then changes or revokes it
OWN_KEYS_LAST = [
    [f"--{which}-operation-id-regex", "^(patch|delete)_v1_keys"] for which in ("exclude", "include")
]


class Refused(Exception):
    """What a referee found."""


@dataclass(frozen=True)
class Farm:
    """A farm that renders, and a folder to leave things in."""

    client: httpx.Client
    folder: Path

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @property
    def key(self) -> str:
        return self.client.headers["Authorization"].removeprefix("Bearer ")


def run(name: str, *argv: object) -> str:
    """Run a program of a referee; gives what it printed.

    Raises:
        Refused: when it fails.
    """
    known = child_environment(PYTHONPATH=str(INSTALLED / name))
    ran = subprocess.run(
        [str(word) for word in argv],
        env=known,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MOST_S,
        check=False,
    )
    if ran.returncode:
        raise Refused(ran.stdout[-20_000:])
    return ran.stdout


def by_curl(farm: Farm) -> str:
    """Every form of a request, every kind of answer; the webhook by its own package."""
    secret = farm.client.get("/v1/webhooks/secret").raise_for_status().json()["secret"]
    script = OUTSIDE / "by_curl.sh"
    with Receiver() as receiver:
        said = run(
            "curl", "bash", script, farm.url, farm.key, farm.folder, get_ffmpeg_exe(), receiver.url
        )
        wait_for(lambda: receiver.got, within=30)
    told = [Webhook(secret).verify(one.body, one.headers) for one in receiver.got]
    assert [event["type"] for event in told] == ["video.completed"], told
    return f"{said.count('ok  ')} checks, and a webhook that standardwebhooks verifies"


def schemathesis(farm: Farm) -> str:
    """Requests made from /openapi.json, right ones and wrong ones, with bodies of JSON.

    Forms are laxer than any schema says: an empty text counts as absent.
    """
    document = farm.client.get("/openapi.json").raise_for_status().json()
    for operation in (one for path in document["paths"].values() for one in path.values()):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            operation["requestBody"]["content"] = {"application/json": content["application/json"]}
    described = farm.folder / "openapi.json"
    described.write_text(json.dumps(document))
    said = [
        run(
            "schemathesis",
            sys.executable, "-m", "schemathesis.cli",
            "--config-file", OUTSIDE / "schemathesis.toml",
            "run", described, "--url", farm.url,
            "--header", f"Authorization: Bearer {farm.key}",
            "--request-timeout", "70", "--max-examples", "12", "--continue-on-failure",
            "--no-shrink", *which,
        )
        for which in OWN_KEYS_LAST
    ]  # fmt: skip
    return "; ".join(_line(one, " generated, ") for one in said)


def aiperf(farm: Farm) -> str:
    """NVIDIA's load generator: 20 videos, four at a time, each fetched."""
    out, prompts = farm.folder / "aiperf", farm.folder / "prompts.jsonl"
    lines = [json.dumps({"text": f"a red ball moves left, number {n}"}) for n in range(5)]
    prompts.write_text("\n".join(lines))
    run(
        "aiperf",
        sys.executable, "-m", "aiperf", "profile",
        "--model", "wan-mini-t2v",
        "--url", farm.url,
        "--endpoint-type", "video-generation",
        "--api-key", farm.key,
        "--concurrency", "4",
        "--request-count", "20",
        "--download-video-content",
        "--extra-inputs", "size:128x128", "--extra-inputs", "frames:5", "--extra-inputs", "steps:2",
        "--input-file", prompts, "--custom-dataset-type", "single_turn",
        "--tokenizer", TRAINED / "wan-mini-t2v" / "tokenizer",
        "--no-gpu-telemetry", "--ui", "none",
        "--artifact-dir", out,
    )  # fmt: skip
    found = json.loads(next(out.rglob("profile_export_aiperf.json")).read_text())
    if found["error_summary"]:
        raise Refused(json.dumps(found["error_summary"]))
    told = {name: one["avg"] for name, one in found.items() if name in AIPERF_FIGURES}
    assert set(told) == AIPERF_FIGURES, found.keys()
    return json.dumps(told)


def sglang_text(farm: Farm) -> str:
    """SGLang's serving benchmark, from prompts."""
    return _sglang(farm, "text-to-video", "wan-mini-t2v", "--dataset", "random")


def sglang_image(farm: Farm) -> str:
    """SGLang's serving benchmark, from pictures."""
    pictures = farm.folder / "pictures"
    pictures.mkdir()
    for name, colour in (("a red wall", "red"), ("a blue wall", "blue")):
        Image.new("RGB", (96, 96), colour).save(pictures / f"{name}.png")
    words = ("--dataset", "vbench", "--dataset-path", pictures)
    return _sglang(farm, "image-to-video", "wan-mini-ti2v", *words)


def _sglang(farm: Farm, task: str, model: str, *words: object) -> str:
    out = farm.folder / f"{task}.json"
    said = run(
        "sglang",
        sys.executable, "-m", "sglang.multimodal_gen.benchmarks.bench_serving",
        "--base-url", farm.url, "--model", model, "--task", task, *words,
        "--num-prompts", "8", "--max-concurrency", "4",
        "--extra-body", json.dumps({"steps": 2}),
        "--output-file", out,
    )  # fmt: skip
    found = json.loads(out.read_text())
    if (found["completed_requests"], found["failed_requests"]) != (8, 0):
        raise Refused(said)
    return f"{found['completed_requests']} of 8, {found['completed_outputs']} outputs"


def mutated(farm: Farm) -> str:
    """Our own: requests with something broken in them."""
    found, verdict = storm(farm.client)
    if found:
        raise Refused("\n".join(map(str, found[:20])))
    return verdict


def _line(said: str, word: str) -> str:
    return next((line.strip() for line in said.splitlines() if word in line), said[-300:])


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# sglang's benchmark sends no key
REFEREES: dict[str, tuple[str, Callable[[Farm], str]]] = {
    "curl": ("keys", by_curl),
    "schemathesis": ("keys", schemathesis),
    "mutated": ("keys", mutated),
    "aiperf": ("keys", aiperf),
    "sglang-text": ("none", sglang_text),
    "sglang-image": ("none", sglang_image),
}


def main(names: list[str]) -> int:
    """Let each judge a farm of its own; fails when one refuses."""
    unknown = sorted(set(names) - set(REFEREES))
    if unknown:
        say(f"There is no referee {unknown[0]!r}. They are {', '.join(REFEREES)}.")
        return 2
    failed = 0
    for name in names or REFEREES:
        auth, judge = REFEREES[name]
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory() as folder,
            running(Path(folder) / "farm", **OPEN, WANFARM_AUTH=auth) as client,
        ):
            try:
                verdict = f"passed: {judge(Farm(client, Path(folder)))}"
            except Refused as found:
                say(str(found))
                verdict, failed = "FAILED", failed + 1
        say(f"{name:14} {time.monotonic() - began:5.0f} s  {verdict}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
