"""`wanfarm bench serve` against a real server, whose worker is played by hand."""

import copy
import json
import threading

import pytest

from cli.bench import slower_than
from shared.jobs import lifecycle
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from tests.cli.conftest import Worker


@pytest.fixture
def busy(worker: Worker):
    """Somebody who completes whatever waits, until the test ends."""
    over = threading.Event()

    def render() -> None:
        while not over.wait(0.02):
            if claim := worker.claim():
                worker.complete(claim)

    thread = threading.Thread(target=render)
    thread.start()
    yield
    over.set()
    thread.join(10)


@pytest.mark.usefixtures("busy")
def test_videos_go_through_the_farm_and_are_summed_up(wanfarm, tmp_path):
    said = wanfarm("bench", "serve", "-n", 4, "-c", 2, "--steps", 2, "-o", tmp_path / "a.json")

    assert said.code == 0, said.err
    assert "4 of 4 videos, 2 at a time" in said.out
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["request"]["steps"] == 2
    assert len({run["id"] for run in record["runs"]}) == 4
    assert record["videos_per_hour"] > 0
    for run in record["runs"]:
        assert run["end_to_end_s"] >= run["run_s"] >= 0


def test_a_video_that_fails_is_no_success(started, worker, eventually):
    process = started("bench", "serve", "-n", 1)
    claim = eventually(worker.claim, within=30)
    lifecycle.give_back(worker.farm, claim, JobFailure(FailureKind.BAD_INPUT, "It is too odd."))

    out, _ = process.communicate(timeout=30)

    assert process.returncode == 3
    assert "0 of 1 videos" in out


RECORD = {
    "times": {
        "wait_s": {"p25": 0.0, "p50": 0.0, "p75": 0.0},
        "run_s": {"p25": 9.9, "p50": 10.0, "p75": 10.1},
        "end_to_end_s": {"p25": 10.0, "p50": 12.0, "p75": 16.0},
    }
}


@pytest.mark.parametrize(
    ("name", "median", "found"),
    [
        ("run_s", 10.4, []),
        ("run_s", 10.6, ["run_s is 1.06 times what it was; 5% would be noise"]),
        ("end_to_end_s", 17.9, []),
        ("end_to_end_s", 18.6, ["end_to_end_s is 1.55 times what it was; 50% would be noise"]),
    ],
)
def test_slower_is_what_noise_does_not_explain(name, median, found):
    now = copy.deepcopy(RECORD)
    now["times"][name]["p50"] = median

    assert list(slower_than(RECORD, now)) == found


@pytest.mark.usefixtures("busy")
def test_a_regression_is_exit_code_1(wanfarm, tmp_path):
    times = {name: dict.fromkeys(("p25", "p50", "p75"), 1e-06) for name in RECORD["times"]}
    (tmp_path / "old.json").write_text(json.dumps({"object": "bench.serve", "times": times}))

    said = wanfarm("bench", "serve", "-n", 1, "--against", tmp_path / "old.json")

    assert said.code == 1
    assert "slower: end_to_end_s is" in said.out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"object": "bench.serve", "times": {}}'])
def test_what_is_no_record_is_refused_before_anything_is_rendered(wanfarm, tmp_path, text):
    (tmp_path / "old.json").write_text(text)

    said = wanfarm("bench", "serve", "--against", tmp_path / "old.json")

    assert said.code == 2
    assert "holds no finished run" in said.err
    assert wanfarm("ls", "-q").out == ""


def test_seeds_can_only_count_up_from_a_number(wanfarm):
    said = wanfarm("bench", "serve", "--set", "seed=red")

    assert said.code == 2
    assert "seed is 'red'" in said.err


def test_a_part_explains_itself(started):
    out, err = started("bench", "overhead", "--help").communicate(timeout=60)

    assert "Usage:" in out, err
