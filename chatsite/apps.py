"""The site as an installed app, and what it changes in Django's own apps."""

from django.apps import AppConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class SiteConfig(AppConfig):
    name = "chatsite"
    default = True  # of the two here

    def ready(self) -> None:
        from chatsite import checks  # noqa: F401 they register themselves, and need the apps


class StaticFiles(StaticFilesConfig):
    """Leaves out what lies beside a front-end package's one served file."""

    ignore_patterns = [
        *StaticFilesConfig.ignore_patterns,
        *("smd.js", "*.d.ts", "*.d.ts.map", "*.md", "package.json"),
        *("highlight.js", "es/core*", "languages", "styles"),
    ]
