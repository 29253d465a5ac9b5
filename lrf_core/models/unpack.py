"""A private copy of what a model's files hold, checked before Keras opens any of it.

Keras reads the copy: what happens to the file meanwhile does not matter.
"""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py

from lrf_core.errors import ModelError
from lrf_core.files.limits import byte_limit

CONFIG, METADATA, WEIGHTS, ASSETS = "config.json", "metadata.json", "model.weights.h5", "assets/"
# Weights are as good as random; what unpacks to much more than itself was made to do harm.
_MOST_RATIO = 200
_ALWAYS_ALLOWED = 64 << 20
# A config of the default limit has 64 MiB; that of NASNetLarge has 1.
_CONFIG_SHARE = 256
# Keras splits longer lists of names over several attributes.
_MOST_NAMES = 4096
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def config_limit() -> int:
    """Bytes that the config of a model may have. Raises SpecError, see `byte_limit`."""
    return byte_limit() // _CONFIG_SHARE


def bounded_text(file: IO[bytes], where: str) -> bytes:
    """What is left of a file of JSON. Raises ModelError where that is too much."""
    limit = config_limit()
    text = file.read(limit + 1)
    if len(text) > limit:
        raise ModelError(
            f"{where}: its config has more than {limit} bytes; it is not loaded. Set "
            f"LRF_MAX_UNPACKED to {_CONFIG_SHARE} times its size if it comes from a trusted source"
        )
    return text


def unpack_keras(path: Path, folder: Path) -> tuple[bytes, bytes]:
    """Copy weights and vocabularies of a `.keras` file into a folder, under their names there.

    Returns:
        As `keras_texts`.

    Raises:
        ModelError: the file is damaged, or not safe to unpack.
    """
    with zipfile.ZipFile(path) as archive:
        for name, member in _checked_members(archive, path).items():
            if name == WEIGHTS or (name.startswith(ASSETS) and not member.is_dir()):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
        return _texts(archive, path)


def keras_texts(path: Path) -> tuple[bytes, bytes]:
    """What `config.json` and `metadata.json` of a `.keras` file hold; the rest is not unpacked."""
    with zipfile.ZipFile(path) as archive:
        _checked_members(archive, path)
        return _texts(archive, path)


def _texts(archive: zipfile.ZipFile, path: Path) -> tuple[bytes, bytes]:
    with archive.open(CONFIG) as config, archive.open(METADATA) as metadata:
        return bounded_text(config, str(path)), bounded_text(metadata, str(path))


def copy_file(path: Path, target: Path) -> None:
    """Copy a file. Raises ModelError where it is larger than `byte_limit`."""
    size = path.stat().st_size
    if size > byte_limit():
        raise ModelError(_too_large(str(path), size))
    shutil.copyfile(path, target)


def _checked_members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The members by name. The stated sizes count: zipfile never gives more of a member."""
    members = {member.filename: member for member in archive.infolist()}
    for name, member in members.items():
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ModelError(
                f"{path}: {name!r:.120} in it leads out of the file; it is not loaded. Save the "
                "model again with model.save('name.keras')"
            )
        if member.flag_bits & 1 or member.compress_type not in _METHODS:
            raise ModelError(
                f"{path}: {name!r:.120} in it is encrypted or packed in a way that Keras does not "
                "use; it is not loaded. Save the model again with model.save('name.keras')"
            )
    if len(members) < len(archive.infolist()):
        raise ModelError(
            f"{path} holds two members of one name; it is not loaded. Save the model again with "
            "model.save('name.keras')"
        )
    size, unpacked = path.stat().st_size, sum(member.file_size for member in members.values())
    if unpacked > max(_MOST_RATIO * size, _ALWAYS_ALLOWED):
        raise ModelError(
            f"{path} unpacks to {unpacked} bytes from {size}, as a zip bomb does; it is not loaded"
        )
    if unpacked > byte_limit():
        raise ModelError(_too_large(str(path), unpacked))
    return members


def checked_hdf5(path: Path, where: str) -> int:
    """Check an HDF5 file before anything follows its links or reads its arrays.

    Returns:
        Number of values in all its datasets.

    Raises:
        ModelError: it is damaged, leads to other files, holds anything but groups and arrays of
            numbers, or unpacks to far more than it is.
    """
    try:
        with _without_plugins(), h5py.File(path, "r") as file:
            return _checked_tree(file, path.stat().st_size, where)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - h5py raises many types for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{where} is damaged: {reason}; copy or save it again") from None


@contextmanager
def _without_plugins() -> Iterator[None]:
    """HDF5 looks for no shared library of a filter that a file names."""
    paths = [h5py.h5pl.get(index) for index in range(h5py.h5pl.size())]
    for _ in paths:
        h5py.h5pl.remove(0)
    try:
        yield
    finally:
        for path in paths:
            h5py.h5pl.append(path)


def _checked_tree(file: Any, size: int, where: str) -> int:
    limit, unpacked, values = byte_limit(), 0, 0
    seen, groups = {_identity(file)}, [file]
    while groups:
        group = groups.pop()
        _check_attributes(group, where)
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ModelError(
                    f"{where}: {name!r:.120} in it is a {type(link).__name__}, which may lead to "
                    "external files; it is not loaded. Save the weights again with Keras"
                )
            found = group[name]
            if _identity(found) in seen:
                continue
            seen.add(_identity(found))
            _check_attributes(found, where)
            if isinstance(found, h5py.Group):
                groups.append(found)
                continue
            unpacked += _checked_bytes(found, name, where)
            values += math.prod(found.shape)
            if unpacked > max(_MOST_RATIO * size, _ALWAYS_ALLOWED) or unpacked > limit:
                raise ModelError(_too_large(where, unpacked))
    return values


def _identity(found: Any) -> tuple[int, int]:
    info = h5py.h5o.get_info(found.id)
    return info.fileno, info.addr


def _checked_bytes(found: Any, name: str, where: str) -> int:
    """Bytes that reading a dataset takes, by what it declares; it is not read."""
    if not isinstance(found, h5py.Dataset):
        raise ModelError(f"{where}: {name!r:.120} in it is no array of numbers; it is not loaded")
    layout = found.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ModelError(
            f"{where}: the values of {name!r:.120} are in external files; it is not loaded. Save "
            "the weights again with Keras"
        )
    filters = {layout.get_filter(index)[0] for index in range(layout.get_nfilters())}
    if found.dtype.kind not in "biufcV" or found.dtype.hasobject or found.shape is None:
        raise ModelError(f"{where}: {name!r:.120} in it is no array of numbers; it is not loaded")
    if filters - _FILTERS:
        raise ModelError(
            f"{where}: {name!r:.120} is compressed in a way that is not read; save it with gzip"
        )
    chunk = math.prod(layout.get_chunk()) if layout.get_layout() == h5py.h5d.CHUNKED else 0
    return int(found.dtype.itemsize * max(math.prod(found.shape), chunk))


def _check_attributes(found: Any, where: str) -> None:
    """Refuse long lists of strings of any length: all of them may be one that is very long."""
    for name in found.attrs:
        attribute = found.attrs.get_id(name)
        if attribute.dtype.hasobject and math.prod(attribute.shape or ()) > _MOST_NAMES:
            raise ModelError(
                f"{where}: its attribute {name!r:.120} lists more than {_MOST_NAMES} strings; it "
                "is not loaded. Save the weights again with Keras"
            )


def _too_large(where: str, size: int) -> str:
    return (
        f"{where} unpacks to {size} bytes, more than is allowed; it is not loaded. Set "
        "LRF_MAX_UNPACKED (in bytes, or as in 32G) if it comes from a trusted source"
    )
