"""How clients may ask: one file a protocol. The folder is the list.

A file holds

    def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]

    def errors(error: RefusedError) -> Reply                     # where it has words of its own
    def paths(services, options) -> Mapping[str, Any]            # its part of /openapi.json, if any

A handler reads an Exchange, asks a Service, and gives a Reply. It raises RefusedError for what it
refuses, which `errors` puts into that protocol's own words; without that it becomes
{"error": …, "row": …}.
"""
