"""`lrf releases ...`: what is published, whether it is sound, which one is served, and garbage."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrf_core.commands.flags import JsonOption
from lrf_core.commands.output import print_json
from lrf_core.console.terminal import echo, print_table, say
from lrf_core.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from lrf_core.releases import CatalogEntry, CatalogLine
    from lrf_core.storage import Store

app = typer.Typer(
    help="Published releases: list, show, verify, roll back, collect garbage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NameArgument = Annotated[str, typer.Argument(help="Name of the released model.")]
AnyNameArgument = Annotated[
    str | None, typer.Argument(help="Name of the released model.  [default: all names]")
]
RefArgument = Annotated[
    str, typer.Argument(metavar="[REF]", help="A number, an alias, or a version (v-...).")
]
FromOption = Annotated[
    str,
    typer.Option("--from", help="file:///dir, s3://bucket/prefix or a folder."),
]
OlderOption = Annotated[
    float, typer.Option(min=0.0, help="Hours since it was written; younger things are kept.")
]
DeleteOption = Annotated[
    bool, typer.Option("--delete", help="Remove it; without this it is only listed.")
]
PublicKeyOption = Annotated[
    Path | None,
    typer.Option(help="PEM file: the release must be signed with the private half of this key."),
]

_DEFAULT_STORE = "out/release"


def open_store(location: str) -> Store:
    """As `lrf_core.storage.open_store`, which is imported when a command needs it."""
    from lrf_core import storage

    return storage.open_store(location)


@app.command("list")
def list_(
    name: AnyNameArgument = None, store: FromOption = _DEFAULT_STORE, as_json: JsonOption = False
) -> None:
    """The releases of a name, or of all names: number, version, time, aliases, and the model.

    As the index has them; `lrf releases show` reads a manifest, with all files.

    \b
    Examples:
      lrf releases list
      lrf releases list digits --from s3://models/vision
      lrf releases list digits --from s3://models/vision --json
    """
    from rich.console import Group

    from lrf_core.releases import list_releases, release_names
    from lrf_core.report.tables import releases_table

    opened = open_store(store)
    names = [name] if name else release_names(opened)
    found = {name: list_releases(opened, name) for name in names}
    if as_json:
        print_json({name: [_as_line(line) for line in each] for name, each in found.items()})
    else:
        tables = [releases_table(*each) for each in found.items()] or [releases_table("", [])]
        print_table(Group(*tables))


@app.command()
def show(
    name: NameArgument,
    ref: RefArgument = "latest",
    store: FromOption = _DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """One release with its files. REF is the latest by default.

    \b
    Examples:
      lrf releases show digits
      lrf releases show digits champion --from s3://models/vision
      lrf releases show digits 3 --json
    """
    from lrf_core.releases import resolve
    from lrf_core.report.tables import release_table

    listed = resolve(open_store(store), name, ref)
    if as_json:
        print_json(_as_json(listed))
    else:
        print_table(release_table(listed))
        echo(listed.release.location)


@app.command()
def verify(
    name: NameArgument,
    ref: RefArgument = "",
    store: FromOption = _DEFAULT_STORE,
    public_key: PublicKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read releases back, and compare every byte with what was published. All of a name by default.

    The files against the manifest, the manifest and the signature against the index, the index
    against its own seal, and the blobs; several at a time. With --public-key also who signed. That
    needs lrf[signing].

    \b
    Examples:
      lrf releases verify digits
      lrf releases verify digits champion --from s3://models/vision --public-key release.pub

    \b
    Ends with 0 when all is sound, 2 when something is missing or damaged, 3 when a release is not
    signed as asked for.
    """
    from lrf_core.releases.catalog import index_of, number_of
    from lrf_core.releases.verify import verify_versions

    opened = open_store(store)
    index = index_of(opened, name)
    every = range(1, len(index.versions) + 1)
    numbers = [number_of(index, name, ref)] if ref else list(every)
    damaged = verify_versions(opened, name, numbers)
    if as_json:
        print_json({"name": name, "damaged": damaged})
    for number, paths in damaged.items():
        version = index.versions[number - 1].version
        state = f"DAMAGED: {', '.join(paths)}" if paths else "sound"
        if not as_json:
            echo(f"{name} {number} {version}: {state}")
    if any(damaged.values()):
        raise typer.Exit(EXIT_BAD_INPUT)
    if public_key:
        for number in numbers:
            _check_signature(opened, name, number, public_key)


@app.command()
def rollback(
    name: NameArgument, store: FromOption = _DEFAULT_STORE, as_json: JsonOption = False
) -> None:
    """Make the previous champion the champion again; a second rollback undoes the first.

    Only the aliases move. `lrf promote` serves what the champion is.

    \b
    Examples:
      lrf releases rollback digits --from s3://models/vision
    """
    from lrf_core.releases import rollback as roll_back

    listed = roll_back(open_store(store), name)
    if as_json:
        print_json(_as_json(listed))
    else:
        echo(f"{name}: the champion is number {listed.number}, {listed.release.version}")


@app.command()
def gc(
    store: FromOption = _DEFAULT_STORE,
    older_than: OlderOption = 24.0,
    delete: DeleteOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what publishers that were killed left behind, or remove it with --delete.

    That is: blobs that no manifest names, unfinished versions, and files in a version's directory
    that are not of the release. A release is never removed, nor is anything younger than
    --older-than, because a publisher may be at it.

    \b
    Examples:
      lrf releases gc --from s3://models/vision
      lrf releases gc --from s3://models/vision --older-than 1 --delete
    """
    from lrf_core.releases.collect import collect_garbage, find_garbage

    act = collect_garbage if delete else find_garbage
    garbage = act(open_store(store), timedelta(hours=older_than))
    if as_json:
        print_json({"removed": delete, "bytes": garbage.size, "keys": list(garbage.keys)})
        return
    for key in garbage.keys:
        echo(key)
    done = "removed" if delete else "found; remove it with --delete"
    say(f"{len(garbage.keys)} objects, {garbage.size:,} bytes {done}")


def _check_signature(store: Store, name: str, number: int, public_key: Path) -> None:
    from lrf_core.releases import resolve
    from lrf_core.releases.signing import check_release_signature

    check_release_signature(store, resolve(store, name, number).release, str(public_key))
    say(f"{name} {number}: signed with {public_key}")


def _as_json(listed: CatalogEntry) -> dict[str, Any]:
    release = listed.release.model_dump(mode="json")
    return {"number": listed.number, "aliases": list(listed.aliases), **release}


def _as_line(line: CatalogLine) -> dict[str, Any]:
    return {
        "number": line.number,
        "version": line.version,
        "aliases": list(line.aliases),
        **line.listing.model_dump(mode="json"),
    }
