"""What a parent tells the block cache: settled by its own environment, kept with the attempt."""

import dataclasses

import pytest

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.spec import CacheWish, SecondaryCache
from tests.services.conftest import Parent
from tests.services.jobs import row, submit


@pytest.fixture
def parent(farm, tmp_path):
    """A parent whose environment caches."""
    (tmp_path / "go").touch()
    said = {"cache_enabled": True, "cache_bn": 2, "cache_secondary_mc": 1}
    settings = farm.settings.model_copy(update=said)
    made = Parent(dataclasses.replace(farm, settings=settings), tmp_path)
    yield made
    made.end()


LOW = CacheWish(rdt=0.1, secondary=SecondaryCache(fn=3))
CASES = {
    "off": ("off", None),
    "default": ("default", CachePolicies(high=CachePolicy(bn=2), low=CachePolicy(bn=2, mc=1))),
    "knobs": (
        LOW,
        CachePolicies(high=CachePolicy(rdt=0.1, bn=2), low=CachePolicy(rdt=0.1, bn=2, fn=3, mc=1)),
    ),
    "fast": (
        "fast",
        CachePolicies(
            high=CachePolicy(warmup=2, taylorseer=True, scm_preset="fast"),
            low=CachePolicy(warmup=2, taylorseer=True, scm_preset="fast"),
        ),
    ),
}


def test_an_attempt_keeps_the_policies_that_its_group_settled(farm, parent, subtests):
    made = {name: submit(farm, cache=wish) for name, (wish, _) in CASES.items()}

    parent.runner.run_until_empty()
    parent.runner.join(30)

    for name, (_, expected) in CASES.items():
        with subtests.test(name):
            video = row(farm, made[name])
            kept = video["attempts"][0]["cache"]
            kept.pop("sources", None)
            assert video["state"] == "completed"
            assert kept == (expected.model_dump(mode="json") if expected else {"high": None})


def test_a_request_that_only_this_groups_environment_overdraws_is_told_by_both_names(farm, parent):
    video_id = submit(farm, cache=CacheWish(fn=5))

    parent.runner.run_until_empty()

    video = row(farm, video_id)
    assert (video["state"], video["error"]["code"]) == ("failed", "invalid_input")
    assert video["error"]["message"].startswith("cache.fn 5 and WANFARM_CACHE_BN 2 are 7 blocks.")
