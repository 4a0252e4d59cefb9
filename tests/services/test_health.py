"""A group whose GPU is ill takes itself out of service, and comes back when it is well."""

import pytest

from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState
from tests.services.jobs import let_back_off_pass, row, submit
from worker import health
from worker.health import Health
from worker.ranks.faults import RankFault

ILL = JobFailure(FailureKind.CUDA_ERROR, "It computed a wrong product.")
LARGE = JobFailure(FailureKind.OUT_OF_MEMORY, "It does not fit.")


def fails() -> None:
    raise RankFault(ILL)


def passes() -> None:
    pass


def never() -> None:
    pytest.fail("it was tested")


def after(*failures: JobFailure) -> Health:
    made = Health()
    for one in failures:
        made.failed(one)
    return made


@pytest.mark.parametrize(
    "failures", [(), (ILL,), (LARGE, LARGE, LARGE)], ids=["none", "one", "not its own"]
)
def test_a_group_without_a_streak_is_not_tested(failures):
    assert after(*failures).is_good(never)


def test_a_success_between_two_failures_ends_the_streak():
    group = after(ILL)
    group.well()
    group.failed(ILL)

    assert group.is_good(never)


def test_two_failures_in_a_row_ask_for_a_test_at_once():
    assert after(ILL, ILL).is_good(passes)


def test_a_failed_test_is_repeated_later_and_not_before():
    group = after(ILL, ILL)

    assert not group.is_good(fails)

    assert not group.is_good(never)
    assert group.told.startswith("Out of service after 2 failures in a row. The last: It computed")


def test_pauses_double_up_to_ten_minutes(monkeypatch):
    now = 0.0
    monkeypatch.setattr(health.time, "monotonic", lambda: now)
    group, pauses = after(ILL, ILL), []
    for _ in range(8):
        group.is_good(fails)
        pauses.append(group._test_at - now)
        now = group._test_at

    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]


def attempts(farm, ids: list[str]) -> int:
    return sum(len(row(farm, one)["attempts"]) for one in ids)


def test_a_sick_group_burns_no_attempts_and_takes_jobs_when_it_is_well(
    farm, checkpoint, start, monkeypatch
):
    monkeypatch.setattr(health, "_FIRST_PAUSE_S", 0.0)
    (checkpoint / "sick").touch()
    ids, parent = [submit(farm) for _ in range(3)], start("Poorly")

    parent.work()

    told = parent.runner.reading()
    assert told.condition is GroupState.DOWN
    assert "Out of service after 2 failures in a row" in told.problem
    assert told.failure_streak == 2
    assert attempts(farm, ids) == 2

    parent.work()
    assert attempts(farm, ids) == 2

    (checkpoint / "sick").unlink()
    for one in ids:
        let_back_off_pass(farm, one)
    parent.work()

    assert {row(farm, one)["state"] for one in ids} == {"completed"}
    well = parent.runner.reading()
    assert (well.problem, well.failure_streak) == (None, 0)
