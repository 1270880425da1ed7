"""Forward + inputs → Findings: what is wrong with a pass, proved by running it."""

from forwardpass.checking.scripts import Script
from forwardpass.checking.verb import check, check_script, every

__all__ = ["Script", "check", "check_script", "every"]
