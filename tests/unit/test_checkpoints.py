"""A checkpoint is checked against what it says of itself, file by file, without reading weights."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from cli import main
from cli.checkpoints import check, find, found_or_begun
from shared.machinery.settings import variable_of
from shared.vocabulary.catalog import MODELS

TRAINED = Path(__file__).parents[2] / "mini" / "trained"
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A checkpoint that may be broken."""
    return Path(shutil.copytree(TRAINED / "wan-mini-t2v", tmp_path / "wan-mini-t2v"))


def split(part: Path, *, into: int) -> None:
    """Write a part's one file as several with an index, as large parts are published."""
    whole = (part / WEIGHTS).read_bytes()
    begins = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:begins])
    header.pop("__metadata__", None)
    names = sorted(header)
    (part / WEIGHTS).unlink()
    weight_map = {}
    for number in range(into):
        file = f"diffusion_pytorch_model-{number + 1:05}-of-{into:05}.safetensors"
        told, data = {}, b""
        for name in names[number::into]:
            first, last = header[name]["data_offsets"]
            span = [len(data), len(data) + last - first]
            told[name] = header[name] | {"data_offsets": span}
            data += whole[begins + first : begins + last]
            weight_map[name] = file
        text = json.dumps(told).encode()
        (part / file).write_bytes(len(text).to_bytes(8, "little") + text + data)
    (part / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def publish(directory: Path) -> None:
    """Leave the notes that the Hugging Face client leaves of a download."""
    for path in [path for path in directory.rglob("*") if path.is_file()]:
        name = path.relative_to(directory).as_posix()
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if path.suffix == ".json":  # small files have the hash that git gives them
            etag = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        note = directory / ".cache" / "huggingface" / "download" / f"{name}.metadata"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{'0' * 40}\n{etag}\n1.0\n")


@pytest.mark.parametrize("name", ["wan-mini-t2v", "wan-mini-ti2v"])
def test_a_whole_checkpoint_has_no_fault(name):
    checked = check(TRAINED / name, hashes=True)

    assert checked.faults == ()
    assert checked.bytes > 10**7
    assert checked.hashed == 0  # nobody left hashes beside it


def test_files_of_an_index_are_missed_by_name(copy):
    split(copy / "transformer", into=3)
    assert check(copy, hashes=False).faults == ()
    lost = "diffusion_pytorch_model-00002-of-00003.safetensors"

    (copy / "transformer" / lost).unlink()

    assert check(copy, hashes=False).faults == (f"transformer/{lost} is missing.",)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize(
    ("harm", "file", "fault"),
    [
        (cut, f"transformer_2/{WEIGHTS}", "Its header says "),
        (lengthen, f"vae/{WEIGHTS}", "Its header says "),
        (empty, "text_encoder/model.safetensors", "has no readable header; it is 0 bytes long."),
        (garble, f"transformer/{WEIGHTS}", "has no readable header"),
        (Path.unlink, f"transformer/{WEIGHTS}", "transformer has no .safetensors file."),
        (Path.unlink, "vae/config.json", "vae/config.json is missing or cannot be read."),
        (Path.unlink, "tokenizer/tokenizer.json", "tokenizer has neither tokenizer.json nor"),
        (Path.unlink, "model_index.json", "model_index.json is missing or cannot be read."),
    ],
)
def test_each_harm_is_one_fault_that_names_its_file(copy, harm, file, fault):
    harm(copy / file)

    (told,) = check(copy, hashes=False).faults

    assert fault in told
    assert told.startswith(file.partition("/")[0])


def test_a_shard_of_another_checkpoint_lacks_what_the_index_promises(copy):
    split(copy / "transformer", into=2)
    index = copy / "transformer" / f"{WEIGHTS}.index.json"
    told = json.loads(index.read_text())
    told["weight_map"]["blocks.99.attn1.to_q.weight"] = next(iter(told["weight_map"].values()))
    index.write_text(json.dumps(told))

    (fault,) = check(copy, hashes=False).faults

    assert "lacks 1 tensors that its index promises, as blocks.99.attn1.to_q.weight" in fault


def test_a_changed_byte_is_found_by_the_hash_of_what_was_published(copy):
    publish(copy)
    assert check(copy, hashes=True).hashed == len(list(TRAINED.glob("wan-mini-t2v/*/*"))) + 1
    path = copy / "transformer" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    assert check(copy, hashes=False).faults == ()
    assert check(copy, hashes=True).faults == (
        f"transformer/{WEIGHTS} is not the file that was published: its hash differs.",
    )


def test_a_published_file_that_is_gone_is_missed(copy):
    publish(copy)

    (copy / "scheduler" / "scheduler_config.json").unlink()

    assert check(copy, hashes=True).faults == ("scheduler/scheduler_config.json is missing.",)


def test_in_the_hugging_face_cache_the_name_of_a_link_is_the_hash(copy):
    blob = hashlib.sha256((copy / "transformer" / WEIGHTS).read_bytes()).hexdigest()
    (copy / "transformer" / WEIGHTS).rename(copy.parent / blob)
    (copy / "transformer" / WEIGHTS).symlink_to(Path("../..") / blob)
    assert check(copy, hashes=True).hashed == 1

    (copy.parent / blob).unlink()

    assert f"transformer/{WEIGHTS} is missing." in check(copy, hashes=True).faults


def test_a_download_that_has_begun_is_no_checkpoint_yet(copy):
    (copy / "model_index.json").unlink()

    assert find(copy.parent, MODELS["wan-mini-t2v"]) is None
    assert found_or_begun(copy.parent, MODELS["wan-mini-t2v"]) == copy


@pytest.fixture
def wanfarm(monkeypatch, capfd, tmp_path):
    """Run a verb on a folder of checkpoints; gives exit code and what it printed."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setenv(variable_of("models_dir"), str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        return (main.run(["models", *words]), *capfd.readouterr())

    return run


@pytest.mark.usefixtures("copy")
def test_the_list_tells_what_is_here_and_what_is_not(wanfarm):
    code, out, _ = wanfarm("ls", "--here")

    head, *rows = (line.split("\t") for line in out.splitlines())
    states = {row[0]: dict(zip(head, row, strict=True))["state"] for row in rows}
    assert code == 0
    assert states == dict.fromkeys(MODELS, "missing") | {"wan-mini-t2v": "whole"}


def test_verify_names_the_fault_and_exits_with_one(wanfarm, copy):
    assert wanfarm("verify")[0] == 0
    cut(copy / "transformer" / WEIGHTS)

    code, out, _ = wanfarm("verify", "wan-mini-t2v")
    assert (code, out.splitlines()[0]) == (
        1,
        "wan-mini-t2v  1 faults, 0.0 GB, 0 of 12 files by hash",
    )
    assert out.splitlines()[1].startswith(f"transformer/{WEIGHTS} is ")

    code, out, _ = wanfarm("verify", "--quick", "--json")
    assert (code, json.loads(out)["state"]) == (1, "faulty")


def test_verify_misses_what_was_named_and_refuses_what_is_not_known(wanfarm):
    code, out, _ = wanfarm("verify", "wan2.2-ti2v-5b")
    assert (code, out.splitlines()[0]) == (1, "wan2.2-ti2v-5b  missing")

    code, _, err = wanfarm("verify", "wan3")
    assert (code, "There is no model 'wan3'" in err) == (2, True)

    code, _, err = wanfarm("verify")
    assert (code, "There is no checkpoint in" in err) == (1, True)
