"""The keys of one training: declared on a weavelet, remembered in its checkpoints."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from typing import Any

from zloom.errors import CannotSteer
from zloom.markers import CommandMarker, ConfigMarker, find_marked
from zloom.torch.base import Steer, Undo, Window
from zloom.weavelet import Weavelet

# Kept in a checkpoint of the optimizer and its schedulers.
_IN_THE_OPTIMIZER = frozenset({"learning_rate", "weight_decay", "momentum"})

# What must be as it was before the optimizer is restored, or a Trainer checks the epoch.
_BEFORE_RESTORE = frozenset({"optimizer_type", "max_epochs", "max_steps"})


class Keys:
    """Every key that a training can steer: those of this list, and those that methods are marked for.

    A marked method takes the place of the key of the same name.

    Args:
        subject: What the keys steer.
        position: Where the loop stands, kept by whoever runs it.
        steers: The keys, in the order in which those of one update run.
        owner: Whose marked methods are keys too; None for nobody.
    """

    def __init__(
        self, subject: Any, position: Window, steers: Iterable[Steer[Any, Any]], owner: object = None
    ) -> None:
        self._position = position
        self._subject = subject
        self._steers = {steer.name: steer for steer in steers}
        self._marked = _marked_keys(owner)
        self._steered: dict[str, dict[str, Any]] = {}

    def declare(self, weavelet: Weavelet) -> None:
        """Declare all keys, with the values now as baselines. Call when optimizer and loader are there."""
        for name, steer in self._steers.items():
            weavelet.on_config(
                name,
                get=partial(steer.get, self._subject),
                type=steer.declared_type(self._subject),
                description=steer.description,
                ready=partial(self._is_ready, steer),
            )(partial(self._apply, name))
        # One that is declared again keeps its place: a module's own optimizer_type runs before the rate too.
        for name, (marker, method) in self._marked.items():
            weavelet.on_config(
                name,
                get=partial(self._baseline, name),
                description=marker.description,
                ready=partial(self._is_marked_ready, name),
            )(self._like(method, name))

    @property
    def steered(self) -> dict[str, dict[str, Any]]:
        """What was steered, for a checkpoint: by key, the value and the one that stood in its place."""
        return {name: dict(entry) for name, entry in self._steered.items()}

    def resume_before_restore(self, steered: Mapping[str, Mapping[str, Any]]) -> None:
        """Repeat what a checkpoint's optimizer depends on, before it is restored.

        Raises:
            CannotSteer: A value of the checkpoint is impossible now; the optimizer could not be restored.
        """
        self._steers["optimizer_type"].get(self._subject)
        self._repeat({name: entry for name, entry in steered.items() if name in _BEFORE_RESTORE})

    def resume(self, steered: Mapping[str, Mapping[str, Any]]) -> None:
        """Repeat the rest, save for what was restored with the optimizer.

        Raises:
            CannotSteer: A value of the checkpoint is impossible now.
        """
        rest = {name: entry for name, entry in steered.items() if name not in _BEFORE_RESTORE}
        restored = {name: dict(entry) for name, entry in rest.items() if name in self._restored_elsewhere}
        self._steered.update(restored)
        self._repeat({name: entry for name, entry in rest.items() if name not in restored})

    @property
    def _restored_elsewhere(self) -> frozenset[str]:
        return _IN_THE_OPTIMIZER - self._marked.keys()

    def _repeat(self, steered: Mapping[str, Mapping[str, Any]]) -> None:
        for name, entry in steered.items():
            known = name in self._steers or name in self._marked
            # Where the program now says something else than it did, its author has the last word. The type of
            # the optimizer is no such choice: the checkpoint's state is of the type that was steered to.
            if known and (name == "optimizer_type" or self._value(name) == entry["before"]):
                self._apply_again(name, entry["value"])
                self._steered[name] = dict(entry)

    def _apply_again(self, name: str, value: Any) -> None:
        try:
            self._apply(name, value)
        except CannotSteer as error:
            raise CannotSteer(f"{name} cannot be {value!r} again, as in the checkpoint: {error}") from error

    def _value(self, name: str) -> Any:
        if name not in self._marked:
            return self._steers[name].get(self._subject)
        marker, method = self._marked[name]
        owner = method.__self__  # type: ignore[attr-defined]
        return marker.get(owner) if marker.get is not None else marker.initial

    def _baseline(self, name: str) -> Any:
        # What `initial` says was true when the program began; a checkpoint may have repeated another value.
        resumed = self._steered.get(name)
        return self._value(name) if resumed is None else resumed["value"]

    def _apply(self, name: str, value: Any) -> Undo | None:
        before = self._steered.get(name, {"before": self._value(name)})["before"]
        undo = self._change(name, value)
        noted = self._steered.get(name)
        self._steered[name] = {"value": value, "before": before}
        if undo is None:
            return None

        def take_back() -> None:
            undo()
            self._steered.pop(name)
            if noted is not None:
                self._steered[name] = noted

        steer = self._steers.get(name)
        if steer is not None and name not in self._marked:
            take_back.detail = steer.note(self._subject)  # type: ignore[attr-defined]
        return take_back

    def _like(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        # Its annotation, from which the key's type is read, is the method's.
        @wraps(method)
        def handler(value: Any) -> Undo | None:
            return self._apply(name, value)

        return handler

    def _change(self, name: str, value: Any) -> Undo | None:
        if name not in self._marked:
            return self._steers[name].apply(self._subject, value)
        undo = self._marked[name][1](value)
        return undo if callable(undo) else None

    def _is_ready(self, steer: Steer[Any, Any], value: Any) -> bool:
        # What will be refused need not wait for its place.
        return steer.unsupported(self._subject) is not None or steer.ready(self._position, value)

    def _is_marked_ready(self, name: str, value: Any) -> bool:
        marker, method = self._marked[name]
        if marker.ready is not None:
            return marker.ready(method.__self__, value)  # type: ignore[attr-defined]
        steer = self._steers.get(name)
        return steer is None or steer.ready(self._position, value)


def declare_marked_commands(weavelet: Weavelet, owner: object) -> None:
    """Declare the commands that methods of `owner` are marked for; one takes the place of the same name."""
    for marker, method in find_marked(owner):
        if isinstance(marker, CommandMarker):
            weavelet.on_command(marker.name, description=marker.description)(method)


def _marked_keys(owner: object) -> dict[str, tuple[ConfigMarker, Callable[..., Any]]]:
    return {
        marker.key: (marker, method)
        for marker, method in find_marked(owner)
        if isinstance(marker, ConfigMarker)
    }
