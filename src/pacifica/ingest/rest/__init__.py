"""The HTTP edge: the documented addresses on CherryPy.

A request becomes a call of `intake` or `store` (`resource`), its body a stream of chunks (`body`), what went wrong a JSON
answer (`answer`); the plain question for a state goes around CherryPy (`shortcut`).  `listener` is the built-in server,
`engine` configures and runs it; `wsgi` serves the same application under another server.  No rule about jobs is here.
`cli` and `wsgi` call it.
"""

from pacifica.ingest.rest.answer import error_page_default
from pacifica.ingest.rest.engine import configure, serve
from pacifica.ingest.rest.resource import RestIngestState, RestMove, RestUpload, Root

__all__ = ["RestIngestState", "RestMove", "RestUpload", "Root", "configure", "error_page_default", "serve"]
