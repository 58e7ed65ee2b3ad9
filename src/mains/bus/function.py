"""Python functions as devices: `@mains.device`.

    @mains.device(read_only=True)
    def weather(city: str) -> str:
        \"\"\"The weather of a city.\"\"\"
        ...

The function's name is the device's and its one tool's; its docstring is the description; its annotations are the
schema. A plain function runs in a thread. What it returns is text, or is written as JSON. An exception tells the model
that the effect did not happen; raise `DeviceError` when nobody knows whether it did.

`read_only` and `idempotent` are the user's word: such a call is repeated after a crash without asking.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from mains.errors import ConfigError, DeviceError
from mains.kernel.ports import CallContext, Done, Failed, Schema, Tool

_THREADS_MAX = 64  # as many as `device_calls_max` lets be in flight


class FunctionDevice:
    """A device made of one function. A parameter named `context` gets the CallContext and is not shown to the model."""

    def __init__(self, function: Callable[..., Any], *, read_only: bool = False, idempotent: bool = False) -> None:
        self.name = function.__name__
        self._function = function
        self._arguments = _struct_of(function)
        self._threads: ThreadPoolExecutor | None = None  # its own: one that hangs takes none from anybody else
        self._wants_context = "context" in inspect.signature(function).parameters
        if not self.name.isidentifier():
            raise ConfigError(f"device `{self.name}`: a function with a name is needed, for grants to name it")
        self._tool = Tool("", inspect.getdoc(function) or self.name, _schema_of(self._arguments), read_only, idempotent)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself: a device can still be called from Python."""
        return self._function(*args, **kwargs)

    def tools(self) -> Sequence[Tool]:
        """The one tool."""
        return [self._tool]

    async def call(self, tool: str, arguments: Mapping[str, Any], context: CallContext) -> Done | Failed:
        """Call the function. Raises DeviceError when the function does."""
        try:
            given = msgspec.structs.asdict(msgspec.convert(dict(arguments), self._arguments))
        except msgspec.ValidationError as error:
            return Failed(f"the arguments do not fit: {error}")
        if self._wants_context:
            given["context"] = context
        work = asyncio.ensure_future(self._run(given))
        try:
            await asyncio.wait([work])
        finally:
            work.cancel()
        if work.cancelled():
            raise DeviceError(f"{self.name}: it broke off")
        fault = work.exception()
        if isinstance(fault, DeviceError):
            raise fault
        if fault is not None:
            return Failed(f"{type(fault).__name__}: {fault}")
        value = work.result()
        if isinstance(value, Done | Failed):
            return value
        return Done(value if isinstance(value, str) else msgspec.json.encode(value).decode())

    async def _run(self, given: dict[str, Any]) -> Any:
        try:
            if inspect.iscoroutinefunction(self._function):
                return await self._function(**given)
            self._threads = self._threads or ThreadPoolExecutor(_THREADS_MAX, f"device {self.name}")
            work = functools.partial(contextvars.copy_context().run, self._function, **given)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except SystemExit as leave:  # a function must not end the kernel
            return Failed(f"SystemExit: {leave}")

    async def close(self) -> None:
        """Start nothing more (until the next kernel calls); a function that still runs is left to its end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


@typing.overload
def device(function: Callable[..., Any], /) -> FunctionDevice: ...
@typing.overload
def device(*, read_only: bool = False, idempotent: bool = False) -> Callable[[Callable[..., Any]], FunctionDevice]: ...
def device(
    function: Callable[..., Any] | None = None, /, *, read_only: bool = False, idempotent: bool = False
) -> FunctionDevice | Callable[[Callable[..., Any]], FunctionDevice]:
    """Make a device of a function, with or without arguments. Raises ConfigError for a signature without types."""
    if function is not None:
        return FunctionDevice(function)
    return lambda f: FunctionDevice(f, read_only=read_only, idempotent=idempotent)


def _struct_of(function: Callable[..., Any]) -> type[msgspec.Struct]:
    hints = typing.get_type_hints(function)
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "context":
            continue
        if name not in hints or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"device `{function.__name__}`: the parameter `{name}` needs a type, and to be given by name"
            )
        fields.append((name, hints[name], *_default_of(parameter)))
    return msgspec.defstruct(f"{function.__name__}_arguments", fields, forbid_unknown_fields=True, kw_only=True)


def _default_of(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """The default as msgspec wants it: what can change is made anew for each call."""
    value = parameter.default
    if value is parameter.empty:
        return ()
    if isinstance(value, list | dict | set | bytearray):
        return (msgspec.field(default_factory=functools.partial(copy.deepcopy, value)),)
    return (value,)


def _schema_of(struct: type[msgspec.Struct]) -> Schema:
    try:
        schema = msgspec.json.schema(struct)
    except TypeError as error:
        name = struct.__name__.removesuffix("_arguments")
        raise ConfigError(f"device `{name}`: a parameter's type has no JSON: {str(error).splitlines()[-1]}") from error
    definitions: Schema = schema["$defs"]
    own: Schema = definitions.pop(struct.__name__)
    own.pop("title", None)
    return own | ({"$defs": definitions} if definitions else {})
