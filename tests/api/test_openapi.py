"""The API's description is valid, complete, and the one that is published."""

import json
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator

from api.app import ENDPOINTS, openapi_text

PUBLISHED = Path(__file__).parents[2] / "docs/reference/openapi.json"


def test_the_published_description_is_this_one():
    write = "python -c \"from api.app import openapi_text; print(openapi_text(), end='')\""

    assert PUBLISHED.read_text() == openapi_text(), f"run {write} > docs/reference/openapi.json"


def test_the_description_is_valid_openapi():
    OpenAPIV31SpecValidator(json.loads(openapi_text())).validate()


def test_it_is_served_and_names_every_endpoint(app):
    served = app.test_client().get("/openapi.json").json

    operations = sum(len(item) for item in served["paths"].values())
    assert operations == len(ENDPOINTS)
    assert served["openapi"] == "3.1.0"
