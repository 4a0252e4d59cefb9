"""The block cache on a whole farm: asked for over the queue, obeyed by ranks, told in the row."""

from shared.jobs import queries
from shared.jobs.provenance import provenance
from shared.vocabulary.spec import CacheWish, SecondaryCache


def test_a_cached_video_tells_its_steps_its_policy_and_its_gain(house, completes):
    house.start(cache_warmup=5, cache_secondary_mc=1, cache_min_steps=4)

    wish = CacheWish(rdt=0.9, warmup=1, secondary=SecondaryCache(bn=1))
    row = completes(house.submit(steps=12, cache=wish))

    whole = provenance(row)
    assert whole["software"].keys() >= {"wanfarm", "python", "torch", "diffusers"}
    assert whole["gpu"] == {"type": "cpu", "count": 1}
    assert (whole["parallel"]["cfg"], whole["parallel"]["precision"]) == (1, "reference")
    attempt, made = row["attempts"][0], whole["cache"]
    high, low = attempt["cache"]["high"], attempt["cache"]["low"]
    assert (high["rdt"], high["warmup"], high["mc"], high["min_steps"]) == (0.9, 1, 3, 4)
    assert (low["rdt"], low["warmup"], low["mc"], low["bn"]) == (0.9, 1, 1, 1)
    assert attempt["cache"]["sources"]["low"]["mc"] == "WANFARM_CACHE_SECONDARY_MC"
    lanes = [lane for branches in made["pattern"].values() for lane in branches.values()]
    assert all(lane.startswith("Xc") for lane in lanes)
    assert sum(map(len, lanes)) == 2 * 12
    assert 0 < made["cached_ratio"] == round("".join(lanes).count("c") / 24, 4)
    assert 0 < made["blocks_skipped"] < made["cached_ratio"]
    assert made["gain"] > 0
    assert made["reasons"]["high"]["cond"].startswith("wd")
    assert 0 < made["diffs"]["high"]["cond"][1] < 0.9
    events = [e for e in queries.events(house.farm, row["id"], limit=500) if e["type"] == "step"]
    assert all(set(event["reason"]) == set(event["diff"]) == {"cond", "uncond"} for event in events)


def test_a_worker_says_that_nothing_hears_its_words_for_a_second_expert(house, eventually):
    worker = house.start(
        engine="tests.engine.fake:Engine", models="wan-tiny-ti2v", cache_secondary_fn=2
    )

    eventually(lambda: "cache.secondary_unused" in worker.log.read_text(), within=30)
