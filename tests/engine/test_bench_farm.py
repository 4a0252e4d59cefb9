"""The load on a farm is tried small, before a release: its figures are taken by hand."""

import json

import pytest
from click.testing import CliRunner

from bench import farm


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_farm_is_loaded_and_every_goal_has_its_figures(tmp_path):
    to = tmp_path / "farm.json"
    words = "--rate 20 --seconds 2 --processes 1 --model wan-tiny-t2v --videos 1 --finished 500"
    more = f"--waiting 2000 --listeners 60 --parents 1 --parents 2 --to {to}"

    told = CliRunner().invoke(farm.main, [*words.split(), *more.split()])

    assert told.exit_code == 0, told.output
    rows = {row["row"]: row for row in json.loads(to.read_text())["rows"]}
    assert all(0 < row["seconds"] <= row["p99_s"] <= row["max_s"] < 60 for row in rows.values())
    assert rows["submit, 20 a second"]["statuses"] == {"200": 40}
    assert rows["claim, 2 parents at once"]["rate_hz"] > 0
    crowd = rows["list, 60 listeners"]
    assert crowd["first_answers"] == {"200": 12, "503 too_many_streams": 48}
    assert crowd["served"] == crowd["told_the_end"] == 12
