"""Search in memory: what a process has had in its context is found again by its words.

    index = Index(home / "memory.db", source)
    hits = await index.recall([("p12", None), ("p3", 40)], "what did Ann say about the deadline", 5)

A *space* is what is searched together: a process's context (`p12`), a file of an input, a shared segment. The package
knows no journal: it asks a `Source` for documents. Its file holds no text and can be made again from the source.
"""
