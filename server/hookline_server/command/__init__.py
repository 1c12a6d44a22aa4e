"""The command language: text -> commands."""

from hookline_server.command.parser import Command, Loop, Statement, parse
from hookline_server.command.source import TEXT_MAX, CommandSyntaxError

__all__ = ["TEXT_MAX", "Command", "CommandSyntaxError", "Loop", "Statement", "parse"]
