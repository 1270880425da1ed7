"""The page in the browser: served live, or written into one file."""

from forwardpass.showing.pages.exporting import export
from forwardpass.showing.pages.opening import Page, opened, show, waited

__all__ = ["Page", "export", "opened", "show", "waited"]
