"""Callers with keys, a hand that plays the worker, pictures: what the API's tests are told with."""

import io
from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import func, select
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from shared.jobs import keys, lifecycle, running
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.machinery.tables import Video
from shared.vocabulary.catalog import MODELS

OFFER = Offer("g0", "life-1", 1, tuple(MODELS))
FILES = {"video": b"an mp4 of twenty byte", "thumbnail": b"webp", "spritesheet": b"jpeg"}
NAMES = {"video": "video.mp4", "thumbnail": "thumbnail.webp", "spritesheet": "spritesheet.jpg"}


@dataclass
class Caller:
    """A client that sends its key with every request."""

    client: FlaskClient
    key: str

    def __getattr__(self, method: str):
        def send(path: str, **options) -> TestResponse:
            headers = {"Authorization": f"Bearer {self.key}"} | options.pop("headers", {})
            options.setdefault("buffered", "Accept" not in headers)  # streams are read by the test
            return getattr(self.client, method)(path, headers=headers, **options)

        return send

    def make(self, **fields) -> dict:
        answer = self.post("/v1/videos", json={"prompt": "a paper boat"} | fields)
        assert answer.status_code == 200, answer.text
        return answer.json

    def make_batch(self, **fields) -> dict:
        answer = self.post("/v1/batches", json={"request": {"prompt": "a paper boat"}} | fields)
        assert answer.status_code == 200, answer.text
        return answer.json


def caller_of(app: Flask, farm: Farm, scope: keys.Scope, tenant: str = "default") -> Caller:
    _, key = keys.create(farm, f"{tenant}-{scope}", scope, tenant=tenant)
    return Caller(app.test_client(), key)


class Hand:
    """Plays the worker: claims, reports, completes."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm

    def claim(self) -> lifecycle.Claim:
        claimed = lifecycle.claim(self.farm, OFFER)
        assert claimed is not None
        return claimed

    def step(self, claimed: lifecycle.Claim, step: int, steps: int = 20) -> None:
        detail = {"phase": "denoise", "step": step, "steps": steps, "step_s": 0.5, "updated_at": 0}
        told = {"step": step, "steps": steps, "progress": step}
        columns = {"progress": step, "detail": detail}
        running.report(self.farm, claimed.fence, "step", told, columns)

    def complete(
        self, claimed: lifecycle.Claim, cost: dict | None = None, warnings: tuple | list = ()
    ) -> None:
        fence, spec = claimed.fence, claimed.spec
        stored = {
            name: self.farm.storage.put_bytes(
                content, f"videos/{fence.video_id}/{fence.attempt}/{NAMES[name]}"
            )
            for name, content in FILES.items()
        }
        files = {n: {"key": s.key, "bytes": s.bytes, "sha256": s.sha256} for n, s in stored.items()}
        result = {"attempt": fence.attempt, "width": spec.width, "height": spec.height}
        result |= {"frames": spec.frames, "fps": spec.fps, "codec": "h264", "files": files}
        result |= {"bytes": stored["video"].bytes, "sha256": stored["video"].sha256}
        report = {"phase_seconds": {"load": 1.0, "denoise": 2.0}, "peak_memory_bytes": 2**21}
        report |= {"steps": []} | (cost or {})
        lifecycle.complete(self.farm, fence, result, report, warnings)


def form(**parts: bytes | str | FileStorage) -> dict[str, Any]:
    """What to send a form with; bytes go as files. However large, it is made in memory."""
    files = {
        name: FileStorage(io.BytesIO(part), "a.bin")
        for name, part in parts.items()
        if isinstance(part, bytes)
    }
    boundary, body = encode_multipart(parts | files)
    return {"data": body, "content_type": f"multipart/form-data; boundary={boundary}"}


def rows(farm: Farm) -> int:
    with farm.db.connect() as db:
        return db.scalar(select(func.count()).select_from(Video)) or 0


def png(width: int = 128, height: int = 96, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height), 99).save(out, "PNG")
    return out.getvalue()
