"""Every variable of the block cache: it changes what it says, and a wrong value stops the start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.machinery.cache_settings import CacheSettings, alias_of
from shared.machinery.settings import child_environment, variable_of
from shared.vocabulary.cache import CachePolicies, CachePolicy

ROOT = Path(__file__).parents[2]
SHOW = """
import json, os, sys
from shared.machinery.settings import ConfigurationError, load_settings
from shared.vocabulary.cache_levels import settle
from shared.vocabulary.catalog import MODELS
clean = dict(os.environ)
for environment in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(clean | environment)
    try:
        settled = settle("default", load_settings().cache, MODELS["wan2.2-t2v-a14b"])
        told = settled.policies.model_dump(mode="json") if settled else None
    except ConfigurationError as err:
        told = str(err)
    print(json.dumps(told))
"""
OURS = ("WANFARM_", "SGLANG_", "DATABASE_URL", "REDIS_URL")


def clean_environment() -> dict[str, str]:
    return {n: v for n, v in child_environment().items() if not n.startswith(OURS)}


def read(environments: list[dict[str, str]]) -> list[dict | str | None]:
    """What a process makes of each environment, in turn."""
    ran = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=clean_environment(),
        cwd=ROOT,
        input=json.dumps(environments),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


# field: a good text, what it sets, a bad text
TABLE = {
    "cache_enabled": ("true", {}, "yes"),
    "cache_fn": ("3", {"fn": 3}, "0"),
    "cache_bn": ("2", {"bn": 2}, "-1"),
    "cache_warmup": ("0", {"warmup": 0}, "1001"),
    "cache_warmup_interval": ("2", {"warmup_interval": 2}, "0"),
    "cache_rdt": ("0.5", {"rdt": 0.5}, "1"),
    "cache_mc": ("-1", {"mc": -1}, "-2"),
    "cache_max_cached": ("0", {"max_cached": 0}, "many"),
    "cache_max_accumulated": ("0.9", {"max_accumulated": 0.9}, "0"),
    "cache_taylorseer": ("1", {"taylorseer": True}, "on"),
    "cache_ts_order": ("2", {"ts_order": 2}, "3"),
    "cache_scm_preset": ("medium", {"scm_preset": "medium"}, "quick"),
    "cache_scm_compute_bins": ("8, 3", {"scm_compute_bins": (8, 3)}, "8,0"),
    "cache_scm_cache_bins": ("1,2", {"scm_cache_bins": (1, 2)}, "1,x"),
    "cache_scm_policy": ("static", {"scm_policy": "static"}, "fixed"),
    "cache_force_last": ("True", {"force_last": True}, "2"),
    "cache_min_steps": ("0", {"min_steps": 0}, "-1"),
    "cache_secondary_fn": ("4", {"fn": 4}, "0"),
    "cache_secondary_bn": ("1", {"bn": 1}, "1.5"),
    "cache_secondary_warmup": ("2", {"warmup": 2}, "-1"),
    "cache_secondary_rdt": ("always", {"rdt": "always"}, "nan"),
    "cache_secondary_mc": ("0", {"mc": 0}, "-2"),
    "cache_secondary_taylorseer": ("TRUE", {"taylorseer": True}, "y"),
    "cache_secondary_ts_order": ("2", {"ts_order": 2}, "0"),
}
PARTNER = {
    "cache_scm_compute_bins": "cache_scm_cache_bins",
    "cache_scm_cache_bins": "cache_scm_compute_bins",
}
NAMES = [(field, variable_of(field)) for field in TABLE]
NAMES += [(field, alias) for field in TABLE if (alias := alias_of(field))]
SWITCH = {"WANFARM_CACHE_ENABLED": "1"}


@pytest.fixture(scope="module")
def good() -> dict[str, dict | None]:
    """The policies that each name makes with its good text."""
    environments = [
        {name: TABLE[field][0]} | partner_of(field) | ({} if field == "cache_enabled" else SWITCH)
        for field, name in NAMES
    ]
    return dict(zip([name for _, name in NAMES], read(environments), strict=True))


@pytest.fixture(scope="module")
def bad() -> dict[str, str]:
    """What each name says to its bad text."""
    told = read([{name: TABLE[field][2]} | partner_of(field) for field, name in NAMES])
    return dict(zip([name for _, name in NAMES], told, strict=True))


def partner_of(field: str) -> dict[str, str]:
    other = PARTNER.get(field)
    return {variable_of(other): TABLE[other][0]} if other else {}


def test_the_table_has_every_variable():
    assert set(TABLE) == set(CacheSettings.model_fields)
    assert sum(alias_of(field) is None for field in TABLE) == 5


@pytest.mark.parametrize(("field", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_variable_changes_what_it_says_and_nothing_else(good, field, name):
    changed = TABLE[field][1] | TABLE.get(PARTNER.get(field), ("", {}))[1]
    here, default = CachePolicy(**changed), CachePolicy()

    expected = CachePolicies(high=default if "secondary" in field else here, low=here)

    assert good[name] == expected.model_dump(mode="json")


@pytest.mark.parametrize(("field", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_wrong_value_is_refused_by_its_variables_name(bad, field, name):
    wrong = TABLE[field][2].rpartition(",")[2]

    assert bad[name].startswith(f"{name} is '{wrong}'. ")
    assert bad[name].endswith(".")


CLASHES = {
    "nothing set": ({}, None),
    "knobs without the switch": ({"WANFARM_CACHE_FN": "3"}, None),
    "switched off": ({"WANFARM_CACHE_ENABLED": "FALSE"}, None),
    "empty is unset": ({"WANFARM_CACHE_ENABLED": "", "SGLANG_CACHE_DIT_RDT": ""}, None),
    "both names, different": (
        {"WANFARM_CACHE_FN": "2", "SGLANG_CACHE_DIT_FN": "3"},
        "WANFARM_CACHE_FN and SGLANG_CACHE_DIT_FN are both set, to different values.",
    ),
    "both names, one in a file": (
        {"WANFARM_CACHE_FN_FILE": "/fn", "SGLANG_CACHE_DIT_FN": "3"},
        "WANFARM_CACHE_FN and SGLANG_CACHE_DIT_FN are both set",
    ),
    "another calibrator": (
        {"SGLANG_CACHE_DIT_DMD": "true"},
        "SGLANG_CACHE_DIT_DMD is 'true'. This calibrator is not supported.",
    ),
    "its own knobs": (
        {"SGLANG_CACHE_DIT_SECONDARY_DMD_RANK": "4"},
        "SGLANG_CACHE_DIT_SECONDARY_DMD_RANK is '4'.",
    ),
    "another calibrator, off": ({"SGLANG_CACHE_DIT_DMD": "False"}, None),
    "a typo": (
        {"SGLANG_CACHE_DIT_WARMPU": "4"},
        "SGLANG_CACHE_DIT_WARMPU is not a setting of wanfarm. Did you mean WANFARM_CACHE_WARMUP?",
    ),
    "a typo of ours": (
        {"WANFARM_CACHE_WARMPU": "4"},
        "WANFARM_CACHE_WARMPU is not a setting of wanfarm. Did you mean WANFARM_CACHE_WARMUP?",
    ),
    "not theirs": (
        {"SGLANG_CACHE_DIT_MAX_CACHED": "4"},
        "SGLANG_CACHE_DIT_MAX_CACHED is not a setting of wanfarm. "
        "Did you mean WANFARM_CACHE_MAX_CACHED?",
    ),
    "half a mask": (
        {"SGLANG_CACHE_DIT_SCM_CACHE_BINS": "1,2"},
        "WANFARM_CACHE_SCM_COMPUTE_BINS and WANFARM_CACHE_SCM_CACHE_BINS go together.",
    ),
    "more blocks than there are": (
        {"SGLANG_CACHE_DIT_FN": "30", "WANFARM_CACHE_SECONDARY_BN": "11"},
        "SGLANG_CACHE_DIT_FN 30 and WANFARM_CACHE_SECONDARY_BN 11 are 41 blocks.",
    ),
    "what the threshold suggests": (
        {"WANFARM_CACHE_RDT": "1.5"},
        "WANFARM_CACHE_RDT is '1.5'. It must be above 0 and below 1, or \"always\"",
    ),
}


def test_names_of_two_tools_do_not_quietly_overrule_each_other(subtests):
    told = read([environment for environment, _ in CLASHES.values()])

    for name, text in zip(CLASHES, told, strict=True):
        with subtests.test(name):
            expected = CLASHES[name][1]
            assert text == expected or (expected and text.startswith(expected))


def test_two_names_that_agree_are_one():
    (told,) = read([SWITCH | {"SGLANG_CACHE_DIT_ENABLED": "true", "SGLANG_CACHE_DIT_MC": "2"}])

    assert (told["high"]["mc"], told["low"]["mc"]) == (2, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANFARM_CACHE_RDT", "1.5"),
        ("SGLANG_CACHE_DIT_TAYLORSEER", "yes"),
        ("SGLANG_CACHE_DIT_DMD", "1"),
    ],
)
def test_a_worker_does_not_start_over_a_wrong_value(name, value):
    ran = subprocess.run(
        [sys.executable, "-m", "worker.app"],
        env=clean_environment() | {name: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    assert ran.stderr.startswith(f"wanfarm worker: {name} is '{value}'. ")
