"""The verbs of batches, against a real server."""

import hashlib
import json

import pytest

from shared.jobs import lifecycle
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from tests.cli.conftest import CONTENT


@pytest.fixture
def batch_id(wanfarm) -> str:
    return wanfarm("submit", "a ball", "-n", 2, "--grid", "steps=5,6", "-q").out.strip()


def test_submit_makes_a_batch_of_seeds_and_settings(wanfarm, batch_id):
    made = json.loads(wanfarm("batch", "get", batch_id, "--json").out)

    assert batch_id.startswith("batch_")
    assert (made["total"], made["axes"]["steps"], len(made["axes"]["seed"])) == (4, [5, 6], 2)
    listed = wanfarm("ls", "--batch", batch_id, "-q").out.split()
    assert sorted(listed) == [item["video_id"] for item in made["items"]]


@pytest.mark.parametrize(
    ("grid", "values"),
    [
        ("cache=off,fast", ["off", "fast"]),
        ("guidance_high=2.5,3", [2.5, 3]),
        ('prompt=["a cat, asleep","a dog"]', ["a cat, asleep", "a dog"]),
    ],
)
def test_values_of_a_grid_are_read_as_those_of_set(wanfarm, grid, values):
    prompt = [] if grid.startswith("prompt") else ["a ball"]

    made = json.loads(wanfarm("submit", *prompt, "--grid", grid, "--json").out)

    assert [*made["axes"].values()] == [values]


@pytest.mark.parametrize("grid", ["steps", "=5"])
def test_a_grid_that_cannot_be_read_is_a_usage_error(wanfarm, grid):
    assert wanfarm("submit", "a ball", "--grid", grid).code == 2


def test_a_fault_is_told_with_its_place(wanfarm):
    said = wanfarm("submit", "a ball", "-n", 2, "--grid", "steps=5,500", "--grid", "frames=17,18")

    assert said.code == 8
    assert "frames is 18" in said.err
    assert "at grid.frames[1]" in said.err
    assert "grid.steps[1]: steps is 500" in said.err


def test_what_is_left_is_shown_and_stopped(wanfarm, worker, batch_id):
    worker.complete(worker.claim())
    wanfarm("batch", "cancel", batch_id, "--reason", "enough")

    said = wanfarm("batch", "get", batch_id).out

    assert "1 completed, 3 cancelled" in said
    assert "steps=5 seed=" in said
    head, row = wanfarm("batch", "ls").out.splitlines()
    shown = dict(zip(head.split("\t"), row.split("\t"), strict=True))
    assert (shown["id"], shown["videos"]) == (batch_id, "1 completed, 3 cancelled")
    assert wanfarm("batch", "rm", batch_id).code == 0
    assert "There is no batch" in wanfarm("batch", "get", batch_id).err


def test_the_sheet_is_saved(wanfarm, worker, batch_id, tmp_path):
    early = wanfarm("batch", "sheet", batch_id, "-o", tmp_path / "sheet.jpg")
    worker.complete(worker.claim())

    said = wanfarm("batch", "sheet", batch_id, "-o", tmp_path / "sheet.jpg")

    assert (early.code, said.code) == (1, 0)
    assert "sheet_not_ready" in early.err
    assert (tmp_path / "sheet.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert said.out.strip() == str(tmp_path / "sheet.jpg")


def test_wait_stays_until_the_last_has_ended_and_saves_what_there_is(
    started, worker, tmp_path, eventually
):
    process = started("submit", "a ball", "-n", 2, "--wait", "-o", "mine")

    first, second = (eventually(worker.claim) for _ in range(2))
    failure = JobFailure(FailureKind.BAD_INPUT, "It is too odd.")
    lifecycle.give_back(worker.farm, second, failure)
    worker.complete(first)

    out, err = process.communicate(timeout=20)
    assert process.returncode == 3, err
    assert out.strip().startswith("batch_")
    assert "1 completed, 1 failed" in err
    (saved,) = (tmp_path / "mine").iterdir()
    assert saved.stem == first.fence.video_id
    assert hashlib.sha256(saved.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()


def test_a_wait_that_takes_too_long_is_exit_code_5(wanfarm):
    assert wanfarm("submit", "a ball", "-n", 2, "--wait", "--timeout", 0.3).code == 5


def test_many_videos_do_not_fit_into_stdout(wanfarm):
    assert wanfarm("submit", "a ball", "-n", 2, "-o", "-").code == 2
