"""Four processes at once over the same rows: nothing is lost, and nothing ends twice."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import select, update

from shared.jobs import batches, invariants, lifecycle, pauses, removal, running, tick
from shared.machinery.farm import Farm, open_farm
from shared.machinery.tables import Video
from shared.vocabulary.errors import JobFailure, StaleAttempt, WanfarmError
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import VideoState
from tests.services import together
from tests.services.jobs import OFFER, ago, submit, uptime_s
from tests.services.test_invariants import stored
from worker import upkeep

PROCESSES = 4
KINDS = (FailureKind.RANK_DIED, FailureKind.LOST, FailureKind.OUT_OF_MEMORY, FailureKind.BAD_INPUT)
REFUSALS = {"not_cancellable", "video_not_found", "not_ready"}


@dataclass
class Told:
    """What all processes know, and what their callers were told."""

    videos: list[str] = field(default_factory=list)
    claims: list[lifecycle.Claim] = field(default_factory=list)
    completed: list[lifecycle.Fence] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


class Process:
    """One of the four: does what comes to its mind, to whatever video it thinks of."""

    def __init__(self, farm: Farm, told: Told, seed: str) -> None:
        self.farm, self.told, self.draw = farm, told, random.Random(seed)
        self.sent = 0

    def do(self, deeds: int) -> None:
        kinds = {
            self.submit: 5,
            self.submit_batch: 1,
            self.claim: 8,
            self.report: 3,
            self.complete: 5,
            self.give_back: 4,
            self.drain: 2,
            self.cancel: 2,
            self.delete: 1,
            self.goes_silent: 2,
            self.tick: 2,
            self.restart: 1,
            self.duties: 1,
            self.door: 1,
        }
        for deed in self.draw.choices([*kinds], weights=[*kinds.values()], k=deeds):
            try:
                with suppress(StaleAttempt, IndexError):  # IndexError: there is none yet
                    deed()
            except WanfarmError as err:
                if err.code not in REFUSALS:
                    raise

    def video(self) -> str:
        return self.draw.choice(self.told.videos)

    def one(self) -> lifecycle.Claim:
        return self.draw.choice(self.told.claims[-8:])

    def submit(self) -> None:
        """Every process sends the same keys: one video each."""
        self.sent += 1
        tenant = self.draw.choice(("ours", "theirs"))
        key = {"idempotency_key": f"{self.sent}", "fingerprint": "f"}
        self.told.videos.append(submit(self.farm, tenant=tenant, max_attempts=2, **key))

    def submit_batch(self) -> None:
        """Every process sends the same keys for these too."""
        self.sent += 1
        tenant = self.draw.choice(("ours", "theirs"))
        batch_id = together.submit(self.farm, 3, key=f"b{self.sent}", tenant=tenant, max_attempts=2)
        if batch := batches.one(self.farm, batch_id, None):
            self.told.videos += [item["video_id"] for item in batch["items"]]

    def claim(self) -> None:
        offer = replace(OFFER, group=f"g{self.draw.randrange(3)}")
        if claim := lifecycle.claim(self.farm, offer):
            self.told.claims.append(claim)

    def report(self) -> None:
        running.report(self.farm, self.one().fence, "step", {}, {"progress": 5})

    def complete(self) -> None:
        fence = self.one().fence
        lifecycle.complete(self.farm, fence, stored(self.farm, fence), {})
        self.told.completed.append(fence)

    def give_back(self) -> None:
        failure = JobFailure(self.draw.choice(KINDS), "It broke.")
        lifecycle.give_back(self.farm, self.one(), failure)

    def drain(self) -> None:
        lifecycle.requeue_uncharged(self.farm, self.one().fence, "leaving")

    def cancel(self) -> None:
        lifecycle.cancel(self.farm, video_id := self.video(), by="a person")
        self.told.cancelled.append(video_id)

    def delete(self) -> None:
        self.told.deleted.append(video_id := self.video())
        removal.delete(self.farm, video_id, by="a person")

    def goes_silent(self) -> None:
        let_leases_expire(self.farm, Video.id == self.one().fence.video_id)

    def tick(self) -> None:
        tick.tick(self.farm)

    def restart(self) -> None:
        lifecycle.take_over(self.farm, f"g{self.draw.randrange(3)}")

    def duties(self) -> None:
        upkeep.round_of_duties(self.farm, upkeep.DUTIES)

    def door(self) -> None:
        pauses.close(self.farm, ("dispatch",), by="a person")
        pauses.reopen(self.farm, ("dispatch",))


def let_leases_expire(farm: Farm, *where) -> None:
    with farm.db.connect() as db:
        running = update(Video).where(Video.state == "in_progress", *where)
        db.execute(running.values(lease_until=ago(1)))


def states(farm: Farm) -> dict[str, str]:
    with farm.db.connect() as db:
        return dict(db.execute(select(Video.id, Video.state)).all())


def let_everything_end(farm: Farm) -> None:
    """All parents go silent, then one that never fails takes what is left."""
    let_leases_expire(farm)
    tick.tick(farm)
    with farm.db.connect() as db:
        db.execute(update(Video).where(Video.state == "queued").values(run_after=ago(1)))
    while claim := lifecycle.claim(farm, OFFER):
        lifecycle.complete(farm, claim.fence, stored(farm, claim.fence), {})
    removal.purge(farm)
    removal.drop_strays(farm)


def raced(farm: Farm, settings, seed: int, deeds: int) -> Told:
    """What four processes were told that did as they liked, each with connections of its own."""
    told, farms = Told(), [open_farm(settings) for _ in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        mine = [Process(one, told, f"{seed}-{n}") for n, one in enumerate(farms)]
        ends = [pool.submit(process.do, deeds) for process in mine]
        for end in ends:
            end.result()
    for one in farms:
        one.close()
    return told


def check(farm: Farm, told: Told) -> None:
    """Whatever was promised to whomever is so, at once and when everything has ended."""
    broken = [one for one in invariants.broken(farm, late_s=600) if one.rule != invariants.STRAYS]
    assert broken == []
    seen = states(farm)
    done = {*told.completed}
    assert {seen.get(fence.video_id, "gone") for fence in done} <= {"completed", "gone"}
    assert len({fence.video_id for fence in done}) == len(done)
    asked = {*told.cancelled, *told.deleted}
    assert [video_id for video_id in asked if seen.get(video_id) == "queued"] == []

    let_everything_end(farm)

    seen = states(farm)
    assert all(VideoState(state).is_final for state in seen.values())
    assert {*told.videos} - {*told.deleted} <= {*seen} <= {*told.videos}
    assert list(invariants.broken(farm)) == []


@pytest.mark.parametrize("seed", [1])
def test_four_processes_at_once_keep_every_promise(farm, settings, eventually, seed):
    eventually(lambda: uptime_s(farm) > farm.settings.lease_s)

    told = raced(farm, settings, seed, deeds=80)

    check(farm, told)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
def test_four_processes_at_once_keep_every_promise_for_long(farm, settings, eventually, seed):
    eventually(lambda: uptime_s(farm) > farm.settings.lease_s)

    told = raced(farm, settings, seed, deeds=500)

    check(farm, told)
