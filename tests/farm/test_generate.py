"""`wanfarm generate`: one video without a farm, and the same bytes as with one."""

import hashlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

from shared.jobs.removal import image_key
from shared.machinery.images import clean
from tests.farm.conftest import CAMERA, ROOT, House, environment

SMALL = ["--model", "wan-tiny-t2v", "--size", "64x64", "--frames", "5", "--steps", "2"]


class Alone:
    """Runs the verb as a person would, with the settings of a farm that need not be there."""

    def __init__(self, settings, folder: Path) -> None:
        nowhere = {"database_url": "postgresql://127.0.0.1:1/x", "redis_url": "redis://127.0.0.1:1"}
        self._environment = environment(settings, **nowhere)
        self.folder = folder

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "cli.main", "generate", *words, "-o", "out.mp4"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = self._environment | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(argv, env=environment, cwd=self.folder, **pipes)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=100)
            return process.returncode, out, err


@pytest.fixture
def alone(settings, checkpoints, tmp_path) -> Alone:
    folder = tmp_path / "here"
    folder.mkdir()
    return Alone(settings, folder)


@pytest.fixture
def lora(settings, tmp_path):
    """The settings with an adapter for the miniatures."""
    import torch

    folder = tmp_path / "loras" / "tint"
    folder.mkdir(parents=True)
    change = torch.randn(48, generator=torch.Generator().manual_seed(1))
    for part in ("high", "low"):
        save_file({"diffusion_model.blocks.2.ffn.2.diff_b": change}, folder / f"{part}.safetensors")
    return settings.model_copy(update={"lora_dir": folder.parent})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def latents_of(row: dict) -> str:
    return row["attempts"][0]["report"]["latents_sha256"]


def test_it_gives_the_bytes_that_a_farm_gives(house: House, completes, lora, tmp_path):
    """With an adapter, which leaves no trace; with a picture, which the API would clean alike."""
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((96, 80)).convert("RGB").save(picture, "JPEG", quality=60)
    image = clean(picture.getvalue(), limit=10**6)
    house.farm.storage.put_bytes(image.png, image_key(image.ref.sha256))
    house.start(models=("wan-tiny-t2v", "wan-tiny-i2v"), lora_dir=lora.lora_dir)
    tint = ({"name": "tint", "strength": 0.5, "target": "high"},)
    before, row, after = (
        completes(house.submit(prompt="a boat", loras=loras)) for loras in ((), tint, ())
    )
    assert latents_of(before) == latents_of(after) != latents_of(row)
    pictured = completes(house.submit(model="wan-tiny-i2v", image=image.ref, prompt="a boat"))

    alone = Alone(lora, tmp_path / "here")
    alone.folder.mkdir()
    code, out, err = alone("a boat", *SMALL, "--seed", "7", "--lora", "tint:0.5:high", "--json")

    assert code == 0, err
    told = json.loads(out)
    assert told["sha256"] == row["result"]["sha256"] == sha256(alone.folder / "out.mp4")
    assert told["report"]["latents_sha256"] == latents_of(row)
    assert told["report"]["loras"] == row["attempts"][0]["report"]["loras"]
    assert told["spec"] == row["spec"]
    assert [path.name for path in alone.folder.iterdir()] == ["out.mp4"]

    (alone.folder / "out.mp4").unlink()
    (alone.folder / "boat.jpg").write_bytes(picture.getvalue())
    model = ("--model", "wan-tiny-i2v")
    code, _, err = alone("a boat", *SMALL, *model, "--seed", "7", "--image", "boat.jpg")

    assert code == 0, err
    assert sha256(alone.folder / "out.mp4") == pictured["result"]["sha256"]


def test_an_adapter_that_the_workers_host_lacks_fails_its_video(house: House, eventually):
    house.start(engine=CAMERA)

    video_id = house.submit(loras=({"name": "tint"},))

    eventually(lambda: house.state(video_id) == "failed", within=60)
    error = house.row(video_id)["error"]
    assert (error["code"], error["attempt"]) == ("lora_mismatch", 1)
    assert "LoRA 'tint' is not on the worker's host" in error["message"]


@pytest.mark.long
def test_two_ranks_without_a_terminal_tell_their_phases_in_lines(alone: Alone):
    code, out, err = alone("a boat", *SMALL, "--gpus", "2")

    assert (code, out) == (0, f"{alone.folder / 'out.mp4'}\n")
    phases = [line.split()[1] for line in err.splitlines() if line.startswith("●")]
    assert phases == ["load", "text_encode", "denoise", "decode"]
    assert "in all, seed" in err.splitlines()[-1]


def test_an_interrupted_rendering_leaves_no_file(alone: Alone):
    with alone.start("a boat", *SMALL, "--steps", "100", "--frames", "33") as process:
        assert process.stderr is not None
        while "denoise" not in process.stderr.readline():
            pass

        process.send_signal(signal.SIGINT)

        _, err = process.communicate(timeout=30)
    assert (process.returncode, list(alone.folder.iterdir())) == (130, [])
    assert "No file was left." in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a boat", "--frames", "80"], 8, "frames is 80"),
        (["a boat", "--lora", "tnt"], 8, "loras names 'tnt'"),
        (["a boat", "--set", "frame=5"], 8, "Unknown field 'frame'"),
        (["a boat", "--model", "wan2.2-t2v-a14b"], 3, "wan2.2-t2v-a14b is not on this machine"),
        (["a boat", "--models-dir", "none"], 3, "wanfarm-mini --to"),
        (["a boat", "--precision", "fp7"], 2, "WANFARM_PRECISION is 'fp7'"),
        (["a boat", "--lora", "a:much"], 2, "'much' in 'a:much' is no strength"),
        ([], 8, "prompt is missing"),
    ],
    ids=["frames", "lora", "field", "weights", "mini", "setting", "strength", "prompt"],
)
def test_what_cannot_be_rendered_is_refused_in_the_words_of_the_api(alone, words, code, said):
    answered, out, err = alone(*words)

    assert (answered, out) == (code, "")
    assert said in err
    assert list(alone.folder.iterdir()) == []
