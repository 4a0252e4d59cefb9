"""Dashboard, alerts and documentation name the metrics that the code has, all of them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shared.vocabulary import metrics
from shared.vocabulary.metrics import METRICS, Metric, size_of
from shared.vocabulary.states import VideoState

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/wanfarm.json"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
PROMTOOL = shutil.which("promtool")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
NAME = re.compile(r"\bwanfarm_[a-z0-9_]+")
BASE_UNITS = ("_seconds", "_bytes", "_ratio", "_watts", "_celsius", "_total", "_info")
COUNTS_OF_THINGS = {"jobs", "intake_paused", "dispatch_paused", "group_state", "sse_streams"}
COUNTS_OF_THINGS |= {"webhooks_pending"}


def series() -> dict[str, Metric]:
    """What may stand in a query, and the metric it is of."""
    return {one.name + end: one for one in METRICS for end in SUFFIXES[one.kind]}


def panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text())["panels"]


def queries() -> Iterator[str]:
    """Every expression of the dashboard, with its variables filled in."""
    for panel in panels():
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "5m")
            yield re.sub(r"\$(model|group)", ".*", expr)


def rules() -> list[dict]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def names(*texts: str) -> set[str]:
    return {name for text in texts for name in NAME.findall(text)}


def promtool(*words: str | Path) -> None:
    if PROMTOOL is None:
        pytest.skip("no promtool on PATH")
    ran = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_metric_is_in_the_list_once():
    defined = [one for one in vars(metrics).values() if isinstance(one, Metric)]

    assert sorted(defined, key=lambda one: one.name) == sorted(METRICS, key=lambda one: one.name)
    assert len({one.name for one in METRICS}) == len(METRICS)


def test_names_end_in_a_base_unit():
    assert {m.short for m in METRICS if not m.short.endswith(BASE_UNITS)} == COUNTS_OF_THINGS
    assert all((m.kind == "counter") == m.short.endswith("_total") for m in METRICS)
    assert all(bool(m.buckets) == (m.kind == "histogram") for m in METRICS)


def test_what_is_queried_exists():
    asked = names(*queries(), *(rule["expr"] for rule in rules()))

    assert asked - set(series()) == set()


def test_every_metric_is_on_the_dashboard_or_behind_an_alert():
    asked = names(*queries(), *(rule["expr"] for rule in rules()))

    assert {one.name for one in METRICS} - {series()[name].name for name in asked} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
    assert names(page.read_text()) - set(series()) - {one.name for one in METRICS} == set()


def test_the_dashboard_has_its_rows_and_no_panel_without_a_place():
    assert [one["title"] for one in panels() if one["type"] == "row"] == [
        "Now",
        "Queue",
        "Latency",
        "Steps and cache",
        "Groups and GPUs",
        "API",
        "Storage and webhooks",
    ]
    cells = [
        (x, y)
        for panel in panels()
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_queries_of_the_dashboard_are_promql(tmp_path):
    parsed = [{"record": f"panel:{at}", "expr": expr} for at, expr in enumerate(queries())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": parsed}]}))

    promtool("check", "rules", file)


def test_the_configuration_of_prometheus_is_valid():
    promtool("check", "config", CONFIG)


def test_each_alert_fires_on_its_fault_and_not_without_it():
    tests = RULES.with_name("alerts.test.yml")
    tried = {
        asked["alertname"]
        for test in yaml.safe_load(tests.read_text())["tests"]
        for asked in test["alert_rule_test"]
        if asked.get("exp_alerts")
    }

    assert tried == {rule["alert"] for rule in rules() if "alert" in rule}
    promtool("test", "rules", tests)


def test_every_service_that_tells_is_scraped_where_it_tells():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    telling = {
        name: int(service["environment"]["WANFARM_METRICS_PORT"])
        for name, service in services.items()
        if "WANFARM_METRICS_PORT" in service.get("environment", {})
    }
    api = {"api": int(services["api"]["environment"]["WANFARM_PORT"])}

    scraped = {
        name: found["port"]
        for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }

    assert scraped == telling | api
    assert {services[name]["environment"]["WANFARM_HOST"] for name in telling} == {"0.0.0.0"}
    assert {name for name in services if "worker" in name} | {"upkeep"} == set(telling)


@pytest.mark.parametrize(
    ("model", "width", "height", "size"),
    [
        ("wan2.2-t2v-a14b", 832, 480, "480p"),
        ("wan2.2-t2v-a14b", 720, 1280, "720p"),
        ("wan2.2-ti2v-5b", 1280, 704, "720p"),
        ("wan2.2-ti2v-5b", 512, 512, "other"),
        ("wan2.2-ti2v-5b", None, 704, "other"),
        ("wan-mini-t2v", 128, 128, "mini"),
    ],
)
def test_sizes_have_few_names(model, width, height, size):
    assert size_of(model, width, height) == size


def test_a_video_ends_in_one_of_few_ways():
    assert {state for state, _ in metrics.ENDS} == {s for s in VideoState if s.is_final}
    assert {code for _, code in metrics.ENDS} == metrics.FINISHED.labels[2].values
