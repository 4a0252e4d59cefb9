"""The feed: events and nudges for whoever listens now, and nobody waits for it."""

import pytest
from redis.exceptions import RedisError

from shared.jobs import lifecycle, queries, running
from shared.machinery.farm import open_farm
from shared.machinery.feed import EVENTS, NUDGES
from tests.services.jobs import claimed


def listening(subscription):
    """The subscription is confirmed by Redis once a first wait has passed."""
    subscription.next(0.2)
    return subscription


def test_a_message_reaches_all_who_listen_to_its_channel(farm):
    with (
        farm.feed.subscription(EVENTS) as one,
        farm.feed.subscription(EVENTS) as two,
        farm.feed.subscription(NUDGES) as other,
    ):
        for subscription in (one, two, other):
            listening(subscription)

        farm.feed.publish(EVENTS, {"n": 1})

        assert (one.next(5), two.next(5)) == ({"n": 1}, {"n": 1})
        assert other.next(0.2) is None


def test_farms_with_different_prefixes_do_not_hear_each_other(farm, settings):
    neighbour = open_farm(settings.model_copy(update={"key_prefix": "neighbour:"}))

    with farm.feed.subscription(EVENTS) as mine:
        listening(mine)
        neighbour.feed.publish(EVENTS, {"n": 1})

        assert mine.next(0.3) is None
    neighbour.close()


def test_every_move_is_told_as_the_ledger_has_it(farm):
    with farm.feed.subscription(EVENTS) as told:
        listening(told)
        fence = claimed(farm).fence
        running.report(farm, fence, "step", {"step": 1}, {"progress": 5})
        lifecycle.cancelled(farm, fence)

        heard = [told.next(5)["event"] for _ in range(4)]
    assert heard == queries.events(farm, fence.video_id)


def test_a_cancel_nudges_the_parent_that_runs_the_video(farm):
    fence = claimed(farm).fence
    with farm.feed.subscription(NUDGES) as nudges:
        listening(nudges)

        lifecycle.cancel(farm, fence.video_id, by="a person")

        assert nudges.next(5) == {"cancel": fence.video_id}


def test_without_redis_publishing_is_silent_and_listening_says_so(settings):
    lonely = open_farm(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))

    lonely.feed.publish(EVENTS, {"n": 1})

    assert lonely.feed.answers() is False
    with pytest.raises(RedisError), lonely.feed.subscription(EVENTS):
        pass
    lonely.close()


def test_a_feed_that_answers_says_so(farm):
    assert farm.feed.answers() is True
