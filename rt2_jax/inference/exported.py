"""Programs that outlive the process: exported (`jax.export`), compiled, kept in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax
import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

from rt2_jax.inference.program_files import read_program_file, write_program_file
from rt2_jax.training.agreement import code_version

_LOG = logging.getLogger("rt2_jax.inference")

_EXPORTED = "exported"
# Read while a function is traced. What XLA reads is in the names of JAX's own files.
_TRACED_WITH = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
    "jax_use_shardy_partitioner",
)


def default_folder() -> pathlib.Path:
    """Below the user's cache folder, `$XDG_CACHE_HOME` or `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "rt2_jax" / "programs"


class ProgramStore:
    """Programs that earlier starts have compiled, and those that this one compiles.

    A file holds a program as `jax.export` writes it, so that it isn't traced again, and what JAX's
    persistent compilation cache wrote when it was compiled. JAX itself reads and writes a folder
    of this process alone: its own files are neither hashed nor written at once.

    Several processes may use the folder at the same time. Whoever may write to it can run code in
    them.

    Args:
      folder: of the files; it is made, for this user alone, if it isn't there.
      devices: that the programs run on; by default the first one.

    Attributes:
      loaded: how many programs came from the folder.
      compiled: how many had to be compiled.

    Raises:
      OSError: the folder cannot be made, or not be written to.
    """

    def __init__(
        self, folder: str | pathlib.Path, devices: Sequence[jax.Device] | None = None
    ) -> None:
        self.folder = pathlib.Path(folder).expanduser()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise PermissionError(
                f"{self.folder}: compiled programs cannot be written there; give another "
                "--cache-dir, or --no-cache"
            )
        self.loaded = self.compiled = 0
        self._environment = _environment(jax.devices()[:1] if devices is None else devices)
        self._own: pathlib.Path | None = None  # where JAX reads and writes
        self._of_programs: set[str] = set()
        self._brought: set[str] = set()
        self._rest: Mapping[str, Any] = {}

    @contextlib.contextmanager
    def active(self, name: str = "") -> Iterator[None]:
        """Within it, whatever JAX compiles is looked for in the folder.

        Args:
          name: of the process's work, the same at each start: small programs that are compiled on
            the way, as to load weights, are kept under it by `keep_rest`.
        """
        if self._own is not None:
            yield
            return
        wanted = {
            "jax_enable_compilation_cache": True,
            "jax_compilation_cache_max_size": -1,
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
            # Their paths would be a part of each program, and so of its key.
            "jax_persistent_cache_enable_xla_caches": "none",
        }
        with tempfile.TemporaryDirectory(prefix="rt2_programs_") as own:
            wanted["jax_compilation_cache_dir"] = own
            before = {name: getattr(jax.config, name) for name in wanted}
            self._own, self._rest = pathlib.Path(own), {**self._environment, "rest": name}
            _configure(wanted)
            try:
                self._brought = set(self._read(self._rest) or ())
                yield
            finally:
                self._own = None
                _configure(before)

    def keep_rest(self) -> None:
        """Keeps what was compiled since `active` and is no `program`, for the next start."""
        assert self._own is not None
        rest = self._files() - self._of_programs
        if rest - self._brought:
            self._write(self._rest, {name: (self._own / name).read_bytes() for name in rest})

    def program(
        self, function: Callable[..., Any], arguments: Sequence[Any], identity: Mapping[str, Any]
    ) -> Callable[..., Any]:
        """A function compiled for these arguments, from the folder if it is there.

        Args:
          function: of arrays and trees of arrays.
          arguments: or their shapes; those of sharded arrays have their sharding.
          identity: plain JSON; with devices and versions all that decides the program.

        Returns:
          The function; it takes arguments of these shapes only.
        """
        with self.active():
            return self._program(function, arguments, {**self._environment, **identity})

    def _program(
        self, function: Callable[..., Any], arguments: Sequence[Any], identity: Mapping[str, Any]
    ) -> Callable[..., Any]:
        leaves, tree = jax.tree.flatten(tuple(arguments))
        parts = self._read(identity)
        found = parts is not None

        def flat(*leaves: Any) -> Any:
            return function(*jax.tree.unflatten(tree, leaves))

        parts = parts or _export(flat, leaves)
        if _EXPORTED in parts:
            flat = jax.export.deserialize(bytearray(parts[_EXPORTED])).call
        own, before = self._own, self._files()
        assert own is not None
        compiled = jax.jit(flat).lower(*leaves).compile()
        written = {name: (own / name).read_bytes() for name in self._files() - before}
        self._of_programs |= {*parts, *written}
        if found and not written:
            self.loaded += 1
        else:
            self.compiled += 1
            self._write(identity, {**parts, **written})
        return lambda *arguments: compiled(*jax.tree.leaves(arguments))

    def _files(self) -> set[str]:
        assert self._own is not None
        return {path.name for path in self._own.glob("*-cache")}

    def _read(self, identity: Any) -> dict[str, bytes] | None:
        """The parts of a file, those of JAX laid where JAX looks; None if there is none."""
        assert self._own is not None
        try:
            parts = read_program_file(self.folder, identity)
        except (OSError, ValueError) as error:
            _LOG.warning("%s; it is not used, and compiled anew", error)
            return None
        for name, part in (parts or {}).items():
            if name.endswith("-cache") and pathlib.PurePath(name).name == name:
                (self._own / name).write_bytes(part)
        return parts

    def _write(self, identity: Any, parts: Mapping[str, bytes]) -> None:
        try:
            write_program_file(self.folder, identity, parts)
        except OSError as error:  # a full disk is no reason not to serve
            _LOG.warning("a program cannot be kept for the next start: %s", error)


def _export(function: Callable[..., Any], leaves: Sequence[Any]) -> dict[str, bytes]:
    """A function as `jax.export` writes it; nothing where it cannot be written."""
    try:
        return {_EXPORTED: bytes(jax.export.export(jax.jit(function))(*leaves).serialize())}
    except Exception as error:  # a custom call, a type, a missing package: no error in common
        reason = " ".join(str(error).split())[:200]
        _LOG.warning("a program cannot be exported, so each start traces it again: %s", reason)
        return {}


def _configure(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def _environment(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """What decides all programs of this process, as plain JSON."""
    return {
        "versions": {
            "rt2_jax": code_version(),
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "flax": flax.__version__,
            "backend": devices[0].client.platform_version,
        },
        "devices": [[device.id, device.platform, device.device_kind] for device in devices],
        "processor": _processor() if devices[0].platform == "cpu" else "",
        "flags": {name: os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
        "traced_with": {name: str(getattr(jax.config, name, None)) for name in _TRACED_WITH},
    }


def _processor() -> str:
    """What programs for this CPU may use: another one may lack instructions."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    names = ("vendor_id", "model name", "flags", "Features", "CPU implementer", "CPU part")
    said = sorted({line for line in lines if line.partition(":")[0].strip() in names})
    return hashlib.sha256("\n".join(said).encode()).hexdigest()
