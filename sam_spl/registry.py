"""Objects by name, and a user's own by where they stand: ``module:object`` or ``file.py:object``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from sam_spl.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """The choices for one configuration key. Adding one is registering one object.

    Args:
        key: the configuration key whose values these are, for messages.
        entries: what there is from the start.

    Looking up ``module:object`` imports it. Such a name has to come from the command line or from Python
    code, never from a file: :func:`is_reference` tells them apart. Where all entries can be called, what it
    imports has to be callable as well.
    """

    def __init__(self, key: str, entries: Mapping[str, T] | None = None) -> None:
        self.key = key
        self._entries: dict[str, T] = dict(entries or {})

    def register(self, name: str, entry: T) -> T:
        """Add an entry under a name of its own.

        Raises:
            ConfigError: the name is taken, or looks like a reference.
        """
        if name in self._entries and self._entries[name] is not entry:
            raise ConfigError(f"{self.key}: {name!r} is registered already. Choose another name.")
        if is_reference(name) or not name:
            raise ConfigError(f"{self.key}: {name!r} is not a name. Use letters, digits and underscores.")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        if is_reference(name):
            found = import_object(name, self.key)
            if not callable(found) and all(map(callable, self._entries.values())):
                raise ConfigError(f"{self.key}: {name!r} is not callable. Give a function or a class.")
            return found
        raise ConfigError(f"{self.key}: {name!r} is unknown. Nearest: {nearest(name, self._entries)}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def is_reference(name: str) -> bool:
    """Whether a name says where an object stands, instead of what it is registered as."""
    return ":" in name


def import_object(reference: str, key: str) -> Any:
    """The object that ``module:object`` or ``file.py:object`` means.

    A process that did not import the file itself cannot unpickle objects of its classes: loader processes
    that are spawned and not forked (``num_workers`` above 0) need ``module:object``.

    Raises:
        ConfigError: the reference has another form, or there is no such module, file or object.
    """
    where, _, name = reference.rpartition(":")
    is_file = where.endswith(".py")
    if not name.isidentifier() or not (is_file or all(part.isidentifier() for part in where.split("."))):
        raise ConfigError(f"{key}: {reference!r} is not valid. Give module:object or path/to/file.py:object.")
    try:
        module = _from_file(Path(where).expanduser()) if is_file else importlib.import_module(where)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{where}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks something itself
        raise ConfigError(
            f"{key}: {where!r} in {reference!r} cannot be imported ({error}). Give module:object with the "
            "module's folder in PYTHONPATH, or path/to/file.py:object."
        ) from error
    if not hasattr(module, name):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigError(f"{key}: {where} has no {name!r}. Nearest: {nearest(name, names)}")
    return getattr(module, name)


def _from_file(path: Path) -> Any:
    path = path.resolve()
    name = f"sam_spl_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"  # in any process
    if name not in sys.modules:
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # forked loader processes find it there again
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
