"""Any interleaving of parents, people and upkeep agrees with a model of one page."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, func, select, update

from shared.jobs import groups, invariants, lifecycle, pauses, removal, running, tick
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.machinery.tables import Attempt, Cost, GpuGroup, Idempotency, Pause, Tenant, Video
from shared.vocabulary.errors import JobFailure, StaleAttempt, WanfarmError
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import GroupState
from tests.services.jobs import (
    MODEL,
    OTHER_MODEL,
    ago,
    edit,
    let_back_off_pass,
    let_lease_expire,
    submit,
)
from tests.services.model import FINAL, Expectation, Expected
from tests.services.test_invariants import stored
from worker import upkeep


def deeds(known: dict[str, tuple[st.SearchStrategy, ...]]) -> st.SearchStrategy:
    """Draw the name of a method, and what it is called with."""
    return st.one_of(st.tuples(st.just(name), *given) for name, given in known.items())


NAMES = ("g0", "g1", "g2")
GROUPS = st.sampled_from(NAMES)
TENANTS = st.sampled_from(["ours", "theirs"])
DOORS = st.sampled_from(pauses.DOORS)
WARM = st.sampled_from([None, MODEL, OTHER_MODEL])
KINDS = st.sampled_from(
    [FailureKind.RANK_DIED, FailureKind.BAD_INPUT, FailureKind.LOST, FailureKind.OUT_OF_MEMORY]
)
SPECS = {MODEL: {}, OTHER_MODEL: {"model": OTHER_MODEL, "guidance_low": None, "boundary": None}}
ORDERS = st.fixed_dictionaries(
    {"tenant": TENANTS, "priority": st.sampled_from([0, 0, 1, -1])},
    optional={"group": GROUPS, "start_within_s": st.just(600), "finish_within_s": st.just(900)},
)
PARENTS = deeds(
    {"report": (), "store": (), "complete": (), "stopped": (), "drain": (), "give_back": (KINDS,)}
)
PEOPLE = deeds({"cancel": (), "delete": ()})
TIME = deeds(
    {
        "back_off_is_over": (),
        "goes_silent": (),
        "deadline_passes": (),
        "has_waited_for_long": (),
    }
)
OPERATORS = deeds(
    {
        "ticks": (),
        "a_day_passes": (),
        "parent_restarts": (GROUPS,),
        "people_drain": (GROUPS, st.sampled_from(["finish", "requeue"])),
        "people_resume": (GROUPS,),
        "people_close": (DOORS,),
        "people_reopen": (DOORS,),
        "tenant_has_used": (TENANTS, st.sampled_from([100, 1000])),
    }
)
KEYS = st.one_of(st.none(), st.tuples(st.sampled_from("ab"), st.sampled_from("xy")))


class Videos(RuleBasedStateMachine):
    """Three parents, callers, people who run the farm, and upkeep, over a handful of videos."""

    farm: Farm  # its leases outlast the test: they end when the test says so
    upkeep: Farm

    def __init__(self) -> None:
        super().__init__()
        self.expected = Expectation()
        self.videos: list[str] = []
        self.claims: list[lifecycle.Claim] = []  # those that were lost as well
        self.lives = dict.fromkeys(NAMES, 0)

    @initialize()
    def a_group_has_lost_two_videos_to_another(self) -> None:
        for name in NAMES:
            groups.register(self.farm, self.identity(name))
        for _ in range(2):
            self.submit({"tenant": "ours", "priority": 0}, MODEL, None)
            self.claim("g0", (MODEL,), None)
        self.parent_restarts("g0")
        for _ in range(2):
            self.claim("g1", (MODEL,), None)

    @precondition(lambda self: self.expected.waiting < 4)
    @rule(given=ORDERS, model=st.sampled_from([*SPECS]), key=KEYS)
    def a_person_submits(self, given: dict, model: str, key: tuple[str, str] | None) -> None:
        self.submit(given, model, key)

    @precondition(lambda self: self.expected.due)
    @rule(group=GROUPS, models=st.sampled_from([(*SPECS,), (MODEL,)]), warm=WARM)
    def a_parent_claims(self, group: str, models: tuple[str, ...], warm: str | None) -> None:
        self.claim(group, models, warm)

    @rule(back=st.integers(0, 3), deed=PARENTS)
    def a_parent_acts(self, back: int, deed: tuple) -> None:
        """One that holds its claim still, or one that has lost it."""
        name, *given = deed
        getattr(self, name)(self.claims[-1 - back % len(self.claims)], *given)

    @rule(back=st.integers(0, 3), deed=PEOPLE | TIME | TIME)
    def something_happens_to_a_video(self, back: int, deed: tuple) -> None:
        name, *given = deed
        getattr(self, name)(self.videos[-1 - back % len(self.videos)], *given)

    @rule(deed=OPERATORS)
    def the_farm_is_run(self, deed: tuple) -> None:
        name, *given = deed
        getattr(self, name)(*given)

    def identity(self, name: str) -> groups.Identity:
        life = f"life-{self.lives[name]}"
        return groups.Identity(name, life, "host", 1, "cpu", (MODEL, OTHER_MODEL))

    def of(self, claim: lifecycle.Claim) -> Expected | None:
        """The video of a claim, if the claim still holds it."""
        one = self.expected.get(claim.fence.video_id)
        return one if one and one.holds(claim.fence.attempt) else None

    def submit(self, given: dict, model: str, key: tuple[str, str] | None) -> None:
        asked = SPECS[model] | given | {"max_attempts": 2}
        asked |= {"idempotency_key": key[0], "fingerprint": key[1]} if key else {}
        known = self.expected.keys_of.get((given["tenant"], key[0])) if key else None
        if known or "intake" in self.expected.closed:
            if known and known[0] == key[1]:
                assert submit(self.farm, **asked) == known[1]
                return
            with pytest.raises(WanfarmError) as refused:
                submit(self.farm, **asked)
            assert refused.value.code == ("idempotency_key_reused" if known else "intake_paused")
            return
        video_id = submit(self.farm, **asked)
        priority, group = given["priority"], given.get("group")
        self.expected.accepts(Expected(video_id, given["tenant"], model, priority, group))
        if key:
            self.expected.keys_of[given["tenant"], key[0]] = (key[1], video_id)
        self.videos.append(video_id)

    def claim(self, group: str, models: tuple[str, ...], warm: str | None) -> None:
        if self.beat(group):
            return
        best = self.expected.next_for(group, models, warm)
        identity = self.identity(group)
        offer = Offer(group, identity.incarnation, 1, models, warm)
        claim = lifecycle.claim(self.farm, offer)
        if best is None:
            assert claim is None
            return
        assert claim is not None
        best.taken(group)
        seen = (claim.fence.video_id, claim.fence.attempt, claim.attempts_left)
        assert seen == (best.video_id, best.attempt, best.left)
        self.claims.append(claim)

    def beat(self, group: str) -> bool:
        """Say that a parent lives, and do what people want of it; tells whether it is drained."""
        wish = groups.beat(self.farm, self.identity(group), groups.Reading(GroupState.IDLE))
        assert wish == groups.Wish(self.expected.drains.get(group))
        if wish.drain == "requeue":
            for claim in self.claims:
                if (one := self.of(claim)) and one.holder == group:
                    self.drain(claim)
        return wish.drain is not None

    def drain(self, claim: lifecycle.Claim) -> None:
        if one := self.of(claim):
            assert lifecycle.requeue_uncharged(self.farm, claim.fence, "leaving") == one.drained()
        else:
            with pytest.raises(StaleAttempt):
                lifecycle.requeue_uncharged(self.farm, claim.fence, "leaving")

    def people_drain(self, group: str, mode: str) -> None:
        assert groups.drain(self.farm, group, mode)
        self.expected.drains[group] = mode

    def people_resume(self, group: str) -> None:
        assert groups.resume(self.farm, group)
        self.expected.drains.pop(group, None)

    def parent_restarts(self, group: str) -> None:
        before = self.identity(group)
        self.lives[group] += 1
        groups.register(self.farm, self.identity(group))
        held = sum(one.holder == group for one in self.expected.values())
        assert lifecycle.take_over(self.farm, group) == held
        self.expected.rescued(holder=group)
        assert groups.beat(self.farm, before, groups.Reading(GroupState.IDLE)) is None

    def people_close(self, door: pauses.Door) -> None:
        pauses.close(self.farm, (door,), by="a person")
        self.expected.closed.add(door)

    def people_reopen(self, door: pauses.Door) -> None:
        pauses.reopen(self.farm, (door,))
        self.expected.closed.discard(door)

    def tenant_has_used(self, tenant: str, share: int) -> None:
        with self.farm.db.connect() as db:
            mine = update(Tenant).where(Tenant.name == tenant).values(share=share)
            if db.execute(mine).rowcount:
                self.expected.shares[tenant] = share

    def cancel(self, video_id: str) -> None:
        one = self.expected.get(video_id)
        if one is None or one.state in {"completed", "failed"}:
            with pytest.raises(WanfarmError):
                lifecycle.cancel(self.farm, video_id, by="a person")
            return
        assert lifecycle.cancel(self.farm, video_id, by="a person") == self.asked_to_end(one)

    def asked_to_end(self, one: Expected) -> str:
        one.asked |= one.state == "in_progress"
        return one.ends("cancelled") if one.state == "queued" else one.state

    def delete(self, video_id: str) -> None:
        removal.delete(self.farm, video_id, by="a person")
        if one := self.expected.get(video_id):
            one.deleted = True
            self.asked_to_end(one)
            self.expected.purged(video_id)

    def report(self, claim: lifecycle.Claim) -> None:
        if one := self.of(claim):
            told = running.report(self.farm, claim.fence, "step", {}, {"progress": 5})
            assert told == running.renew(self.farm, claim.fence) == one.asked
            one.silent = False
        else:
            with pytest.raises(StaleAttempt):
                running.report(self.farm, claim.fence, "step", {}, {"progress": 5})

    def store(self, claim: lifecycle.Claim) -> None:
        stored(self.farm, claim.fence)
        if one := self.expected.get(claim.fence.video_id):
            one.stored.add(claim.fence.attempt)

    def complete(self, claim: lifecycle.Claim) -> None:
        """With what the first attempt has stored that stored something, as a parent does."""
        one, fence = self.expected.get(claim.fence.video_id), claim.fence
        by = min(one.stored, default=fence.attempt) if one else fence.attempt
        result = stored(self.farm, replace(fence, attempt=by))
        if self.of(claim):
            one.ends("completed")
        if one and (one.state, one.attempt) == ("completed", fence.attempt):
            lifecycle.complete(self.farm, fence, result, {})
        else:
            with pytest.raises(StaleAttempt):
                lifecycle.complete(self.farm, fence, result, {})

    def stopped(self, claim: lifecycle.Claim) -> None:
        one = self.of(claim)
        assert lifecycle.cancelled(self.farm, claim.fence) == (one is not None)
        if one:
            one.ends("cancelled")

    def give_back(self, claim: lifecycle.Claim, kind: FailureKind) -> None:
        one, failure = self.of(claim), JobFailure(kind, "It broke.")
        if one is None:
            with pytest.raises(StaleAttempt):
                lifecycle.give_back(self.farm, claim, failure)
            return
        assert lifecycle.give_back(self.farm, claim, failure) == one.broke(kind)
        if one.backs_off:  # until the test says that it is over
            edit(self.farm, one.video_id, run_after=ago(-600))

    def back_off_is_over(self, video_id: str) -> None:
        let_back_off_pass(self.farm, video_id)
        if one := self.expected.get(video_id):
            one.backs_off = False

    def deadline_passes(self, video_id: str) -> None:
        edit(self.farm, video_id, start_by=ago(1))
        if one := self.expected.get(video_id):
            one.late = True

    def has_waited_for_long(self, video_id: str) -> None:
        edit(self.farm, video_id, created_at=ago(601))
        if one := self.expected.get(video_id):
            one.old = True

    def goes_silent(self, video_id: str) -> None:
        one = self.expected.get(video_id)
        if one and one.state == "in_progress":
            let_lease_expire(self.upkeep, video_id)
            one.silent = True

    def ticks(self) -> None:
        tick.tick(self.upkeep)
        self.expected.rescued(silent=True)
        self.expected.expired()

    def a_day_passes(self) -> None:
        over = update(Video).where(Video.state.in_(FINAL)).values(completed_at=ago(100_000))
        with self.farm.db.connect() as db:
            db.execute(over)
            db.execute(update(Video).where(Video.state == "completed").values(expires_at=ago(1)))
            db.execute(update(Idempotency).values(at=ago(100_000)))
        assert upkeep.round_of_duties(self.upkeep, {**upkeep.DUTIES, **upkeep.HOURLY}) is not None
        self.expected.purged()
        self.expected.forget_keys()
        assert self.broken() == []

    @invariant()
    def rows_agree_with_the_model(self) -> None:
        made = select(func.count()).where(Attempt.video_id == Video.id).scalar_subquery()
        columns = (Video.id, Video.state, Video.attempt, made, Video.attempts_left)
        with self.farm.db.connect() as db:
            seen = {tuple(row) for row in db.execute(select(*columns))}
        values = self.expected.values()
        assert seen == {(m.video_id, m.state, m.attempt, m.attempt, m.left) for m in values}

    @invariant()
    def the_bell_is_rung_for_what_is_due(self) -> None:
        assert sum(tick.due_by_model(self.farm).values()) == self.expected.due

    def broken(self) -> list[invariants.Broken]:
        return list(invariants.broken(self.upkeep, late_s=600))

    def teardown(self) -> None:
        removal.drop_strays(self.farm)
        broken = self.broken()
        with self.farm.db.connect() as db:
            for table in (Video, Idempotency, Pause, GpuGroup, Tenant, Cost):
                db.execute(delete(table))
        self.farm.storage.delete_tree("videos")
        assert broken == []


def walk(farm: Farm, walks: int, steps: int) -> None:
    """Let hypothesis look for a walk that ends badly; it tells the shortest that it finds."""
    patient = replace(farm, settings=farm.settings.model_copy(update={"lease_s": 3600}))
    machine = type("VideosOfThisFarm", (Videos,), {"farm": patient, "upkeep": farm})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=walks,
            stateful_step_count=steps,
            deadline=None,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(400)  # where there is something to find, it is made short before it is told
def test_no_interleaving_breaks_a_promise(farm):
    walk(farm, walks=20, steps=25)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_long_interleaving_breaks_a_promise(farm):
    walk(farm, walks=1000, steps=80)
