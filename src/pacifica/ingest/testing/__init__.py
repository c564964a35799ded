"""Doubles of every port, and a builder of bundles: for our own tests and for those of whoever builds on this package.

The doubles keep everything in memory, may be used by many threads, and fail on command::

    faults = Faults()
    archive = MemoryArchive(faults)
    faults.fail("archive.store", at=3, error=NeighbourDown("archive", "down"), after=True)

They pass the same conformance suites as the real adapters.
"""

from pacifica.ingest.testing.bundles import BundleBuilder
from pacifica.ingest.testing.faults import Faults
from pacifica.ingest.testing.jobs import MemoryJobStore
from pacifica.ingest.testing.landing import ManualClock, MemoryQueue, MemoryStaging
from pacifica.ingest.testing.neighbours import MemoryArchive, MemoryCatalogue, MemoryIds, MemoryPolicy

__all__ = [
    "BundleBuilder",
    "Faults",
    "ManualClock",
    "MemoryArchive",
    "MemoryCatalogue",
    "MemoryIds",
    "MemoryJobStore",
    "MemoryPolicy",
    "MemoryQueue",
    "MemoryStaging",
]
