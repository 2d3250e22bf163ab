"""What mkdocs takes from the code and from elsewhere in the repository: a hook, see mkdocs.yml."""

from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from contextseg.cli import app
from contextseg.settings import METHOD_SECTIONS, Section, Settings, described

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CHANGELOG.md", "benchmarks/RESULTS.md", "benchmarks/LOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and those that the code says."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "cli.md", content=command_line()))
    files.append(File.generated(config, "settings.md", content="# Settings\n\n" + "\n".join(settings_rows())))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the pages that lie elsewhere lead to their copies."""
    for name in OUTSIDE:
        markdown = markdown.replace(f"](../{name})", f"]({name})")
    return markdown


def command_line() -> str:
    """Return what every command's ``--help`` says, as Markdown."""
    command = typer.main.get_command(app)
    return str(get_docs_for_click(obj=command, ctx=typer.Context(command), name="contextseg", title="The command line"))


def settings_rows(section: type[Section] = Settings, prefix: str = "") -> list[str]:
    """Return a table of all settings below a section, with those of its parts."""
    rows = ["", "| setting | default | what it is |", "|---|---|---|"]
    parts: list[str] = []
    told = described(section, prefix)
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            title = f"`{prefix}{name}`" + (f", for `method={name}` alone" if name in METHOD_SECTIONS else "")
            summary = (field.annotation.__doc__ or "").splitlines()[0]
            parts += ["", f"{'#' * (2 + prefix.count('.'))} {title}", "", summary]
            parts += settings_rows(field.annotation, f"{prefix}{name}.")
        else:
            default, words = told[prefix + name]
            rows.append(f"| `{prefix}{name}` | {default if field.is_required() else f'`{default}`'} | {words} |")
    return ([] if len(rows) == 3 else rows) + parts
