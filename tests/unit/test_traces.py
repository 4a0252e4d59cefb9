"""Spans: silent without a collector, and numbered so that processes need not talk."""

import sys
import uuid

import pytest

from shared.machinery.settings import ConfigurationError, Settings
from shared.machinery.traces import Span, Traces, open_traces
from shared.vocabulary.ids import new_id, number_of

URL = "http://127.0.0.1:9/v1/traces"


def test_nothing_is_kept_without_a_collector():
    traces = open_traces(Settings(traces_url=None), "api")

    assert type(traces) is Traces
    traces.add(Span(name="video", began=1.0, ended=2.0, video_id=new_id("video")))
    traces.close()


def test_a_package_that_is_missing_is_told_by_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)

    with pytest.raises(ConfigurationError, match=r"Install wanfarm\[otel\]"):
        open_traces(Settings(traces_url=URL), "api")


def test_an_id_spells_the_number_of_its_trace():
    number = uuid.UUID(int=number_of(new_id("video")))

    assert number.version == 7
    assert number_of("video_00000000000000000000000010") == 32
