"""Convert each model of a session's tests once: a conversion takes seconds, publishing does not."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import keras
import pytest

from lrf_core.artifacts import digest_of
from lrf_core.models.load import model_digest

# The package offers the function under the module's name.
publishing = importlib.import_module("lrf_core.stages.publish")
_convert = publishing.model_files


@pytest.fixture(scope="session")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they lie."""
    return tmp_path_factory.mktemp("conversions")


@pytest.fixture
def exported_once(conversions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`publish` takes the files of a model that an earlier test published, as they came out."""

    def kept(model: keras.Model, folder: Path, **formats: Any) -> dict[str, Path]:
        of_model = conversions / digest_of([model_digest(model), formats])
        if not of_model.exists():
            unfinished = of_model.with_name(f"{of_model.name}-unfinished-{id(folder)}")
            _convert(model, unfinished, **formats)
            if not of_model.exists():
                unfinished.rename(of_model)
        shutil.copytree(of_model, folder)
        files = [file for file in folder.rglob("*") if file.is_file()]
        return {file.relative_to(folder).as_posix(): file for file in files}

    monkeypatch.setattr(publishing, "model_files", kept)
