"""The page in the browser: served live, or written into one file."""

from forwardpass.showing.pages.opening import Page, opened

__all__ = ["Page", "opened"]
