"""From a model id to a local directory of weights; nothing is ever downloaded."""

from pathlib import Path

from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
from huggingface_hub.errors import LocalEntryNotFoundError

from shared.machinery.settings import Settings
from shared.vocabulary.catalog import MODELS, Model


def find(settings: Settings, model: Model) -> Path | None:
    """Look in the models directory, then in the Hugging Face cache; None when in neither."""
    local = settings.models_dir / model.directory
    if (local / "model_index.json").is_file():
        return local.resolve()
    try:
        return Path(snapshot_download(model.repo, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def available(settings: Settings) -> tuple[dict[str, Path], list[str]]:
    """Sort a group's models into those with weights on this host and those without."""
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in settings.models:
        directory = find(settings, MODELS[name])
        if directory is None:
            missing.append(name)
        else:
            found[name] = directory
    return found, missing
