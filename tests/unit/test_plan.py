"""A plan tries every layout, believes measurements before guesses, and writes a file that holds."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main
from cli.client import FarmError
from cli.planning.gpus import KINDS, Machine, machine_of, one_kind
from cli.planning.layouts import Way
from cli.planning.planner import Plan, Wish, make
from cli.planning.ranking import OBJECTIVES, ranked
from cli.planning.records import FOLDER, load_records
from cli.planning.timing import Clock, Estimate
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.memory import SHARE
from tests.unit.compose_rules import RULES, load

A14B, TI2V = "wan2.2-t2v-a14b", "wan2.2-ti2v-5b"
RECORDS = load_records()
GRID = [f"{count}x{kind}" for kind in KINDS for count in (1, 2, 4, 8)]
WISH = Wish(
    gpus="8xH200-141G", model=A14B, size="832x480", frames=None, steps=None, quality="standard",
    objective="balanced", precision="bf16",
)  # fmt: skip


def made(machine: Machine | None = None, **changes) -> Plan:
    wish = dataclasses.replace(WISH, **changes)
    return make(wish, machine or machine_of(wish.gpus), RECORDS)


def ways(plan: Plan) -> list[str]:
    return [str(one.way) for one in plan.working]


def reasons(plan: Plan) -> dict[str, str]:
    return {str(one.way): one.reason for one in plan.rejected}


def services(plan: Plan) -> dict:
    return load(plan.compose("compose.gpu.yaml"))["services"]


def facts(plan: Plan) -> dict:
    """What came out, without what was asked."""
    told = plan.to_json()
    return {name: told[name] for name in ("layouts", "rejected")}


# --- every machine, every model ------------------------------------------------------------------


@pytest.mark.parametrize("gpus", GRID)
@pytest.mark.parametrize("model", MODELS)
def test_every_division_is_ranked_or_rejected_with_a_reason_and_the_file_holds(gpus, model):
    plan = made(gpus=gpus, model=model, size=None)

    count = int(gpus.partition("x")[0])
    assert {one.way.groups * one.way.degrees.ranks for one in plan.working} == {count}
    assert all(one.reason.endswith(".") and len(one.reason) <= 300 for one in plan.rejected)
    assert all(one.peak_bytes <= SHARE * plan.machine.memory_bytes for one in plan.working)
    assert all(one.estimate.source for one in plan.working)
    written = services(plan)
    for rule in RULES:
        rule(written)


@pytest.mark.parametrize("gpus", GRID)
def test_the_same_question_gets_the_same_bytes(gpus):
    one, other = (
        made(gpus=gpus),
        make(dataclasses.replace(WISH, gpus=gpus), machine_of(gpus), load_records()),
    )

    assert json.dumps(one.to_json()) == json.dumps(other.to_json())
    assert one.compose("a.yaml") == other.compose("a.yaml")


def test_written_files_follow_the_specification(tmp_path):
    for number, gpus in enumerate(("1xH100-80G", "4xL40S-48G", "8xRTX4090-24G")):
        (tmp_path / f"{number}.yaml").write_text(made(gpus=gpus).compose(f"{number}.yaml"))
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", *tmp_path.glob("*.yaml")]

    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_a_planned_group_is_set_up_as_a_shipped_one():
    (planned,) = services(made(gpus="4xH100-80G", objective="latency")).values()
    shipped = load()["services"]["worker-g0"]

    own = {"profiles", "depends_on"}
    assert {name for name in planned | shipped if planned.get(name) != shipped.get(name)} - own == {
        "environment"
    }
    here, there = planned["environment"], shipped["environment"]
    differing = {name for name in here | there if here.get(name) != there.get(name)}
    assert differing == {f"WANFARM_{name}" for name in ("GROUP", "MODELS", "PARALLEL", "PRECISION")}


# --- what is asked decides -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"gpus": "4xH200-141G"},
        {"gpus": "8xL40S-48G"},
        {"model": "wan2.2-i2v-a14b"},
        {"size": "480x832"},
        {"frames": 49},
        {"steps": 20},
        {"quality": "draft"},
        {"objective": "latency"},
        {"objective": "throughput"},
        *({"precision": name} for name in ("reference", "fp8", "fp8_attn")),
    ],
    ids=lambda changes: " ".join(map(str, *changes.items())),
)
def test_an_option_changes_the_plan(changes):
    assert facts(made(**changes)) != facts(made())


def test_the_best_quality_plans_as_the_standard_one_and_says_so():
    high = made(quality="high")

    assert facts(high) == facts(made())
    assert any("quality high plans as standard does" in note for note in high.notes)


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({"gpus": "eight"}, "--gpus is 'eight'"),
        ({"gpus": "65xH100-80G"}, "a number up to 64"),
        ({"gpus": "8xB300"}, "Known are H100-80G"),
        ({"model": "wan3"}, "model is 'wan3'"),
        ({"size": "833x480"}, "size is 833x480"),
        ({"size": "auto"}, "size is 'auto'"),
        ({"frames": 80}, "frames is 80. Wan2.2 makes 4k+1 frames"),
        ({"steps": 101}, "steps is 101"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(map(str, *value.items())),
)
def test_what_cannot_be_planned_is_refused_by_name(changes, trouble):
    with pytest.raises(FarmError) as refused:
        made(**changes)

    assert trouble in refused.value.message
    assert refused.value.exit_code == 2


def test_each_objective_puts_its_own_first():
    firsts = {
        name: made(objective=name).working[0] for name in ("latency", "throughput", "balanced")
    }

    assert {name: str(one.way) for name, one in firsts.items()} == {
        "latency": "1 x 8 cfg2 x u4",
        "throughput": "8 x 1 one GPU",
        "balanced": "4 x 2 cfg2",
    }
    most = firsts["throughput"].videos_per_hour
    assert firsts["balanced"].videos_per_hour >= 0.9 * most
    assert firsts["latency"].estimate.seconds == min(one.estimate.seconds for one in made().working)


def test_the_precision_and_the_layout_reach_the_group():
    environment = services(made(precision="fp8"))["worker-p0"]["environment"]
    ring = made(gpus="3xH200-141G", objective="latency")

    assert (environment["WANFARM_PRECISION"], environment["WANFARM_PARALLEL"]) == ("fp8", "auto")
    assert ways(ring)[0] == "1 x 3 r3"
    assert services(ring)["worker-p0"]["environment"]["WANFARM_PARALLEL"] == "1x1x3"


# --- what cannot work ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "way", "reason"),
    [
        ({"gpus": "3xH100-80G"}, "1 x 3 u3", "must divide the 40 heads of wan2.2-t2v-a14b"),
        ({"gpus": "1xA100-80G", "precision": "fp8"}, "1 x 1 one GPU", "A100-80G has none"),
        ({"gpus": "1xL40S-48G", "precision": "fp8_attn"}, "1 x 1 one GPU", "no Hopper GPU"),
        ({"precision": "fp8_attn"}, "4 x 2 r2", "no log-sum-exp"),
        (
            {"model": "wan-tiny-ti2v", "size": "64x64", "frames": 1},
            "1 x 8 r8",
            "8 ranks share a branch. The video has 4 tokens.",
        ),
        (
            {"model": "wan-tiny-ti2v", "size": "64x64", "frames": 9},
            "1 x 8 r8",
            "8 ranks decode strips. The latents have 4 rows.",
        ),
        (
            {"gpus": "1xRTX4090-24G", "size": "1280x720", "frames": 193, "precision": "reference"},
            "1 x 1 one GPU",
            "A GPU here has 24.0 GB",
        ),
    ],
)
def test_what_cannot_work_is_rejected_in_words(changes, way, reason):
    assert reason in reasons(made(**changes))[way]


def machine(count: int, **facts) -> Machine:
    kind = KINDS["H200-141G"]
    uuids = tuple(f"GPU-{n}" for n in range(count))
    return Machine(kind=kind, count=count, memory_bytes=150 * 10**9, uuids=uuids, **facts)


def test_ranks_that_exchange_tokens_stay_on_one_island():
    plan = made(machine(4, islands=((0, 2), (1, 3))), objective="latency")

    assert "GPUs 0, 1, 2, 3 would exchange tokens" in reasons(plan)["1 x 4 u4"]
    assert plan.working[0].way == Way(1, (2, 2, 1))
    assert plan.working[0].members == ((0, 2, 1, 3),)


def test_gpus_are_named_by_what_their_driver_said():
    told = services(made(machine(2, islands=((0, 1),)), objective="throughput"))

    devices = [
        one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for one in told.values()
    ]
    assert devices == [["GPU-0"], ["GPU-1"]]


def test_without_nvlink_an_exchange_takes_longer():
    apart, joined = (made(machine(2, islands=islands)) for islands in (((0,), (1,)), ((0, 1),)))

    slow, fast = (
        next(one.estimate for one in plan.working if str(one.way) == "1 x 2 u2")
        for plan in (apart, joined)
    )
    assert slow.seconds > 1.1 * fast.seconds
    assert (slow.basis, fast.basis) == ("prior", "interpolated")


def test_what_would_wait_in_cpu_memory_has_to_fit_there():
    small = dataclasses.replace(machine_of("8xRTX4090-24G"), host_bytes=128 * 10**9)

    plan = made(small)

    assert plan.working == ()
    assert "This machine has 128 GB" in reasons(plan)["8 x 1 one GPU"]


def test_gpus_of_several_kinds_or_an_unknown_one_are_refused():
    with pytest.raises(FarmError, match="A plan is for GPUs of one kind"):
        one_kind(["NVIDIA H200", "NVIDIA L40S"])
    with pytest.raises(FarmError, match="How fast they are is not known"):
        one_kind(["NVIDIA T4"])


# --- what a figure rests on ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "model", "size", "way"),
    [
        ("1xH100-80G", A14B, "832x480", "1 x 1 one GPU"),
        ("2xH200-141G", A14B, "832x480", "1 x 2 cfg2"),
        ("2xH100-80G", TI2V, "1280x704", "1 x 2 cfg2"),
    ],
)
def test_what_was_measured_is_told_as_it_was_measured(gpus, model, size, way):
    plan = made(gpus=gpus, model=model, size=size)

    told = next(one.estimate for one in plan.working if str(one.way) == way)
    row = json.loads((FOLDER / told.source).read_text())["rows"][0]
    assert (told.basis, told.error) == ("measured", 0)
    assert told.seconds == row["median_ms"]["bf16"] / 1000


def test_the_parts_of_every_job_on_record_come_to_it_within_the_error_that_is_told():
    assert 0 < Clock(RECORDS).composed_error < 0.07


def test_a_size_that_is_not_on_record_is_within_its_error_of_one_that_is():
    """The larger size's own forward is held out, and foretold from the smaller one's."""
    large = made(gpus="1xH100-80G", size="1280x720").working[0].estimate
    fewer = dataclasses.replace(
        RECORDS,
        figures=tuple(
            one
            for one in RECORDS.figures
            if (one.gpu, one.width) != ("H100-80G", 1280) or "5b" in one.model
        ),
    )

    wish = dataclasses.replace(WISH, gpus="1xH100-80G", size="1280x720")
    foretold = make(wish, machine_of("1xH100-80G"), fewer).working[0].estimate

    assert foretold.seconds != large.seconds
    assert foretold.seconds == pytest.approx(large.seconds, rel=0.1)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("gpus", GRID)
def test_no_guess_outranks_a_measurement_within_its_error(gpus, objective):
    for model in (A14B, TI2V):
        plan = made(
            gpus=gpus, objective=objective, model=model, size=None if model == TI2V else "832x480"
        )
        for first, later in itertools.combinations(plan.working, 2):
            if later.estimate.basis == "measured" != first.estimate.basis:
                if objective == "latency":
                    assert first.estimate.at_worst_s <= later.estimate.seconds
                else:
                    assert first.least_per_hour >= later.videos_per_hour


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("error", "first"), [(0.05, "measured"), (0.02, "prior")])
def test_a_guess_must_be_better_by_more_than_its_error(objective, error, first):
    measured = next(one for one in made().working if one.estimate.basis == "measured")
    told = Estimate(0.97 * measured.estimate.seconds, "prior", error, "a guess")
    guess = dataclasses.replace(measured, estimate=told)

    best, _ = ranked([guess, measured], objective)

    assert best.estimate.basis == first


def test_kinds_and_layouts_without_a_record_are_priors_that_name_their_source():
    other = made(gpus="2xL40S-48G").working[0].estimate
    wide = next(one.estimate for one in made().working if str(one.way) == "1 x 8 cfg2 x u4")
    mini = made(model="wan-mini-t2v", size=None).working[0].estimate

    assert {one.basis for one in (other, wide, mini)} == {"prior"}
    assert "bf16 rates of H100-80G and L40S-48G (" in other.source
    assert "NVIDIA L40S data sheet" in other.source
    assert "more than 2 GPUs by formula" in wide.source
    assert f"parameters of {A14B} and wan-mini-t2v" in mini.source


def test_a_plan_without_records_is_refused(tmp_path):
    with pytest.raises(FarmError, match="There are no records"):
        load_records(tmp_path)


# --- the verb ------------------------------------------------------------------------------------


def test_the_verb_shows_writes_and_tells_how_to_start(tmp_path, capfd):
    goal = tmp_path / "compose.gpu.yaml"

    code = main.run(["plan", "--gpus", "2xH100-80G", "--size", "832x480", "-o", str(goal)])

    said = capfd.readouterr()
    head, first, *_ = said.out.splitlines()
    assert code == 0
    assert dict(zip(head.split("\t"), first.split("\t"), strict=True))["layout"] == "cfg2"
    assert "a: jobs-wan2.2-t2v-a14b-2.json\n" in said.out
    assert "-f compose.gpu.yaml --profile planned up -d --build" in said.err
    assert goal.read_text() == made(gpus="2xH100-80G").compose("compose.gpu.yaml")


def test_the_verb_speaks_json_and_tells_by_its_code_that_nothing_works(tmp_path, capfd):
    goal = tmp_path / "none.yaml"

    words = ["plan", "--gpus", "1xA100-80G", "--precision", "fp8_attn", "--json", "-o", str(goal)]
    code = main.run(words)

    told = json.loads(capfd.readouterr().out)
    assert (code, told["layouts"], told["compose"]) == (9, [], None)
    assert told["rejected"][0]["reason"].startswith("Precision fp8_attn needs")
    assert not goal.exists()


def test_the_page_on_gpu_servers_shows_what_a_plan_says(capfd):
    page = (FOLDER.parents[1] / "docs" / "how-to" / "gpu-server.md").read_text()
    words, shown = re.search(r"<!-- plan (.*) -->\n```text\n(.*?)\n```", page, re.DOTALL).groups()

    main.run(["plan", *words.split()])

    said = capfd.readouterr()
    lines = [line.split() for line in (said.out + said.err).splitlines()]
    assert sorted(lines) == sorted(line.split() for line in shown.splitlines()[:-1])
