"""Wrong usage of the command line: found before anything is sent, and said in zloom's own words."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from zloom.cli.app import app

ROOT = Path(__file__).parents[2]
NOWHERE = {"ZLOOM_BROKER": "ipc:///tmp/zloom-nowhere", "COLUMNS": "200", "TERM": "dumb"}
"""What is sent all the same ends with code 3."""


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env=NOWHERE | environment, prog_name="zloom")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("set", "lm", "a=1", "--at-step", "-5"), "--at-step is -5; expected an integer >= 0"),
        (("set", "lm", "a=1", "--at-step", "1.5"), "--at-step is 1.5; expected an integer >= 0"),
        (
            ("set", "lm", "a=1", "--expect-revision", "9007199254740993"),
            "--expect-revision is 9007199254740993; expected an integer >= 0, <= 9007199254740992",
        ),
        (("history", "lm", "--limit", "0"), "--limit is 0; expected an integer >= 1"),
        (
            ("replay", "file", "--run", "lm", "--skip", "1", "--skip", "x"),
            "--skip is x; expected an integer >= 1",
        ),
        (("rollback", "lm", "x"), "REVISION is x; expected an integer >= 0"),
        (("ps", "--timeout", "abc"), "--timeout is abc; expected a number of seconds > 0"),
        (("ps", "--timeout", "0"), "--timeout is 0; expected a number of seconds > 0"),
        (("ps", "--timeout", "inf"), "--timeout is inf; expected a number of seconds > 0"),
        (("pause", "lm", "--for", "-3"), "--for is -3; expected a number of seconds > 0"),
        (("pause", "lm", "--for", "0"), "--for is 0; expected a number of seconds > 0"),
        (
            ("pause", "lm", "--for", "30m"),
            "--for is 30m; that would be 1800; expected a number of seconds > 0",
        ),
        (
            ("set", "lm", "a=1", "--mode", "imediate"),
            "--mode is 'imediate'; did you mean immediate? expected one of next, consistent, immediate",
        ),
        (("set", "lm", "a=1", "--revert-if", ""), "--revert-if is empty; is a variable in it not set?"),
        (("stop", "lm", "--attempt", ""), "--attempt is empty; is a variable in it not set?"),
        (("stop", ""), "RUN is empty; is a variable in it not set?"),
        (("set", "", "a=1"), "RUN is empty; is a variable in it not set?"),
        (("ps", ""), "RUN is empty; is a variable in it not set?"),
        (
            ("auth", "add", "ann", "--role", "king"),
            "--role is 'king'; expected one of observer, operator, weavelet",
        ),
    ],
)
def test_a_word_that_an_option_does_not_take_is_named_with_what_was_expected(
    arguments: tuple[str, ...], text: str
) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    command = " ".join(arguments[: 1 + (arguments[0] == "auth")])
    assert done.stderr == f"zloom: {text}\n`zloom {command} --help` says what it takes\n"


@pytest.mark.parametrize(
    ("arguments", "text", "command"),
    [
        (("help",), "no such command 'help'", "zloom"),
        (("pss",), "no such command 'pss'. Did you mean 'ps'?", "zloom"),
        (("--nope",), "no such option: --nope", "zloom"),
        (("ps", "--nope"), "no such option: --nope", "zloom ps"),
        (("set",), "missing argument 'RUN'", "zloom set"),
        (("set", "lm"), "missing argument 'KEY=VALUE...'", "zloom set"),
        (("set", "lr=1e-3"), "the run's name comes first: zloom set RUN lr=1e-3", "zloom set"),
        (("set", "lr=1", "bs=3"), "the run's name comes first: zloom set RUN lr=1", "zloom set"),
        (
            ("set", "lr=..1 over 9 steps"),
            "the run's name comes first: zloom set RUN 'lr=..1 over 9 steps'",
            "zloom set",
        ),
        (("auth", "nope"), "no such command 'nope'", "zloom auth"),
    ],
)
def test_words_that_no_command_takes_are_told_like_any_error(
    arguments: tuple[str, ...], text: str, command: str
) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"zloom: {text}\n`{command} --help` says what it takes\n"


@pytest.mark.parametrize("arguments", [(), ("auth",)])
def test_no_words_at_all_show_the_help(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.output == run(*arguments, "--help").output


def test_a_variable_is_read_as_its_option_is() -> None:
    done = run("broker", ZLOOM_METRICS_PORT="70000")
    assert done.exit_code == 2
    assert "--metrics-port is 70000; expected an integer >= 0, <= 65535" in done.stderr


GUARD = ("--revert-if", "loss >> 2 within 5 steps")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pause", "lm", "--for", "10", "--no-limit"), "--for and --no-limit exclude each other"),
        (("set", "lm", "a=1", "--after", "5", "--at-step", "10"), "--after and --at-step exclude each other"),
        (("set", "lm", "a=1", "--mode", "next", "--after", "5"), "--mode and --after exclude each other"),
        (("set", "lm", "a=1", "--mode", "next", "--at-step", "5"), "--mode and --at-step exclude each other"),
        (("set", "lm", "a=1", "--queue"), "--queue needs --at-step or --after"),
        (
            ("set", "lm", "a=1", "--queue", "--supersede", "--after", "5"),
            "--queue and --supersede exclude each other",
        ),
        (("set", "lm", "a=1", *GUARD), "column 7: expected a metric, a number, 'baseline' or '(', found '>'"),
        (("set", "lm", "a=1", "--dry-run", *GUARD), "column 7: "),
        (("set", "lm", "a"), "'a' is no change; expected key=value"),
        (
            ("set", "lm", "a=..1", "over", "9", "steps"),
            "'over' is no change; expected key=value; quote a ramp: 'key=..value over 300 steps'",
        ),
        (("ps", "--attempt", "one"), "--attempt needs a RUN"),
        (("record", "lm", "-", "--wait"), "FILE is -; expected the path of a file: a recording cannot go to"),
        (("command", "lm", "norm", "2"), "'2' is no argument; expected key=value"),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_anything_is_sent(
    arguments: tuple[str, ...], text: str
) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"zloom: {text}")
    assert ("\n        ^\n" in done.stderr) == ("--revert-if" in arguments)
    told = run(*arguments, "--json")
    assert (told.exit_code, json.loads(told.stdout)["error"]["code"]) == (2, "bad_usage")
    assert told.stderr == done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--after", "5", "--queue"),
        ("--at-step", "5", "--queue"),
        ("--at-step", "5", "--supersede"),
        ("--revert-if", "loss > 2 within 5 steps"),
    ],
)
def test_options_that_go_together_are_sent(options: tuple[str, ...]) -> None:
    assert run("set", "lm", "a=1", *options, "--timeout", "0.01").exit_code == 3


def test_words_that_an_option_takes_reach_the_command() -> None:
    options = ("--at-step", "0", "--expect-revision", "0", "--timeout", "0.01")
    assert run("set", "lm", "a=1", *options).exit_code == 3


@pytest.mark.parametrize("command", ["set", "rollback", "stop", "command", "fail-device", "cancel", "broker"])
def test_help_shows_no_type_of_a_flag_and_names_values_in_upper_case(command: str) -> None:
    shown = run(command, "--help").stdout
    assert "<bool>" not in shown
    assert "x<=" not in shown
    assert "{" not in shown


def test_help_tells_of_each_command_in_whole_words_and_cuts_no_choice_in_two() -> None:
    listed = " ".join(run("--help").stdout.split())
    assert (
        "set Change keys of a run's config, all or none, and wait until every replica has answered." in listed
    )
    assert "..." not in listed.partition(" Looking: ")[2]
    shown = run("set", "--help").stdout
    assert shown.startswith("Usage: zloom set [OPTIONS] RUN KEY=VALUE...\n")
    assert "--mode next|consistent|immediate\n" in shown
    assert "ZLOOM_KEY names the file of your key" in " ".join(shown.split())


def test_help_has_each_command_under_the_heading_that_the_page_has_it_under() -> None:
    page = (ROOT / "docs/cli.md").read_text()
    listed = {
        heading: re.findall(r"`([a-z-]+)[^`]*`", commands)
        for heading, commands in re.findall(r"^- \[(.+?)\]\(#.+?\): (`.*)$", page, re.MULTILINE)
    }
    panels = run("--help").stdout.split("\n\n")[3:]
    shown = {
        heading.removesuffix(":"): re.findall(r"^  ([a-z-]+)  ", rows, re.MULTILINE)
        for heading, _, rows in (panel.partition("\n") for panel in panels)
    }
    assert list(shown)[-1] == "The broker's side"  # behind what is done every day
    assert {heading: sorted(commands) for heading, commands in shown.items()} == {
        heading: sorted(set(commands)) for heading, commands in listed.items()
    }
    assert shown["The broker's side"] == ["broker", "journal", "auth"]


def test_help_loads_nothing_that_only_tables_need() -> None:
    show = "import sys; from zloom.cli.app import app; app(['--help'], standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{show}; print(sorted({{'rich', 'msgspec', 'zmq'}} & sys.modules.keys()))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("option", ["--broker", "--timeout", "--json"])
def test_an_option_of_the_commands_that_stands_before_one_is_told_its_place(option: str) -> None:
    done = run(option, "tcp://gpu-1:5555", "ps")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"{option} stands behind a command: `zloom ps {option} …`"
