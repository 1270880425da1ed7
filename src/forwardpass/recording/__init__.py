"""Forward + inputs → Record: interception, identity, attribution, costs, validation."""

from forwardpass.recording.archives import is_record, opened, save, to_json
from forwardpass.recording.validating import validate
from forwardpass.recording.verb import record
from forwardpass.recording.watching import watch
from forwardpass.recording.writing import written

__all__ = ["is_record", "opened", "record", "save", "to_json", "validate", "watch", "written"]
