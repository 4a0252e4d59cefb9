"""The verbs of whoever runs the farm."""

import json

import pytest
from sqlalchemy import select

from shared.jobs import groups
from shared.jobs.groups import Identity, Reading
from shared.machinery.tables import Tenant
from shared.vocabulary.states import GroupState
from tests.conftest import wait_for

G0 = Identity("g0", "life", "host", 4, "cuda", ("wan-tiny-t2v",))


@pytest.fixture
def group(farm):
    groups.register(farm, G0)
    groups.beat(farm, G0, Reading(GroupState.IDLE, warm_model="wan-tiny-t2v"))


@pytest.mark.usefixtures("group")
def test_groups_are_listed_with_their_state(wanfarm):
    head, row = wanfarm("groups", "ls").out.splitlines()

    shown = dict(zip(head.split("\t"), row.split("\t"), strict=True))
    assert (shown["name"], shown["state"], shown["ranks"]) == ("g0", "○ idle", "4")
    assert json.loads(wanfarm("groups", "ls", "--json").out)["object"] == "group"


@pytest.mark.usefixtures("group")
def test_a_group_is_drained_and_resumed(wanfarm):
    assert wanfarm("groups", "drain", "g0", "--requeue").out.rstrip().endswith("drains")
    assert json.loads(wanfarm("groups", "ls", "--json").out)["drain"] == "requeue"

    assert wanfarm("groups", "resume", "g0").out.rstrip().endswith("takes videos")
    assert "There is no group 'g9'" in wanfarm("groups", "drain", "g9").err


@pytest.mark.usefixtures("group")
def test_a_group_is_shown_and_a_drain_waits_until_it_rests(farm, wanfarm, started):
    assert "warm with    wan-tiny-t2v" in wanfarm("groups", "show", "g0").out
    process = started("groups", "drain", "g0", "--wait", "--json")
    wait_for(lambda: groups.find(groups.all_groups(farm), "g0")["drain"])
    assert process.poll() is None, "it waits for the group"

    groups.beat(farm, G0, Reading(GroupState.DRAINED))

    told = json.loads(process.communicate(timeout=20)[0])
    assert (process.returncode, told["state"]) == (0, "drained")


@pytest.mark.usefixtures("group")
def test_a_drain_that_takes_too_long_goes_on_without_us(wanfarm):
    said = wanfarm("groups", "drain", "g0", "--wait", "--timeout", 0)

    assert said.code == 5
    assert "g0 goes on draining" in said.err


@pytest.mark.usefixtures("group")
def test_somebody_resumes_a_group_while_we_wait_for_its_rest(wanfarm, started):
    process = started("groups", "drain", "g0", "--wait")
    wait_for(lambda: json.loads(wanfarm("groups", "show", "g0", "--json").out)["drain"])

    wanfarm("groups", "resume", "g0")

    assert "g0 was resumed" in process.communicate(timeout=20)[1]
    assert process.returncode == 1


def test_without_groups_the_way_to_one_is_shown(wanfarm):
    said = wanfarm("groups", "ls")

    assert "wanfarm worker run" in said.err


def test_queue_status_counts(wanfarm):
    wanfarm("submit", "a ball")

    assert wanfarm("queue", "status").out.splitlines()[0].split() == ["queued", "1"]
    assert json.loads(wanfarm("queue", "status", "--json").out)["counts"]["queued"] == 1


def test_the_queue_is_paused_and_resumed(wanfarm):
    assert "dispatch paused by test" in wanfarm("queue", "pause").out
    wanfarm("queue", "pause", "--intake", "--reason", "moving house")
    status = wanfarm("queue", "status").out
    assert "intake paused" in status
    assert "moving house" in status

    assert "nothing is paused" in wanfarm("queue", "resume").out
    assert wanfarm("submit", "a ball").code == 0


def test_a_key_is_made_used_listed_and_revoked(wanfarm):
    made = json.loads(wanfarm("keys", "create", "laptop", "--scope", "read", "--json").out)
    assert wanfarm("ls", key=made["key"]).code == 0

    assert made["key"] not in wanfarm("keys", "ls").out
    assert wanfarm("keys", "revoke", made["id"]).code == 0

    assert wanfarm("ls", key=made["key"]).code == 7


def test_a_key_may_say_how_much_its_tenant_weighs(wanfarm, farm):
    wanfarm("keys", "create", "lab", "--tenant", "lab", "--weight", "3")
    assert wanfarm("keys", "create", "lab", "--tenant", "lab", "--weight", "0").code != 0

    with farm.db.connect() as db:
        assert dict(db.execute(select(Tenant.name, Tenant.weight)).all())["lab"] == 3


def test_limits_of_a_key_are_given_changed_and_taken_away(wanfarm):
    made = json.loads(wanfarm("keys", "create", "lab", "--max-queued", "20", "--json").out)
    assert made["limits"]["max_queued"] == 20

    said = wanfarm("keys", "limit", made["id"], "--gpu-seconds-per-day", "7200.5").out
    assert "max_queued=20 gpu_seconds_per_day=7200.5" in said
    assert "gpu_seconds_per_day=7200.5" in wanfarm("keys", "ls").out

    wanfarm("keys", "limit", made["id"], "--max-queued", "default")
    limits = json.loads(wanfarm("keys", "ls", "--json").out.splitlines()[0])["limits"]
    assert (limits["max_queued"], limits["gpu_seconds_per_day"]) == (None, 7200.5)

    refused = wanfarm("keys", "limit", made["id"], "--max-queued", "many")
    assert (refused.code, "'many' is no number and not 'default'" in refused.err) == (2, True)


def test_a_new_key_is_all_that_stdout_has(wanfarm):
    said = wanfarm("keys", "create", "laptop")

    assert said.out.startswith("wf_")
    assert len(said.out.split()) == 1
    assert "not shown again" in said.err


@pytest.mark.usefixtures("group")
def test_models_are_listed_with_the_groups_that_take_them(wanfarm):
    head, *rows = (line.split("\t") for line in wanfarm("models", "ls").out.splitlines())

    shown = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert shown["wan-tiny-t2v"]["groups"] == "g0"
    assert shown["wan-tiny-t2v"]["notes"] == "default,warm"
    assert shown["wan2.2-t2v-a14b"]["steps"] == "40"


def test_the_openapi_document_is_the_same_from_a_farm_and_without_one(wanfarm):
    served = json.loads(wanfarm("openapi").out)

    offline = json.loads(wanfarm("openapi", "--offline").out)

    assert served == offline
    assert "/v1/videos" in served["paths"]
