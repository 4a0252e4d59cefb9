"""The bytes of a video that is in a bucket: we say who may have it, the bucket sends it."""

import hashlib
import io

import httpx
import pytest

from api.app import close, create_app
from shared.jobs import removal
from shared.machinery.tables import Video
from tests.api.callers import FILES, Caller, caller_of, png

VIDEO = FILES["video"]


@pytest.fixture
def settings(settings, bucket):
    """The farm of these tests keeps its results in a bucket."""
    return settings.model_copy(update=bucket)


@pytest.mark.parametrize(
    ("query", "content", "kind"),
    [
        ("", VIDEO, "video/mp4"),
        ("?variant=thumbnail", FILES["thumbnail"], "image/webp"),
        ("?variant=spritesheet", FILES["spritesheet"], "image/jpeg"),
    ],
)
def test_each_variant_is_fetched_from_the_bucket(
    api: Caller, finished, bucket, query, content, kind
):
    answer = api.get(f"/v1/videos/{finished}/content{query}")
    sent = httpx.get(answer.location)

    assert (answer.status_code, answer.headers["Cache-Control"]) == (302, "no-store")
    assert answer.location.startswith(f"{bucket['s3_endpoint']}/{bucket['s3_bucket']}/wanfarm/")
    assert (sent.status_code, sent.content, sent.headers["Content-Type"]) == (200, content, kind)
    assert sent.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_a_range_and_a_head_are_answered_there(api: Caller, finished):
    path = f"/v1/videos/{finished}/content"

    cut = httpx.get(api.get(path).location, headers={"Range": "bytes=0-4"})
    head = httpx.head(api.head(path).location)

    assert (cut.status_code, cut.content) == (206, VIDEO[:5])
    assert head.headers["Content-Length"] == str(len(VIDEO))


def test_a_download_has_the_videos_name(api: Caller, finished):
    answer = httpx.get(api.get(f"/v1/videos/{finished}/content?download=1").location)

    assert answer.headers["Content-Disposition"] == f"attachment; filename={finished}.mp4"


def test_who_has_the_bytes_is_not_sent_for_them(api: Caller, finished):
    path = f"/v1/videos/{finished}/content"
    tag = api.get(path).headers["ETag"]

    same = api.get(path, headers={"If-None-Match": tag})

    assert tag == f'"{api.get(f"/v1/videos/{finished}").json["result"]["sha256"]}"'
    assert (same.status_code, same.location) == (304, None)


def test_a_link_is_still_ours_and_nobody_else_is_sent_there(app, api: Caller, stranger, finished):
    link = api.get(f"/v1/videos/{finished}").json["url"]
    assert link.startswith(f"http://localhost/v1/videos/{finished}/content?")

    signed = app.test_client().get(link.removeprefix("http://localhost"))
    others = stranger.get(f"/v1/videos/{finished}/content")

    assert httpx.get(signed.location).content == VIDEO
    assert (others.status_code, others.location) == (404, None)


def test_expired_files_are_gone(api: Caller, finished, farm):
    with farm.db.connect() as db:
        db.execute(Video.__table__.update().values(expires_at=Video.completed_at))
    removal.expire(farm)

    answer = api.get(f"/v1/videos/{finished}/content")

    assert (answer.status_code, answer.json["error"]["code"]) == (410, "content_gone")


def test_the_pages_may_show_pictures_and_films_from_the_bucket_only(api: Caller, bucket):
    told = api.get("/livez").headers["Content-Security-Policy"]

    rules = dict(rule.split(" ", 1) for rule in told.split("; "))
    theirs = {name for name, sources in rules.items() if bucket["s3_endpoint"] in sources.split()}
    assert theirs == {"img-src", "media-src"}


def test_an_input_image_is_stored_and_shown_from_there(api: Caller, farm):
    sent = {"prompt": "a boat", "input_reference": (io.BytesIO(png()), "a.png")}
    video_id = api.post("/v1/videos", data=sent).json["id"]

    shown = api.get(f"/jobs/{video_id}/image")

    assert httpx.get(shown.location).headers["Content-Type"] == "image/png"
    assert len(farm.storage.names("images")) == 1


def test_an_uploaded_file_is_fetched_from_there_and_makes_videos(api: Caller):
    sent = {"file": (io.BytesIO(png()), "a.png")}
    file = api.post("/v1/files", data=sent).json

    shown = httpx.get(api.get(f"/v1/files/{file['id']}/content").location)
    made = api.make(model="wan-tiny-i2v", input_reference=file["id"])

    assert hashlib.sha256(shown.content).hexdigest() == file["sha256"]
    assert shown.headers["Content-Disposition"] == f"inline; filename={file['id']}.png"
    assert made["spec"]["image"]["sha256"] == file["sha256"]


def test_a_bucket_that_is_away_is_told(settings, farm, finished):
    app = create_app(settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"}))
    api = caller_of(app, farm, "admin")

    answer = api.get(f"/v1/videos/{finished}/content")
    ready = api.get("/readyz")
    gone = api.delete(f"/v1/videos/{finished}")
    close(app)

    assert (answer.status_code, answer.json["error"]["code"]) == (503, "not_ready")
    assert "WANFARM_S3_ENDPOINT" in answer.json["error"]["message"]
    assert ready.status_code == 503
    assert (gone.status_code, farm.storage.names("videos")) == (200, [finished])
