"""The four services of Pacifica Core over HTTP: each adapter fulfils one port.

What they raise is of the tree in `core.errors`, whatever a service answers.  They never try again what may have had an
effect: that is for `pipeline`.  The embedded neighbours are in `local`; both pass the same conformance suites.
"""

from pacifica.ingest.neighbours.archive import HttpArchive
from pacifica.ingest.neighbours.http import TIMEOUTS, Timeouts
from pacifica.ingest.neighbours.metadata import HttpCatalogue
from pacifica.ingest.neighbours.policy import HttpPolicy
from pacifica.ingest.neighbours.uniqueid import HttpIds

__all__ = ["TIMEOUTS", "HttpArchive", "HttpCatalogue", "HttpIds", "HttpPolicy", "Timeouts"]
