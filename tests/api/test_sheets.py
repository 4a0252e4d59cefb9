"""The contact sheet of a batch: the posters there are, and who has it already gets none."""

import io

from PIL import Image

from shared.jobs import removal
from tests.api.callers import Caller, Hand
from tests.services.jobs import ago, edit


def poster(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (160, 96), colour).save(out, "WEBP", lossless=True)
    return out.getvalue()


def finish(farm, hand: Hand, colour: str) -> None:
    claimed = hand.claim()
    hand.complete(claimed)
    farm.storage.put_bytes(poster(colour), f"videos/{claimed.fence.video_id}/1/thumbnail.webp")


def test_a_sheet_shows_the_posters_there_are(api: Caller, hand: Hand, farm):
    made = api.make_batch(seeds=[1, 2], grid={"steps": [5, 6, 7]})
    path = f"/v1/batches/{made['id']}/sheet"
    early = api.get(path)
    finish(farm, hand, "red")
    finish(farm, hand, "lime")
    removal.delete(farm, made["items"][5]["video_id"], by="me")

    answer = api.get(path)

    assert (early.status_code, early.json["error"]["code"]) == (409, "sheet_not_ready")
    assert (answer.status_code, answer.mimetype) == (200, "image/jpeg")
    with Image.open(io.BytesIO(answer.data)) as sheet:
        wide, tall = sheet.size
        assert (sheet.format, wide) == ("JPEG", 2 * (320 + 12) + 12)  # its seeds side by side
        cell = tall // 3
        places = [(100, 60), (432, 60), (100, 60 + cell), (432, 60 + 2 * cell)]
        seen = [sheet.getpixel(place) for place in places]
    assert [max(range(3), key=colour.__getitem__) for colour in seen[:2]] == [0, 1]
    assert all(max(colour) < 60 for colour in seen[2:])
    assert api.get(f"/v1/batches/{made['id']}").json["urls"]["sheet"].endswith(path)


def test_a_sheet_that_has_not_changed_is_not_sent_twice(api: Caller, hand: Hand, farm):
    made = api.make_batch(variations=2)
    path = f"/v1/batches/{made['id']}/sheet"
    finish(farm, hand, "red")
    tag = api.get(path).headers["ETag"]

    unchanged = api.get(path, headers={"If-None-Match": tag})
    finish(farm, hand, "blue")
    changed = api.get(path, headers={"If-None-Match": tag})

    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert changed.status_code == 200


def test_a_sheet_outlives_a_damaged_poster_and_ends_with_the_last_file(
    api: Caller, hand: Hand, farm
):
    made = api.make_batch(variations=1)
    hand.complete(hand.claim())  # whose poster is no picture
    path = f"/v1/batches/{made['id']}/sheet"

    assert api.get(path).status_code == 200
    edit(farm, made["items"][0]["video_id"], expires_at=ago(1))
    removal.expire(farm)
    gone = api.get(path)
    assert (gone.status_code, gone.json["error"]["code"]) == (410, "content_gone")
