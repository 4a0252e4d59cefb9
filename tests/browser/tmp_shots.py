import pytest
from tests.browser.conftest import Visit
from tests.browser.staging import Stage
from tests.browser.visitor import DESK, PHONE
from tests.browser.test_batches import made_by_form, render
from shared.jobs import batches
from tests.services.jobs import order
from shared.vocabulary.spec import FailureKind

pytestmark = pytest.mark.browser


def test_shots(visit, stage):
    visitor = visit("/", size=DESK)
    path = made_by_form(visitor, 8)
    render(stage, 3)
    stage.denoise(stage.claim().fence, 7)
    stage.give_back(stage.claim(), FailureKind.BAD_INPUT, "x")
    members = [
        batches.Member(
            order(stage.farm, seed=s, steps=n, cache=c, prompt="a boat"),
            {"steps": n, "cache": c, "seed": s},
        )
        for n in (2, 3)
        for c in ("off", "fast")
        for s in (1, 2)
    ]
    other = batches.submit(
        stage.farm,
        batches.BatchOrder(
            members,
            {"steps": [2, 3], "cache": ["off", "fast"], "seed": [1, 2]},
            name="boats at night",
        ),
    ).batch_id
    first = batches.one(stage.farm, path.partition("=")[2], None)["items"][0]["video_id"]
    for theme in ("dark", "light"):
        for name, size in (("desk", DESK), ("phone", PHONE)):
            v = visit("/", size=size)
            if theme == "light":
                v.page.click("button[name=theme]")
            for what, url in (
                ("batch", path),
                ("grid", "/jobs?view=grid"),
                ("varied", f"/jobs?batch={other}"),
                ("list", path + "&view=list"),
                ("new", "/new?count=4"),
                ("job", f"/jobs/{first}"),
            ):
                v.go(url)
                v.page.wait_for_timeout(300)
                v.page.screenshot(
                    path=f"/tmp/bshots/{what}-{theme}-{name}.png", full_page=what != "new"
                )
    answer = visitor.context.request.get(
        f"{visitor.address}/v1/batches/{path.partition('=')[2]}/sheet"
    )
    open("/tmp/bshots/sheet.jpg", "wb").write(answer.body())
