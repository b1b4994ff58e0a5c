"""Gives static files their names."""

from servestatic.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Gives hashed names to what `collectstatic` has collected, plain names as long as it has not run."""

    support_js_module_import_aggregation = True
    # A script's name follows from the names it imports, so in the worst order of files each pass settles one more level
    # of imports. The order is the file system's, and Django's 5 passes are too few for many of them.
    max_post_process_passes = 20

    def stored_name(self, name: str) -> str:
        return super().stored_name(name) if self.hashed_files else name
