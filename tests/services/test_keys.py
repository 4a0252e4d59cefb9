"""Keys: made once, verified each time, ended for good; logins that work once."""

import dataclasses
import stat
import time

import pytest
from sqlalchemy import func, select, update

from shared.jobs import keys
from shared.machinery.tables import ApiKey, LoginToken
from shared.vocabulary.errors import WanfarmError
from tests.services.jobs import ago


def edit_key(farm, key_id: str, **columns) -> None:
    with farm.db.connect() as db:
        db.execute(update(ApiKey).where(ApiKey.id == key_id).values(**columns))
    farm.keys.clear()  # trusted from before


def refusal(farm, key: str) -> WanfarmError:
    with pytest.raises(WanfarmError) as refused:
        keys.verify(farm, key)
    return refused.value


def test_a_key_says_who_holds_it(farm):
    key_id, key = keys.create(farm, "studio", "submit", tenant="films")

    assert keys.verify(farm, key) == keys.Caller(key_id, "studio", "films", "submit")


def test_only_the_hash_of_a_key_is_stored(farm):
    _, key = keys.create(farm, "studio", "submit")

    with farm.db.connect() as db:
        stored = " ".join(str(row) for row in db.execute(select(*ApiKey.__table__.c)))

    assert key.rpartition("_")[2] not in stored
    assert "secret_sha256" not in keys.all_keys(farm)[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key + "x",
        lambda key: key[:-1],
        lambda key: key.replace("wf_", "xx_"),
        lambda key: "wf_zzzzzzzz_" + key.split("_", 2)[2],
        lambda key: "wf_\x00\x00\x00\x00\x00\x00\x00\x00_" + key.split("_", 2)[2],
        lambda key: "wf_" + "ä" * 8 + "_x",
        lambda key: "wf_" + "a" * 800,
        lambda _: "",
    ],
    ids=["longer", "shorter", "prefix", "unknown", "null bytes", "not ascii", "long", "empty"],
)
def test_a_wrong_key_gets_the_one_answer(farm, spoil):
    _, key = keys.create(farm, "studio", "submit")

    assert refusal(farm, spoil(key)).code == "invalid_key"


@pytest.mark.parametrize("ended", ["revoked_at", "expires_at"])
def test_a_key_that_has_ended_gets_the_same_answer(farm, ended):
    key_id, key = keys.create(farm, "studio", "submit", expires_in_s=600)
    keys.verify(farm, key)

    edit_key(farm, key_id, **{ended: ago(1)})

    assert refusal(farm, key).message == refusal(farm, "wf_zzzzzzzz_x").message
    with pytest.raises(WanfarmError):
        keys.caller_of(farm, key_id)


def test_another_process_trusts_a_revoked_key_two_seconds_more(farm):
    key_id, key = keys.create(farm, "studio", "submit")
    keys.verify(farm, key)
    other = dataclasses.replace(farm, keys={})
    keys.verify(other, key)

    keys.revoke(farm, key_id)

    assert refusal(farm, key).code == "invalid_key"
    assert keys.verify(other, key).key_id == key_id
    until, row = other.keys[key_id]
    assert until - time.monotonic() <= 2
    other.keys[key_id] = time.monotonic(), row
    assert refusal(other, key).code == "invalid_key"


def test_revoking_again_keeps_the_first_moment(farm):
    key_id, _ = keys.create(farm, "studio", "submit")
    assert keys.revoke(farm, key_id) is True
    first = keys.all_keys(farm)[0]["revoked_at"]

    assert keys.revoke(farm, key_id) is True

    assert keys.all_keys(farm)[0]["revoked_at"] == first
    assert keys.revoke(farm, "zzzzzzzz") is False


@pytest.mark.parametrize(
    ("scope", "may"),
    [("read", ["read"]), ("submit", ["read", "submit"]), ("admin", ["read", "submit", "admin"])],
)
def test_a_scope_includes_those_before_it(farm, scope, may):
    _, key = keys.create(farm, "studio", scope)

    caller = keys.verify(farm, key)

    assert [wanted for wanted in keys.SCOPES if caller.may(wanted)] == may


def test_the_use_of_a_key_is_remembered_at_most_once_a_minute(farm):
    key_id, key = keys.create(farm, "studio", "read")
    keys.verify(farm, key)
    first = keys.all_keys(farm)[0]["last_used_at"]

    keys.verify(farm, key)
    assert keys.all_keys(farm)[0]["last_used_at"] == first

    edit_key(farm, key_id, last_used_at=ago(61))
    keys.verify(farm, key)
    assert keys.all_keys(farm)[0]["last_used_at"] > first


def test_keys_are_listed_newest_first_and_by_tenant(farm):
    one, _ = keys.create(farm, "one", "read", tenant="one")
    two, _ = keys.create(farm, "two", "read", tenant="two")

    assert [key["id"] for key in keys.all_keys(farm)] == [two, one]
    assert [key["id"] for key in keys.all_keys(farm, "one")] == [one]


def test_the_first_admin_key_is_made_once_and_only_its_owner_can_read_it(farm, tmp_path):
    path = tmp_path / "secrets" / "admin-key"
    keys.ensure_admin_key(farm, path)
    key = path.read_text().strip()

    keys.ensure_admin_key(farm, path)

    assert path.read_text().strip() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.verify(farm, key).scope == "admin"
    assert len(keys.all_keys(farm)) == 1


def test_an_admin_key_of_another_database_is_replaced(farm, tmp_path):
    path = tmp_path / "admin-key"
    path.write_text("wf_zzzzzzzz_of-yesterday\n")

    keys.ensure_admin_key(farm, path)

    assert keys.verify(farm, path.read_text().strip()).scope == "admin"


def test_a_login_works_once(farm):
    key_id, _ = keys.create(farm, "studio", "read")
    token = keys.create_login_token(farm, key_id)

    assert keys.spend_login_token(farm, token).key_id == key_id
    assert keys.spend_login_token(farm, token) is None
    assert keys.spend_login_token(farm, "of nobody") is None


def test_a_login_is_good_for_five_minutes(farm):
    key_id, _ = keys.create(farm, "studio", "read")
    token = keys.create_login_token(farm, key_id)
    left = func.extract("epoch", LoginToken.expires_at - func.now())
    with farm.db.connect() as db:
        assert 290 < db.scalar(select(left)) <= 300

        db.execute(update(LoginToken).values(expires_at=ago(1)))

    assert keys.spend_login_token(farm, token) is None


def test_a_login_of_a_revoked_key_is_refused(farm):
    key_id, _ = keys.create(farm, "studio", "read")
    token = keys.create_login_token(farm, key_id)
    keys.revoke(farm, key_id)

    with pytest.raises(WanfarmError):
        keys.spend_login_token(farm, token)
