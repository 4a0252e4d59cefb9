"""The benches run on the CPU as well, before a release: none is first tried on a GPU."""

import json

import pytest
from click.testing import CliRunner

from bench import cache, engine, job, jobs, pair, service

ON_CPU = ("--device", "cpu")


def ran(command, to, *words: str) -> list[dict]:
    told = CliRunner().invoke(command, [*words, "--to", str(to)])
    assert told.exit_code == 0, told.output
    return json.loads(to.read_text())["rows"]


@pytest.mark.parametrize("part", [engine, cache, service])
def test_a_part_of_wanfarm_bench_explains_itself(part):
    told = CliRunner().invoke(part.main, ["--help"])

    assert told.output.startswith("Usage:")


@pytest.mark.long
def test_two_ranks_are_timed_beside_one_and_compute_the_same(tmp_path):
    words = ("--shape", "tiny", "--rounds", "1")

    step, decode = ran(pair.main, tmp_path / "pair.json", *ON_CPU, *words)

    assert step["differences"].pop("ring 2") < 0.01  # bf16, added up in another order
    assert set(step["differences"]) == {"1 rank", "cfg 2", "ulysses 2"}
    assert set(decode["differences"]) == {"1 rank", "strips"}
    assert {*step["differences"].values(), *decode["differences"].values()} == {0.0}
    assert all(len(ms) == 1 for ms in step["samples_ms"].values())


@pytest.mark.long
def test_jobs_are_timed_from_one_to_the_next(tmp_path):
    words = ("--model", "wan-tiny-ti2v", "--steps", "4")

    rows = ran(job.main, tmp_path / "job.json", *ON_CPU, *words)

    assert [row["row"].partition(" ")[0] for row in rows] == ["load", "job", "idle", "cancel"]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_whole_jobs_are_timed_beside_diffusers(tmp_path):
    words = ("--model", "wan-tiny-t2v", "--steps", "4")

    (guided,) = ran(jobs.main, tmp_path / "guided.json", *words)
    (unguided,) = ran(jobs.main, tmp_path / "unguided.json", *words, "--unguided")

    assert set(guided["ratio"]) == {"diffusers", "bf16", "bf16, cached"}
    assert set(unguided["ratio"]) == {"diffusers", "bf16"}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_policies_are_swept_beside_the_uncached_video(models, tmp_path):
    words = [str(models / "wan-tiny-t2v"), "--scenes", "1", "--steps", "12"]

    rows = {row["row"]: row for row in ran(cache.main, tmp_path / "cache.json", *words)}

    assert rows["rdt 0.05"]["cached_ratio"] < rows["fast"]["cached_ratio"] < 1
    assert rows["mc 1"]["cached_ratio"] <= rows["mc 5"]["cached_ratio"]
    assert all(20 < psnr <= 99 for row in rows.values() for psnr in row["psnr_db"])
    assert all(0 < ssim <= 1 for row in rows.values() for ssim in row["ssim"])
    assert {row["right"] for row in rows.values()} == {0}  # random weights draw no scene


@pytest.mark.long
@pytest.mark.timeout(300)
def test_what_a_farm_adds_is_told_from_its_events(tmp_path):
    words = ("--model", "wan-tiny-t2v", "--device", "cpu", "--videos", "1", "--steps", "2")

    rows = {row["row"]: row["seconds"] for row in ran(service.main, tmp_path / "s.json", *words)}

    assert len(rows) == 6
    assert all(0 < seconds < 60 for seconds in rows.values())
