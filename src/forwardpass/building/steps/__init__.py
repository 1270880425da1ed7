"""Steps: torch module → torch module, one file each; the file's name is the step's name.

    apply(module, selected, **arguments) -> module

`module` is a copy that is ours to change, but its parameters share their storage with the
user's: put new tensors in their place, never write into them. `selected` holds the paths of the
submodules that `where` chose ("" is the module itself). Raises UsageError for arguments that make
no sense, saying which do.
"""
