"""`sluice apply` on real stores."""

import json
from pathlib import Path

import pytest

from infra.cli.endpoint_files import read_files
from infra.cli.output import Failure
from tests.adapters.samples import unique
from tests.cli.conftest import Cli
from tests.cli.deployment import deploy, template, user_environment
from tests.cli.endpoints import publish, set_, terminal
from tests.conftest import LocalAws

GREEN, YELLOW, RED = "\x1b[32m", "\x1b[33m", "\x1b[31m"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "endpoints"
    made.mkdir()
    return made


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_folder_is_planned_as_a_whole_applied_and_then_unchanged(
    administering: Cli, local_aws: LocalAws, folder: Path
) -> None:
    new, changed, same = (publish(local_aws, 1, 2) for _ in range(3))
    set_(administering, folder, changed, "timeout_ms: 1000\nlabels: {old: 1}")
    set_(administering, folder, same, "timeout_ms: 1500")
    write(
        folder / f"{changed}.yaml",
        f"endpoint: {changed}\ntimeout_ms: 2000\n---\nendpoint: {new}\nlabels: {{prod: 2}}\n",
    )
    write(folder / "notes.txt", "no endpoint")
    write(folder / ".hidden.yaml", "endpoint: [")

    arguments = ("apply", "-f", str(folder), "--note", "as planned")
    shown = administering(*arguments, "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    path = folder / f"{changed}.yaml"
    at = [shown.stdout.index(text) for text in (f"~ update {changed} (revision 1)", f"+ create {new}", f"= {same}")]
    assert (
        f"~ update {changed} (revision 1)  {path}:1\n    - labels.old\n    ~ timeout_ms: 1000 -> 2000\n" in shown.stdout
    )
    assert f"+ create {new}  {path}:4\n" in shown.stdout
    assert "    + labels.prod = 2\n" in shown.stdout
    assert f"= {same} unchanged  {folder / f'{same}.yaml'}:1\n" in shown.stdout
    assert shown.stdout.endswith("Plan: 1 to create, 1 to update, 1 unchanged.\n")
    assert "\x1b" not in shown.stdout
    assert len(at) == 3
    assert administering(*arguments, "--dry-run", "--exit-code").exit_code == 4
    assert administering.json("endpoints", "show", new)["revision"] == 0

    refused = administering(*arguments)
    assert (refused.exit_code, "Say --yes" in refused.stderr) == (2, True)
    assert "Plan: 1 to create" in refused.stdout
    assert administering.json("endpoints", "show", new)["revision"] == 0

    done = administering(*arguments, "--yes")
    assert done.exit_code == 0, done.stderr
    assert f"{changed} has revision 2 now." in done.stderr
    assert "Applied: 1 created, 1 updated, 1 unchanged. In force everywhere within 5 s." in done.stderr
    stored = administering.json("endpoints", "show", changed)
    assert (stored["timeout_ms"], stored["labels"], stored["note"]) == (2000, {}, "as planned")
    assert stored["changed_by"].startswith("cli")

    again = administering(*arguments, "--dry-run", "--exit-code")
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, "Plan: 0 to create, 0 to update, 3 unchanged.")
    assert administering(*arguments).exit_code == 0  # nothing to be asked about


def test_endpoints_in_no_file_are_told_once_and_stay(administering: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    kept, other = publish(local_aws, 1), publish(local_aws, 1)
    before = set_(administering, tmp_path, kept, "timeout_ms: 100")
    file = write(tmp_path / "other.json", json.dumps({"endpoint": other, "timeout_ms": 7}))
    result = administering("apply", "-f", file, "--yes")
    assert result.exit_code == 0
    assert result.stderr.count("in no file") == 1
    assert administering.json("endpoints", "show", kept)["revision"] == before["revision"]
    document = administering.json("apply", "-f", file, "--dry-run")
    assert kept in document["not_in_files"]
    assert document["endpoints"] == [
        {"endpoint": other, "outcome": "unchanged", "revision": 1, "changes": [], "source": f"{file}:1"}
    ]


def test_the_json_document_tells_what_was_done(administering: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    name = publish(local_aws, 1)
    outcome = set_(administering, tmp_path, name, "timeout_ms: 100")
    assert (outcome["outcome"], outcome["revision"]) == ("created", 1)
    assert outcome["changes"][-1] == {
        "kind": "add",
        "path": "timeout_ms",
        "before": None,
        "after": 100,
        "text": "+ timeout_ms = 100",
    }
    planned = administering.json("endpoints", "apply", "-f", str(tmp_path), "--dry-run")
    assert planned["endpoints"][0]["outcome"] == "unchanged"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "timeout_ms: 1\n", "a.yaml:1: /endpoint is missing"),
        ("a.yaml", "endpoint: e\n\ntimeout_ms: soon\n", "a.yaml:3: /timeout_ms must be a whole number"),
        ("a.yaml", "endpoint: e\nvariants:\n  - name: a\n    wight: 1\n", "a.yaml:4: /variants/0/wight is not known"),
        ("a.yaml", "endpoint: e\nvariants:\n  - name: a\n    backend: x\n", "a.yaml:4: /variants/0/backend there is"),
        ("a.yaml", "endpoint: No Name\n", "a.yaml:1: /endpoint has lower-case"),
        ("a.yaml", "endpoint: 5\n", "a.yaml:1: /endpoint must be a text"),
        ("a.yaml", "- endpoint: e\n", "a.yaml:1: a document is the configuration of one endpoint"),
        ("a.yaml", "endpoint: e\ntimeout_ms: 1\ntimeout_ms: 2\n", "a.yaml:3: timeout_ms is given twice"),
        ("a.yaml", "endpoint: e\n---\nendpoint: e\n", "a.yaml:3: /endpoint e is in"),
        ("a.yaml", "# nothing\n", "There is no configuration of an endpoint"),
        ("a.json", '{"endpoint": "e",\n "timeout_ms": "x"}', "a.json:2: /timeout_ms must be"),
        ("a.json", '{"endpoint":\t"e", "timeout_ms": "x"}', "a.json: /timeout_ms must be"),
        ("a.json", '{"endpoint": "e",\n}', "a.json:2: "),
        ("a.json", '{"endpoint": "e", "endpoint": "b"}', "endpoint is given twice"),
        ("a.json", '{"endpoint": "e", "timeout_ms": NaN}', "a.json:1: The configuration "),
        ("a.yaml", b"\xff\xfe", "a.yaml: is not text in UTF-8"),
        ("a.yaml", "#" * 1_048_577, "more than 1048576 bytes"),
        ("a.yaml", "endpoint: e\nlogging:\n  redact: [" + "x" * 70_000 + "]", "the limit is 65536"),
        ("a.toml", "", "ends in .yaml, .yml or .json"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_place(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Failure) as caught:
        read_files([str(path)])
    assert caught.value.exit_code == 2
    assert said in "\n".join((caught.value.message, *caught.value.details))


def test_what_does_not_fit_what_is_published_is_told_and_nothing_changes(
    administering: Cli, local_aws: LocalAws, tmp_path: Path
) -> None:
    wrong = {
        "variants:\n- name: a\n  version: 9": "4: /variants/0/version NAME has no version 9",
        "labels:\n  prod: 9": "3: /labels/prod NAME has no version 9",
        "backends:\n  f:\n    kind: sagemaker\n    options:\n      endpont: x": (
            "6: /backends/f/options/endpont is no option of this kind"
        ),
        "backends:\n  f:\n    kind: fax": "4: /backends/f/kind is none of the kinds",
        "response:\n  outputs:\n  - z": "4: /response/outputs/0",
        "fallback:\n- kind: static\n  outputs:\n    y: [1, 2]\n    label: 3": (
            "6: /fallback/0/outputs/label must be a string"
        ),
    }
    names = [publish(local_aws, 1) for _ in (*wrong, "right")]
    for name, text in zip(names, [*wrong, "timeout_ms: 1"], strict=True):
        write(tmp_path / f"{name}.yaml", f"endpoint: {name}\n{text}\n")
    result = administering("apply", "-f", str(tmp_path), "--yes")
    assert (result.exit_code, result.stdout) == (2, "")
    for name, said in zip(names, wrong.values(), strict=False):
        assert f"{name}.yaml:{said.replace('NAME', name)}" in result.stderr
    assert administering.json("endpoints", "show", names[-1])["revision"] == 0


def test_all_that_is_wrong_is_told_at_once(administering: Cli, folder: Path) -> None:
    write(folder / "a.yaml", "endpoint: a\ntimeout_ms: 0\nsticky: [x]\n")
    write(folder / "b.yml", "endpoint: [\n")
    write(folder / "c.json", '{"endpoint": "c", "variants": []}')
    result = administering("apply", "-f", str(folder), "--dry-run")
    assert result.exit_code == 2
    assert "Nothing was changed: 4 things are wrong." in result.stderr
    assert [
        text in result.stderr for text in ("a.yaml:2: /timeout_ms", "a.yaml:3: /sticky", "b.yml:2", "c.json:1")
    ] == [True] * 4


def test_more_places_than_are_told_are_counted(folder: Path) -> None:
    fields = "\n".join(f"nothing{n}: 1" for n in range(20))
    write(folder / "a.yaml", f"endpoint: a\n{fields}\n")
    with pytest.raises(Failure) as caught:
        read_files([str(folder)])
    assert caught.value.details[-1].endswith("a.yaml:1: and 12 more places")
    for n in range(30):
        write(folder / f"b{n}.yaml", "endpoint: [\n")
    with pytest.raises(Failure) as caught:
        read_files([str(folder)])
    assert (len(caught.value.details), caught.value.details[-1]) == (31, "and 9 more")


def test_bounds_of_files(folder: Path) -> None:
    for n in range(257):
        write(folder / f"{n}.yaml", "")
    with pytest.raises(Failure, match="There are 257 files; at most 256"):
        read_files([str(folder)])
    many = write(folder / "0.yaml", "\n---\n".join(f"endpoint: e{n}" for n in range(1001)))
    with pytest.raises(Failure, match="There are 1001 endpoints; at most 1000"):
        read_files([many])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option"),
        (("-f", "absent.yaml"), "absent.yaml cannot be read: No such file"),
        (("-f", "a.yaml", "--exit-code"), "--exit-code belongs to --dry-run"),
        (("-f", "a.yaml", "--note", "x" * 501), "must have at most 500 characters"),
        (("-f", "a.yaml", "--region", "us-east-1"), ""),
    ],
)
def test_wrong_usage(administering: Cli, arguments: tuple[str, ...], said: str) -> None:
    result = administering("apply", *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_standard_input_takes_what_show_prints(administering: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    name = publish(local_aws, 1, 2)
    set_(administering, tmp_path, name, "timeout_ms: 1000\nlabels: {no: 1}")
    set_(administering, tmp_path, name, "timeout_ms: 3000")
    old = administering("endpoints", "show", name, "--revision", "1").stdout
    assert old.splitlines()[0].startswith(f"# {name}, revision 1, set 20")
    done = administering("apply", "-f", "-", "--yes", stdin=old)
    assert done.exit_code == 0, done.stderr
    assert "standard input:2" in done.stdout
    document = administering.json("endpoints", "show", name)
    assert (document["revision"], document["timeout_ms"], document["labels"]) == (3, 1000, {"no": 1})
    # The API's document can be sent back, too.
    again = administering("apply", "-f", "-", "--dry-run", "--exit-code", stdin=json.dumps(document))
    assert again.exit_code == 0, again.output


def test_a_terminal_is_asked_and_sees_colours(administering: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    name = publish(local_aws, 1)
    set_(administering, tmp_path, name, "labels: {old: 1}\ntimeout_ms: 100")
    file = write(tmp_path / f"{name}.yaml", f"endpoint: {name}\ntimeout_ms: 200\nsticky: tenant\ncache: {{ttl_s: 5}}\n")
    with terminal(administering, "apply", "-f", file) as shown:
        shown.until("Apply this? [y/N]: ")
        assert shown.answer("n") == 1
    assert f"{RED}    - labels.old" in shown.shown
    assert f"{YELLOW}    ~ timeout_ms: 100 -> 200" in shown.shown
    assert f"{GREEN}    + cache.ttl_s = 5" in shown.shown
    assert "Nothing was changed." in shown.shown
    assert administering.json("endpoints", "show", name)["revision"] == 1


def test_who_comes_second_is_told_and_the_others_are_applied(
    administering: Cli, local_aws: LocalAws, tmp_path: Path, folder: Path
) -> None:
    raced, other = publish(local_aws, 1), publish(local_aws, 1)
    set_(administering, tmp_path, raced, "timeout_ms: 100")
    for name in (raced, other):
        write(folder / f"{name}.yaml", f"endpoint: {name}\ntimeout_ms: 200\n")
    with terminal(administering, "apply", "-f", str(folder)) as mine:
        mine.until("Apply this? [y/N]: ")
        set_(administering, tmp_path, raced, "timeout_ms: 300", "--note", "theirs")
        assert mine.answer("y") == 1
    assert f"{raced} was not changed: {raced} has revision 2, and not 1" in mine.shown.replace("\r\n", " ")
    assert "Applied: 1 created, 0 updated, 0 unchanged, 1 failed." in mine.shown
    assert administering.json("endpoints", "show", other)["timeout_ms"] == 200
    assert administering.json("endpoints", "show", raced)["timeout_ms"] == 300


def test_a_deployed_stack_remembers_the_arn(down: Cli, local_aws: LocalAws, tmp_path: Path) -> None:
    stack, name = deploy(local_aws, template("https://api.example.com", functions=False)), unique("e")
    file = write(tmp_path / "e.yaml", f"endpoint: {name}\ntimeout_ms: 100\n")
    where, env = ("--stack", stack), user_environment(local_aws)
    done = down("apply", "-f", file, "--yes", *where, env=env)
    assert done.exit_code == 0, done.stderr
    shown = json.loads(down("endpoints", "show", name, "--json", *where, env=env).stdout)
    assert shown["revision"] == 1
    assert shown["changed_by"].startswith("arn:aws:")


def test_without_a_stack(down: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "e.yaml", "endpoint: e\n")
    result = down("apply", "-f", file, "--yes")
    assert (result.exit_code, "No stack is up" in result.stderr) == (3, True)
