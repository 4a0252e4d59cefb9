"""The verbs of LoRA adapters."""

import json
from pathlib import Path

import pytest

from tests.loras import adapter


@pytest.fixture
def settings(settings, tmp_path):
    return settings.model_copy(update={"lora_dir": tmp_path / "loras"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "downloaded.safetensors"
    path.write_bytes(adapter())
    return path


def test_an_adapter_is_added_listed_named_and_removed(wanfarm, path):
    added = wanfarm("loras", "add", "style", path, "--family", "wan-tiny", "--title", "Grain")
    head, row = wanfarm("loras", "ls").out.splitlines()
    shown = dict(zip(head.split("\t"), row.split("\t"), strict=True))

    assert (added.code, added.out) == (0, "style  wan-tiny, every expert\n")
    assert added.err == f"sending style: 100% of {path.stat().st_size / 1000:.1f} kB\n"
    assert (shown["name"], shown["rank"], shown["title"]) == ("style", "4", "Grain")
    assert wanfarm("submit", "a ball", "--lora", "style:0.5").code == 0
    assert "lora_in_use" in wanfarm("loras", "rm", "style").err
    wanfarm("cancel", json.loads(wanfarm("ls", "--json").out)["id"])
    assert wanfarm("loras", "rm", "style").out == "style  removed\n"
    assert wanfarm("loras", "ls", "--json").out == ""


def test_a_pair_is_added(wanfarm, path):
    said = wanfarm("loras", "add", "style", "--high", path, "--low", path, "--distilled", "--json")

    made = json.loads(said.out)
    assert (made["family"], made["distilled"]) == ("wan-tiny", True)
    assert made["experts"].keys() == {"high", "low"}


def test_a_name_that_is_taken_is_told_before_anything_is_sent(wanfarm, path):
    wanfarm("loras", "add", "style", path)

    again = wanfarm("loras", "add", "style", path)

    assert again.code == 1
    assert again.err.startswith("Error: lora_exists")


def test_what_is_no_adapter_is_refused_with_its_reason(wanfarm, path):
    path.write_bytes(path.read_bytes()[:-1])

    said = wanfarm("loras", "add", "style", path)

    assert said.code == 8
    assert "invalid_lora: file has" in said.err
    assert wanfarm("loras", "add", "style").code == 2
