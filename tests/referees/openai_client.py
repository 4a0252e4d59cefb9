"""What a user of the openai package does with a farm; run with that package on the path.

Arguments: the farm's URL and a key. Every check is an assertion; the last line says what ran.
"""

import io
import json
import struct
import sys
import zlib

import openai
from openai import OpenAI

PROMPTS = ["a red ball", "a blue square", "a green star"]
SMALL = {"model": "wan-tiny-t2v", "size": "64x64", "extra_body": {"frames": 5, "steps": 2}}


def main(url: str, key: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key=key)
    done = renders(client)
    pages_while_deleting(client)
    content(client, done)
    refusals(client, url, done)
    image(client)
    files(client)
    models = [model.id for model in client.models.list()]
    assert "wan-tiny-t2v" in models, models
    sys.stdout.write(json.dumps({"openai": openai.__version__, "models": len(models)}))


def renders(client: OpenAI):
    video = client.videos.create(prompt=PROMPTS[0], **SMALL)
    assert video.status in {"queued", "in_progress"}, video
    assert video.object == "video"
    done = client.videos.poll(video.id)
    assert (done.status, done.progress, done.size) == ("completed", 100, "64x64"), done
    assert done.completed_at >= done.created_at
    again = client.videos.create_and_poll(prompt=PROMPTS[1], **SMALL)
    assert again.status == "completed", again
    assert client.videos.retrieve(again.id).prompt == PROMPTS[1]
    remixed = client.videos.remix(again.id, prompt=PROMPTS[2])
    assert remixed.remixed_from_video_id == again.id
    assert client.videos.poll(remixed.id).status == "completed"
    return done


def pages_while_deleting(client: OpenAI) -> None:
    made = [client.videos.create(prompt=prompt, **SMALL).id for prompt in PROMPTS]
    seen = []
    for video in client.videos.list(limit=2):
        seen.append(video.id)
        if video.id in made:
            assert client.videos.delete(video.id).deleted is True
    assert seen == sorted(seen, reverse=True)
    assert set(made) <= set(seen)
    left = {video.id for video in client.videos.list(order="asc", limit=1)}
    assert left == set(seen) - set(made), (left, seen)


def content(client: OpenAI, done) -> None:
    video = client.videos.download_content(done.id).read()
    assert video[4:8] == b"ftyp", video[:16]
    thumbnail = client.videos.download_content(done.id, variant="thumbnail").read()
    assert thumbnail[8:12] == b"WEBP", thumbnail[:16]
    sheet = client.videos.download_content(done.id, variant="spritesheet").read()
    assert sheet[:3] == b"\xff\xd8\xff", sheet[:16]


def refusals(client: OpenAI, url: str, done) -> None:
    bad = refused(
        openai.BadRequestError, client.videos.create, prompt="x", **SMALL | {"size": "65x64"}
    )
    assert (bad.code, bad.param) == ("invalid_value", "size"), bad
    assert bad.request_id
    waiting = client.videos.create(
        prompt="x", **SMALL | {"extra_body": {"frames": 5, "steps": 100}}
    )
    early = refused(openai.ConflictError, client.videos.download_content, waiting.id)
    assert early.code == "video_not_ready", early
    client.videos.delete(waiting.id)
    gone = refused(openai.NotFoundError, client.videos.retrieve, waiting.id)
    assert gone.code == "video_not_found", gone
    stranger = OpenAI(base_url=f"{url}/v1", api_key="wf_nobodyxx_secret", max_retries=0)
    assert (
        refused(openai.AuthenticationError, stranger.videos.retrieve, done.id).code == "invalid_key"
    )


def refused(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"{call} was not refused")


def image(client: OpenAI) -> None:
    picture = io.BytesIO(PNG)
    video = client.videos.create(
        prompt="it moves",
        model="wan-tiny-i2v",
        input_reference=("picture.png", picture, "image/png"),
        size="64x64",
        extra_body={"frames": 5, "steps": 2},
    )
    assert client.videos.poll(video.id).status == "completed"


def files(client: OpenAI) -> None:
    """A picture is uploaded once, and a video is made from its id."""
    made = client.files.create(file=("picture.png", io.BytesIO(PNG)), purpose="vision")
    assert (made.object, made.status, made.purpose) == ("file", "processed", "vision"), made
    assert (made.filename, made.expires_at > made.created_at) == ("picture.png", True), made
    assert client.files.retrieve(made.id).to_dict() == made.to_dict()
    assert [one.id for one in client.files.list()] == [made.id]
    assert len(client.files.content(made.id).read()) == made.bytes
    video = client.videos.create(
        prompt="it moves",
        model="wan-tiny-i2v",
        size="64x64",
        extra_body={"frames": 5, "steps": 2, "input_reference": {"file_id": made.id}},
    )
    assert client.files.delete(made.id).deleted is True
    gone = refused(openai.NotFoundError, client.files.retrieve, made.id)
    assert gone.code == "file_not_found", gone
    assert client.videos.poll(video.id).status == "completed"


def _png(side: int) -> bytes:
    """A plain picture without any imaging package."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + bytes((40, 120, 200)) * side for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


PNG = _png(64)

if __name__ == "__main__":
    main(*sys.argv[1:])
