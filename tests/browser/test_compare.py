"""Finished videos beside each other: one clock for all players, and where their settings part."""

from collections.abc import Callable

import pytest

from tests.browser.conftest import Visit
from tests.browser.staging import CLIP, Clip, Stage
from tests.browser.visitor import PHONE, Visitor
from tests.conftest import wait_for

pytestmark = pytest.mark.browser


@pytest.fixture
def make(stage: Stage) -> Callable[..., str]:
    """A finished video; gives its id."""

    def finish(prompt: str = "a red ball", clip: Clip = CLIP, **fields: object) -> str:
        video_id = stage.submit(prompt, **fields)
        stage.complete(stage.claim().fence, clip=clip)
        return video_id

    return finish


def frames(visitor: Visitor) -> list[str]:
    """The frame that each player shows, as the browser told of the very picture."""
    return visitor.page.locator(".at output").all_inner_texts()


def stand_at(visitor: Visitor, *numbers: int) -> None:
    """Wait until the players show these frames."""
    wait_for(lambda: frames(visitor) == [str(number) for number in numbers])


def test_two_videos_play_as_one_and_stop_at_the_same_frame(visit: Visit, make: Callable):
    visitor = visit(f"/compare?ids={make(steps=20)},{make(steps=40)}")
    page = visitor.page
    stand_at(visitor, 1, 1)
    assert visitor.axe() == []

    page.click("#play")
    wait_for(lambda: int(frames(visitor)[0]) > 5)
    page.click("#play")
    stopped = int(page.input_value("#frame"))
    stand_at(visitor, stopped, stopped)
    page.fill("#frame", "12")
    stand_at(visitor, 12, 12)
    page.keyboard.press(".")
    stand_at(visitor, 13, 13)
    page.keyboard.press(",")
    page.keyboard.press(",")
    stand_at(visitor, 11, 11)
    page.click("h1")  # arrows move a slider that has the focus
    page.keyboard.press("ArrowRight")

    stand_at(visitor, 27, 27)
    assert visitor.text("#where") == "frame 27/33 · 1.63 s"


def test_a_wipe_is_moved_by_keys_slider_and_pointer(visit: Visit, make: Callable):
    visitor = visit(f"/compare?ids={make()},{make()}")
    page = visitor.page

    page.check("[value=wipe]")
    assert cut(visitor) == "inset(0px 0px 0px 50%)"
    page.keyboard.press("]")
    assert cut(visitor) == "inset(0px 0px 0px 55%)"
    page.fill("#wipe", "20")
    assert cut(visitor) == "inset(0px 0px 0px 20%)"
    box = page.locator("#stage video").first.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 9)
    assert cut(visitor) == "inset(0px 0px 0px 75%)"
    boxes = [one.bounding_box() for one in page.locator("#stage video").all()]
    assert boxes[0] == boxes[1]
    assert visitor.axe() == []
    stand_at(visitor, 1, 1)

    page.check("[value=difference]")
    assert cut(visitor) == "none"
    blend = "getComputedStyle(document.querySelector('.over')).mixBlendMode"
    assert page.evaluate(blend) == "difference"
    assert visitor.axe() == []
    page.check("[value=grid]")
    assert page.evaluate(blend) == "normal"


def cut(visitor: Visitor) -> str:
    return visitor.page.evaluate("getComputedStyle(document.querySelector('.over')).clipPath")


def test_other_sizes_rates_and_lengths_are_aligned_by_time_and_said(visit: Visit, make: Callable):
    long = make(steps=40, clip=Clip(96, 64, 49, 24))
    visitor = visit(f"/compare?ids={long},{make()},{make(clip=Clip(frames=9))}", size=PHONE)

    assert "A 49 frames at 24 fps, B 33 frames at 16 fps" in visitor.text(".banner")
    visitor.page.fill("#frame", "31")  # 1.27 s
    stand_at(visitor, 31, 21, 9)
    visitor.page.check("[value=difference]")
    assert "A is 96×64, B is 128×128" in visitor.text("#told")  # noqa: RUF001
    visitor.page.select_option("#other", "2")
    assert "C is 128×128" in visitor.text("#told")  # noqa: RUF001
    visitor.page.check("[value=wipe]")

    visitor.check_width()
    assert visitor.page.locator("#told").is_hidden()
    assert [one.is_visible() for one in visitor.page.locator("#stage video").all()] == [
        True,
        False,
        True,
    ]


def test_ticked_rows_stand_still_and_open_side_by_side(visit: Visit, stage: Stage, make: Callable):
    ids = [make(), make()]
    visitor = visit("/jobs")
    page = visitor.page

    page.check(f".tick [value={ids[0]}]")
    page.wait_for_selector("#live-word >> text=Paused")
    page.keyboard.press("x")
    page.wait_for_selector("#live-word >> text=Polling")
    page.focus(f"#open-{ids[1]}")
    page.keyboard.press("x")
    page.check(f".tick [value={ids[0]}]")
    page.keyboard.press("c")

    page.wait_for_url(f"**/compare?ids={ids[1]},{ids[0]}")


def test_without_script_they_play_and_only_settings_that_differ_are_listed(
    visit: Visit, make: Callable
):
    visitor = visit(f"/compare?ids={make(steps=40)}&ids={make(seed=8)}", script=False)

    names = visitor.page.locator("#differences tr:visible th[scope=row]")
    assert names.all_inner_texts() == ["steps", "seed"]
    values = visitor.page.locator("#differences tr:has(th:text('steps')) td")
    assert values.all_inner_texts() == ["40", "20"]
    visitor.page.uncheck("#only")
    assert "fps" in names.all_inner_texts()
    assert visitor.page.locator("#stage video[controls]").count() == 2
