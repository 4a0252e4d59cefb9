"""One app on real servers, and those who call it."""

from collections.abc import Iterator

import pytest
from flask import Flask

from api.app import close, create_app
from shared.machinery.farm import Farm
from shared.machinery.settings import Settings
from tests.api.callers import Caller, Hand, caller_of


@pytest.fixture
def app(settings: Settings, farm: Farm) -> Iterator[Flask]:
    app = create_app(settings)
    yield app
    close(app)


@pytest.fixture
def api(app: Flask, farm: Farm) -> Caller:
    """A caller who may submit."""
    return caller_of(app, farm, "submit")


@pytest.fixture
def admin(app: Flask, farm: Farm) -> Caller:
    return caller_of(app, farm, "admin")


@pytest.fixture
def stranger(app: Flask, farm: Farm) -> Caller:
    """A caller of another tenant."""
    return caller_of(app, farm, "submit", tenant="others")


@pytest.fixture
def hand(farm: Farm) -> Hand:
    return Hand(farm)


@pytest.fixture
def finished(api: Caller, hand: Hand) -> str:
    """The id of a completed video."""
    made = api.make()
    hand.complete(hand.claim())
    return made["id"]
