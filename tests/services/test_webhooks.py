"""Webhooks: born with the move, signed, sent until they are taken, and the log tells the truth."""

import socket
import subprocess
import sys

import pytest
from sqlalchemy import event, update
from standardwebhooks import WebhookVerificationError

from shared.jobs import deliveries, keys, lifecycle, removal, webhooks
from shared.jobs.deliveries import WAITS_S, Answer
from shared.machinery.settings import child_environment
from shared.machinery.tables import Tenant, WebhookDelivery
from shared.vocabulary.errors import StaleAttempt
from tests.farm.conftest import ROOT
from tests.services.hooks import (
    NO,
    RESULT,
    completed,
    due_in_s,
    let_be_due,
    listen,
    log,
    secret,
    send,
    told,
)
from tests.services.jobs import DIED, ago, claimed, row, submit, take
from tests.services.receiver import Receiver
from worker import upkeep


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"webhook_allow_private": True})


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


def fail(farm, claim) -> None:
    lifecycle.give_back(farm, claim, DIED)


# --- who is told of what


def test_a_move_to_an_end_tells_those_who_want_it(farm):
    listen(farm, "http://all/")
    listen(farm, "http://good/", "video.completed")
    listen(farm, "http://begin/", "video.in_progress")
    listen(farm, "http://others/", tenant="others")
    webhooks.change(farm, listen(farm, "http://off/")["id"], {"enabled": False})

    completed(farm, webhook_url="http://own/")

    begun, *ends = told(farm)[::-1]
    assert begun == ("video.in_progress", "http://begin/")
    assert {url for _, url in ends} == {"http://all/", "http://good/", "http://own/"}
    assert {kind for kind, _ in ends} == {"video.completed"}
    assert len({one["id"] for one in log(farm)}) == 4


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda farm: fail(farm, claimed(farm, max_attempts=1)), "video.failed"),
        (lambda farm: fail(farm, claimed(farm, max_attempts=2)), None),
        (lambda farm: lifecycle.cancel(farm, submit(farm), by="me"), "video.cancelled"),
        (lambda farm: lifecycle.cancelled(farm, claimed(farm).fence), "video.cancelled"),
    ],
    ids=["failed", "put back", "cancelled while it waited", "cancelled while it ran"],
)
def test_each_end_is_told_and_nothing_else(farm, end, kind):
    listen(farm, "http://all/")

    end(farm)

    assert told(farm) == ([(kind, "http://all/")] if kind else [])


def test_the_statement_that_moves_a_video_writes_its_webhooks(farm):
    """So there is no line between the two at which a crash would lose one."""
    listen(farm, "http://all/")
    fence = claimed(farm).fence
    statements = []
    event.listen(farm.db, "before_cursor_execute", lambda *a: statements.append(a[2]))

    lifecycle.complete(farm, fence, RESULT, {})

    assert [one["type"] for one in log(farm)] == ["video.completed"]
    writing = [one for one in statements if "UPDATE" in one or "INSERT" in one]
    assert len(writing) == 1


def test_a_move_that_is_refused_tells_nobody(farm):
    listen(farm, "http://all/")
    claim = claimed(farm)
    lifecycle.requeue_uncharged(farm, claim.fence, "drained")
    take(farm)

    with pytest.raises(StaleAttempt):
        lifecycle.complete(farm, claim.fence, RESULT, {})

    assert log(farm) == []


# --- what is sent


def test_a_receiver_verifies_what_it_gets(farm, receiver):
    hook = listen(farm, receiver.url)
    video_id = completed(farm)

    send(farm)

    (got,) = receiver.got
    said = got.verify(secret(farm))
    assert (said["id"], said["type"], said["object"]) == (got.id, "video.completed", "event")
    assert (said["data"]["id"], said["data"]["status"]) == (video_id, "completed")
    assert said["created_at"] == int(row(farm, video_id)["completed_at"].timestamp())
    (one,) = log(farm)
    assert (one["id"], one["endpoint_id"], one["tries"]) == (got.id, hook["id"], 1)
    assert (one["status_code"], one["response_head"], one["problem"]) == (200, "thank you", None)
    assert one["delivered_at"] is not None


def test_a_changed_body_or_a_foreign_secret_does_not_verify(farm, receiver):
    listen(farm, receiver.url)
    completed(farm)
    send(farm)
    (got,) = receiver.got
    keys.ensure_tenant(farm, "others")

    for wrong in (webhooks.secrets_of(farm, "others").current, "whsec_" + "A" * 43 + "="):
        with pytest.raises(WebhookVerificationError):
            got.verify(wrong)
    with pytest.raises(WebhookVerificationError):
        type(got)(got.path, got.headers, got.body + b" ").verify(secret(farm))


def test_every_try_sends_the_same_id_and_the_same_bytes(farm, receiver):
    listen(farm, receiver.url, "video.in_progress")
    claim = claimed(farm)
    receiver.status = 500
    send(farm)
    lifecycle.complete(farm, claim.fence, RESULT, {})  # the video goes on in the meantime

    receiver.status = 204
    let_be_due(farm)
    send(farm)

    first, second = receiver.got
    assert (first.id, first.body) == (second.id, second.body)
    assert first.verify(secret(farm)) == second.verify(secret(farm))
    (one,) = log(farm)
    assert (one["tries"], one["status_code"]) == (2, 204)
    assert send(farm) == 0


def test_for_a_day_after_a_rotation_both_secrets_sign(farm, receiver):
    listen(farm, receiver.url)
    before = secret(farm)
    after = webhooks.rotate(farm, "default").current
    completed(farm)
    send(farm)

    with farm.db.connect() as db:
        db.execute(update(Tenant).values(former_until=ago(1)))
    completed(farm)
    send(farm)

    during, later = receiver.got
    assert before != after
    assert during.verify(before) == during.verify(after)
    assert later.verify(after)
    with pytest.raises(WebhookVerificationError):
        later.verify(before)


def test_a_test_event_needs_no_video(farm, receiver):
    hook = listen(farm, receiver.url)
    webhooks.test(farm, hook)

    send(farm)

    said = receiver.got[0].verify(secret(farm))
    assert (said["type"], said["data"]) == ("webhook.test", {"id": hook["id"], "object": "webhook"})


def test_the_receiver_of_the_documentation_verifies_what_it_gets(farm, eventually):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = (ROOT / "docs/how-to/webhooks.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    listen(farm, f"http://127.0.0.1:{port}/")
    video_id = completed(farm)
    run = [sys.executable, "-u", "-c", code.replace("8000", str(port))]
    environment = child_environment(WEBHOOK_SECRET=secret(farm))
    with subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: let_be_due(farm) or (send(farm) and log(farm)[0]["delivered_at"]))
            webhooks.redeliver(farm, log(farm)[0]["id"], None)
            send(farm)
        finally:
            process.terminate()
        said = process.stdout.read()

    assert said.split() == ["video.completed", video_id]


# --- what is not taken


def test_a_failed_try_is_made_again_later_and_later_until_it_is_dead(farm):
    listen(farm, "http://all/")
    completed(farm)

    for wait_s in WAITS_S:
        deliveries.record(farm, deliveries.claim(farm), NO)
        assert wait_s * 0.85 < due_in_s(farm) < wait_s * 1.15
        assert deliveries.claim(farm) is None
        let_be_due(farm)
    deliveries.record(farm, deliveries.claim(farm), NO)

    let_be_due(farm)
    assert deliveries.claim(farm) is None
    (dead,) = webhooks.deliveries(farm, "default", state="dead", after=None, limit=9).rows
    assert (dead["tries"], dead["delivered_at"]) == (8, None)


def test_a_redirect_is_a_failure_and_is_not_followed(farm, receiver):
    listen(farm, receiver.url)
    receiver.status, receiver.headers = 307, {"Location": f"{receiver.url}/elsewhere"}
    completed(farm)

    send(farm)

    assert [got.path for got in receiver.got] == ["/hook"]
    (one,) = log(farm)
    assert (one["status_code"], one["delivered_at"]) == (307, None)
    assert "redirects" in one["problem"]


def test_an_endpoint_that_is_gone_is_switched_off(farm, receiver):
    hook = listen(farm, receiver.url)
    receiver.status = 410
    completed(farm)
    completed(farm)

    assert send(farm) == 1

    assert webhooks.endpoint(farm, hook["id"], None)["enabled"] is False
    first, second = log(farm)
    assert first["dead_at"] is not None
    assert second["dead_at"] is not None
    assert "switched off" in second["problem"]
    completed(farm)
    assert len(log(farm)) == 2


def test_an_own_address_that_is_gone_is_not_asked_again(farm, receiver):
    receiver.status = 410
    completed(farm, webhook_url=receiver.url)

    send(farm)

    assert log(farm)[0]["dead_at"] is not None


def test_nobody_there_is_a_failure_that_says_so(farm):
    with Receiver() as gone:
        url = gone.url
    listen(farm, url)
    completed(farm)

    send(farm)

    (one,) = log(farm)
    assert (one["status_code"], one["delivered_at"]) == (None, None)
    assert "refused the connection" in one["problem"]


# --- what people do with the log


def test_a_delivery_is_sent_once_more_when_somebody_asks(farm, receiver):
    listen(farm, receiver.url)
    completed(farm)
    send(farm)

    webhooks.redeliver(farm, receiver.got[0].id, "default")
    receiver.status = 503
    send(farm)

    first, second = receiver.got
    assert (first.id, first.body) == (second.id, second.body)
    (one,) = log(farm)
    assert (one["tries"], one["status_code"], one["delivered_at"]) == (2, 503, None)


def test_a_deleted_video_takes_its_webhooks_along(farm):
    listen(farm, "http://all/")
    fence = claimed(farm).fence
    over = completed(farm)

    removal.delete(farm, over, by="me")
    removal.delete(farm, fence.video_id, by="me")
    lifecycle.cancelled(farm, fence)

    assert deliveries.claim(farm) is None
    removal.purge(farm)
    assert log(farm) == []


def test_the_log_is_kept_for_thirty_days_and_what_waits_for_longer(farm):
    listen(farm, "http://all/")
    completed(farm)
    deliveries.record(farm, deliveries.claim(farm), Answer(200, 1))
    completed(farm)
    assert upkeep.round_of_duties(farm, upkeep.DUTIES)["deliveries"] == 0

    with farm.db.connect() as db:
        db.execute(update(WebhookDelivery).values(at=ago(31 * 86_400)))

    assert upkeep.round_of_duties(farm, upkeep.DUTIES)["deliveries"] == 1
    assert [one["delivered_at"] for one in log(farm)] == [None]
