"""The embedded neighbours: they need no other service.

Ids and catalogue live in the database of this process, the archive is a folder, policy is a rule file; workers are
processes of the server.  They fulfil the same ports as `neighbours`, and pass the same conformance suites.
"""
