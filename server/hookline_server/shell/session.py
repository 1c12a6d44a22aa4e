"""A session of the shell: it reads texts, has a server run them, shows results, and remembers what they bind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterable, Iterator
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import print_formatted_text

from hookline.errors import HooklineError, OutcomeUnknown, Unavailable
from hookline.transport import Http
from hookline_server import remote
from hookline_server.command import Command, CommandSyntaxError, Statement, parse
from hookline_server.command.names import Names
from hookline_server.command.source import did_you_mean
from hookline_server.command.verbs import VERBS
from hookline_server.shell.colours import STYLE, CommandLexer
from hookline_server.shell.completion import CommandCompleter
from hookline_server.shell.heads import HEADS, LOOP
from hookline_server.shell.history import open_history
from hookline_server.shell.reading import is_whole
from hookline_server.table import plain

PROMPT, CONTINUED = "hookline> ", "        | "

HELP = """\
Write a command and press Enter; fields that stand one a line are ended by an empty line, a loop by 'end'.
Alt+Enter begins a new line anywhere, Tab completes, Ctrl-R searches the history, Ctrl-C drops what is written.

  help, or help and a verb    table, or json: how results are shown    exit, or Ctrl-D
"""


class Shell:
    """One session with one server; results are shown as ``table`` or ``json``."""

    def __init__(self, server: Http, output: str) -> None:
        self._server = server
        self._output = output
        self._names = Names()
        self._keys: list[str] = []
        self._looking: asyncio.Task[None] | None = None
        self._sending: asyncio.Future[remote.Answer] | None = None
        self._interrupted = False
        self._session: PromptSession[str] = PromptSession(
            FormattedText([("class:prompt", PROMPT)]),
            multiline=True,
            prompt_continuation=FormattedText([("class:prompt", CONTINUED)]),
            history=open_history(),
            lexer=CommandLexer(),
            completer=CommandCompleter(lambda: self._keys, lambda: self._names.values),
            complete_while_typing=False,
            key_bindings=self._bindings(),
            style=STYLE,
        )

    async def run(self) -> None:
        """Read and run texts until ``exit`` or Ctrl-D."""
        # At the prompt Ctrl-C is a key; what follows it must find this handler in place.
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        if task:
            for signum in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(signum, task.cancel)
        self._say(f"Hookline at {self._server.url}. 'help' lists the commands.", "notice")
        try:
            self._note_keys(await self._interruptible("show keys", {}))
        except (Unavailable, OutcomeUnknown) as error:
            self._say(f"{error}: start one with 'hookline serve', or name its --url", "error")
        while True:
            self._interrupted = False
            try:
                text = await self._session.prompt_async(handle_sigint=False)
            except KeyboardInterrupt:
                continue
            except EOFError:
                break
            if text.strip().lower() in ("exit", "quit"):
                break
            await self._take(text)
        if self._looking:
            self._looking.cancel()

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        @Condition
        def sends() -> bool:
            document = get_app().current_buffer.document
            return not document.text_after_cursor.strip() and self._is_whole(document.text)

        @bindings.add("enter", filter=sends)
        def send(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @bindings.add("escape", "enter")
        def begin_line(event: KeyPressEvent) -> None:
            event.current_buffer.newline()

        return bindings

    def _is_whole(self, text: str) -> bool:
        return _words_for_the_shell(text) or is_whole(text, self._names.values)

    async def _take(self, text: str) -> None:
        """Do what a text says, or say what is wrong with it."""
        words = text.split()
        if not words:
            return
        if words[0].lower() == "help":
            self._help(" ".join(words[1:]).lower())
        elif text.strip().lower() in ("table", "json"):
            self._output = text.strip().lower()
        else:
            try:
                statements = parse(text, self._names.values)
                await self._send(text, statements)
            except CommandSyntaxError as error:
                self._say(f"{error}\n{_indented(error.excerpt)}", "error")
            except HooklineError as error:
                self._say(str(error), "error")

    async def _send(self, text: str, statements: list[Statement]) -> None:
        used = {name: self._names.values[name] for name in _roots(statements) if name in self._names.values}
        answer = await self._interruptible(text, used)
        if answer is None:
            self._say("no longer waited for; what was sent may still take effect", "notice")
            return
        for result in answer.results:
            self._say(remote.show(result, self._output).rstrip("\n"))
        done = answer.results[: answer.problem.get("index", 0)] if answer.problem else answer.results
        for statement, result in zip(statements, done, strict=False):
            if isinstance(statement, Command):
                self._names.take(statement, result)
        if answer.problem:
            self._say(remote.explain(answer.problem, text), "error")
        self._looking = asyncio.ensure_future(self._look_for_keys())

    async def _interruptible(self, text: str, names: dict[str, Any]) -> remote.Answer | None:
        """The answer to a text, or None where Ctrl-C did not wait for it."""
        if self._interrupted:
            return None
        self._sending = asyncio.ensure_future(remote.send(self._server, text, names))
        try:
            return await self._sending
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            return None
        finally:
            self._sending = None

    def _interrupt(self) -> None:
        self._interrupted = True
        if self._sending:
            self._sending.cancel()

    async def _look_for_keys(self) -> None:
        with contextlib.suppress(HooklineError):
            self._note_keys(await remote.send(self._server, "show keys", {}))

    def _note_keys(self, answer: remote.Answer | None) -> None:
        if answer and answer.results:
            self._keys = [row["key"] for row in answer.results[0]["keys"]]

    def _help(self, verb: str) -> None:
        heads_of = {**HEADS, "for each": (LOOP,)}
        shown = {name: heads for name, heads in heads_of.items() if name == verb or name.split()[0] == verb}
        if verb and not shown:
            near = did_you_mean(verb, {*heads_of, *(name.split()[0] for name in heads_of)})
            self._say(f"there is no verb '{plain(verb)}'{near and f': {near}'}; 'help' lists them", "error")
        elif not shown:
            every = (*(head for heads in HEADS.values() for head in heads), LOOP)
            self._say("\n".join([HELP, *(f"  {head}" for head in every)]))
        for name, heads in shown.items():
            fields = (
                f"  {field}: {kind}{' (required)' if field in VERBS[name].required else ''}"
                for field, kind in (VERBS[name].fields.items() if name in VERBS else ())
            )
            self._say("\n".join([*heads, *fields]))

    def _say(self, text: str, style: str = "") -> None:
        print_formatted_text(FormattedText([(f"class:{style}" if style else "", text)]), style=STYLE)


def _words_for_the_shell(text: str) -> bool:
    return text.strip().lower() in ("exit", "quit", "table", "json") or text.split()[:1] == ["help"]


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _roots(statements: Iterable[Statement]) -> Iterator[str]:
    """The names that a text uses."""
    for statement in statements:
        if isinstance(statement, Command):
            yield from (placeholder.root for placeholder in statement.placeholders)
        else:
            yield statement.over.root
            yield from _roots(statement.body)
