"""A file of rules that is watched while perpwatch runs."""

from __future__ import annotations

from pathlib import Path

from perpwatch.detect.rules import Rule, read_rules
from perpwatch.errors import ConfigurationError


class RulesFile:
    """Reads the rules, and again whenever the file has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None

    def read(self) -> tuple[Rule, ...]:
        """
        Raises:
            ConfigurationError: a file that cannot be read, or a wrong rule.
        """
        try:
            status = self.path.stat()
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError("rules", str(self.path), f"a TOML file that can be read ({error})") from error
        self._stamp = status.st_mtime_ns, status.st_size
        return read_rules(text, str(self.path))

    def changed(self) -> tuple[Rule, ...] | None:
        """The rules when the file is another than at the last look, else None; to be asked every second or so.

        Raises:
            ConfigurationError: the new rules are wrong; told once, the old ones should stay in force.
        """
        try:
            status = self.path.stat()
        except OSError:
            return None  # an editor replaces it just now
        if (status.st_mtime_ns, status.st_size) == self._stamp:
            return None
        self._stamp = status.st_mtime_ns, status.st_size
        return self.read()
