"""Everything that is refused is refused with its documented code, field and words."""

import base64
import io

import pytest

from shared.vocabulary.errors import CODES
from tests.api.callers import Caller, png, rows

DEEP = b'{"prompt":' + b"[" * 20 + b"1" + b"]" * 20 + b"}"


def as_json(**fields):
    return {"json": {"prompt": "a boat"} | fields}


def raw(body: bytes, kind: str = "application/json"):
    return {"data": body, "content_type": kind}


def form(*pairs: tuple[str, str]):
    boundary = "b0undary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("prompt", "a boat"), *pairs)
    ]
    body = "".join(parts) + f"--{boundary}--\r\n"
    return {
        "data": body.encode(),
        "content_type": f"multipart/form-data; boundary={boundary}",
    }


def picture(content: bytes, **fields: str):
    data = {"prompt": "a boat", "input_reference": (io.BytesIO(content), "a.png")} | fields
    return {"data": data, "content_type": "multipart/form-data"}


T2V, I2V, FIVE = "wan2.2-t2v-a14b", "wan2.2-i2v-a14b", "wan2.2-ti2v-5b"
DATA_URL = "data:image/png;base64," + base64.b64encode(png()).decode()

CASES = {
    "a part without a name": (
        raw(
            b"--b\r\nContent-Disposition: form-data\r\n\r\n7\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
        "invalid_form",
        "has no name",
    ),
    "NUL in a name": (raw(b'{"prompt":"a","a\\u0000b":1}'), "invalid_value a\\x00b", "'a\\x00b'"),
    "unknown field": (
        as_json(num_frame=81),
        "unknown_field num_frame",
        "Did you mean 'num_frames'?",
    ),
    "80 frames": (
        as_json(model=T2V, frames=80),
        "invalid_value frames",
        "frames is 80. Wan2.2 makes 4k+1 frames. Use 77 or 81.",
    ),
    "1281x720": (as_json(model=T2V, size="1281x720"), "invalid_value size", "Use 1280x720 or"),
    "over the area": (as_json(model=T2V, size="1920x1088"), "invalid_value size", "921600 pixels"),
    "size in words": (as_json(size="large"), "invalid_value size", "size is 'large'"),
    "auto without image": (as_json(model=T2V, size="auto"), "not_for_model size", "Use 1280x720"),
    "no prompt": (raw(b"{}"), "missing_field prompt", "prompt is missing"),
    "null prompt": (raw(b'{"prompt":null}'), "missing_field prompt", "prompt is missing"),
    "blank prompt": (as_json(prompt="  "), "invalid_value prompt", "prompt is empty"),
    "prompt too long": (as_json(prompt="x" * 4001), "invalid_value prompt", "at most 4000"),
    "NUL in prompt": (raw(b'{"prompt":"a\\u0000b"}'), "invalid_value prompt", "cannot be stored"),
    "half a surrogate": (raw(b'{"prompt":"a\\ud800"}'), "invalid_value prompt", "cannot be stored"),
    "unknown model": (as_json(model="sora-2"), "model_not_found model", "model is 'sora-2'"),
    "image for T2V": (
        as_json(model=T2V, input_reference=DATA_URL),
        "image_not_allowed input_reference",
        "text alone",
    ),
    "no image for I2V": (as_json(model=I2V), "image_required input_reference", "animates an image"),
    "broken PNG": (picture(png()[:60]), "invalid_image input_reference", "cannot be decoded"),
    "text as image": (picture(b"hello"), "invalid_image input_reference", "cannot be decoded"),
    "tiny image": (picture(png(32, 32)), "invalid_image input_reference", "32x32"),
    "address as image": (
        as_json(input_reference={"image_url": "https://a.example/b.png"}),
        "url_fetch_disabled input_reference",
        "fetches nothing",
    ),
    "uploaded file": (
        as_json(input_reference={"file_id": "file_1"}),
        "file_not_found input_reference",
        "names the file 'file_1'",
    ),
    "bad base64": (
        as_json(input_reference="data:image/png;base64,%%%"),
        "invalid_image input_reference",
        "base64",
    ),
    "two images": (
        picture(png(), reference_url=DATA_URL),
        "conflicting_fields input_reference",
        "Send one",
    ),
    "30 MB": (raw(b" " * 30_000_000), "body_too_large", "24 MiB"),
    "quoted number": (as_json(frames="81"), "invalid_value frames", "frames is '81'"),
    "fraction of a frame": (as_json(frames=33.5), "invalid_value frames", "whole number"),
    "true as number": (as_json(frames=True), "invalid_value frames", "whole number"),
    "NaN": (raw(b'{"prompt":"a","shift":NaN}'), "invalid_json", "NaN"),
    "1e999": (raw(b'{"prompt":"a","shift":1e999}'), "invalid_json", "too large"),
    "too deep": (raw(DEEP), "invalid_json", "16 levels"),
    "far too deep": (raw(b"[" * 100_000), "invalid_json", "deep"),
    "not JSON": (raw(b"{prompt}"), "invalid_json", "not valid JSON"),
    "not UTF-8": (raw(b'{"prompt":"\xff"}'), "invalid_json", "not valid JSON"),
    "an array": (raw(b"[]"), "invalid_json", "not a JSON object"),
    "twice in JSON": (raw(b'{"prompt":"a","prompt":"b"}'), "duplicate_field prompt", "sent twice"),
    "twice in a form": (form(("seed", "1"), ("seed", "2")), "duplicate_field seed", "sent twice"),
    "whole and in parts": (
        form(("cache", "off"), ("cache[fn]", "1")),
        "conflicting_fields cache",
        "in parts",
    ),
    "uneven columns": (
        form(("loras[][name]", "a"), ("loras[][name]", "b"), ("loras[][strength]", "1")),
        "ambiguous_form loras",
        "as a JSON string",
    ),
    "odd name": (form(("cache[fn", "1")), "invalid_form cache[fn", "cannot be read"),
    "no boundary": (raw(b"prompt=a", "multipart/form-data"), "invalid_form", "boundary"),
    "XML": (raw(b"<a/>", "application/xml"), "unsupported_media_type", "application/xml"),
    "alias and name": (
        as_json(frames=33, num_frames=33),
        "conflicting_fields frames",
        "num_frames",
    ),
    "extra_body twice": (
        as_json(extra_body={"prompt": "b"}),
        "conflicting_fields prompt",
        "extra_body",
    ),
    "seconds and frames": (
        as_json(model=T2V, seconds=5, frames=77),
        "conflicting_fields seconds",
        "5 s are 81 frames",
    ),
    "too long": (as_json(model=T2V, seconds="20"), "invalid_value seconds", "at most 193 frames"),
    "too many steps": (
        as_json(steps=101),
        "invalid_value steps",
        "steps is 101. It must be at most 100.",
    ),
    "two seeds": (as_json(seed=[1, 2]), "use_batches seed", "one video"),
    "n": (as_json(n=2), "use_batches n", "one video"),
    "low guidance alone": (
        as_json(guidance_high=1, guidance_low=3),
        "conflicting_fields guidance_low",
        "turns guidance off",
    ),
    "second expert": (
        as_json(model=FIVE, guidance_low=3),
        "not_for_model guidance_low",
        "one expert",
    ),
    "boundary": (as_json(model=FIVE, boundary=0.9), "not_for_model boundary", "one expert"),
    "rising sigmas": (as_json(sigmas=[0.5, 0.9]), "invalid_value sigmas", "fall at every step"),
    "sigmas and steps": (
        as_json(sigmas=[0.9, 0.5], steps=3),
        "conflicting_fields sigmas",
        "2 values",
    ),
    "cache out of range": (
        as_json(cache={"rdt": 1.5}),
        "invalid_cache_policy cache.rdt",
        'cache.rdt is 1.5. It must be above 0 and below 1, or "always"',
    ),
    "cache as text": (
        as_json(cache={"fn": "2"}),
        "invalid_cache_policy cache.fn",
        "cache.fn is '2'. It must be a whole number.",
    ),
    "cache below": (as_json(cache={"mc": -2}), "invalid_cache_policy cache.mc", "at least -1"),
    "cache yes": (
        as_json(cache={"taylorseer": "yes"}),
        "invalid_cache_policy cache.taylorseer",
        "t",
    ),
    "cache order": (
        as_json(cache={"secondary": {"ts_order": 3}}),
        "invalid_cache_policy cache.secondary.ts_order",
        "at most 2",
    ),
    "cache threshold below": (
        form(("cache[secondary][rdt]", "2")),
        "invalid_cache_policy cache.secondary.rdt",
        "below 1",
    ),
    "cache bin": (
        as_json(cache={"scm_compute_bins": [4, 0], "scm_cache_bins": [1]}),
        "invalid_cache_policy cache.scm_compute_bins.1",
        "at least 1",
    ),
    "half a mask": (
        as_json(cache={"scm_compute_bins": [4]}),
        "invalid_cache_policy cache",
        "scm_compute_bins and scm_cache_bins go together",
    ),
    "cache preset": (
        as_json(cache={"scm_preset": "quick"}),
        "invalid_cache_policy cache.scm_preset",
        "'ultra'",
    ),
    "cache past the blocks": (
        as_json(model=T2V, cache={"secondary": {"fn": 30, "bn": 11}}),
        "invalid_cache_policy cache.secondary.bn",
        "40 blocks",
    ),
    "cache past a miniature": (
        as_json(cache={"fn": 7}),
        "invalid_cache_policy cache.fn",
        "6 blocks",
    ),
    "cache of no second expert": (
        as_json(model=FIVE, cache={"secondary": {"fn": 2}}),
        "not_for_model cache.secondary",
        "one expert",
    ),
    "shared knob": (
        as_json(cache={"secondary": {"scm_preset": "fast"}}),
        "invalid_cache_policy cache.secondary.scm_preset",
        "no such knob",
    ),
    "engine's knob": (
        as_json(cache={"min_steps": 2}),
        "invalid_cache_policy cache.min_steps",
        "no such knob",
    ),
    "unknown knob": (as_json(cache={"fm": 1}), "invalid_cache_policy cache.fm", "no such knob"),
    "cache by name": (as_json(cache="slow"), "invalid_cache_policy cache", "'off'"),
    "cache-dit": (
        as_json(cache_dit_params={"residual_diff_threshold": 2}),
        "invalid_cache_policy cache.rdt",
        "cache.rdt is 2",
    ),
    "cache twice": (
        as_json(cache="off", enable_cache_dit=True),
        "conflicting_fields cache",
        "cache_dit_params",
    ),
    "loras": (as_json(loras=[{"name": "a"}]), "lora_not_found loras", "no such LoRA"),
    "distilled": (as_json(quality="distill4"), "lora_not_found quality", "does not have"),
    "webhook": (
        as_json(webhook_url="https://10.0.0.1/hook"),
        "invalid_value webhook_url",
        "public internet",
    ),
    "server path": (as_json(output_path="/tmp"), "unsupported_feature output_path", "does not do"),
    "feature of others": (
        as_json(enable_teacache=True),
        "unsupported_feature enable_teacache",
        "does not do",
    ),
    "deadlines": (
        as_json(start_within_s=9, finish_within_s=5),
        "conflicting_fields finish_within_s",
        "before it starts",
    ),
    "priority": (as_json(priority=5), "priority_not_allowed priority", "0 at most"),
    "group": (as_json(group="g0"), "scope_missing group", "admin"),
    "metadata": (as_json(metadata={"a": 1}), "invalid_value metadata.a", "must be text"),
    "width alone": (as_json(width=128), "invalid_value height", "Send both"),
}


def test_a_request_is_refused_with_code_field_and_reason(subtests, api: Caller, farm):
    for name, (options, expected, words) in CASES.items():
        code, _, param = expected.partition(" ")
        with subtests.test(name):
            answer = api.post("/v1/videos", **options)

            error = answer.json["error"]
            assert (error["code"], error["param"]) == (code, param or None)
            status = CODES[code].status  # a name in the body that does not exist: a bad request
            assert answer.status_code == (400 if status == 404 else status)
            assert words in error["message"]
            assert len(error["message"]) <= 300
            assert error["request_id"] == answer.headers["X-Request-ID"]
            assert answer.headers["x-should-retry"] == "false"
    assert rows(farm) == 0


def test_all_faults_are_told_at_once(api: Caller):
    answer = api.post("/v1/videos", json={"prompt": "a", "size": "130x128", "frames": 80})

    assert [one["param"] for one in answer.json["error"]["errors"]] == ["size", "frames"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_key"),
        ({"Authorization": "Basic abc"}, "missing_key"),
        ({"Authorization": "Bearer wf_aaaaaaaa_secret"}, "invalid_key"),
        ({"Authorization": "Bearer nonsense"}, "invalid_key"),
    ],
)
def test_unknown_callers_are_refused(app, headers, code):
    answer = app.test_client().get("/v1/videos", headers=headers)

    assert (answer.status_code, answer.json["error"]["code"]) == (401, code)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


ADDRESSES = [
    ("get", "/v1/nothing", 404, "not_found"),
    ("get", "/v1/groups/a%00b", 404, "not_found"),
    ("put", "/v1/videos", 405, "method_not_allowed"),
    ("options", "/v1/videos", 405, "method_not_allowed"),
    ("get", "/v1/videos/video_1", 404, "video_not_found"),
    ("get", "/v1/videos/video_01m7q5cqg0eejstb3z1dq9397k", 404, "video_not_found"),
    ("get", "/v1/models/nobody/nothing", 404, "model_not_found"),
    ("get", "/v1/groups/g9", 404, "group_not_found"),
    ("get", "/v1/videos?limit=0", 400, "invalid_value"),
    ("get", "/v1/videos?limi=3", 400, "unknown_field"),
    ("get", "/v1/videos?limit=3&limit=4", 400, "duplicate_field"),
    ("get", "/v1/videos?after=x", 400, "invalid_cursor"),
    ("get", "/v1/videos?status=done", 400, "invalid_value"),
    ("get", "/v1/videos?q=%00", 400, "invalid_value"),
    ("get", "/v1/videos?tenant=others", 403, "scope_missing"),
    ("get", "/v1/videos?wait=61", 400, "unknown_field"),
    ("post", "/v1/videos/edits", 400, "unsupported_feature"),
    ("delete", "/v1/files/file_1", 404, "file_not_found"),
]


def test_wrong_addresses_get_the_same_envelope(subtests, api: Caller):
    for method, path, status, code in ADDRESSES:
        with subtests.test(f"{method} {path}"):
            answer = getattr(api, method)(path)

            assert (answer.status_code, answer.json["error"]["code"]) == (status, code)


def test_a_method_that_is_not_taken_names_those_that_are(api: Caller):
    assert api.put("/v1/videos").headers["Allow"] == "GET, HEAD, POST"
    assert api.put("/v1/videos/estimate").headers["Allow"] == "POST"
    assert api.put("/v1/keys/self").headers["Allow"] == "GET, HEAD"
    assert api.put("/v1/keys/abcdefgh").headers["Allow"] == "DELETE, PATCH"


def test_a_foreign_host_is_refused(app):
    answer = app.test_client().get("/v1/videos", headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json["error"]["code"]) == (400, "invalid_header")


def test_a_database_that_is_away_is_told_as_such(app, api: Caller, services, farm):
    database = farm.db.url.database
    with services.admin() as server:
        server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        )
        answer = api.get("/v1/videos")
        ready = app.test_client().get("/readyz")
        server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")

    assert (answer.status_code, answer.json["error"]["code"]) == (503, "database_unavailable")
    assert answer.headers["x-should-retry"] == "true"
    assert 1 <= int(answer.headers["Retry-After"]) <= 600
    assert (ready.status_code, ready.json["error"]["code"]) == (503, "not_ready")
