"""What holds in a process is told with its source, and no secret is among it."""

import pytest

from shared.machinery.effective import effective
from shared.machinery.settings import Settings, load_settings, variable_of


def told(**overrides: object) -> dict[str, tuple[str, str]]:
    return {one.variable: (one.value, one.source) for one in effective(load_settings(**overrides))}


def test_each_value_names_where_it_comes_from(monkeypatch, tmp_path):
    path = tmp_path / "level"
    path.write_text("DEBUG\n")
    monkeypatch.setenv("WANFARM_PORT", "80")
    monkeypatch.setenv("WANFARM_LOG_LEVEL_FILE", str(path))
    monkeypatch.setenv("SGLANG_CACHE_DIT_FN", "2")

    found = told(ranks=2)

    assert found["WANFARM_PORT"] == ("80", "environment")
    assert found["WANFARM_LOG_LEVEL"] == ("DEBUG", "file")
    assert found["SGLANG_CACHE_DIT_FN"] == ("2", "environment")
    assert found["WANFARM_RANKS"] == ("2", "command line")
    assert found["WANFARM_LEASE_S"] == ("120", "default")
    assert found["WANFARM_PUBLIC_URL"] == ("", "default")


def test_every_setting_is_told():
    assert {*told()} == {variable_of(field) for field in Settings.model_fields}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://db/farm", "postgresql://db/farm"),
        ("postgres://u:hush@db:5432/farm", "postgresql://***@db:5432/farm"),
        ("postgres://db/farm?user=u&password=hush", "postgresql://db/farm?***"),
        ("postgres://u:hu/hush@db/farm", "postgresql://***@db/farm"),
        ("postgres://u:hu?hush@db/farm", "postgresql://***"),
        ("postgres://u:hush@hush@db/farm", "postgresql://***@db/farm"),
        ("postgres://db/farm?options=a@b&password=hush", "postgresql://***"),
    ],
)
def test_a_password_in_a_url_is_not_told(url, shown):
    assert told(DATABASE_URL=url)["DATABASE_URL"][0] == shown


def test_a_secret_only_says_that_it_is_set():
    assert told(secret_key="hush")["WANFARM_SECRET_KEY"][0] == "(hidden)"
    assert told()["WANFARM_API_KEY"][0] == ""
