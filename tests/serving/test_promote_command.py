"""`lrf promote` at the command line, and what its documentation promises."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from kserve_api import SERVICE
from promotions import World
from typer.testing import CliRunner

from lrf_core.artifacts import Promotion
from lrf_core.commands.app import app, run_command_line
from lrf_core.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_GATE_REFUSED, EXIT_OK, LrfError
from lrf_core.storage import open_store

DOCUMENT = Path(__file__).parents[2] / "docs" / "promotion.md"


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and standard output."""
    result = CliRunner().invoke(app, ["promote", *arguments])
    if isinstance(result.exception, LrfError):
        return result.exception.exit_code, result.stdout
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.stdout


@pytest.fixture
def quick(world: World, tmp_path: Path) -> list[str]:
    """The arguments of a promotion, with a spec that makes it quick."""
    spec = {
        "publish": {"to": world.store.as_uri(), "name": "digits"},
        "promote": {
            "service": SERVICE,
            "url": world.ingress.url,
            "poll": "0.005s",
            "settle": 0.05,
            "wait": "5s",
        },
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return ["--spec", str(tmp_path / "spec.yaml")]


def test_a_promotion_prints_its_steps_and_keeps_them(
    world: World, quick: list[str], tmp_path: Path
) -> None:
    code, printed = run(*quick, "--canary", "20,100", "--out", str(tmp_path / "out"))
    assert code == EXIT_OK
    assert re.search(r"answers at 0% +done .* 8 samples, ", printed)
    assert f"promoted: digits/{world.made.versions['new']} on {SERVICE}" in printed
    done = Promotion.load(tmp_path / "out")
    assert "ready at 20%" in [step.name for step in done.steps]
    code, printed = run(*quick, "--json")
    assert (code, json.loads(printed)["outcome"]) == (EXIT_OK, "already_served")


def test_what_failed_is_kept_as_well(world: World, quick: list[str], tmp_path: Path) -> None:
    world.wrong()
    code, printed = run(*quick, "--out", str(tmp_path / "out"), "--json")
    assert (code, json.loads(printed)["outcome"]) == (EXIT_FAILURE, "rolled_back")
    failed = [step for step in Promotion.load(tmp_path / "out").steps if not step.passed]
    assert [step.name for step in failed] == ["answers at 0%"]


def test_a_release_that_may_not_be_served_ends_with_3(world: World, quick: list[str]) -> None:
    store = open_store(world.store.as_uri())
    store.put(f"digits/{world.made.versions['new']}/verdict.json", b"{}")
    assert run(*quick)[0] == EXIT_GATE_REFUSED


def test_a_dry_run_prints_the_patch(world: World, quick: list[str]) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    code, printed = run(*quick, "--dry-run")
    assert code == EXIT_OK
    patch = yaml.safe_load(printed)
    assert patch["spec"]["predictor"]["model"]["storageUri"] == world.uri("new")
    assert json.loads(run(*quick, "--dry-run", "--json")[1])["patch"] == patch
    assert world.cluster.spec_of_user() == before


def test_a_rollback_undoes_the_last_promotion(world: World, quick: list[str]) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    run(*quick, "--canary", "100")
    assert world.cluster.spec_of_user() != before
    assert run(*quick, "--rollback")[0] == EXIT_OK
    assert world.cluster.spec_of_user() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["digits", "--from", "s3://models"],
        ["--service", SERVICE],
        ["digits", "--from", "s3://models", "--service", "digits"],
        ["digits", "--from", "s3://models", "--service", SERVICE, "--canary", "50,10,100"],
        ["digits", "--from", "s3://models", "--service", SERVICE, "--canary", "ten"],
        ["digits", "--from", "s3://models", "--service", SERVICE, "--wait", "soon"],
        ["digits", "--from", "s3://models", "--service", SERVICE, "--prometheus", "http://p:1"],
        ["--rollback", "--dry-run", "--service", SERVICE],
    ],
)
def test_bad_arguments_are_said_before_anything_is_done(arguments: list[str]) -> None:
    assert run(*arguments)[0] == EXIT_BAD_INPUT


def test_an_error_is_one_line(world: World, quick: list[str], capsys, monkeypatch) -> None:
    world.wrong()
    monkeypatch.setattr("sys.argv", ["lrf", "promote", *quick])
    with pytest.raises(SystemExit):
        run_command_line(app)
    (line,) = [li for li in capsys.readouterr().err.splitlines() if li.startswith("lrf: ")]
    assert "is restored" in line


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_documented_role_allows_what_is_done_and_nothing_else(world: World) -> None:
    world.promote()
    world.promote()
    world.wrong("old")
    with pytest.raises(LrfError):
        world.promote("1")
    (role,) = [
        found
        for block in blocks("yaml")
        for found in yaml.safe_load_all(block)
        if found["kind"] == "Role"
    ]
    allowed = {
        (verb, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        if rule["apiGroups"] == ["serving.kserve.io"]
    }
    assert allowed == set(world.cluster.requests)
    assert len(role["rules"]) == 1


def test_the_documented_service_is_one_that_kserve_takes() -> None:
    from kserve_schema import problems

    services = [
        found
        for block in blocks("yaml")
        for found in yaml.safe_load_all(block)
        if found["kind"] == "InferenceService"
    ]
    assert [problems(service) for service in services] == [[]]


def test_the_documented_flags_exist() -> None:
    helped = CliRunner().invoke(app, ["promote", "--help"], env={"COLUMNS": "200"}).output
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", DOCUMENT.read_text()))
    assert len(flags) > 15
    assert {flag for flag in flags if flag not in helped} == set()
