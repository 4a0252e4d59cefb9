"""The form for a new video: limits, all faults at once, images, one job per form."""

import json
from io import BytesIO

import pytest
from PIL import Image

from shared.jobs import queries
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.states import GroupState
from tests.browser.conftest import Visit
from tests.browser.staging import Stage
from tests.loras import adapter

pytestmark = pytest.mark.browser


def rows(stage: Stage) -> list[dict]:
    return queries.page(stage.farm, queries.Filter(tenant=None), limit=100).rows


def picture() -> dict:
    out = BytesIO()
    Image.new("RGB", (160, 128), "teal").save(out, "PNG")
    return {"name": "teal.png", "mimeType": "image/png", "buffer": out.getvalue()}


def test_a_double_click_makes_one_job(visit: Visit, stage: Stage):
    visitor = visit("/new")
    visitor.page.fill("#prompt", "a red ball")

    visitor.page.dblclick("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    assert len(rows(stage)) == 1


def test_the_same_form_sent_twice_makes_one_job(visit: Visit, stage: Stage):
    visitor = visit("/new", script=False)
    visitor.page.fill("#prompt", "a red ball")
    form = {
        name: visitor.page.input_value(f"#new [name={name}]")
        for name in ("csrf_token", "form_key", "prompt", "model")
    }

    answers = [
        visitor.context.request.post(f"{visitor.address}/new", form=form, max_redirects=0)
        for _ in range(2)
    ]

    assert {one.status for one in answers} == {303}
    assert len({one.headers["location"] for one in answers}) == 1
    assert len(rows(stage)) == 1


def test_the_rail_foresees_what_the_form_says(visit: Visit, stage: Stage):
    stage.beat(GroupState.IDLE)
    visitor = visit("/new?model=wan-tiny-t2v")
    rail = visitor.page.locator("#estimate")
    rail.get_by_text("Say what the video shows").wait_for()

    visitor.page.fill("#prompt", "it's a red ball")
    rail.get_by_text("place in the queue").wait_for()
    visitor.page.fill("#count", "3")
    rail.get_by_text("1 to 3").wait_for()
    assert '"variations": 3' in rail.locator("#as-curl-text").text_content()
    assert visitor.axe() == []

    visitor.page.fill("#frames", "80")
    rail.get_by_text("frames is 80").wait_for()
    assert rows(stage) == []


def test_the_rail_needs_no_image_to_foresee_a_video_from_one(visit: Visit, stage: Stage):
    stage.beat(GroupState.IDLE)
    visitor = visit("/new?model=wan-tiny-i2v")

    visitor.page.fill("#prompt", "it begins to rain")

    visitor.page.locator("#estimate").get_by_text("place in the queue").wait_for()
    assert rows(stage) == []


def test_all_faults_stand_beside_their_fields(visit: Visit, stage: Stage):
    visitor = visit("/new", expected=("400",))

    visitor.page.fill("#frames", "80")
    visitor.page.fill("#size", "100x100")
    visitor.page.click("#create")
    visitor.page.wait_for_selector("#faults")

    assert "4k+1" in visitor.text("#frames-fault")
    assert "size is" in visitor.text("#size-fault")
    assert "prompt is empty" in visitor.text("#prompt-fault")
    assert visitor.page.input_value("#frames") == "80"
    assert visitor.axe() == []
    assert rows(stage) == []


def test_a_model_of_a_small_world_says_what_it_knows(visit: Visit):
    visitor = visit("/new?model=wan-mini-t2v")

    assert MODELS["wan-mini-t2v"].example in visitor.text("#prompt-hint")
    assert visitor.axe() == []
    visitor.page.select_option("#model", "wan-tiny-t2v")
    visitor.page.wait_for_selector("#prompt-hint", state="detached")


def test_another_model_brings_its_own_limits_and_keeps_what_was_typed(visit: Visit, stage: Stage):
    visitor = visit("/new")
    visitor.page.fill("#prompt", "a red ball")
    assert visitor.page.locator("#input_reference").count() == 0

    visitor.page.select_option("#model", "wan-tiny-i2v")
    visitor.page.wait_for_selector("#input_reference")

    assert visitor.page.input_value("#prompt") == "a red ball"
    assert visitor.page.get_attribute("#shift", "placeholder") == "5"


def test_an_image_starts_a_video_and_is_kept_by_edit(visit: Visit, stage: Stage):
    visitor = visit("/new?model=wan-tiny-i2v")
    visitor.page.fill("#prompt", "it turns")
    visitor.page.set_input_files("#input_reference", picture())
    visitor.page.wait_for_selector("#preview[src^='blob:']")
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")
    assert visitor.page.locator("img.input").evaluate("one => one.decode().then(() => 1)") == 1

    visitor.page.click("#edit")
    visitor.page.wait_for_url("**/new?from=*")
    visitor.page.fill("#seed", "123")
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    second, first = rows(stage)
    assert second["image_sha256"] == first["image_sha256"]
    assert (second["spec"]["seed"], second["remixed_from"]) == (123, first["id"])


DROPPED = """async () => {
  const canvas = new OffscreenCanvas(128, 128);
  canvas.getContext("2d").fillRect(0, 0, 9, 9);
  const file = new File([await canvas.convertToBlob()], "x.png", {type: "image/png"});
  const transfer = new DataTransfer();
  transfer.items.add(file);
  return transfer;
}"""


def test_a_dropped_image_lands_in_the_field(visit: Visit):
    visitor = visit("/new?model=wan-tiny-i2v")
    data = visitor.page.evaluate_handle(DROPPED)

    visitor.page.dispatch_event("#prompt", "drop", {"dataTransfer": data})

    assert visitor.page.evaluate("document.getElementById('input_reference').files.length") == 1


def test_the_picture_is_shown_as_the_model_will_see_it(visit: Visit, stage: Stage):
    visitor = visit("/new?model=wan-tiny-i2v")
    visitor.page.fill("#prompt", "it turns")
    visitor.page.set_input_files("#input_reference", picture())
    preview, seen = visitor.page.locator("#preview"), visitor.page.locator("#seen")
    seen.get_by_text("The video takes the shape of the image.").wait_for()

    visitor.page.fill("#size", "64x96")
    visitor.page.select_option("#image_fit", "contain")
    seen.get_by_text("What the model sees: padded to 64x96.").wait_for()

    box = preview.bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(64 / 96, rel=0.02)
    assert preview.evaluate("one => getComputedStyle(one).objectFit") == "contain"
    assert visitor.axe() == []
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")
    (row,) = rows(stage)
    assert (row["spec"]["image_fit"], row["spec"]["width"]) == ("contain", 64)
    visitor.page.click("#edit")
    visitor.page.wait_for_url("**/new?from=*")
    assert visitor.page.input_value("#image_fit") == "contain"


def test_adapters_are_chosen_by_name_and_kept_by_edit(visit: Visit, stage: Stage):
    for name, family in (("film-grain", "wan-tiny"), ("of-others", "wan2.2-5b")):
        folder = stage.farm.settings.lora_dir / name
        folder.mkdir(parents=True)
        (folder / "high.safetensors").write_bytes(adapter())
        (folder / "low.safetensors").write_bytes(adapter())
        (folder / "lora.json").write_text(json.dumps({"family": family}))
    visitor = visit("/new?model=wan-tiny-t2v", expected=("400",))
    assert "of-others" not in visitor.text("#loras")
    first = visitor.page.get_by_label("LoRA 1", exact=True)

    visitor.page.fill("#prompt", "a red ball")
    visitor.page.get_by_label("strength of LoRA 1").fill("0.5")
    visitor.page.click("#create")
    visitor.page.wait_for_selector("#loras-fault")
    assert visitor.page.get_by_label("strength of LoRA 1").input_value() == "0.5"
    assert visitor.axe() == []
    first.select_option("film-grain")
    visitor.page.get_by_label("expert of LoRA 1").select_option("low")
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    (row,) = rows(stage)
    assert row["spec"]["loras"] == [{"name": "film-grain", "strength": 0.5, "target": "low"}]
    visitor.page.click("#edit")
    visitor.page.wait_for_url("**/new?from=*")
    assert first.input_value() == "film-grain"
    assert visitor.page.get_by_label("LoRA 3", exact=True).count() == 0


def test_a_deadline_is_set_from_the_form(visit: Visit, stage: Stage):
    visitor = visit("/new")
    visitor.page.fill("#prompt", "a red ball")
    visitor.page.fill("#finish_within_s", "3600")

    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    (row,) = rows(stage)
    assert (row["finish_by"] - row["created_at"]).total_seconds() == 3600


def test_without_script_another_model_is_one_button_away(visit: Visit):
    visitor = visit("/new", script=False)
    visitor.page.fill("#prompt", "a red ball")

    visitor.page.select_option("#model", "wan-tiny-i2v")
    visitor.page.click("text=Show this model's limits")

    assert visitor.page.locator("#input_reference").count() == 1
    assert visitor.page.input_value("#prompt") == "a red ball"


def test_the_models_own_negative_prompt_counts_as_default(visit: Visit, stage: Stage):
    visitor = visit("/new?model=wan2.2-t2v-a14b")
    visitor.page.fill("#prompt", "a red ball")
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    (row,) = rows(stage)
    assert "negative_prompt" not in row["asked"]
    assert "低质量" in row["spec"]["negative_prompt"]
