"""Installs the site as an app, and changes one of Django's own apps."""

from django.apps import AppConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class SiteConfig(AppConfig):
    name = "chatsite"
    default = True  # of the two here

    def ready(self) -> None:
        from chatsite import checks  # noqa: F401 they register themselves, and need the apps


class StaticFiles(StaticFilesConfig):
    """Collects only those files of the front-end packages that the page uses."""

    ignore_patterns = [
        *StaticFilesConfig.ignore_patterns,
        *("*.map", "*.umd.min.js", "*.md", "package.json"),
        *("highlight.js", "es/core*", "languages", "styles"),
        *("katex.css", "katex.js", "katex.mjs", "katex-swap*", "contrib"),
    ]
