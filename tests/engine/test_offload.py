"""Parts in CPU memory: the same bits as all on the device, and each part there only at work."""

import itertools

import pytest
import torch
from torch import nn

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.plan import Build, ParallelPlan, Residency
from tests.engine.rendering import REF, Render, small
from worker.engine.model.stream import Copier, OnHost, Packed, Streamed, tensors_of

FLAGS = ("text_encoder", "experts", "vae", "layerwise")
EVERY = Residency(**dict.fromkeys(FLAGS, True))
COMBINATIONS = [  # each alone and all together; what lies between, before a release
    pytest.param(
        flags, id="+".join(flags), marks=() if n in {1, len(FLAGS)} else (pytest.mark.long,)
    )
    for n in range(1, len(FLAGS) + 1)
    for flags in itertools.combinations(FLAGS, n)
]
CACHED = CachePolicies(
    high=CachePolicy(fn=2, bn=1, warmup=1, mc=2, rdt="always", min_steps=0),
    low=CachePolicy(warmup=1, rdt="always", taylorseer=True, min_steps=0),
)


def offloaded(render, spec, residency: Residency, **more) -> str:
    plan = ParallelPlan(ranks=1, residency=residency)
    return render(spec, plan=plan, **more)[1].latents_sha256


@pytest.mark.parametrize("flags", COMBINATIONS)
def test_every_residency_gives_the_bits_of_all_on_the_device(render, flags):
    residency = Residency(**dict.fromkeys(flags, True))
    spec = small(prompt=f"a ball, {flags}", steps=4)  # a new prompt, so that it is encoded

    latents = offloaded(render, spec, residency)

    assert latents == render(spec)[1].latents_sha256


@pytest.fixture(scope="module")
def ours(models, picture, tmp_path_factory) -> Render:
    """An engine with our own forward and decoder."""
    build = Build(precision="bf16")
    return Render(models, picture, tmp_path_factory.mktemp("ours"), build=build)


@pytest.mark.parametrize("flag", [*FLAGS, "all"])
def test_our_own_forward_and_decoder_work_on_parts_that_come_and_go(ours, flag):
    residency = EVERY if flag == "all" else Residency(**{flag: True})
    spec = small(prompt=f"ours, {flag}", steps=4)

    latents = offloaded(ours, spec, residency)
    pictures = (ours.scratch / "video.mp4").read_bytes()

    assert latents == ours(spec)[1].latents_sha256
    assert pictures == (ours.scratch / "video.mp4").read_bytes()


@pytest.mark.parametrize(
    ("model", "image"),
    [("wan-tiny-i2v", REF), ("wan-tiny-ti2v", REF), ("wan-tiny-ti2v", None)],
    ids=["i2v", "ti2v-image", "ti2v-text"],
)
def test_every_flavour_runs_with_all_its_parts_offloaded(render, model, image):
    spec = small(model, image=image, steps=4)

    latents = offloaded(render, spec, EVERY)

    assert latents == render(spec)[1].latents_sha256


@pytest.mark.parametrize("flag", ["experts", "layerwise"])
def test_a_cached_job_gives_the_same_bits_from_streamed_blocks(render, flag):
    spec = small(steps=12)

    latents = offloaded(render, spec, Residency(**{flag: True}), cache=CACHED)

    assert latents == render(spec, cache=CACHED)[1].latents_sha256


class Watch:
    """Sees at each forward of a part which parts are away from their home in CPU memory."""

    def __init__(self, render) -> None:
        parts = render.engine._parts
        self.modules = parts.modules
        self.home: dict[str, int] = {}
        self.seen: dict[str, set[frozenset[str]]] = {}
        inner = {"vae": parts.vae.decoder, **parts.experts, "text_encoder": parts.prompts.encoder}
        self._hooks = [
            module.register_forward_pre_hook(lambda *_, name=name: self.look(name))
            for name, module in inner.items()
        ]

    def places(self) -> dict[str, int]:
        return {name: next(m.parameters()).data_ptr() for name, m in self.modules.items()}

    def at_work(self) -> frozenset[str]:
        return frozenset(n for n, place in self.places().items() if place != self.home[n])

    def look(self, name: str) -> None:
        if self.home:
            self.seen.setdefault(name, set()).add(self.at_work())

    def end(self) -> None:
        for hook in self._hooks:
            hook.remove()


def test_a_part_is_on_the_device_only_while_it_works(render):
    offloaded(render, small(steps=2), EVERY)  # all are at home afterwards
    watch = Watch(render)
    watch.home = watch.places()

    offloaded(render, small(prompt="a new one"), EVERY)

    watch.end()
    assert watch.seen == {name: {frozenset({name})} for name in watch.modules}
    assert not watch.at_work()


def test_a_cancelled_job_leaves_its_parts_at_home(render):
    offloaded(render, small(steps=2), EVERY)
    watch = Watch(render)
    watch.home = watch.places()
    words = iter([False, False, False, True])

    with pytest.raises(Exception, match="stopped after step 1"):
        offloaded(render, small(), EVERY, cancelled=lambda: next(words))

    watch.end()
    assert not watch.at_work()


class Counted(OnHost):
    """Weights that count how often they are fetched."""

    fetches = 0

    def fetch(self, into):
        self.fetches += 1
        return super().fetch(into)


def streamed(blocks: int, slots: int) -> tuple[Streamed, list[Counted], nn.ModuleList]:
    cpu = torch.device("cpu")
    inner = nn.ModuleList(nn.Linear(3, 3) for _ in range(blocks))
    packs = [Packed(tensors_of(block)) for block in inner]
    away = [
        Counted(packed, torch.empty(packed.nbytes, dtype=torch.uint8), Copier(cpu))
        for packed in packs
    ]
    return Streamed(inner, away, cpu, slots=slots), away, inner


@pytest.mark.parametrize("slots", [2, 3, 6])
def test_blocks_that_a_cached_step_skips_are_never_fetched(slots):
    stream, away, _ = streamed(6, slots)

    for ran in [(0, 2), (5, 6), (0, 2), (5, 6)]:
        list(stream.through(*ran))

    assert [one.fetches > 0 for one in away] == [True, True, False, False, False, True]


@pytest.mark.parametrize("slots", [2, 3, 6])
def test_each_block_runs_with_its_own_weights_and_few_are_away_at_once(slots):
    stream, _, inner = streamed(6, slots)
    home = [block.weight.data_ptr() for block in inner]
    own = [block.weight.clone() for block in inner]

    for first, last in [(0, 6), (0, 2), (2, 6), (0, 2), (5, 6), (0, 6)]:
        for index, block in enumerate(stream.through(first, last), start=first):
            out = [b.weight.data_ptr() for b in inner]
            assert out[index] != home[index]
            assert block.weight.equal(own[index])
            assert sum(now != then for now, then in zip(out, home, strict=True)) <= slots

    stream.close()
    assert [block.weight.data_ptr() for block in inner] == home


def test_enough_slots_for_all_blocks_fetch_each_once():
    stream, away, _ = streamed(6, 6)

    for _ in range(3):
        list(stream.through(0, 6))

    assert [one.fetches for one in away] == [1] * 6


def test_weights_changed_at_home_come_along_with_the_next_visit(render):
    spec = small(steps=2)
    before = offloaded(render, spec, EVERY)
    weight = render.engine._parts.high.blocks[0].inner[3].ffn.net[2].weight
    own = weight.detach().clone()

    with torch.no_grad():
        weight.mul_(2)
    changed = offloaded(render, spec, EVERY)
    with torch.no_grad():
        weight.copy_(own)

    assert changed != before
    assert offloaded(render, spec, EVERY) == before
