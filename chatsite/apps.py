"""Installs the site as an app, and changes one of Django's own apps."""

from django.apps import AppConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class SiteConfig(AppConfig):
    name = "chatsite"
    default = True  # of the two here

    def ready(self) -> None:
        from chatsite import checks  # noqa: F401 they register themselves, and need the apps


class StaticFiles(StaticFilesConfig):
    """Collects only the one file of a front-end package that is served."""

    ignore_patterns = [
        *StaticFilesConfig.ignore_patterns,
        *("smd.js", "*.d.ts", "*.d.ts.map", "*.md", "package.json"),
        *("highlight.js", "es/core*", "languages", "styles"),
    ]
