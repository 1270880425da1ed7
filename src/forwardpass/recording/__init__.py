"""Module + arguments → Recording: interception, identity, attribution, costs."""

from forwardpass.recording.archives import is_record, opened, save, to_json
from forwardpass.recording.recordings import Recording
from forwardpass.recording.watching import watch

__all__ = ["Recording", "is_record", "opened", "save", "to_json", "watch"]
