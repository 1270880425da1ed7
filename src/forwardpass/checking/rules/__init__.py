"""The rules, one file each: the folder is the list, and a file's name is its rule's name.

A file `dead_units.py` is the rule `dead-units`. It holds

    def check(probe: Examination) -> Iterable[Finding]

whose docstring says what it proves, and yields findings made by `probe.finding(…)`. Evidence is
measured, never guessed from names. It raises `Inapplicable(reason)` where it can prove nothing.
Beside it stands what it needs of the record,

    NEEDS: Final[tuple[Need, ...]] = ("edges",)

and where the record lacks that it is skipped, with the reason; see nouns.records.Need.
It may run the pass again, at most `MOST_PASSES` times (3 unless the file says otherwise), by
`probe.outputs(…)`, `probe.recording(…)`, `probe.walk(…)` or `probe.timing(…)`, as it was or with a
Change; what it costs is shown. What several rules need is made by `probe.once(…)`.
"""
