"""/metrics: what it tells, in labels of closed sets, and to whom."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import close, create_app
from shared.jobs import groups, intake, lifecycle, pauses
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.metrics import METRICS, OTHER
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState
from tests.api.callers import OFFER, Caller, Hand, caller_of
from tests.services.jobs import MODEL, ago, edit, order
from tests.services.test_estimates import ran

Sample = tuple[str, dict[str, str], float]
PROMPT = "a wolf that nobody must read about"
OPEN = {  # what those who run the farm have named
    "version": re.compile(r"[0-9].*"),
    "method": re.compile(r"GET|HEAD|POST|DELETE|PATCH|OPTIONS|none"),
    "route": re.compile(r"none|/(?!.*(video_0|wolf)).*"),
    "status": re.compile(r"[1-5][0-9][0-9]"),
    "group": re.compile(r"g0"),
}


def scrape(app) -> list[Sample]:
    families = text_string_to_metric_families(app.test_client().get("/metrics").text)
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float | None:
    return next((v for n, had, v in samples if n == f"wanfarm_{name}" and had == labels), None)


def test_a_scrape_tells_what_waits_and_what_this_process_did(app, api: Caller, hand: Hand):
    api.make()
    hand.complete(hand.claim())
    api.make()
    api.get("/v1/videos/video_nobody")

    samples = scrape(app)

    told = {"model": MODEL, "state": "completed", "code": "none"}
    assert value(samples, "jobs", model=MODEL, state="queued") == 1
    assert value(samples, "jobs_submitted_total", model=MODEL) == 2
    assert value(samples, "webhooks_pending") == value(samples, "intake_paused") == 0
    assert value(samples, "jobs_finished_total", **told) is None  # another process's, as it were
    assert value(samples, "eta_within_range_ratio") is None  # nothing was foreseen
    route = {"method": "GET", "route": "/v1/videos/<video_id>", "status": "404"}
    assert value(samples, "http_request_duration_seconds_count", **route) == 1


def test_labels_hold_closed_sets_and_nothing_of_a_request(app, farm, api: Caller, hand: Hand):
    life = groups.Identity("g0", "life-1", "host", 1, "cpu", (MODEL,))
    groups.register(farm, life)
    app_farm = app.extensions["wanfarm"].farm
    made = api.make(prompt=PROMPT, metadata={"wolf": "wolf"})
    api.get(f"/v1/videos/{made['id']}?wolf=1")
    api.get(f"/wolf/{made['id']}")
    api.post(f"/v1/videos/{made['id']}/cancel")
    intake.submit(app_farm, order(app_farm, prompt=PROMPT))
    claim = lifecycle.claim(app_farm, OFFER)
    failure = JobFailure(FailureKind.BAD_INPUT, PROMPT)
    lifecycle.give_back(app_farm, claim, failure)

    samples = scrape(app)

    known = {one.name: one for one in METRICS}
    for name, labels, _ in samples:
        metric = known.get(name) or known[re.sub("_(bucket|sum|count)$", "", name)]
        sets = {label.name: label.values for label in metric.labels}
        assert set(labels) - {"le"} == set(sets), name
        for label, shown in labels.items():
            closed = sets.get(label)
            assert closed is None or shown in closed | {OTHER}, (name, labels)
            assert closed or label == "le" or OPEN[label].fullmatch(shown), (name, labels)
    ended = {"model": MODEL, "state": "failed", "code": "invalid_input"}
    assert value(samples, "jobs_finished_total", **ended) == 1
    assert value(samples, "job_attempts_total", model=MODEL, outcome="failed") == 1
    assert PROMPT not in str(samples)
    assert made["id"] not in str(samples)
    assert api.key not in str(samples)


def test_a_scrape_tells_how_groups_and_doors_stand(app, farm, api: Caller):
    life = groups.Identity("g0", "life-1", "host", 1, "cpu", (MODEL,))
    groups.register(farm, life)
    groups.beat(farm, life, groups.Reading(GroupState.BUSY))
    pauses.close(farm, ("dispatch",), by="somebody")
    edit(farm, api.make()["id"], run_after=ago(90))

    samples = scrape(app)

    states = {
        labels["state"]: shown for name, labels, shown in samples if name == "wanfarm_group_state"
    }
    assert {state for state, shown in states.items() if shown} == {"busy"}
    assert set(states) == {*GroupState}
    assert 0 <= value(samples, "group_heartbeat_age_seconds", group="g0") < 60
    assert (value(samples, "intake_paused"), value(samples, "dispatch_paused")) == (0, 1)
    assert 90 <= value(samples, "queue_oldest_age_seconds", model=MODEL) < 150
    assert value(samples, "queue_oldest_age_seconds", model="wan2.2-t2v-a14b") == 0


def test_a_scrape_tells_how_well_ends_were_foreseen(app, farm):
    for seconds in (10, 10, 40):
        ran(farm, seconds)

    samples = scrape(app)

    assert value(samples, "eta_within_range_ratio") == 0.5  # of two: of the first none was known
    assert value(samples, "eta_median_error_ratio") == 1.5


def test_the_farm_is_read_once_in_five_seconds(app, api: Caller):
    before = scrape(app)
    api.make()
    after = scrape(app)

    waiting = [value(one, "jobs", model=MODEL, state="queued") for one in (before, after)]
    taken_in = [value(one, "jobs_submitted_total", model=MODEL) for one in (before, after)]
    assert (waiting, taken_in) == ([0, 0], [None, 1])


def test_without_postgres_a_process_tells_of_itself_alone(settings):
    nowhere = {"database_url": "postgresql+psycopg://127.0.0.1:1/none"}
    lonely = create_app(settings.model_copy(update=nowhere))

    samples = scrape(lonely)
    close(lonely)

    assert value(samples, "jobs", model=MODEL, state="queued") is None
    assert value(samples, "sse_streams") == 0


@pytest.fixture
def closed(settings):
    made = create_app(settings.model_copy(update={"metrics_auth": True}))
    yield made
    close(made)


def test_metrics_may_be_for_those_with_a_key(closed, farm):
    assert closed.test_client().get("/metrics").json["error"]["code"] == "missing_key"

    answer = caller_of(closed, farm, "read").get("/metrics")

    assert answer.status_code == 200
    assert "wanfarm_sse_streams 0.0" in answer.text


def test_streams_without_a_place_are_counted(settings, farm):
    full = create_app(settings.model_copy(update={"max_streams": 1, "max_streams_per_key": 1}))
    caller = caller_of(full, farm, "submit")
    path = f"/v1/videos/{caller.make()['id']}/events"
    wanted = {"Accept": "text/event-stream"}
    held = caller.get(path, headers=wanted)

    refused = caller.get(path, headers=wanted)
    meanwhile = scrape(full)
    held.close()

    assert refused.status_code == 503
    assert value(meanwhile, "sse_refused_total") == 1
    assert [value(one, "sse_streams") for one in (meanwhile, scrape(full))] == [1, 0]
    close(full)
