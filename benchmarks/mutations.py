"""Files as users give them, and seeded ways to damage them: any bytes, or their structure."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Random = np.random.Generator
Mutation = Callable[[bytes, Random], bytes]

SIDE, CLASSES, EACH = 6, 2, 6
_INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_NAMES = (
    "../out.png",
    "/out.png",
    "a\\..\\b",
    "a\0b.png",
    "a/../../b",
    "x" * 300,
    "",
    ".",
    "a",
)
_JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 2**63, 1e308, -0.0, float("nan"), float("inf")),
    *("", "x" * 5000, "a\0b", "../../x", "\ud800", [], {}, [[[[]]]], {"a": {"b": 1}}, "os:abort"),
)
_YAML = (
    "a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\ngoal: [*e,*e,*e,*e]\n",
    "model: !!python/object/apply:os.system ['touch executed']\n",
    "model: !!python/object/new:subprocess.Popen [['touch','executed']]\n",
    "data: !!python/name:os.system\n",
    "seed: " + "9" * 6000 + "\n",
    "seed: 2024-99-99\n",
    "seed: !!int x\n",
    "seed: !!float\n",
    "seed: !!timestamp x\n",
    "seed: !!bool x\n",
    "seed: !!binary x\n",
    "goal: " + "[" * 3000 + "\n",
    "goal: " + "{a: " * 500 + "1" + "}" * 500 + "\n",
    "seed: 1\nseed: 2\n",
    "? [a, b]\n: 1\n",
    "? {a: b}\n: 1\n",
    "<<: *a\n",
    "a: &a\n  <<: *a\n",
    "gate: {max_accuracy_drop: .nan}\n",
    "goal: {params_reduction: -.inf}\n",
    "--- a\n--- b\n",
    "%YAML 9.9\n---\n",
    "\tmodel: x\n",
    "explore: &x {methods: *x}\n",
    "1: 2\n",
    "null: 3\n",
    "model: |\n  " + "x" * 100_000 + "\n",
)


def flipped(content: bytes, random: Random) -> bytes:
    """Some bytes changed."""
    changed = np.frombuffer(content, np.uint8).copy()
    where = random.integers(0, max(len(changed), 1), random.integers(1, 9))
    if len(changed):
        changed[where] ^= random.integers(1, 256, len(where)).astype(np.uint8)
    return changed.tobytes()


def cut(content: bytes, random: Random) -> bytes:
    """The end missing."""
    return content[: random.integers(0, len(content) + 1)]


def without_part(content: bytes, random: Random) -> bytes:
    start, length = random.integers(0, len(content) + 1), random.integers(1, 200)
    return content[:start] + content[start + length :]


def with_part(content: bytes, random: Random) -> bytes:
    """Random bytes, or bytes of the file itself, put in."""
    start, length = random.integers(0, len(content) + 1), int(random.integers(1, 200))
    source = random.integers(0, len(content) + 1)
    part = random.bytes(length) if random.random() < 0.5 else content[source : source + length]
    return content[:start] + part + content[start:]


def with_integer(content: bytes, random: Random) -> bytes:
    """A number of a size that programs forget, in place of some bytes."""
    size = int(random.choice([1, 2, 4, 8]))
    order: Literal["little", "big"] = "little" if random.random() < 0.5 else "big"
    value: int = int(random.choice(np.array(_INTEGERS, dtype=object))) % 256**size
    start = int(random.integers(0, max(len(content) - size, 1)))
    return content[:start] + value.to_bytes(size, order) + content[start + size :]


BYTES: tuple[Mutation, ...] = (flipped, cut, without_part, with_part, with_integer)


def npz(random: Random) -> bytes:
    count = CLASSES * EACH
    x = random.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    save = np.savez if random.random() < 0.5 else np.savez_compressed
    save(buffer, x=x, y=np.arange(count) % CLASSES)
    return buffer.getvalue()


def npz_of_another_header(content: bytes, random: Random) -> bytes:
    """A header of an array that says something else than its values are."""
    huge = 10 ** int(random.integers(1, 25))
    shapes = (
        *((huge, 6, 6, 3), (12, 6, 6, huge), (-1, 6, 6, 3), (0, 6, 6, 3), ()),
        *((True, 6), ("12",), None, (12,) * 40, (1.5,), ((12, 6),)),
    )
    kinds = ("|O", "<f4", "<f8", "|V9999", "|S0", "<U400000000", "<c16", "<M8[s]", "|u1", "x" * 99)
    described: Any = kinds[random.integers(len(kinds))]
    if random.random() < 0.2:
        described = [("a", described), ("b", "|O")]
    shape: Any = shapes[random.integers(len(shapes))] if random.random() < 0.7 else (12, 6, 6, 3)
    text = repr({"descr": described, "fortran_order": bool(random.integers(2)), "shape": shape})
    texts = (text, "(" * 5000, "__import__('os').system('touch executed')", text * 99, "{" * 90)
    text = texts[0] if random.random() < 0.7 else texts[random.integers(len(texts))]
    version = int(random.integers(1, 4))
    length = len(text) if random.random() < 0.8 else int(random.integers(0, 2**16))
    packed = struct.pack("<H" if version == 1 else "<I", length)
    header = b"\x93NUMPY" + bytes([version, 0]) + packed + text.encode()
    return _rezipped(content, {"x.npy": header + random.bytes(12 * SIDE * SIDE * 3)}, random)


def zip_of_other_entries(content: bytes, random: Random) -> bytes:
    """Sizes, methods or flags in the directory that are not those of the members."""
    changed = bytearray(content)
    start = content.find(b"PK\x01\x02")
    places = {"flags": (8, 2), "method": (10, 2), "crc": (16, 4), "packed": (20, 4)}
    places |= {"size": (24, 4), "name": (28, 2), "extra": (30, 2), "offset": (42, 4)}
    offset, size = places[str(random.choice(list(places)))]
    value = int(random.choice([0, 1, 8, 12, 14, 99, 2**16 - 1, 2**31, 2**32 - 1])) % 256**size
    if start >= 0:
        changed[start + offset : start + offset + size] = value.to_bytes(size, "little")
    return bytes(changed)


def zip_of_other_members(content: bytes, random: Random) -> bytes:
    """Members twice, with names that lead elsewhere, or that are zips themselves."""
    name = str(random.choice(np.array([*_NAMES, "y.npy", "a/0.png"], dtype=object)))
    return _rezipped(content, {name: content if random.random() < 0.5 else b"\0" * 10**6}, random)


def _rezipped(content: bytes, more: dict[str, bytes], random: Random) -> bytes:
    buffer = io.BytesIO()
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    kind = kinds[random.integers(len(kinds))] if random.random() < 0.3 else zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w", kind) as target,
    ):
        for member in source.namelist():
            if member not in more or random.random() < 0.1:
                target.writestr(member, source.read(member))
        for name, inside in more.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = kind
            entry.external_attr = int(random.choice([0o100644, 0o120777, 0o020644, 0])) << 16
            target.writestr(entry, inside)
    return buffer.getvalue()


def images() -> dict[str, bytes]:
    """Names below a folder of class folders, to contents: each format that may be there."""
    formats = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
    modes = ("RGB", "L", "RGBA", "P", "1", "CMYK")
    random = np.random.default_rng(0)
    made = {}
    for label in "ab":
        for number, kind in enumerate(formats):
            pixels = random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
            mode = modes[number] if kind in ("PNG", "TIFF") else "RGB"
            frames = [Image.fromarray(pixels).convert(mode)] * (3 if kind in ("GIF", "WEBP") else 1)
            buffer = io.BytesIO()
            more = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
            frames[0].save(buffer, kind, **more)
            made[f"{label}/{number}.{kind.lower()}"] = buffer.getvalue()
    return made


def tar(random: Random) -> bytes:
    buffer = io.BytesIO()
    mode: Any = "w:gz" if random.random() < 0.5 else "w"
    kinds = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    with tarfile.open(fileobj=buffer, mode=mode, format=kinds[random.integers(3)]) as archive:
        for name, content in images().items():
            _add(archive, tarfile.TarInfo(name), content)
    return buffer.getvalue()


def tar_of_other_members(content: bytes, random: Random) -> bytes:
    """Links, devices, files with holes, long headers, and names that lead elsewhere."""
    buffer = io.BytesIO()
    packed = content.startswith(b"\x1f\x8b")
    with tarfile.open(
        fileobj=buffer, mode="w:gz" if packed else "w", format=tarfile.PAX_FORMAT
    ) as archive:
        for name, inside in images().items():
            if random.random() < 0.8:
                _add(archive, tarfile.TarInfo(name), inside)
            else:
                name = str(random.choice(np.array([*_NAMES, name], dtype=object)))
                member = tarfile.TarInfo(name.replace("\0", "") or "e")
                member.type = bytes([random.choice(list(b"0123456789SLKxgVN"))])
                member.linkname = "../../etc/passwd"
                member.pax_headers = _pax(random)
                _add(archive, member, inside)
    return buffer.getvalue()


def _pax(random: Random) -> dict[str, str]:
    known = ("path", "size", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major", "hdrcharset")
    values = ("-1", "0,1,2,3", str(10**20), "x" * 9000, "1", "BINARY", "nan")
    return {
        str(key): str(random.choice(values))
        for key in random.choice(known, int(random.integers(0, 4)))
    }


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, content: bytes) -> None:
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def zipped_images(random: Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in images().items():
            archive.writestr(name, content)
    return buffer.getvalue()


def image_of_another_size(content: bytes, random: Random) -> bytes:
    """A width and height that the file has not, with a checksum that fits."""
    width, height = (int(side) for side in random.choice([0, 1, 7, 1000, 60_000, 2**31 - 1], 2))
    if content.startswith(b"\x89PNG"):
        header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    if content.startswith(b"GIF"):
        return content[:6] + struct.pack("<HH", width % 2**16, height % 2**16) + content[10:]
    if content.startswith(b"BM"):
        return content[:18] + struct.pack("<ii", width, height) + content[26:]
    start = max(content.find(b"\xff\xc0") + 5, 0)  # of a JPEG, else anywhere
    return (
        content[:start] + struct.pack(">HH", height % 2**16, width % 2**16) + content[start + 4 :]
    )


def image_with_a_chunk(content: bytes, random: Random) -> bytes:
    """A PNG with a text or profile that is large when it is decompressed, or PostScript."""
    if random.random() < 0.2:
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n(executed) (w) file closefile\n"
    png = images()["a/0.png"]
    bomb = zlib.compress(bytes(int(random.choice([10**3, 10**6, 10**7]))), 9)
    kind = (b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"fcTL", b"PLTE")[random.integers(6)]
    body = kind + b"x\0\0" + bomb
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def table_of_other_columns(content: bytes, random: Random) -> bytes:
    """A Parquet table with columns of other types, long texts and lists, or other metadata."""
    table = pq.read_table(io.BytesIO(content))
    name = str(random.choice(table.column_names))
    place, rows = table.column_names.index(name), table.num_rows
    columns = (
        pa.array([[[[1]]]] * rows),
        pa.array(["x" * 10**5] * rows),
        pa.array([[0] * 10**5] * rows, pa.list_(pa.int32())),
        pa.array([None] * rows, table.schema.field(name).type),
        pa.array([{"a": [{"b": 1}]}] * rows),
        pa.array([b"\xff\xfe"] * rows),
        pa.array([2**62] * rows),
        pa.array([float("nan")] * rows),
        pa.array(["\x00"] * rows),
    )
    choice = random.integers(4)
    if choice == 0:
        table = table.drop_columns([name])
    elif choice == 1:
        table = table.append_column(name, table[name])
    elif choice == 2:
        table = table.set_column(place, name, columns[random.integers(len(columns))])
    else:
        about = json_of_another_value(table.schema.metadata[b"lrf"], random)
        table = table.replace_schema_metadata({b"lrf": about})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def yaml_with_more(content: bytes, random: Random) -> bytes:
    """Lines put in that are legal YAML, and worse."""
    lines = content.decode().splitlines(keepends=True)
    place = int(random.integers(0, len(lines) + 1))
    more = _YAML[random.integers(len(_YAML))]
    kept = lines if random.random() < 0.5 else []
    return "".join([*kept[:place], more, *kept[place:]]).encode()


def json_of_another_value(content: bytes, random: Random) -> bytes:
    """A value replaced, a key dropped, added or twice, or nested deep."""
    document = json.loads(content)
    node, choice = _some_object(document, random), random.integers(6)
    keys = list(node) or ["x"]
    key = str(random.choice(np.array(keys, dtype=object)))
    if choice == 0:
        node.pop(key, None)
    elif choice == 1:
        node["unknown"] = 1
    elif choice < 5:
        node[key] = _JUNK[random.integers(len(_JUNK))]
    text = json.dumps(document)
    if choice == 5:
        depth = int(random.choice([50, 190, 250, 5000]))
        nested = '{"a":' * depth + "1" + "}" * depth
        twice = f'"{key}": {nested},' if random.random() < 0.7 else '"schema_version": 1,'
        start = text.find('"settings": {') + len('"settings": {')
        text = text[:start] + twice + text[start:]
    return text.encode()


def _some_object(document: Any, random: Random) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def look(node: Any) -> None:
        if isinstance(node, dict):
            found.append(node)
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    look(document)
    return found[random.integers(len(found))]


def image_folder(folder: Path, mutated: str, content: bytes) -> Path:
    """Class folders of images, one of them with other content."""
    for name, original in images().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if name == mutated else original)
    return folder
