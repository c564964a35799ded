"""The test suite. A package, so that ``tests.harness`` can be imported by every test."""
