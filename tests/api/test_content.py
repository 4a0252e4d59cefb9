"""The bytes of a video: whole, in ranges, by link, and when there are none."""

import pytest

from shared.jobs import removal
from shared.machinery.tables import Video
from tests.api.callers import FILES, Caller, Hand

VIDEO = FILES["video"]


@pytest.mark.parametrize(
    ("query", "content", "kind"),
    [
        ("", VIDEO, "video/mp4"),
        ("?variant=0", VIDEO, "video/mp4"),
        ("?variant=thumbnail", FILES["thumbnail"], "image/webp"),
        ("?variant=spritesheet", FILES["spritesheet"], "image/jpeg"),
    ],
)
def test_each_variant_comes_with_its_type(api: Caller, finished, query, content, kind):
    answer = api.get(f"/v1/videos/{finished}/content{query}")

    assert (answer.status_code, answer.data, answer.mimetype) == (200, content, kind)
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        ("bytes=0-4", 206, VIDEO[:5], f"bytes 0-4/{len(VIDEO)}"),
        ("bytes=5-", 206, VIDEO[5:], f"bytes 5-{len(VIDEO) - 1}/{len(VIDEO)}"),
        ("bytes=-3", 206, VIDEO[-3:], f"bytes {len(VIDEO) - 3}-{len(VIDEO) - 1}/{len(VIDEO)}"),
        ("bytes=0-99999", 206, VIDEO, f"bytes 0-{len(VIDEO) - 1}/{len(VIDEO)}"),
        ("bytes=0-1,3-4", 200, VIDEO, None),
        ("lines=0-1", 200, VIDEO, None),
        ("nonsense", 200, VIDEO, None),
    ],
)
def test_a_single_range_is_cut_and_others_are_ignored(
    api: Caller, finished, asked, status, content, told
):
    answer = api.get(f"/v1/videos/{finished}/content", headers={"Range": asked})

    assert (answer.status_code, answer.data) == (status, content)
    assert answer.headers.get("Content-Range") == told


def test_a_range_past_the_end_is_refused_with_the_length(api: Caller, finished):
    answer = api.get(f"/v1/videos/{finished}/content", headers={"Range": "bytes=500-"})

    assert (answer.status_code, answer.json["error"]["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(VIDEO)}"


def test_the_tag_is_the_hash_and_serves_both_conditions(api: Caller, finished):
    path = f"/v1/videos/{finished}/content"
    tag = api.get(path).headers["ETag"]

    same = api.get(path, headers={"If-None-Match": tag})
    cut = api.get(path, headers={"Range": "bytes=0-4", "If-Range": tag})
    whole = api.get(path, headers={"Range": "bytes=0-4", "If-Range": '"another"'})
    head = api.head(path)

    assert tag == f'"{api.get(f"/v1/videos/{finished}").json["result"]["sha256"]}"'
    assert (same.status_code, cut.status_code, whole.status_code) == (304, 206, 200)
    assert (head.data, head.headers["Content-Length"]) == (b"", str(len(VIDEO)))


def test_a_download_has_the_videos_name(api: Caller, finished):
    answer = api.get(f"/v1/videos/{finished}/content?download=1")

    assert answer.headers["Content-Disposition"] == f"attachment; filename={finished}.mp4"


def test_the_signed_link_needs_no_key_and_cannot_be_changed(app, api: Caller, finished):
    link = api.get(f"/v1/videos/{finished}").json["url"].removeprefix("http://localhost")
    nobody = app.test_client()

    good = nobody.get(link, buffered=True)
    steady = api.get(f"/v1/videos/{finished}").json["url"].endswith(link)
    changed = [nobody.get(link[:-1] + "x"), nobody.get(f"{link}&variant=thumbnail")]
    bare = nobody.get(f"/v1/videos/{finished}/content")

    assert (good.status_code, good.data, steady) == (200, VIDEO, True)
    assert {answer.json["error"]["code"] for answer in changed} == {"link_invalid"}
    assert bare.status_code == 401


def test_a_video_that_is_not_done_has_no_content_yet(api: Caller):
    answer = api.get(f"/v1/videos/{api.make()['id']}/content")

    assert (answer.status_code, answer.json["error"]["code"]) == (409, "video_not_ready")


def test_a_cancelled_video_never_has_any(api: Caller):
    video_id = api.make()["id"]
    api.post(f"/v1/videos/{video_id}/cancel")

    answer = api.get(f"/v1/videos/{video_id}/content")

    assert (answer.status_code, answer.json["error"]["code"]) == (410, "content_gone")


def test_expired_files_are_gone_and_the_video_says_so(api: Caller, finished, farm):
    with farm.db.connect() as db:
        db.execute(Video.__table__.update().values(expires_at=Video.completed_at))
    removal.expire(farm)

    answer = api.get(f"/v1/videos/{finished}/content")
    video = api.get(f"/v1/videos/{finished}").json

    assert (answer.status_code, answer.json["error"]["code"]) == (410, "content_gone")
    assert (video["status"], video["url"], video["urls"]["content"]) == ("completed", None, None)


def test_a_retried_video_gives_the_files_of_the_attempt_that_won(api: Caller, hand: Hand, farm):
    video_id = api.make()["id"]
    hand.claim()
    with farm.db.connect() as db:
        values = {"state": "queued", "lease_until": None}
        db.execute(Video.__table__.update().values(values))
    hand.complete(hand.claim())

    answer = api.get(f"/v1/videos/{video_id}/content")

    assert answer.data == VIDEO
