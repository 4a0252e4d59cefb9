"""Requests with something broken in them: none is a fault of ours, each answer says what is wrong.

Ten thousand of them go to a live farm in `make referees ARGS=mutated`.
"""

import json

import pytest

from api.app import openapi_text
from tests.api.callers import Caller
from tests.api.mutations import Mutations
from tests.api.verdicts import faults


@pytest.fixture
def ids(api: Caller, stranger: Caller, finished: str, admin: Caller) -> dict[str, list[str]]:
    """Objects of the caller's own, of another tenant, and of nobody."""
    own, other = api.make_batch(variations=2), stranger.make_batch(variations=2)
    hooks = [
        caller.post("/v1/webhooks", json={"url": "https://a.example/h"}).json["id"]
        for caller in (api, stranger)
    ]
    key = admin.post("/v1/keys", json={"name": "victim"}).json["id"]
    return {
        "video_id": [finished, api.make()["id"], stranger.make()["id"], "video_" + "0" * 26],
        "batch_id": [own["id"], other["id"]],
        "webhook_id": hooks,
        "key_id": [key],
        "model_id": ["wan2.2-t2v-a14b", "nobody/nothing"],
    }


# of parts that a broken form leaves behind, in werkzeug
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(3))
def test_requests_gone_wrong_are_answered_by_the_rules(api, admin, ids, seed):
    found = []
    for request in Mutations(json.loads(openapi_text()), seed, ids).take(400):
        if request.operation in {"GET /health", "GET /readyz"}:
            continue  # they tell what the farm lacks, and this one has no group
        caller = admin if request.needs_admin else api
        answer = caller.open(
            request.path, method=request.method, data=request.body, headers=request.headers
        )
        if wrong := faults(request, answer.status_code, answer.data):
            found.append((wrong, request, answer.data[:500]))

    assert found == []
