"""How clients may ask: one file a protocol. The folder is the list.

A file holds

    def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]

A handler reads an Exchange, asks a Service, and gives a Reply. It raises RefusedError for what it
refuses, which `errors(error)` of the same file, if it has one, puts into that protocol's own words;
otherwise it becomes {"error": …, "row": …}.
"""
