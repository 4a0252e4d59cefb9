"""What each story of a video adds to the figures of the process that tells it."""

from shared.jobs import lifecycle
from shared.jobs.tick import ring_again
from shared.machinery.farm import Farm
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.metrics import FINISHED
from shared.vocabulary.spec import FailureKind
from tests.services.jobs import (
    DIED,
    MODEL,
    RESULT,
    ago,
    claimed,
    edit,
    let_back_off_pass,
    let_lease_expire,
    submit,
    take,
)

CRASHED = JobFailure(FailureKind.BAD_INPUT, "It cannot be rendered.")


def figure(farm: Farm, name: str, **labels: str) -> float | None:
    return farm.meters.registry.get_sample_value(f"wanfarm_{name}", {"model": MODEL} | labels)


def ends(farm: Farm) -> dict[tuple[str, str], float]:
    """What has ended, by state and code."""
    return {
        (one.labels["state"], one.labels["code"]): one.value
        for family in farm.meters.registry.collect()
        if family.name == "wanfarm_jobs_finished"
        for one in family.samples
    }


def test_a_video_that_needs_two_attempts_ends_once(farm):
    claim = claimed(farm)
    lifecycle.give_back(farm, claim, DIED)
    let_back_off_pass(farm, claim.fence.video_id)
    lifecycle.complete(farm, take(farm).fence, RESULT, {})

    assert ends(farm) == {("completed", "none"): 1}
    assert figure(farm, "jobs_submitted_total") == 1
    assert figure(farm, "job_attempts_total", outcome="requeued") == 1
    assert figure(farm, "job_attempts_total", outcome="completed") == 1
    assert figure(farm, "job_queue_seconds_count", size="mini") == 2
    assert figure(farm, "job_run_seconds_count", size="mini") == 1


def test_what_is_written_twice_is_counted_once(farm):
    claim = claimed(farm)

    for _ in range(2):  # the answer to the first was lost
        lifecycle.complete(farm, claim.fence, RESULT, {})

    assert ends(farm) == {("completed", "none"): 1}


def test_ends_are_told_by_their_codes(farm):
    lifecycle.give_back(farm, claimed(farm), CRASHED)
    lifecycle.cancel(farm, submit(farm), by="somebody")
    submit(farm, start_within_s=1)
    late = submit(farm)
    edit(farm, late, start_by=ago(1))
    lifecycle.expire_deadlines(farm)

    assert ends(farm) == {
        ("failed", "invalid_input"): 1,
        ("cancelled", "cancelled"): 1,
        ("cancelled", "deadline_missed"): 1,
    }


def test_a_wait_is_counted_from_when_the_video_was_due(farm):
    video_id = submit(farm)
    edit(farm, video_id, run_after=ago(100), created_at=ago(1000))

    take(farm)

    assert 100 <= figure(farm, "job_queue_seconds_sum", size="mini") < 160


def test_a_lost_attempt_is_a_rescue(farm):
    farm.meters.begin("api")
    let_lease_expire(farm, claimed(farm).fence.video_id)

    lifecycle.rescue(farm)

    registry = farm.meters.registry
    assert registry.get_sample_value("wanfarm_leases_rescued_total") == 1
    assert figure(farm, "job_attempts_total", outcome="requeued") == 1


def test_rings_are_told_by_their_cause(farm, eventually):
    claim = claimed(farm)
    lifecycle.requeue_uncharged(farm, claim.fence, "The worker is leaving.")
    eventually(lambda: farm.doorbell.waiting(MODEL) == 2)
    submit(farm)
    submit(farm)
    eventually(lambda: farm.doorbell.waiting(MODEL) == 4)
    farm.doorbell._redis.delete(f"{farm.settings.key_prefix}wanfarm.{MODEL}")

    assert ring_again(farm) == 3

    rung = farm.meters.registry.get_sample_value
    sources = ("submit", "requeue", "tick")
    assert [rung("wanfarm_doorbells_total", {"source": one}) for one in sources] == [3, 1, 3]


def test_counters_begin_at_zero(farm):
    farm.meters.begin("worker", [MODEL])

    assert ends(farm)[("failed", "engine_hung")] == 0
    assert farm.meters.registry.get_sample_value("wanfarm_doorbells_lost_total") == 0
    assert farm.meters.registry.get_sample_value("wanfarm_sse_refused_total") is None


def test_what_is_in_no_closed_set_is_told_as_other(farm):
    farm.meters.count(FINISHED, model="wan9", state="completed", code="a code of tomorrow")

    assert ends(farm) == {("completed", "other"): 1}
    assert figure(farm, "jobs_finished_total", model="other", state="completed", code="other") == 1
