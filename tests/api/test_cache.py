"""What a finished video tells of its cache, over HTTP and on its page; a remix pins it."""

import json

import pytest

from shared.jobs import running
from shared.vocabulary.cache_levels import CacheEnvironment, settle
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.spec import CacheWish, SecondaryCache
from tests.api.callers import Caller, Hand

MINI = MODELS["wan-tiny-t2v"]
PLAN = {"ranks": 2, "cfg": 2, "ulysses": 1, "ring": 1}
WISH = CacheWish(rdt=0.3, secondary=SecondaryCache(fn=3, mc=1))
USED = settle(WISH, CacheEnvironment(warmup=2), MINI)
REPORT = {
    "switch_step": 4,
    "cache": USED.policies.model_dump(mode="json"),
    "pattern": {"high": {"cond": "XXc", "uncond": "XXX"}, "low": {"cond": "Xc", "uncond": "Xc"}},
    "reasons": {"high": {"cond": "wwd", "uncond": "wwD"}, "low": {"cond": "wd", "uncond": "wd"}},
    "diffs": {
        "high": {"cond": [None, None, 0.061], "uncond": [None, None, 0.4]},
        "low": {"cond": [None, 0.1], "uncond": [None, 0.2]},
    },
    "steps": [{"step": n, "expert": "high", "seconds": 1.0} for n in range(1, 6)],
    "cached": {
        "cached_ratio": 0.3,
        "cached_steps": 2,
        "step_s": {
            "high": {"computed": 2.0, "cached": 0.5},
            "low": {"computed": 2.5, "cached": None},
        },
        "gain": 1.62,
    },
    "software": {"torch": "2.13.0"},
    "build": {"precision": "bf16"},
}
WARNING = {"code": "cache_runaway", "param": "cache", "message": "Computed no step."}


@pytest.fixture
def cached(api: Caller, hand: Hand) -> str:
    """The id of a video that was made with a cache."""
    made = api.make(cache={"rdt": 0.3, "secondary": {"fn": 3, "mc": 1}}, steps=5)
    claimed = hand.claim()
    running.record_plan(hand.farm, claimed.fence, PLAN, USED.record())
    hand.complete(claimed, REPORT, [WARNING])
    return made["id"]


def test_a_finished_video_tells_how_it_was_made(api: Caller, cached: str):
    video = api.get(f"/v1/videos/{cached}").json

    made = video["provenance"]
    assert video["warnings"] == [WARNING]
    assert made["parallel"] == {"cfg": 2, "ulysses": 1, "ring": 1, "precision": "bf16"}
    assert made["software"] == {"torch": "2.13.0"}
    cache = made["cache"]
    assert cache["policy"]["rdt"] == 0.3
    assert cache["policy"]["secondary"]["fn"] == 3
    assert cache["pattern"] == REPORT["pattern"]
    assert cache["diffs"]["high"]["cond"] == [None, None, 0.061]
    assert (cache["cached_ratio"], cache["cached_steps"], cache["gain"]) == (0.3, 2, 1.62)
    assert cache["gain_basis"] == "computed-step time of this run"
    # 6 blocks a call: the high-noise expert leaves 5 of them out once, the low-noise one 3 twice
    assert cache["blocks_skipped"] == round((5 + 3 + 3) / (6 * 10), 4)


def test_a_video_without_a_cache_has_a_provenance_without_one(api: Caller, hand: Hand):
    made = api.make(cache="off")
    claimed = hand.claim()
    waiting = api.get(f"/v1/videos/{made['id']}").json
    running.record_plan(hand.farm, claimed.fence, PLAN, {"high": None})
    hand.complete(claimed)

    done = api.get(f"/v1/videos/{made['id']}").json
    assert waiting["provenance"] is None
    assert (done["provenance"]["cache"], done["provenance"]["manifest"]) == (None, 1)


def test_a_remix_repeats_the_policy_that_was_used(api: Caller, cached: str):
    again = api.post(f"/v1/videos/{cached}/remix", json={}).json
    other = api.post(f"/v1/videos/{cached}/remix", json={"cache": "fast"}).json
    high = api.post(f"/v1/videos/{cached}/remix", json={"quality": "high"}).json

    elsewhere = CacheEnvironment(enabled=False, mc=0)
    pinned = CacheWish.model_validate(again["spec"]["cache"])
    assert settle(pinned, elsewhere, MINI).policies == USED.policies
    assert (other["spec"]["cache"], high["spec"]["cache"]) == ("fast", "off")


def test_a_remix_of_an_uncached_video_stays_so_on_a_group_that_caches(api: Caller, hand: Hand):
    made = api.make()
    claimed = hand.claim()
    running.record_plan(hand.farm, claimed.fence, PLAN, {"high": None})
    hand.complete(claimed)

    again = api.post(f"/v1/videos/{made['id']}/remix", json={}).json

    assert (made["spec"]["cache"], again["spec"]["cache"]) == ("default", "off")


def test_the_page_of_a_video_tells_why_each_step_was_computed(api: Caller, cached: str):
    page = api.get(f"/jobs/{cached}").get_data(as_text=True)

    assert "<title>step 3 cond: cached, diff 0.061 &lt; 0.3, high-noise expert</title>" in page
    assert "<title>step 3 uncond: computed, diff 0.400 ≥ 0.3, high-noise expert</title>" in page
    assert "<title>step 1 cond: computed, warm-up, high-noise expert</title>" in page
    assert "30% of all calls cached, 1.62 times as fast as without." in page
    assert "low: 2.50 s computed (median step)" in page
    assert "Computed no step." in page
    for knob, high, low, source in (
        ("fn", "1", "3", "default, asked"),
        ("warmup", "2", "2", "environment"),
        ("rdt", "0.3", "0.3", "asked"),
    ):
        row = f'<th scope="row">{knob}</th><td><code>{high}</code></td><td><code>{low}</code></td>'
        assert f'{row}<td class="from">{source}</td>' in page


def test_the_form_offers_the_policies_and_a_jobs_own_knobs(api: Caller, cached: str):
    blank = api.get("/new").get_data(as_text=True)
    filled = api.get(f"/new?from={cached}").get_data(as_text=True)

    assert '<option value="fast">fast</option>' in blank
    assert "as in that job" not in blank
    chosen = filled.partition('<select id="cache"')[2].partition("</select>")[0]
    knobs = chosen.partition(" selected")[0].rpartition('value="')[2].rstrip('"')
    assert json.loads(knobs.replace("&#34;", '"')) == {"rdt": 0.3, "secondary": {"fn": 3, "mc": 1}}
