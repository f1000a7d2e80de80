"""Which module may import which: the layers of docs/architecture.md, and nothing across them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"zloom": ROOT / "zloom", "zloom_broker": ROOT / "broker" / "zloom_broker"}

_PURE = """
    zloom.agreement zloom.codec zloom.credit zloom.declarations zloom.digests zloom.effects
    zloom.errors zloom.gaps zloom.handlers zloom.history zloom.mailbox zloom.markers
    zloom.messages zloom.model zloom.oldest zloom.outcome_table zloom.pace zloom.parting zloom.pause
    zloom.promises zloom.ramps zloom.recording zloom.replay_schedule zloom.restoring
    zloom.rounds zloom.schedule zloom.schema zloom.series zloom.session zloom.session_effects
    zloom.session_link zloom.session_reports zloom.session_rounds zloom.session_state
    zloom.session_updates zloom.settlement zloom.socket_outbox zloom.stacks zloom.transcript
    zloom.updates_address zloom.version zloom.visibility zloom.words
    zloom.client.effects zloom.client.prelude zloom.client.requests zloom.client.results
    zloom.client.session zloom.client.subscriptions
    zloom_broker zloom_broker.addresses zloom_broker.attempt zloom_broker.blocks
    zloom_broker.catchup zloom_broker.chain zloom_broker.changes zloom_broker.chronicle
    zloom_broker.commits zloom_broker.conclusions zloom_broker.core zloom_broker.declarations
    zloom_broker.departures zloom_broker.desired
    zloom_broker.device_rules zloom_broker.device_troubles zloom_broker.effects
    zloom_broker.errands zloom_broker.failures zloom_broker.followers zloom_broker.greeting
    zloom_broker.guard_conditions zloom_broker.guard_ends zloom_broker.guard_grammar
    zloom_broker.guard_watch zloom_broker.guards zloom_broker.held zloom_broker.hub
    zloom_broker.inheritance zloom_broker.inspection zloom_broker.joins
    zloom_broker.ledger zloom_broker.ledgers zloom_broker.liveness zloom_broker.load zloom_broker.membership
    zloom_broker.newcomers zloom_broker.outcomes zloom_broker.owed zloom_broker.own_topics zloom_broker.parts
    zloom_broker.permissions zloom_broker.previews zloom_broker.pulse zloom_broker.queries
    zloom_broker.ramping zloom_broker.records zloom_broker.requests zloom_broker.rounds zloom_broker.rules
    zloom_broker.state zloom_broker.steering zloom_broker.straggling zloom_broker.subscriptions
    zloom_broker.tail zloom_broker.tentative zloom_broker.traces zloom_broker.undecided zloom_broker.users
    zloom_broker.validation zloom_broker.watchers zloom_broker.welcomes zloom_broker.withdrawals
    zloom_broker.zap
"""
PURE = frozenset(_PURE.split())
"""No sockets, files, threads, clock, randomness or log; time is an argument. They import each other only."""

_SHELLS = """
    zloom zloom.__main__ zloom.async_weavelet zloom.bell zloom.bounded_calls zloom.cuda_copies
    zloom.declaring
    zloom.delivery
    zloom.device_watch zloom.devices zloom.edge_reader zloom.endpoints zloom.engine zloom.forks
    zloom.handshakes zloom.hold_watch zloom.introduction zloom.launch zloom.leaving zloom.metrics
    zloom.process
    zloom.recording_file zloom.security zloom.session_sockets zloom.settings zloom.socket_errors
    zloom.socket_frames zloom.socket_options zloom.socket_sender zloom.sockets
    zloom.native_threads zloom.readings zloom.stack_source zloom.stack_timer zloom.status_source
    zloom.steerable zloom.stop_signals
    zloom.store_register zloom.training zloom.weavelet
    zloom.client zloom.client.answers zloom.client.attempts zloom.client.blocking
    zloom.client.caller zloom.client.changes zloom.client.commands zloom.client.feeds
    zloom.client.link zloom.client.operator zloom.client.previews zloom.client.questions
    zloom.client.recorder zloom.client.replaying zloom.client.stacks zloom.client.waiting
    zloom_broker.admission zloom_broker.disk_watch zloom_broker.foreground zloom_broker.keyring
    zloom_broker.log zloom_broker.measuring zloom_broker.metrics_port zloom_broker.ports
    zloom_broker.recovery zloom_broker.server zloom_broker.settings zloom_broker.snapshots
"""
SHELLS = frozenset(_SHELLS.split())
"""What touches the world."""

SHELL_PACKAGES = ("zloom.cli", "zloom.lightning", "zloom.torch", "zloom.transformers", "zloom_broker.journal")
"""Packages of which every module is a shell."""

PURE_MAY_IMPORT = {
    "__future__",
    "abc",
    "array",
    "bisect",
    "collections",
    "contextlib",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "inspect",
    "heapq",
    "itertools",
    "jsonschema",
    "math",
    "msgspec",
    "operator",
    "re",
    "statistics",
    "types",
    "typing",
    "weakref",
}
"""Of what is not zloom's own: nothing that does I/O or differs from one call to the next."""

ONLY_FOR = {
    "jsonschema": ("zloom_broker.validation",),
    "lightning": ("zloom.lightning",),
    "platformdirs": ("zloom.endpoints", "zloom_broker.keyring", "zloom_broker.settings"),
    "prometheus_client": ("zloom_broker.metrics_port",),
    "pynvml": ("zloom.devices",),
    "rich": ("zloom.cli",),
    "sqlite3": ("zloom_broker.journal",),
    "torch": ("zloom.lightning", "zloom.torch", "zloom.transformers"),
    "transformers": ("zloom.transformers",),
    "typer": ("zloom.cli",),
    "zmq": (
        "zloom.endpoints",
        "zloom.handshakes",
        "zloom.security",
        "zloom.socket_errors",
        "zloom.socket_frames",
        "zloom.socket_options",
        "zloom.socket_sender",
        "zloom.sockets",
    ),
    "zloom.cli": ("zloom.__main__", "zloom.cli"),
    "zloom.lightning": ("zloom.lightning",),
    "zloom.torch": ("zloom.lightning", "zloom.torch", "zloom.transformers"),
    "zloom.transformers": ("zloom.transformers",),
    "zloom_broker": ("zloom_broker", "zloom.cli"),
    "tests": (),
    "examples": (),
    "bench": (),
}
"""Who alone may import what: modules, or packages with all that is in them."""

FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval"}
"""I/O that needs no import."""

LIGHT = (
    "torch",
    "lightning",
    "transformers",
    "typer",
    "rich",
    "jsonschema",
    "zloom_broker",
    "sqlite3",
    "matplotlib",
    "numpy",
)
"""What no name of `zloom` may load: a trainer pays for it, in every rank."""

AT_FIRST_USE = ("asyncio", "msgspec", "zmq")
"""What `import zloom` must not load either."""


def _modules() -> dict[str, Path]:
    found = {}
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = _modules()


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _imports(module: str, tree: ast.AST, *, is_package: bool) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*up, *([base] if base else [])])
            # `from zloom import codec` imports a module, `from zloom.codec import encode` a name.
            names = (f"{base}.{alias.name}" for alias in node.names)
            yield from ((node, name if name in MODULES else base) for name in names)


def _is_pure(module: str) -> bool:
    return module in PURE


def _is_own(module: str) -> bool:
    return _is_in(module, tuple(SOURCES))


def _complaint(module: str, imported: str, *, lazy: bool) -> str | None:
    for guarded, users in ONLY_FOR.items():
        if _is_in(imported, (guarded,)) and not _is_in(module, users):
            return f"only {' and '.join(users) or 'nobody'} may import {guarded}"
    if _is_in(imported, ("zloom_broker",)) and not _is_in(module, ("zloom_broker",)) and not lazy:
        return "import it inside the function that needs it: most commands do not"
    if not _is_pure(module):
        return None
    if _is_own(imported):
        return None if _is_pure(imported) else f"{module} is pure and {imported} is not"
    if imported.partition(".")[0] not in PURE_MAY_IMPORT:
        return f"{module} is pure: take the time, the randomness or the effect as an argument"
    return None


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return what a module imports or calls though it must not."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    found = []
    for node, imported in _imports(module, tree, is_package=is_package):
        complaint = _complaint(module, imported, lazy=id(node) in inside)
        if complaint is not None:
            found.append(f"{module}:{node.lineno} imports {imported}: {complaint}")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_pure(module)]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id in FORBIDDEN_CALLS:
            found.append(f"{module}:{call.lineno} calls {call.func.id}(), but is pure")
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_imports_across_its_layer(module: str) -> None:
    path = MODULES[module]
    assert violations(module, path.read_text(), is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_each_module_is_classified(module: str) -> None:
    places = [module in PURE, module in SHELLS, _is_in(module, SHELL_PACKAGES)]
    assert sum(places) == 1, (
        f"{module} must be in one list of {Path(__file__).name}, and is in {sum(places)}: add it to PURE if "
        "it neither reads a clock nor touches sockets, files, threads or logs, and to SHELLS otherwise"
    )


def test_what_is_classified_exists() -> None:
    gone = (PURE | SHELLS) - MODULES.keys()
    assert not gone, f"remove {', '.join(sorted(gone))} from the lists of {Path(__file__).name}"


CAUGHT = [
    ("zloom.codec", "import asyncio", "take the time"),
    ("zloom.codec", "import os.path", "take the time"),
    ("zloom.codec", "from datetime import datetime", "take the time"),
    ("zloom.codec", "def now():\n    import time", "take the time"),
    ("zloom.codec", "from zloom import sockets", "zloom.sockets is not"),
    ("zloom.codec", "from . import sockets", "zloom.sockets is not"),
    ("zloom.codec", "from .sockets import DrainSocket", "zloom.sockets is not"),
    ("zloom.codec", "print(open('file'))", r"calls print\(\)"),
    ("zloom_broker.core", "import zmq", "only zloom.endpoints"),
    ("zloom_broker.server", "import zmq", "only zloom.endpoints"),
    (
        "zloom.client.link",
        "def f():\n    import torch.nn",
        "may import torch",
    ),
    ("zloom.client.link", "def f():\n    import zloom_broker.core", "only zloom_broker and zloom.cli"),
    ("zloom.cli", "import zloom_broker", "inside the function"),
    ("zloom.client.link", "import zloom.cli", "and zloom.cli may"),
    ("zloom.client.link", "from tests.support import running_broker", "nobody may import tests"),
    ("zloom_broker.server", "from zloom.lightning import steer", "only zloom.lightning"),
]


@pytest.mark.parametrize(("module", "source", "complaint"), CAUGHT, ids=[f"{m}: {s}" for m, s, _ in CAUGHT])
def test_a_forbidden_import_is_caught(module: str, source: str, complaint: str) -> None:
    assert re.search(complaint, "\n".join(violations(module, source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("zloom.codec", "from zloom import messages\nfrom .errors import ZloomError\nimport msgspec.msgpack"),
        ("zloom.cli.run", "def broker():\n    from zloom_broker.server import run"),
        ("zloom.lightning.steer", "import torch\nfrom zloom.mailbox import Mailbox"),
        ("zloom_broker.server", "import asyncio, time\nfrom zloom.sockets import DrainSocket"),
    ],
)
def test_an_allowed_import_is_not(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(
    ("use", "unwanted"),
    [("", (*LIGHT, *AT_FIRST_USE)), ("[getattr(zloom, name) for name in zloom.__all__]", LIGHT)],
    ids=["import", "all names"],
)
def test_importing_zloom_loads_nothing_heavy(use: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, zloom\n{use}\nprint(*(name for name in {unwanted!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
