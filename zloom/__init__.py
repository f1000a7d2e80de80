"""zloom: a control plane for PyTorch training that is already running.

A trainer needs `Weavelet` (or `AsyncWeavelet`, or `zloom.lightning.WeaveletCallback`), an operator `connect`
(or `connect_sync`). Both load asyncio and ZeroMQ, a tenth of a second; so they are loaded at first use, and
what needs msgspec too: a module that only marks its methods with `on_config` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zloom.errors import (
    BrokerUnreachable,
    CannotSteer,
    CheckpointFailed,
    DeclarationError,
    HoldLimitExceeded,
    JournalError,
    KeyringError,
    LocalProtocolError,
    ProtocolError,
    RecordingError,
    Refused,
    RemoteProtocolError,
    SettingsError,
    TransportError,
    UndoError,
    UnknownMessageType,
    ZloomError,
)
from zloom.markers import on_command, on_config
from zloom.version import __version__

if TYPE_CHECKING:
    from msgspec import Meta

    from zloom.async_weavelet import AsyncWeavelet
    from zloom.client import Operator, Result, SyncOperator, connect, connect_sync
    from zloom.model import Ramp
    from zloom.process import QueueKey, weavelet_process
    from zloom.settings import ClientSettings, WeaveletSettings
    from zloom.weavelet import Weavelet

__all__ = [
    "AsyncWeavelet",
    "BrokerUnreachable",
    "CannotSteer",
    "CheckpointFailed",
    "ClientSettings",
    "DeclarationError",
    "HoldLimitExceeded",
    "JournalError",
    "KeyringError",
    "LocalProtocolError",
    "Meta",
    "Operator",
    "ProtocolError",
    "QueueKey",
    "Ramp",
    "RecordingError",
    "Refused",
    "RemoteProtocolError",
    "Result",
    "SettingsError",
    "SyncOperator",
    "TransportError",
    "UndoError",
    "UnknownMessageType",
    "Weavelet",
    "WeaveletSettings",
    "ZloomError",
    "__version__",
    "connect",
    "connect_sync",
    "on_command",
    "on_config",
    "weavelet_process",
]

_LATER = {
    "AsyncWeavelet": "zloom.async_weavelet",
    "ClientSettings": "zloom.settings",
    "Meta": "msgspec",
    "Operator": "zloom.client",
    "QueueKey": "zloom.process",
    "Ramp": "zloom.model",
    "Result": "zloom.client",
    "SyncOperator": "zloom.client",
    "Weavelet": "zloom.weavelet",
    "WeaveletSettings": "zloom.settings",
    "connect": "zloom.client",
    "connect_sync": "zloom.client",
    "weavelet_process": "zloom.process",
}
"""Where a name comes from that is loaded at first use."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'zloom' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
