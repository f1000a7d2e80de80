"""Commands that decide who may connect on TCP, on the broker's host: `auth init`, `add`, `list`, `revoke`."""

import enum
from typing import Annotated

import typer

from zloom.cli.bounds import choice
from zloom.cli.options import AuthDir, Json

auth = typer.Typer(help="Keys: who may connect on TCP, and what he may do.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.", show_default=False)]


class RoleChoice(enum.StrEnum):
    """What a key is for."""

    OBSERVER = "observer"
    OPERATOR = "operator"
    WEAVELET = "weavelet"


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.add_typer(auth, name="auth")


@auth.command()
def init(auth_dir: AuthDir = None, as_json: Json = False) -> None:
    """Make the broker's key and an empty list of users, in a folder that only you can enter."""
    from zloom.cli import exits, output
    from zloom_broker.keyring import Keyring, default_auth_dir

    with exits.reported(as_json=as_json, serving=True):
        keyring = Keyring(auth_dir or default_auth_dir())
        keyring.init()
        key = keyring.broker_key().public_key
    if as_json:
        output.say_json({"folder": str(keyring.folder), "broker_key": key})
    else:
        output.say(
            f"the broker's keys are in {keyring.folder}; `zloom auth add NAME --role ROLE` gives out others"
        )


@auth.command()
def add(
    name: Name,
    role: Annotated[
        RoleChoice,
        typer.Option(
            "--role",
            metavar="|".join(RoleChoice),
            parser=choice("--role", RoleChoice),
            help="observer: sees. operator: changes too. weavelet: is steered, in a trainer.",
            show_default=False,
        ),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="PATTERN",
            help="Only this run, or with * at its end those that begin so; can be given several times.",
            show_default=False,
        ),
    ] = None,
    auth_dir: AuthDir = None,
    as_json: Json = False,
) -> None:
    """Give out a key; running brokers know it at once."""
    from zloom.cli import exits, output
    from zloom_broker.keyring import Keyring, default_auth_dir
    from zloom_broker.users import ALL_RUNS

    with exits.reported(as_json=as_json, serving=True):
        file = Keyring(auth_dir or default_auth_dir()).add(name, role.value, run or [ALL_RUNS])
    if as_json:
        output.say_json({"user": name, "role": role.value, "runs": run or [ALL_RUNS], "key": str(file)})
        return
    output.say(str(file))
    output.remark(
        f"move it to where {name} works, into a folder of mode 0700, and name it there in ZLOOM_KEY; "
        f"whoever has it is {name}"
    )


@auth.command(name="list")
def list_(auth_dir: AuthDir = None, as_json: Json = False) -> None:
    """Show who has a key, and for what."""
    from zloom.cli import exits, output
    from zloom_broker.keyring import Keyring, default_auth_dir

    with exits.reported(as_json=as_json, serving=True):
        users = list(Keyring(auth_dir or default_auth_dir()).users())
    if as_json:
        output.say_json(users)
        return
    rows = [(user.name, user.role, ", ".join(user.runs), user.public_key) for user in users]
    empty = "nobody has a key; `zloom auth add NAME --role ROLE` gives one out"
    output.show(output.Table(("NAME", "ROLE", "RUNS", "PUBLIC KEY"), rows, empty))


@auth.command()
def revoke(name: Name, auth_dir: AuthDir = None, as_json: Json = False) -> None:
    """Take a key back, at once: running brokers refuse it, from those who are connected too."""
    from zloom.cli import exits, output
    from zloom_broker.keyring import Keyring, default_auth_dir

    with exits.reported(as_json=as_json, serving=True):
        Keyring(auth_dir or default_auth_dir()).revoke(name)
    if as_json:
        output.say_json({"revoked": name})
    else:
        output.say(f"{name} is revoked, and the file of its key that was kept here is removed")
