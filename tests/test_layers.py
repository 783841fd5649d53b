"""Who may import whom: the table of ARCHITECTURE, kept true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src" / "perpwatch"
EVERYTHING = "*"
ONLY_IN = {
    "picows": ("feed/connection.py",),
    "aiohttp": ("feed/rest.py", "sim/server.py", "sim/bot_api.py", "sim/webhook.py", "alert/senders/", "app/"),
    "aiogram": ("alert/senders/telegram.py", "app/telegram_"),
    "apprise": ("alert/senders/apprise_process.py",),
    **dict.fromkeys(("matplotlib", "PIL"), ("alert/drawing.py", "app/lab_page.py")),
    **dict.fromkeys(("sqlalchemy", "sqlite3", "alembic", "psycopg"), ("store/",)),
}
PURE = (
    "exchanges/",
    *(f"feed/{name}.py" for name in ("session", "plan", "sweep", "heat", "handicap", "ladder", "budget", "breaker")),
    "market/",
    "detect/",
    *(f"alert/{name}.py" for name in ("policy", "desk", "outcomes", "operational", "routing", "pacing", "episodes")),
    *(f"alert/{name}.py" for name in ("card", "chart", "notice", "spelling", "texts")),
    *(f"app/{name}.py" for name in ("engine", "analysis", "channel_outbox")),
)
IMPURE = {"asyncio", "time", "random"}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def table() -> dict[str, set[str]]:
    """What each package may import, as ARCHITECTURE says: ``| `package` | `others` or words | its secret |``."""
    section = (ROOT.parent.parent / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("\n## Who knows what\n")[2]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \| .* \|$", section.partition("\n## ")[0], re.MULTILINE)
    return {
        package: {EVERYTHING} if allowed.startswith("everything") else set(re.findall(r"`(.*?)`", allowed))
        for packages, allowed in rows
        for package in re.findall(r"`(.*?)`", packages)
    }


def test_every_module_imports_only_what_its_layer_may() -> None:
    may_import = table() | {"__init__": {EVERYTHING}}
    assert may_import["detect"] == {"model", "errors", "figures", "market"}
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        layer = file.removesuffix(".py").partition("/")[0]
        allowed = may_import[layer] | {layer}
        for name in imports(path):
            package, _, inner = name.partition(".")
            if package == "perpwatch" and EVERYTHING not in allowed:
                is_allowed = any(inner == one or inner.startswith(f"{one}.") for one in allowed)
            else:
                is_allowed = not inner.startswith("app.") or layer in ("app", "client", "__init__")
            is_allowed &= package not in ONLY_IN or file.startswith(ONLY_IN[package])
            is_allowed &= package not in IMPURE or not file.startswith(PURE)
            if not is_allowed:
                wrong.append(f"{file} imports {name}")
    assert wrong == []
