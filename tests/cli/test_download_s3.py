"""Downloads that the farm sends to a bucket."""

import pytest

from tests.cli.conftest import CONTENT


@pytest.fixture
def settings(settings, bucket):
    """The farm of these tests keeps its results in a bucket."""
    return settings.model_copy(update=bucket)


def test_a_file_of_a_bucket_is_saved_and_a_damaged_one_refused(wanfarm, worker, claimed, tmp_path):
    worker.complete(claimed)
    video_id, file = claimed.fence.video_id, tmp_path / "a.mp4"

    assert wanfarm("download", video_id, "-o", file).code == 0
    assert file.read_bytes() == CONTENT

    worker.farm.storage.put_bytes(b"x" + CONTENT[1:], f"videos/{video_id}/1/video.mp4")
    said = wanfarm("download", video_id, "-o", tmp_path / "b.mp4")
    assert (said.code, "damaged" in said.err) == (1, True)
